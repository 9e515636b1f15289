from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands import geometry as g
from evhands.types import Camera, InputError

DISTORTIONS = {
    4: [-0.3, 0.1, 1e-3, -5e-4],
    5: [-0.37, 0.17, 6e-4, -4e-4, -0.04],
    8: [-0.2, 0.1, 5e-4, -3e-4, 0.01, 0.1, 0.02, 0.0],
    12: [-0.2, 0.1, 5e-4, -3e-4, 0.01, 0.1, 0.02, 0.0, 1e-3, -1e-3, 5e-4, 1e-4],
    14: [-0.2, 0.1, 5e-4, -3e-4, 0.01, 0.1, 0.02, 0.0, 1e-3, -1e-3, 5e-4, 1e-4, 0.02, -0.01],
}


def a_camera(coefficients: int = 0) -> Camera:
    K = np.array([[305.2, 0, 171.3], [0, 301.6, 131.8], [0, 0, 1]])
    return Camera(K, (346, 260), np.array(DISTORTIONS.get(coefficients, []), np.float64))


def points(n: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform((-0.2, -0.2, 0.3), (0.2, 0.2, 1.2), (n, 3))


@pytest.mark.parametrize("count", DISTORTIONS)
def test_undistort_and_distort_are_inverse(count: int) -> None:
    camera = a_camera(count)
    K_new = camera.K * np.array([[0.9], [0.95], [1]])
    grid = np.stack(np.meshgrid(np.arange(0, 346, 7), np.arange(0, 260, 7)), -1).reshape(-1, 2)
    there = g.undistort_points(grid, camera.K, camera.distortion, K_new)
    np.testing.assert_allclose(g.distort_points(there, camera.K, camera.distortion, K_new), grid, atol=1e-8)


def test_five_iterations_come_close_and_many_converge() -> None:
    camera = a_camera(5)
    grid = np.stack(np.meshgrid(np.arange(0, 346, 7), np.arange(0, 260, 7)), -1).reshape(-1, 2)
    exact = g.undistort_points(grid, camera.K, camera.distortion)
    five = g.undistort_points(grid, camera.K, camera.distortion, iterations=5)
    many = g.undistort_points(grid, camera.K, camera.distortion, iterations=500)
    assert 0.01 < np.abs(five - exact).max() < 1
    np.testing.assert_allclose(many, exact, atol=1e-6)


def test_no_solution_is_nan_and_no_distortion_is_identity() -> None:
    camera = Camera(a_camera().K, (346, 260), np.array([-2.0, 0, 0, 0]))
    table = g.undistortion_map(camera)
    assert np.isnan(table[0, 0]).all() and np.isfinite(table[130, 170]).all()
    identity = g.undistortion_map(a_camera())
    np.testing.assert_allclose(identity[20, 300], (300, 20), atol=1e-4)


def test_published_undistortion_is_reproduced(shared_path) -> None:
    stored = np.load(shared_path("fixtures/representations/undistort.npz"))
    for kind in ("grid", "far"):
        for lens in ("dist5", "dist14"):
            for new in ("Knew", "Knone"):
                K_new = stored["K_new"] if new == "Knew" else None
                got = g.undistort_points(stored[kind], stored["K_old"], stored[lens], K_new, iterations=5)
                name = f"{kind}_{lens}_{new}_bound"
                np.testing.assert_allclose(got, stored[name + "0_xy"], atol=1e-4)
                np.testing.assert_allclose(np.clip(got, 0, (345, 259)), stored[name + "1_xy"], atol=1e-4)
                legal = g.pixels_inside(got, (346, 260), rows_against_width=True)
                np.testing.assert_array_equal(legal, stored[name + "1_legal"])
                assert not g.pixels_inside(got, (346, 260))[got[:, 1] > 259].any()


def test_projection_round_trip_in_numpy_and_torch() -> None:
    K, p = a_camera().K, points()
    pixels = g.project(p, K)
    np.testing.assert_allclose(g.unproject(pixels, p[:, 2], K), p, atol=1e-12)
    in_torch = g.project(torch.from_numpy(p), torch.from_numpy(K))
    np.testing.assert_allclose(in_torch.numpy(), pixels, atol=1e-12)
    np.testing.assert_allclose(
        g.unproject(in_torch, torch.from_numpy(p[:, 2]), torch.from_numpy(K)).numpy(), p, atol=1e-12
    )
    np.testing.assert_allclose(g.project(p[0], K), pixels[0])
    batch = g.project(p.reshape(2, 25, 3), np.stack([K, 2 * K]))
    np.testing.assert_allclose(batch[0], pixels[:25])
    np.testing.assert_allclose(batch[1], 2 * pixels[25:], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 400), st.floats(-50, 300), st.floats(20, 500), st.integers(16, 256))
