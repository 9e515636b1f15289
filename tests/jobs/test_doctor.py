"""`evhands doctor`: a table, exit codes, a file of figures and a picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evhands.cli import main
from small_layout import planted, write_small_layout


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory) -> Path:
    root = write_small_layout(tmp_path_factory.mktemp("data"))
    for name in ("1", "2"):
        shutil.rmtree(root / name)
    index = json.loads((root / "id_seq_all.json").read_text())
    kept = {key: {s: names for s, names in listing.items() if names == ["0"]} for key, listing in index.items()}
    (root / "id_seq_all.json").write_text(json.dumps(kept))
    return root


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, arguments)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def test_a_sound_data_set_is_exit_code_0_with_a_table_figures_and_a_picture(data: Path, tmp_path: Path, capsys) -> None:
    code, out, _ = _run(capsys, data, "--sheet", tmp_path / "sheet.png", "--json", tmp_path / "found.json")
    assert code == 0 and "All 1 in order." in out and "normal_random" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["in_order"] and found["data_set"] == []
    assert found["recordings"][0]["labels"] == 24 and found["recordings"][0]["findings"] == []
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape[1] == 346 and picture[40:].std() > 5


def test_a_fault_is_exit_code_1_and_stands_in_table_text_and_file(data: Path, tmp_path: Path, capsys) -> None:
    folder = planted(data, tmp_path / "copy", "boxes outside the image")
    code, out, _ = _run(capsys, folder.parent, "--json", tmp_path / "found.json")
    assert code == 1
    assert (
        "0: boxes: 5 of 24 boxes lie outside the 346x260 image" in out and "1 finding in 1 of 1: not in order." in out
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["in_order"]
    assert [finding["kind"] for finding in found["recordings"][0]["findings"]] == ["boxes"]


def test_sequences_that_the_index_names_and_nobody_has_are_exit_code_1(data: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(data, tmp_path / "data")
    index = tmp_path / "data" / "id_seq_all.json"
    index.write_text(index.read_text().replace('["0"]', '["0", "7"]', 1))
    code, out, _ = _run(capsys, tmp_path / "data")
    assert code == 1 and "the data set: index: " in out and "'7'" in out


def test_what_is_no_data_set_is_exit_code_2(tmp_path: Path, capsys) -> None:
    for path, words in ((tmp_path / "none", "is not there"), (tmp_path, "holds no recording")):
        code, _, err = _run(capsys, path)
        assert code == 2 and words in err
    (tmp_path / "a.h5").write_bytes(b"no recording")
    code, out, _ = _run(capsys, tmp_path)
    assert code == 1 and "a: " in out
