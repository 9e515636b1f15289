"""The ablation script: which runs, what they read and are scored on, and the table of what they wrote."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.small_recipes import STAGE_INPUTS
from evhands.types import InputError
from hand_recordings import cached_hand


@pytest.fixture(name="script", scope="module")
def _script():
    spec = importlib.util.spec_from_file_location("ablation", REPOSITORY / "scripts" / "ablation.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ablation"]


def test_every_run_is_made_once_and_the_first_seeds_first(script):
    runs = script.plan()
    assert len(set(runs)) == len(runs) == len({f"{cell.name}-{seed}" for cell, seed in runs})
    seeds = [seed for _, seed in runs]
    assert seeds == sorted(seeds)
    counts = {cell: [c for c, _ in runs].count(cell) for cell, _ in runs}
    cell = script.Cell
    wanted = {(share, losses) for share in (1.0, 0.2, 0.05) for losses in ("supervised", "all")}
    assert wanted <= {(c.labels, c.losses) for c in counts}
    spread = [cell(0.05, losses) for losses in ("supervised", "contrast", "edge", "smooth", "all")]
    assert all(counts[c] == 3 for c in (*spread, cell(1.0, "supervised"), cell(1.0, "supervised", flow=False)))


def test_runs_differ_by_what_their_cell_says_alone(script):
    cell = script.Cell
    alike, control = (script.run_config(cell(0.05, losses), 1, 8.0) for losses in ("all", "items"))
    weak = {"contrast", "edge", "smooth"}
    assert set(alike.weights) - set(control.weights) == weak
    assert replace(alike, weights=control.weights) == control
    one = script.run_config(cell(0.05, "edge"), 1, 8.0)
    assert set(one.weights) & weak == {"edge"}
    without = script.run_config(cell(1.0, "supervised", flow=False), 1, 8.0)
    with_flow = script.run_config(cell(1.0, "supervised"), 1, 8.0)
    assert replace(without, model=with_flow.model) == with_flow and not set(with_flow.weights) & weak
    assert {c.hours for c in (alike, one, without)} == {8 / 60}


def test_the_source_is_narrower_than_the_target_and_nobody_of_the_test_is_in_either(script):
    targets = [script.target_clip(i) for i in range(28)]
    sources = [script.source_clip(i) for i in range(28)]
    assert {c.orientation for c in targets} == {"frontal", "free"} and {c.orientation for c in sources} == {"frontal"}
    assert {c.scene.light for c in sources} == {"normal"} < {c.scene.light for c in targets}
    ranges = [sources[0].subjects, targets[0].subjects, script.clip_of_testset(0)[1].subjects]
    assert ranges == sorted(ranges) and all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:]))


def test_scored_windows_are_end_to_end_and_end_at_labels(script, tmp_path):
    recordings = [cached_hand(tmp_path, seed, seconds=1.2, rate_hz=100) for seed in (1, 2)]
    items = script.test_items(recordings)
    assert len(items) == 2 and items.label.shape[1] == 17
    for i, recording in enumerate(recordings):
        ends = items.edges_us[i, 1:] + recording.start_us
        np.testing.assert_array_equal(ends, recording.labels.t_us[items.label[i]])
        lengths = np.diff(items.edges_us[i])
        assert (np.abs(lengths - 1e6 / 15) < 10_001).all()
        assert abs(lengths.mean() - 1e6 / 15) < 1000
    torch.manual_seed(0)
    model = SmallEstimator(SmallConfig(inputs=STAGE_INPUTS, channels=(8, 8, 16), memory=8, decoder=8)).eval()
    said, truth = script.predicted_joints(model, recordings)
    assert said.shape == truth.shape == (2, 17 - script.HISTORY + 1, 21, 3) and np.isfinite(said).all()
    for i, recording in enumerate(recordings):
        rows = items.label[i, script.HISTORY - 1 :]
        np.testing.assert_allclose(truth[i], recording.labels.joints_m[rows], atol=1e-6)
    alone, _ = script.predicted_joints(model, recordings[1:])
    np.testing.assert_allclose(alone[0], said[1], atol=1e-4)


def result(script, cell, seed: int, frontal: float, **changes) -> dict:
    figures = {"mpjpe_mm": frontal, "pa_mpjpe_mm": 9.0, "constant_mpjpe_mm": 60.0, "constant_pa_mpjpe_mm": 20.0}
    machine = {"processor": "some processor", "cores": 2}
    told = {
        "cell": asdict(cell), "seed": seed, "figures": {"frontal": figures, "free": figures}, "steps": 100 + seed,
        "minutes": 8.0, "machine": machine, "workers": 2, "test_set": "168 recordings, ab", "training_set": "cd",
        "start": "ef", "code": "0.1+12",
    }  # fmt: skip
    return told | changes


def test_the_table_tells_mean_spread_and_on_what(script, tmp_path):
    few, all_of = script.Cell(0.05, "supervised"), script.Cell(0.05, "all")
    for seed, value in enumerate((20.0, 22.0, 24.0)):
        (tmp_path / f"{few.name}-{seed}.json").write_text(json.dumps(result(script, few, seed, value)))
    other = result(script, all_of, 0, 19.0, start="gh")
    (tmp_path / f"{all_of.name}-0.json").write_text(json.dumps(other))
    text = script.table(script.read_results(tmp_path))
    rows = [line for line in text.splitlines() if line.startswith("| 5 %")]
    assert rows[0].startswith("| 5 % | supervised | yes | 3 | 101 | 22.0 ± 2.0 | 9.0 ± 0.0 |")
    assert rows[1].startswith("| 5 % | all | yes | 1 | 100 | 19.0 | 9.0 |")
    assert "| best constant pose | | | | 60.0 | 20.0 |" in text
    assert "common start gh and ef" in text or "common start ef and gh" in text  # starts that differ are told
    assert "some processor (2 cores, 2 runs side by side)" in text and "8.0 minutes" in text
    with pytest.raises(InputError, match="no results"):
        script.table({})


def test_the_table_goes_between_its_markers_and_nowhere_else(script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{script.BEGIN}\nold\n{script.END}\nbelow\n")
    for text in ("new", "newer"):
        script.write_table(page, text)
    assert page.read_text() == f"above\n{script.BEGIN}\nnewer\n{script.END}\nbelow\n"
    page.write_text("no markers")
    with pytest.raises(InputError, match="Wanted both"):
        script.write_table(page, "new")
    here = (REPOSITORY / "docs" / "ablation.md").read_text()
    assert script.BEGIN in here and script.END in here


def test_runs_that_have_a_result_are_not_made_again(script, tmp_path, monkeypatch):
    made: list[str] = []

    class Pool:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None: ...
        def imap_unordered(self, _, jobs):
            made.extend(f"{cell.name}-{seed}" for _, cell, seed in jobs)
            return []

    monkeypatch.setattr(script.multiprocessing, "get_context", lambda _: argparse.Namespace(Pool=Pool))
    monkeypatch.setattr(script, "make_start", lambda _: None)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "free-fast-00.h5").touch()
    options = argparse.Namespace(
        testset=tmp_path / "test", data=tmp_path, runs=tmp_path, results=tmp_path, minutes=8.0, workers=1, seeds=3,
        start_steps=1, source=0, target=0, only=None,
    )  # fmt: skip
    for name in ("supervised-5-1", "start"):
        (tmp_path / f"{name}.json").write_text("{}")
    script.make_runs(options)
    every = {f"{cell.name}-{seed}" for cell, seed in script.plan()}
    assert set(made) == every - {"supervised-5-1"} and len(made) == len(every) - 1
    with pytest.raises(InputError, match="testset"):
        script.make_runs(replace_namespace(options, testset=Path(tmp_path / "nothing")))


def replace_namespace(options: argparse.Namespace, **changes) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), **changes})
