"""`evhands prepare evrealhands`: whole folders, several processes, and what becomes of faulty sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evhands import evrealhands_layout as layout
from evhands.cli import main
from evhands.recording import read_recording
from test_evrealhands_layout import a_recording


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    for name, side in (("2", "right"), ("10", "left"), ("11", "right")):
        layout.write_sequence(tmp_path / "data" / name, a_recording(int(name), side=side))
    layout.write_index(tmp_path / "data")
    return tmp_path / "data"


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["prepare", "evrealhands", *map(str, arguments)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def test_a_folder_becomes_recordings_and_the_second_run_keeps_them(data: Path, tmp_path: Path, capsys) -> None:
    code, out, _ = _run(capsys, data, tmp_path / "out")
    assert code == 0 and "holds 3 recordings (0 were there already)" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["10.h5", "11.h5", "2.h5"]
    for name, side in (("2", "right"), ("10", "left")):
        found = read_recording(tmp_path / "out" / f"{name}.h5")
        assert found.pose.side == found.tags.side == side
    code, out, _ = _run(capsys, data, tmp_path / "out")
    assert code == 0 and "(3 were there already)" in out


@pytest.mark.slow
def test_several_processes_write_what_one_writes(data: Path, tmp_path: Path, capsys) -> None:
    for workers in (1, 2):
        assert _run(capsys, data, tmp_path / str(workers), "--workers", workers)[0] == 0
    for path in (tmp_path / "1").iterdir():
        one, two = read_recording(path), read_recording(tmp_path / "2" / path.name)
        np.testing.assert_array_equal(one.joints_m, two.joints_m)
        np.testing.assert_array_equal(one.events.t_us, two.events.t_us)
        assert one.meta == two.meta


def test_faulty_sequences_stop_it_or_are_listed(data: Path, tmp_path: Path, capsys) -> None:
    broken = data / "10" / "annot.json"
    broken.write_text(broken.read_text().replace('"scene": "flash"', '"scene": "dusk"'))
    code, _, err = _run(capsys, data, tmp_path / "a")
    assert code == 2 and f"{broken}: scene: wanted" in err and "--keep-going" in err
    assert not list((tmp_path / "a").glob("10.h5"))
    code, out, err = _run(capsys, data, tmp_path / "b", "--keep-going")
    assert code == 1 and "holds 2 recordings" in out
    assert f"1 skipped:\n  10: {broken}: scene: wanted" in err
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["11.h5", "2.h5"]


def test_sequences_that_only_the_index_knows_are_listed(data: Path, tmp_path: Path, capsys) -> None:
    (data / "11").rename(tmp_path / "elsewhere")
    code, _, err = _run(capsys, data, tmp_path / "a")
    assert code == 2 and "names the sequence '11'" in err
    code, _, err = _run(capsys, data, tmp_path / "a", "--keep-going")
    assert code == 1 and "names the sequence '11'" in err


def test_mano_poses_need_the_users_file(tmp_path: Path, capsys) -> None:
    layout.write_sequence(tmp_path / "data" / "0", a_recording(1))
    path = tmp_path / "data" / "0" / "annot.json"
    path.write_text(path.read_text().replace('"hand_model": "open", ', ""))
    code, _, err = _run(capsys, tmp_path / "data", tmp_path / "out")
    assert code == 2 and "MANO_RIGHT.pkl" in err
    code, _, err = _run(capsys, tmp_path / "data", tmp_path / "out", "--hand", tmp_path / "none.pkl")
    assert code == 2 and "none.pkl" in err
    assert not list(tmp_path.glob("out/*"))


def test_folders_without_sequences_are_refused(tmp_path: Path, capsys) -> None:
    code, _, err = _run(capsys, tmp_path, tmp_path / "out")
    assert code == 2 and "holds no sequence" in err
