"""`evhands demo`: a perfect model scores zero, and every figure and file is printed."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.baselines import ConstantPose
from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.jobs import demo as job
from evhands.recording import write_recording
from evhands.tracking import hand_joints
from evhands.types import Events, HandPose
from seeing_models import Middle, flat_hand

SIZE = (120, 90)
HAND = load_hand("open")
POSE = flat_hand(0.0)


class Perfect(Middle):
    """Says the pose of the recording, as estimator and as detector."""

    hand = HAND


@pytest.fixture(autouse=True)
def _small_assets(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(np.array(SIZE) / 2, 12, (4000, 2)).clip(0, np.array(SIZE) - 1).astype(np.uint16)
    events = Events(xy[:, 0], xy[:, 1], np.sort(rng.integers(0, 400_000, 4000)), rng.random(4000) < 0.5, SIZE)
    joints = hand_joints(HAND, POSE)
    t_us = np.arange(1, 12) * 33_333
    many = [np.tile(v, (11, *[1] * v.ndim)) for v in (POSE.orientation, POSE.wrist, POSE.joints, POSE.shape)]
    folder = tmp_path / "assets"
    truth = HandPose("right", *many, "open")
    write_recording(folder / "demo.h5", events, default_camera(SIZE), t_us, truth, np.tile(joints, (11, 1, 1)))
    constant = ConstantPose(joints - joints[0] + np.linspace(0, 0.1, 21)[:, None], 1.1 * (joints - joints[0]))
    np.savez(folder / "constant_pose.npz", rooted=constant.rooted, shape=constant.shape)
    monkeypatch.setattr(job, "_asset", lambda name: folder / name)
    monkeypatch.setattr(job, "load_model", lambda name: (Perfect(), Perfect()))


def test_a_perfect_model_scores_zero_beside_the_constant_pose(tmp_path) -> None:
    text = job.demo(out=tmp_path / "out")
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert float(lines["MPJPE"].split()[1]) == 0.0 and float(lines["MPJPE"].split()[3]) > 50
    assert float(lines["PA-MPJPE"].split()[1]) == 0.0
    assert "100.0 %" in lines["hand"] and "poses/s" in lines["speed"]
    assert {"poses.npz", "overlay.mp4"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_truth_before_the_first_window_is_not_scored(tmp_path) -> None:
    job.demo(out=tmp_path / "out", video=False)
    from evhands.recording import read_recording
    from evhands.track_files import load_track

    track = load_track(tmp_path / "out" / "poses.npz")
    t_us, truth = job.labelled(read_recording(job._asset("demo.h5")), track)
    assert len(t_us) == len(truth) < 11 and t_us[0] >= track.t_us[0] and t_us[-1] <= track.t_us[-1]
