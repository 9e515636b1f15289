"""Rows of simulated clips: on disk and streamed they are the same, and kinds come by their shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evhands.data.shards import ShardConfig, write_shard
from evhands.jobs.train import train
from evhands.simulated_rows import StreamedRows, clip_kinds, held_out_kinds, make_clip, make_row
from evhands.types import InputError

KINDS = [
    (replace(kind, size=(120, 90), focal_px=115.0, duration_us=440_000), share)
    for kind, share in clip_kinds(wide=0.2, fingers=0.2, video=0.5)
]
SHARD = ShardConfig(clips_per_shard=2)


def test_shares_of_kinds_are_kept_and_add_up() -> None:
    assert sum(share for _, share in KINDS) == pytest.approx(1)
    assert sum(share for kind, share in KINDS if kind.video_fps) == pytest.approx(0.5)
    assert sum(share for kind, share in KINDS if kind.orientation == "wide") == pytest.approx(0.2)


def test_validation_shows_hands_that_training_does_not() -> None:
    ((held_out, _),) = held_out_kinds(KINDS)
    assert min(held_out.subjects) >= max(kind.subjects[1] for kind, _ in KINDS)


def test_a_shard_holds_the_rows_that_are_streamed(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 0, lambda index: make_clip(KINDS, 3, index), SHARD, 3)
    rows = np.load(path)
    for index in range(2):
        assert make_row(KINDS, 3, index, SHARD).tobytes() == rows[index].tobytes()


@pytest.mark.slow
def test_workers_stream_the_same_rows_and_the_newest_stay() -> None:
    wanted = {make_row(KINDS, 4, index, SHARD).tobytes() for index in range(8)}
    with StreamedRows(KINDS, 4, workers=2, capacity=6, config=SHARD) as stream:
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
    for options in ({}, {"data": tmp_path, "simulate": 1}):
        with pytest.raises(InputError, match="one of the two"):
            train(tmp_path / "run", **options)
