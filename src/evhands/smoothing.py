"""Filters of a hand pose: One-Euro, smooth when the hand is still and quick when it moves, and a Kalman filter of
constant velocity, which follows a steady motion without lag.

Sources: Casiez, Roussel, Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems", CHI 2012; Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, 6.2
(white-noise acceleration). Rotations are filtered on the rotation group: the "difference" of two of them is the
rotation vector that leads from one to the other, in the frame of the first, so that turning the camera turns what comes
out and changes nothing else. The state is handed in and back; nothing is remembered here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from evhands.rotations import composed, leading
from evhands.types import HandPose

Smooth = Literal["one-euro", "kalman", "off"]


@dataclass(frozen=True, kw_only=True)
class SmoothingConfig:
    """One-Euro. Cut-off frequencies in Hz of a still hand, and by how much speed raises them.

    rotation_gain: Hz per rad/s of a joint or of the whole hand. position_gain: Hz per m/s of the wrist.
    speed_cutoff_hz: low-pass of the speed estimate. shape_cutoff_hz: a person's shape does not change, so it is slow.
    """

    rotation_cutoff_hz: float = 2.5
    rotation_gain: float = 1.5
    position_cutoff_hz: float = 2.5
    position_gain: float = 15.0
    speed_cutoff_hz: float = 1.0
    shape_cutoff_hz: float = 0.15


@dataclass(frozen=True, kw_only=True)
class KalmanConfig:
    """Noise of the poses, and how violently a hand accelerates.

    rotation_noise, position_noise: standard deviations of a measured rotation (rad) and of the measured wrist (m), per
    axis. rotation_acceleration, position_acceleration: square roots of the densities of the white-noise acceleration
    (rad / s^1.5, m / s^1.5): how far a speed wanders off within a second. first_speed: rad/s and m/s, how fast a hand
    may be when it is first seen. shape_cutoff_hz: as in `SmoothingConfig`.
    """

    rotation_noise: float = 0.12
    rotation_acceleration: float = 15.0
    position_noise: float = 0.006
    position_acceleration: float = 2.0
    first_speed: tuple[float, float] = (5.0, 0.5)
    shape_cutoff_hz: float = 0.15


AnySmoothing = SmoothingConfig | KalmanConfig

SMOOTHING: dict[Smooth, AnySmoothing | None] = {"one-euro": SmoothingConfig(), "kalman": KalmanConfig(), "off": None}


@dataclass(frozen=True)
class SmoothingState:
    """The last filtered pose, when it was, and the filtered speeds (rad/s of wrist + 15 joints; m/s of the wrist).

    rotation_spread, wrist_spread: of the Kalman filter, the covariances of value and speed on each axis, which all axes
    share.
    """

    t_us: int
    pose: HandPose
    rotation_speed: Float[np.ndarray, "16 3"]
    wrist_speed: Float[np.ndarray, " 3"]
    rotation_spread: Float[np.ndarray, "2 2"] | None = None
    wrist_spread: Float[np.ndarray, "2 2"] | None = None


def smooth_pose(
    pose: HandPose, t_us: int, state: SmoothingState | None, config: AnySmoothing
) -> tuple[HandPose, SmoothingState]:
    """Filter one pose (no batch dimensions); without a state, or at a time not after it, the pose stays as it is."""
    if isinstance(config, KalmanConfig):
        return _kalman(pose, t_us, state, config)
    if state is None or t_us <= state.t_us:
        return pose, SmoothingState(t_us, pose, np.zeros((16, 3)), np.zeros(3))
    dt = (t_us - state.t_us) / 1e6
    last = _rotations(state.pose)
    step = leading(last, _rotations(pose))
    speed_share = _share(config.speed_cutoff_hz, dt)
    rotation_speed = state.rotation_speed + speed_share * (step / dt - state.rotation_speed)
    cutoff = config.rotation_cutoff_hz + config.rotation_gain * np.linalg.norm(rotation_speed, axis=-1, keepdims=True)
    rotations = composed(last, _share(cutoff, dt) * step)

    move = np.asarray(pose.wrist) - state.pose.wrist
    wrist_speed = state.wrist_speed + speed_share * (move / dt - state.wrist_speed)
    cutoff_hz = config.position_cutoff_hz + config.position_gain * float(np.linalg.norm(wrist_speed))
    wrist = state.pose.wrist + _share(cutoff_hz, dt) * move
    shape = state.pose.shape + _share(config.shape_cutoff_hz, dt) * (np.asarray(pose.shape) - state.pose.shape)
    smoothed = replace(pose, orientation=rotations[0], joints=rotations[1:], wrist=wrist, shape=shape)
    return smoothed, SmoothingState(t_us, smoothed, rotation_speed, wrist_speed)


def _kalman(
    pose: HandPose, t_us: int, state: SmoothingState | None, config: KalmanConfig
) -> tuple[HandPose, SmoothingState]:
    """Predict with the speed, then go a share of the way to what was measured, on the group as in the plane."""
    if state is None or t_us <= state.t_us or state.rotation_spread is None or state.wrist_spread is None:
        spreads = (
            np.diag(np.square([noise, speed]))
            for noise, speed in zip((config.rotation_noise, config.position_noise), config.first_speed, strict=True)
        )
        return pose, SmoothingState(t_us, pose, np.zeros((16, 3)), np.zeros(3), *spreads)
    dt = (t_us - state.t_us) / 1e6
    (turned, sped), rotation_spread = _gains(
        state.rotation_spread, dt, config.rotation_noise, config.rotation_acceleration
    )
    expected = composed(_rotations(state.pose), state.rotation_speed * dt)
    missed = leading(expected, _rotations(pose))
    rotations = composed(expected, turned * missed)
    rotation_speed = state.rotation_speed + sped * missed

    (moved, sped), wrist_spread = _gains(state.wrist_spread, dt, config.position_noise, config.position_acceleration)
    ahead = state.pose.wrist + state.wrist_speed * dt
    off = np.asarray(pose.wrist) - ahead
    wrist, wrist_speed = ahead + moved * off, state.wrist_speed + sped * off
    shape = state.pose.shape + _share(config.shape_cutoff_hz, dt) * (np.asarray(pose.shape) - state.pose.shape)
    smoothed = replace(pose, orientation=rotations[0], joints=rotations[1:], wrist=wrist, shape=shape)
    return smoothed, SmoothingState(t_us, smoothed, rotation_speed, wrist_speed, rotation_spread, wrist_spread)


def _gains(
    spread: Float[np.ndarray, "2 2"], dt: float, noise: float, acceleration: float
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, "2 2"]]:
    """The shares of the innovation that value and speed take, and the covariance of both after it."""
    transition = np.array([[1.0, dt], [0.0, 1.0]])
    process = acceleration**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    predicted = transition @ spread @ transition.T + process
    gain = predicted[:, 0] / (predicted[0, 0] + noise**2)
    return gain, predicted - np.outer(gain, predicted[0])


def _rotations(pose: HandPose) -> Float[np.ndarray, "16 3"]:
    return np.concatenate([np.asarray(pose.orientation, np.float64)[None], np.asarray(pose.joints, np.float64)])


def _share(cutoff_hz: Any, dt: float) -> Any:
    """The weight of a new value in a first-order low-pass sampled every dt seconds."""
    return 1.0 / (1.0 + 1.0 / (2.0 * np.pi * cutoff_hz * dt))