def test_crop_camera_projects_where_the_affine_maps(cx: float, cy: float, side: float, size: int) -> None:
    camera = a_camera()
    crop = g.crop_camera(camera, np.array([cx, cy]), side, size)
    scale, offset = g.affine_between(camera, crop)
    pixels = g.project(points(), camera.K)
    np.testing.assert_allclose(g.project(points(), crop.K), pixels * scale + offset, atol=1e-8)
    np.testing.assert_allclose(np.array([cx, cy]) * scale + offset, (size - 1) / 2, atol=1e-9)
    np.testing.assert_allclose((np.array([cx, cy]) - side / 2) * scale + offset, -0.5, atol=1e-9)
    assert crop.size == (size, size)


def test_resize_maps_edges_onto_edges() -> None:
    small = g.resize_camera(a_camera(), (173, 130))
    scale, offset = g.affine_between(a_camera(), small)
    np.testing.assert_allclose(np.array([-0.5, -0.5]) * scale + offset, -0.5, atol=1e-12)
    np.testing.assert_allclose(np.array([345.5, 259.5]) * scale + offset, (172.5, 129.5), atol=1e-12)


def test_mirror_sees_the_mirrored_world_in_the_mirrored_image() -> None:
    camera, p = a_camera(14), points()
    mirrored = g.mirror_camera(camera)
    seen = g.distort_points(g.project(p, camera.K), camera.K, camera.distortion)
    seen_mirrored = g.distort_points(g.project(p * (-1, 1, 1), mirrored.K), mirrored.K, mirrored.distortion)
    np.testing.assert_allclose(seen_mirrored, seen * (-1, 1) + (345, 0), atol=1e-9)
    twice = g.mirror_camera(mirrored)
    np.testing.assert_allclose(twice.K, camera.K)
    np.testing.assert_array_equal(twice.distortion, camera.distortion)


def test_turning_the_camera_turns_points_and_pixels_alike() -> None:
    camera = a_camera()
    turned = g.rotate_camera_in_plane(camera, 0.3)
    assert turned.T_camera_world is not None
    R = turned.T_camera_world[:3, :3]
    pixels = np.c_[g.project(points(), camera.K), np.ones(50)]
    moved = pixels @ (camera.K @ R @ np.linalg.inv(camera.K)).T
    np.testing.assert_allclose(g.project(points() @ R.T, turned.K), moved[:, :2] / moved[:, 2:], atol=1e-9)
    back = g.rotate_camera_in_plane(turned, -0.3)
    np.testing.assert_allclose(back.T_camera_world, np.eye(4), atol=1e-12)


def test_ray_rotation_is_the_smallest_rotation() -> None:
    d = np.concatenate([np.random.default_rng(1).normal(size=(40, 3)), [[0, 0, 2], [0, 0, -3], [1e-9, 0, -1]]])
    R = g.ray_rotation(d)
    unit = d / np.linalg.norm(d, axis=1, keepdims=True)
    np.testing.assert_allclose(R[:, :, 2], unit, atol=1e-7)
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-7)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-7)
    np.testing.assert_allclose(np.trace(R, axis1=1, axis2=2), 1 + 2 * unit[:, 2], atol=1e-7)


def test_load_camera_round_trip(tmp_path) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"K": a_camera().K.tolist(), "distortion": DISTORTIONS[5], "size": [346, 260]}))
    camera = g.load_camera(path, (346, 260))
    np.testing.assert_array_equal(camera.K, a_camera().K)
    np.testing.assert_array_equal(camera.distortion, DISTORTIONS[5])


GOOD = {"K": [[300, 0, 170], [0, 300, 130], [0, 0, 1]], "distortion": [], "size": [346, 260]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("not json", "JSON"),
        (json.dumps([1, 2]), '"K"'),
        (json.dumps(GOOD | {"K": [[300, 0, float("nan")], [0, 300, 130], [0, 0, 1]]}), "NaN"),
        (json.dumps(GOOD | {"K": [[300, 0], [0, 300]]}), "camera matrix"),
        (json.dumps(GOOD | {"K": [[300, 0, 1], [0]]}), "rectangle"),
        (json.dumps(GOOD | {"distortion": [0.1] * 7}), "coefficients"),
        (json.dumps(GOOD | {"distortion": [float("inf")] * 5}), "infinity"),
        (json.dumps(GOOD | {"size": [640, 480]}), "640x480"),
        (json.dumps(GOOD | {"size": "big"}), "size"),
    ],
)
def test_a_bad_calibration_says_what_is_wrong(tmp_path, content: str, word: str) -> None:
    path = tmp_path / "camera.json"
    path.write_text(content)
    with pytest.raises(InputError, match=word):
        g.load_camera(path, (346, 260))


def test_a_missing_calibration_and_a_missing_size(tmp_path) -> None:
    with pytest.raises(InputError, match="Cannot read"):
        g.load_camera(tmp_path / "none.json", (346, 260))
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"K": GOOD["K"]}))
    with pytest.raises(InputError, match="size"):
        g.load_camera(path)
    assert g.load_camera(path, (10, 20)).size == (10, 20)
    assert g.default_camera((346, 260)).K[0, 2] == 172.5
