"""Laws of hand flow, and the published one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from evhands.geometry import project
from evhands.hand.raster import rasterize_batch
from evhands.hand.raster_torch import rasterize_torch
from evhands.hand_flow import HandFlowConfig, average_speed, crop_flow, hand_flow, poses_between
from evhands.losses import flow_loss
from moving_hands import END, HAND, SIZE, START, K, mano, moved, published_pose, supervision


def both(config: HandFlowConfig = HandFlowConfig()):
    return hand_flow(HAND, START, END, K, SIZE, config)


@given(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03), st.floats(-0.03, 0.03))
@settings(max_examples=8)
def test_a_rigid_translation_flows_as_its_projection(x: float, y: float, z: float) -> None:
    start, shift = poses_between(HAND, START, START, HandFlowConfig()).mesh().vertices[0, 0], torch.tensor([x, y, z])
    speeds = hand_flow(HAND, START, moved(START, shift), K, SIZE).speeds[0, 0]
    torch.testing.assert_close(speeds, project(start + shift, K) - project(start, K), rtol=0, atol=1e-3)
    # Along the image every seen point moves by f shift / z, averaged over the meshes that cover the pixel.
    found = hand_flow(HAND, START, moved(START, shift * torch.tensor([1.0, 1, 0])), K, SIZE)
    inverse = 1 / found.raster.depth[:, 0]  # 0 where a mesh is not seen
    mean = inverse.sum(0) / (inverse > 0).sum(0).clamp(min=1)
    torch.testing.assert_close(found.flow[0], 290 * shift[:2, None, None] * mean, rtol=2e-3, atol=2e-3)


def test_a_translation_of_a_flat_scene_is_exact() -> None:
    """All vertices in one plane before the camera: every pixel flows by f shift / z."""
    flat = replace(
        HAND,
        vertices=HAND.vertices * torch.tensor([1.0, 0, 1]),
        shape_directions=torch.zeros_like(HAND.shape_directions),
    )
    flat = replace(
        flat,
        pose_directions=None,
        skin_weights=F.one_hot(torch.zeros(len(HAND.vertices), dtype=torch.long), 16).float(),
    )
    facing = replace(START, orientation=torch.tensor([[math.pi / 2, 0, 0]]))
    shift = torch.tensor([0.012, -0.007, 0.0])
    found = hand_flow(flat, facing, moved(facing, shift), K, SIZE)
    depth = found.vertices[..., 2]
    torch.testing.assert_close(depth, depth[0, 0, 0].expand_as(depth), rtol=0, atol=1e-6)
    wanted = 290 * shift[:2] / depth[0, 0, 0]
    seen = found.flow[0].flatten(1).T[found.covered.flatten()]
    assert len(seen) > 2000
    torch.testing.assert_close(seen, wanted.expand_as(seen), rtol=0, atol=1e-3)


def test_a_still_hand_does_not_flow() -> None:
    found = hand_flow(HAND, START, START, K, SIZE)
    assert found.covered.any()
    assert found.flow.abs().max() < 1e-3


def test_a_batch_is_its_pairs_one_by_one_whatever_the_threads() -> None:
    def pair(a, b):
        return replace(
            a, **{n: torch.cat([getattr(a, n), getattr(b, n)]) for n in ("orientation", "wrist", "joints", "shape")}
        )

    alone = [both(), hand_flow(HAND, END, START, K * 1, SIZE)]
    for threads in (1, 3):
        found = hand_flow(HAND, pair(START, END), pair(END, START), K, SIZE, HandFlowConfig(threads=threads))
        torch.testing.assert_close(found.flow, torch.cat([a.flow for a in alone]), rtol=0, atol=1e-4)


def test_the_rasteriser_of_gpus_gives_the_same_flow() -> None:
    found = both()
    points = torch.cat([found.points, found.vertices[..., 2:]], -1)
    flow, covered = average_speed(found.speeds, HAND.faces, rasterize_torch(points, HAND.faces, SIZE))
    assert torch.equal(covered, found.covered)
    torch.testing.assert_close(flow, found.flow, rtol=0, atol=1e-3)


def test_gradients_are_those_of_the_speeds_with_the_raster_held() -> None:
    names = ("orientation", "wrist", "joints", "shape")
    hand = HAND.to(dtype=torch.float64)
    start, end = (replace(pose, **{n: getattr(pose, n).double() for n in names}) for pose in (START, END))
    parameters = [getattr(pose, n).clone() for pose in (start, end) for n in names]

    def at(*values: torch.Tensor):
        poses = (replace(start, **dict(zip(names, part))) for part in (values[:4], values[4:]))
        return hand_flow(hand, *poses, K.double(), SIZE)

    rng = np.random.default_rng(0)
    directions = [0.1 * torch.from_numpy(rng.standard_normal(p.shape)) for p in parameters]
    leaves = [p.requires_grad_() for p in parameters]
    found = at(*leaves)
    weights = torch.from_numpy(rng.standard_normal(found.flow.shape))
    gradients = torch.autograd.grad((found.flow * weights).sum(), leaves)
    analytic = sum((g * d).sum() for g, d in zip(gradients, directions))

    step = 1e-6
    plus, minus = (at(*(p.detach() + s * step * d for p, d in zip(leaves, directions))) for s in (1, -1))
    slope = (plus.speeds - minus.speeds) / (2 * step)
    held, _ = average_speed(slope, hand.faces, found.raster)
    torch.testing.assert_close(analytic, (held * weights).sum(), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=12)
def test_gradients_are_finite_for_any_hand_in_front_of_behind_and_in_the_camera(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    parts = [torch.randn(3, *shape, generator=rng) for shape in ((3,), (3,), (15, 3), (10,))] * 2
    parts[1] = parts[1] * torch.tensor([0.1, 0.1, 0.3])
    parts[0][0], parts[2][0] = 0, 0  # exactly no rotation
    parts = [p.requires_grad_() for p in parts]
    start, end = (replace(START, orientation=o, wrist=w, joints=j, shape=s) for o, w, j, s in (parts[:4], parts[4:]))
    flow = hand_flow(HAND, start, end, K, SIZE).flow
    assert torch.isfinite(flow).all()
    for gradient in torch.autograd.grad(flow.square().mean(), parts[:4]):
        assert torch.isfinite(gradient).all()


def test_mean_pose_matters_to_slerp_only_between() -> None:
    with_mean, without = (
        poses_between(HAND, START, END, HandFlowConfig(slerp_without_mean=w)).mesh().vertices for w in (False, True)
    )
    for end in (0, -1):
        torch.testing.assert_close(with_mean[end], without[end], rtol=0, atol=1e-6)


# --- flow in a crop -------------------------------------------------------------------------------------------------


def a_crop(scale: float, left: float, top: float) -> torch.Tensor:
    crop = K.clone()
    crop[0, 0], crop[1, 1] = K[0, 0] * scale, K[1, 1] * scale
    crop[0, 2], crop[1, 2] = K[0, 2] - left, K[1, 2] - top
    return crop[None]


def test_crop_flow_of_a_linear_field_is_the_field_at_the_place_of_the_pixel() -> None:
    y, x = torch.meshgrid(torch.arange(260.0), torch.arange(346.0), indexing="ij")
    field = torch.stack([0.3 * x - 0.1 * y, 0.2 * y + 1])[None]
    crop = a_crop(1.3, 40.0, 20.0)
    v, u = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    x, y = (u - crop[0, 0, 2]) / 1.3 + 172, (v - crop[0, 1, 2]) / 1.3 + 130
    wanted = 1.3 * torch.stack([0.3 * x - 0.1 * y, 0.2 * y + 1])
    torch.testing.assert_close(crop_flow(field, K, crop, 128)[0], wanted, rtol=0, atol=2e-3)


def test_a_crop_of_the_flow_is_the_flow_of_the_crop() -> None:
    """Hand flow of the crop's own camera, but for silhouettes, which a bilinear reading softens."""
    crop = a_crop(0.8, 90.0, 60.0)
    read = crop_flow(both().flow, K, crop, 128)
    drawn = hand_flow(HAND, START, END, crop, (128, 128))
    inner = -F.max_pool2d(-drawn.covered[:, None].float(), 5, 1, 2)[:, 0] > 0
    difference = (read - drawn.flow).abs().amax(1)[inner]
    assert inner.sum() > 300
    assert difference.median() < 0.05


