"""The one preprocessing path: a window of events, a camera and a crop become the images that a network reads.

Training, evaluation, live tracking and exported models all go through `crop_inputs`. It imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from evhands.boxes import CropBox, time_of_last_inside
from evhands.events.representations import lnes, voxel_grid
from evhands.events.windows import batch_windows, crop_map
from evhands.geometry import crop_camera, resize_camera, undistortion_map
from evhands.types import Camera, Events, EventWindow, Size, WindowBatch

OVERVIEW_SIZE = (88, 64)
"""Width and height of the small picture of the whole image that the detector reads."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What a network wants to see. Lengths in microseconds; `crop_scale` is side of the crop / larger extent of the
    joints.

    fill_events, longest_us: a window with fewer events in the crop is begun earlier, until it holds so many or is so
    long: a slow hand through a long window looks like a fast one through a short window. 0 = windows stay as they are.
    """

    size_px: int = 96
    window_us: int = 66_667
    stride_us: int = 33_333
    crop_scale: float = 1.7
    voxel_bins: int = 0
    """Bins of the voxel grid; 0 = the network reads no voxel grid."""
    fill_events: int = 0
    longest_us: int = 200_000


def crop_around(points_px: Float[np.ndarray, "n 2"], camera: Camera, config: InputConfig) -> Camera:
    """The square crop around 2D points (the 21 joints of a hand), as a camera; never smaller than 16 pixels."""
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    side = max(float((high - low).max()) * config.crop_scale, 16.0)
    return crop_camera(camera, (low + high) / 2, side, config.size_px)


FILLED = InputConfig(fill_events=1000)
"""What `small` reads, and what shards are made for."""


def filled_window(
    window: EventWindow, recent: Events, box: CropBox | None, camera: Camera, config: InputConfig
) -> EventWindow:
    """The window, begun earlier where it holds fewer than `fill_events` in the crop (without one: in the image).

    recent: the events of the window and before it, `longest_us` back or more; later ones are not looked at.
    """
    if config.fill_events <= 0:
        return window
    recent = recent.between(min(window.end_us - config.longest_us, window.start_us), window.end_us)
    start = int(recent.t_us[0]) if len(recent) else window.start_us
    if box is not None:
        filled_us = time_of_last_inside(recent, box, camera, config.fill_events)
        start = start if filled_us is None else filled_us
    elif len(recent) >= config.fill_events:
        start = int(recent.t_us[-config.fill_events])
    start = min(start, window.start_us)
    return EventWindow(recent.between(start, window.end_us), start, window.end_us)


def crop_windows(windows: Sequence[EventWindow], camera: Camera, crops: Sequence[Camera]) -> WindowBatch:
    """The events of each window in the pixels of its crop: undistorted, moved, and cut at the crop's edges.

    All crops must have the same size. Every event of a window is used; an empty window stays empty.
    """
    table = _undistortion_table(camera) if np.any(camera.distortion) else None
    return batch_windows(windows, [crop_map(camera, crop, table) for crop in crops], inside="centres")


def _undistortion_table(camera: Camera) -> np.ndarray:
    return _cached_table(camera.K.tobytes(), camera.distortion.tobytes(), camera.size)


@lru_cache(maxsize=4)
def _cached_table(K: bytes, distortion: bytes, size: Size) -> np.ndarray:
    """A camera stays for a recording, and its table costs as much as hundreds of windows."""
    return undistortion_map(Camera(np.frombuffer(K).reshape(3, 3), size, np.frombuffer(distortion)))


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


def mirror_images(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same crops seen in a mirror: images flipped about the vertical axis, the principal point with them."""
    K = inputs["K"].copy()
    K[:, 0, 2] = inputs["lnes"].shape[-1] - 1 - K[:, 0, 2]
    return {name: K if name == "K" else np.ascontiguousarray(v[..., ::-1]) for name, v in inputs.items()}


def overview_camera(camera: Camera) -> Camera:
    """The whole image, shrunk to `OVERVIEW_SIZE` without changing its proportions (empty margins right or below)."""
    scale = min(OVERVIEW_SIZE[0] / camera.size[0], OVERVIEW_SIZE[1] / camera.size[1])
    small = resize_camera(camera, (round(camera.size[0] * scale), round(camera.size[1] * scale)))
    return Camera(small.K, OVERVIEW_SIZE)


def overview(window: EventWindow, camera: Camera) -> np.ndarray:
    """(1, 2, h, w) LNES of the whole image at the size of `OVERVIEW_SIZE`."""
    config = InputConfig(window_us=window.end_us - window.start_us)
    return crop_inputs([window], camera, [overview_camera(camera)], config)["lnes"]
