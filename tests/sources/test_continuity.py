"""Times of a source that goes and comes back: never backwards, sound events untouched, gaps as long as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from event_recordings import SIZE, same, some_events
from evhands.sources.continuity import TOLERANCE_US, Clock, continued
from evhands.types import Events


def at(*t_us: int) -> Events:
    n = len(t_us)
    x, y = np.arange(n, dtype=np.uint16), np.zeros(n, np.uint16)
    return Events(x, y, np.array(t_us, np.int64), np.ones(n, np.bool_), SIZE)


def test_sound_events_pass_as_they_are() -> None:
    events, clock = some_events(500, start_us=7), Clock()
    for part in (events[:200], events[200:200], events[200:]):
        clock, given_out, notes = continued(clock, part)
        assert given_out.t_us.base is part.t_us.base and same(given_out, part) and not notes
    assert clock == Clock(0, int(events.t_us[-1]))


@given(st.lists(st.lists(st.integers(-(1 << 50), 1 << 50), max_size=6), max_size=6), st.booleans())
def test_times_never_run_backwards_and_no_event_is_lost(chunks: list[list[int]], away: bool) -> None:
    clock, last = Clock(), None
    for times in chunks:
        clock, events, _ = continued(clock, at(*times), 5_000_000 if away and last is not None else None)
        assert len(events) == len(times)
        assert (np.diff(events.t_us) >= 0).all()
        if len(events):
            assert last is None or events.t_us[0] >= last
            last = int(events.t_us[-1])


def test_a_clock_that_begins_anew_goes_on_after_the_time_away() -> None:
    clock, _, _ = continued(Clock(), at(5_000_000, 6_000_000))
    clock, events, notes = continued(clock, at(0, 10, 20), away_us=2_000_000)
    assert events.t_us.tolist() == [8_000_000, 8_000_010, 8_000_020]
    assert len(notes) == 1 and "back by 6.000 s" in notes[0]
    _, events, notes = continued(clock, at(30, 40))
    assert events.t_us.tolist() == [8_000_030, 8_000_040] and not notes


def test_a_clock_that_went_on_while_the_source_was_away_is_believed() -> None:
    clock, _, _ = continued(Clock(), at(5_000_000))
    _, events, notes = continued(clock, at(9_000_000), away_us=3_900_000)
    assert events.t_us.tolist() == [9_000_000] and not notes


def test_a_clock_that_is_set_within_a_connection_is_followed() -> None:
    clock, events, notes = continued(Clock(), at(100, 200, 1_700_000_000_000_000, 1_700_000_000_000_100))
    assert events.t_us.tolist() == [100, 200, 200, 300] and "on by" in notes[0]
    _, events, notes = continued(clock, at(0, 50))
    assert events.t_us.tolist() == [300, 350] and "back by" in notes[0]


def test_a_little_disorder_is_put_in_order_without_a_word() -> None:
    late = 1_000_000 - TOLERANCE_US
    clock, events, notes = continued(Clock(), at(999_000, 1_000_000, late, 1_000_500))
    assert events.t_us.tolist() == [late, 999_000, 1_000_000, 1_000_500] and not notes
    assert events.x.tolist() == [2, 0, 1, 3]
    _, events, notes = continued(clock, at(1_000_400, 1_000_600))
    assert events.t_us.tolist() == [1_000_500, 1_000_600] and not notes


def test_events_outside_the_sensor_are_left_out_and_counted() -> None:
    events = replace(at(1, 2, 3), x=np.array([0, 64, 65_535], np.uint16))
    _, sound, notes = continued(Clock(), events)
    assert sound.t_us.tolist() == [1] and notes == ["2 events outside its sensor were left out"]
