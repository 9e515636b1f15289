"""Windows out of events that come piece by piece: by time or by count, and only those that are due."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from evhands.events.windows import check_order, counted_window, gather
from evhands.sources.replaying import Piece
from evhands.types import Events, EventWindow, Size


@dataclass(frozen=True)
class TimeStep:
    """Windows of `length_us` that begin every `stride_us`, the first one at the first event; as `windows_by_time`."""

    length_us: int
    stride_us: int


@dataclass(frozen=True)
class EventCount:
    """Windows of `length` events that begin every `stride` events; as `windows_by_count`. A source that is silent for
    `idle_us` gives a window all the same, of what there is, so that a still hand is not taken for a lost source."""

    length: int
    stride: int
    idle_us: int = 100_000


Windowing = TimeStep | EventCount


@dataclass(frozen=True)
class Due:
    """A window, the events between it and the one before that was taken (of those that were passed over), and when its
    last event can have happened on the clock of this machine."""

    window: EventWindow
    missed: Events
    ready_s: float


@dataclass
class Cutter:
    """What waits to be cut. dropped: windows that were passed over. late: events that came behind the end of a window
    that had been closed by the clock."""

    size: Size
    windowing: Windowing
    dropped: int = 0
    late: int = 0
    _held: deque[Events] = field(default_factory=deque)
    _marks: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=4096))
    """(time of the events, of this machine) of pieces, for `ready_s`."""
    _begin_us: int | None = None
    _last_us: int | None = None
    _until_us: int = 0
    _taken_us: int | None = None
    _arrived: int = 0
    """Events that have come so far."""
    _forgotten: int = 0
    """Events that came before the first one that is held."""
    _next: int = 0
    """Number of the first event of the next window (by count)."""
    _windows: int = 0

    def add(self, piece: Piece) -> None:
        events = piece.events
        if len(events):
            check_order(events, self._last_us)
            first, last = int(events.t_us[0]), int(events.t_us[-1])
            if self._taken_us is not None and first < self._taken_us:
                self.late += int((events.t_us < self._taken_us).sum())
            self._begin_us = first if self._begin_us is None else self._begin_us
            self._last_us = last
            self._held.append(events)
            self._arrived += len(events)
            self._marks.append((last, piece.at_s))
        if piece.until_us is not None and piece.until_us > self._known_us():
            self._until_us = piece.until_us
            self._marks.append((piece.until_us, piece.at_s))

    def due(self) -> int:
        """How many windows can be cut now."""
        if self._begin_us is None:
            return 0
        if isinstance(self.windowing, TimeStep):
            steps = self._known_us() - self.windowing.length_us - self._begin_us
            return max(steps // self.windowing.stride_us + 1, 0)
        there = self._arrived - self._next - self.windowing.length
        return max(there // self.windowing.stride + 1, 0) or int(self._idle())

    def behind_us(self) -> int:
        """How old the next window is, by the newest event or tick."""
        if self._begin_us is None or not self.due():
            return 0
        if isinstance(self.windowing, TimeStep):
            return self._known_us() - self._begin_us - self.windowing.length_us
        return 0 if self._idle() else self._known_us() - self._time_of(self._next + self.windowing.length - 1)

    def take(self, newest: bool = False) -> Due:
        """The next window that is due, or the newest one, passing over those before it."""
        if newest:
            self._pass_over(self.due() - 1)
        return self._time_window() if isinstance(self.windowing, TimeStep) else self._count_window()

    def finish(self) -> None:
        """No event will come any more: windows that end behind the last event are due, and no others; a source shorter
        than one window gives that one."""
        if self._last_us is None or self._begin_us is None:
            return
        self._until_us = self._last_us + 1
        if not self._windows and not self.due():
            if isinstance(self.windowing, TimeStep):
                self._until_us = self._begin_us + self.windowing.length_us
            else:
                self.windowing = EventCount(self._arrived, self.windowing.stride, self.windowing.idle_us)

    def _known_us(self) -> int:
        return max(self._last_us or 0, self._until_us) if self._last_us is not None else 0

    def _ready_s(self, end_us: int) -> float:
        """By the first piece that reached the end of a window."""
        while len(self._marks) > 1 and self._marks[0][0] < end_us:
            self._marks.popleft()
        t_us, at_s = self._marks[0]
        return at_s - max(t_us - end_us, 0) / 1e6

    def _time_window(self) -> Due:
        assert isinstance(self.windowing, TimeStep) and self._begin_us is not None
        start, end = self._begin_us, self._begin_us + self.windowing.length_us
        self._begin_us += self.windowing.stride_us
        return self._cut(gather(self._held, start, end, self.size), self._begin_us)

    def _count_window(self) -> Due:
        assert isinstance(self.windowing, EventCount)
        if self._idle():
            start, end = self._taken_us or self._begin_us or 0, self._known_us()
            return self._cut(gather(self._held, start, end, self.size))
        events = self._numbered(self._next, self._next + self.windowing.length)
        self._next += self.windowing.stride
        return self._cut(counted_window(events))

    def _cut(self, window: EventWindow, from_us: int | None = None) -> Due:
        missed = Events.empty(self.size)
        if self._taken_us is not None and window.start_us > self._taken_us:
            missed = gather(self._held, self._taken_us, window.start_us, self.size).events
        self._windows += 1
        ready_s = self._ready_s(window.end_us)
        self._taken_us = max(window.end_us, self._taken_us or 0)
        self._forget(self._taken_us if from_us is None else min(from_us, self._taken_us))
        return Due(window, missed, ready_s)

    def _pass_over(self, count: int) -> None:
        if count <= 0:
            return
        self.dropped += count
        if isinstance(self.windowing, TimeStep):
            assert self._begin_us is not None
            self._begin_us += count * self.windowing.stride_us
        else:
            self._next += count * self.windowing.stride

    def _idle(self) -> bool:
        """Whether windows are by count, too few events have come for one, and none has for long."""
        if not isinstance(self.windowing, EventCount) or self._begin_us is None:
            return False
        if self._arrived - self._next >= self.windowing.length:
            return False
        return self._known_us() - (self._taken_us or self._begin_us) >= self.windowing.idle_us

    def _numbered(self, first: int, stop: int) -> Events:
        """The events of these numbers, which are held."""
        parts, number = [], self._forgotten
        for chunk in self._held:
            part = chunk[max(first - number, 0) : max(stop - number, 0)]
            if len(part):
                parts.append(part)
            number += len(chunk)
        return parts[0] if len(parts) == 1 else Events.concatenate(parts, self.size)

    def _time_of(self, number: int) -> int:
        return int(self._numbered(number, number + 1).t_us[0])

    def _forget(self, before_us: int) -> None:
        """Chunks that no later window and no later `missed` can ask for."""
        while self._held and self._held[0].t_us[-1] < before_us:
            if isinstance(self.windowing, EventCount) and self._forgotten + len(self._held[0]) > self._next:
                return
            self._forgotten += len(self._held.popleft())
