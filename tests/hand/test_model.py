"""Laws of the hand model, on a small made-up hand and on the open hand that ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evhands.hand.model import HandModel, load_hand, mirror_model, model_from_arrays, pose_hand
from evhands.hand.skeleton import MANO16_PARENTS, permutation
from evhands.types import HandPose, InputError

MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


def made_up_hand(vertices: int = 30, seed: int = 0) -> HandModel:
    """A hand of random numbers in float64: every part of the formula counts, nothing looks like a hand."""
    rng = np.random.default_rng(seed)
    regressor = rng.random((16, vertices))
    weights = rng.random((vertices, 16)) ** 4
    model = model_from_arrays(
        {
            "name": "made-up",
            "vertices": rng.normal(size=(vertices, 3)) * 0.1,
            "faces": rng.integers(0, vertices, (40, 3)),
            "shape_directions": rng.normal(size=(vertices, 3, 10)) * 0.01,
            "pose_directions": rng.normal(size=(vertices, 3, 135)) * 0.01,
            "joint_regressor": regressor / regressor.sum(1, keepdims=True),
            "skin_weights": weights / weights.sum(1, keepdims=True),
            "mean_pose": rng.normal(size=45) * 0.1,
            "pose_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
            "pose_std": rng.random(45),
            "tip_vertices": rng.choice(vertices, 5, replace=False),
        }
    )
    model = model.to(dtype=torch.float64)
    # Weights that add up to 1 to the last digit, which float32 on the way took from them.
    return replace(model, skin_weights=model.skin_weights / model.skin_weights.sum(1, keepdim=True))


HAND = made_up_hand()


def random_pose(*batch: int, seed: int = 1, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, orientation, joints and wrist."""
    g = torch.Generator().manual_seed(seed)
    sizes = ((10,), (3,), (15, 3), (3,))
    shape, orientation, joints, wrist = (
        torch.randn(*batch, *s, generator=g, dtype=torch.float64) * scale for s in sizes
    )
    return shape, orientation, joints, wrist


def naive_vertices(model: HandModel, shape: Tensor, orientation: Tensor, joints: Tensor, wrist: Tensor) -> np.ndarray:
    """One hand by the textbook: 4x4 motions down the tree, vertex by vertex."""
    rest = model.vertices.numpy() + model.shape_directions.numpy() @ shape.numpy()
    places = model.joint_regressor.numpy() @ rest
    turns = roma.rotvec_to_rotmat(torch.cat([orientation[None], joints])).numpy()
    if model.pose_directions is not None:
        rest = rest + model.pose_directions.numpy() @ (turns[1:] - np.eye(3)).ravel()
    motions: list[np.ndarray] = []
    for k, parent in enumerate(MANO16_PARENTS):
        about = np.eye(4)
        about[:3, :3], about[:3, 3] = turns[k], places[k] - turns[k] @ places[k]
        motions.append(about if parent < 0 else motions[parent] @ about)
    posed = np.empty_like(rest)
    for v, point in enumerate(rest):
        blended = sum(model.skin_weights[v, k].item() * motions[k] for k in range(16))
        posed[v] = blended[:3, :3] @ point + blended[:3, 3]
    return posed - places[0] + wrist.numpy()


@pytest.mark.parametrize("with_pose_directions", [True, False])
def test_equals_the_textbook_formula(with_pose_directions: bool) -> None:
    model = HAND if with_pose_directions else replace(HAND, pose_directions=None)
    shape, orientation, joints, wrist = random_pose(3)
    mesh = model.with_shape(shape).with_pose(orientation, joints, wrist).mesh()
    for i in range(3):
        naive = naive_vertices(model, shape[i], orientation[i], joints[i], wrist[i])
        np.testing.assert_allclose(mesh.vertices[i].numpy(), naive, atol=1e-12)


def test_no_shape_and_no_pose_is_the_template() -> None:
    joints = torch.zeros(15, 3, dtype=torch.float64)
    for shaped in (HAND.with_shape(None), HAND.with_shape(torch.zeros(10, dtype=torch.float64))):
        mesh = shaped.with_pose(None, joints).mesh()
        torch.testing.assert_close(mesh.vertices, HAND.vertices)
        at_rest = HAND.joint_regressor @ HAND.vertices
        torch.testing.assert_close(mesh.joints[permutation("openpose21", "mano16")], at_rest)


def test_joints_are_those_of_the_mesh_and_tips_lie_on_it() -> None:
    shape, orientation, joints, wrist = random_pose(2, 3)
    posed = HAND.with_shape(shape).with_pose(orientation, joints, wrist)
    mesh = posed.mesh()
    torch.testing.assert_close(posed.joints(), mesh.joints, rtol=0, atol=0)
    torch.testing.assert_close(mesh.joints[..., [4, 8, 12, 16, 20], :], mesh.vertices[..., HAND.tip_vertices, :])
    torch.testing.assert_close(mesh.joints[..., 0, :], wrist)


