"""The one preprocessing path: a window of events, a camera and a crop become the images that a network reads.

Training, evaluation, live tracking and exported models all go through `crop_inputs`. It imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from evhands.events.representations import lnes, voxel_grid
from evhands.geometry import affine_between, crop_camera, resize_camera, undistortion_map
from evhands.types import Camera, EventWindow, WindowBatch

OVERVIEW_SIZE = (88, 64)
"""Width and height of the small picture of the whole image that the detector reads."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What a network wants to see. Lengths in microseconds; `crop_scale` is side of the crop / larger extent of the
    joints."""

    size_px: int = 96
    window_us: int = 66_667
    stride_us: int = 33_333
    crop_scale: float = 1.7
    voxel_bins: int = 0
    """Bins of the voxel grid; 0 = the network reads no voxel grid."""


def crop_around(points_px: Float[np.ndarray, "n 2"], camera: Camera, config: InputConfig) -> Camera:
    """The square crop around 2D points (the 21 joints of a hand), as a camera; never smaller than 16 pixels."""
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    side = max(float((high - low).max()) * config.crop_scale, 16.0)
    return crop_camera(camera, (low + high) / 2, side, config.size_px)


def crop_windows(windows: Sequence[EventWindow], camera: Camera, crops: Sequence[Camera]) -> WindowBatch:
    """The events of each window in the pixels of its crop: undistorted, moved, and cut at the crop's edges.

    All crops must have the same size. Every event of a window is used; an empty window stays empty.
    """
    lookup = undistortion_map(camera) if np.any(camera.distortion) else None
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for window, crop in zip(windows, crops, strict=True):
        columns.append(_one_window(window, affine_between(camera, crop), crop.size, lookup))
    offsets = np.cumsum([0] + [len(c[0]) for c in columns], dtype=np.int64)
    x, y, t, p = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return WindowBatch(x, y, t, p, offsets, crops[0].size)


def _one_window(
    window: EventWindow,
    affine: tuple[np.ndarray, np.ndarray],
    size: tuple[int, int],
    lookup: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    events = window.events
    if lookup is None:
        x, y = events.x.astype(np.float32), events.y.astype(np.float32)
    else:
        points = lookup[events.y, events.x]
        x, y = points[:, 0], points[:, 1]
    scale, offset = affine
    x = x * np.float32(scale[0]) + np.float32(offset[0])
    y = y * np.float32(scale[1]) + np.float32(offset[1])
    inside = (x >= 0) & (y >= 0) & (x <= size[0] - 1) & (y <= size[1] - 1)
    length = max(window.end_us - window.start_us, 1)
    t = ((events.t_us[inside] - window.start_us) / length).astype(np.float32)
    return x[inside], y[inside], t, events.p[inside]


def crop_inputs(
    windows: Sequence[EventWindow], camera: Camera, crops: Sequence[Camera], config: InputConfig
) -> dict[str, np.ndarray]:
    """The network's images of some windows, each seen through its crop.

    Returns `lnes` (b, 2, s, s) float32 in [0, 1], `K` (b, 3, 3) float32 of the crops and, where the config asks for
    it, `voxel` (b, bins, s, s). A window without events gives zeros.
    """
    batch = crop_windows(windows, camera, crops)
    inputs = {"lnes": lnes(batch), "K": np.stack([crop.K for crop in crops]).astype(np.float32)}
    if config.voxel_bins:
        inputs["voxel"] = voxel_grid(batch, config.voxel_bins)
    return inputs


def overview_camera(camera: Camera) -> Camera:
    """The whole image, shrunk to `OVERVIEW_SIZE` without changing its proportions (empty margins right or below)."""
    scale = min(OVERVIEW_SIZE[0] / camera.size[0], OVERVIEW_SIZE[1] / camera.size[1])
    small = resize_camera(camera, (round(camera.size[0] * scale), round(camera.size[1] * scale)))
    return Camera(small.K, OVERVIEW_SIZE)


def overview(window: EventWindow, camera: Camera) -> np.ndarray:
    """(1, 2, h, w) LNES of the whole image at the size of `OVERVIEW_SIZE`."""
    config = InputConfig(window_us=window.end_us - window.start_us)
    return crop_inputs([window], camera, [overview_camera(camera)], config)["lnes"]
