"""The score of the real video: what perfect, shifted and constant predictions must give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from conftest import shared_path
from evhands.baselines import fit_constant_pose
from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.hand.open_hand import angles_to_joints, sample_natural_angles
from evhands.hand.skeleton import FINGERS
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.types import HandPose

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(name="script", scope="module")
def _script():
    spec = importlib.util.spec_from_file_location("score_hand_video", REPOSITORY / "scripts" / "score_hand_video.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="hands", scope="module")
def _hands() -> np.ndarray:
    """(60, 21, 3) natural hands without global rotation."""
    import torch

    angles = sample_natural_angles(np.random.default_rng(0), 60)
    posed = load_hand("open").with_shape().with_pose(None, torch.from_numpy(angles_to_joints(angles)).float())
    return posed.joints().numpy().astype(np.float64)


def turned(hands: np.ndarray, scale: float = 1.0) -> np.ndarray:
    turns = Rotation.random(len(hands), random_state=1).as_matrix()
    return scale * hands @ turns.transpose(0, 2, 1) + np.random.default_rng(2).normal(size=(len(hands), 1, 3))


def test_a_perfect_prediction_in_any_place_turn_and_size_scores_zero_and_one(script, hands) -> None:
    np.testing.assert_allclose(script.pa_errors_mm(turned(hands, 1.3), hands), 0, atol=1e-6)
    np.testing.assert_allclose(script.finger_correlations(turned(hands, 1.3), hands), 1)


def test_an_offset_of_the_skeleton_is_removed_and_noise_is_not(script, hands) -> None:
    rng = np.random.default_rng(3)
    offset = hands + rng.normal(0, 0.004, (1, 21, 3))
    pa, without = script.pa_errors_mm(turned(offset), hands)
    assert pa > 3 and without < 0.35 * pa
    pa, without = script.pa_errors_mm(turned(hands + rng.normal(0, 0.004, hands.shape)), hands)
    assert without > 0.9 * pa > 3


def test_correlation_is_blind_to_a_linear_error_and_to_palm_length(script, hands) -> None:
    shuffled = hands[np.random.default_rng(4).permutation(len(hands))]
    assert np.abs(script.finger_correlations(shuffled, hands)).mean() < 0.4
    np.testing.assert_allclose(script.finger_correlations(2 * hands, hands), 1)
    assert np.isnan(script.finger_correlations(np.broadcast_to(hands[0], hands.shape), hands)).all()


def test_the_constant_pose_is_the_best_one(hands) -> None:
    seen = turned(hands)
    constant = fit_constant_pose(seen)
    mean_mm, pa_mm = constant.score(seen)
    rng = np.random.default_rng(5)
    for other in (hands[0], hands[7], constant.shape + rng.normal(0, 0.01, (21, 3))):
        tried = np.broadcast_to(other, seen.shape)
        assert 1000 * pa_mpjpe(tried, seen)["pa_mpjpe21"].mean() > pa_mm
        assert 1000 * mpjpe(tried, seen)["mpjpe21"].mean() > mean_mm


def test_the_report_has_every_figure(script, hands) -> None:
    from evhands.boxes import CropBox
    from evhands.track_files import collect
    from evhands.tracking import TrackResult

    camera = default_camera((346, 260))
    pose = HandPose("right", *(np.zeros(s) for s in ((3,), (3,), (15, 3), (10,))))
    box = CropBox(np.array([100.0, 100.0]), 80.0)
    results = [
        TrackResult(i * 33_333, "moving", 0.5, 900, pose, joints, box)
        for i, joints in enumerate(hands + np.array([0, 0, 0.6]))
    ]
    tracker = SimpleNamespace(camera=camera, hand=load_hand("open"))
    track = collect(results, tracker, "oracle")
    text = script.report(track, hands, track.t_us)
    assert all(word in text for word in (*FINGERS, "PA-MPJPE without offsets", "mean 1.00"))


def test_the_constant_pose_of_the_real_video_scores_what_the_task_says(script) -> None:
    with np.load(shared_path("real/hand-video/joints_frames_0000_0399.npz")) as labels:
        reference = labels["joints_m"].astype(np.float64)
    constant = np.broadcast_to(fit_constant_pose(reference).shape, reference.shape)
    assert script.pa_errors_mm(constant, reference)[0] == pytest.approx(11.6, abs=0.15)
