"""The hand model in torch: load -> shape -> pose -> mesh, linear blend skinning of any batch, differentiable.

    hand = load_hand("open", side="right")
    posed = hand.with_shape(shape).with_pose(orientation, joints, wrist)
    posed.joints()   # 21 joints, cheap: skins only the five finger tips
    posed.mesh()     # all vertices

The formulation is that of SMPL (Loper et al. 2015) and MANO (Romero et al. 2017): vertices = template + shape offsets +
pose offsets (linear in the entries of the joint rotations), carried by the joints' rigid motions, weighted per vertex.
Rotations turn about joints, the whole hand about its wrist; `wrist` is where the wrist joint ends up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evhands.hand.files import read_hand
from evhands.hand.one_pose import OnePose, check_named
from evhands.hand.skeleton import permutation
from evhands.types import HandMesh, HandPose, Side

_FROM_SMPLX = torch.from_numpy(permutation("smplx_mano21", "openpose21"))


@dataclass(frozen=True)
class HandModel:
    """A hand of one side: template, shape space, pose space and skinning, in metres.

    Joints are in `mano16` order, tips in thumb, index, middle, ring, little; faces counter-clockwise seen from outside.
    pose_directions may be None (no pose-dependent offsets). Rows of pose_components are directions of the 45 joint
    angles about mean_pose; pose_std is the standard deviation of natural poses along each.
    """

    name: str
    side: Side
    vertices: Float[Tensor, "v 3"]
    faces: Int64[Tensor, "f 3"]
    shape_directions: Float[Tensor, "v 3 10"]
    pose_directions: Float[Tensor, "v 3 135"] | None
    joint_regressor: Float[Tensor, "16 v"]
    skin_weights: Float[Tensor, "v 16"]
    mean_pose: Float[Tensor, "45"]
    pose_components: Float[Tensor, "45 45"]
    pose_std: Float[Tensor, "45"]
    tip_vertices: Int64[Tensor, "5"]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> HandModel:
        """The same hand on another device or in another floating-point type (indices stay int64)."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.to(device, dtype if value.is_floating_point() else None)
        return HandModel(**values)

    def mirrored(self) -> HandModel:
        """The hand of the other side: its mirror image in the plane x = 0, faces still outward."""
        return mirror_model(self)

    def joints_from_components(self, coefficients: Float[Tensor, "*b k"]) -> Float[Tensor, "*b 15 3"]:
        """Joint rotation vectors (mean included) of the first k <= 45 pose components."""
        angles = self.mean_pose + coefficients @ self.pose_components[: coefficients.shape[-1]]
        return angles.unflatten(-1, (15, 3))

    def with_shape(self, shape: Float[Tensor, "*b 10"] | None = None) -> ShapedHand:
        """The hand at rest with these shape coefficients (None = the mean shape, without batch dimensions)."""
        if shape is None:
            return ShapedHand(self, self.vertices, self._rest_joints)
        vertices = _added(self._template_row, shape, self._shape_matrix).unflatten(-1, (3, -1)).transpose(-1, -2)
        joints = self._rest_joints + (shape @ self._joint_shape_matrix).unflatten(-1, (16, 3))
        return ShapedHand(self, vertices, joints)

    def joints_of(self, pose: HandPose) -> Float[np.ndarray, "21 3"]:
        """The 21 joints of one pose without a batch, as `pose_hand(self, pose).joints()` in 64 bits, many times as
        quickly."""
        check_named(self.name, self.side, pose)
        return self._one_pose.joints(pose)

    def mesh_of(self, pose: HandPose) -> HandMesh:
        """The surface and joints of one pose without a batch, numpy, metres, camera frame."""
        with torch.no_grad():
            mesh = pose_hand(self, pose).mesh()
        return HandMesh(mesh.vertices.cpu().numpy(), mesh.joints.cpu().numpy(), mesh.faces.cpu().numpy())

    @cached_property
    def _one_pose(self) -> OnePose:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return OnePose({n: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for n, v in values.items()})

    # What follows from the fields alone, laid out for matrix products: coordinates first, vertices last.
    @cached_property
    def _template_row(self) -> Tensor:
        return self.vertices.transpose(-1, -2).flatten()

    @cached_property
    def _shape_matrix(self) -> Tensor:
        return self.shape_directions.permute(2, 1, 0).flatten(1).contiguous()

    @cached_property
    def _pose_matrix(self) -> Tensor | None:
        return None if self.pose_directions is None else self.pose_directions.permute(2, 1, 0).flatten(1).contiguous()

    @cached_property
    def _rest_joints(self) -> Tensor:
        return self.joint_regressor @ self.vertices

    @cached_property
    def _joint_shape_matrix(self) -> Tensor:
        return torch.einsum("jv,vck->kjc", self.joint_regressor, self.shape_directions).flatten(1)

    @cached_property
    def _skin_matrix(self) -> Tensor:
        return self.skin_weights.transpose(-1, -2).contiguous()

    @cached_property
    def _tips(self) -> tuple[Tensor | None, Tensor]:
        """Pose and skin matrices of the five tips alone."""
        chosen = None if self.pose_directions is None else self.pose_directions[self.tip_vertices]
        pose = None if chosen is None else chosen.permute(2, 1, 0).flatten(1).contiguous()
        return pose, self.skin_weights[self.tip_vertices].transpose(-1, -2).contiguous()


