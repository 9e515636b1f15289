"""A source that may be lost and come back: a server that is started again, a camera that is plugged in again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from evhands.sources.continuity import Clock, continued
from evhands.types import Events, InputError, Size

TICK_S = 0.02
"""A source without events says at least this often that it still has none."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class SourceLostError(Exception):
    """The source is not there, or has gone without saying that it has come to its end."""


class SourceWarning(UserWarning):
    """A source was lost, came back, or had to be mended: the message says what was done."""


class Connection(Protocol):
    """A source as long as it is there."""

    @property
    def size(self) -> Size: ...

    def chunks(self) -> Iterator[Events]:
        """Events as they come, and empty ones as ticks; returns at the end, raises `SourceLostError` if it is lost."""

    def close(self) -> None: ...


@dataclass
class LastingStream:
    """An `EventStream` over connections that follow each other; can be iterated once.

    Yields events as they come and empty `Events` as ticks, also while it waits for a source to come back. Where that
    takes longer than `wait_s`, the stream ends. Times never run backwards (see `continuity`).
    """

    name: str
    connect: Callable[[], Connection]
    wait_s: float
    size: Size
    _now: Connection | None = field(repr=False)

    @classmethod
    def open(cls, name: str, connect: Callable[[], Connection], wait_s: float, hint: str) -> LastingStream:
        """Wait for the source to be there; `InputError` with `hint` (what is wanted, what to do) where it is not."""
        reason = ""
        for attempt in _attempts(wait_s):
            try:
                connection = connect()
                return cls(name, connect, wait_s, connection.size, connection)
            except SourceLostError as error:
                reason = str(error)
                time.sleep(attempt)
        raise InputError(f"{name}: {reason} (waited {wait_s:g} s). {hint}")

    def __iter__(self) -> Iterator[Events]:
        clock, away_us = Clock(), None
        while (connection := self._now) is not None:
            try:
                for events in connection.chunks():
                    clock, events, notes = continued(clock, events, away_us)
                    away_us = None if len(events) else away_us
                    for note in notes:
                        _warn(f"{self.name}: {note}.")
                    yield events
                return
            except SourceLostError as error:
                _warn(f"{self.name}: {error}; waiting up to {self.wait_s:g} s for it to come back.")
            finally:
                self._now = None
                connection.close()
            lost = time.monotonic()
            yield from self._come_back()
            away_us = round((time.monotonic() - lost) * 1e6)

    def _come_back(self) -> Iterator[Events]:
        """Ticks until there is a new connection, or the time is over."""
        begun = time.monotonic()
        for pause in _attempts(self.wait_s):
            try:
                self._now = self.connect()
            except SourceLostError:
                yield from _ticks(pause, self.size)
                continue
            if self._now.size != self.size:
                size, self._now = self._now.size, None
                raise InputError(
                    f"{self.name} came back with a sensor of {size[0]}x{size[1]} pixels, before it was "
                    f"{self.size[0]}x{self.size[1]}. Wanted the same camera; track the other one anew."
                )
            _warn(f"{self.name}: is back after {time.monotonic() - begun:.1f} s.")
            return
        _warn(f"{self.name}: did not come back within {self.wait_s:g} s; the stream ends here.")


def _attempts(wait_s: float) -> Iterator[float]:
    """How long to pause after each attempt, longer and longer, until `wait_s` have passed; at least one attempt."""
    end, pause = time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        left = end - time.monotonic()
        yield max(min(pause, left), 0.0)
        if left <= 0:
            return
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _ticks(seconds: float, size: Size) -> Iterator[Events]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, TICK_S))
        yield Events.empty(size)


def _warn(text: str) -> None:
    warnings.warn(text, SourceWarning, stacklevel=3)
