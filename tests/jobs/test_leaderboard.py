"""Results are ordered and put side by side; what does not compare is refused."""

from __future__ import annotations

import json

import pytest

from evhands.cli import main


def _write(folder, name: str, mean: float, **other) -> str:
    figure = {"mean": mean, "low": mean - 1, "high": mean + 1, "rows": 10}
    content = {
        "method": name, "protocol": "evhands", "crop": "detected", "data": "3 files, ab", "scored": 10,
        "recordings": 3, "intervals": "95 %, bootstrap over recordings", "subjects": {"1": {}},
        "figures": {"all": {"mpjpe21": figure, "found": {"mean": 0.9, "low": None, "high": None, "rows": 10}}},
        "pck": {"mm": [0, 1], "rooted": [0, 0.5], "auc": 0.25, "pa": [0, 1], "pa_auc": 0.5},
    } | other  # fmt: skip
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps(content))
    return str(folder / name / "results.json")


def test_the_best_comes_first_in_every_form(tmp_path, capsys):
    paths = [_write(tmp_path, name, mean) for name, mean in (("worse", 30.0), ("better", 20.0))]
    assert main(["leaderboard", *paths, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert text.index("better") < text.index("worse") and "20.00 [19, 21]" in text
    assert main(["leaderboard", "--form", "markdown", *paths]) == 0
    assert "| better | detected | 20.00 [19, 21] |" in capsys.readouterr().out
    page = (tmp_path / "out" / "leaderboard.html").read_text()
    assert page.index("better") < page.index("worse") and "http" not in page
    assert (tmp_path / "out" / "leaderboard.md").exists()


def test_folders_stand_for_their_results(tmp_path, capsys):
    _write(tmp_path, "a", 20.0)
    assert main(["leaderboard", str(tmp_path / "a")]) == 0
    assert "20.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"), [("protocol", "evhandpose"), ("data", "3 files, cd"), ("scored", 11), ("subjects", {"3": {}})]
)
def test_what_does_not_compare_is_refused(tmp_path, capsys, name, value):
    paths = [_write(tmp_path, "a", 20.0), _write(tmp_path, "b", 30.0, **{name: value})]
    assert main(["leaderboard", *paths]) == 2
    assert f"another {name}" in " ".join(capsys.readouterr().err.split())


def test_other_files_are_told(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["leaderboard", str(tmp_path / "x.json")]) == 2
    assert main(["leaderboard", str(tmp_path / "absent.json")]) == 2
    path = _write(tmp_path, "a", 20.0)
    assert main(["leaderboard", path, "--by", "nothing"]) == 2
    assert "mpjpe21" in capsys.readouterr().err
