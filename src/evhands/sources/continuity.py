"""Events of a source that may go and come back, as one sound stream: times that never run backwards, pixels that exist.

A camera that is plugged in again, or a server that is started again, may begin its clock anew. Its times are then moved
on, so that they follow those before, at the distance that passed on the clock of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from evhands.types import Events

TOLERANCE_US = 10_000
"""Times that run backwards by at most this are put in order; more is a clock that began anew."""
_LONGEST_PAUSE_US = 3_600_000_000
"""An hour without an event is a clock that was set, not a pause."""
_SLACK_US = 60_000_000
"""The clock of a source that came back may differ by so much from what passed here."""


@dataclass(frozen=True)
class Clock:
    """offset_us: added to the times as they come. last_us: the latest time given out; None before the first event."""

    offset_us: int = 0
    last_us: int | None = None


def continued(clock: Clock, events: Events, away_us: int | None = None) -> tuple[Clock, Events, list[str]]:
    """The next events on the clock of the stream, the clock after them, and what had to be mended, in words.

    `away_us`: the source has just come back after so long. Sound events pass through as they are, without a copy.
    """
    inside = (events.x < events.size[0]) & (events.y < events.size[1])
    notes: list[str] = []
    if not inside.all():
        notes.append(f"{len(events) - np.count_nonzero(inside)} events outside its sensor were left out")
        events = events[inside]
    if not len(events):
        return clock, events, notes
    parts: list[Events] = []
    for part in _unbroken(events):
        clock, note = _anchored(clock, int(part.t_us[0]), away_us)
        notes += [note] if note else []
        part = _ordered(part, clock)
        clock, away_us = replace(clock, last_us=int(part.t_us[-1])), None
        parts.append(part)
    return clock, parts[0] if len(parts) == 1 else Events.concatenate(parts), notes


def _unbroken(events: Events) -> list[Events]:
    """The parts between which the clock was set: back by more than the tolerance, or on by more than an hour."""
    steps = np.diff(events.t_us)
    edges = np.flatnonzero((steps < -TOLERANCE_US) | (steps > _LONGEST_PAUSE_US)) + 1
    bounds = [0, *edges.tolist(), len(events)]
    return [events[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _anchored(clock: Clock, first_us: int, away_us: int | None) -> tuple[Clock, str | None]:
    """The clock with an offset that lets `first_us` follow what came before, and a word where that had to change."""
    if clock.last_us is None:
        return clock, None
    step = first_us + clock.offset_us - clock.last_us
    longest = _LONGEST_PAUSE_US if away_us is None else away_us + _SLACK_US
    earliest = -TOLERANCE_US if away_us is None else 0
    if earliest <= step <= longest:
        return clock, None
    moved = replace(clock, offset_us=clock.last_us + (away_us or 0) - first_us)
    direction = "back" if step < 0 else "on"
    return (
        moved,
        f"its clock was set {direction} by {abs(step) / 1e6:.3f} s; times are moved to follow those before",
    )


def _ordered(events: Events, clock: Clock) -> Events:
    """Shifted by the offset, and in order where they were not quite."""
    t_us = events.t_us if not clock.offset_us else events.t_us + clock.offset_us
    if clock.last_us is not None and t_us[0] < clock.last_us or (t_us[1:] < t_us[:-1]).any():
        order = np.argsort(t_us, kind="stable")
        t_us = t_us[order] if clock.last_us is None else np.maximum(t_us[order], clock.last_us)
        events = events[order]
    return Events(events.x, events.y, t_us, events.p, events.size)
