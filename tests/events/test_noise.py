from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands.events import noise
from evhands.types import Events

SIZE = (12, 9)


def some_events(n: int = 400, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    columns = (rng.integers(0, high, n).astype(np.uint16) for high in SIZE)
    return Events(*columns, np.sort(rng.integers(0, 20_000, n)), rng.random(n) < 0.5, SIZE)


def naive_keep(events: Events, within_us: int, neighbours: int) -> list[bool]:
    last: dict[tuple[int, int], int] = {}
    keep = []
    for x, y, t in zip(events.x.tolist(), events.y.tolist(), events.t_us.tolist()):
        around = [(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        keep.append(sum(t - last.get(pixel, -(10**12)) <= within_us for pixel in around) >= neighbours)
        last[x, y] = t
    return keep


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3000), st.integers(1, 5))
def test_the_activity_filter_equals_the_naive_one(seed: int, within_us: int, neighbours: int) -> None:
    events = some_events(seed=seed)
    keep, _ = noise.activity_filter(events, within_us=within_us, neighbours=neighbours)
    np.testing.assert_array_equal(keep, naive_keep(events, within_us, neighbours))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 400))
def test_chunks_are_kept_as_the_whole_and_states_are_not_written_to(seed: int, cut: int) -> None:
    events = some_events(seed=seed)
    whole, end = noise.activity_filter(events, within_us=500)
    first, state = noise.activity_filter(events[:cut], within_us=500)
    before = state.last_us.copy()
    second, last = noise.activity_filter(events[cut:], state, within_us=500)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    np.testing.assert_array_equal(last.last_us, end.last_us)
    np.testing.assert_array_equal(state.last_us, before)


def test_no_events_keep_nothing() -> None:
    keep, state = noise.activity_filter(Events.empty(SIZE))
    assert len(keep) == 0 and (state.last_us == noise.LONG_AGO).all()
    keep, counts = noise.hot_pixel_filter(Events.empty(SIZE))
    assert len(keep) == 0 and not counts.counts.any()


def test_a_hot_pixel_goes_and_the_rest_stays() -> None:
    events, n = some_events(800), 900
    hot = Events(
        np.full(n, 5, np.uint16), np.full(n, 4, np.uint16), np.arange(n, dtype=np.int64), np.ones(n, bool), SIZE
    )
    both = Events.concatenate([events, hot])
    keep, state = noise.hot_pixel_filter(both)
    np.testing.assert_array_equal(keep, (both.x != 5) | (both.y != 4))
    assert noise.hot_pixels(state).sum() == 1
    assert noise.hot_pixel_filter(events)[0].all()
    later, _ = noise.hot_pixel_filter(events, state)
    np.testing.assert_array_equal(later, (events.x != 5) | (events.y != 4))


@pytest.mark.parametrize("case", ["dt2000_n4", "dt8000_n4", "dt8000_n1", "dt50000_n3"])
def test_the_published_filter_is_reproduced(shared_path, case: str) -> None:
    stored = np.load(shared_path("fixtures/representations/activity_filter.npz"))
    within_us, neighbours = (int(part.lstrip("dtn")) for part in case.split("_"))
    for kind in ("int", "float"):
        rows = stored[kind + "_events"]
        # Times to a 1/1024 us, so that none of the published float times is rounded.
        times = np.round(rows[:, 3].astype(np.float64) * 1024).astype(np.int64)
        x, y = rows[:, 0].astype(np.uint16), rows[:, 1].astype(np.uint16)
        events = Events(x, y, times, rows[:, 2] > 0, (346, 260))
        keep, _ = noise.activity_filter(events, within_us=within_us * 1024, neighbours=neighbours)
        np.testing.assert_array_equal(keep, stored[f"{kind}_keep_{case}"])