@given(st.integers(0, 1000))
def test_turning_the_hand_turns_it_about_the_wrist(seed: int) -> None:
    shape, orientation, joints, wrist = random_pose(2, seed=seed)
    turn = roma.random_rotmat(2, dtype=torch.float64)
    shaped = HAND.with_shape(shape)
    before = shaped.with_pose(orientation, joints, wrist).mesh().vertices
    turned = roma.rotmat_to_rotvec(turn @ roma.rotvec_to_rotmat(orientation))
    after = shaped.with_pose(turned, joints, wrist).mesh().vertices
    expected = (before - wrist[:, None]) @ turn.mT + wrist[:, None]
    torch.testing.assert_close(after, expected, atol=1e-9, rtol=0)


def test_moving_the_wrist_moves_everything_alike() -> None:
    shape, orientation, joints, wrist = random_pose(2)
    shaped = HAND.with_shape(shape)
    shift = torch.tensor([0.1, -0.2, 0.5], dtype=torch.float64)
    before, after = (shaped.with_pose(orientation, joints, w).mesh() for w in (wrist, wrist + shift))
    torch.testing.assert_close(after.vertices, before.vertices + shift)
    torch.testing.assert_close(after.joints, before.joints + shift)


def test_bones_keep_their_lengths() -> None:
    shape, orientation, joints, wrist = random_pose(4)
    shaped = HAND.with_shape(shape)
    posed = shaped.with_pose(orientation, joints, wrist).joints16
    for child, parent in enumerate(MANO16_PARENTS[1:], start=1):
        lengths = [(j[:, child] - j[:, parent]).norm(dim=-1) for j in (posed, shaped.joints16)]
        torch.testing.assert_close(*lengths)


def test_the_left_hand_is_the_mirror_image() -> None:
    shape, orientation, joints, wrist = random_pose(2)
    right = HAND.with_shape(shape).with_pose(orientation, joints, wrist).mesh()
    left_model = mirror_model(HAND)
    left = left_model.with_shape(shape).with_pose(-MIRROR * orientation, -MIRROR * joints, MIRROR * wrist).mesh()
    torch.testing.assert_close(left.vertices, right.vertices * MIRROR)
    torch.testing.assert_close(left.joints, right.joints * MIRROR)
    coefficients = torch.randn(2, 7, dtype=torch.float64)
    torch.testing.assert_close(
        left_model.joints_from_components(coefficients), -MIRROR * HAND.joints_from_components(coefficients)
    )


def test_mirroring_twice_changes_nothing() -> None:
    twice = HAND.mirrored().mirrored()
    assert (HAND.mirrored().side, twice.side) == ("left", "right")
    torch.testing.assert_close(twice.pose_directions, HAND.pose_directions, rtol=0, atol=0)
    torch.testing.assert_close(twice.faces, HAND.faces, rtol=0, atol=0)


def test_a_batch_is_its_hands_one_by_one_and_shapes_broadcast() -> None:
    shape, orientation, joints, wrist = random_pose(2, 3)
    shape = shape[:, :1]
    together = HAND.with_shape(shape).with_pose(orientation, joints, wrist).mesh()
    for i in range(2):
        for k in range(3):
            alone = HAND.with_shape(shape[i, 0]).with_pose(orientation[i, k], joints[i, k], wrist[i, k]).mesh()
            torch.testing.assert_close(together.vertices[i, k], alone.vertices)
            torch.testing.assert_close(together.joints[i, k], alone.joints)


def test_one_shape_for_many_poses_and_many_shapes_for_one_pose() -> None:
    shape, orientation, joints, wrist = random_pose(3)
    many_poses = HAND.with_shape(shape[0]).with_pose(orientation, joints, wrist).mesh()
    many_shapes = HAND.with_shape(shape).with_pose(orientation[0], joints[0], wrist[0]).mesh()
    torch.testing.assert_close(many_poses.vertices[0], many_shapes.vertices[0])
    assert many_shapes.joints.shape == many_poses.joints.shape == (3, 21, 3)


def test_no_hands_give_no_vertices() -> None:
    shape, orientation, joints, wrist = random_pose(0)
    assert HAND.with_shape(shape).with_pose(orientation, joints, wrist).mesh().vertices.shape == (0, 30, 3)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, np.pi - 1e-7, np.pi, 2 * np.pi, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_every_angle(angle: float, dtype: torch.dtype) -> None:
    model = HAND.to(dtype=dtype)
    shape, _, _, wrist = (value.to(dtype).requires_grad_() for value in random_pose(1))
    direction = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    orientation = (angle * direction)[None].requires_grad_()
    joints = (angle * direction).repeat(1, 15, 1).requires_grad_()
    mesh = model.with_shape(shape).with_pose(orientation, joints, wrist).mesh()
    (mesh.vertices.square().sum() + mesh.joints.square().sum()).backward()
    for value in (shape, orientation, joints, wrist):
        assert value.grad is not None
        assert value.grad.isfinite().all()
        assert value.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_are_right(scale: float) -> None:
    small = made_up_hand(vertices=6)
    values = [value.requires_grad_() for value in random_pose(1, scale=scale)]

    def vertices(shape: Tensor, orientation: Tensor, joints: Tensor, wrist: Tensor) -> Tensor:
        return small.with_shape(shape).with_pose(orientation, joints, wrist).mesh().vertices

    assert torch.autograd.gradcheck(vertices, values, fast_mode=True)


