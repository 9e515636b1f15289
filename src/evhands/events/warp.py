"""Warping events along an optical flow, and images of warped events (IWE); numba and numpy, torch in `warp_torch`.

Flow is in pixels of the batch's image per window, (b, 2, h, w) with x first. An event at (x, y, t) moves to
(x, y) + (t_ref - t) flow(floor x, floor y): the flow is read without interpolation. t_ref = 1 warps forward to the end
of the window, 0 backward to its start. Equations: EvHandPose, Pose-to-IWE.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from numba import njit

from evhands.events.representations import event_image
from evhands.types import WindowBatch


def warp_events(batch: WindowBatch, flow: Float[np.ndarray, "b 2 h w"], t_ref: float) -> WindowBatch:
    """The events moved to where they are at t_ref; they keep order, time and polarity, and may leave the image.

    Where (floor x, floor y) is outside the image there is no flow: x and y become NaN, which acts on no pixel.
    """
    x, y, t = (np.ascontiguousarray(column, np.float32) for column in (batch.x, batch.y, batch.t))
    moved_x, moved_y = np.empty_like(x), np.empty_like(y)
    offsets = np.ascontiguousarray(batch.offsets, np.int64)
    _warp(x, y, t, offsets, np.ascontiguousarray(flow, np.float32), np.float32(t_ref), moved_x, moved_y)
    return replace(batch, x=moved_x, y=moved_y)


def image_of_warped_events(
    batch: WindowBatch, flow: Float[np.ndarray, "b 2 h w"], t_ref: float
) -> Float32[np.ndarray, "b 2 h w"]:
    """Bilinear counts of the warped events, channel 0 = ON, 1 = OFF; zeros for a window without events."""
    return event_image(warp_events(batch, flow, t_ref))


def contrast(image: Float[Any, "*b c h w"]) -> Float[Any, "*b"]:
    """Variance over the pixels of each polarity, mean over the polarities: events^2 per pixel; numpy or torch.

    Sharper images have more. Zero without events.
    """
    return ((image - image.mean((-2, -1))[..., None, None]) ** 2).mean((-3, -2, -1))


def edge_slices(count: int, share: float = 0.3, least: int = 120) -> tuple[slice, slice]:
    """The last and the first `share` of `count` events, at least `least`: for forward and for backward edges.

    Forward [min(int((1 - share) n), n - least), n), backward [0, max(int(share n), least)), both within [0, n): with
    fewer than `least` events all of them (the published slices are then empty, and reach into padding, O34).
    """
    first = max(min(int((1 - share) * count), count - least), 0)
    last = min(max(int(share * count), least), count)
    return slice(first, count), slice(0, last)


def thin_windows(batch: WindowBatch, most: int, rng: np.random.Generator) -> WindowBatch:
    """At most `most` events a window: a random subset without repetition, in the order they had."""
    counts = np.diff(batch.offsets)
    window = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((rng.random(len(window)), window))
    index = np.sort(order[np.arange(len(order)) - batch.offsets[window] < most])
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, most))]).astype(np.int64)
    return replace(batch, x=batch.x[index], y=batch.y[index], t=batch.t[index], p=batch.p[index], offsets=offsets)


@njit(cache=True, nogil=True)
def _warp(x, y, t, offsets, flow, t_ref, moved_x, moved_y):
    height, width = flow.shape[2], flow.shape[3]
    for window in range(len(offsets) - 1):
        for i in range(offsets[window], offsets[window + 1]):
            if x[i] >= 0 and x[i] < width and y[i] >= 0 and y[i] < height:
                row, column = int(y[i]), int(x[i])
                moved_x[i] = x[i] + (t_ref - t[i]) * flow[window, 0, row, column]
                moved_y[i] = y[i] + (t_ref - t[i]) * flow[window, 1, row, column]
            else:
                moved_x[i] = np.float32(np.nan)
                moved_y[i] = np.float32(np.nan)
