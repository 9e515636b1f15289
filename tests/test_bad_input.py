"""Bad input, through the command line: one paragraph, exit code 2, no traceback, earlier outputs untouched.

And what can be read of a damaged recording is read, with a warning that says how much.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evhands
from evhands.cli import main
from evhands.events.io import open_events, write_events
from evhands.types import Events, InputError

SIZE = (64, 48)


def some_events(n: int = 3000, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        rng.integers(0, SIZE[0], n).astype(np.uint16),
        rng.integers(0, SIZE[1], n).astype(np.uint16),
        np.sort(rng.integers(0, 1_000_000, n)),
        rng.random(n) < 0.5,
        SIZE,
    )


class Replay:
    """Events in memory as a stream."""

    def __init__(self, *parts: Events) -> None:
        self.parts = parts
        self.size = SIZE

    def __iter__(self):
        return iter(self.parts)


def evt3_bytes(n: int = 200) -> bytes:
    """A Prophesee EVT 3.0 recording: a row, a column and a time a word each."""
    words = [0x8000]
    for i in range(n):
        words += [0x6000 | (i & 0xFFF), 0x0000 | (i % SIZE[1]), 0x2000 | (i % SIZE[0]) | (0x800 if i % 2 else 0)]
    header = f"% evt 3.0\n% format EVT3;width={SIZE[0]};height={SIZE[1]}\n% end\n".encode()
    return header + np.array(words, "<u2").tobytes()


def written(path: Path, events: Events | None = None) -> Path:
    if path.suffix == ".raw":
        path.write_bytes(evt3_bytes())
    else:
        write_events(path, Replay(some_events() if events is None else events))
    return path


def fails(capsys, *arguments: object) -> str:
    """Run the tool, expect a user error, and give back its one paragraph."""
    code = main([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert code == 2, printed
    lines = [line for line in printed.err.splitlines() if not line.startswith("evhands: warning: ")]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith(f"evhands {arguments[0]}: error: ")
    assert len(lines[0]) > 80, "found, wanted and what to do do not fit in so few letters"
    assert "Traceback" not in printed.err
    return lines[0]


def jump_back(path: Path) -> None:
    path.write_text("".join(f"{t},1,1,1\n" for t in [*range(0, 100_000, 1000), *range(0, 100_000, 1000)]))


def outside(path: Path) -> None:
    events = some_events()
    np.savez(path, x=np.append(events.x[1:], 5000), y=events.y, t=events.t_us, p=events.p, width=64, height=48)


UNREADABLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("a.aedat4", lambda path: None),
    "folder": ("a.h5", lambda path: path.mkdir()),
    "empty file": ("a.raw", lambda path: path.write_bytes(b"")),
    "noise": ("a.raw", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000))),
    "prose": ("a.txt", lambda path: path.write_text("Dear diary,\nno events today.\n" * 20)),
    "picture": ("a.aedat4", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))),
    "only a header of aedat4": ("a.aedat4", lambda path: path.write_bytes(b"#!AER-DAT4.0\r\n")),
    "foreign hdf5": ("a.h5", lambda path: _foreign_hdf5(path)),
    "cut hdf5": ("a.h5", lambda path: path.write_bytes(_bytes_of(path)[:3000])),
    "cut npz": ("a.npz", lambda path: path.write_bytes(_bytes_of(path)[:3000])),
    "foreign npz": ("a.npz", lambda path: np.savez(path, cats=np.arange(3))),
    "npz with columns of two lengths": (
        "a.npz",
        lambda path: np.savez(path, x=np.arange(3), y=np.arange(3), t=np.arange(4), p=np.arange(3)),
    ),
    "npz of a pickle": ("a.npz", lambda path: np.savez(path, x=np.array([object()], dtype=object))),
}

UNSOUND: dict[str, tuple[str, Callable[[Path], object]]] = {
    "times run backwards": ("a.csv", jump_back),
    "outside the sensor": ("a.npz", outside),
}


def _bytes_of(path: Path) -> bytes:
    data = written(path).read_bytes()
    path.unlink()
    return data


def _foreign_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["cats"] = np.arange(3)


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("command", ["info", "convert"])
def test_what_is_no_recording_is_refused(case, command, tmp_path, capsys) -> None:
    name, make = UNREADABLE[case]
    make(tmp_path / name)
    target = tmp_path / "out.npz"
    target.write_bytes(b"earlier")
    more = [target] if command == "convert" else []
    assert name in fails(capsys, command, tmp_path / name, *more)
    assert target.read_bytes() == b"earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {name, "out.npz"} - ({name} if case == "missing" else set())
    )


@pytest.mark.parametrize("case", UNSOUND)
def test_convert_refuses_what_is_unsound_and_salvages_it_when_asked(case, tmp_path, capsys) -> None:
    name, make = UNSOUND[case]
    make(tmp_path / name)
    target = written(tmp_path / "out.npz", some_events(10))
    before = target.read_bytes()
    fails(capsys, "convert", tmp_path / name, target)
    assert target.read_bytes() == before
    assert main(["convert", "--salvage", str(tmp_path / name), str(target)]) == 0
    assert "evhands: warning: " in capsys.readouterr().err
    assert len(open_events(target).read()) > 50


@pytest.mark.parametrize("case", UNSOUND)
def test_info_tells_of_unsound_recordings_instead_of_refusing_them(case, tmp_path, capsys) -> None:
    name, make = UNSOUND[case]
    make(tmp_path / name)
    assert main(["info", str(tmp_path / name)]) == 0
    printed = capsys.readouterr()
    assert {"times run backwards": "backwards", "outside the sensor": "outside"}[case] in printed.out + printed.err


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".aedat4", ".csv"])
def test_an_empty_recording_is_a_recording(suffix, tmp_path, capsys) -> None:
    source = written(tmp_path / f"a{suffix}", Events.empty(SIZE))
    assert main(["info", str(source)]) == 0
    assert main(["convert", str(source), str(tmp_path / "b.npz")]) == 0
    assert len(open_events(tmp_path / "b.npz").read()) == 0


@pytest.mark.parametrize("suffix", [".aedat4", ".raw"])
@pytest.mark.parametrize("share", [0.3, 0.71, 0.99])
def test_what_is_whole_of_a_cut_recording_is_read_and_said(suffix, share, tmp_path, capsys) -> None:
    whole = written(tmp_path / f"whole{suffix}")
    events = open_events(whole).read()
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    header = data.find(b"% end\n") + len(b"% end\n") if suffix == ".raw" else 0
    cut.write_bytes(data[: header + (int(share * (len(data) - header)) | 1)])  # in the middle of a word
    target = tmp_path / "out.npz"
    assert main(["convert", str(cut), str(target)]) == 0
    warning = capsys.readouterr().err
    part = open_events(target).read()
    assert warning.count("evhands: warning: ") >= 1
    assert str(len(part)) in warning
    n = len(part)
    assert n < len(events) or share == 0.99
    assert np.array_equal(part.t_us, events.t_us[:n])
    assert np.array_equal(part.x, events.x[:n])


@pytest.mark.parametrize(
    "content",
    [
        '{"K": [[NaN, 0, 32], [0, 60, 24], [0, 0, 1]], "size": [64, 48]}',
        '{"K": [[60, 0, 32], [0, 60, 24]], "size": [64, 48]}',
        '{"K": [[60, 0, 32], [0, 60, 24], [0, 0, 1]], "size": [64, 48], "distortion": [0.1, Infinity, 0, 0]}',
        '{"K": [[60, 0, 32], [0, 60, 24], [0, 0, 1]], "size": [64, 48], "distortion": [0.1, 0, 0]}',
        '{"K": [[60, 0, 32], [0, 60, 24], [0, 0, 1]], "size": [640, 480]}',
        '{"focal": 3}',
        "[1, 2]",
        "not json",
        None,
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(content, tmp_path, capsys) -> None:
    recording = written(tmp_path / "a.npz")
    calibration = tmp_path / "calib.json"
    if content is not None:
        calibration.write_text(content)
    out = tmp_path / "poses"
    fails(capsys, "track", recording, "--out", out, "--camera", calibration)
    assert not out.exists()


class _Attack:
    def __reduce__(self):
        return os.system, ("touch owned",)


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    pickle.dump(value, buffer, protocol=2)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        _pickled({"cats": 3}),
        _pickled([1, 2]),
        _pickled(_Attack()),
        _pickled({"v_template": np.zeros((778, 3)), "f": _Attack()}),
        _pickled({"v_template": np.zeros((778, 3))})[:-30],
    ],
)
def test_a_pickle_that_is_no_mano_is_refused_and_runs_nothing(content, tmp_path, monkeypatch) -> None:
    from evhands.hand.model import load_hand

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="Wanted"):
        load_hand(path)
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path, capsys) -> None:
    from evhands.models.checkpoint import CheckpointMeta, save_checkpoint
    from evhands.models.flow import FlowConfig, FlowNet

    recording, out = written(tmp_path / "a.npz"), tmp_path / "poses"
    checkpoint = tmp_path / "flow.pt"
    save_checkpoint(checkpoint, "flow", FlowNet(FlowConfig()), CheckpointMeta())
    assert "flow" in fails(capsys, "track", recording, "--out", out, "--model", checkpoint)
    for content in (b"", b"no checkpoint", _pickled({"state_dict": {}}), checkpoint.read_bytes()[:5000]):
        checkpoint.write_bytes(content)
        fails(capsys, "track", recording, "--out", out, "--model", checkpoint)
    fails(capsys, "track", recording, "--out", out, "--model", "smal")
    assert not out.exists()


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from evhands.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".aedat4", ".csv"])
def test_a_full_disk_is_said_and_costs_nothing(suffix, tmp_path) -> None:
    """The system lets no file of the process grow past 20 kB, which is how a full disk looks from inside."""
    source = written(tmp_path / "a.npz", some_events(30_000))
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"earlier")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "convert", str(source), str(target)], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("evhands convert: error: Could not write ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert target.read_bytes() == b"earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", target.name]


def test_a_recording_that_is_not_there_is_not_called_damaged(tmp_path) -> None:
    with pytest.raises(InputError, match="is no file"):
        evhands.read_recording(tmp_path / "a.h5")


def test_a_target_of_an_unknown_kind_is_refused(tmp_path, capsys) -> None:
    source = written(tmp_path / "a.npz")
    assert ".h5" in fails(capsys, "convert", source, tmp_path / "b.xyz")
    fails(capsys, "convert", source, source / "b.npz")


def test_options_of_a_wrong_type_in_yaml_are_named(tmp_path, capsys) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(json.dumps({"threshold": "perhaps"}))
    assert "threshold" in fails(capsys, "convert", "--config", config, "a.npz", "b.npz")


def test_the_words_of_evt3_made_here_are_right(tmp_path) -> None:
    events = open_events(written(tmp_path / "a.raw")).read()
    assert len(events) == 200
    assert events.size == SIZE
    assert np.array_equal(events.t_us, np.arange(200))
    assert struct.calcsize("<H") == 2