def test_outside_the_image_there_is_no_flow() -> None:
    assert crop_flow(torch.ones(1, 2, 260, 346), K, a_crop(1.0, 400.0, 0.0), 128).abs().max() == 0
    assert crop_flow(torch.ones(1, 2, 260, 346), K, a_crop(1.0, 0.0, -200.0), 128, published=True).abs().max() == 0


# --- published values -----------------------------------------------------------------------------------------------

PUBLISHED = HandFlowConfig.published(SIZE)


@pytest.fixture(scope="module")
def published_flow():
    source = supervision("losses")
    start, end = (published_pose(source, "manos/", s) for s in (slice(0, 2), slice(1, 3)))
    K = torch.from_numpy(supervision("inputs")["annot/K"][:, 1:])
    return hand_flow(mano(), start, end, K, SIZE, PUBLISHED)


def test_published_meshes_and_speeds(published_flow) -> None:
    wanted = supervision("forward_flow")
    np.testing.assert_allclose(published_flow.vertices, wanted["vertices_inter"], rtol=0, atol=1e-6)
    # Every seventh vertex is stored.
    np.testing.assert_allclose(published_flow.speeds[..., ::7, :], wanted["flow_speed_fw"], rtol=0, atol=5e-4)


def test_published_faces_and_flow(published_flow) -> None:
    wanted = supervision("forward_flow")
    face = published_flow.raster.face.numpy()
    np.testing.assert_array_equal(face >= 0, wanted["face_local"] >= 0)
    assert (face == wanted["face_local"])[face >= 0].mean() > 0.999
    covered = wanted["mask"][..., 0]
    np.testing.assert_array_equal(published_flow.covered, covered)
    difference = np.abs(published_flow.flow.movedim(2, -1).numpy() - wanted["flow_fw"]).max(-1)
    assert (difference[covered] < 1e-3).mean() >= 0.999
    assert difference[~covered].max() == 0


