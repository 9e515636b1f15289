"""The labels of a recording as arrays, in the undistorted image of its event camera; what a row lacks is NaN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from evhands.geometry import undistort_points
from evhands.recording import Recording
from evhands.types import InputError, Side

MIRROR_POINT = np.array([-1, 1, 1], np.float32)
MIRROR_ROTVEC = np.array([1, -1, -1], np.float32)  # rotation vectors are axial


@dataclass(frozen=True)
class Labels:
    """What is known of a hand at m times (int64 us, ascending, on the clock of the events).

    orientation, wrist, joints, shape: as in `HandPose`. joints_m: `openpose21`, metres. joints_px: pixels of the
    undistorted image. boxes_px: around the annotated box, undistorted. raw_squares_px (x, y, side): what the published
    code makes the crops of fast sequences of, undistorted in part (O20).
    """

    t_us: Int64[np.ndarray, " m"]
    orientation: Float32[np.ndarray, "m 3"]
    wrist: Float32[np.ndarray, "m 3"]
    joints: Float32[np.ndarray, "m 15 3"]
    shape: Float32[np.ndarray, "m 10"]
    joints_m: Float32[np.ndarray, "m 21 3"]
    joints_px: Float32[np.ndarray, "m 21 2"]
    boxes_px: Float32[np.ndarray, "m 4"]
    raw_squares_px: Float32[np.ndarray, "m 3"]
    side: Side = "right"
    hand_model: str = "open"

    def __len__(self) -> int:
        return len(self.t_us)

    @property
    def posed(self) -> Bool[np.ndarray, " m"]:
        """Which rows hold the parameters of a hand model."""
        return np.isfinite(self.wrist[:, 0])

    @property
    def located(self) -> Bool[np.ndarray, " m"]:
        """Which rows hold joints, in space or in the image: those that something can be learnt or scored from."""
        return np.isfinite(self.joints_m[:, 0, 0]) | np.isfinite(self.joints_px[:, 0, 0])

    def arrays(self) -> dict[str, Any]:
        """Everything by name, for `np.savez`."""
        return dict(vars(self))

    @staticmethod
    def from_arrays(arrays: dict[str, Any]) -> Labels:
        words = {name: str(arrays[name]) for name in ("side", "hand_model")}
        return Labels(**{**arrays, **words})

    def of_marks_alone(self) -> Labels:
        """The labels without poses and joints in space: what a person marked in the image, and boxes."""
        names = ("orientation", "wrist", "joints", "shape", "joints_m")
        unknown = {name: np.full_like(getattr(self, name), np.nan) for name in names}
        return replace(self, hand_model="open", **unknown)

    def mirrored(self, centre_x: float) -> Labels:
        """The labels of the hand of the other side that is the mirror image in x = 0 of a camera with that cx."""
        flip_px = np.array([-1, 1], np.float32)
        boxes = self.boxes_px[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
        return replace(
            self,
            side="left" if self.side == "right" else "right",
            orientation=self.orientation * MIRROR_ROTVEC,
            wrist=self.wrist * MIRROR_POINT,
            joints=self.joints * MIRROR_ROTVEC,
            joints_m=self.joints_m * MIRROR_POINT,
            joints_px=self.joints_px * flip_px + np.array([2 * centre_x, 0], np.float32),
            boxes_px=boxes + np.array([2 * centre_x, 0, 2 * centre_x, 0], np.float32),
            raw_squares_px=self.raw_squares_px * np.array([-1, 1, 1], np.float32)
            + np.array([2 * centre_x, 0, 0], np.float32),
        )


def labels_of(recording: Recording, iterations: int | None = None) -> Labels:
    """The labels of a recording in the order of time; points and boxes of the sensor go into the undistorted image."""
    t_us = np.zeros(0, np.int64) if recording.pose_t_us is None else recording.pose_t_us
    order = np.argsort(t_us, kind="stable")
    if len(same := np.flatnonzero(np.diff(t_us[order]) == 0)):
        raise InputError(
            f"it has two labels at {t_us[order][same[0]]} us. Wanted one hand at a time; take one of them out."
        )
    count, pose, tags = len(t_us), recording.pose, recording.tags

    def rows(values: Any, *shape: int) -> np.ndarray:
        if values is None:
            return np.full((count, *shape), np.nan, np.float32)
        return np.asarray(values, np.float32)[order]

    def image(points: np.ndarray) -> np.ndarray:
        return _to_image(points, recording, iterations)

    joints_px, boxes = rows(recording.joints_px, 21, 2), rows(recording.boxes_px, 4)
    return Labels(
        t_us=t_us[order],
        orientation=rows(None if pose is None else pose.orientation, 3),
        wrist=rows(None if pose is None else pose.wrist, 3),
        joints=rows(None if pose is None else pose.joints, 15, 3),
        shape=rows(None if pose is None else pose.shape, 10),
        joints_m=rows(recording.joints_m, 21, 3),
        joints_px=image(joints_px),
        boxes_px=_bounding(image(_corners(boxes))),
        raw_squares_px=_raw_squares(joints_px, boxes, image),
        side=pose.side if pose is not None else tags.side if tags is not None else "right",
        hand_model=pose.hand_model if pose is not None else "open",
    )


def _to_image(points: np.ndarray, recording: Recording, iterations: int | None) -> np.ndarray:
    lens, both = recording.camera, recording.rectification
    K_image = lens.K if both is None else both.K_image
    if not np.any(lens.distortion) and np.array_equal(K_image, lens.K):
        return points
    flat = undistort_points(points.reshape(-1, 2).astype(np.float64), lens.K, lens.distortion, K_image, iterations)
    return flat.reshape(points.shape).astype(np.float32)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """(m, 4, 2) of x0, y0, x1, y1."""
    return boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)


def _bounding(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(1), points.max(1)], -1) if len(points) else np.zeros((0, 4), np.float32)


def _raw_squares(joints_px: np.ndarray, boxes: np.ndarray, image: Any) -> np.ndarray:
    """(m, 3) x, y, side: of joints the undistorted centre and 1.5 times their extent on the sensor, else the box as it
    lies on the sensor (O20); NaN without a box."""
    low, high = joints_px.min(1, initial=np.inf), joints_px.max(1, initial=-np.inf)
    of_joints = np.concatenate([image((low + high) / 2), 1.5 * (high - low).max(-1, keepdims=True)], -1)
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    of_box = np.concatenate([centre, sides.max(-1, keepdims=True)], -1)
    squares = np.where(np.isfinite(joints_px[:, :1, 0]), of_joints, of_box)
    squares[~np.isfinite(boxes[:, 0])] = np.nan
    return squares.astype(np.float32)
