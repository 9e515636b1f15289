"""Where the crops of a sequence lie: square, about the hand at both ends of a window, as (s, left, top).

A crop (s, left, top) of an image with principal point (cx, cy) is u' = (u - cx) s + cx - left, v' likewise with cy and
top. EvHandPose, specification section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.interpolate import BSpline, make_interp_spline

from evhands.data.labels import Labels
from evhands.geometry import project


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """side = scale * the larger extent of the joints, at least least_px; resized to size_px. middle_px: where in the
    crop the middle of the hand lands; None is (size - 1) / 2, the published code takes size / 2."""

    size_px: int = 128
    scale: float = 2.0
    least_px: float = 16.0
    middle_px: float | None = None

    @property
    def middle(self) -> float:
        return (self.size_px - 1) / 2 if self.middle_px is None else self.middle_px


@dataclass(frozen=True)
class HandPath:
    """Where a hand is in the undistorted image at any time: interpolated between labels, elsewhere as at the nearest.

    spline: over seconds after t0_us, of 21 joints in space (`joints`), or, where a recording has none, of squares (x,
    y, side) that hold the hand with a margin. margin: by how much a crop is wider than the outline.
    """

    spline: BSpline
    t0_us: int
    range_s: tuple[float, float]
    K: Float64[np.ndarray, "3 3"]
    joints: bool
    margin: float

    def outline(self, since_us: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n p 2"]:
        """Pixels around the hand at times after t0_us: of the 21 joints, or of the 4 corners of its square."""
        values = self.spline(np.clip(since_us * 1e-6, *self.range_s))
        if self.joints:
            return project(values.reshape(-1, 21, 3), self.K)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        return values[:, None, :2] + values[:, None, 2:] * corners


def hand_path(
    labels: Labels, K: Float64[np.ndarray, "3 3"], config: CropConfig, *, raw_squares: bool = False
) -> HandPath | None:
    """The path of a recording's hand, None where its labels do not say where it is.

    Joints in space are interpolated by a cubic spline, as published; squares of joints in the image (with the margin of
    the crop) or annotated boxes (which have their own) along straight lines. raw_squares: the published squares, half
    of them of the distorted image, by a quadratic spline (O20).
    """
    in_space = np.isfinite(labels.joints_m).all((1, 2))
    joints = bool(in_space.any())
    if joints:
        rows, degree, margin = in_space, 3, config.scale
        values = labels.joints_m.reshape(-1, 63)
    else:
        values, degree, margin = (labels.raw_squares_px, 2, 1.0) if raw_squares else (_squares(labels, config), 1, 1.0)
        rows = np.isfinite(values).all(1)
    if not rows.any():
        return None
    t0_us = int(labels.t_us[rows][0])
    t_s = (labels.t_us[rows] - t0_us) * 1e-6
    spline = make_interp_spline(t_s, values[rows].astype(np.float64), k=min(degree, len(t_s) - 1))
    return HandPath(spline, t0_us, (0.0, float(t_s[-1])), K, joints, margin)


def _squares(labels: Labels, config: CropConfig) -> np.ndarray:
    """(m, 3) x, y, side of the crop around the joints in the image, else around the annotated box."""
    low, high = labels.joints_px.min(1, initial=np.inf), labels.joints_px.max(1, initial=-np.inf)
    boxes = labels.boxes_px
    of_joints = np.concatenate([(low + high) / 2, config.scale * (high - low).max(-1, keepdims=True)], -1)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(-1, keepdims=True)
    of_box = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, sides], -1)
    return np.where(np.isfinite(of_joints), of_joints, of_box)


def window_boxes(outlines: Float[np.ndarray, "*b edges p 2"]) -> Float64[np.ndarray, "*b windows 4"]:
    """x0, y0, x1, y1 of the hand at both ends of every window, from its outlines at the edges between windows."""
    low, high = outlines.min(-2), outlines.max(-2)
    return np.concatenate(
        [np.minimum(low[..., :-1, :], low[..., 1:, :]), np.maximum(high[..., :-1, :], high[..., 1:, :])], -1
    )


def crops_around(
    centre: Float[np.ndarray, "*b 2"],
    extent: Float[np.ndarray, "*b"],
    jitter: Float[np.ndarray, "*b 2"],
    K: Float[np.ndarray, "*k 3 3"],
    config: CropConfig,
    margin: float,
) -> Float64[np.ndarray, "*b 3"]:
    """(s, left, top) of square crops about centres (px), margin times as wide as extent (px); jitter in crop sides
    moves the crop's window over the image, so that the hand moves the other way."""
    scale = config.size_px / np.maximum(margin * extent, config.least_px)
    principal = K[..., :2, 2]
    corner = (centre - principal) * scale[..., None] + principal - config.middle + jitter * config.size_px
    return np.concatenate([scale[..., None], corner], -1)


def crop_affine(crop: Float[np.ndarray, "*b 3"], K: Float[np.ndarray, "*k 3 3"]) -> Float64[np.ndarray, "*b 3"]:
    """(s, x0, y0) with u' = s u + x0, v' = s v + y0."""
    scale = crop[..., :1]
    return np.concatenate([scale, K[..., :2, 2] * (1 - scale) - crop[..., 1:]], -1)


def crop_of_camera(
    crop: Float[np.ndarray, "*b 3"], image_K: Float[np.ndarray, "3 3"], K: Float[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "*b 3"]:
    """The (s, left, top) that cuts the same crop from the image of K, where `crop` cuts it from that of image_K.

    The two differ by focal length and principal point: another crop.
    """
    ratio, shift = image_K[0, 0] / K[0, 0], image_K[:2, 2] - K[:2, 2]
    return np.concatenate([crop[..., :1] * ratio, crop[..., 1:] - shift], -1)


def crop_matrix(crop: Float[np.ndarray, "*b 3"], K: Float[np.ndarray, "*k 3 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """The camera matrix of the crop: what projects points of the camera K straight into the crop's pixels."""
    affine = crop_affine(crop, K)
    matrix = np.broadcast_to(K, (*crop.shape[:-1], 3, 3)).astype(np.float64)
    matrix = matrix * np.concatenate([affine[..., :1], affine[..., :1], np.ones_like(affine[..., :1])], -1)[..., None]
    matrix[..., :2, 2] += affine[..., 1:]
    return matrix
