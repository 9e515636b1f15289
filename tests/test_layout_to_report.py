"""The whole way of a data set: the layout's folders prepared, examined, trained on, evaluated and reported.

Simulated hands stand for people; their poses are those of the open hand, or of a file of the shapes of MANO.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evhands import evrealhands_layout as layout
from evhands.cli import main
from evhands.hand.model import load_hand
from evhands.models.checkpoint import read_checkpoint
from evhands.predictions import Predictions, load_predictions
from evhands.recording import read_recording
from evhands.score_files import constant_pose
from mano_shaped import in_terms_of, write_mano_shaped
from small_layout import simulated

PEOPLE = {"0": "4", "1": "7", "2": "1", "3": "3", "4": "1", "5": "4"}
"""Sequence -> subject: 4 is trained on, 7 validates, 1 and 3 are for tests."""
LEFT, FAST = ("1", "3"), ("4", "5")
TINY = {
    "batch": 2,
    "micro_batch": 1,
    "validate_every": 1,
    "model.flow": {"bins": 3, "base_channels": 4, "levels": 2, "residual_blocks": 1, "range_px": 4.0},
    "model.pose": {"encoder": {"channels": [8, 16], "blocks": [1, 1]}, "recurrent_channels": 8, "hidden": 16},
    "model.inputs": {"size_px": 32, "voxel_bins": 3},
    "windows": {"windows": 3, "least_events": 10},
    "evaluation": {"windows": 3, "history_us": 250_000},
}


@dataclass(frozen=True)
class Way:
    """The folders along the way. hand, mano: the options that name the hand model, where it is not the open hand."""

    layout: Path
    prepared: Path
    run: Path
    name: str
    hand: tuple[str, ...]
    mano: tuple[str, ...]


@pytest.fixture(scope="module", params=["open", "mano"])
def way(request, tmp_path_factory) -> Way:
    """A data set in the layout, its recordings, and a network of the paper's kind, two steps of each stage old."""
    root = tmp_path_factory.mktemp(request.param)
    name, path = request.param, root / "MANO_RIGHT.pkl"
    model = load_hand(write_mano_shaped(path)) if name == "mano" else None
    for sequence, subject in PEOPLE.items():
        side = "left" if sequence in LEFT else "right"
        recording = simulated(int(sequence), side, sequence in FAST, subject)
        recording = recording if model is None else in_terms_of(recording, model)
        layout.write_sequence(root / "layout" / sequence, recording, hand=model)
    layout.write_index(root / "layout")
    hand, mano = (() if model is None else (option, str(path)) for option in ("--hand", "--mano"))
    found = Way(root / "layout", root / "recordings", root / "supervised", name, hand, mano)
    assert main(["prepare", "evrealhands", str(found.layout), str(found.prepared), *hand]) == 0
    (root / "tiny.yaml").write_text(json.dumps({"settings": TINY}))
    common = ["--config", str(root / "tiny.yaml"), "--data", str(found.prepared), "--device", "cpu", "--steps", "2",
              "--cache", str(root / "cache"), *hand]  # fmt: skip
    assert main(["train", str(root / "flow"), "--recipe", "flow", *common]) == 0
    start = ["--from", str(root / "flow" / "best.pt")]
    assert main(["train", str(found.run), "--recipe", "supervised", *start, *common]) == 0
    return found


@pytest.mark.slow
def test_a_data_set_as_it_came_and_as_prepared_is_in_order(way: Way, capsys) -> None:
    for folder in (way.layout, way.prepared):
        assert main(["doctor", str(folder), *way.hand]) == 0, capsys.readouterr().out
    for name, subject in PEOPLE.items():
        recording = read_recording(way.prepared / f"{name}.h5")
        assert recording.pose.side == recording.tags.side == ("left" if name in LEFT else "right")
        assert (recording.tags.subject, recording.tags.fast) == (subject, name in FAST)
        assert recording.pose.hand_model == way.name
        if way.name == "open":
            truth = simulated(int(name), recording.tags.side, name in FAST, subject)
            np.testing.assert_allclose(recording.joints_m, truth.joints_m, atol=1e-6)


@pytest.mark.slow
def test_training_sees_neither_the_people_of_the_tests_nor_fast_sequences(way: Way) -> None:
    parts = json.loads((way.run / "data.json").read_text())["recordings"]
    sequences = {part: {name.split("-")[0] for name in names} for part, names in parts.items()}
    assert sequences == {"train": {"0"}, "validation": {"1"}, "test": {"2", "3", "4"}}
    checkpoint = read_checkpoint(way.run / "model.pt", wanted="paper")
    assert checkpoint.meta.data["step"] == 2 and checkpoint.model.config.hand_model == way.name


def _evaluated(way: Way, source: Path, out: Path, protocol: str, *more: str) -> tuple[Predictions, dict[str, Any]]:
    options = ["--data", str(source), "--out", str(out), "--protocol", protocol, *way.mano, *more]
    assert main(["evaluate", str(way.run), *options]) == 0
    return load_predictions(out / "predictions.npz"), json.loads((out / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["evhandpose", "evhands"])
def test_folders_and_prepared_recordings_give_the_figures_of_their_predictions(
    way: Way, protocol: str, tmp_path: Path
) -> None:
    found, told = _evaluated(way, way.layout, tmp_path / "a", protocol)
    again, told_again = _evaluated(way, way.prepared, tmp_path / "b", protocol)
    assert [seen.name for seen in found.recordings] == ["2", "3", "4"]
    assert [seen.side for seen in found.recordings] == ["right", "left", "right"]
    assert set(told["subjects"]) == {"1", "3"} and told["hand_model"] == way.name
    np.testing.assert_array_equal(found.t_us, again.t_us)
    for name in ("joints_m", "truth_m", "boxes_px", "vertex_errors"):
        np.testing.assert_allclose(getattr(found, name), getattr(again, name), atol=2e-5, err_msg=name)
    for group, figures in told["figures"].items():
        for name, figure in figures.items():
            value = told_again["figures"][group][name]["mean"]
            np.testing.assert_allclose(figure["mean"], value, rtol=1e-4, atol=1e-4, err_msg=f"{group} {name}")
    _check_by_hand(found, told["figures"])
    page = (tmp_path / "a" / "report.html").read_text()
    assert f"{told['figures']['all']['mpjpe21']['mean']:.1f}" in page


def _check_by_hand(found: Predictions, figures: dict[str, Any]) -> None:
    """MPJPE and 2D-MPJPE anew, from the file's poses: wrists laid on each other, a hand not found is the constant."""
    left = np.array([seen.side == "left" for seen in found.recordings])[found.recording]
    constant = constant_pose().rooted * np.where(left[:, None, None], [-1, 1, 1], 1)
    rows = np.isfinite(found.truth_m).all((1, 2))
    assert rows.sum() >= 6
    said = np.where(found.found[:, None, None], found.joints_m - found.joints_m[:, :1], constant)
    errors = np.linalg.norm(said - (found.truth_m - found.truth_m[:, :1]), axis=-1)[rows]
    assert figures["all"]["mpjpe21"]["mean"] == pytest.approx(1000 * errors.mean(), abs=1e-3)
    assert figures["all"]["mpjpe20"]["mean"] == pytest.approx(1000 * errors[:, 1:].mean(), abs=1e-3)
    assert figures["all"]["found"]["mean"] == pytest.approx(found.found.mean(), abs=1e-6)
