"""Text, npz and HDF5 in the dialects that are found in the wild."""

from __future__ import annotations

import importlib
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_recordings import SIZE, Replay, input_error_at_worst, same, some_events
from evhands.events.io import RecordingWarning, open_events, recognise, write_events
from evhands.events.io.dialects import roles_of
from evhands.events.io.hdf5 import EventsWriter
from evhands.events.io.text import parse_lines
from evhands.types import Events, InputError

EVENTS = some_events(400, start_us=5_000_000)


def lines(order: str, separator: str = " ", unit: str = "us", off: int = 0) -> str:
    columns = {
        "x": EVENTS.x.tolist(),
        "y": EVENTS.y.tolist(),
        "t": [f"{t / 1e6:.6f}" if unit == "s" else t for t in EVENTS.t_us.tolist()],
        "p": [1 if p else off for p in EVENTS.p],
    }
    rows = zip(*(columns[c] for c in order), strict=True)
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


TEXTS = {
    "t x y p in seconds, as in the event camera dataset": lines("txyp", unit="s"),
    "a line with the size first": "64 48\n" + lines("txyp", unit="s"),
    "x y t p in microseconds": lines("xytp", ","),
    "x y p t": lines("xypt", "\t"),
    "minus one for OFF": lines("txyp", ", ", off=-1),
    "named columns": "timestamp,x,y,polarity\n" + lines("txyp", ","),
    "names in another order": "p;y;x;t\n" + lines("pyxt", ";"),
    "names with units": "x,y,time [s],pol\n" + lines("xytp", ",", unit="s"),
    "names in a comment": "# x y t p\n" + lines("xytp"),
    "a comment with the size": "# recorded with care\n# size 64x48\n\n" + lines("txyp"),
    "lines that end in CR LF": lines("txyp", ",").replace("\n", "\r\n"),
    "no newline at the end": lines("txyp", ",").rstrip("\n"),
    "a byte order mark": "\ufefft,x,y,p\n" + lines("txyp", ","),
    "more columns than needed": "t,x,y,p,id\n" + lines("txyp", ",").replace("\n", ",7\n"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_dialects_of_text(case, tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXTS[case])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = open_events(path)
        assert same(file.read(), EVENTS)
    assert file.size == SIZE or "size" not in case
    assert same(open_events(path, size=(100, 90)).read(), EVENTS)


def test_the_unit_of_time_can_be_said(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("1 5 5 1\n2 6 6 0\n3 7 7 1\n")
    assert open_events(tmp_path / "a.txt").read().t_us.tolist() == [1, 2, 3]
    assert open_events(tmp_path / "a.txt", time_unit="s").read().t_us.tolist() == [1_000_000, 2_000_000, 3_000_000]


@given(value=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
@example(1589163147.368868)
@example(0.0)
def test_numbers_are_read_as_python_reads_them(value) -> None:
    for text in (repr(value), f"{value:.6f}", f"{value:+.9e}", str(int(value))):
        rows, _, bad = parse_lines(np.frombuffer(f"{text}\n".encode(), np.uint8), 1)
        assert bad == -1
        # Numbers far below any time or pixel may be read as zero: the scaling by powers of ten underflows there.
        assert rows[0, 0] == pytest.approx(float(text), rel=1e-14, abs=1e-200)


@given(block=st.integers(40, 4000), chunk=st.integers(1, 500))
def test_text_in_blocks_of_any_length_is_the_same(block, chunk, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("text") / "a.csv"
    path.write_text(lines("txyp", ","))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evhands.events.io.text._BLOCK_BYTES", block)
        patch.setattr("evhands.events.io.text.CHUNK_EVENTS", chunk)
        assert same(open_events(path).read(), EVENTS)


def test_a_cut_line_is_left_out_with_a_warning_and_a_broken_one_is_an_error(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(lines("txyp", ",") + "6000000,3,")
    with pytest.warns(RecordingWarning, match="Read 400 events"):
        assert same(open_events(path).read(), EVENTS)
    path.write_text(lines("txyp", ",") + "6000000,3,x,1\n" + lines("txyp", ","))
    with pytest.raises(InputError, match="after 400 events comes the line '6000000,3,x,1'"):
        open_events(path, size=SIZE).read()


@pytest.mark.parametrize(
    "text", ["a,b,c,d\n1,2,3,4\n", "1 2 3\n4 5 6\n", "10 20 30 40\n11 21 31 41\n", "hello world\n", "t,x,y\n1,2,3\n"]
)
def test_other_text_is_refused(text, tmp_path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match="Wanted"):
        open_events(tmp_path / "a.txt")


STRUCTURED = np.zeros(len(EVENTS), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
for _name, _column in (("t", EVENTS.t_us), ("x", EVENTS.x), ("y", EVENTS.y), ("p", EVENTS.p)):
    STRUCTURED[_name] = _column
TABLE = np.stack([EVENTS.x, EVENTS.y, EVENTS.t_us, EVENTS.p], axis=1).astype(np.float64)
NPZ = {
    "x y t p": {"x": EVENTS.x, "y": EVENTS.y, "t": EVENTS.t_us, "p": EVENTS.p},
    "seconds": {"x": EVENTS.x, "y": EVENTS.y, "ts": EVENTS.t_us / 1e6, "pol": EVENTS.p},
    "float microseconds, minus one": {
        "xs": EVENTS.x.astype(float), "ys": EVENTS.y, "timestamps": EVENTS.t_us.astype(float),
        "ps": np.where(EVENTS.p, 1, -1),
    },
    "with width and height": {**dict.fromkeys(("width",), 64), "height": 48, "x": EVENTS.x, "y": EVENTS.y,
                              "t_us": EVENTS.t_us, "polarity": EVENTS.p},
    "events N x 4": {"events": TABLE},
    "N x 4, columns in memory order": {"events": np.asfortranarray(TABLE)},
    "N x 4, t x y p in seconds": {"arr_0": TABLE[:, [2, 0, 1, 3]] * [1e-6, 1, 1, 1]},
    "structured": {"events": STRUCTURED},
}  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("case", NPZ)
def test_dialects_of_npz(case, compressed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("evhands.events.io.npz.CHUNK_EVENTS", 150)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **NPZ[case])
    file = open_events(tmp_path / "a.npz")
    assert same(file.read(), EVENTS)
    assert file.size == (int(EVENTS.x.max()) + 1, int(EVENTS.y.max()) + 1) or file.size == SIZE


def write_dsec(path, size_named: bool = False, **options: object) -> None:
    with h5py.File(path, "w") as file:
        for name, values in {"x": EVENTS.x, "y": EVENTS.y, "p": EVENTS.p.astype(np.uint8)}.items():
            file.create_dataset(f"events/{name}", data=values, chunks=(100,), **options)
        t = (EVENTS.t_us - 5_000_000).astype(np.uint32)
        file.create_dataset("events/t", data=t, chunks=(100,), **options)
        file["t_offset"] = np.int64(5_000_000)
        file["ms_to_idx"] = np.searchsorted(t, np.arange(t[-1] // 1000 + 1) * 1000).astype(np.uint64)


def test_the_layout_of_dsec(tmp_path) -> None:
    write_dsec(tmp_path / "events.h5")
    file = open_events(tmp_path / "events.h5")
    assert file.size == (640, 480)
    assert same(file.read(), EVENTS)
    for start in (0, 5_000_000, 5_000_001, 5_400_000, 5_999_999, 7_000_000):
        assert same(file.read(start, start + 30_000), EVENTS.between(start, start + 30_000))


def test_blosc_needs_the_plugin_and_says_so(tmp_path, monkeypatch) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    write_dsec(tmp_path / "events.h5", **plugin.Blosc(cname="zstd", clevel=1))
    assert same(open_events(tmp_path / "events.h5").read(), EVENTS)
    original = importlib.import_module

    def without_plugin(name: str, *more: object):
        if name == "hdf5plugin":
            raise ImportError(name)
        return original(name, *more)

    monkeypatch.setattr(importlib, "import_module", without_plugin)
    with pytest.raises(InputError, match=r"evhands\[dsec\]"):
        open_events(tmp_path / "events.h5")


def test_our_hdf5_follows_its_page_and_minds_nothing_beside_it(tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["poses/t_us"] = np.arange(3)
        writer = EventsWriter(file, SIZE)
        for start in range(0, len(EVENTS), 77):
            writer.append(EVENTS[start : start + 77])
        writer.append(Events.empty(SIZE))
        assert writer.written == len(EVENTS)
    assert same(open_events(path).read(), EVENTS)
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format": "evhands", "version": 1, "width": 64, "height": 48}
        t = file["events/t"][:]
        assert file["t_offset"][()] == EVENTS.t_us[0]
        index = np.searchsorted(t, np.arange(t[-1] // 1000 + 1) * 1000)
        assert np.array_equal(file["ms_to_idx"][:], index)
        assert file["poses/t_us"].shape == (3,)


def test_columns_of_different_lengths_give_what_all_have_and_a_warning(tmp_path) -> None:
    write_events(tmp_path / "a.h5", Replay(EVENTS))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["events/p"].resize((300,))
    with pytest.warns(RecordingWarning, match="300 to 400"):
        assert same(open_events(tmp_path / "a.h5").read(), EVENTS[:300])


def test_a_gap_of_days_is_refused_before_the_index_fills_the_disk(tmp_path) -> None:
    far = Events(EVENTS.x[:2], EVENTS.y[:2], np.array([0, 1 << 60]), EVENTS.p[:2], SIZE)
    with pytest.raises(InputError, match="hours"):
        write_events(tmp_path / "a.h5", Replay(far))


def test_a_newer_version_of_our_layout_is_refused(tmp_path) -> None:
    write_events(tmp_path / "a.h5", Replay(EVENTS))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(InputError, match="newer evhands"):
        open_events(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
@given(seed=st.integers(0, 9999))
def test_damage_is_an_input_error_at_worst(suffix, seed, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("a") / f"a{suffix}"
    write_events(path, Replay(EVENTS))
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 6):
        data[position] = rng.integers(256)
    path.write_bytes(data[: rng.integers(1, len(data) + 1)] if seed % 3 == 0 else data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with input_error_at_worst(path):
            assert sum(map(len, open_events(path, salvage=True))) <= 2 * len(EVENTS)


KINDS = {
    b"": "empty",
    b"#!AER-DAT4.0\r\n": "aedat4",
    b"#!AER-DAT3.1\r\n": "aedat-old",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"% evt 3.0\n": "prophesee",
    b"#ROSBAG V2.0\n": "rosbag",
    b"\x00\x00\x00\x18ftypmp42": "video",
    b"RIFF\x00\x00\x00\x00AVI LIST": "video",
    b"0.1 3 4 1\n": "text",
    bytes(range(256)): "unknown",
}


@pytest.mark.parametrize("head", KINDS)
def test_files_are_known_by_their_content(head, tmp_path) -> None:
    (tmp_path / "misleading.npz").write_bytes(head)
    assert recognise(tmp_path / "misleading.npz") == KINDS[head]


def test_names_of_columns() -> None:
    assert roles_of(["Time_us", "X", "Y", "Polarity"]) == ({"t": 0, "x": 1, "y": 2, "p": 3}, "us")
    assert roles_of(["x", "t [s]", "p"]) == ({"x": 0, "t": 1, "p": 2}, "s")
    assert roles_of(["height", "width", "xyz", ""]) == ({}, None)
