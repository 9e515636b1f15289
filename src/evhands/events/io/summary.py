"""What is in a recording, found in one pass over the file as it lies on disk: sound or not, whatever its length."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt16
from numba import njit

from evhands.events.io.base import EventFile
from evhands.events.io.columns import RecordingWarning
from evhands.types import Size

GAP_US = 100_000
"""A pause without events that is at least this long is a gap."""
PEAK_US = 10_000
"""The peak rate is that of the busiest stretch of this length (aligned to multiples of it)."""
LISTED = 100
"""At most this many gaps and backward stretches are listed; all are counted."""
_HOT_FACTOR, _HOT_RATE_HZ = 50, 20
_MAX_PIXELS = 1 << 24

_COUNT, _ON, _EARLIEST, _LATEST, _OUTSIDE = 0, 1, 2, 3, 4
_LATE, _STRETCHES, _LARGEST_STEP, _IN_STRETCH = 5, 6, 7, 8
_GAPS, _GAP_TOTAL, _BIN, _IN_BIN, _PEAK = 9, 10, 11, 12, 13


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a recording. Times and durations in microseconds, rates in events a second.

    `gaps` are (start, length) and `backward_stretches` (time before, largest step back) of the first `LISTED` ones.
    A backward stretch is a run of events that are earlier than one before them. Hot pixels fire more than 50 times as
    often as the median active pixel, and more than 20 times a second. A recording without events has None for times.
    """

    path: Path
    format: str
    details: dict[str, str]
    size: Size
    file_bytes: int
    events: int
    on_events: int
    start_us: int | None
    end_us: int | None
    peak_rate_hz: float
    gap_count: int
    gap_total_us: int
    gaps: tuple[tuple[int, int], ...]
    backward_count: int
    backward_events: int
    backward_largest_us: int
    backward_stretches: tuple[tuple[int, int], ...]
    outside_events: int
    active_pixels: int
    hot_pixels: int
    frames: int
    triggers: int
    warnings: tuple[str, ...]

    @property
    def duration_us(self) -> int:
        return 0 if self.start_us is None or self.end_us is None else self.end_us - self.start_us

    @property
    def mean_rate_hz(self) -> float:
        return self.events * 1e6 / self.duration_us if self.duration_us else 0.0

    @property
    def on_share(self) -> float:
        """ON events over all events, 0 where there are none."""
        return self.on_events / self.events if self.events else 0.0


def summarise(file: EventFile) -> Summary:
    """Read a recording once from end to end; what cannot be read becomes an entry of `warnings`."""
    state = np.zeros(14, np.int64)
    gaps, stretches = np.zeros((LISTED, 2), np.int64), np.zeros((LISTED, 2), np.int64)
    width, height = file.size if file.size[0] * file.size[1] <= _MAX_PIXELS else (0, 0)
    hits = np.zeros((height, width), np.int64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordingWarning)
        for chunk in file.raw_chunks():
            _count(chunk.x, chunk.y, chunk.t_us, chunk.p, file.size[0], file.size[1], state, gaps, stretches, hits)
        frames, triggers = sum(1 for _ in file.frames()), len(file.triggers())
    any_events = bool(state[_COUNT])
    duration_s = (state[_LATEST] - state[_EARLIEST]) / 1e6
    active = hits[hits > 0]
    hot = (
        active[(active > _HOT_FACTOR * np.median(active)) & (active > _HOT_RATE_HZ * duration_s)] if any_events else []
    )
    return Summary(
        path=file.path,
        format=file.format,
        details=dict(file.details),
        size=file.size,
        file_bytes=file.path.stat().st_size,
        events=int(state[_COUNT]),
        on_events=int(state[_ON]),
        start_us=int(state[_EARLIEST]) if any_events else None,
        end_us=int(state[_LATEST]) if any_events else None,
        peak_rate_hz=max(int(state[_PEAK]), int(state[_IN_BIN])) * 1e6 / PEAK_US,
        gap_count=int(state[_GAPS]),
        gap_total_us=int(state[_GAP_TOTAL]),
        gaps=_listed(gaps, int(state[_GAPS])),
        backward_count=int(state[_STRETCHES]),
        backward_events=int(state[_LATE]),
        backward_largest_us=int(state[_LARGEST_STEP]),
        backward_stretches=_listed(stretches, int(state[_STRETCHES])),
        outside_events=int(state[_OUTSIDE]),
        active_pixels=len(active),
        hot_pixels=len(hot),
        frames=frames,
        triggers=triggers,
        warnings=tuple(str(entry.message) for entry in caught),
    )


def _listed(table: Int64[np.ndarray, "n 2"], count: int) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in table[:count])


@njit(cache=True, nogil=True)
def _count(
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
    width: int,
    height: int,
    state: Int64[np.ndarray, " s"],
    gaps: Int64[np.ndarray, "g 2"],
    stretches: Int64[np.ndarray, "g 2"],
    hits: Int64[np.ndarray, "h w"],
) -> None:
    """Add the events of one chunk to the figures."""
    count, on, earliest, latest = state[_COUNT], state[_ON], state[_EARLIEST], state[_LATEST]
    outside, late = state[_OUTSIDE], state[_LATE]
    slot, in_slot = state[_BIN], state[_IN_BIN]
    for i in range(len(t_us)):
        t = t_us[i]
        if count == 0:
            earliest = latest = t
            slot = t // PEAK_US
        if t < latest:
            late += 1
            earliest = min(earliest, t)
            step = latest - t
            state[_LARGEST_STEP] = max(state[_LARGEST_STEP], step)
            if state[_IN_STRETCH] == 0:
                state[_IN_STRETCH] = 1
                if state[_STRETCHES] < len(stretches):
                    stretches[state[_STRETCHES], 0] = latest
                state[_STRETCHES] += 1
            if state[_STRETCHES] <= len(stretches):
                stretches[state[_STRETCHES] - 1, 1] = max(stretches[state[_STRETCHES] - 1, 1], step)
        else:
            state[_IN_STRETCH] = 0
            if t - latest >= GAP_US:
                if state[_GAPS] < len(gaps):
                    gaps[state[_GAPS], 0] = latest
                    gaps[state[_GAPS], 1] = t - latest
                state[_GAPS] += 1
                state[_GAP_TOTAL] += t - latest
            latest = t
            if t // PEAK_US != slot:
                state[_PEAK] = max(state[_PEAK], in_slot)
                slot, in_slot = t // PEAK_US, 0
        in_slot += 1
        count += 1
        on += int(p[i])
        if x[i] >= width or y[i] >= height:
            outside += 1
        elif hits.size:
            hits[y[i], x[i]] += 1
    state[_COUNT], state[_ON], state[_EARLIEST], state[_LATEST] = count, on, earliest, latest
    state[_OUTSIDE], state[_LATE] = outside, late
    state[_BIN], state[_IN_BIN] = slot, in_slot
