"""Laws of the filters: what they follow without lag, how much noise they take away, and that no frame is special."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evhands.smoothing import KalmanConfig, SmoothingConfig, SmoothingState, smooth_pose
from evhands.types import HandPose

STRIDE = 20_000
CONFIGS = pytest.mark.parametrize("config", [SmoothingConfig(), KalmanConfig()], ids=["one-euro", "kalman"])


def pose_of(rotations: np.ndarray, wrist: np.ndarray) -> HandPose:
    return HandPose("right", rotations[0], wrist, rotations[1:], np.zeros(10))


def rotations_of(pose: HandPose) -> Rotation:
    return Rotation.from_rotvec(np.concatenate([pose.orientation[None], pose.joints]))


def filtered(poses: list[HandPose], config) -> list[HandPose]:
    out, state = [], None
    for i, pose in enumerate(poses):
        smooth, state = smooth_pose(pose, i * STRIDE, state, config)
        out.append(smooth)
    return out


def noisy(count: int, seed: int = 0, rotation: float = 0.01, position: float = 0.004) -> list[HandPose]:
    rng = np.random.default_rng(seed)
    first = Rotation.from_rotvec(rng.normal(size=(16, 3)))
    return [
        pose_of(
            (first * Rotation.from_rotvec(rotation * rng.normal(size=(16, 3)))).as_rotvec(),
            np.array([0.1, 0.0, 0.5]) + position * rng.normal(size=3),
        )
        for _ in range(count)
    ]


def test_kalman_follows_a_steady_motion_without_lag() -> None:
    rng = np.random.default_rng(1)
    first, speed = Rotation.from_rotvec(rng.normal(size=(16, 3))), 4 * rng.normal(size=(16, 3))
    poses = [
        pose_of((first * Rotation.from_rotvec(speed * i * STRIDE / 1e6)).as_rotvec(), np.array([0.5, -1, 2]) * i * 0.02)
        for i in range(150)
    ]
    lag = {}
    for name, config in (("kalman", KalmanConfig()), ("one-euro", SmoothingConfig())):
        last = filtered(poses, config)[-1]
        lag[name] = (rotations_of(last).inv() * rotations_of(poses[-1])).magnitude().max()
        if name == "kalman":
            np.testing.assert_allclose(last.wrist, poses[-1].wrist, atol=1e-8)
    assert lag["kalman"] < 1e-6 < 0.01 < lag["one-euro"]


def test_kalman_reduces_the_noise_of_a_still_hand_as_theory_says() -> None:
    """The variance ratio of an alpha-beta filter: (2 a^2 + 2 b - 3 a b) / (a (4 - 2 a - b))."""
    config = KalmanConfig()
    poses = noisy(4000)
    out = filtered(poses, config)
    dt = STRIDE / 1e6
    for noise, acceleration, of in (
        (config.rotation_noise, config.rotation_acceleration, "rotation"),
        (config.position_noise, config.position_acceleration, "wrist"),
    ):
        a, b = steady_gains(noise, acceleration, dt)
        wanted = (2 * a * a + 2 * b - 3 * a * b) / (a * (4 - 2 * a - b))
        if of == "wrist":
            got = np.var([p.wrist for p in out[300:]], axis=0).mean() / np.var([p.wrist for p in poses], axis=0).mean()
            tolerance = 0.15  # three axes, correlated in time
        else:
            mean = rotations_of(poses[0])
            spread = [
                np.var([(mean.inv() * rotations_of(p)).as_rotvec() for p in some], axis=0).mean()
                for some in (out[300:], poses)
            ]
            got, tolerance = spread[0] / spread[1], 0.05
        assert got == pytest.approx(wanted, rel=tolerance), of
        assert got < 0.7


def steady_gains(noise: float, acceleration: float, dt: float) -> tuple[float, float]:
    """alpha and beta of the steady filter, by solving the Riccati equation (scipy)."""
    from scipy.linalg import solve_discrete_are

    F, H = np.array([[1.0, dt], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    Q = acceleration**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    P = solve_discrete_are(F.T, H.T, Q, np.array([[noise**2]]))
    gain = P[:, 0] / (P[0, 0] + noise**2)
    return float(gain[0]), float(gain[1] * dt)


@CONFIGS
def test_a_turned_camera_sees_the_turned_poses(config) -> None:
    poses, turn = noisy(30, rotation=0.3), Rotation.from_rotvec([0.4, -1.0, 2.0])

    def seen(pose: HandPose) -> HandPose:
        orientation = (turn * Rotation.from_rotvec(pose.orientation)).as_rotvec()
        return replace(pose, orientation=orientation, wrist=turn.apply(pose.wrist))

    for a, b in zip(filtered([seen(p) for p in poses], config), map(seen, filtered(poses, config)), strict=True):
        np.testing.assert_allclose(rotations_of(a).as_matrix(), rotations_of(b).as_matrix(), atol=1e-9)
        np.testing.assert_allclose(a.wrist, b.wrist, atol=1e-12)


@CONFIGS
def test_the_state_is_handed_in_and_back_and_never_written_into(config) -> None:
    first, second, third = noisy(3)
    _, state = smooth_pose(first, 0, None, config)
    _, state = smooth_pose(second, STRIDE, state, config)
    kept = SmoothingState(**{name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in vars(state).items()})
    once, _ = smooth_pose(third, 2 * STRIDE, state, config)
    again, _ = smooth_pose(third, 2 * STRIDE, kept, config)
    np.testing.assert_array_equal(once.wrist, again.wrist)
    np.testing.assert_array_equal(once.joints, again.joints)


@CONFIGS
def test_a_time_that_is_not_later_begins_anew(config) -> None:
    first, second = noisy(2)
    _, state = smooth_pose(first, STRIDE, None, config)
    same, _ = smooth_pose(second, STRIDE, state, config)
    np.testing.assert_array_equal(same.wrist, second.wrist)
