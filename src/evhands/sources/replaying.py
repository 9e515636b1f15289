"""A recording at its own pace, as a camera would have given it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evhands.types import Events, EventStream

SLICE_US = 1000
"""A recording is handed over in pieces of so long, as a camera would do it."""
_TICK_US = 5000


@dataclass(frozen=True)
class Piece:
    """Events that came together, perhaps none.

    at_s: when the last of them happened on the clock `time.monotonic` of this machine (of a camera: when they arrived).
    until_us: no event before this time will come any more, on the clock of the events; None = not known.
    """

    events: Events
    at_s: float
    until_us: int | None = None


def replayed(stream: EventStream) -> Iterator[Piece]:
    """A recording, 1 ms at a time, each piece as soon as its last event would have been seen; and word of the time that
    passes where there are no events."""
    start_s, first_us = 0.0, None
    for chunk in stream:
        for part in _slices(chunk):
            if first_us is None:
                start_s, first_us = time.monotonic(), int(part.t_us[0])
            at_s = start_s + (int(part.t_us[-1]) - first_us) / 1e6
            while (left_s := at_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _TICK_US / 1e6))
                now_us = first_us + int((time.monotonic() - start_s) * 1e6)
                if now_us < int(part.t_us[0]):
                    yield Piece(Events.empty(part.size), time.monotonic(), now_us)
            yield Piece(part, at_s)


def paced(stream: EventStream) -> Iterator[Events]:
    """The events of `replayed` alone."""
    return (piece.events for piece in replayed(stream) if len(piece.events))


def _slices(events: Events) -> Iterator[Events]:
    if len(events):
        edges = np.arange(events.t_us[0], events.t_us[-1], SLICE_US)[1:]
        bounds = np.unique([0, *np.searchsorted(events.t_us, edges), len(events)])
        yield from (events[a:b] for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
