from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from event_batches import SIZE, a_batch, permuted, to_torch
from evhands.events import representations, representations_torch
from evhands.geometry import pixels_inside
from evhands.types import WindowBatch


def naive_taps(x: float, y: float) -> list[tuple[int, int, float]]:
    left, top = int(np.floor(x)), int(np.floor(y))
    taps = [(left + i, top + j, (1 - abs(x - left - i)) * (1 - abs(y - top - j))) for i in (0, 1) for j in (0, 1)]
    return [(u, v, w) for u, v, w in taps if w > 0 and 0 <= u < SIZE[0] and 0 <= v < SIZE[1]]


def naive(batch: WindowBatch, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lnes, image = np.zeros((2, len(batch), 2, SIZE[1], SIZE[0]))
    voxels = np.zeros((len(batch), bins, SIZE[1], SIZE[0]))
    for w in range(len(batch)):
        for i in range(batch.offsets[w], batch.offsets[w + 1]):
            c, s = (0, 1) if batch.p[i] else (1, -1)
            for u, v, weight in naive_taps(float(batch.x[i]), float(batch.y[i])):
                lnes[w, c, v, u] = max(lnes[w, c, v, u], batch.t[i])
                image[w, c, v, u] += weight
                for b in range(bins):
                    voxels[w, b, v, u] += s * weight * max(0, 1 - abs(batch.t[i] * (bins - 1) - b))
    return lnes, voxels, image


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 2.5]), st.integers(1, 6), st.booleans())
def test_kernels_equal_the_naive_sums(seed: int, margin: float, bins: int, whole: bool) -> None:
    batch = a_batch((40, 0, 70), seed, margin, whole)
    lnes, voxels, image = naive(batch, bins)
    np.testing.assert_array_equal(representations.lnes(batch), lnes.astype(np.float32))
    np.testing.assert_allclose(representations.voxel_grid(batch, bins), voxels, atol=1e-5)
    np.testing.assert_allclose(representations.event_image(batch), image, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_order_of_events_does_not_matter(seed: int, bilinear: bool) -> None:
    batch = a_batch(seed=seed, margin=1.0)
    other = permuted(batch, seed)
    np.testing.assert_array_equal(
        representations.lnes(batch, bilinear=bilinear), representations.lnes(other, bilinear=bilinear)
    )
    for image in (representations.voxel_grid, representations.event_image):
        np.testing.assert_allclose(image(batch, bilinear=bilinear), image(other, bilinear=bilinear), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.booleans())
def test_mass_is_conserved_inside(seed: int, bins: int, bilinear: bool) -> None:
    batch = a_batch(seed=seed)
    on = np.array([batch.p[a:b].sum() for a, b in zip(batch.offsets, batch.offsets[1:])])
    count = np.diff(batch.offsets)
    image = representations.event_image(batch, bilinear=bilinear)
    np.testing.assert_allclose(image.sum((2, 3), dtype=np.float64), np.stack([on, count - on], 1), atol=1e-3)
    voxels = representations.voxel_grid(batch, bins, bilinear=bilinear)
    np.testing.assert_allclose(voxels.sum((1, 2, 3), dtype=np.float64), 2 * on - count, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 6), st.booleans())
def test_torch_equals_numba(seed: int, bilinear: bool, bins: int, whole: bool) -> None:
    batch = a_batch(seed=seed, margin=2.0, whole=whole)
    tensors = to_torch(batch)
    got = representations_torch.lnes(tensors, bilinear=bilinear).numpy()
    np.testing.assert_array_equal(got, representations.lnes(batch, bilinear=bilinear))
    got = representations_torch.voxel_grid(tensors, bins, bilinear=bilinear).numpy()
    np.testing.assert_allclose(got, representations.voxel_grid(batch, bins, bilinear=bilinear), atol=1e-5)
    got = representations_torch.event_image(tensors, bilinear=bilinear).numpy()
    np.testing.assert_allclose(got, representations.event_image(batch, bilinear=bilinear), atol=1e-5)


def test_nothing_outside_is_written_and_nan_acts_on_nothing() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -1.0001, 23.0, 5, 5, 5, 22.999998], np.float32)
    other = np.array([5, 5, 5, 5, 5, 5, 5, np.nan, 17.0, -1.5, 16.999998], np.float32)
    n = len(wild)
    batch = WindowBatch(wild, other, np.full(n, 0.5, np.float32), np.ones(n, bool), np.array([0, n]), SIZE)
    for module, values in ((representations, batch), (representations_torch, to_torch(batch))):
        for function in (module.lnes, module.voxel_grid, module.event_image):
            image = np.asarray(function(values))
            assert np.isfinite(image).all()
            assert not image[..., :-1, :].any() and not image[..., :-1].any()
        assert np.asarray(module.lnes(values))[0, 0, -1, -1] == 0.5