@dataclass(frozen=True)
class ShapedHand:
    """A hand at rest: its vertices and its 16 joints (`mano16`) in metres; joints16[..., 0, :] is MANO's J0."""

    model: HandModel
    vertices: Float[Tensor, "*b v 3"]
    joints16: Float[Tensor, "*b 16 3"]

    def with_pose(
        self,
        orientation: Float[Tensor, "*#b 3"] | None,
        joints: Float[Tensor, "*#b 15 3"],
        wrist: Float[Tensor, "*#b 3"] | None = None,
    ) -> PosedHand:
        """Turn the joints by rotation vectors (the mean pose INCLUDED) and the hand by `orientation` (None = not).

        wrist None leaves the wrist where it is at rest. Batch dimensions broadcast against those of the shape.
        """
        first = torch.zeros_like(joints[..., :1, :])
        if orientation is not None:
            first = first + orientation[..., None, :]
            joints = joints.expand(*first.shape[:-2], 15, 3)
        return self.with_rotations(_rotation_matrices(torch.cat([first, joints], -2)), wrist)

    def with_rotations(
        self, rotations: Float[Tensor, "*#b 16 3 3"], wrist: Float[Tensor, "*#b 3"] | None = None
    ) -> PosedHand:
        """Turn the joints by matrices relative to their parents; rotations[..., 0, :, :] is the global orientation."""
        if wrist is None:
            wrist = self.joints16[..., 0, :]
        rest = self.joints16[..., 1:, :].unflatten(-2, (5, 3))  # finger, joint along the finger, coordinate
        relative = rotations[..., 1:, :, :].unflatten(-3, (5, 3))
        turn, place, parent = rotations[..., :1, :, :], wrist[..., None, :], self.joints16[..., :1, :]
        turns, places = [], []
        for k in range(3):
            place = place + (turn @ (rest[..., k, :] - parent)[..., None])[..., 0]
            turn, parent = turn @ relative[..., k, :, :], rest[..., k, :]
            turns.append(turn)
            places.append(place)
        joints = torch.stack(places, -2).flatten(-3, -2)
        first = wrist[..., None, :].expand(*joints.shape[:-2], 1, 3)
        all_turns = torch.cat([rotations[..., :1, :, :], torch.stack(turns, -3).flatten(-4, -3)], -3)
        return PosedHand(self, rotations, all_turns, torch.cat([first, joints], -2))


