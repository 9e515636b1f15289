from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from event_batches import SIZE, a_batch, to_torch
from evhands.events import representations, warp, warp_torch
from evhands.types import WindowBatch


def a_flow(windows: int, seed: int, scale: float = 4.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((windows, 2, SIZE[1], SIZE[0]))).astype(np.float32)


def test_no_flow_moves_nothing() -> None:
    batch = a_batch()
    image = warp.image_of_warped_events(batch, np.zeros((3, 2, SIZE[1], SIZE[0]), np.float32), 1.0)
    np.testing.assert_array_equal(image, representations.event_image(batch))


def test_events_follow_a_uniform_motion_back_to_one_edge() -> None:
    t = np.linspace(0, 1, 200, dtype=np.float32)
    x, y = 4 + 9.5 * t, np.tile(np.arange(2, 12, dtype=np.float32), 20)
    batch = WindowBatch(x, y, t, np.ones(200, bool), np.array([0, 200]), SIZE)
    flow = np.zeros((1, 2, SIZE[1], SIZE[0]), np.float32)
    flow[:, 0] = 9.5
    for t_ref, column in ((0.0, 4.0), (1.0, 13.5)):
        np.testing.assert_allclose(warp.warp_events(batch, flow, t_ref).x, column, atol=1e-5)
    sharp = warp.contrast(warp.image_of_warped_events(batch, flow, 0.0))
    assert sharp > 3 * warp.contrast(representations.event_image(batch))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]))
def test_torch_equals_numba(seed: int, t_ref: float) -> None:
    batch, flow = a_batch(seed=seed, margin=2.0), a_flow(3, seed)
    wanted = warp.image_of_warped_events(batch, flow, t_ref)
    got = warp_torch.image_of_warped_events(to_torch(batch), torch.from_numpy(flow), t_ref)
    np.testing.assert_allclose(got.numpy(), wanted, atol=2e-5)
    np.testing.assert_allclose(warp.contrast(got).numpy(), warp.contrast(wanted), rtol=1e-4)


def test_gradients_to_the_flow_are_finite_and_equal_the_numeric_ones() -> None:
    batch = to_torch(a_batch((25, 0, 40), margin=1.0))
    exact = WindowBatch(batch.x.double(), batch.y.double(), batch.t.double(), batch.p, batch.offsets, SIZE)
    flow = torch.from_numpy(a_flow(3, 1)).double().requires_grad_()

    def loss(flow: torch.Tensor) -> torch.Tensor:
        return sum((warp.contrast(warp_torch.image_of_warped_events(exact, flow, r))).sum() for r in (0.0, 1.0))

    (gradient,) = torch.autograd.grad(loss(flow), flow)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    rng = np.random.default_rng(3)
    direction = torch.from_numpy(rng.standard_normal(flow.shape))
    step = 1e-6
    numeric = (loss(flow + step * direction) - loss(flow - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-8)


def test_mass_stays_unless_an_event_leaves() -> None:
    batch = a_batch()
    for image in warp.image_of_warped_events(batch, a_flow(3, 2, 0.0), 1.0), representations.event_image(batch):
        np.testing.assert_allclose(image.sum((1, 2, 3)), np.diff(batch.offsets), atol=1e-3)
    moved = warp.image_of_warped_events(batch, a_flow(3, 2, 8.0), 1.0).sum((1, 2, 3))
    assert (moved <= np.diff(batch.offsets) + 1e-3).all() and moved[0] < 300


def test_contrast_of_nothing_is_zero_and_its_gradient_finite() -> None:
    flow = torch.zeros((2, 2, SIZE[1], SIZE[0]), requires_grad=True)
    image = warp_torch.image_of_warped_events(to_torch(a_batch((0, 0))), flow, 1.0)
    value = warp.contrast(image)
    assert value.shape == (2,) and not value.any()


def test_edge_slices() -> None:
    assert warp.edge_slices(1464) == (slice(1024, 1464), slice(0, 439))
    assert warp.edge_slices(215) == (slice(95, 215), slice(0, 120))
    assert warp.edge_slices(50) == (slice(0, 50), slice(0, 50))
    assert warp.edge_slices(0) == (slice(0, 0), slice(0, 0))


def test_thinning_keeps_a_subset_in_order() -> None:
    batch = a_batch((300, 0, 600))
    thin = warp.thin_windows(batch, 200, np.random.default_rng(0))
    assert list(thin.offsets) == [0, 200, 200, 400]
    positions = [int(np.flatnonzero(batch.t[300:] == t)[0]) for t in thin.t[200:]]
    assert positions == sorted(set(positions))
    same = warp.thin_windows(batch, 1000, np.random.default_rng(0))
    np.testing.assert_array_equal(same.x, batch.x)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=5), st.sampled_from([0.3, 0.5, 1.0]))
