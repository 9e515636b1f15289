"""Square crops of the undistorted image, and the events in them: what a tracker looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit

from evhands.events.flashes import grid_cells
from evhands.geometry import distort_points, project
from evhands.types import Camera, Events, EventWindow


@dataclass(frozen=True)
class CropBox:
    """A square crop of the undistorted image."""

    centre_px: Float[np.ndarray, " 2"]
    side_px: float

    def corners(self) -> Float[np.ndarray, " 4"]:
        """x0, y0, x1, y1."""
        half = self.side_px / 2
        return np.concatenate([self.centre_px - half, self.centre_px + half])


def sensor_pixels(points: Float[np.ndarray, "*b 3"], camera: Camera) -> Float[np.ndarray, "*b 2"]:
    """Where points of the camera frame lie on the sensor, lens distortion included."""
    pixels = project(points, camera.K)
    if not np.any(camera.distortion):
        return pixels
    return distort_points(pixels.reshape(-1, 2), camera.K, camera.distortion).reshape(pixels.shape)


def joints_box(joints_m: Float[np.ndarray, "21 3"], camera: Camera, crop_scale: float) -> CropBox:
    """The square about the projected joints, `crop_scale` times the larger side of their bounding box."""
    pixels = project(joints_m, camera.K)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return CropBox((low + high) / 2, float(crop_scale * (high - low).max()))


def events_inside(window: EventWindow, box: CropBox, camera: Camera) -> int:
    """How many events fall into the crop; with a distorted lens, into the sensor rectangle around it."""
    return int(_count_inside(window.events.x, window.events.y, *_limits(box, camera)))


def inside(events: Events, box: CropBox, camera: Camera) -> np.ndarray:
    """Which events (n,) fall into the crop."""
    return _inside(events.x, events.y, *_limits(box, camera))


def time_of_last_inside(events: Events, box: CropBox, camera: Camera, count: int) -> int | None:
    """When the last `count` events in the crop begin, in microseconds; None where there are fewer."""
    found = _last_inside(events.x, events.y, *_limits(box, camera), count)
    return None if found < 0 else int(events.t_us[found])


def _limits(box: CropBox, camera: Camera) -> tuple[float, float, float, float]:
    """The rectangle of the sensor that holds the crop: x0, y0, x1, y1."""
    x0, y0, x1, y1 = (float(value) for value in box.corners())
    if not np.any(camera.distortion):
        return x0, y0, x1, y1
    along = np.linspace(0, 1, 5)
    x, y = (grid.ravel() for grid in np.meshgrid(x0 + along * (x1 - x0), y0 + along * (y1 - y0)))
    edge = distort_points(np.stack([x, y], axis=-1), camera.K, camera.distortion)
    (x0, y0), (x1, y1) = edge.min(axis=0).tolist(), edge.max(axis=0).tolist()
    return x0, y0, x1, y1


@njit(cache=True, nogil=True)
def _inside(x, y, x0, y0, x1, y1):
    found = np.empty(len(x), np.bool_)
    for i in range(len(x)):
        found[i] = (x[i] >= x0) & (x[i] <= x1) & (y[i] >= y0) & (y[i] <= y1)
    return found


@njit(cache=True, nogil=True)
def _count_inside(x, y, x0, y0, x1, y1):
    found = 0
    for i in range(len(x)):
        found += (x[i] >= x0) & (x[i] <= x1) & (y[i] >= y0) & (y[i] <= y1)
    return found


@njit(cache=True, nogil=True)
def _last_inside(x, y, x0, y0, x1, y1, count):
    """The index of the event from which on `count` lie inside, else -1: looked for from the end, it is near."""
    for i in range(len(x) - 1, -1, -1):
        count -= (x[i] >= x0) & (x[i] <= x1) & (y[i] >= y0) & (y[i] <= y1)
        if count <= 0:
            return i
    return -1


@njit(cache=True, nogil=True)
def _cells(x, y, width, height):
    columns, rows = grid_cells(width, height)
    cells = np.zeros(64, np.int64)
    for i in range(len(x)):
        cells[rows[y[i]] + columns[x[i]]] += 1
    return cells


def without_boxes(events: Events, boxes: Sequence[CropBox], camera: Camera) -> Events:
    """The events outside all boxes."""
    if not boxes:
        return events
    gone = np.zeros(len(events), bool)
    for box in boxes:
        gone |= inside(events, box, camera)
    return events[~gone]


NOISE_MARGIN = 1.35
"""The quieter quarter of the cells underrates noise that is even by up to a quarter (Poisson, 15 events a cell)."""


def noise_density(window: EventWindow) -> float:
    """Events a pixel in the quieter parts of the image, where no hand is: the lower quartile of an 8 x 8 grid."""
    width, height = window.events.size
    cells = np.sort(_cells(window.events.x, window.events.y, width, height))
    return float(cells[15] + 0.75 * (cells[16] - cells[15])) * 64 / (width * height)


def overlap(a: CropBox, b: CropBox) -> float:
    """Intersection over union."""
    first, second = a.corners(), b.corners()
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = float(np.prod(np.maximum(sides, 0)))
    return intersection / max(a.side_px**2 + b.side_px**2 - intersection, 1e-9)


def recent_events(recent: Events | None, window: EventWindow, length_us: int) -> Events:
    """The events of the last `length_us` before the end of the window; windows may overlap or leave gaps."""
    if recent is None:
        return window.events
    seen_us = int(recent.t_us[-1]) + 1 if len(recent) else window.start_us
    older = recent.between(window.end_us - length_us, window.end_us)
    return Events.concatenate([older, window.events.between(max(seen_us, window.start_us), window.end_us)])
