"""How simulated hands move: smooth, within limits, within the ranges that the configuration names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from evhands.geometry import project
from evhands.hand import open_hand
from evhands.sim.motion import (
    MotionConfig,
    View,
    draw_motion,
    draw_orientation,
    rotation_matrix,
    rotation_vector,
)

K = np.array([[330.0, 0, 172], [0, 330, 129], [0, 0, 1]])
CENTRE = np.array([-0.08, 0.0, 0.0])


def _view(orientation: str = "frontal") -> View:
    return View(K=K, size=(346, 260), orientation=orientation, depth_m=(0.35, 1.0), centre_m=CENTRE)  # type: ignore[arg-type]


@given(st.integers(0, 10**6))
def test_rotations_agree_with_scipy(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((20, 3)) * 10.0 ** np.linspace(-9, 0.8, 20)[:, None]
    matrices = rotation_matrix(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(rotation_matrix(rotation_vector(matrices)), matrices, atol=1e-9)


def test_half_turns_keep_their_axis() -> None:
    axes = np.random.default_rng(0).standard_normal((50, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    back = rotation_vector(rotation_matrix(axes * np.pi))
    np.testing.assert_allclose(np.abs((back * axes).sum(1)), np.pi, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_motion_is_continuous_to_the_second_derivative(seed: int) -> None:
    motion = draw_motion(MotionConfig(), _view(), 2.0, np.random.default_rng(seed))
    step = 1e-4
    t = np.arange(0.01, 1.99, step)
    for values in (motion.angles(t), motion.wrist(t), motion.rotation(t).reshape(len(t), 9)):
        acceleration = np.diff(values, n=2, axis=0) / step**2
        jumps = np.abs(np.diff(acceleration, axis=0))
        # A jump of the acceleration does not shrink with the step; a C2 curve's does: compare with twice the step.
        coarse = np.abs(np.diff(np.diff(values[::2], n=2, axis=0) / (2 * step) ** 2, axis=0))
        assert jumps.max() <= 0.75 * coarse.max() + 0.05


def test_angles_keep_their_limits() -> None:
    t = np.linspace(0, 3, 400)
    for seed in range(10):
        motion = draw_motion(MotionConfig(), _view(), 3.0, np.random.default_rng(seed))
        assert open_hand.within_limits(motion.angles(t)).all()


@pytest.mark.parametrize("orientation", ["frontal", "free"])
@pytest.mark.parametrize(("speed", "turn"), [(0.1, 1.0), (1.0, 8.0)])
def test_speeds_stay_below_their_peaks(speed: float, turn: float, orientation: str) -> None:
    config = MotionConfig(peak_speed=(speed, speed), peak_turn=(turn, turn), finger_speed=(5.0, 5.0), tremor_m=0.0)
    t = np.linspace(0, 3, 6001)
    for seed in range(5):
        motion = draw_motion(config, _view(orientation), 3.0, np.random.default_rng(seed))
        moved = np.linalg.norm(np.diff(motion.path.at(t), axis=0), axis=1) / np.diff(t)
        rotation = motion.rotation(t)
        turned = np.linalg.norm(rotation_vector(np.swapaxes(rotation[:-1], 1, 2) @ rotation[1:]), axis=1) / np.diff(t)
        fingers = np.abs(np.diff(motion.angles(t), axis=0)) / np.diff(t)[:, None]
        assert moved.max() <= speed * 1.001
        assert turned.max() <= turn * 1.001
        assert fingers.max() <= 5.0 * 1.001


def test_the_frontal_range_is_what_it_says() -> None:
    rng = np.random.default_rng(5)
    for back in (False, True):
        rotations = np.stack([draw_orientation("frontal", back, rng) for _ in range(2000)])
        normal = rotations[:, :, 1] * (-1 if back else 1)  # the back of the hand, away from the camera for the palm
        tilt = np.degrees(np.arctan2(normal[:, 0], normal[:, 2])), np.degrees(np.arctan2(normal[:, 1], normal[:, 2]))
        for angles in tilt:
            assert abs(np.std(angles) - 20) < 3
            assert abs(np.mean(angles)) < 2
        fingers = -rotations[:, :, 0]
        in_plane = np.degrees(np.arctan2(fingers[:, 0], -fingers[:, 1]))
        assert np.quantile(np.abs(in_plane), 0.9) < 38


def test_the_hand_starts_well_in_view_and_stays_near() -> None:
    t = np.linspace(0, 1, 50)
    for seed in range(20):
        motion = draw_motion(MotionConfig(), _view(), 1.0, np.random.default_rng(seed))
        centre = motion.wrist(t) + motion.rotation(t) @ CENTRE
        pixels = project(centre, K)
        assert (pixels > -20).all()
        assert (pixels < np.array([366, 280])).all()
        assert centre[:, 2].min() > 0.25


@pytest.mark.parametrize("speed", [1.0, 8.0])
def test_time_does_not_draw_hands_towards_the_mean(speed: float) -> None:
    """A slow hand takes small steps; many of them must still cover what single draws cover."""
    config = MotionConfig(finger_speed=(speed, speed), peak_turn=(speed, speed), hold_share=0.0)
    motions = [draw_motion(config, _view(), 6.0, np.random.default_rng(seed)) for seed in range(300)]
    drawn = open_hand.sample_natural_angles(np.random.default_rng(1), 2000).std(0)
    late = np.stack([motion.angles(np.array([5.9]))[0] for motion in motions]).std(0)
    assert 0.85 < (late / drawn).mean() < 1.15
    first, last = (np.stack([m.rotation(np.array([t]))[0] for m in motions]) for t in (0.0, 5.9))
    spread = [np.degrees(np.arccos(np.clip(np.abs(r[:, 2, 1]), 0, 1))).std() for r in (first, last)]
    assert 0.8 < spread[1] / spread[0] < 1.2
