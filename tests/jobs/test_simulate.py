"""`evhands simulate`: files that can be read back, the same again, and filled up where they were left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evhands.evrealhands_layout import read_index, read_sequence
from evhands.jobs.simulate import simulate
from evhands.recording import read_recording
from evhands.sim.config import TEST_SUBJECTS
from evhands.sim.presets import TEST_COUNT, PresetName, clip_of_testset
from evhands.types import InputError


def test_one_recording(tmp_path: Path, capsys) -> None:
    out = tmp_path / "hand.h5"
    simulate(out, seconds=0.1, seed=4)
    assert str(out) in capsys.readouterr().out
    recording = read_recording(out)
    events = recording.events
    assert len(events) > 0
    assert events.t_us[-1] < 100_000
    assert recording.pose_t_us is not None
    assert recording.pose_t_us.tolist() == list(range(10_000, 100_001, 10_000))
    assert recording.joints_m is not None
    assert recording.joints_m.shape == (10, 21, 3)
    assert TEST_SUBJECTS[0] <= recording.meta["subject"] < TEST_SUBJECTS[1]


def test_a_folder_is_filled_up_and_has_a_card(tmp_path: Path) -> None:
    simulate(tmp_path, preset="train", seconds=2, seed=1, side="left")
    kept, lost = sorted(tmp_path.glob("*.h5"))
    before, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    simulate(tmp_path, preset="train", seconds=2, seed=1, side="left")
    assert kept.stat().st_mtime_ns == stamp
    assert lost.read_bytes() == before
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["statistics"]["recordings"] == 2
    counts = [len(read_recording(path).events) for path in (kept, lost)]
    assert card["statistics"]["events"] == sum(counts)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path) -> None:
    """The same bytes from one process and from four."""
    for workers in (1, 4):
        simulate(tmp_path / str(workers), preset="train", seconds=4, seed=2, workers=workers)
    names = sorted(path.name for path in (tmp_path / "1").glob("*.h5"))
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    for cluster in (False, True):
        simulate(tmp_path / str(cluster), preset="fast", seconds=2, seed=2, cluster=cluster)
    for path in (tmp_path / "False").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "True" / path.name).read_bytes()


@pytest.mark.parametrize("preset", ["fast", "ego", "two-hands", "evrealhands"])
def test_every_preset_gives_events_and_truth(preset: PresetName, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    simulate(out, preset=preset, seconds=0.15, seed=3)
    recording = read_recording(out)
    assert len(recording.events) > 0
    assert recording.joints_m is not None
    assert np.isfinite(recording.joints_m).all()


@pytest.mark.slow
def test_the_evrealhands_preset_writes_its_layout_too(tmp_path: Path) -> None:
    simulate(tmp_path, preset="evrealhands", seconds=0.4, seed=5)
    (path,) = tmp_path.glob("*.h5")
    ours, theirs = read_recording(path), read_sequence(tmp_path / "layout" / path.stem)
    assert ours.joints_m is not None
    assert theirs.joints_m is not None
    np.testing.assert_allclose(theirs.joints_m, ours.joints_m, atol=1e-5)
    assert theirs.pose_t_us is not None
    np.testing.assert_allclose(theirs.pose_t_us, ours.pose_t_us, atol=1)
    np.testing.assert_array_equal(theirs.events.t_us, ours.events.t_us)
    assert len(theirs.views[0].frames) == len(ours.views[0].frames) > 0
    assert read_index(tmp_path / "layout").sequences()


def test_two_hands_are_both_written(tmp_path: Path) -> None:
    simulate(tmp_path / "two.h5", preset="two-hands", seconds=0.1)
    recording = read_recording(tmp_path / "two.h5")
    assert recording.pose is not None
    assert recording.other is not None
    assert (recording.pose.side, recording.other.pose.side) == ("right", "left")
    assert recording.joints_m is not None
    assert recording.other.joints_m.shape == recording.joints_m.shape


def test_the_test_set_holds_every_bucket_of_both_halves() -> None:
    names = [clip_of_testset(i)[0].rsplit("-", 1)[0] for i in range(TEST_COUNT)]
    assert len(set(names)) == 14
    assert all(names.count(name) == TEST_COUNT // 14 for name in set(names))


def test_no_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 0"):
        simulate(tmp_path / "a.h5", seconds=0)
