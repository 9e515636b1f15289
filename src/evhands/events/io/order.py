"""Raw chunks of a file into time-ordered events on a sensor: small disorder is sorted, real faults are reported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt16
from numba import njit

from evhands.events.io.columns import RawChunk, RecordingWarning, warn_partial
from evhands.types import Events, InputError, Size

TOLERANCE_US = 10_000
"""Times that run backwards by at most this are sorted (packets and sensor columns read out of order)."""

_MAX_PENDING = 4 << 20
_BEGINNING_US = -(1 << 62)


@dataclass
class _Tally:
    """What one pass over a file has met so far."""

    latest_us: int = _BEGINNING_US
    floor_us: int = _BEGINNING_US
    sound: int = 0
    late: int = 0
    dropped: int = 0
    fraction: float = 0.0
    fault: str | None = None


def in_order(
    chunks: Iterator[RawChunk], size: Size, path: Path, *, salvage: bool = False
) -> Iterator[tuple[Events, float]]:
    """Time-ordered `Events` of raw chunks, each with the fraction of the file read.

    A chunk is held back until no later event may belong before its end; ordered files pass through without a copy.
    Raises `InputError` at an event outside the sensor or a jump back in time, after everything before it was yielded;
    with `salvage` warns instead, drops the former and ends at the latter.
    """
    tally = _Tally()
    pending: list[Events] = []
    for chunk in chunks:
        late_before = tally.late
        events = _sound_part(chunk, size, salvage, tally)
        tally.fraction = chunk.read_fraction
        if tally.late > late_before:
            together = Events.concatenate([*pending, events])
            pending = _split_at(together[np.argsort(together.t_us, kind="stable")], tally.latest_us - TOLERANCE_US)
        elif len(events):
            pending.append(events)
        if tally.fault is not None:
            break
        while pending and _is_settled(pending, tally.latest_us - TOLERANCE_US):
            tally.floor_us = int(pending[0].t_us[-1])
            yield pending.pop(0), tally.fraction
    for events in pending:
        yield events, tally.fraction
    _report(tally, path, salvage)


def _is_settled(pending: list[Events], settled_us: int) -> bool:
    return bool(pending[0].t_us[-1] <= settled_us) or sum(map(len, pending)) > _MAX_PENDING


def _split_at(events: Events, settled_us: int) -> list[Events]:
    cut = int(np.searchsorted(events.t_us, settled_us, side="right"))
    return [part for part in (events[:cut], events[cut:]) if len(part)]


def _sound_part(chunk: RawChunk, size: Size, salvage: bool, tally: _Tally) -> Events:
    """The events of a chunk before its first fault, counted into the tally; their order is still the file's."""
    events = chunk.with_size(size)
    outside, end, late, latest_us = _inspect(
        events.x, events.y, events.t_us, size[0], size[1], tally.latest_us, tally.floor_us, TOLERANCE_US
    )
    if end < len(events):
        t_us = int(events.t_us[end])
        tally.fault = (
            f"after {tally.sound + end} events the times run backwards by {(latest_us - t_us) / 1e6:.3f} s "
            f"(from {latest_us} to {t_us} us)"
        )
        events = events[:end]
    if outside:
        inside = (events.x < size[0]) & (events.y < size[1])
        if salvage:
            tally.dropped += outside
            events = events[inside]
        else:
            first = int(np.argmin(inside))
            tally.fault = (
                f"event {tally.sound + first} lies at x = {events.x[first]}, y = {events.y[first]}, "
                f"outside its {size[0]}x{size[1]} sensor"
            )
            events = events[:first]
    tally.late += late
    tally.latest_us = latest_us
    tally.sound += len(events)
    return events


@njit(cache=True, nogil=True)
def _inspect(
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    width: int,
    height: int,
    latest_us: int,
    floor_us: int,
    tolerance_us: int,
) -> tuple[int, int, int, int]:
    """(events outside, index of the first jump back or n, events earlier than the latest before them, latest time)."""
    outside = 0
    late = 0
    for i in range(len(t_us)):
        if t_us[i] < latest_us:
            if t_us[i] < max(latest_us - tolerance_us, floor_us):
                return outside, i, late, latest_us
            late += 1
        else:
            latest_us = t_us[i]
        outside += int((x[i] >= width) | (y[i] >= height))
    return outside, len(t_us), late, latest_us


def _report(tally: _Tally, path: Path, salvage: bool) -> None:
    if tally.late:
        text = f"{path}: {tally.late} events were up to {TOLERANCE_US // 1000} ms out of time order; they were sorted."
        warnings.warn(text, RecordingWarning, stacklevel=3)
    if tally.fault is not None and not salvage:
        raise InputError(
            f"{path}: {tally.fault}. Wanted times in order and every event on the sensor. `evhands info` shows how "
            "often this happens; `evhands convert --salvage true` writes a copy of what is sound (without the events "
            "outside, up to the jump)."
        )
    if tally.fault is not None:
        warn_partial(path, tally.fault, tally.sound, tally.fraction)
    if tally.dropped:
        warnings.warn(f"{path}: dropped {tally.dropped} events outside the sensor.", RecordingWarning, stacklevel=3)
