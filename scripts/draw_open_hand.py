"""Draw the open hand: `python scripts/draw_open_hand.py [--out FOLDER]`.

Writes open-hand.png (six views of three poses), open-hand-shapes.png (every shape direction at -3 and +3 standard
deviations) and open-hand-poses.png (natural poses at random).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from evhands.files import replacing
from evhands.geometry import project
from evhands.hand.model import load_hand
from evhands.hand.open_hand import GESTURES, SHAPE_NAMES, angles_to_joints, sample_natural_angles
from evhands.hand.raster import rasterize

Array = np.ndarray
FOLDER = Path(__file__).parents[1] / "docs" / "images"
SUPERSAMPLE = 3
BACKGROUND, SKIN = np.array([0.925, 0.93, 0.935]), np.array([0.87, 0.68, 0.585])
HAND = load_hand("open")

# Rows are the camera's axes (right, down, forward) in the axes of the hand (fingers -x, back +y, thumb +z).
VIEWS = {
    "back": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "palm": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "thumb side": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
    "little side": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    "finger tips": np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]]),
    "wrist": np.array([[0, 0, -1], [0, -1, 0], [-1, 0, 0]]),
}


def posed(angles: Array, shape: Array | None = None) -> Array:
    """Vertices (V,3) of the hand with these joint angles, the wrist at the origin."""
    joints = torch.from_numpy(angles_to_joints(angles).astype(np.float32))
    shaped = HAND.with_shape(torch.from_numpy(np.zeros(10, np.float32) if shape is None else shape.astype(np.float32)))
    return shaped.with_pose(None, joints, torch.zeros(3)).mesh().vertices.numpy().astype(np.float64)


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Outward unit normals, area-weighted."""
    corners = vertices[faces]
    normals = np.zeros_like(vertices)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normals, faces[:, k], across)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def render(vertices: Array, view: Array, size_px: int, width_m: float = 0.27, centre: Array | None = None) -> Array:
    """An image (size, size, 3) of the hand from 0.9 m, lit from the upper left, antialiased."""
    faces = HAND.faces.numpy()
    centre = (vertices.min(0) + vertices.max(0)) / 2 if centre is None else centre
    size, distance = size_px * SUPERSAMPLE, 0.9
    points = (vertices - centre) @ view.T + (0, 0, distance)
    focal = size * distance / width_m
    camera = np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])
    raster = rasterize(np.column_stack([project(points, camera), points[:, 2]]), faces, (size, size))
    seen = raster.face >= 0
    normals = vertex_normals(vertices, faces) @ view.T
    normal = np.einsum("nk,nkc->nc", raster.barycentrics[seen], normals[faces[raster.face[seen]]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    image = np.broadcast_to(BACKGROUND, (size, size, 3)).copy()
    image[seen] = shade(normal)
    return image.reshape(size_px, SUPERSAMPLE, size_px, SUPERSAMPLE, 3).mean((1, 3))


def shade(normal: Array) -> Array:
    """Skin colour of normals (n,3) in the camera frame: soft key light, weak fill light, darker at the edge."""
    key, fill = np.array([-0.5, -0.62, -0.6]), np.array([0.85, 0.1, -0.5])
    light = 0.36 + 0.66 * np.clip(normal @ key, 0, None) + 0.2 * np.clip(normal @ fill, 0, None)
    light *= 0.66 + 0.34 * np.clip(-normal[:, 2], 0, 1) ** 0.7
    return np.clip(light[:, None] ** (0.9, 1.0, 1.05) * SKIN * 1.22, 0, 1)


def sheet(images: list[list[Array]], columns: list[str], rows: list[str], path: Path) -> None:
    """A table of images with labels above the columns and before the rows."""
    height, width = images[0][0].shape[:2]
    table = np.concatenate([np.concatenate(row, axis=1) for row in images])
    left, top = 26 if rows else 0, 26 if columns else 0
    table = np.pad(table, ((top, 0), (left, 0), (0, 0)), constant_values=np.nan)
    table = np.where(np.isnan(table), BACKGROUND, table)
    figure = plt.figure(figsize=(table.shape[1] / 100, table.shape[0] / 100), dpi=100, facecolor=BACKGROUND)
    figure.figimage(table)
    style = {"ha": "center", "va": "center", "fontsize": 12, "color": "0.25"}
    for k, name in enumerate(columns):
        figure.text((left + (k + 0.5) * width) / table.shape[1], 1 - 14 / table.shape[0], name, style)
    for k, name in enumerate(rows):
        place = 1 - (top + (k + 0.5) * height) / table.shape[0]
        figure.text(14 / table.shape[1], place, name, style, rotation=90)
    with replacing(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)
    print(path)


def draw_views(folder: Path) -> None:
    """Six views of open, fist and pinch."""
    poses = ("open", "fist", "pinch")
    images = [[render(posed(GESTURES[name]), view, 270, 0.24) for view in VIEWS.values()] for name in poses]
    sheet(images, list(VIEWS), list(poses), folder / "open-hand.png")


def draw_shapes(folder: Path) -> None:
    """Each shape direction at minus and plus three standard deviations, all from the same distance."""
    centre = np.array([-0.072, 0.0, 0.012])
    side = VIEWS["thumb side"]
    images = [
        [
            render(
                posed(np.zeros(21), sign * 3 * np.eye(10)[k]),
                side if name == "palm_thickness" else VIEWS["palm"],
                190,
                0.29,
                centre,
            )
            for k, name in enumerate(SHAPE_NAMES)
        ]
        for sign in (-1, 1)
    ]
    sheet(images, [name.replace("_", " ") for name in SHAPE_NAMES], ["-3 sd", "+3 sd"], folder / "open-hand-shapes.png")


def draw_poses(folder: Path) -> None:
    """Natural poses at random."""
    samples = sample_natural_angles(np.random.default_rng(4), 24).reshape(3, 8, -1)
    centre = np.array([-0.072, -0.02, 0.01])
    images = [[render(posed(angles), VIEWS["palm"], 230, 0.25, centre) for angles in row] for row in samples]
    sheet(images, [], [], folder / "open-hand-poses.png")


def main() -> None:
    """Draw all three sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    folder = parser.parse_args().out
    for draw in (draw_views, draw_shapes, draw_poses):
        draw(folder)


if __name__ == "__main__":
    main()
