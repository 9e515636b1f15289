"""`evhands simulate`: files that can be read back, the same again, and filled up where they were left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evhands.jobs.simulate import simulate
from evhands.recording import read_recording
from evhands.sim.generate import TEST_SUBJECTS
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


@pytest.mark.slow
def test_a_folder_is_filled_up(tmp_path: Path) -> None:
    simulate(tmp_path, preset="train", seconds=2, seed=1, side="left")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    kept, lost = files
    before, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    simulate(tmp_path, preset="train", seconds=2, seed=1, side="left")
    assert kept.stat().st_mtime_ns == stamp
    recording = read_recording(lost)
    lost.write_bytes(before)
    np.testing.assert_array_equal(recording.joints_m, read_recording(lost).joints_m)


def test_no_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 0"):
        simulate(tmp_path / "a.h5", seconds=0)
