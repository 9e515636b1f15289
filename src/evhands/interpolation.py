"""The pose of a hand at any microsecond, from its poses at some: between them along the shortest turns, and a little
ahead of the last one.

Between two poses every rotation turns at a constant angular velocity (spherical interpolation) and the wrist moves in
a straight line; ahead of the last pose the motion of the last two goes on, for `AHEAD_US` at most. All "differences" of
rotations are taken in the frame of the earlier one, so that turning the camera turns the poses, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int64
from scipy.spatial.transform import Rotation

from evhands.types import HandPose

AHEAD_US = 50_000
"""No prediction reaches further than this: later times get the pose that is predicted for then."""


def pose_at(poses: HandPose, t_us: Int64[np.ndarray, " n"], wanted_us: Int64[np.ndarray, " m"] | int) -> HandPose:
    """The pose of one hand at the wanted times, from n >= 1 poses (n, ...) at ascending times.

    Before the first pose it is the first. Gives a batch (m, ...), or one pose without batch dimensions for one time.
    Raises ValueError without any pose.
    """
    times = np.asarray(t_us, np.int64)
    if not len(times):
        raise ValueError("pose_at got no poses: it needs at least one")
    wanted = np.atleast_1d(np.asarray(wanted_us, np.int64)).clip(times[0], times[-1] + AHEAD_US)
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before, after = after - 1, np.minimum(after, len(times) - 1)
    share = (wanted - times[before]) / np.maximum(times[after] - times[before], 1)

    rotations = np.concatenate([np.asarray(poses.orientation)[:, None], np.asarray(poses.joints)], axis=1)
    turned = _turned(rotations[before].astype(np.float64), rotations[after].astype(np.float64), share)
    wrist, shape = (
        start + share[:, None] * (end - start)
        for start, end in ((values[before], values[after]) for values in map(_double, (poses.wrist, poses.shape)))
    )
    # A shape is no motion: it does not go on beyond the last one.
    shape = np.where((wanted > times[-1])[:, None], _double(poses.shape)[-1], shape)
    found = replace(poses, orientation=turned[:, 0], joints=turned[:, 1:], wrist=wrist, shape=shape)
    if np.ndim(wanted_us):
        return found
    return replace(found, orientation=turned[0, 0], joints=turned[0, 1:], wrist=wrist[0], shape=shape[0])


def stacked(poses: Sequence[HandPose]) -> HandPose:
    """Poses of one side as one batch."""
    names = ("orientation", "wrist", "joints", "shape")
    values = {name: np.stack([getattr(pose, name) for pose in poses]) for name in names}
    return HandPose(poses[0].side, **values, hand_model=poses[0].hand_model)


def _double(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)


def _turned(
    start: Float[np.ndarray, "m k 3"], end: Float[np.ndarray, "m k 3"], share: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m k 3"]:
    """Rotation vectors a share of the way from start to end; shares above 1 go on at the same angular velocity."""
    first = Rotation.from_rotvec(start.reshape(-1, 3))
    step = (first.inv() * Rotation.from_rotvec(end.reshape(-1, 3))).as_rotvec()
    return (
        (first * Rotation.from_rotvec(step * np.repeat(share, start.shape[1])[:, None]))
        .as_rotvec()
        .reshape(start.shape)
    )
