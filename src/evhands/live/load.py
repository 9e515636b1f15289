"""Recordings as a load: over and over, at any rate of events, for measurements and soaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evhands.types import Events, EventStream, InputError, Size

_CHUNK = 100_000


@dataclass(frozen=True)
class Looped:
    """A recording again and again on one clock that runs on, for `seconds`.

    event_rate: events a second on average, reached by letting its time pass faster or slower; None = as recorded.
    """

    events: Events
    seconds: float
    event_rate: float | None = None

    @property
    def size(self) -> Size:
        return self.events.size

    def __iter__(self) -> Iterator[Events]:
        t_us = self.events.t_us - self.events.t_us[0]
        period = int(t_us[-1]) + 1000
        if self.event_rate is not None:
            speed = self.event_rate * period / 1e6 / len(t_us)
            t_us, period = np.floor(t_us / speed).astype(np.int64), int(period / speed) + 1
        start, end = 0, round(1e6 * self.seconds)
        while start < end:
            stop = int(np.searchsorted(t_us, end - start))
            for first in range(0, stop, _CHUNK):
                part = slice(first, min(first + _CHUNK, stop))
                e = self.events
                yield Events(e.x[part], e.y[part], t_us[part] + start, e.p[part], e.size)
            start += period


class ForSeconds:
    """A stream that does not end by itself, for some seconds of the clock."""

    def __init__(self, stream: EventStream, seconds: float) -> None:
        self.stream, self.size, self.seconds = stream, stream.size, seconds

    def __iter__(self) -> Iterator[Events]:
        end_s = time.monotonic() + self.seconds
        for events in self.stream:
            yield events
            if time.monotonic() > end_s:
                return


def first_seconds(stream: EventStream, seconds: float) -> Events:
    """The beginning of a stream in memory; InputError where it holds no events."""
    parts: list[Events] = []
    for part in stream:
        if len(part):
            parts.append(part)
            if part.t_us[-1] - parts[0].t_us[0] > 1e6 * seconds:
                break
    if not parts:
        raise InputError("The recording holds no events. Wanted one of a moving hand; look at it with `evhands info`.")
    whole = Events.concatenate(parts)
    return whole.between(int(whole.t_us[0]), int(whole.t_us[0] + 1e6 * seconds) + 1)
