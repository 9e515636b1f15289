"""Build the open hand: `python scripts/build_open_hand.py [--out FILE]` writes src/evhands/assets/open_hand.npz.

Surface (open_hand_surface.py) -> marching cubes -> even triangles (open_hand_remesh.py) -> skin weights, shape
directions, joint regressor, natural poses. Needs scikit-image. Figures and their sources: docs/open-hand.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from skimage.measure import marching_cubes

import open_hand_surface as surface
from evhands.files import replacing
from evhands.hand.open_hand import (
    BONES,
    GESTURES,
    LONG_FINGERS,
    REST_JOINTS,
    angles_to_joints,
    finger_frame,
    sample_natural_angles,
)
from evhands.hand.skeleton import FINGERS, JOINT_ORDERS
from open_hand_remesh import remesh
from open_hand_surface import JOINTS_MM

Array = np.ndarray
ORDER = JOINT_ORDERS["mano16"]
ASSET = Path(__file__).parents[1] / "src" / "evhands" / "assets" / "open_hand.npz"


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def along_finger(points: Array, finger: str, metacarpal: bool = False) -> Array:
    """Millimetres along a finger from its first joint (thumb: second, or first along its metacarpal)."""
    start = JOINTS_MM["thumb2"] if finger == "thumb" and not metacarpal else JOINTS_MM[f"{finger}1"]
    return (points - start) @ finger_frame(finger, metacarpal)[0]


def lengths(finger: str) -> Array:
    """Bone lengths from the first joint on (thumb: from its second)."""
    bones = BONES[finger]
    return np.array(bones[1:3] if finger == "thumb" else bones[:3])


# ---------------------------------------------------------------------------------------------------------------------
# Mesh and skin weights
# ---------------------------------------------------------------------------------------------------------------------


def edge_length(points: Array) -> Array:
    """Wished edge length in millimetres: fine on digits, finest at their joints, coarse on the forearm."""
    distance = -points[:, 0]
    size = 8.8 - 2.4 * smoothstep((distance + 20) / 50) - 0.7 * smoothstep((distance - 55) / 25)
    for finger in FINGERS:
        s, near = along_finger(points, finger), surface.finger_tube(finger)(points)
        joints = np.cumsum(lengths(finger))[:-1]
        at_joint = np.exp(-((np.min(np.abs(s[:, None] - joints), axis=1) / 7) ** 2))
        at_tip = smoothstep((s - np.sum(lengths(finger)) + 12) / 10)
        fine = 4.9 - 0.6 * at_joint - 0.9 * at_tip
        size = size + (fine - size) * smoothstep((7 - near) / 6) * smoothstep((s + 6) / 12)
    return size


def mesh() -> tuple[Array, Array]:
    """Vertices (V,3) in millimetres and faces (F,3) of the rest surface."""
    spacing = 2.5
    low, high = np.array([-205.0, -55, -75]), np.array([55.0, 35, 110])
    axes = [np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = surface.hand_distance(grid.reshape(-1, 3)).reshape(grid.shape[:-1])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(spacing,) * 3)
    vertices, faces = remesh(vertices + low, faces, edge_length, surface.project, rounds=8)
    corners = vertices[faces]
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    return vertices, faces if volume > 0 else faces[:, ::-1]


def skin_weights(points: Array) -> Array:
    """(V,16) weights: smooth over about 1 cm at every joint; only the web is shared by two fingers."""
    weights = np.zeros((len(points), 16))
    near, thumb = {f: surface.finger_tube(f)(points) for f in LONG_FINGERS}, surface.thumb_distance(points)
    for finger in LONG_FINGERS:
        s, (pip, dip, _) = along_finger(points, finger), np.cumsum(lengths(finger))
        others = np.minimum.reduce([near[f] for f in LONG_FINGERS if f != finger] + [thumb])
        alone = smoothstep((s - 0.55 * BONES[finger].proximal) / 8)
        own = smoothstep((others - near[finger]) / 8 + 0.5) * (1 - alone) + alone * (near[finger] < others)
        dorsal = points[:, 1] - JOINTS_MM[f"{finger}1"][1]
        start = 2 - 3 * smoothstep((dorsal + 10) / 20)
        member = own * smoothstep((s - start) / 18 + 0.5)
        to_middle, to_distal = smoothstep((s - pip) / 12 + 0.5), smoothstep((s - dip) / 10 + 0.5)
        first = ORDER.index(f"{finger}1")
        weights[:, first] = member * (1 - to_middle)
        weights[:, first + 1] = member * to_middle * (1 - to_distal)
        weights[:, first + 2] = member * to_distal
    weights /= np.maximum(weights.sum(1, keepdims=True), 1)
    rest = np.minimum(surface.palm_distance(points), np.minimum.reduce(list(near.values())))
    member = smoothstep((rest - thumb) / 22 + 0.5)
    member *= smoothstep((along_finger(points, "thumb", metacarpal=True) + 4) / 22)
    s = along_finger(points, "thumb")
    member = np.maximum(member, smoothstep((s + 2) / 10) * (thumb < rest))
    member *= 1 - weights.sum(1)
    to_proximal, to_distal = smoothstep(s / 16 + 0.5), smoothstep((s - BONES["thumb"].middle) / 12 + 0.5)
    first = ORDER.index("thumb1")
    weights[:, first] = member * (1 - to_proximal)
    weights[:, first + 1] = member * to_proximal * (1 - to_distal)
    weights[:, first + 2] = member * to_distal
    weights[weights < 1e-3] = 0
    weights[:, 0] = 1 - weights.sum(1)
    return weights


# ---------------------------------------------------------------------------------------------------------------------
# Shape
# ---------------------------------------------------------------------------------------------------------------------


def stretch(points: Array, finger: str, share: float) -> Array:
    """How points that belong wholly to a finger move when all its bones grow by a share of their length."""
    grown = np.clip(along_finger(points, finger), 0, None) * share
    moved = grown[:, None] * finger_frame(finger)[0]
    if finger == "thumb":
        metacarpal = np.clip(along_finger(points, finger, metacarpal=True), 0, BONES["thumb"].proximal) * share
        moved = moved + metacarpal[:, None] * finger_frame(finger, metacarpal=True)[0]
    return moved


def thicken(points: Array, finger: str, share: float) -> Array:
    """How points of a finger move when breadth and depth grow by a share."""
    frame = finger_frame(finger)
    start = JOINTS_MM["thumb2" if finger == "thumb" else f"{finger}1"]
    offset = points - start
    return share * (offset - np.outer(offset @ frame[0], frame[0])) * smoothstep(offset @ frame[0] / 16 + 0.5)[:, None]


def palm_field(points: Array, member: dict[str, Array], scale: Array) -> Array:
    """The palm scaled about the wrist by a share along each axis (forearm: not along x); digits are carried along."""
    roots = {f: JOINTS_MM[f"{f}1"] for f in FINGERS}
    carried = (1 - sum(member.values()))[:, None] * points + sum(member[f][:, None] * roots[f] for f in FINGERS)
    carried[:, 0] = np.minimum(carried[:, 0], 0)
    return carried * scale


def shape_directions(points: Array, member: dict[str, Array]) -> Array:
    """(n,3,10) millimetres per standard deviation, for vertices or joints with their memberships to the five digits.

    Order and figures: `SHAPE_NAMES` of `evhands.hand.open_hand`, docs/open-hand.md.
    """

    def fingers(amounts: dict[str, float]) -> Array:
        return sum(member[f][:, None] * stretch(points, f, share) for f, share in amounts.items())  # type: ignore[return-value]

    along = -points[:, 0]
    at_wrist = (1 - smoothstep(along / 22))[:, None]  # ends where the thumb begins
    depth = (1 - sum(member.values()))[:, None] * smoothstep((along - 5) / 30)[:, None]
    hand_only = smoothstep((along + 5) / 40)[:, None]
    return np.stack(
        [
            0.055 * points,
            palm_field(points, member, np.array([0, 0, 0.042])) * hand_only,
            palm_field(points, member, np.array([0.040, 0, 0])),
            fingers(dict.fromkeys(LONG_FINGERS, 0.05)),
            fingers({"thumb": 0.05}),
            fingers({"index": 0.017, "ring": -0.017}),
            fingers({"little": 0.055}),
            sum(member[f][:, None] * thicken(points, f, 0.06) for f in FINGERS),
            depth * (points - (0, 1.5, 0)) * (0, 0.085, 0),
            at_wrist * points * (0, 0.04, 0.055),
        ],
        axis=-1,
    )


def memberships(weights: Array) -> dict[str, Array]:
    """How far a row of skin weights belongs to each digit."""
    return {f: weights[:, [ORDER.index(f"{f}{k}") for k in (1, 2, 3)]].sum(1) for f in FINGERS}


def joint_regressor(vertices: Array, directions: Array) -> Array:
    """(16,V) non-negative rows of sum 1 that follow every joint through every shape direction."""
    joints = REST_JOINTS * 1000
    member = {f: np.array([float(name.startswith(f)) for name in ORDER]) for f in FINGERS}
    joint_directions = shape_directions(joints, member)
    regressor = np.zeros((16, len(vertices)))
    for j, joint in enumerate(joints):
        distance = np.linalg.norm(vertices - joint, axis=1)
        ring = np.flatnonzero(distance < (55 if j == 0 else 26))
        # Shape motions count ten-fold: they are a twentieth of the size of the places themselves.
        rows = np.concatenate([(vertices[ring] - joint).T, 10 * directions[ring].reshape(len(ring), 30).T])
        wanted = np.concatenate([np.zeros(3), 10 * joint_directions[j].ravel()])
        one, even = 200.0, 0.3
        matrix = np.concatenate([rows, one * np.ones((1, len(ring))), even * np.diag(distance[ring])])
        target = np.concatenate([wanted, [one], np.zeros(len(ring))])
        weights, _ = nnls(matrix, target)
        regressor[j, ring] = weights / weights.sum()
    return regressor


# ---------------------------------------------------------------------------------------------------------------------


def pose_space() -> tuple[Array, Array, Array]:
    """Mean pose (45,), principal components (45,45; rows) and their standard deviations (45,) of natural poses."""
    mean = angles_to_joints(GESTURES["relaxed"]).ravel()
    samples = angles_to_joints(sample_natural_angles(np.random.default_rng(0), 20_000)).reshape(-1, 45) - mean
    values, vectors = np.linalg.eigh(samples.T @ samples / len(samples))
    components = vectors[:, ::-1].T
    sign = np.sign(components[np.arange(45), np.abs(components).argmax(1)])
    return mean, components * sign[:, None], np.sqrt(np.clip(values[::-1], 0, None))


def build() -> dict[str, Array]:
    """Every array of the asset (metres)."""
    vertices, faces = mesh()
    tips = []
    for finger in FINGERS:
        tip = JOINTS_MM[f"{finger}4"]
        tips.append(int(np.linalg.norm(vertices - tip, axis=1).argmin()))
        vertices[tips[-1]] = tip
    weights = skin_weights(vertices)
    directions = shape_directions(vertices, memberships(weights))
    mean, components, deviation = pose_space()
    f4 = np.float32
    return {
        "name": np.array("open"),
        "vertices": (vertices / 1000).astype(f4),
        "faces": faces.astype(np.int32),
        "shape_directions": (directions / 1000).astype(f4),
        "joint_regressor": joint_regressor(vertices, directions).astype(f4),
        "skin_weights": weights.astype(f4),
        "mean_pose": mean.astype(f4),
        "pose_components": components.astype(f4),
        "pose_std": deviation.astype(f4),
        "tip_vertices": np.array(tips, dtype=np.int32),
    }


def figures(arrays: dict[str, Array]) -> str:
    """What docs/open-hand.md quotes, measured on the mesh."""
    vertices, faces = 1000.0 * arrays["vertices"], arrays["faces"]
    corners = vertices[faces]
    volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6000
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    knuckles = vertices[(np.abs(vertices[:, 0] + 86) < 5) & (np.abs(vertices[:, 2]) < 50)]
    palm = vertices[(np.abs(vertices[:, 0] + 80) < 8) & (np.abs(vertices[:, 2] - 4) < 10)]
    wrist = vertices[np.abs(vertices[:, 0]) < 6]
    joints = np.linalg.norm(arrays["joint_regressor"] @ arrays["vertices"] - REST_JOINTS, axis=1) * 1000
    return "\n".join(
        [
            f"{len(vertices)} vertices, {len(faces)} faces, {volume:.0f} cm3 (forearm stump included)",
            f"edges {edges.min():.1f} / {np.median(edges):.1f} / {edges.max():.1f} mm (shortest, median, longest)",
            f"hand length {np.linalg.norm(vertices[arrays['tip_vertices'][2]]):.0f} mm, "
            f"breadth {np.ptp(knuckles[:, 2]):.0f} mm, thickness {np.ptp(palm[:, 1]):.0f} mm, "
            f"wrist {np.ptp(wrist[:, 2]):.0f} x {np.ptp(wrist[:, 1]):.0f} mm",
            f"joints regressed to within {joints.max():.2f} mm",
        ]
    )


def main() -> None:
    """Build and write the asset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSET)
    out = parser.parse_args().out
    arrays = build()
    with replacing(out) as temporary:
        np.savez_compressed(temporary, **arrays)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
    print(figures(arrays))


if __name__ == "__main__":
    main()
