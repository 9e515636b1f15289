"""Laws of the paper's estimator: its published sizes, chunked = whole, a frozen FlowNet, the crop's virtual camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evhands.geometry import project
from evhands.inputs import InputConfig
from evhands.models.cost import count
from evhands.models.encoder import EncoderConfig
from evhands.models.flow import FlowConfig
from evhands.models.paper import PaperConfig, PaperEstimator, PoseNetworkConfig, paper
from evhands.types import Camera, HandPose

TINY = PaperConfig(
    flow=FlowConfig(base_channels=4, levels=2, residual_blocks=1),
    pose=PoseNetworkConfig(encoder=EncoderConfig(channels=(4, 8), blocks=(1, 1)), recurrent_channels=8, hidden=8),
    inputs=InputConfig(size_px=32, voxel_bins=5),
)
CAMERA = Camera(np.array([[289.0, 0, 172], [0, 280, 131], [0, 0, 1]]), (346, 260))


def _estimator(config: PaperConfig = TINY) -> PaperEstimator:
    torch.manual_seed(0)
    estimator = PaperEstimator(config)
    generator = torch.Generator().manual_seed(1)
    for name in ("joints_mean", "wrist_rest", "wrist_shape"):
        getattr(estimator, name).normal_(std=0.1, generator=generator)
    return estimator


def _inputs(steps: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "lnes": torch.rand(2, steps, 2, 32, 32, generator=generator),
        "voxel": torch.randn(2, steps, 5, 32, 32, generator=generator),
    }


def test_sizes_of_the_paper():
    with torch.device("meta"):
        estimator = PaperEstimator(paper())
        images = {"lnes": torch.zeros(1, 1, 2, 128, 128), "voxel": torch.zeros(1, 1, 5, 128, 128)}
        parameters, macs = count(estimator, images)
        pose_parameters, pose_macs = count(estimator.pose, torch.zeros(1, 1, 4, 128, 128), None)
    print(f"paper: {parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMAC a window")
    print(f"pose network: {pose_parameters / 1e6:.2f} M parameters, {pose_macs / 1e9:.2f} GMAC a window")
    assert round(parameters / 1e6, 2) == 49.66
    assert round(macs / 1e9, 2) == 3.69
    assert round(pose_macs / 1e9, 2) == 0.40


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_one_window_a_call_equals_the_sequence(cell):
    estimator = _estimator(replace(TINY, pose=replace(TINY.pose, cell=cell))).eval()
    inputs = _inputs()
    with torch.no_grad():
        whole, last = estimator(inputs)
        state = estimator.initial_state(2)
        for t in range(4):
            step, state = estimator({key: value[:, t] for key, value in inputs.items()}, state)
            for part in ("orientation", "wrist", "joints", "shape"):
                torch.testing.assert_close(getattr(step.pose, part), getattr(whole.pose, part)[:, t])
            torch.testing.assert_close(step.flow, whole.flow[:, t])
    torch.testing.assert_close(state, last)


def test_without_hand_flow_the_voxel_grid_is_not_read():
    estimator = _estimator(replace(TINY, flow=None)).eval()
    prediction, _ = estimator({"lnes": _inputs()["lnes"]})
    assert prediction.flow is None
    assert torch.isfinite(prediction.pose.wrist).all()


@pytest.mark.parametrize(
    ("how", "drifts", "learns"),
    [
        ("trained", True, True),
        ("frozen", False, False),
        ("frozen_norms_drift", True, False),
    ],
)
def test_what_training_does_to_the_flow_net(how, drifts, learns):
    estimator = _estimator(replace(TINY, flow_training=how)).train()
    before = {name: value.clone() for name, value in estimator.flow.state_dict().items()}
    prediction, _ = estimator(_inputs())
    prediction.pose.joints.square().sum().backward()
    after = estimator.flow.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before) == drifts
    assert any(p.grad is not None for p in estimator.flow.parameters()) == learns
    for name, parameter in estimator.pose.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def _crop(scale: float, left: float, top: float) -> Camera:
    (fx, _, cx), (_, fy, cy), _ = CAMERA.K
    return Camera(np.array([[fx * scale, 0, cx - left], [0, fy * scale, cy - top], [0, 0, 1]]), (32, 32))


def test_virtual_camera_sees_the_translation_where_the_crop_does():
    """The pixel of MANO's translation in the virtual camera (K of the real one) is its pixel in the crop."""
    estimator, crop = _estimator(), _crop(0.8, 30.0, -12.0)
    rng = np.random.default_rng(0)
    pose = HandPose("right", rng.normal(size=3), rng.normal(size=3) + [0, 0, 3], np.zeros((15, 3)), rng.normal(size=10))
    offset = estimator.wrist_offset(torch.tensor(pose.shape, dtype=torch.float32)).numpy()
    real = estimator.to_camera(pose, crop, CAMERA)
    np.testing.assert_allclose(project(real.wrist - offset, crop.K), project(pose.wrist - offset, CAMERA.K), atol=1e-3)
    whole = estimator.to_camera(pose, CAMERA, CAMERA)
    np.testing.assert_allclose(whole.wrist, pose.wrist, atol=1e-6)


def test_left_hands_are_right_hands_in_the_mirror():
    estimator, crop, flip = _estimator(), _crop(0.8, 30.0, -12.0), np.array([-1.0, 1, 1])
    mirrored = replace(crop, K=crop.K.copy())
    mirrored.K[0, 2] = crop.size[0] - 1 - crop.K[0, 2]
    rng = np.random.default_rng(0)
    pose = HandPose("right", rng.normal(size=3), rng.normal(size=3), rng.normal(size=(15, 3)), rng.normal(size=10))
    right = estimator.to_camera(pose, mirrored, CAMERA)
    left = estimator.to_camera(replace(pose, side="left", wrist=pose.wrist * flip), crop, CAMERA)
    np.testing.assert_allclose(left.wrist * flip, right.wrist, atol=1e-5)
