from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands.events.windows import PixelMap, batch_windows, crop_map, window_at, windows_by_time
from evhands.geometry import crop_camera, default_camera, project, unproject
from evhands.types import Events, EventWindow, InputError

SIZE = (64, 48)


def events_at(times: list[int], seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    n = len(times)
    return Events(
        rng.integers(0, SIZE[0], n).astype(np.uint16),
        rng.integers(0, SIZE[1], n).astype(np.uint16),
        np.array(times, np.int64),
        rng.random(n) < 0.5,
        SIZE,
    )


@dataclass(frozen=True)
class Chunks:
    """A stream cut at given places."""

    events: Events
    cuts: tuple[int, ...] = ()
    size: tuple[int, int] = SIZE

    def __iter__(self) -> Iterator[Events]:
        ends = [0, *sorted(self.cuts), len(self.events)]
        for first, last in zip(ends, ends[1:], strict=False):
            yield self.events[min(first, len(self.events)) : min(last, len(self.events))]


times = st.lists(st.integers(0, 500), max_size=60).map(sorted)


@settings(max_examples=30, deadline=None)
@given(times, st.lists(st.integers(0, 60), max_size=5), st.integers(1, 90), st.integers(1, 120))
def test_chunked_windows_are_those_of_the_whole(t: list[int], cuts: list[int], length: int, stride: int) -> None:
    events = events_at(t)
    got = list(windows_by_time(Chunks(events, tuple(cuts)), length, stride, start_us=20, end_us=400))
    starts = list(range(20, 400, stride))
    assert [w.start_us for w in got] == starts
    inside = events.between(20, 400)
    for window in got:
        wanted = inside.between(window.start_us, window.start_us + length)
        assert window.end_us == window.start_us + length
        for column in ("x", "y", "t_us", "p"):
            np.testing.assert_array_equal(getattr(window.events, column), getattr(wanted, column))


@settings(max_examples=30, deadline=None)
@given(times, st.lists(st.integers(0, 60), max_size=5), st.integers(1, 90))
def test_half_open_windows_partition_all_events(t: list[int], cuts: list[int], length: int) -> None:
    events = events_at(t)
    got = list(windows_by_time(Chunks(events, tuple(cuts)), length))
    together = Events.concatenate([w.events for w in got], SIZE)
    np.testing.assert_array_equal(together.t_us, events.t_us)
    np.testing.assert_array_equal(together.x, events.x)
    assert all(a.end_us == b.start_us for a, b in zip(got, got[1:], strict=False))


def test_an_event_on_the_border_belongs_to_the_later_window() -> None:
    first, second = windows_by_time(Chunks(events_at([0, 10, 19])), 10)
    assert list(first.events.t_us) == [0]
    assert list(second.events.t_us) == [10, 19]


def test_nothing_gives_nothing_or_the_empty_windows_asked_for() -> None:
    empty = Chunks(Events.empty(SIZE))
    assert list(windows_by_time(empty, 10)) == []
    assert list(windows_by_time(empty, 10, start_us=0)) == []
    assert [len(w.events) for w in windows_by_time(empty, 10, start_us=0, end_us=30)] == [0, 0, 0]


def test_a_window_comes_as_soon_as_it_is_complete_and_little_is_held() -> None:
    read: list[int] = []

    class Live:
        size = SIZE

        def __iter__(self) -> Iterator[Events]:
            for k in range(100):
                read.append(k)
                yield events_at([10 * k])

    windows = windows_by_time(Live(), 20)
    next(windows)
    assert len(read) == 3
    next(windows)
    assert len(read) == 5


def test_a_gap_gives_empty_windows_and_a_broken_clock_an_error() -> None:
    gap = list(windows_by_time(Chunks(events_at([0, 1000])), 10))
    assert len(gap) == 101 and sum(len(w.events) for w in gap) == 2
    with pytest.raises(InputError, match="no event for"):
        list(windows_by_time(Chunks(events_at([0, 10**15])), 10))
    with pytest.raises(InputError, match="no event for"):
        list(windows_by_time(Chunks(events_at([10**15])), 10, start_us=0))


@pytest.mark.parametrize("cuts", [(), (2,)])
def test_times_that_run_backwards_are_an_error(cuts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="backwards"):
        list(windows_by_time(Chunks(events_at([0, 10, 5, 20]), cuts), 10))


def test_window_at_ends_before_its_end() -> None:
    window = window_at(events_at([0, 5, 10, 15, 20]), 20, 10)
    assert list(window.events.t_us) == [10, 15] and window.start_us == 10
    assert len(window_at(Events.empty(SIZE), 20, 10).events) == 0


def test_a_batch_without_maps_keeps_everything_and_normalises_time() -> None:
    windows = list(windows_by_time(Chunks(events_at(list(range(0, 100, 3)))), 25, end_us=125))
    batch = batch_windows(windows)
    assert len(batch) == 5 and batch.size == SIZE and batch.x.dtype == np.float32
    for i, window in enumerate(windows):
        part = slice(batch.offsets[i], batch.offsets[i + 1])
        np.testing.assert_array_equal(batch.x[part], window.events.x)
        np.testing.assert_array_equal(batch.p[part], window.events.p)
        np.testing.assert_allclose(batch.t[part], (window.events.t_us - window.start_us) / 25, atol=1e-6)


def test_long_absolute_times_lose_nothing() -> None:
    start = 1_655_000_000_000_000
    window = EventWindow(events_at([start, start + 1, start + 999_999]), start, start + 1_000_000)
    np.testing.assert_allclose(batch_windows([window]).t, [0, 1e-6, 0.999999], atol=1e-9)


def test_a_crop_moves_events_as_its_camera_projects() -> None:
    camera = default_camera(SIZE)
    crop = crop_camera(camera, np.array([30.0, 20.0]), 25.0, 96)
    window = EventWindow(events_at(list(range(500))), 0, 500)
    batch = batch_windows([window, window], crop_map(camera, crop))
    pixels = np.stack([window.events.x, window.events.y], -1).astype(float)
    wanted = project(unproject(pixels, np.full(500, 0.5), camera.K), crop.K)
    keep = ((wanted >= -0.5) & (wanted < 95.5)).all(-1)
    assert 0 < keep.sum() < 500 and list(batch.offsets) == [0, keep.sum(), 2 * keep.sum()]
    np.testing.assert_allclose(np.stack([batch.x, batch.y], -1)[: keep.sum()], wanted[keep], atol=1e-4)
    np.testing.assert_array_equal(batch.p[: keep.sum()], window.events.p[keep])


def test_a_table_moves_first_and_nan_or_outside_the_table_is_dropped() -> None:
    table = np.stack(np.meshgrid(np.arange(64), np.arange(48)), -1).astype(np.float32) + (1, 2)
    table[5, 7] = np.nan
    columns = (np.array([7, 3, 60, 63], np.uint16), np.array([5, 4, 47, 50], np.uint16))
    events = Events(*columns, np.arange(4), np.ones(4, bool), SIZE)
    window = EventWindow(events, 0, 10)
    maps = [PixelMap((32, 24), table.astype(np.float32), np.diag([0.5, 0.5]))]
    batch = batch_windows([window], maps)
    np.testing.assert_allclose(batch.x, [2.0])
    np.testing.assert_allclose(batch.y, [3.0])


def test_the_border_rules_differ_by_half_a_pixel() -> None:
    events = Events(*np.array([[0, 1, 31, 32], [9, 9, 9, 9]], np.uint16), np.arange(4), np.ones(4, bool), SIZE)
    window, shift = EventWindow(events, 0, 10), PixelMap((32, 24), offset=np.array([-0.4, 0.0]))
    np.testing.assert_allclose(batch_windows([window], shift).x, [-0.4, 0.6, 30.6], atol=1e-6)
    np.testing.assert_allclose(batch_windows([window], shift, inside="centres").x, [0.6, 30.6], atol=1e-6)


def test_no_windows_give_an_empty_batch() -> None:
    batch = batch_windows([], size=(32, 24))
    assert len(batch) == 0 and batch.size == (32, 24) and len(batch.x) == 0
    assert batch_windows([], PixelMap((8, 8))).size == (8, 8)


def test_windows_of_different_sizes_do_not_mix() -> None:
    a, b = EventWindow(Events.empty((8, 8)), 0, 1), EventWindow(Events.empty((9, 8)), 0, 1)
    with pytest.raises(ValueError, match="one image size"):
        batch_windows([a, b])
    with pytest.raises(ValueError, match="maps"):
        batch_windows([a], [])
