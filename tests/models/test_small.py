"""Laws of the small network, of its closed-form decoding and of its losses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import roma
import torch

from evhands.geometry import crop_camera, default_camera, project, ray_rotation
from evhands.inputs import InputConfig
from evhands.models.cost import count
from evhands.models.estimator import mirror_inputs
from evhands.models.small import SmallConfig, SmallEstimator, SmallOutput, crop_rays, virtual_rotation
from evhands.models.small_losses import SmallLossWeights, small_losses, small_target
from evhands.types import Events, EventWindow

CAMERA = default_camera((346, 260))


@pytest.fixture(scope="module")
def estimator() -> SmallEstimator:
    torch.manual_seed(0)
    return SmallEstimator(SmallConfig()).eval()


def truth(estimator: SmallEstimator, n: int = 6, seed: int = 0):
    """Random hands of the model, off the optical axis, with their crops."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = 0.7 * torch.randn(n, 24, generator=generator)
    shape = torch.randn(n, 10, generator=generator)
    orientation = torch.randn(n, 3, generator=generator)
    wrist = torch.tensor([0.1, -0.08, 0.6]) + 0.05 * torch.randn(n, 3, generator=generator)
    rotvecs = estimator.joint_rotvecs(coefficients)
    joints = estimator.hand.with_shape(shape).with_pose(orientation, rotvecs, wrist).joints()
    K = []
    for points in project(joints.numpy(), CAMERA.K):
        K.append(crop_camera(CAMERA, points.mean(0), 2.0 * np.ptp(points, axis=0).max(), 96).K)
    K = torch.from_numpy(np.stack(K)).float()
    return coefficients, shape, small_target(joints, orientation, rotvecs, shape, K, 96), K, joints


def perfect(coefficients, shape, target) -> SmallOutput:
    return SmallOutput(target.uv, target.depth, torch.zeros_like(target.depth), coefficients, shape)


def test_size_and_cost_are_those_promised(estimator):
    parameters, macs = count(estimator.network, torch.zeros(1, 1, 2, 96, 96), estimator.initial_state(1))
    assert parameters <= 3_000_000 and macs <= 200_000_000


def test_decoding_inverts_the_target(estimator):
    """Perfect 2.5D joints and articulation give back the hand, its distance and place, to 10 micrometres."""
    coefficients, shape, target, K, joints = truth(estimator)
    decoded = estimator.decode(perfect(coefficients, shape, target), K)
    torch.testing.assert_close(decoded.joints, target.joints, atol=1e-5, rtol=0)
    back = decoded.joints @ virtual_rotation(K, 96).transpose(-1, -2)
    torch.testing.assert_close(back, joints, atol=1e-5, rtol=0)


def test_losses_vanish_at_the_truth_and_only_there(estimator):
    coefficients, shape, target, K, _ = truth(estimator)
    output = perfect(coefficients, shape, target)
    names = {field.name for field in dataclasses.fields(SmallLossWeights)}
    at_truth = small_losses(output, estimator.decode(output, K), target)
    assert set(at_truth) == names
    for name in names - {"log_error", "heat"}:
        assert at_truth[name].abs().max() < 1e-4, name
    wrong = dataclasses.replace(output, coefficients=coefficients + 0.5, uv=output.uv + 0.1, shape=shape + 1)
    for name, value in small_losses(wrong, estimator.decode(wrong, K), target).items():
        assert name in ("depth", "distance", "heat", "motion") or value.min() > at_truth[name].max(), name


def test_motion_loss_asks_only_how_the_hand_moves(estimator):
    """A hand bent wrongly but in the same way in all windows loses nothing; one that changes its mind does."""
    coefficients, shape, target, K, _ = truth(estimator)
    hold = lambda value: value[:1].expand(3, *value.shape[1:])  # noqa: E731
    still = dataclasses.replace(target, **{name: hold(value) for name, value in vars(target).items()})
    same = perfect(hold(coefficients) + 0.5, hold(shape), still)
    assert small_losses(same, estimator.decode(same, hold(K)), still)["motion"].max() < 1e-6
    bend = torch.tensor([0.0, 0.5, 0.0])[:, None]
    unsure = dataclasses.replace(same, coefficients=same.coefficients + bend)
    motion = small_losses(unsure, estimator.decode(unsure, hold(K)), still)["motion"]
    assert motion[0] == 0 and motion[1:].min() > 1e-3
    torch.testing.assert_close(motion[1], motion[2])


def test_what_is_recalled_changes_nothing_at_first_and_then_outlasts_the_picture(estimator):
    """Weights without the memory of articulation go on with it; once it has a say, what was seen before counts."""
    network = SmallEstimator(SmallConfig(recall=16)).eval()
    fresh = {n: v for n, v in network.state_dict().items() if n.startswith("network.recall.")}
    network.load_state_dict({**fresh, **estimator.state_dict()})
    images = torch.rand(3, 2, 2, 96, 96)
    with torch.no_grad():
        plain, _ = estimator.network(images, estimator.initial_state(2))
        same, state = network.network(images, network.initial_state(2))
        torch.testing.assert_close(same.coefficients, plain.coefficients)
        torch.nn.init.normal_(network.network.recall.out.weight)
        places, recalled = network.network.parts_of(state)
        later, _ = network.network(images[:1], state)
        forgotten, _ = network.network(images[:1], torch.cat([places.flatten(1), torch.zeros_like(recalled)], 1))
    assert (later.coefficients - forgotten.coefficients).abs().max() > 1e-3
    torch.testing.assert_close(later.uv, forgotten.uv)


