"""Crops cut anew from crops: pixels and camera move alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evhands.data.recrop import recropped

SIDE = 96
K = np.array([[150.0, 0, 40.0], [0, 150.0, 55.0], [0, 0, 1]], np.float32)
shifts = st.floats(-0.2, 0.2)


@given(st.floats(-1, 1), shifts, shifts, st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
def test_a_point_in_space_stays_under_its_pixel(log_size, right, down, x, y):
    images = np.zeros((1, 1, 2, SIDE, SIDE), np.uint8)
    images[0, 0, 1, y, x] = 200
    moved, camera = recropped(images, K[None, None], np.array([[2**log_size, right, down]]))
    point = np.array([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], 1.0])
    expected = (camera[0, 0] @ point)[:2]
    seen = np.argwhere(moved[0, 0, 1])
    if len(seen):
        assert moved.sum() == 200 and np.abs(seen[0][::-1] - expected).max() <= 0.501
    else:
        assert (expected < -0.49).any() or (expected > SIDE - 0.51).any()


def test_the_middle_of_a_crop_twice_as_large_is_the_old_centre():
    images = np.zeros((1, 1, 2, SIDE, SIDE), np.uint8)
    images[0, 0, 0] = 7
    moved, _ = recropped(images, K[None, None], np.array([[2.0, 0, 0]]))
    assert (moved[0, 0, 0, 25:71, 25:71] == 7).all() and (moved[0, 0, 0, :23] == 0).all()


def test_an_unchanged_crop_changes_nothing_and_the_latest_event_wins():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 3, 2, SIDE, SIDE)).astype(np.uint8)
    same, camera = recropped(images, np.tile(K, (2, 3, 1, 1)), np.array([[1.0, 0, 0]] * 2))
    np.testing.assert_array_equal(same, images)
    np.testing.assert_allclose(camera, np.tile(K, (2, 3, 1, 1)))
    halved, _ = recropped(images, np.tile(K, (2, 3, 1, 1)), np.array([[2.0, 0, 0]] * 2))
    assert halved.max() == images.max() and halved[halved > 0].mean() > images.mean()
