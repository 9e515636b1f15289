"""Joints and surface of single poses without torch: what a tracker needs for every window, in a few microseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from numba import njit

from evhands.hand.files import read_hand
from evhands.hand.skeleton import permutation
from evhands.types import HandMesh, HandPose, InputError, Side

_FROM_SMPLX = permutation("smplx_mano21", "openpose21")


class PosableHand(Protocol):
    """A hand model of one side, as a tracker needs it: single poses, numpy in and out, metres, camera frame."""

    @property
    def name(self) -> str: ...

    @property
    def side(self) -> Side: ...

    def mirrored(self) -> PosableHand: ...

    def joints_of(self, pose: HandPose) -> Float[np.ndarray, "21 3"]: ...

    def mesh_of(self, pose: HandPose) -> HandMesh: ...


@dataclass(frozen=True)
class PlainHand:
    """A hand model without torch. arrays: those of a hand file, named as the fields of `evhands.hand.model.HandModel`,
    of a hand of the side `made_for`; a hand of the other side is its mirror image in x = 0."""

    name: str
    side: Side
    made_for: Side
    arrays: dict[str, np.ndarray] = field(repr=False)

    def mirrored(self) -> PlainHand:
        return PlainHand(self.name, "left" if self.side == "right" else "right", self.made_for, self.arrays)

    def joints_of(self, pose: HandPose) -> Float[np.ndarray, "21 3"]:
        """In `openpose21` order, metres, camera frame; InputError for a pose of another hand."""
        check_named(self.name, self.side, pose)
        if self.side == self.made_for:
            return self._one_pose.joints(pose)
        return self._one_pose.joints(_in_mirror(pose)) * _POINT

    def mesh_of(self, pose: HandPose) -> HandMesh:
        """The surface with its joints and faces, numpy, metres, camera frame; InputError for a pose of another hand."""
        check_named(self.name, self.side, pose)
        faces = np.asarray(self.arrays["faces"], np.int64)
        if self.side == self.made_for:
            return HandMesh(self._surface(pose), self.joints_of(pose).astype(np.float32), faces)
        vertices = self._surface(_in_mirror(pose)) * _POINT.astype(np.float32)
        return HandMesh(vertices, self.joints_of(pose).astype(np.float32), faces[:, ::-1])

    @cached_property
    def _one_pose(self) -> OnePose:
        return OnePose(self.arrays)

    def _surface(self, pose: HandPose) -> Float[np.ndarray, "v 3"]:
        relative, turns, shift = self._one_pose.motions(pose)
        rest = self.arrays["vertices"] + self.arrays["shape_directions"] @ np.asarray(pose.shape, np.float32)
        if "pose_directions" in self.arrays:
            rest = rest + self.arrays["pose_directions"] @ (relative[1:] - np.eye(3)).ravel().astype(np.float32)
        motion = np.concatenate([turns, shift[..., None]], axis=-1).reshape(16, 12).astype(np.float32)
        of_vertex = (self.arrays["skin_weights"] @ motion).reshape(-1, 3, 4)
        return np.einsum("vrc,vc->vr", of_vertex[..., :3], rest) + of_vertex[..., 3]


def load_plain_hand(name: str = "open", side: Side = "right") -> PlainHand:
    """The hand that `evhands.hand.model.load_hand` loads under this name, without torch; the same InputErrors."""
    arrays = read_hand(name)
    made_for: Side = "left" if str(arrays.pop("side", "right")) == "left" else "right"
    return PlainHand(str(arrays.pop("name")), side, made_for, arrays)


def check_named(name: str, side: Side, pose: HandPose) -> None:
    """InputError unless the pose is one of this hand."""
    if (pose.side, pose.hand_model) != (side, name):
        raise InputError(
            f"Found a pose of a {pose.side} hand in parameters of the hand model '{pose.hand_model}', wanted one of "
            f"the {side} hand of '{name}': shape and joint angles mean something else in another model. "
            "Load the model that the pose names."
        )


_POINT = np.array([-1.0, 1.0, 1.0])


def _in_mirror(pose: HandPose) -> HandPose:
    side: Side = "left" if pose.side == "right" else "right"
    orientation, joints = np.asarray(pose.orientation) * -_POINT, np.asarray(pose.joints) * -_POINT
    return HandPose(side, orientation, np.asarray(pose.wrist) * _POINT, joints, pose.shape, pose.hand_model)


class OnePose:
    """Joints of single poses of one hand model, equal to those of `pose_hand(model, pose).joints()`.

    arrays: named as the fields of `evhands.hand.model.HandModel`.
    """

    def __init__(self, arrays: dict[str, Any]) -> None:
        def array(name: str) -> np.ndarray:
            return np.ascontiguousarray(arrays[name], np.float64)

        tips = np.asarray(arrays["tip_vertices"], np.int64)
        regressor, directions, vertices = array("joint_regressor"), array("shape_directions"), array("vertices")
        self._joints = regressor @ vertices
        self._joint_directions = np.ascontiguousarray(np.einsum("jv,vck->jck", regressor, directions))
        self._tips, self._tip_directions = vertices[tips], np.ascontiguousarray(directions[tips])
        self._skin = np.ascontiguousarray(array("skin_weights")[tips])
        if arrays.get("pose_directions") is None:
            self._tip_pose = np.zeros((5, 3, 0))
        else:
            self._tip_pose = np.ascontiguousarray(array("pose_directions")[tips])

    def joints(self, pose: HandPose) -> Float[np.ndarray, "21 3"]:
        """In `openpose21` order, metres, camera frame."""
        vectors, rest, shape, wrist = self._at_rest(pose)
        tips = self._tips + self._tip_directions @ shape
        relative, turns, places = _chain(rest, vectors, wrist)
        return _with_tips(rest, tips, relative, turns, places, self._tip_pose, self._skin)[_FROM_SMPLX]

    def motions(self, pose: HandPose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the 16 joints (`mano16`): rotations relative to the parent, rotations in the camera frame (16, 3, 3), and
        the shifts (16, 3), metres, that go with these."""
        vectors, rest, _, wrist = self._at_rest(pose)
        relative, turns, places = _chain(rest, vectors, wrist)
        return relative, turns, places - np.einsum("jrc,jc->jr", turns, rest)

    def _at_rest(self, pose: HandPose) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        vectors = np.empty((16, 3))
        vectors[0], vectors[1:] = pose.orientation, pose.joints
        shape = np.asarray(pose.shape, np.float64)
        return vectors, self._joints + self._joint_directions @ shape, shape, np.asarray(pose.wrist, np.float64)


@njit(cache=True, nogil=True)
def _chain(rest, vectors, wrist):
    """Rotations (16, 3, 3) relative to the parent and of the whole, and places (16, 3), of the joints of `mano16`."""
    relative, turns, places = np.empty((16, 3, 3)), np.empty((16, 3, 3)), np.empty((16, 3))
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
    return relative, turns, places


@njit(cache=True, nogil=True)
def _with_tips(rest, tips, relative, turns, places, tip_pose, skin):
    """(21, 3): the 16 joints of `mano16`, then the five tips."""
    out = np.empty((21, 3))
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
