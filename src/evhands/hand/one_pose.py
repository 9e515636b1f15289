"""The 21 joints of one pose without torch: what a tracker needs for every window, in a few microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numba import njit

from evhands.hand.skeleton import permutation
from evhands.types import HandPose

_FROM_SMPLX = permutation("smplx_mano21", "openpose21")


class OnePose:
    """Joints of single poses of one hand model, equal to those of `pose_hand(model, pose).joints()`."""

    def __init__(self, model: Any) -> None:
        def array(value: Any) -> np.ndarray:
            return np.ascontiguousarray(value.detach().cpu().numpy(), np.float64)

        tips = model.tip_vertices.cpu().numpy()
        regressor, directions = array(model.joint_regressor), array(model.shape_directions)
        vertices = array(model.vertices)
        self._joints = regressor @ vertices
        self._joint_directions = np.ascontiguousarray(np.einsum("jv,vck->jck", regressor, directions))
        self._tips, self._tip_directions = vertices[tips], np.ascontiguousarray(directions[tips])
        self._skin = np.ascontiguousarray(array(model.skin_weights)[tips])
        if model.pose_directions is None:
            self._tip_pose = np.zeros((5, 3, 0))
        else:
            self._tip_pose = np.ascontiguousarray(array(model.pose_directions)[tips])

    def joints(self, pose: HandPose) -> Float[np.ndarray, "21 3"]:
        """In `openpose21` order, metres, camera frame."""
        vectors = np.empty((16, 3))
        vectors[0], vectors[1:] = pose.orientation, pose.joints
        shape, wrist = np.asarray(pose.shape, np.float64), np.asarray(pose.wrist, np.float64)
        found = _posed(
            self._joints + self._joint_directions @ shape, self._tips + self._tip_directions @ shape,
            vectors, wrist, self._tip_pose, self._skin,
        )  # fmt: skip
        return found[_FROM_SMPLX]


@njit(cache=True, nogil=True)
def _posed(rest, tips, vectors, wrist, tip_pose, skin):
    """(21, 3): the 16 joints of `mano16`, then the five tips."""
    relative, turns = np.empty((16, 3, 3)), np.empty((16, 3, 3))
    places, out = np.empty((16, 3)), np.empty((21, 3))
    for j in range(16):
        _rotation(vectors[j], relative[j])
    turns[0], places[0] = relative[0], wrist
    for j in range(1, 16):
        parent = 0 if j % 3 == 1 else j - 1
        for r in range(3):
            value = places[parent, r]
            for c in range(3):
                value += turns[parent, r, c] * (rest[j, c] - rest[parent, c])
            places[j, r] = value
            for c in range(3):
                turns[j, r, c] = (
                    turns[parent, r, 0] * relative[j, 0, c]
                    + turns[parent, r, 1] * relative[j, 1, c]
                    + turns[parent, r, 2] * relative[j, 2, c]
                )
    out[:16] = places
    point = np.empty(3)
    for k in range(5):
        for c in range(3):
            value = tips[k, c]
            for i in range(tip_pose.shape[2]):
                j, entry = 1 + i // 9, i % 9
                straight = 1.0 if entry % 4 == 0 else 0.0
                value += tip_pose[k, c, i] * (relative[j, entry // 3, entry % 3] - straight)
            point[c] = value
        for r in range(3):
            value = 0.0
            for j in range(16):
                moved = places[j, r]
                for c in range(3):
                    moved += turns[j, r, c] * (point[c] - rest[j, c])
                value += skin[k, j] * moved
            out[16 + k, r] = value
    return out


@njit(cache=True, nogil=True)
def _rotation(vector, out):
    """Rodrigues' formula."""
    angle = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    if angle < 1e-6:
        sine, versine, x, y, z = 1.0, 0.0, vector[0], vector[1], vector[2]
    else:
        sine, versine = np.sin(angle), 1.0 - np.cos(angle)
        x, y, z = vector[0] / angle, vector[1] / angle, vector[2] / angle
    xs, ys, zs = x * sine, y * sine, z * sine
    out[0, 0], out[0, 1], out[0, 2] = 1 - versine * (y * y + z * z), versine * x * y - zs, versine * x * z + ys
    out[1, 0], out[1, 1], out[1, 2] = versine * x * y + zs, 1 - versine * (x * x + z * z), versine * y * z - xs
    out[2, 0], out[2, 1], out[2, 2] = versine * x * z - ys, versine * y * z + xs, 1 - versine * (x * x + y * y)