def test_no_windows_and_empty_windows() -> None:
    none = a_batch(())
    empty = a_batch((0, 0))
    for module, convert in ((representations, lambda b: b), (representations_torch, to_torch)):
        assert module.lnes(convert(none)).shape == (0, 2, 17, 23)
        assert module.voxel_grid(convert(empty)).shape == (2, 5, 17, 23)
        assert not np.asarray(module.event_image(convert(empty))).any()
        with pytest.raises(ValueError, match="bins"):
            module.voxel_grid(convert(none), 0)


def test_threads_at_once_give_what_one_gives() -> None:
    batches = [a_batch((2000, 1000), seed) for seed in range(8)]
    one = [representations.voxel_grid(b) for b in batches]
    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(representations.voxel_grid, batches))
        two_lnes = list(pool.map(representations.lnes, batches))
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a, b)
    for batch, image in zip(batches, two_lnes):
        np.testing.assert_array_equal(representations.lnes(batch), image)


def test_the_number_of_threads_does_not_matter() -> None:
    code = (
        "import sys, hashlib, numpy as np; sys.path.insert(0, sys.argv[1])\n"
        "from event_batches import a_batch; from evhands.events import representations as r\n"
        "b = a_batch((3000,)); print(hashlib.md5(r.lnes(b).tobytes() + r.voxel_grid(b).tobytes()).hexdigest())"
    )
    batch = a_batch((3000,))
    wanted = hashlib.md5(representations.lnes(batch).tobytes() + representations.voxel_grid(batch).tobytes())
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-c", code, str(Path(__file__).parents[1])]
    printed = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == wanted.hexdigest()


def test_torch_threads_do_not_race() -> None:
    batch = a_batch((20_000,))
    torch.set_num_threads(2)  # set back after each test by conftest.py
    np.testing.assert_array_equal(representations_torch.lnes(to_torch(batch)).numpy(), representations.lnes(batch))


def test_gradients_of_the_bilinear_sums_are_finite_and_right() -> None:
    batch = to_torch(a_batch((30, 20), margin=1.5))
    x, y = batch.x.double().requires_grad_(), batch.y.double().requires_grad_()
    t = (0.1 + 0.8 * batch.t.double()).requires_grad_()

    def images(x: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        moved = WindowBatch(x, y, t, batch.p, batch.offsets, SIZE)
        grid, image = representations_torch.voxel_grid(moved), representations_torch.event_image(moved)
        return (grid**2).sum() + (image**3).sum()

    assert torch.autograd.gradcheck(images, (x, y, t), eps=1e-7, atol=1e-4)


def published_batch(stored: np.lib.npyio.NpzFile, name: str) -> WindowBatch:
    rows = stored[name + "/events"]
    size = name.split("_")[-1]
    height, width = map(int, size.split("x")) if "x" in size else (128, 128)
    columns = (np.ascontiguousarray(rows[:, k]) for k in (0, 1, 3))
    return WindowBatch(*columns, rows[:, 2] > 0, np.array([0, len(rows)]), (width, height))


def test_published_representations_are_reproduced(shared_path) -> None:
    stored = np.load(shared_path("fixtures/representations/repr.npz"))
    checked = 0
    for key in stored:
        name, kind, *rest = key.split("/")
        # Not interpolated, negative coordinates wrap to the far side there (O5); ours are dropped.
        if kind == "events" or kind == "channels_is_neg" or (name, rest) == ("wrap_128", ["interp0"]):
            continue
        batch, bilinear = published_batch(stored, name), rest == ["interp1"]
        if kind == "lnes":
            image = representations.lnes(batch, bilinear=bilinear, last_in_order=not bilinear)
        elif kind == "channels":
            image = representations.event_image(batch, bilinear=bilinear)
        else:
            image = representations.voxel_grid(batch, int(kind.removeprefix("voxel")), bilinear=bilinear)
        np.testing.assert_allclose(image[0], stored[key], atol=1e-5, err_msg=key)
        checked += 1
    assert checked == 76


def test_published_signed_image_is_the_difference_of_the_channels(shared_path) -> None:
    stored = np.load(shared_path("fixtures/representations/repr.npz"))
    image = representations.event_image(published_batch(stored, "float_128"))[0]
    signed = stored["float_128/channels_is_neg/interp1"]
    np.testing.assert_allclose(np.abs(signed), image, atol=1e-5)


def test_published_rule_of_what_is_inside(shared_path) -> None:
    stored = np.load(shared_path("fixtures/representations/unfeasible.npz"))
    for rows, mask, size in (("a", "a_mask_260x346", (346, 260)), ("b", "b_mask_128x128", (128, 128))):
        np.testing.assert_array_equal(pixels_inside(stored[rows][:, :2], size), stored[mask])
