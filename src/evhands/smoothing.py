"""A light One-Euro filter of a hand pose: smooth when the hand is still, quick when it moves.

Source: Casiez, Roussel, Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems", CHI 2012. Rotations are filtered on the rotation group: the "difference" of two of them is the rotation vector
that leads from one to the other. The state is handed in and back; nothing is remembered here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from evhands.types import HandPose


@dataclass(frozen=True, kw_only=True)
class SmoothingConfig:
    """Cut-off frequencies in Hz of a still hand, and by how much speed raises them.

    rotation_gain: Hz per rad/s of a joint or of the whole hand. position_gain: Hz per m/s of the wrist.
    speed_cutoff_hz: low-pass of the speed estimate. shape_cutoff_hz: a person's shape does not change, so it is slow.
    """

    rotation_cutoff_hz: float = 2.5
    rotation_gain: float = 1.5
    position_cutoff_hz: float = 2.5
    position_gain: float = 15.0
    speed_cutoff_hz: float = 1.0
    shape_cutoff_hz: float = 0.15


@dataclass(frozen=True)
class SmoothingState:
    """The last filtered pose, when it was, and the filtered speeds (rad/s of wrist + 15 joints; m/s of the wrist)."""

    t_us: int
    pose: HandPose
    rotation_speed: Float[np.ndarray, "16 3"]
    wrist_speed: Float[np.ndarray, " 3"]


def smooth_pose(
    pose: HandPose, t_us: int, state: SmoothingState | None, config: SmoothingConfig
) -> tuple[HandPose, SmoothingState]:
    """Filter one pose (no batch dimensions); without a state, or at a time not after it, the pose stays as it is."""
    if state is None or t_us <= state.t_us:
        return pose, SmoothingState(t_us, pose, np.zeros((16, 3)), np.zeros(3))
    dt = (t_us - state.t_us) / 1e6
    last = Rotation.from_rotvec(_rotations(state.pose))
    step = (last.inv() * Rotation.from_rotvec(_rotations(pose))).as_rotvec()
    speed_share = _share(config.speed_cutoff_hz, dt)
    rotation_speed = state.rotation_speed + speed_share * (step / dt - state.rotation_speed)
    cutoff = config.rotation_cutoff_hz + config.rotation_gain * np.linalg.norm(rotation_speed, axis=-1, keepdims=True)
    rotations = (last * Rotation.from_rotvec(_share(cutoff, dt) * step)).as_rotvec()

    move = np.asarray(pose.wrist) - state.pose.wrist
    wrist_speed = state.wrist_speed + speed_share * (move / dt - state.wrist_speed)
    cutoff_hz = config.position_cutoff_hz + config.position_gain * float(np.linalg.norm(wrist_speed))
    wrist = state.pose.wrist + _share(cutoff_hz, dt) * move
    shape = state.pose.shape + _share(config.shape_cutoff_hz, dt) * (np.asarray(pose.shape) - state.pose.shape)
    smoothed = replace(pose, orientation=rotations[0], joints=rotations[1:], wrist=wrist, shape=shape)
    return smoothed, SmoothingState(t_us, smoothed, rotation_speed, wrist_speed)


def _rotations(pose: HandPose) -> Float[np.ndarray, "16 3"]:
    return np.concatenate([np.asarray(pose.orientation, np.float64)[None], np.asarray(pose.joints, np.float64)])


def _share(cutoff_hz: Any, dt: float) -> Any:
    """The weight of a new value in a first-order low-pass sampled every dt seconds."""
    return 1.0 / (1.0 + 1.0 / (2.0 * np.pi * cutoff_hz * dt))