def test_gradients_are_finite_from_a_fresh_network(estimator):
    network = SmallEstimator(SmallConfig()).train()
    _, _, target, K, _ = truth(network, 4)
    output, _ = network.network(torch.rand(1, 4, 2, 96, 96), network.initial_state(4))
    flat = SmallOutput(*(None if v is None else v[0] for v in vars(output).values()))
    losses = small_losses(flat, network.decode(flat, K), target)
    torch.stack([v.mean() for v in losses.values()]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.network.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in network.network.parameters()) == len(list(network.network.parameters()))


def test_chunked_is_whole(estimator):
    """A sequence in one call equals window after window with the memory handed on."""
    images = torch.rand(4, 2, 2, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole, _ = estimator.network(images, estimator.initial_state(2))
        state, parts = estimator.initial_state(2), []
        for t in range(4):
            output, state = estimator.network(images[t : t + 1], state)
            parts.append(output.uv)
    torch.testing.assert_close(torch.cat(parts), whole.uv, atol=1e-5, rtol=1e-4)


def test_memory_matters(estimator):
    image = torch.rand(1, 1, 2, 96, 96)
    fresh, state = estimator.network(image, estimator.initial_state(1))
    later, _ = estimator.network(image, state)
    assert (fresh.uv - later.uv).abs().max() > 1e-6


def test_virtual_camera_looks_along_the_crop(estimator):
    _, _, _, K, _ = truth(estimator)
    torch.testing.assert_close(
        crop_rays(torch.zeros(len(K), 1, 2), K, 96)[:, 0],
        torch.tensor([[0.0, 0.0, 1.0]]).expand(len(K), 3),
        atol=1e-6,
        rtol=0,
    )
    for rotation, k in zip(virtual_rotation(K, 96), K.numpy(), strict=True):
        direction = np.array([(47.5 - k[0, 2]) / k[0, 0], (47.5 - k[1, 2]) / k[1, 1], 1.0])
        np.testing.assert_allclose(rotation.numpy(), ray_rotation(direction), atol=1e-6)


def test_the_pose_is_the_decoded_hand(estimator):
    """The `HandPose` of a prediction, mapped to the camera and posed again, is the hand that was laid on the joints."""
    window = EventWindow(some_events(), 0, 66_667)
    crop = crop_camera(CAMERA, np.array([220.0, 90.0]), 140.0, 96)
    prediction, _ = estimator.predict(window, CAMERA, crop, estimator.initial_state(1))
    pose = prediction.pose
    joints = estimator.hand.with_shape(torch.from_numpy(pose.shape)).with_pose(
        torch.from_numpy(pose.orientation), torch.from_numpy(pose.joints), torch.from_numpy(pose.wrist)
    )
    uv = project(joints.joints().numpy(), crop.K)
    assert np.isfinite(uv).all() and pose.wrist[2] > 0 and 0 <= prediction.confidence <= 1


def test_a_left_hand_is_a_right_hand_in_the_mirror(estimator):
    """Mirrored events of the other side give the mirrored pose."""
    events = some_events()
    crop = crop_camera(CAMERA, np.array([220.0, 90.0]), 140.0, 96)
    flipped = Events((345 - events.x).astype(np.uint16), events.y, events.t_us, events.p, events.size)
    other = crop_camera(CAMERA, np.array([345 - 220.0, 90.0]), 140.0, 96)
    right, _ = estimator.predict(EventWindow(events, 0, 66_667), CAMERA, crop, estimator.initial_state(1), "right")
    left, _ = estimator.predict(EventWindow(flipped, 0, 66_667), CAMERA, other, estimator.initial_state(1), "left")
    np.testing.assert_allclose(left.pose.wrist, right.pose.wrist * [-1, 1, 1], atol=1e-4)
    np.testing.assert_allclose(left.pose.joints, right.pose.joints * [1, -1, -1], atol=1e-4)
    turns = np.stack([left.pose.orientation, right.pose.orientation * [1, -1, -1]])
    turn = roma.rotvec_to_rotmat(torch.from_numpy(turns))
    torch.testing.assert_close(turn[0], turn[1], atol=1e-4, rtol=0)
    assert left.pose.side == "left"


def test_a_mirror_twice_is_nothing():
    inputs = {"lnes": torch.rand(2, 2, 96, 96), "K": torch.eye(3).repeat(2, 1, 1)}
    for name, value in mirror_inputs(mirror_inputs(inputs)).items():
        torch.testing.assert_close(value, inputs[name])


def test_the_flow_branch_can_be_switched():
    config = SmallConfig(flow=True, inputs=InputConfig(voxel_bins=5))
    estimator = SmallEstimator(config).eval()
    inputs = {"lnes": torch.rand(1, 2, 96, 96), "voxel": torch.randn(1, 5, 96, 96), "K": torch.from_numpy(crop_k())}
    prediction, _ = estimator(inputs, estimator.initial_state(1))
    assert prediction.flow is not None and prediction.flow.abs().max() <= 12
    parameters, macs = count(estimator.network, inputs["lnes"][None], estimator.initial_state(1), inputs["voxel"][None])
    assert parameters <= 3_000_000 and macs <= 200_000_000
    with pytest.raises(ValueError, match="voxel_bins"):
        SmallConfig(flow=True)


def crop_k() -> np.ndarray:
    return crop_camera(CAMERA, np.array([170.0, 130.0]), 150.0, 96).K[None].astype(np.float32)


def some_events(n: int = 800) -> Events:
    rng = np.random.default_rng(5)
    return Events(
        rng.integers(150, 290, n).astype(np.uint16),
        rng.integers(20, 160, n).astype(np.uint16),
        np.sort(rng.integers(0, 66_667, n)),
        rng.random(n) < 0.5,
        (346, 260),
    )
