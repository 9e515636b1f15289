"""Laws of cutting events that come piece by piece: the windows are those of the whole, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands.events.windows import windows_by_count
from evhands.live import Cutter, EventCount, Piece, TimeStep
from evhands.tracking import whole_windows
from evhands.types import Events, EventWindow

SIZE = (20, 10)


def events_at(t_us: list[int]) -> Events:
    t = np.array(t_us, np.int64)
    return Events((t % 20).astype(np.uint16), (t % 10).astype(np.uint16), t, t % 3 == 0, SIZE)


class Stream:
    size = SIZE

    def __init__(self, parts: list[Events]) -> None:
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)


def cut(parts: list[Events], windowing, ticks: dict[int, int] | None = None) -> list[EventWindow]:
    """All windows of pieces; ticks: number of a piece -> a time before which nothing comes, told before it."""
    cutter, found = Cutter(SIZE, windowing), []
    for number, part in enumerate(parts):
        if ticks and number in ticks:
            cutter.add(Piece(Events.empty(SIZE), 0.0, ticks[number]))
            while cutter.due():
                found.append(cutter.take().window)
        cutter.add(Piece(part, float(part.t_us[-1]) / 1e6))
        while cutter.due():
            found.append(cutter.take().window)
    cutter.finish()
    while cutter.due():
        found.append(cutter.take().window)
    assert cutter.dropped == 0
    return found


def same(a: list[EventWindow], b: list[EventWindow]) -> None:
    assert [(w.start_us, w.end_us) for w in a] == [(w.start_us, w.end_us) for w in b]
    for first, second in zip(a, b, strict=True):
        np.testing.assert_array_equal(first.events.t_us, second.events.t_us)


times = st.lists(st.integers(0, 4000), min_size=1, max_size=120).map(sorted)


@settings(max_examples=80, deadline=None)
@given(times, st.integers(1, 30), st.integers(1, 700), st.integers(1, 700))
def test_windows_by_time_are_those_of_the_whole(t_us, pieces, length, stride):
    whole = events_at(t_us)
    edges = np.linspace(0, len(whole), min(pieces, len(whole)) + 1).astype(int)
    parts = [whole[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    same(cut(parts, TimeStep(length, stride)), list(whole_windows(Stream([whole]), length, stride)))


@settings(max_examples=80, deadline=None)
@given(times, st.integers(1, 30), st.integers(1, 50), st.integers(1, 90))
def test_windows_by_count_are_those_of_the_whole(t_us, pieces, length, stride):
    whole = events_at(t_us)
    edges = np.linspace(0, len(whole), min(pieces, len(whole)) + 1).astype(int)
    parts = [whole[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    wanted = list(windows_by_count(Stream([whole]), length, stride))
    for number, window in enumerate(wanted[: (len(whole) - length) // stride + 1]):
        np.testing.assert_array_equal(window.events.t_us, whole.t_us[number * stride : number * stride + length])
    same(cut(parts, EventCount(length, stride, idle_us=10**9)), wanted)


def test_a_tick_closes_windows_early_and_changes_none():
    parts = [events_at([0, 50, 100]), events_at([1000, 1010, 1100])]
    windowing = TimeStep(100, 100)
    assert len(cut(parts[:1], windowing)) == 1
    cutter = Cutter(SIZE, windowing)
    cutter.add(Piece(parts[0], 0.0))
    assert cutter.due() == 1
    cutter.add(Piece(Events.empty(SIZE), 0.0, 650))
    assert cutter.due() == 6
    same(cut(parts, windowing, {1: 900}), cut(parts, windowing))


def test_the_newest_window_is_taken_and_what_lies_between_is_told():
    whole = events_at(list(range(0, 1000, 10)))
    cutter = Cutter(SIZE, TimeStep(100, 50))
    cutter.add(Piece(whole[:15], 0.0))
    assert cutter.take().window.end_us == 100
    cutter.add(Piece(whole[15:], 0.0))
    last = cutter.take(newest=True)
    assert (last.window.start_us, last.window.end_us) == (850, 950) and cutter.dropped == 16
    np.testing.assert_array_equal(last.missed.t_us, np.arange(100, 850, 10))
    assert not cutter.due()


def test_events_behind_a_closed_window_are_counted_and_are_in_the_next():
    cutter = Cutter(SIZE, TimeStep(100, 50))
    cutter.add(Piece(events_at([0, 20]), 0.0))
    cutter.add(Piece(Events.empty(SIZE), 0.0, 110))
    assert len(cutter.take().window.events) == 2
    cutter.add(Piece(events_at([90, 160]), 0.0))
    assert cutter.late == 1
    np.testing.assert_array_equal(cutter.take().window.events.t_us, [90])


def test_a_silent_source_gives_windows_by_count_too():
    cutter = Cutter(SIZE, EventCount(10, 10, idle_us=100))
    cutter.add(Piece(events_at([0, 5, 9]), 0.0))
    assert not cutter.due()
    cutter.add(Piece(Events.empty(SIZE), 0.0, 250))
    window = cutter.take().window
    assert (window.start_us, window.end_us, len(window.events)) == (0, 250, 3) and not cutter.due()
    cutter.add(Piece(events_at(list(range(260, 267))), 0.0))
    assert cutter.take().window.events.t_us.tolist() == [0, 5, 9, *range(260, 267)]


@pytest.mark.parametrize("windowing", [TimeStep(66_667, 1000), EventCount(500, 100)])
def test_memory_stays_the_same(windowing):
    cutter = Cutter(SIZE, windowing)
    held = []
    for k in range(400):
        cutter.add(Piece(events_at(list(range(k * 10_000, (k + 1) * 10_000, 50))), k / 100))
        while cutter.due():
            cutter.take()
        held.append(sum(map(len, cutter._held)))
    assert max(held[200:]) <= max(held[:200]) < 3000


def test_a_window_is_ready_when_its_end_has_passed():
    cutter = Cutter(SIZE, TimeStep(100, 100))
    cutter.add(Piece(events_at([0, 50]), 10.0 + 50e-6))
    cutter.add(Piece(events_at([60, 180]), 10.0 + 180e-6))
    assert cutter.take().ready_s == pytest.approx(10.0 + 100e-6)
