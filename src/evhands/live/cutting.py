"""Windows out of events that come piece by piece: by time or by count, and only those that are due."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from evhands.live.reading import Piece
from evhands.types import Events, EventWindow, InputError, Size

_BACKWARDS = "The times of the events run backwards. Wanted events in the order of time; mend the source."


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
    _marks: deque[tuple[int, float]] = field(default_factory=deque)
    """(time of the events, of this machine) of pieces, for `ready_s`."""
    _begin_us: int | None = None
    _last_us: int | None = None
    _until_us: int = 0
    _taken_us: int | None = None
    _seen: int = 0
    """Events that came before the first one that is held (windows by count)."""
    _next: int = 0
    """Number of the first event of the next window (by count)."""
    _windows: int = 0

    def add(self, piece: Piece) -> None:
        events = piece.events
        if len(events):
            first, last = int(events.t_us[0]), int(events.t_us[-1])
            if self._last_us is not None and first < self._last_us:
                raise InputError(_BACKWARDS)
            if self._taken_us is not None and first < self._taken_us:
                self.late += int((events.t_us < self._taken_us).sum())
            self._begin_us = first if self._begin_us is None else self._begin_us
            self._last_us = last
            self._held.append(events)
            self._mark(last, piece.at_s)
        if piece.until_us is not None and piece.until_us > self._known_us():
            self._until_us = piece.until_us
            self._mark(piece.until_us, piece.at_s)

    def due(self) -> int:
        """How many windows can be cut now."""
        if self._begin_us is None:
            return 0
        if isinstance(self.windowing, TimeStep):
            steps = self._known_us() - self.windowing.length_us - self._begin_us
            return max(steps // self.windowing.stride_us + 1, 0)
        there = self._seen + sum(map(len, self._held)) - self._next - self.windowing.length
        count = max(there // self.windowing.stride + 1, 0)
        return count or int(self._idle())

    def behind_us(self) -> int:
        """How old the next window is, by the newest event or tick."""
        if self._begin_us is None or not self.due():
            return 0
        if isinstance(self.windowing, TimeStep):
            return self._known_us() - self._begin_us - self.windowing.length_us
        return 0 if self._idle() else self._known_us() - int(self._by_count()[1].t_us[-1])

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
                self.windowing = EventCount(sum(map(len, self._held)), self.windowing.stride, self.windowing.idle_us)

    def _known_us(self) -> int:
        return max(self._last_us or 0, self._until_us) if self._last_us is not None else 0

    def _mark(self, t_us: int, at_s: float) -> None:
        self._marks.append((t_us, at_s))
        while len(self._marks) > 4096:
            self._marks.popleft()

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
        return self._cut(EventWindow(self._between(start, end), start, end), self._begin_us)

    def _count_window(self) -> Due:
        if self._idle() and not self._enough():
            start, end = self._taken_us or self._begin_us or 0, self._known_us()
            return self._cut(EventWindow(self._between(start, end), start, end), None)
        assert isinstance(self.windowing, EventCount)
        _, events = self._by_count()
        self._next += self.windowing.stride
        window = EventWindow(events, int(events.t_us[0]), int(events.t_us[-1]) + 1)
        return self._cut(window, None)

    def _cut(self, window: EventWindow, from_us: int | None) -> Due:
        missed = Events.empty(self.size)
        if self._taken_us is not None and window.start_us > self._taken_us:
            missed = self._between(self._taken_us, window.start_us)
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

    def _enough(self) -> bool:
        assert isinstance(self.windowing, EventCount)
        return self._seen + sum(map(len, self._held)) - self._next >= self.windowing.length

    def _idle(self) -> bool:
        if not isinstance(self.windowing, EventCount) or self._begin_us is None or self._enough():
            return False
        return self._known_us() - (self._taken_us or self._begin_us) >= self.windowing.idle_us

    def _by_count(self) -> tuple[int, Events]:
        """Number of the first event, and the events, of the next window."""
        assert isinstance(self.windowing, EventCount)
        joined = Events.concatenate(list(self._held), self.size)
        first = self._next - self._seen
        return self._next, joined[first : first + self.windowing.length]

    def _between(self, start_us: int, end_us: int) -> Events:
        parts = [part for part in (chunk.between(start_us, end_us) for chunk in self._held) if len(part)]
        return parts[0] if len(parts) == 1 else Events.concatenate(parts, self.size)

    def _forget(self, before_us: int) -> None:
        """Chunks that no later window and no later `missed` can ask for."""
        while self._held and self._held[0].t_us[-1] < before_us:
            if isinstance(self.windowing, EventCount) and self._seen + len(self._held[0]) > self._next:
                return
            self._seen += len(self._held.popleft())