def test_published_flow_targets() -> None:
    flow = torch.from_numpy(supervision("forward_flow")["flow_fw"]).movedim(-1, 2)
    inputs, small = supervision("inputs"), supervision("small_cases")
    K = torch.from_numpy(inputs["annot/K"][:, 1:])
    predicted = torch.from_numpy(inputs["flow_pred"]).float().unflatten(-1, (4, 2)).permute(0, 1, 4, 5, 2, 3)
    for boxes, wanted, loss in (
        (inputs["bbox"], supervision("losses")["pseudo_flow"], supervision("losses")["flow_loss"]),
        (small["flowloss_bbox"], small["flowloss_pseudo"], small["flowloss_val"]),
    ):
        box = torch.from_numpy(boxes[:, 1:])
        crop = K.clone()
        crop[..., :2, :2] *= box[..., :1, None]
        crop[..., :2, 2] -= box[..., 1:]
        used = box[..., 0] > 0.3
        found = torch.where(used[..., None, None, None], crop_flow(flow, K, crop, 128, published=True), 0)
        np.testing.assert_allclose(found.movedim(2, -1), wanted, rtol=0, atol=1e-4)
        values = torch.where(used, flow_loss(predicted, found / 16), 0)
        np.testing.assert_allclose(values.mean(), loss, rtol=1e-5)


def test_size_of_the_published_fault_without_crops() -> None:
    """O37: without a crop the published target is 8 x flow in pixels, summed over the image: we do not keep that."""
    flow = torch.from_numpy(supervision("forward_flow")["flow_fw"])
    np.testing.assert_allclose(
        (8 * flow).square().sum((2, 3)).mean(), supervision("small_cases")["flowloss_fullframe_zero_pred"], rtol=1e-5
    )


def test_published_weights_on_steep_faces() -> None:
    """Beyond the horizon of a steep face the perspective sum is negative: its clipped weights must not turn round."""
    wanted = supervision("forward_flow")
    vertices = torch.from_numpy(wanted["vertices_inter"])[1, 0, 1].double()
    K = torch.from_numpy(supervision("inputs")["annot/K"][0, 0]).double()
    points = torch.cat([project(vertices, K), vertices[:, 2:]], -1)[None]
    found = rasterize_batch(points.numpy(), mano().faces.numpy(), SIZE, pixel_offset=0.5, blur_px=PUBLISHED.blur_px)
    same = (found.face[0] == wanted["face_local"][1, 0, 1]) & (found.face[0] >= 0)
    assert same.sum() >= 0.9999 * (found.face[0] >= 0).sum()
    difference = np.abs(found.barycentrics[0] - wanted["bary_img5"]).max(-1)[same]
    assert difference.max() < 2e-4
    np.testing.assert_allclose(found.depth[0][same], wanted["zbuf_img5"][same], rtol=0, atol=1e-5)
