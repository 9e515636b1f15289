"""EVT 2.0, EVT 3.0 and DAT: what an encoder that follows the specification wrote is read back, however it is cut."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import shared_path
from event_recordings import SIZE, dat, evt2, evt3, header, input_error_at_worst, same, some_events
from evhands.events.io import PartialRecordingWarning, RecordingWarning, open_events
from evhands.types import Events, InputError

ENCODERS = {"EVT2": evt2, "EVT3": evt3, "DAT": dat}
WRAPS_US = {"EVT2": 1 << 34, "EVT3": 1 << 24, "DAT": 1 << 32}


def recording(path: Path, kind: str, events: Events, *more: object) -> Path:
    path.write_bytes(header(kind, events.size) + ENCODERS[kind](events, *more))
    return path


def rows_of_neighbours(n: int, seed: int) -> Events:
    """Events that come in runs of neighbours at one time, which EVT 3.0 stores as vectors."""
    rng = np.random.default_rng(seed)
    starts, rows, times = rng.integers(0, 40, n), rng.integers(0, SIZE[1], n), np.sort(rng.integers(0, 9000, n) * 50)
    parts = [np.unique(rng.integers(0, 24, rng.integers(1, 20))) for _ in range(n)]
    x = np.concatenate([start + part for start, part in zip(starts, parts, strict=True)])
    counts = [len(part) for part in parts]
    p = np.repeat(rng.random(n) < 0.5, counts)
    return Events(x.astype(np.uint16), np.repeat(rows, counts).astype(np.uint16), np.repeat(times, counts), p, SIZE)


@pytest.mark.parametrize("kind", ENCODERS)
@given(n=st.integers(1, 300), seed=st.integers(0, 999), span=st.sampled_from([1, 3000, 10**6]))
def test_what_was_encoded_is_decoded(kind, n, seed, span, tmp_path_factory) -> None:
    events = some_events(n, seed, span_us=span)
    assert same(open_events(recording(tmp_path_factory.mktemp("a") / "a.bin", kind, events)).read(), events)


@given(n=st.integers(1, 60), seed=st.integers(0, 999))
def test_vectors_of_evt3_are_their_events(n, seed, tmp_path_factory) -> None:
    events = rows_of_neighbours(n, seed)
    path = recording(tmp_path_factory.mktemp("a") / "a.raw", "EVT3", events)
    assert same(open_events(path).read(), events)
    assert path.stat().st_size < 8 * len(events) + 200 or n < 10


@pytest.mark.parametrize("kind", ENCODERS)
def test_time_goes_on_over_the_wraps_of_its_counter(kind, tmp_path) -> None:
    wrap = WRAPS_US[kind]
    step = 1 << 19 if kind == "EVT3" else wrap // 32
    t = np.arange(wrap - 20 * step, wrap + 70 * step, step, dtype=np.int64)
    n = len(t)
    events = Events(np.arange(n, dtype=np.uint16) % 64, np.arange(n, dtype=np.uint16) % 48, t, t % 3 == 0, SIZE)
    assert same(open_events(recording(tmp_path / "a.bin", kind, events)).read(), events)


@pytest.mark.parametrize("kind", ["EVT2", "EVT3"])
def test_triggers_are_read_and_cost_no_event(kind, tmp_path) -> None:
    events = some_events(500, span_us=100_000)
    triggers = [(t, k % 8, k % 2) for k, t in enumerate(range(1000, 100_000, 7001))]
    triggers = [(t if kind == "EVT3" else 200_000 + t, number, edge) for t, number, edge in triggers]
    file = open_events(recording(tmp_path / "a.raw", kind, events, triggers))
    assert same(file.read(), events)
    found = file.triggers()
    assert list(zip(found.t_us, found.kind, found.rising, strict=True)) == [(t, i, bool(e)) for t, i, e in triggers]


@pytest.mark.parametrize("kind", ENCODERS)
@given(chunk=st.integers(1, 200), block=st.integers(1, 40))
def test_chunks_and_blocks_of_any_length_give_the_same_events(kind, chunk, block, tmp_path_factory) -> None:
    events = rows_of_neighbours(30, 1) if kind == "EVT3" else some_events(400)
    path = recording(tmp_path_factory.mktemp("a") / "a.bin", kind, events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evhands.events.io.prophesee.CHUNK_EVENTS", chunk)
        patch.setattr("evhands.events.io.prophesee._BLOCK_BYTES", 8 * block)
        assert same(open_events(path).read(), events)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_file_cut_anywhere_gives_the_events_before_the_cut(kind, tmp_path) -> None:
    events = some_events(12, span_us=30_000)
    whole = header(kind) + ENCODERS[kind](events)
    path = tmp_path / "a.bin"
    lengths = []
    for cut in range(len(header(kind)) + 2, len(whole)):
        path.write_bytes(whole[:cut])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            part = open_events(path).read()
        assert same(part, events[: len(part)])
        record = {"EVT2": 4, "EVT3": 2, "DAT": 8}[kind]
        in_a_record = (cut - len(header(kind)) - (2 if kind == "DAT" else 0)) % record != 0
        assert [w.category for w in caught] == [PartialRecordingWarning] * in_a_record
        lengths.append(len(part))
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(events) - 1


DIALECTS = {
    b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n": ("EVT3", (1280, 720)),
    b"% format EVT3;width=640;height=480\n": ("EVT3", (640, 480)),
    b"% camera_integrator_name Prophesee\n% evt 3.0\n% geometry 320x320\n% end\n": ("EVT3", (320, 320)),
    b"% plugin_name hal_plugin_gen31_fx3\n% evt 3.0\n": ("EVT3", (640, 480)),
    b"% evt 3.0\n% plugin_name hal_plugin_imx636\n% end\n": ("EVT3", (1280, 720)),
    b"% evt 3.0\n% end\n": ("EVT3", (320, 320)),
    b"% format EVT2;width=640;height=480\n% end\n": ("EVT2", (640, 480)),
    b"% Date 2024-01-01\n% evt 2.0\n% geometry 346x260\n": ("EVT2", (346, 260)),
    b"% Data file containing CD events.\n% Version 2\n% Height 480\n% Width 640\n": ("DAT", (640, 480)),
    b"% Date 2014-03-01\n% Version 1\n": ("DAT", (320, 320)),
}


@pytest.mark.parametrize("head", DIALECTS)
def test_dialects_of_the_header(head, tmp_path) -> None:
    kind, size = DIALECTS[head]
    events = some_events(50)
    (tmp_path / "a").write_bytes(head + ENCODERS[kind](events))
    file = open_events(tmp_path / "a")
    assert file.size == size
    assert kind[:3] in file.format.replace("RAW ", "")
    assert np.array_equal(file.read().t_us, events.t_us)


@pytest.mark.parametrize("head", [b"% evt 2.1\n% end\n", b"% format EVT4;width=640;height=480\n", b"% hello\n% end\n"])
def test_other_encodings_are_refused_by_name(head, tmp_path) -> None:
    (tmp_path / "a.raw").write_bytes(head + bytes(100))
    with pytest.raises(InputError, match="EVT 2.0, EVT 3.0"):
        open_events(tmp_path / "a.raw")


@pytest.mark.parametrize("kind", ENCODERS)
@given(seed=st.integers(0, 9999))
def test_damage_is_an_input_error_at_worst(kind, seed, tmp_path_factory) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(header(kind) + ENCODERS[kind](some_events(200)))
    for position in rng.integers(0, len(data), 8):
        data[position] = rng.integers(256)
    path = tmp_path_factory.mktemp("a") / "a.raw"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        with input_error_at_worst(path):
            file = open_events(path, salvage=bool(seed % 2))
            total = sum(len(events) for events in file)
            assert total <= 12 * len(data)
            file.triggers()


REAL = {
    "real/evt3-limb/limb.evt3.raw": ((640, 480), 343_474, 125_183, 7_139_845, 9_218_023, 4157),
    "real/noise-evk4/noise.evt3.raw": ((1280, 720), 82_469, 41_439, 14_224_870, 15_476_187, 2),
}


@pytest.mark.parametrize("name", REAL)
def test_real_recordings(name) -> None:
    file = open_events(shared_path(name))
    events = file.read()
    found = (file.size, len(events), int(events.p.sum()), events.t_us[0], events.t_us[-1], len(file.triggers()))
    assert found == REAL[name]


@pytest.mark.parametrize("name", REAL)
def test_the_evt3_package_reads_the_same(name) -> None:
    reference = pytest.importorskip("evt3").decode_file(str(shared_path(name)))
    events = open_events(shared_path(name)).read()
    for ours, theirs in (
        (events.x, reference.x),
        (events.y, reference.y),
        (events.t_us, reference.timestamp),
        (events.p, reference.polarity),
    ):
        assert np.array_equal(ours.astype(np.int64), np.asarray(theirs).astype(np.int64))


@pytest.mark.parametrize("kind", ENCODERS)
def test_faery_reads_the_same(kind, tmp_path) -> None:
    faery = pytest.importorskip("faery")
    events = some_events(2000)
    path = recording(tmp_path / ("a.dat" if kind == "DAT" else "a.raw"), kind, events)
    theirs = faery.events_stream_from_file(path).to_array()
    ours = open_events(path).read()
    assert same(ours, events)
    names = theirs.dtype.names
    t, x, y, p = (theirs[name].astype(np.int64) for name in names)
    assert np.array_equal(t, ours.t_us)
    assert np.array_equal(x, ours.x)
    assert np.array_equal(p, ours.p)
    assert np.array_equal(y, ours.y) or np.array_equal(ours.size[1] - 1 - y, ours.y)  # faery counts rows from below
