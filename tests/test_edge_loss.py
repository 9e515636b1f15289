"""Laws of the edge loss and of contrast over hand flow, and the published values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands import losses
from evhands.edge_loss import EdgeConfig, EdgeSums, edge_loss, edge_sums, vertex_normals, vertex_weights
from evhands.events.warp_torch import edge_events, image_of_warped_events
from evhands.hand_flow import HandFlowConfig, hand_flow
from evhands.types import WindowBatch
from moving_hands import (
    END,
    HAND,
    SIZE,
    START,
    K,
    mano,
    moved,
    outline_events,
    published_events,
    published_pose,
    supervision,
    surface_events,
)

DISPLACED = [(0.005, 0.0, 0.0), (-0.003, 0.004, 0.0), (0.0, -0.005, 0.0)]
NAMES = ("orientation", "wrist", "joints", "shape")
ENDS = (("last", 1.0), ("first", 0.0))


def contrast_of(events: WindowBatch, by: torch.Tensor) -> torch.Tensor:
    """Contrast where the pose at the end is displaced: the flow is wrong."""
    flow = hand_flow(HAND, START, moved(END, by), K, SIZE).flow
    return sum(losses.contrast(image_of_warped_events(events, flow, t_ref)).sum() for _, t_ref in ENDS)


def edge_of(events: WindowBatch, by: torch.Tensor, config: EdgeConfig = EdgeConfig()) -> torch.Tensor:
    """Edge loss where both poses are displaced: the flow is right, the place is wrong."""
    flow = hand_flow(HAND, moved(START, by), moved(END, by), K, SIZE)
    sums = []
    for end, t_ref in ENDS:
        image = image_of_warped_events(edge_events(events, end), flow.flow.detach(), t_ref)
        found = edge_sums(image, flow, HAND.faces, K, end, config)
        sums.append(EdgeSums(found.weighted_px[:, None], found.weights[:, None]))
    return edge_loss(*sums, torch.ones(1, 2, dtype=torch.bool))[0].sum()


def followed(value, by: tuple[float, float, float], sign: float, steps: int = 20) -> torch.Tensor:
    """Where small steps of 0.3 mm along the gradient lead."""
    place = torch.tensor([by])
    for _ in range(steps):
        place.requires_grad_()
        (gradient,) = torch.autograd.grad(value(place), place)
        assert torch.isfinite(gradient).all()
        place = (place + sign * 0.0003 * gradient / gradient.norm()).detach()
    return place


def test_contrast_of_a_moving_surface_is_greatest_at_the_true_flow() -> None:
    events = surface_events(START, END)
    best = contrast_of(events, torch.zeros(1, 3))
    for axis in (0, 1):
        for size in (-0.01, -0.005, -0.002, 0.002, 0.005, 0.01):
            assert contrast_of(events, size * torch.eye(3)[axis][None]) < best


@pytest.mark.parametrize("by", DISPLACED)
def test_contrast_brings_a_hand_back_that_is_5_mm_off(by: tuple[float, float, float]) -> None:
    events = surface_events(START, END)
    assert followed(lambda place: contrast_of(events, place), by, 1.0)[:, :2].norm() < 0.0015


@pytest.mark.parametrize("by", DISPLACED)
def test_edges_bring_a_hand_back_that_is_5_mm_off(by: tuple[float, float, float]) -> None:
    events = outline_events(START, END)
    assert followed(lambda place: edge_of(events, place), by, -1.0)[:, :2].norm() < 0.0015


def test_the_search_equals_a_plain_one() -> None:
    flow = hand_flow(HAND, START, END, K, SIZE)
    image = image_of_warped_events(edge_events(outline_events(START, END), "last"), flow.flow, 1.0)
    config = EdgeConfig(reach=(-2, 3))
    found = edge_sums(image, flow, HAND.faces, K, "last", config)
    weights = vertex_weights(flow, HAND.faces, K, -1, SIZE, config)[0]
    face, barycentrics = flow.raster.face[-1, 0], flow.raster.barycentrics[-1, 0]
    total = np.zeros(2)
    for polarity in image[0]:
        for y, x in (polarity > torch.quantile(polarity, 0.999)).nonzero().tolist():
            best = (0.0, 0.0, 0.0)
            for v in range(max(y - 2, 0), min(y + 4, SIZE[1])):
                for u in range(max(x - 2, 0), min(x + 4, SIZE[0])):
                    if face[v, u] < 0:
                        continue
                    corners = HAND.faces[face[v, u]]
                    w = float(weights[corners] @ barycentrics[v, u])
                    place = barycentrics[v, u] @ flow.points[-1, 0, corners]
                    d = float((place[0] - x) ** 2 + (place[1] - y) ** 2 + 4) ** 0.5
                    best = max(best, (w / d, w, d))
            total += np.array([best[1] * best[2], best[1]])
    assert total[1] > 100
    np.testing.assert_allclose([found.weighted_px[0], found.weights[0]], total, rtol=1e-5)


def test_a_surface_seen_edge_on_weighs_more_and_one_outside_the_image_nothing() -> None:
    flow = hand_flow(HAND, START, START, K, SIZE)
    weights = vertex_weights(flow, HAND.faces, K, -1, SIZE, EdgeConfig())
    ray = torch.nn.functional.normalize(flow.vertices[-1], dim=-1)
    steep = (vertex_normals(flow.vertices[-1], HAND.faces) * ray).sum(-1).abs()
    assert weights[steep < 0.2].min() > 4 * weights[steep > 0.99].max() / 1.5
    outside = vertex_weights(
        hand_flow(HAND, *[moved(START, torch.tensor([1.0, 0, 0]))] * 2, K, SIZE), HAND.faces, K, -1, SIZE, EdgeConfig()
    )
    assert (outside == 0).all()


def test_normals_point_out_of_a_hand() -> None:
    vertices = HAND.vertices
    normals = vertex_normals(vertices, HAND.faces)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(vertices)), rtol=0, atol=1e-4)

    def volume(v: torch.Tensor) -> torch.Tensor:
        corners = v[HAND.faces]
        return (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6

    # The volume under the surface moved along its normals grows.
    assert volume(vertices + 0.001 * normals) > volume(vertices) > 0


def test_labelled_poses_and_empty_windows_take_no_part() -> None:
    sums = EdgeSums(torch.tensor([[6.0, 20.0], [0, 0]]), torch.tensor([[2.0, 4.0], [0, 0]]))
    nothing = EdgeSums(torch.zeros(2, 2), torch.zeros(2, 2))
    for free, wanted in (([1, 1, 1], 26 / 6), ([1, 1, 0], 6 / 2), ([0, 0, 1], 20 / 4), ([1, 0, 0], 0.0)):
        values, found = edge_loss(sums, nothing, torch.tensor([free] * 2, dtype=torch.bool))
        torch.testing.assert_close(values, torch.tensor([wanted, 0.0]))
        assert found.tolist() == [wanted > 0, False]


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_gradients_are_finite_for_any_hand_and_any_events(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    count = int(torch.randint(0, 400, (1,), generator=rng))
    x, y, t = (torch.rand(count, generator=rng) * s for s in (345.0, 259.0, 1.0))
    events = WindowBatch(x, y, t, t < 0.5, torch.tensor([0, count]), SIZE)
    place = (torch.randn(1, 3, generator=rng) * torch.tensor([0.1, 0.1, 0.4])).requires_grad_()
    turn = torch.randn(1, 3, generator=rng).requires_grad_()
    start = replace(START, wrist=place, orientation=turn)
    flow = hand_flow(HAND, start, moved(END, place), K, SIZE)
    value = flow.flow.sum() * 0
    for end, t_ref in ENDS:
        image = image_of_warped_events(edge_events(events, end), flow.flow, t_ref)
        sums = edge_sums(image, flow, HAND.faces, K, end, EdgeConfig(weights_with_gradient=True))
        value = value + losses.contrast(image).sum() + (sums.weighted_px / sums.weights.clamp(min=1)).sum()
    for gradient in torch.autograd.grad(value, (place, turn)):
        assert torch.isfinite(gradient).all()


# --- published values -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """Hand flow, and K of the windows."""
    K = torch.from_numpy(supervision("inputs")["annot/K"][:, 1:])
    start, end = (published_pose(supervision("losses"), "manos/", s) for s in (slice(0, 2), slice(1, 3)))
    return hand_flow(mano(), start, end, K, SIZE, HandFlowConfig.published(SIZE)), K


@pytest.mark.parametrize(("end", "name"), [("last", "fw"), ("first", "bw")])
def test_published_weights_of_vertices(published, end: str, name: str) -> None:
    flow, K = published
    wanted, at = supervision("edge"), -1 if end == "last" else 0
    found = vertex_weights(flow, mano().faces, K, at, SIZE, EdgeConfig.published()).flatten(0, 1)
    np.testing.assert_allclose(found, wanted[f"weights_verts_{name}"], rtol=1e-4, atol=5e-4)
    np.testing.assert_array_equal(found > 0, wanted[f"mask_boundary_{name}"])


@pytest.mark.parametrize(("end", "name"), [("last", "fw"), ("first", "bw")])
def test_published_edge_loss(published, end: str, name: str) -> None:
    flow, K = published
    wanted = supervision("edge")
    image = torch.from_numpy(supervision("iwe")[f"iwe_{name}_edge"]).movedim(-1, 1).unflatten(0, (2, 2))
    sums = edge_sums(image, flow, mano().faces, K, end, EdgeConfig.published())
    # Window by window, as the parts are stored.
    for found, part in ((sums.weighted_px, "loss_event"), (sums.weights, "mesh_weight")):
        np.testing.assert_allclose(found.flatten(), wanted[f"{part}_{name}"].sum((1, 2)), rtol=1e-4)
    zeros = EdgeSums(torch.zeros(2, 2), torch.zeros(2, 2))
    pair = (sums, zeros) if end == "last" else (zeros, sums)
    value, _ = edge_loss(*pair, torch.ones(2, 3, dtype=torch.bool), EdgeConfig.published())
    np.testing.assert_allclose(value, wanted[f"loss_{name}"], rtol=1e-5)


def test_published_images_and_contrast_from_poses(published) -> None:
    flow, _ = published
    for share, kind in ((1.0, "cm"), (0.3, "edge")):
        for (end, t_ref), name in zip(ENDS, ("fw", "bw")):
            part = edge_events(published_events(), end, share, padded=True)
            given = torch.from_numpy(supervision("forward_flow")["flow_fw"]).movedim(-1, 2).flatten(0, 1)
            image = image_of_warped_events(part, given, t_ref)
            np.testing.assert_allclose(
                image.movedim(1, -1), supervision("iwe")[f"iwe_{name}_{kind}"], rtol=0, atol=1e-4
            )
            if kind == "cm":
                contrast = losses.contrast(image_of_warped_events(part, flow.flow.flatten(0, 1), t_ref)).mean()
                np.testing.assert_allclose(contrast, supervision("iwe")[f"cm_{name}"], rtol=1e-5)


def test_published_normals() -> None:
    found = vertex_normals(mano().vertices, mano().faces)
    np.testing.assert_allclose(found, supervision("small_cases")["normals_p3d"], rtol=0, atol=1e-6)


def test_unused_slots_pull_towards_the_corner_only_as_published() -> None:
    """O32: an image with fewer bright pixels than another in the batch gets pixel (0, 0) for those that it lacks."""
    corner = moved(START, torch.tensor([[-0.33, -0.25, 0]]))
    two = replace(corner, **{n: torch.cat([getattr(corner, n)] * 2) for n in NAMES})
    flow = hand_flow(HAND, two, two, K, SIZE)
    assert flow.covered[:, :6, :6].any()
    image = torch.zeros(2, 2, 260, 346)
    image[0, 0, 200, 200:210] = 1
    ours, theirs = (edge_sums(image, flow, HAND.faces, K, "last", EdgeConfig(corner_slots=c)) for c in (False, True))
    assert ours.weights.abs().max() == 0
    assert theirs.weights[0] == 0
    assert theirs.weights[1] > 0


def test_published_border_takes_points_times_depth_for_pixels() -> None:
    """O31: a hand 1.5 m away passes for outside the image, though it is inside."""
    far = replace(START, wrist=torch.tensor([[0.65, 0.0, 1.5]]))
    flow = hand_flow(HAND, far, far, K, SIZE)
    ours, theirs = (
        (vertex_weights(flow, HAND.faces, K, -1, SIZE, EdgeConfig(homogeneous_border=h)) > 0).float().mean()
        for h in (False, True)
    )
    assert (ours, theirs) == (1.0, 0.0)
