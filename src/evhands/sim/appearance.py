"""What a scene looks like: skin, nails and creases, a forearm with or without a sleeve, lights, and a background.

Light is linear and without colour (event sensors see none); white paper under the main light is about 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evhands.hand.skeleton import FINGERS, JOINT_ORDERS
from evhands.types import Size


@dataclass(frozen=True)
class Surface:
    """A hand at rest as the renderer needs it (hand frame: fingers -x, back +y, thumb +z, wrist at the origin)."""

    vertices: np.ndarray
    """(v, 3) m, of the subject's shape."""
    faces: np.ndarray
    """(f, 3) int32, outward normals counter-clockwise."""
    joints16: np.ndarray
    """(16, 3) m in `mano16` order."""
    tips: np.ndarray
    """(5, 3) m, thumb to little."""


@dataclass(frozen=True)
class Forearm:
    """A tapered tube behind the wrist: vertices (n, 3) in the hand frame at rest, faces, and skinning weights.

    A vertex moves with the forearm by its weight (n,) and with the hand by the rest, so that the wrist bends smoothly.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Look:
    """How surfaces answer light, drawn once per clip."""

    albedo: np.ndarray
    """(v,) float32 of all vertices of the scene."""
    lights: np.ndarray
    """(l, 3) float32: directions towards the lights times their strengths, camera frame."""
    ambient: float
    occlusion: float
    """How much a surface seen at a grazing angle is darkened (0 to 1): a cheap stand-in for shadows between fingers."""
    gloss: float = 0.0
    """Strength of the specular light (Blinn 1977, exponent 16: skin that is a little moist)."""


RINGS = np.concatenate([np.linspace(-0.012, 0.03, 7), np.linspace(0.045, 0.7, 12)])
"""Distances of the forearm's rings behind the wrist in metres; the first ones are hidden inside the hand."""
SEGMENTS = 18


def draw_forearm(hand: Surface, rng: np.random.Generator) -> Forearm:
    """A forearm that continues the hand's own wrist, 70 cm long (so that its end is rarely in view), growing towards
    the elbow."""
    behind = hand.vertices[hand.vertices[:, 0] > np.percentile(hand.vertices[:, 0], 96)]
    centre = (behind.min(0) + behind.max(0)) / 2
    half = (behind.max(0) - behind.min(0))[1:] / 2
    growth = rng.uniform(1.35, 1.75, 2)
    angle = np.arange(SEGMENTS) * 2 * math.pi / SEGMENTS
    rings = []
    for s in RINGS:
        inside = 0.86 if s < 0.004 else 1.0
        radius = half * inside * (1 + (growth - 1) * smooth_step(s / 0.24))
        offset = centre[1:] * (1 - smooth_step(s / 0.1))
        ring = np.stack([np.full(SEGMENTS, s), offset[0] + radius[0] * np.cos(angle),
                         offset[1] + radius[1] * np.sin(angle)], 1)  # fmt: skip
        rings.append(ring)
    vertices = np.concatenate([*rings, [[RINGS[0], *centre[1:]], [RINGS[-1], 0, 0]]])
    weights = smooth_step((vertices[:, 0] + 0.01) / 0.05)
    return Forearm(vertices.astype(np.float32), _tube_faces(len(RINGS)), weights.astype(np.float32))


def _tube_faces(rings: int) -> np.ndarray:
    faces = []
    last = rings * SEGMENTS
    for j in range(SEGMENTS):
        k = (j + 1) % SEGMENTS
        for i in range(rings - 1):
            a, b, c, d = i * SEGMENTS + j, i * SEGMENTS + k, (i + 1) * SEGMENTS + j, (i + 1) * SEGMENTS + k
            faces += [[a, b, c], [b, d, c]]
        faces += [[last, k, j], [last + 1, last - SEGMENTS + j, last - SEGMENTS + k]]
    return np.array(faces, np.int32)


def smooth_step(x: np.ndarray | float) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def draw_tone(rng: np.random.Generator) -> float:
    """Reflectance of a person's skin."""
    return float(np.exp(rng.uniform(math.log(0.12), math.log(0.65))))


