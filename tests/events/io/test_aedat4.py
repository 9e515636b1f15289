"""aedat4: equal to dv-processing on sound files, and on damaged ones everything that is whole and never worse."""

from __future__ import annotations

import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_path
from event_recordings import Replay, input_error_at_worst, same, some_events
from evhands.events.io import RecordingWarning, open_events, write_events
from evhands.events.io.flatbuffer import FlatbufferError, Table
from evhands.types import Events, InputError

COMPRESSIONS = ["NONE", "LZ4", "LZ4_HIGH", "ZSTD", "ZSTD_HIGH"]


def by_dv(path: Path, events: Events, compression: str) -> Path:
    """The events written by dv-processing, one at a time."""
    dv = pytest.importorskip("dv_processing")
    kind = getattr(dv.CompressionType, compression)
    writer = dv.io.MonoCameraWriter(str(path), dv.io.MonoCameraWriter.EventOnlyConfig("TEST", events.size, kind))
    store = dv.EventStore()
    for t, x, y, p in zip(events.t_us, events.x, events.y, events.p, strict=True):
        store.push_back(int(t), int(x), int(y), bool(p))
    writer.writeEvents(store)
    del writer
    return path


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_dv_processing_wrote_is_read(compression, tmp_path) -> None:
    events = some_events(12_000, start_us=1_589_163_147_368_868)
    file = open_events(by_dv(tmp_path / "a.aedat4", events, compression))
    assert file.size == events.size
    assert file.details["compression"] == compression
    assert same(file.read(), events)


def test_dv_processing_reads_what_we_wrote(tmp_path) -> None:
    dv = pytest.importorskip("dv_processing")
    events = some_events(40_000, start_us=10**15, span_us=3_000_000)
    write_events(tmp_path / "a.aedat4", Replay(events, 7777))
    reader = dv.io.MonoCameraRecording(str(tmp_path / "a.aedat4"))
    assert reader.getEventResolution() == events.size
    assert reader.getTimeRange() == (events.t_us[0], events.t_us[-1])
    stores = []
    while (store := reader.getNextEventBatch()) is not None:
        stores.append(store.numpy())
    theirs = np.concatenate(stores)
    for ours, name in ((events.x, "x"), (events.y, "y"), (events.t_us, "timestamp"), (events.p, "polarity")):
        assert np.array_equal(ours.astype(np.int64), theirs[name].astype(np.int64))
    start = 10**15 + 1_000_000
    found = reader.getEventsTimeRange(start, start + 50_000, "events").numpy()["timestamp"]
    assert np.array_equal(found, events.between(start, start + 50_000).t_us)


def test_frames_and_triggers_of_a_real_recording_are_those_of_dv_processing() -> None:
    dv = pytest.importorskip("dv_processing")
    path = shared_path("real/davis346-cars/sample.aedat4")
    file, reader = open_events(path), dv.io.MonoCameraRecording(str(path))
    events = file.read()
    assert (len(events), file.size) == (6676, (346, 260))
    frames = list(file.frames())
    assert len(frames) == 4
    for frame in frames:
        theirs = reader.getNextFrame()
        assert np.array_equal(frame.image[:, :, 0], theirs.image)
        assert frame.exposure_us == theirs.exposure.total_seconds() * 1e6
    triggers, theirs = file.triggers(), []
    while reader.isRunning("triggers") and (batch := reader.getNextTriggerBatch()) is not None:
        theirs += [(t.timestamp, t.type.value) for t in batch]
    assert list(zip(triggers.t_us, triggers.kind, strict=True)) == theirs


@pytest.fixture(scope="module")
def packets(tmp_path_factory) -> tuple[bytes, Events]:
    """A recording of many small packets."""
    events = some_events(2000)
    path = tmp_path_factory.mktemp("packets") / "a.aedat4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evhands.events.io.aedat4_writer._PACKET_EVENTS", 100)
        write_events(path, Replay(events))
    return path.read_bytes(), events


def read_quietly(path: Path) -> tuple[Events, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        events = open_events(path).read()
    return events, [str(w.message) for w in caught if issubclass(w.category, RecordingWarning)]


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_recording_gives_its_whole_packets_and_says_how_many_events(share, packets, tmp_path_factory) -> None:
    data, events = packets
    start, end = data.index(b"</dv>") + 20, struct.unpack_from("<q", data, 46)[0]
    path = tmp_path_factory.mktemp("cut") / "a.aedat4"
    path.write_bytes(data[: int(start + share * (end - start))])
    part, said = read_quietly(path)
    assert same(part, events[: len(part)])
    assert len(part) % 100 == 0
    assert len(part) >= share * len(events) - 250
    assert len(said) == 1
    assert f"Read {len(part)} events" in said[0]


def test_a_cut_header_is_an_input_error(packets, tmp_path) -> None:
    data, _ = packets
    for length in (14, 16, 18, 40, 500):
        (tmp_path / "a.aedat4").write_bytes(data[:length])
        with pytest.raises(InputError, match="header"):
            open_events(tmp_path / "a.aedat4")


def test_one_damaged_packet_costs_that_packet_alone(packets, tmp_path) -> None:
    data, events = packets
    first = data.index(b"</dv>") + 6
    position = data.index(b"\x04\x22\x4d\x18", first)
    broken = bytearray(data)
    broken[position : position + 4] = b"dead"
    (tmp_path / "a.aedat4").write_bytes(broken)
    part, said = read_quietly(tmp_path / "a.aedat4")
    assert same(part, events[100:])
    assert "1 packets were skipped" in said[0]


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), hits=st.integers(1, 12))
def test_mutations_never_hang_and_are_an_input_error_at_worst(seed, hits, packets, tmp_path_factory) -> None:
    data = bytearray(packets[0])
    rng = np.random.default_rng(seed)
    for position in rng.integers(14, len(data) if seed % 2 else 900, hits):
        data[position] = rng.integers(256)
    path = tmp_path_factory.mktemp("mutated") / "a.aedat4"
    path.write_bytes(data)
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        with input_error_at_worst(path):
            file = open_events(path, salvage=True)
            assert sum(len(events) for events in file) <= 2 * len(packets[1])
            list(file.frames())
            file.triggers()
    assert time.process_time() - begun < 5


@given(data=st.binary(max_size=80), start=st.integers(0, 8), number=st.integers(0, 3))
def test_any_bytes_as_a_flatbuffer_are_values_or_a_flatbuffer_error(data, start, number) -> None:
    try:
        table = Table.root(data[:4] + b"EVTS" + data[8:], b"EVTS")
        table.scalar(number, "q")
        table.vector(number, 16)
        table.text(number)
        table.tables(number)
    except FlatbufferError:
        pass