def _rotation_matrices(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula; of first order for angles below 1e-6, so that gradients stay finite.

    To the bit `roma.rotvec_to_rotmat`; but roma loads torch's compiler, a second and 80 MB for each worker of the
    simulator, which needs nothing else of it.
    """
    angle = torch.norm(vectors, dim=-1)
    kx, ky, kz = (vectors / torch.clamp_min(angle[..., None], 1e-6)).unbind(-1)
    sine, versine = torch.sin(angle), 1 - torch.cos(angle)
    xs, ys, zs = kx * sine, ky * sine, kz * sine
    xy, xz, yz = kx * ky * versine, kx * kz * versine, ky * kz * versine
    xx, yy, zz = kx**2 * versine, ky**2 * versine, kz**2 * versine
    matrices = [1 - yy - zz, xy - zs, xz + ys, xy + zs, 1 - xx - zz, -xs + yz, xz - ys, xs + yz, 1 - xx - yy]
    x, y, z = vectors.unbind(-1)
    one = torch.ones_like(x)
    tiny = [one, -z, y, z, one, -x, -y, x, one]
    shape = (*vectors.shape, 3)
    chosen = torch.where(angle[..., None] < 1e-6, torch.stack(tiny, -1), torch.stack(matrices, -1))
    return chosen.reshape(shape)


@dataclass(frozen=True)
class PosedHand:
    """A posed hand: rotations relative to the parent, rotations and places of the 16 joints in the camera frame."""

    shaped: ShapedHand
    rotations: Float[Tensor, "*#b 16 3 3"]
    turns: Float[Tensor, "*#b 16 3 3"]
    joints16: Float[Tensor, "*b 16 3"]

    def joints(self) -> Float[Tensor, "*b 21 3"]:
        """The 21 joints in `openpose21` order; skins only the five finger tips."""
        model = self.shaped.model
        pose_matrix, skin_matrix = model._tips
        tips = self._skin(self.shaped.vertices[..., model.tip_vertices, :].transpose(-1, -2), pose_matrix, skin_matrix)
        return torch.cat([self.joints16, tips.transpose(-1, -2)], -2)[..., _FROM_SMPLX.to(tips.device), :]

    def mesh(self) -> HandMesh:
        """All vertices, with the 21 joints and the faces of the model."""
        model = self.shaped.model
        vertices = self._skin(self.shaped.vertices.transpose(-1, -2), model._pose_matrix, model._skin_matrix)
        return HandMesh(vertices.transpose(-1, -2).contiguous(), self.joints(), model.faces)

    def _skin(self, rest: Tensor, pose_matrix: Tensor | None, skin_matrix: Tensor) -> Tensor:
        """Skin points (*b, 3, n) at rest: coordinates come first, so that all work is matrix products and long rows."""
        if pose_matrix is not None:
            identity = torch.eye(3, dtype=rest.dtype, device=rest.device)
            rest = rest + ((self.rotations[..., 1:, :, :] - identity).flatten(-3) @ pose_matrix).unflatten(-1, (3, -1))
        shift = self.joints16 - (self.turns @ self.shaped.joints16[..., None])[..., 0]
        columns = self.turns.transpose(-1, -3)  # (column, 3, 16) of each hand: the axes of all joints
        skinned = _blended(shift.transpose(-1, -2), skin_matrix)
        for k in range(3):
            # In place on our own result: large temporaries cost more in fresh memory pages than in arithmetic.
            skinned.addcmul_(_blended(columns[..., k, :, :], skin_matrix), rest[..., k : k + 1, :])
        return skinned


def _added(row: Tensor, factors: Tensor, matrix: Tensor) -> Tensor:
    """row + factors @ matrix, without a temporary as large as the result."""
    if factors.ndim == 1:
        return row + factors @ matrix
    return torch.addmm(row, factors.flatten(0, -2), matrix).unflatten(0, factors.shape[:-1])


def _blended(batch: Tensor, skin_matrix: Tensor) -> Tensor:
    """(*b, 3, 16) @ (16, n) as ONE matrix product over all rows."""
    return (batch.flatten(0, -2) @ skin_matrix).unflatten(0, batch.shape[:-1])


def pose_hand(model: HandModel, pose: HandPose) -> PosedHand:
    """Pose `model` by `pose` (numpy or torch), which must be of the model's side and name; else an InputError."""
    check_named(model.name, model.side, pose)

    def tensor(value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=model.vertices.dtype, device=model.vertices.device)

    shaped = model.with_shape(tensor(pose.shape))
    return shaped.with_pose(tensor(pose.orientation), tensor(pose.joints), tensor(pose.wrist))


def mirror_model(model: HandModel) -> HandModel:
    """The mirror image of a hand model in x = 0: M R M for rotations, (x, -y, -z) for rotation vectors."""
    point = model.vertices.new_tensor([-1.0, 1.0, 1.0])
    vector = (-point).repeat(15)
    entry = (point[:, None] * point).flatten().repeat(15)
    directions = model.pose_directions
    return replace(
        model,
        side="left" if model.side == "right" else "right",
        vertices=model.vertices * point,
        faces=model.faces.flip(-1),
        shape_directions=model.shape_directions * point[:, None],
        pose_directions=None if directions is None else directions * point[:, None] * entry,
        mean_pose=model.mean_pose * vector,
        pose_components=model.pose_components * vector,
    )


def load_hand(
    name_or_path: str | Path = "open",
    side: Side = "right",
    *,
    flat_hand_mean: bool = False,
    fix_left_shape: bool = True,
) -> HandModel:
    """Load the open hand ("open"), a hand of the same .npz layout, or the user's MANO pickle (.pkl, named "mano").

    A file of the other side is mirrored. flat_hand_mean replaces the mean pose by the flat hand; fix_left_shape mends
    the sign of MANO_LEFT's shape directions (see `evhands.hand.mano.read_mano`). Unusable files give an InputError.
    """
    if name_or_path == "open":
        model = _open_hand()
    else:
        model = model_from_arrays(read_hand(name_or_path, fix_left_shape=fix_left_shape))
    if model.side != side:
        model = mirror_model(model)
    return replace(model, mean_pose=torch.zeros_like(model.mean_pose)) if flat_hand_mean else model


def model_from_arrays(arrays: dict[str, Any]) -> HandModel:
    """A hand model (float32) from arrays named as the fields of `HandModel`; side defaults to right."""

    def floats(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name], dtype=np.float32))

    def indices(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name], dtype=np.int64))

    return HandModel(
        name=str(arrays["name"]),
        side="left" if str(arrays.get("side", "right")) == "left" else "right",
        vertices=floats("vertices"),
        faces=indices("faces"),
        shape_directions=floats("shape_directions"),
        pose_directions=floats("pose_directions") if "pose_directions" in arrays else None,
        joint_regressor=floats("joint_regressor"),
        skin_weights=floats("skin_weights"),
        mean_pose=floats("mean_pose"),
        pose_components=floats("pose_components"),
        pose_std=floats("pose_std"),
        tip_vertices=indices("tip_vertices"),
    )


@cache
def _open_hand() -> HandModel:
    return model_from_arrays(read_hand("open"))
