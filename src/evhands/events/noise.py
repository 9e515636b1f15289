"""Filters that tell events of the scene from sensor noise; numba, streaming: state is passed in and handed back.

The activity filter looks only at events that came before: chunk by chunk it gives the same as on the whole recording.
The hot-pixel filter judges by what has been counted so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit

from evhands.types import Events, Size

LONG_AGO = -(2**62)


@dataclass(frozen=True)
class ActivityState:
    """The time of the last event at each pixel, with a border of one pixel; LONG_AGO where there was none."""

    last_us: Int64[np.ndarray, "h_plus_2 w_plus_2"]

    @staticmethod
    def initial(size: Size) -> ActivityState:
        return ActivityState(np.full((size[1] + 2, size[0] + 2), LONG_AGO, np.int64))


def activity_filter(
    events: Events, state: ActivityState | None = None, *, within_us: int = 8_000, neighbours: int = 1
) -> tuple[Bool[np.ndarray, " n"], ActivityState]:
    """Which events to keep: those with at least `neighbours` of the 8 pixels around active in the last `within_us`.

    Either polarity counts, the pixel itself does not; dropped events still count as activity. Gives the KEEP mask and
    the state after the last event (the given one is not written to). Source: the background-activity filter of
    Delbruck 2008 with a threshold, as the published EvHandPose code has it (its mask is reproduced exactly).
    """
    last_us = (ActivityState.initial(events.size) if state is None else state).last_us.copy()
    keep = np.empty(len(events), np.bool_)
    x, y, t_us = _columns(events)
    _activity(x, y, t_us, within_us, neighbours, last_us, keep)
    return keep, ActivityState(last_us)


@dataclass(frozen=True)
class HotPixelState:
    """Events counted at each pixel so far, and in all."""

    counts: Int64[np.ndarray, "h w"]

    @staticmethod
    def initial(size: Size) -> HotPixelState:
        return HotPixelState(np.zeros((size[1], size[0]), np.int64))


def hot_pixels(state: HotPixelState, *, ratio: float = 20.0, least: int = 100) -> Bool[np.ndarray, "h w"]:
    """Pixels that fired more than `ratio` times the most active of their 8 neighbours, and at least `least` times.

    A hand that moves excites neighbours alike; a hot pixel stands alone.
    """
    padded = np.pad(state.counts, 1)
    height, width = state.counts.shape
    around = [padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in _AROUND]
    most = np.maximum(np.max(around, axis=0), 1)
    return (state.counts > ratio * most) & (state.counts >= least)


_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def hot_pixel_filter(
    events: Events, state: HotPixelState | None = None, *, ratio: float = 20.0, least: int = 100
) -> tuple[Bool[np.ndarray, " n"], HotPixelState]:
    """Which events to keep: those of pixels that are not hot (`hot_pixels`) by all counts so far, this chunk included.

    Gives the KEEP mask and the counts with this chunk added. Every event needs its pixel on the sensor.
    """
    counts = (HotPixelState.initial(events.size) if state is None else state).counts
    flat = np.ravel_multi_index((events.y, events.x), counts.shape)
    after = HotPixelState(counts + np.bincount(flat, minlength=counts.size).reshape(counts.shape))
    return ~hot_pixels(after, ratio=ratio, least=least)[events.y, events.x], after


def _columns(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns in the one layout that the kernel is compiled for."""
    x, y = np.ascontiguousarray(events.x, np.uint16), np.ascontiguousarray(events.y, np.uint16)
    return x, y, np.ascontiguousarray(events.t_us, np.int64)


@njit(cache=True, nogil=True)
def _activity(x, y, t_us, within_us, neighbours, last_us, keep):
    height, width = last_us.shape[0] - 2, last_us.shape[1] - 2
    for i in range(len(x)):
        if x[i] >= width or y[i] >= height:
            keep[i] = False
            continue
        row, column, since = int(y[i]) + 1, int(x[i]) + 1, t_us[i] - within_us
        active = 0
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                active += last_us[row + dy, column + dx] >= since
        active -= last_us[row, column] >= since
        keep[i] = active >= neighbours
        last_us[row, column] = t_us[i]
