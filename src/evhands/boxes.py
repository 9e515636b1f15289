"""Square crops of the undistorted image, and the events in them: what a tracker looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

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
    return int(np.count_nonzero(inside(window.events, box, camera)))


def inside(events: Events, box: CropBox, camera: Camera) -> np.ndarray:
    """Which events (n,) fall into the crop."""
    x0, y0, x1, y1 = box.corners()
    if np.any(camera.distortion):
        along = np.linspace(0, 1, 5)
        x, y = (grid.ravel() for grid in np.meshgrid(x0 + along * (x1 - x0), y0 + along * (y1 - y0)))
        edge = distort_points(np.stack([x, y], axis=-1), camera.K, camera.distortion)
        (x0, y0), (x1, y1) = edge.min(axis=0), edge.max(axis=0)
    return (events.x >= x0) & (events.x <= x1) & (events.y >= y0) & (events.y <= y1)


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
    column, row = (window.events.x.astype(np.int64) * 8 // width, window.events.y.astype(np.int64) * 8 // height)
    cells = np.bincount(row * 8 + column, minlength=64)
    return float(np.quantile(cells, 0.25)) * 64 / (width * height)


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
