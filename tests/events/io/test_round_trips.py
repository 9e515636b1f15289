"""What is written is read back: every event, its time and its order, in every format, in chunks of any length."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_path
from event_recordings import Replay, same, some_events
from evhands.events.io import open_events, write_events
from evhands.types import Events, InputError

SUFFIXES = [".h5", ".npz", ".aedat4", ".csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=12)
@given(data=st.data())
def test_every_event_comes_back(suffix, data, tmp_path_factory) -> None:
    n = data.draw(st.integers(0, 300), label="events")
    start_us = data.draw(st.sampled_from([0, 5, 10**6, 1_589_163_147_368_868]), label="start")
    events = some_events(n, data.draw(st.integers(0, 99)), span_us=data.draw(st.sampled_from([1, 1000, 10**7])))
    events = Events(events.x, events.y, events.t_us + start_us, events.p, events.size)
    path = tmp_path_factory.mktemp("round") / f"a{suffix}"
    write_events(path, Replay(events, data.draw(st.sampled_from([13, 100, 400]), label="chunk")))
    file = open_events(path)
    assert file.size == events.size
    assert same(file.read(), events)
    assert same(file.read(), events), "a file can be read twice"
    assert file.start_us == (int(events.t_us[0]) if n else None)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=8)
@given(seed=st.integers(0, 99), start=st.integers(-100, 2_000_100), length=st.integers(0, 1_000_000))
def test_a_time_range_is_what_lies_between(suffix, seed, start, length, tmp_path_factory) -> None:
    events = some_events(500, seed, span_us=2_000_000)
    path = tmp_path_factory.mktemp("range") / f"a{suffix}"
    write_events(path, Replay(events))
    file = open_events(path)
    assert same(file.read(start, start + length), events.between(start, start + length))
    assert same(file.read(start), events.between(start, 1 << 60))
    assert same(file.read(end_us=start), events.between(-(1 << 60), start))


@pytest.mark.parametrize("recording", ["evt3-limb/limb.evt3.raw", "davis346-cars/sample.aedat4"])
def test_real_recordings_lose_nothing_on_the_way_through_every_format(recording, tmp_path) -> None:
    source = open_events(shared_path(f"real/{recording}"))
    events = source.read()
    for a, b in (("h5", "npz"), ("aedat4", "csv")):
        write_events(tmp_path / f"x.{a}", source)
        write_events(tmp_path / f"x.{b}", open_events(tmp_path / f"x.{a}"))
        last = open_events(tmp_path / f"x.{b}")
        assert last.size == source.size
        assert same(last.read(), events)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_file(suffix, tmp_path, monkeypatch) -> None:
    for module in ("hdf5", "npz", "aedat4", "text"):
        monkeypatch.setattr(f"evhands.events.io.{module}.CHUNK_EVENTS", 1 << 13)
    monkeypatch.setattr("evhands.events.io.text._BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr("evhands.events.io.order._MAX_PENDING", 1 << 15)

    def peak(n: int) -> int:
        path = tmp_path / f"{n}{suffix}"
        write_events(path, Replay(some_events(n, span_us=20 * n), 1 << 13))
        tracemalloc.start()
        assert sum(len(events) for events in open_events(path)) == n
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(10_000)  # what is imported and compiled on the way
    assert peak(400_000) < 1.3 * peak(100_000)


def test_a_failing_stream_leaves_the_file_that_was_there(tmp_path) -> None:
    class Failing(Replay):
        def __iter__(self):
            yield self.events
            raise InputError("no more")

    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"earlier")
        with pytest.raises(InputError, match="no more"):
            write_events(path, Failing(some_events(10)))
        assert path.read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == len(SUFFIXES)


def test_columns_have_the_types_that_the_package_promises(tmp_path) -> None:
    for suffix in SUFFIXES:
        write_events(tmp_path / f"a{suffix}", Replay(some_events(10)))
        for events in open_events(tmp_path / f"a{suffix}"):
            kinds = [getattr(events, c).dtype for c in ("x", "y", "t_us", "p")]
            assert kinds == [np.uint16, np.uint16, np.int64, np.bool_]
