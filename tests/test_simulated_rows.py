"""Rows of simulated clips: on disk and streamed they are the same, and kinds come by their shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evhands.cli import main
from evhands.data.finding import FindingConfig, finding_dtype
from evhands.data.shards import ShardConfig, write_shard
from evhands.geometry import project
from evhands.inputs import OVERVIEW_SIZE
from evhands.jobs.prepare import prepare
from evhands.jobs.train import train
from evhands.models.checkpoint import read_checkpoint
from evhands.models.detector import hand_in
from evhands.sim.presets import HOLDING, TrainShares
from evhands.simulated_rows import ROW_SHARES, TWO_HANDS, RowSeries, StreamedRows, finding_clip, make_clip, make_row
from evhands.types import InputError

SHARD = ShardConfig(windows=6, clips_per_shard=2)
SERIES = RowSeries(seed=3)


def test_shares_are_kept() -> None:
    clips = [RowSeries(replace(ROW_SHARES, free=0.4, video=0.5, holding=0.3)).clip(i, SHARD) for i in range(400)]
    for share, wanted in (
        (np.mean([clip.video_fps > 0 for clip in clips]), 0.5),
        (np.mean([clip.orientation == "free" for clip in clips]), 0.4),
        (np.mean([clip.motion.keyframe_s == HOLDING.keyframe_s for clip in clips]), 0.3),
    ):
        assert abs(share - wanted) < 4 * np.sqrt(0.25 / 400)


@pytest.mark.parametrize("wrong", [{"free": -0.1}, {"video": 1.5}, {"fast": 0.6, "holding": 0.5}, {"flash": 0.95}])
def test_shares_that_cannot_be_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainShares(**wrong)


def test_shares_that_cannot_be_end_the_command_before_anything_is_written(tmp_path: Path, capsys) -> None:
    for command in ("prepare", "simulate"):
        assert main([command, str(tmp_path / "out"), "--shares.free", "2"]) == 2
        assert "free 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_validation_shows_hands_that_training_does_not() -> None:
    held_out = SERIES.held_out()
    assert min(held_out.clip(0, SHARD).subjects) >= max(SERIES.clip(0, SHARD).subjects)
    assert held_out.seed != SERIES.seed


def test_clips_are_just_long_enough_for_a_row() -> None:
    clip = make_clip(SERIES, 1, SHARD)
    first = clip.label_t_us[-SHARD.windows] - SHARD.inputs.window_us
    assert 0 <= first < 1e6 / 30 + 1 and len(clip.label_t_us) >= SHARD.windows


def test_a_shard_holds_the_rows_that_are_streamed(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 0, lambda index: make_row(SERIES, index, SHARD), 2)
    rows = np.load(path)
    for index in range(2):
        assert make_row(SERIES, index, SHARD).tobytes() == rows[index].tobytes()


def test_in_clips_without_a_hand_none_is_in_view_and_the_others_stay_as_they_are() -> None:
    empty = RowSeries(replace(ROW_SHARES, empty=1.0), seed=3)
    for index in range(3):
        clip = make_clip(empty, index, SHARD)
        assert (np.abs(project(clip.joints_m, clip.camera.K) - 170).max(axis=-1) > 1000).all()
        row = make_row(empty, index, SHARD)
        assert not hand_in(torch.from_numpy(row["box"]), OVERVIEW_SIZE).any()
    kinds = [RowSeries(replace(ROW_SHARES, empty=share), seed=3).clip(5, SHARD) for share in (0.0, 1e-9)]
    assert kinds[0] == kinds[1] and not kinds[0].empty


def test_too_few_windows_for_the_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--windows 3"):
        prepare(tmp_path / "out", clips=2, val_clips=2, windows=3)
    assert not (tmp_path / "out").exists()


def test_a_third_of_the_clips_for_finding_hands_show_two() -> None:
    series, config = RowSeries(replace(ROW_SHARES, empty=0.3), seed=4), FindingConfig()
    clips = [finding_clip(series, i, config) for i in range(300)]
    assert abs(np.mean([clip.side == "both" for clip in clips if not clip.empty]) - TWO_HANDS) < 4 * np.sqrt(0.25 / 200)
    assert all(clip.side == "right" for clip in clips if clip.empty)


@pytest.mark.slow
def test_what_finds_hands_learns_from_what_is_prepared_for_it(tmp_path: Path) -> None:
    """One folder for the detector and the recogniser; their checkpoints are read back."""
    prepare(tmp_path / "data", clips=8, val_clips=8, kind="finding", shares=replace(ROW_SHARES, empty=0.4), seed=2)
    rows = np.load(tmp_path / "data" / "train" / "shard-00000.npy")
    assert rows.dtype == finding_dtype(FindingConfig()) and {0, 1, 2} == set(np.unique(rows["shown"]))
    for recipe in ("detector", "recogniser"):
        train(tmp_path / recipe, data=[tmp_path / "data"], recipe=recipe, steps=2, images=16)
        assert read_checkpoint(tmp_path / recipe / "model.pt", wanted=recipe).meta.data["step"] == 2


@pytest.mark.slow
def test_workers_stream_the_same_rows_and_the_newest_stay() -> None:
    wanted = {make_row(SERIES, index, SHARD).tobytes() for index in range(8)}
    with StreamedRows(SERIES, workers=2, capacity=6, config=SHARD) as stream:
        stream.wait_for(6)
        assert len(stream) == 6
        taken = stream.take(np.arange(6))
        assert len({row.tobytes() for row in taken} & wanted) >= 4
        before = taken.tobytes()
        while stream.take(np.arange(6)).tobytes() == before:
            stream.refresh()


@pytest.mark.slow
def test_a_training_needs_no_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("evhands.jobs.train.VALIDATION_CLIPS", 2)
    monkeypatch.setattr("evhands.jobs.train.FIRST_CLIPS", 4)
    train(tmp_path / "run", simulate=1, steps=2, images=8)
    assert (tmp_path / "run" / "model.pt").exists()


def test_data_and_simulate_exclude_each_other(tmp_path: Path) -> None:
    for options in ({}, {"data": [tmp_path], "simulate": 1}):
        with pytest.raises(InputError, match="one of the two"):
            train(tmp_path / "run", **options)


def test_the_recogniser_needs_crops_that_no_stream_makes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--kind finding"):
        train(tmp_path / "run", simulate=1, recipe="recogniser")
