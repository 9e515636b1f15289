"""Events as they come from a source that sets the pace itself, and a thread that reads them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from evhands.sources.replaying import Piece
from evhands.types import Events, EventStream

_WAITING_EVENTS = 8_000_000
"""More events than these never wait: the oldest are given up."""
_CLOCK_S = 10.0


def as_they_come(stream: EventStream, grace_us: int) -> Iterator[Piece]:
    """A source that sets the pace itself. Where it is silent, its clock is told from that of this machine: events are
    taken to come `grace_us` late at most (later ones are counted as late, and are in the windows after)."""
    offsets: deque[tuple[float, float]] = deque()
    for events in stream:
        now_s = time.monotonic()
        if len(events):
            offset_s = now_s - int(events.t_us[-1]) / 1e6
            while offsets and (offsets[-1][1] >= offset_s or now_s - offsets[0][0] > _CLOCK_S):
                offsets.pop() if offsets[-1][1] >= offset_s else offsets.popleft()
            offsets.append((now_s, offset_s))
            yield Piece(events, now_s)
        elif offsets:
            yield Piece(events, now_s, int((now_s - offsets[0][1]) * 1e6) - grace_us)


@dataclass
class RateLimiter:
    """Lets through at most `events_per_s`: of a piece with too many, every n-th. What is not used is kept for 50 ms.

    Which events stay depends on how they are cut into pieces, and on nothing else. thinned: how many were left out.
    """

    events_per_s: float
    thinned: int = 0
    _credit: float = 0.0
    _last_us: int | None = None

    def __call__(self, events: Events) -> Events:
        if not len(events):
            return events
        end_us, most = int(events.t_us[-1]), self.events_per_s * 0.05
        passed_us = end_us - (int(events.t_us[0]) if self._last_us is None else self._last_us)
        saved = min(self._credit, most)
        self._credit, self._last_us = saved + passed_us * self.events_per_s / 1e6, end_us
        allowed = min(int(self._credit), len(events))
        self._credit -= allowed
        if allowed == len(events):
            return events
        self.thinned += len(events) - allowed
        return events[np.arange(allowed) * len(events) // max(allowed, 1)]


@dataclass
class Reader:
    """Reads pieces in a thread of its own, so that a source never waits for the tracker; `take` gives what has come.

    lost: events that were given up because too many waited. A context manager; an error of the source is raised by
    `take`.
    """

    pieces: Iterable[Piece]
    limiter: RateLimiter | None = None
    most_waiting: int = _WAITING_EVENTS
    lost: int = 0
    events: int = 0
    _queue: deque[Piece] = field(default_factory=deque)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _waiting: int = 0
    _ended: bool = False
    _error: BaseException | None = None
    _stop: bool = False

    def __enter__(self) -> Reader:
        self._thread = threading.Thread(target=self._read, name="events", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(timeout=1.0)  # one that waits for its source ends with the program

    def take(self, timeout_s: float) -> tuple[list[Piece], bool]:
        """What has come since, waiting for something to come at most so long; and whether that was all there is."""
        with self._news:
            if not self._queue and not self._ended:
                self._news.wait(timeout_s)
            taken = list(self._queue)
            self._queue.clear()
            self._waiting = 0
            if self._ended and self._error is not None:
                raise self._error
            return taken, self._ended

    def _read(self) -> None:
        try:
            for piece in self.pieces:
                self.events += len(piece.events)
                if self.limiter is not None and len(piece.events):
                    piece = Piece(self.limiter(piece.events), piece.at_s, piece.until_us)
                self._put(piece)
                if self._stop:
                    return
        except BaseException as error:  # the thread that takes raises it
            self._error = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify()

    def _put(self, piece: Piece) -> None:
        with self._news:
            self._queue.append(piece)
            self._waiting += len(piece.events)
            while self._waiting > self.most_waiting and len(self._queue) > 1:
                oldest = self._queue.popleft()
                self._waiting -= len(oldest.events)
                self.lost += len(oldest.events)
            self._news.notify()
