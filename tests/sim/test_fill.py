"""The filler: what it draws eight pixels at a time is what one pixel at a time gives, and a box or an order changes
nothing."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.sim.fill import FACING, fill, framed

SIZE = (61, 43)


def _triangles(seed: int, count: int, size_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (v, 4) and faces of triangles here and there, some of them partly or wholly outside."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-0.2, 1.2, (count, 1, 2)) * SIZE
    places = centres + rng.normal(0, size_px, (count, 3, 2))
    corners = np.concatenate([places, rng.uniform(1, 3, (count, 3, 1)), rng.normal(0, 1, (count, 3, 1))], -1)
    return corners.reshape(-1, 4).astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def _filled(corners: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(light, inverse depth, touched rows) of the image over a dark wall, without the border."""
    canvas = framed(np.full(SIZE[::-1], -9, np.float32), SIZE[0] + 2)
    nearest = np.zeros_like(canvas)
    low, high = np.full(len(canvas), canvas.shape[1], np.int32), np.zeros(len(canvas), np.int32)
    fill(corners, faces, canvas, nearest, low, high)
    return canvas[1:-1, 1:-1], nearest[1:-1, 1:-1], np.stack([low, high])[:, 1:-1]


def _naive(corners: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same in 64 bits, pixel by pixel, and where rounding may decide otherwise."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    light, depth, doubt = np.full(x.shape, -9.0), np.zeros(x.shape), np.zeros(x.shape, bool)
    for a, b, c in corners[faces].astype(np.float64):
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area >= FACING:
            continue
        wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        least = np.minimum(np.minimum(wb, wc), 1 - wb - wc)
        z, s = (a[k] + wb * (b[k] - a[k]) + wc * (c[k] - a[k]) for k in (2, 3))
        doubt |= (np.abs(least) < 1e-4) | ((least > -1e-4) & (np.abs(z - depth) < 1e-4))
        seen = (least >= 0) & (z > depth)
        light[seen], depth[seen] = s[seen], z[seen]
    return light, depth, doubt


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size_px", [1.5, 6.0, 40.0])
def test_eight_pixels_at_once_are_one_pixel_at_a_time(seed: int, size_px: float) -> None:
    corners, faces = _triangles(seed, 40, size_px)
    light, depth, touched = _filled(corners, faces)
    wanted, wanted_depth, doubt = _naive(corners, faces)
    assert (~doubt).mean() > 0.8 and (wanted_depth > 0).any()
    np.testing.assert_allclose(light[~doubt], wanted[~doubt], atol=2e-3)
    np.testing.assert_allclose(depth[~doubt], wanted_depth[~doubt], atol=2e-3)
    columns = np.arange(1, SIZE[0] + 1)
    inside = (columns >= touched[0][:, None]) & (columns < touched[1][:, None])
    assert not (depth > 0)[~inside].any()


def test_the_nearest_wins_in_any_order() -> None:
    corners, faces = _triangles(7, 60, 15.0)
    light, depth, _ = _filled(corners, faces)
    for seed in range(3):
        other, other_depth, _ = _filled(corners, np.random.default_rng(seed).permutation(faces))
        np.testing.assert_array_equal(other_depth, depth)
        np.testing.assert_array_equal(other, light)


def test_corners_that_are_too_near_and_faces_turned_away_draw_nothing() -> None:
    corners, faces = _triangles(8, 30, 10.0)
    area = np.cross(*(corners[faces][:, k, :2] - corners[faces][:, 0, :2] for k in (1, 2)))
    away = faces[area > 0]
    assert len(away) > 5
    assert (_filled(corners, away)[1] == 0).all()
    corners[faces[:, 0], 0] = np.nan
    assert (_filled(corners, faces)[1] == 0).all()
