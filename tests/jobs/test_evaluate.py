"""`evhands evaluate` and `evhands score`: what they leave behind, going on, and what they refuse."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest

from evhands import evrealhands_layout as layout
from evhands.cli import main
from evhands.jobs import evaluate as job
from evhands.predictions import load_predictions
from hand_recordings import write_hand
from small_layout import simulated


def _evaluate(folder, *more: str) -> int:
    arguments = ["evaluate", "small", "--data", str(folder), "--out", str(folder / "out"), "--crop", "truth", *more]
    return main(arguments)


def test_a_data_set_is_predicted_scored_and_goes_on_where_it_stopped(tmp_path, capsys):
    for seed, subject in ((0, "1"), (1, "4"), (2, "3")):
        write_hand(tmp_path / f"{seed}.h5", seed, seconds=0.5, subject=subject)
    predict, seen = job.predict_group, []

    def stops(method, sources, *rest):
        seen.extend(source.stem for source in sources)
        if sources[0].stem == "2":
            raise KeyboardInterrupt
        return predict(method, sources, *rest)

    with mock.patch.object(job, "_TOGETHER", 1), mock.patch.object(job, "predict_group", stops):
        assert _evaluate(tmp_path) == 130
    assert seen == ["0", "2"]  # subject 4 is for training
    assert not (tmp_path / "out" / "predictions.npz").exists()
    with mock.patch.object(job, "predict_group", wraps=predict) as again:
        assert _evaluate(tmp_path) == 0
    assert [call.args[1][0].stem for call in again.call_args_list] == ["2"]
    assert "normal_random" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["recordings"] == 2 and set(results["subjects"]) == {"1", "3"}
    assert len(results["weights"]) == 64 and results["data"].startswith("2 files")
    assert (tmp_path / "out" / "report.html").exists() and not (tmp_path / "out" / "parts").exists()

    def fails(*_):
        raise AssertionError("scoring needs no network")

    before = load_predictions(tmp_path / "out" / "predictions.npz")
    with mock.patch.object(job, "predict_group", fails):
        code = main(["score", str(tmp_path / "out" / "predictions.npz"), "--out", str(tmp_path / "b"), "--no-report"])
    assert code == 0 and json.loads((tmp_path / "b" / "results.json").read_text()) == results
    np.testing.assert_array_equal(before.recording, np.sort(before.recording))


def test_published_files_say_data_subjects_and_what_to_save(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for seed, subject in ((0, "1"), (1, "3")):
        write_hand(tmp_path / "data" / f"{seed}.h5", seed, seconds=1.7, subject=subject)
    (tmp_path / "pretrain.yml").write_text("data: {eval_subject: [1]}\nlog: {save_result: false}\n")
    text = f"exper: {{mode: eval, data_dir: {tmp_path / 'data'}}}\nlog: {{save_result: true, save_images: false}}\n"
    (tmp_path / "eval.yml").write_text(text)
    files = ["--published", str(tmp_path / "pretrain.yml"), str(tmp_path / "eval.yml")]
    assert main(["evaluate", "small", *files, "--out", str(tmp_path / "out"), "--no-report"]) == 0, capsys.readouterr()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["protocol"], results["crop"], set(results["subjects"])) == ("evhandpose", "truth", {"1"})
    kinds = sorted(path.name for path in (tmp_path / "out" / "saved" / "0").iterdir())
    assert kinds == ["joints", "joints2d", "mesh", "projected"]
    assert len(list((tmp_path / "out" / "saved" / "0" / "mesh").iterdir())) == results["rows"]


def test_what_cannot_be_evaluated_is_told(tmp_path, capsys):
    write_hand(tmp_path / "0.h5", 0, seconds=0.5, subject="2")
    wanted = {
        ("--subjects", "8"): "none of 8",
        ("--mano", str(tmp_path / "absent.pkl")): "Could not open the hand model",
        ("--constant", str(tmp_path / "0.h5")): "no constant pose",
        ("--device", "nowhere"): "cannot be used here",
        ("--both-ways",): "Wanted --crop detected",
    }
    for options, words in wanted.items():
        assert _evaluate(tmp_path, *options) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert _evaluate(tmp_path, "--protocol", "evhandpose") == 2  # half a second has no 1.2 s of history
    assert "none is labelled after the history" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", str(tmp_path / "no.pt"), "--data", str(tmp_path), "--out", str(tmp_path / "o")]) == 2


def test_both_ways_predicts_the_same_rows_from_more_evidence(tmp_path):
    layout.write_sequence(tmp_path / "data" / "2", simulated(2, "right", False, "1"))
    found = {}
    for options in ((), ("--both-ways",)):
        out = tmp_path / f"out{len(options)}"
        arguments = ["--data", str(tmp_path / "data"), "--out", str(out), "--no-report", *options]
        assert main(["evaluate", "small", *arguments]) == 0
        found[len(options)] = load_predictions(out / "predictions.npz")
        assert json.loads((out / "results.json").read_text())["both_ways"] == bool(options)
    one, both = found[0], found[1]
    for name in ("recording", "t_us", "events", "window_us", "truth_m"):
        np.testing.assert_array_equal(getattr(one, name), getattr(both, name), err_msg=name)
    assert both.found.sum() >= one.found.sum() > 0
    again = one.found & both.found
    assert not np.allclose(one.joints_m[again], both.joints_m[again], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["detected", "truth"])
def test_two_workers_predict_what_one_does(crop, tmp_path):
    sides = ("right", "left")
    for name, side in zip("23", sides):
        layout.write_sequence(tmp_path / "data" / name, simulated(int(name), side, False, "1"))
    found = []
    for workers in ("1", "2"):
        out, data = tmp_path / workers, str(tmp_path / "data")
        options = ["--data", data, "--out", str(out), "--crop", crop, "--workers", workers, "--no-report"]
        assert main(["evaluate", "small", *options]) == 0
        found.append(load_predictions(out / "predictions.npz"))
    one, two = found
    assert one.found.any()
    assert one.recordings == two.recordings and tuple(seen.side for seen in one.recordings) == sides
    exact = ("recording", "t_us", "found", "events", "window_us", "truth_m", "truth_px", "speed")
    for name in exact:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ("joints_m", "shape", "boxes_px", "confidence", "vertex_errors"):  # of batches of other sizes
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=5e-5, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_the_published_times_are_also_scored_with_crops_from_the_events(tmp_path):
    """Nothing of the truth's place: the boxes are those of the tracker."""
    layout.write_sequence(tmp_path / "data" / "2", simulated(2, "right", False, "1"))
    found = {}
    for crop in ("truth", "detected"):
        out = tmp_path / crop
        options = ["--data", str(tmp_path / "data"), "--out", str(out), "--protocol", "evhandpose", "--crop", crop]
        assert main(["evaluate", "small", *options, "--no-report"]) == 0
        found[crop] = load_predictions(out / "predictions.npz")
        told = json.loads((out / "results.json").read_text())
        assert (told["protocol"], told["crop"]) == ("evhandpose", crop)
    np.testing.assert_array_equal(found["truth"].t_us, found["detected"].t_us)
    assert len(found["truth"]) >= 3
    both = found["detected"].found
    assert both.any() and not np.allclose(found["truth"].boxes_px[both], found["detected"].boxes_px[both], atol=1)
