"""How far the clock of the truth is off that of the events: motion of the projected mesh against events, over lags.

Where the truth moves, its silhouette sweeps pixels, and there the events should be. For some moments of much motion the
pixels that the mesh sweeps in 10 ms are correlated with the events of 10 ms, for meshes of earlier and later times; the
lag at which they agree best is the offset of the clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from evhands.examination.placing import Placed
from evhands.hand.raster import rasterize
from evhands.types import Events, EventStream

STEP_US = 10_000
"""Length of the windows, and step of the lags."""
LAGS = 12
"""Lags to either side."""
MOMENTS = 40
"""How many moments are looked at, those of the most motion."""
LEAST_MOMENTS = 5
_LEAST_EVENTS = 30
_LEAST_MOTION_PX_S = 20.0
_BLUR_PX = 1.5
_BEYOND_US = 40_000
"""How far beyond the lags labels are taken, so that four at 15 a second lie about each moment."""
_RESAMPLED = 200


@dataclass(frozen=True)
class ClockOffset:
    """offset_us: how much later the truth says what the events show; spread_us: standard deviation of that over draws
    of the moments. agreement: correlation at the best lag; moments: how many were used."""

    offset_us: float
    spread_us: float
    agreement: float
    moments: int


def moments_of_motion(placed: Placed, first_us: int, last_us: int) -> np.ndarray:
    """Times (k,) int64 us of labels at which the truth moves much, with enough labels and events about them."""
    t_us = placed.t_us
    margin = (LAGS + 1) * STEP_US
    if len(t_us) < 4:
        return np.zeros(0, np.int64)
    speed = placed.speed_px_s()
    reach = margin + _BEYOND_US
    around = np.searchsorted(t_us, t_us + reach, "right") - np.searchsorted(t_us, t_us - reach)
    inside = (t_us - margin >= t_us[0]) & (t_us + margin <= t_us[-1])
    inside &= (t_us - STEP_US >= first_us) & (t_us + STEP_US <= last_us)
    good = inside & (around >= 4) & (speed >= _LEAST_MOTION_PX_S)
    rows = np.flatnonzero(good)
    chosen: list[int] = []
    for row in rows[np.argsort(-speed[rows])]:  # apart from each other, so that they tell different things
        if len(chosen) < MOMENTS and all(abs(int(t_us[row] - t_us[other])) >= 30_000 for other in chosen):
            chosen.append(int(row))
    return np.sort(t_us[chosen])


def events_at(stream: EventStream, windows: Sequence[tuple[int, int]]) -> list[Events]:
    """The events of each window [start, end), in one pass over the stream."""
    parts: list[list[Events]] = [[] for _ in windows]
    for events in stream:
        if not len(events):
            continue
        first, last = int(events.t_us[0]), int(events.t_us[-1])
        for part, (start, end) in zip(parts, windows):
            if start <= last and end > first and len(piece := events.between(start, end)):
                part.append(Events(piece.x.copy(), piece.y.copy(), piece.t_us.copy(), piece.p.copy(), piece.size))
    return [Events.concatenate(part, stream.size) for part in parts]


def clock_offset(placed: Placed, moments: np.ndarray, events: Sequence[Events]) -> ClockOffset | None:
    """The offset by the events of the windows of STEP_US about the moments; None where too few say anything."""
    found = (_agreement(placed, int(t_us), seen) for t_us, seen in zip(moments, events))
    curves = [curve for curve in found if curve is not None]
    if len(curves) < LEAST_MOMENTS:
        return None
    table = np.array(curves)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(table), (_RESAMPLED, len(table)))
    peaks = [_peak(table[rows].mean(0))[0] for rows in drawn]
    offset, agreement = _peak(table.mean(0))
    return ClockOffset(offset, float(np.std(peaks)), agreement, len(table))


def _agreement(placed: Placed, t_us: int, events: Events) -> np.ndarray | None:
    """Correlations (2 LAGS + 1) of the events about a moment with what the mesh sweeps at the lags."""
    if len(events) < _LEAST_EVENTS:
        return None
    width, height = events.size
    counts = np.zeros((height, width), np.float32)
    np.add.at(counts, (events.y, events.x), 1)
    counts = gaussian_filter(np.minimum(counts, 2), _BLUR_PX)
    edges = t_us + STEP_US * (np.arange(2 * LAGS + 2) - LAGS - 0.5)
    rows = placed.rows_between(edges[0] - _BEYOND_US, edges[-1] + _BEYOND_US)
    times = placed.t_us[rows]
    if len(times) < 4 or np.diff(times).max() > 110_000:
        return None
    paths = CubicSpline((times - t_us) * 1e-6, placed.corners(rows), axis=0)
    masks = [rasterize(mesh, placed.faces, events.size).face >= 0 for mesh in paths((edges - t_us) * 1e-6)]
    swept = [gaussian_filter((a != b).astype(np.float32), _BLUR_PX) for a, b in zip(masks, masks[1:])]
    norms = np.array([np.linalg.norm(image) for image in swept]) * np.linalg.norm(counts)
    if norms[LAGS] == 0:
        return None
    return np.array([np.vdot(counts, image) for image in swept]) / np.maximum(norms, 1e-9)


def _peak(curve: np.ndarray) -> tuple[float, float]:
    """Offset in us and height of the highest point, between the lags by a parabola."""
    k = int(np.argmax(curve))
    if 0 < k < len(curve) - 1:
        left, middle, right = curve[k - 1 : k + 2]
        bend = left - 2 * middle + right
        shift = 0.0 if bend == 0 else 0.5 * (left - right) / bend
    else:
        shift = 0.0
    return (k + shift - LAGS) * STEP_US, float(curve[k])
