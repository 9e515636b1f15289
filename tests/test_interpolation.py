"""Laws of the pose at any time: it passes through the poses, turns steadily, and knows no preferred frame or arrow of
time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from evhands.interpolation import AHEAD_US, pose_at
from evhands.types import HandPose

T_US = np.array([0, 33_333, 66_667, 120_000])


def some_poses(seed: int, count: int = 4, spread: float = 0.8) -> HandPose:
    rng = np.random.default_rng(seed)
    joints = spread * rng.normal(size=(count, 15, 3))
    return HandPose("right", rng.normal(size=(count, 3)), rng.normal(size=(count, 3)), joints, np.zeros((count, 10)))


def matrices(pose: HandPose) -> np.ndarray:
    rotations = np.concatenate([np.asarray(pose.orientation)[..., None, :], pose.joints], axis=-2)
    return Rotation.from_rotvec(rotations.reshape(-1, 3)).as_matrix()


def assert_same(a: HandPose, b: HandPose, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(matrices(a), matrices(b), atol=atol)
    np.testing.assert_allclose(a.wrist, b.wrist, atol=atol)


def steady(t_us: np.ndarray, seed: int = 0) -> HandPose:
    """A hand whose joints all turn, each at its own constant angular velocity, and whose wrist moves steadily."""
    rng = np.random.default_rng(seed)
    first, speed = Rotation.from_rotvec(rng.normal(size=(16, 3))), 3 * rng.normal(size=(16, 3))
    seconds = np.atleast_1d(t_us) / 1e6
    turned = np.stack([(first * Rotation.from_rotvec(speed * t)).as_rotvec() for t in seconds])
    wrist = np.array([0.1, 0.0, 0.5]) + seconds[:, None] * np.array([0.4, -0.2, 0.3])
    return HandPose("right", turned[:, 0], wrist, turned[:, 1:], np.zeros((len(seconds), 10)))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_it_passes_through_the_poses(seed: int) -> None:
    poses = some_poses(seed)
    assert_same(pose_at(poses, T_US, T_US), poses)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_a_steady_motion_is_reproduced_between_and_ahead(seed: int) -> None:
    wanted = np.array([0, 1, 20_000, 50_001, 119_999, 121_000, 120_000 + AHEAD_US])
    assert_same(pose_at(steady(T_US, seed), T_US, wanted), steady(wanted, seed))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_the_arrow_of_time_does_not_matter_between_the_poses(seed: int) -> None:
    poses, wanted = some_poses(seed), np.array([3, 15_000, 40_000, 66_667, 119_000])
    names = ("orientation", "wrist", "joints", "shape")
    backwards = replace(poses, **{name: getattr(poses, name)[::-1] for name in names})
    assert_same(pose_at(poses, T_US, wanted), pose_at(backwards, T_US[-1] - T_US[::-1], T_US[-1] - wanted))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_a_turned_camera_sees_the_turned_pose(seed: int) -> None:
    poses, turn = some_poses(seed), Rotation.random(random_state=seed)

    def seen(pose: HandPose) -> HandPose:
        orientation = (turn * Rotation.from_rotvec(pose.orientation)).as_rotvec()
        return replace(pose, orientation=orientation, wrist=turn.apply(pose.wrist))

    wanted = np.array([10_000, 70_000, 140_000])
    assert_same(pose_at(seen(poses), T_US, wanted), seen(pose_at(poses, T_US, wanted)))


def test_no_prediction_goes_beyond_its_limit_or_before_the_first_pose() -> None:
    poses = some_poses(1)
    limit = pose_at(poses, T_US, int(T_US[-1]) + AHEAD_US)
    assert_same(pose_at(poses, T_US, int(T_US[-1]) + 10_000_000), limit)
    assert_same(pose_at(poses, T_US, -5), pose_at(poses, T_US, 0))
    assert limit.orientation.shape == (3,) and limit.joints.shape == (15, 3)


def test_a_single_pose_stays_and_none_is_a_mistake() -> None:
    one = some_poses(2, count=1)
    assert_same(pose_at(one, np.array([7]), np.array([0, 7, 30_000])), some_poses(2, count=1).__class__(
        "right", *(np.repeat(getattr(one, n), 3, axis=0) for n in ("orientation", "wrist", "joints", "shape"))
    ))  # fmt: skip
    with pytest.raises(ValueError, match="no poses"):
        pose_at(some_poses(0, count=0), np.zeros(0, np.int64), 0)
