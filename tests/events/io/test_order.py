"""Small disorder is sorted, jumps and strays are reported, and it never matters how the file was cut into chunks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_recordings import SIZE, same, some_events
from evhands.events.io.columns import RawChunk, RecordingWarning
from evhands.events.io.order import TOLERANCE_US, in_order
from evhands.types import Events, InputError

PATH = Path("some.file")


def cut(events: Events, chunk: int):
    for i in range(0, len(events), chunk):
        part = events[i : i + chunk]
        yield RawChunk(part.x, part.y, part.t_us, part.p, min(1.0, (i + chunk) / len(events)))


def run(events: Events, chunk: int, salvage: bool = False) -> tuple[Events, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts = [part for part, _ in in_order(cut(events, chunk), SIZE, PATH, salvage=salvage)]
    assert all(issubclass(w.category, RecordingWarning) for w in caught)
    return Events.concatenate(parts, SIZE), [str(w.message) for w in caught]


def shuffled(events: Events, by_us: int, seed: int = 0) -> Events:
    """The events in an order in which none comes more than `by_us` after a later one."""
    delay = np.random.default_rng(seed).integers(0, by_us + 1, len(events))
    return events[np.argsort(events.t_us + delay, kind="stable")]


@given(n=st.integers(0, 400), chunk=st.integers(1, 500), by_us=st.integers(1, TOLERANCE_US), span=st.integers(1, 10**6))
def test_small_disorder_is_sorted_whatever_the_chunks(n, chunk, by_us, span) -> None:
    events = shuffled(some_events(n, span_us=span), by_us)
    found, said = run(events, chunk)
    assert same(found, events[np.argsort(events.t_us, kind="stable")])
    disordered = bool((np.diff(events.t_us) < 0).any())
    assert len(said) == int(disordered)


@given(n=st.integers(1, 300), chunk=st.integers(1, 400))
def test_ordered_events_pass_unchanged_and_unwarned(n, chunk) -> None:
    events = some_events(n, span_us=50_000)
    found, said = run(events, chunk)
    assert same(found, events)
    assert not said


def test_ordered_chunks_pass_without_a_copy() -> None:
    events = some_events(1000)
    for part, _ in in_order(cut(events, 100), SIZE, PATH):
        assert np.shares_memory(part.t_us, events.t_us)


@given(before=st.integers(1, 200), chunk=st.integers(1, 300), jump=st.integers(TOLERANCE_US + 1, 10**9))
def test_a_jump_back_ends_the_reading_after_everything_before_it(before, chunk, jump) -> None:
    first = some_events(before, start_us=10**9)
    t_back = int(first.t_us[-1]) - jump
    again = some_events(50, 1, start_us=t_back, span_us=1)
    both = Events.concatenate([first, again])
    read: list[Events] = []
    with pytest.raises(InputError, match=f"after {before} events the times run backwards"):
        read.extend(part for part, _ in in_order(cut(both, chunk), SIZE, PATH))
    found, said = run(both, chunk, salvage=True)
    assert same(found, first)
    assert f"Read {before} events" in said[0]


@given(n=st.integers(1, 200), chunk=st.integers(1, 300), seed=st.integers(0, 99))
def test_events_outside_the_sensor_are_an_error_or_dropped(n, chunk, seed) -> None:
    events = some_events(n, seed)
    stray = np.random.default_rng(seed).random(n) < 0.1
    moved = Events(np.where(stray, SIZE[0] + seed, events.x).astype(np.uint16), events.y, events.t_us, events.p, SIZE)
    if stray.any():
        with pytest.raises(InputError, match=f"event {int(np.argmax(stray))} lies at x = {SIZE[0] + seed}"):
            run(moved, chunk)
    found, said = run(moved, chunk, salvage=True)
    assert same(found, events[~stray])
    assert len(said) == int(stray.any())


def test_a_moment_with_more_events_than_fit_is_passed_on_in_order(monkeypatch) -> None:
    monkeypatch.setattr("evhands.events.io.order._MAX_PENDING", 200)
    events = some_events(2000, span_us=5)
    found, _ = run(events, 50)
    assert same(found, events)
