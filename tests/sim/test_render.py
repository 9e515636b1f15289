"""The renderer: covers what the rasteriser covers, leaves the rest of the image bit for bit as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evhands.hand.model import load_hand
from evhands.hand.raster import rasterize
from evhands.sim.appearance import Look
from evhands.sim.motion import UPRIGHT, rotation_vector
from evhands.sim.render import image_boxes, log_background, render, seen_background, vertex_normals
from evhands.types import Camera

SIZE = (120, 100)
K = np.array([[140.0, 0, 60], [0, 140, 50], [0, 0, 1]])
CAMERA = Camera(K, SIZE)


@pytest.fixture(scope="module")
def hand() -> tuple[np.ndarray, np.ndarray]:
    model = load_hand("open")
    turn = torch.from_numpy(rotation_vector(UPRIGHT).astype(np.float32))
    wrist = torch.tensor([0.03, 0.09, 0.4])
    mesh = model.with_shape().with_pose(turn, torch.zeros(15, 3), wrist).mesh()
    return mesh.vertices.numpy(), mesh.faces.numpy().astype(np.int32)


def _look(vertices: np.ndarray) -> Look:
    lights = np.array([[0.0, 0.0, -0.7], [0.3, -0.3, -0.1]], np.float32)
    return Look(np.full(len(vertices), 0.5, np.float32), lights, 0.2, 0.3)


def _wall() -> np.ndarray:
    background = np.full(SIZE[::-1], 0.3, np.float32)
    background[:, ::7] *= 1.5
    return log_background(background, 0.01)


def _image(
    vertices: np.ndarray, faces: np.ndarray, look: Look, box: tuple[int, int, int, int], wall: np.ndarray | None = None
) -> np.ndarray:
    points, _ = image_boxes(vertices[None], CAMERA)
    return render(vertices, points[0], faces, look, 0.01, _wall() if wall is None else wall, box)


def test_the_hand_covers_what_the_rasteriser_covers(hand) -> None:
    vertices, faces = hand
    points, _ = image_boxes(vertices[None], CAMERA)
    covered = rasterize(np.concatenate([points[0], vertices[:, 2:]], 1), faces, SIZE).face >= 0
    bright = np.full(SIZE[::-1], np.log(50), np.float32)
    image = _image(vertices, faces, _look(vertices), (0, 0, *SIZE), bright)
    padded = np.pad(covered, 1)
    near = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    np.testing.assert_array_equal((image < np.log(50)), near.any((2, 3)))
    inside = near.all((2, 3))
    assert inside.sum() > 300
    assert (image[inside] < np.log(1.0)).all()


def test_a_box_is_a_cut_out_of_the_whole_image(hand) -> None:
    vertices, faces = hand
    look = _look(vertices)
    whole = _image(vertices, faces, look, (0, 0, *SIZE))
    for box in ((20, 10, 90, 80), (0, 40, 60, 100), (55, 0, 120, 33)):
        part = _image(vertices, faces, look, box)
        np.testing.assert_array_equal(part, whole[box[1] : box[3], box[0] : box[2]])


def test_away_from_the_hand_nothing_changes(hand) -> None:
    vertices, faces = hand
    look = _look(vertices)
    seen = seen_background(_wall())
    whole = _image(vertices, faces, look, (0, 0, *SIZE))
    _, boxes = image_boxes(vertices[None], CAMERA)
    x0, y0, x1, y1 = boxes[0]
    outside = np.ones(SIZE[::-1], bool)
    outside[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(whole[outside], seen[outside])
    assert (whole != seen).sum() > 300


def test_a_hand_out_of_view_has_a_box_without_area_and_changes_nothing(hand) -> None:
    vertices, faces = hand
    look = _look(vertices)
    for shift in ([3.0, 0, 0], [0, -3.0, 0], [0, 0, -2.0]):
        moved = vertices + np.float32(shift)
        _, boxes = image_boxes(moved[None], CAMERA)
        x0, y0, x1, y1 = boxes[0]
        assert x1 - x0 == 0 or y1 - y0 == 0
        seen = seen_background(_wall())
        np.testing.assert_array_equal(_image(moved, faces, look, (0, 0, *SIZE)), seen)


def test_normals_point_outwards_and_are_units(hand) -> None:
    vertices, faces = hand
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    assert (np.cross(b - a, c - a) * a).sum() > 0  # the volume is positive
    outward = vertices + 0.002 * normals
    a, b, c = (outward[faces[:, k]].astype(np.float64) for k in range(3))
    grown = (np.cross(b, c) * a).sum()
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    assert grown > (np.cross(b, c) * a).sum()