def test_slices_of_all_windows_are_those_of_each(counts: list[int], share: float) -> None:
    batch = to_torch(a_batch(tuple(counts)))
    for way, end in enumerate(("last", "first")):
        slices = [warp.edge_slices(n, share)[way] for n in counts]
        wanted = torch.cat([batch.t[first:][s] for first, s in zip(batch.offsets, slices)])
        found = warp_torch.edge_events(batch, end, share)
        torch.testing.assert_close(found.t, wanted, rtol=0, atol=0)
        assert found.offsets.tolist() == np.cumsum([0] + [s.stop - s.start for s in slices]).tolist()


def test_published_slices_of_sparse_windows_are_empty_or_reach_into_the_padding(shared_path) -> None:
    stored = np.load(shared_path("fixtures/supervision/small_cases.npz"))
    counts = stored["slice_in"].ravel().clip(max=10_000)
    batch = to_torch(a_batch(tuple(counts)))
    for share in (1.0, 0.3, 0.5):
        wanted = stored[f"slice_{share}"].reshape(-1, 4)
        # Python's slices in an array of 10 000 slots: a negative start counts from its end.
        lengths = (
            [len(range(10_000)[a:b]) for a, b in wanted[:, :2]],
            [len(range(10_000)[a:b]) for a, b in wanted[:, 2:]],
        )
        for end, length in zip(("last", "first"), lengths):
            found = warp_torch.edge_events(batch, end, share, padded=True)
            assert torch.diff(found.offsets).tolist() == length
        for i, n in enumerate(counts):  # `found` holds the first slices here
            part = slice(int(found.offsets[i]), int(found.offsets[i + 1]))
            own = min(n, length[i])
            assert torch.equal(found.t[part][:own], batch.t[int(batch.offsets[i]) :][:own])
            empty = torch.stack([found.x, found.y, found.t, found.p.float()])[:, part][:, own:]
            assert empty.shape[1] == max(120 - n, 0)
            assert not empty.any()


def test_thinning_as_tensors_keeps_a_subset_in_order() -> None:
    batch = to_torch(a_batch((300, 0, 600, 90)))
    thin = warp_torch.thin_windows(batch, 200, torch.Generator().manual_seed(1))
    assert thin.offsets.tolist() == [0, 200, 200, 400, 490]
    for i in range(4):
        mine, all_ = (b.t[b.offsets[i] : b.offsets[i + 1]].tolist() for b in (thin, batch))
        positions = [all_.index(t) for t in mine]
        assert positions == sorted(set(positions))
    assert warp_torch.thin_windows(batch, 600).t is batch.t


def test_published_images_of_warped_events_are_reproduced(shared_path) -> None:
    inputs = np.load(shared_path("fixtures/supervision/inputs.npz"))
    stored = np.load(shared_path("fixtures/supervision/iwe.npz"))
    flow = np.load(shared_path("fixtures/supervision/forward_flow.npz"))["flow_fw"].reshape(4, 260, 346, 2)
    events, counts = inputs["events_last2"].reshape(4, -1, 4), inputs["Num_events"][:, 1:].reshape(4)
    for share, kind in ((1.0, "cm"), (0.3, "edge")):
        for way, (name, t_ref) in enumerate((("fw", 1.0), ("bw", 0.0))):
            slices = [warp.edge_slices(int(n), share)[way] for n in counts]
            wanted = stored["event_indices_" + kind].reshape(4, 2, 2)[:, way]
            np.testing.assert_array_equal([(s.start, s.stop) for s in slices], wanted)
            parts = [rows[s] for rows, s in zip(events, slices)]
            rows, offsets = np.concatenate(parts), np.cumsum([0] + [len(part) for part in parts])
            batch = WindowBatch(rows[:, 0], rows[:, 1], rows[:, 3], rows[:, 2] > 0, offsets, (346, 260))
            image = warp.image_of_warped_events(batch, flow.transpose(0, 3, 1, 2), t_ref)
            np.testing.assert_allclose(image.transpose(0, 2, 3, 1), stored[f"iwe_{name}_{kind}"], atol=1e-4)
            if kind == "cm":
                np.testing.assert_allclose(warp.contrast(image).mean(), stored["cm_" + name], rtol=1e-5)