def test_vectors_and_matrices_say_the_same() -> None:
    shape, orientation, joints, wrist = random_pose(2)
    matrices = roma.rotvec_to_rotmat(torch.cat([orientation[:, None], joints], 1))
    shaped = HAND.with_shape(shape)
    by_vectors, by_matrices = shaped.with_pose(orientation, joints, wrist), shaped.with_rotations(matrices, wrist)
    torch.testing.assert_close(by_vectors.joints(), by_matrices.joints())


def test_no_components_are_the_mean_pose_and_all_of_them_any_pose() -> None:
    torch.testing.assert_close(
        HAND.joints_from_components(torch.zeros(0, dtype=torch.float64)).flatten(), HAND.mean_pose
    )
    wanted = torch.randn(45, dtype=torch.float64)
    coefficients = HAND.pose_components @ (wanted - HAND.mean_pose)
    # The components are float32 in the file, orthonormal to that precision.
    torch.testing.assert_close(HAND.joints_from_components(coefficients).flatten(), wanted, atol=1e-6, rtol=0)


def test_a_pose_in_numpy_is_posed_and_one_of_another_hand_refused() -> None:
    shape, orientation, joints, wrist = (value.numpy() for value in random_pose(2))
    pose = HandPose("right", orientation, wrist, joints, shape, "made-up")
    assert pose_hand(HAND, pose).mesh().vertices.shape == (2, 30, 3)
    for other in (replace(pose, side="left"), replace(pose, hand_model="mano")):
        with pytest.raises(InputError, match="wanted"):
            pose_hand(HAND, other)


@pytest.fixture(scope="module")
def open_hand() -> HandModel:
    return load_hand("open")


def test_the_open_hand_is_a_closed_surface_that_faces_outward(open_hand: HandModel) -> None:
    faces = open_hand.faces
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, backward = {tuple(e) for e in edges.tolist()}, {tuple(e) for e in edges.flip(1).tolist()}
    assert len(forward) == len(edges), "an edge is used twice in the same direction"
    assert forward == backward, "the surface has a border"
    for model in (open_hand, open_hand.mirrored()):
        a, b, c = model.vertices.double()[model.faces].unbind(1)
        assert (a * torch.linalg.cross(b, c)).sum() / 6 > 1e-4  # m3: a hand of more than 0.1 l


def test_the_open_hand_is_a_hand_of_the_axes_of_mano(open_hand: HandModel) -> None:
    joints = open_hand.with_shape(None).with_pose(None, torch.zeros(15, 3)).joints()
    tips, wrist = joints[[4, 8, 12, 16, 20]], joints[0]
    assert (tips[:, 0] < wrist[0]).all()
    assert tips[0, 2] > tips[1, 2] > tips[4, 2]
    assert 0.15 < (tips[2] - wrist).norm() < 0.22
    torch.testing.assert_close(open_hand.skin_weights.sum(1), torch.ones(len(open_hand.vertices)))


def test_left_and_right_open_hand_are_mirror_images(open_hand: HandModel) -> None:
    left = load_hand("open", side="left")
    assert left.side == "left"
    torch.testing.assert_close(left.vertices, open_hand.vertices * MIRROR.float())


def test_flat_hand_mean_is_the_open_template(open_hand: HandModel) -> None:
    flat = load_hand("open", flat_hand_mean=True)
    assert not flat.mean_pose.any()
    torch.testing.assert_close(flat.pose_components, open_hand.pose_components)


def test_files_that_are_no_hand_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Wanted"):
        load_hand(tmp_path / "missing.pkl")
    np.savez(tmp_path / "other.npz", name="other")
    with pytest.raises(InputError, match="no hand model"):
        load_hand(tmp_path / "other.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:60])
    with pytest.raises(InputError, match="no hand model"):
        load_hand(tmp_path / "cut.npz")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pose_directions", [True, False])
def test_one_pose_has_the_joints_of_the_model(side, pose_directions):
    model = load_hand("open", side)
    if pose_directions:
        rng = np.random.default_rng(1)
        made = torch.from_numpy(rng.normal(0, 1e-3, (len(model.vertices), 3, 135)).astype(np.float32))
        model = replace(model, pose_directions=made)
    rng = np.random.default_rng(2)
    for scale in (0.0, 1e-8, 0.4, 2.5):
        values = rng.normal(0, scale, 3), rng.normal(0, 0.5, 3), rng.normal(0, scale, (15, 3)), rng.normal(0, 1, 10)
        pose = HandPose(side, *values, hand_model="open")
        wanted = pose_hand(model.to(dtype=torch.float64), pose).joints().numpy()
        np.testing.assert_allclose(model.joints_of(pose), wanted, atol=1e-9)
    with pytest.raises(InputError, match="left|right"):
        model.joints_of(replace(pose, side="left" if side == "right" else "right"))
