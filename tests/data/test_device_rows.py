"""Rows on a device are the rows of the shards, and are cropped anew as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evhands.data.device_rows import FIELDS, DeviceRows, augmented_on_device, recropped_on_device
from evhands.data.recrop import recropped
from evhands.data.shards import ShardConfig, ShardPool, row_dtype

CPU = torch.device("cpu")


def random_rows(count: int, seed: int, windows: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, row_dtype(ShardConfig(windows=windows)))
    rows["lnes"] = rng.integers(0, 255, rows["lnes"].shape, np.uint8) * (rng.random(rows["lnes"].shape) < 0.2)
    for name in FIELDS[1:]:
        rows[name] = rng.standard_normal(rows[name].shape)
    return rows


@given(st.integers(0, 1000), st.floats(-1.2, 1.2), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_crops_are_cut_anew_as_on_the_cpu(seed, log_size, right, down):
    rows = random_rows(2, seed, 2)
    crops = np.array([[2**log_size, right, down], [2**-log_size, down, right]])
    expected, expected_K = recropped(rows["lnes"], rows["K"], crops)
    lnes, K = (torch.from_numpy(rows[name].copy()) for name in ("lnes", "K"))
    found, K = recropped_on_device(lnes, K, crops)
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_allclose(K.numpy(), expected_K, rtol=1e-6, atol=1e-6)


def test_windows_are_those_of_the_shards_also_of_shards_that_came_later(tmp_path):
    np.save(tmp_path / "shard-00000.npy", random_rows(3, 0))
    rows = DeviceRows(ShardPool(tmp_path), CPU, capacity=8, part=2)
    np.save(tmp_path / "shard-00001.npy", random_rows(4, 1))
    assert len(rows) == 3 and rows.refresh() == 7
    chosen = np.array([[0, 2], [1, 3]])
    values = rows.windows_of(rows.take(np.array([2, 5])), chosen)
    truth = np.concatenate([random_rows(3, 0), random_rows(4, 1)])[[2, 5]]
    for name in FIELDS[:-1]:
        np.testing.assert_array_equal(values[name].numpy(), truth[name][np.arange(2)[:, None], chosen])
    np.testing.assert_array_equal(values["shape"].numpy(), truth["shape"])


def test_the_newest_rows_take_the_places_of_the_oldest(tmp_path):
    np.save(tmp_path / "shard-00000.npy", random_rows(7, 0))
    rows = DeviceRows(ShardPool(tmp_path), CPU, capacity=4)
    kept = {tuple(shape) for shape in rows.windows_of(np.arange(4), np.zeros((4, 1), np.int64))["shape"].numpy()}
    assert len(rows) == 4 and kept == {tuple(shape) for shape in random_rows(7, 0)["shape"][3:]}


@pytest.mark.parametrize(("thinning", "noise"), [(0.6, 0.0), (0.0, 0.05)])
def test_pixels_are_emptied_or_set_at_most_as_often_as_said(thinning, noise):
    images = torch.full((64, 3, 2, 32, 32), 0.5)
    generator = torch.Generator().manual_seed(0)
    changed = augmented_on_device(images, generator, thinning, noise) != images
    share = changed.float().mean(dim=(1, 2, 3, 4))
    most = thinning + noise
    assert 0 < share.max() <= most + 0.02
    assert share.mean().item() == pytest.approx(thinning / 3 + noise / 4, abs=0.05 * most + 0.002)
    repeated = augmented_on_device(images, torch.Generator().manual_seed(0), thinning, noise) != images
    assert torch.equal(changed, repeated)
