"""The truth of a recording where its sensor sees it: joints and meshes as pixels of the events, lens included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from evhands.geometry import distort_points, project
from evhands.hand.model import HandModel, pose_hand
from evhands.recording import Recording
from evhands.types import Camera, HandPose

_AT_ONCE = 2048
"""Hands that are posed at once: hours of labels do not fit into memory."""


@dataclass(frozen=True)
class Placed:
    """The labels of a recording with hand poses, in order of time, with the model of their hand."""

    t_us: np.ndarray
    pose: HandPose
    hand: HandModel
    camera: Camera
    K_image: np.ndarray
    K_points: np.ndarray

    @property
    def faces(self) -> np.ndarray:
        return np.asarray(self.hand.faces.numpy(), np.int32)

    @cached_property
    def joints_m(self) -> np.ndarray:
        """(m, 21, 3): joints of the hand model at the poses."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(self.t_us), _AT_ONCE):
                rows = np.arange(start, min(start + _AT_ONCE, len(self.t_us)))
                parts.append(pose_hand(self.hand, pose_rows(self.pose, rows)).joints().numpy())
        return np.concatenate(parts).astype(np.float64)

    def vertices(self, rows: np.ndarray) -> np.ndarray:
        """(k, v, 3) in metres in the camera's frame."""
        with torch.no_grad():
            return pose_hand(self.hand, pose_rows(self.pose, rows)).mesh().vertices.numpy().astype(np.float64)

    def corners(self, rows: np.ndarray) -> np.ndarray:
        """(k, v, 3): u, v in pixels of the sensor, and depth, of the vertices."""
        vertices = self.vertices(rows)
        return np.concatenate([self.pixels(vertices), vertices[..., 2:]], -1)

    def pixels(self, points_m: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the sensor, where the lens has put them, of points of the camera's frame."""
        return sensor_pixels(points_m, self.camera, self.K_image, self.K_points)

    def rows_between(self, start_us: float, end_us: float) -> np.ndarray:
        return np.arange(np.searchsorted(self.t_us, start_us), np.searchsorted(self.t_us, end_us, "right"))

    def speed_px_s(self) -> np.ndarray:
        """(m,) mean speed of the projected joints."""
        pixels = self.pixels(self.joints_m)
        moved = np.linalg.norm(np.gradient(pixels, self.t_us * 1e-6, axis=0), axis=-1).mean(-1)
        return np.where(np.isfinite(moved) & (self.joints_m[..., 2] > 0).all(-1), moved, 0.0)


def matrices(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """(K_image, K_points): the matrix of the undistorted image and the one that projects points."""
    both = recording.rectification
    return (recording.camera.K, recording.camera.K) if both is None else (both.K_image, both.K_points)


def sensor_pixels(points_m: Any, camera: Camera, K_image: np.ndarray, K_points: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of the sensor of points (..., 3) of the camera's frame; lens and rectification included."""
    points = np.asarray(points_m, np.float64)
    with np.errstate(all="ignore"):
        flat = distort_points(project(points.reshape(-1, 3), K_points), camera.K, camera.distortion, K_image)
    return flat.reshape(*points.shape[:-1], 2)


def pose_rows(pose: HandPose, rows: np.ndarray) -> HandPose:
    fields = {name: getattr(pose, name)[rows] for name in ("orientation", "wrist", "joints", "shape")}
    return HandPose(side=pose.side, hand_model=pose.hand_model, **fields)