def draw_skin(
    hand: Surface, normals: np.ndarray, arm: Forearm, tone: float, jewellery: float, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float | str]]:
    """Albedo (v + n,) of a hand and its forearm, and tags; `normals` (v, 3) of the hand at rest.

    jewellery: chance of a ring on a finger or a watch.
    """
    skin = tone * skin_pattern(hand, normals, rng)
    arm_albedo = tone * (1 + 0.08 * _solid_noise(arm.vertices, 0.05, rng))
    sleeve = rng.random() < 0.45
    if sleeve:
        start = rng.uniform(0.03, 0.16)
        cloth = float(np.exp(rng.uniform(math.log(0.04), math.log(0.9))))
        pattern = cloth * (1 + rng.uniform(0, 0.4) * _solid_noise(arm.vertices, 0.02, rng))
        arm_albedo = np.where(arm.vertices[:, 0] > start, pattern, arm_albedo)
    tags: dict[str, float | str] = {"skin": round(tone, 3), "sleeve": float(sleeve)}
    if jewellery and rng.random() < jewellery:
        metal = float(rng.choice([0.06, 0.85]))
        if rng.random() < 0.5:
            finger = int(rng.integers(5))
            skin = np.where(_ring(hand, finger, rng.uniform(0.35, 0.55)), metal, skin)
            tags["jewellery"] = "ring"
        else:
            band = (arm.vertices[:, 0] > 0.004) & (arm.vertices[:, 0] < 0.04)
            arm_albedo = np.where(band, metal, arm_albedo)
            tags["jewellery"] = "watch"
    return np.clip(np.concatenate([skin, arm_albedo]), 0.02, 1.0).astype(np.float32), tags


def _ring(hand: Surface, finger: int, share: float) -> np.ndarray:
    """Which vertices (v,) a ring on the finger's first bone covers."""
    names = JOINT_ORDERS["mano16"]
    base, end = (
        hand.joints16[names.index(f"{('thumb', 'index', 'middle', 'ring', 'little')[finger]}{k}")] for k in (1, 2)
    )
    bone = end - base
    along = (hand.vertices - base) @ bone / (bone @ bone)
    away = np.linalg.norm(hand.vertices - base - along[:, None] * bone, axis=1)
    return (np.abs(along - share) < 0.11) & (away < 0.014)


def draw_lights(rng: np.random.Generator) -> np.ndarray:
    """One to three lights on the camera's side of the hand, mostly from above; (l, 3) direction times strength."""
    count = int(rng.integers(1, 4))
    direction = rng.standard_normal((count, 3)) * [0.8, 0.7, 0.4] + [0.0, -0.5, -0.8]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    strength = np.exp(rng.uniform(math.log(0.15), math.log(1.0), count))
    strength *= rng.uniform(0.5, 1.0) / strength.sum()
    return (direction * strength[:, None]).astype(np.float32)


def skin_pattern(hand: Surface, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Relative reflectance (v,) of the hand's skin: paler palm, nails, creases at the joints, blotches."""
    v = hand.vertices
    palmar = smooth_step(0.5 - normals[:, 1])
    pattern = 1 + rng.uniform(-0.05, 0.3) * palmar
    pattern = pattern * (1 + rng.uniform(0.02, 0.1) * _solid_noise(v, 0.03, rng))
    pattern *= 1 + rng.uniform(0.01, 0.06) * _solid_noise(v, 0.008, rng)
    names = JOINT_ORDERS["mano16"]
    crease = rng.uniform(0.05, 0.3)
    for f, finger in enumerate(FINGERS):
        chain = np.array([hand.joints16[names.index(f"{finger}{k}")] for k in (1, 2, 3)] + [hand.tips[f]])
        for k in (1, 2):
            axis = chain[k + 1] - chain[k - 1]
            axis = axis / np.linalg.norm(axis)
            near = np.linalg.norm(v - chain[k], axis=1) < 0.018
            along = (v - chain[k]) @ axis
            pattern *= 1 - crease * near * np.exp(-((along / 0.003) ** 2))
        bone = chain[3] - chain[2]
        length = np.linalg.norm(bone)
        along = (v - chain[2]) @ bone / length**2
        dorsal = normals @ _dorsal(bone / length, finger)
        nail = (along > 0.55) & (along < 0.97) & (dorsal > 0.55) & (np.linalg.norm(v - chain[3], axis=1) < 0.6 * length)
        pattern *= np.where(nail, 1 + rng.uniform(0.0, 0.35), 1.0)
    return pattern


def _dorsal(bone: np.ndarray, finger: str) -> np.ndarray:
    """Where the nail faces: up for the fingers, up and to the side for the thumb."""
    up = np.array([0.0, 0.6, 0.8]) if finger == "thumb" else np.array([0.0, 1.0, 0.0])
    up = up - bone * (up @ bone)
    return up / np.linalg.norm(up)


def _solid_noise(points: np.ndarray, length_m: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field over points (n, 3) with unit variance and about the given correlation length."""
    waves = rng.standard_normal((3, 12)) / length_m
    return np.cos(points @ waves + rng.uniform(0, 2 * math.pi, 12)).sum(1) * math.sqrt(2 / 12)


def draw_background(size: Size, clutter: float, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float | str]]:
    """A wall with a gradient, band-limited texture, and by the chance `clutter` shapes: light (h, w), tags."""
    width, height = size
    level = float(np.exp(rng.uniform(math.log(0.05), math.log(0.9))))
    log_light = np.full((height, width), math.log(level), np.float32)
    slope = rng.normal(0, 0.3, 2)
    x, y = np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)
    log_light += slope[0] * x + slope[1] * y[:, None]
    texture = float(np.exp(rng.uniform(math.log(0.01), math.log(0.35))))
    for cell in np.exp(rng.uniform(math.log(3), math.log(80), 3)):
        log_light += texture / math.sqrt(3) * _value_noise(size, cell, rng)
    cluttered = rng.random() < clutter
    if cluttered:
        contrast = rng.uniform(0.2, 1.0)
        for _ in range(round(rng.integers(3, 25) * width * height / 90_000)):
            _add_object(log_light, contrast, rng)
    light = np.exp(np.clip(log_light, math.log(0.01), math.log(2.0)))
    return light, {"background": "cluttered" if cluttered else "plain", "background_level": round(level, 3)}


def _value_noise(size: Size, cell_px: float, rng: np.random.Generator) -> np.ndarray:
    """Random values on a grid of `cell_px`, interpolated smoothly; (height, width) of about unit variance."""
    columns, rows = (_interpolation(n, cell_px, rng) for n in size)
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
    return 1.4 * (rows @ grid @ columns.T)


def _interpolation(n: int, cell: float, rng: np.random.Generator) -> np.ndarray:
    position = (np.arange(n) / cell + rng.random()).astype(np.float32)
    k = position.astype(np.int64)
    share = smooth_step(position - k).astype(np.float32)
    matrix = np.zeros((n, int(k[-1]) + 2), np.float32)
    matrix[np.arange(n), k] = 1 - share
    matrix[np.arange(n), k + 1] = share
    return matrix


def _add_object(log_light: np.ndarray, contrast: float, rng: np.random.Generator) -> None:
    """Add (in place) a turned rectangle or ellipse with an edge about a pixel soft."""
    height, width = log_light.shape
    centre = rng.uniform(0, 1, 2) * (width, height)
    half = np.exp(rng.uniform(math.log(4), math.log(90), 2))
    reach = float(np.hypot(*half)) + 2
    x0, x1 = int(max(centre[0] - reach, 0)), int(min(centre[0] + reach, width))
    y0, y1 = int(max(centre[1] - reach, 0)), int(min(centre[1] + reach, height))
    turn = rng.uniform(0, math.pi)
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(centre[0])
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(centre[1]))[:, None]
    u = np.abs(math.cos(turn) * dx + math.sin(turn) * dy)
    v = np.abs(math.cos(turn) * dy - math.sin(turn) * dx)
    if rng.random() < 0.5:
        inside = np.minimum(half[0] - u, half[1] - v)
    else:
        inside = (1 - np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2)) * half.min()
    log_light[y0:y1, x0:x1] += rng.normal(0, contrast) * np.clip(inside + 0.5, 0, 1)
