"""Which way hands are turned towards the camera, and how they turn from one keyframe to the next."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from evhands.sim.keyframes import walk
from evhands.sim.rotations import rotation_matrix, rotation_vector

Orientation = Literal["frontal", "wide", "free"]
"""How far palm or back may turn away from the camera: tilts about the image's x and y, then a turn in the image plane.

frontal: tilts of 20 degrees (sigma), in-plane +-30 degrees (uniform). wide: tilts of 45 degrees (sigma), any in-plane
turn. free: tilts within +-90 degrees (uniform), any in-plane turn; as palm and back are equally likely, this reaches
every rotation there is."""

UPRIGHT = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Hand to camera: fingers (-x) up in the image (-y), back of the hand (+y) away from the camera (+z)."""
FRONTAL_TURN = math.radians(30)
FREE_TILT = math.radians(90)


def draw_orientation(orientation: Orientation, back: bool, rng: np.random.Generator) -> np.ndarray:
    """A hand-to-camera rotation (3, 3) of a right hand that shows its palm or its back."""
    return oriented(draw_tilt_and_turn(orientation, rng), back)


def draw_tilt_and_turn(orientation: Orientation, rng: np.random.Generator) -> np.ndarray:
    """(3,) radians: tilts about the image's x and y, then the turn in the image plane."""
    if orientation == "free":
        return np.array([*rng.uniform(-FREE_TILT, FREE_TILT, 2), rng.uniform(-math.pi, math.pi)])
    sigma, in_plane = (math.radians(20), FRONTAL_TURN) if orientation == "frontal" else (math.radians(45), math.pi)
    return np.array([*rng.normal(0, sigma, 2), rng.uniform(-in_plane, in_plane)])


def oriented(tilt_and_turn: np.ndarray, back: bool) -> np.ndarray:
    """The hand-to-camera rotation (3, 3) of two tilts and a turn, showing the palm or the back."""
    x, y, turn = tilt_and_turn
    vectors = np.array([[0.0, 0.0, turn], [x, y, 0.0], [0.0, math.pi if back else 0.0, 0.0]])
    in_plane_turn, tilted, palm_or_back = rotation_matrix(vectors)
    return in_plane_turn @ tilted @ palm_or_back @ UPRIGHT


def draw_turns(orientation: Orientation, reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hand-to-camera rotations (k + 1, 3, 3), each at most `reach` (k,) rad from the one before."""
    if orientation == "frontal":
        return _frontal_turns(reach, rng)
    return _wide_turns(reach, rng) if orientation == "wide" else _free_turns(reach, rng)


def along(rotations: np.ndarray, k: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The rotation (n, 3, 3) a share of the way along the geodesic from keyframe k to k + 1."""
    return rotations[k] @ rotation_matrix(steps(rotations)[k] * share[:, None])


def steps(rotations: np.ndarray) -> np.ndarray:
    """The rotation vectors (k, 3) between k + 1 rotations, in the frame of the hand."""
    return rotation_vector(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])


def _frontal_turns(reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    back = rng.random() < 0.5  # a turn from palm to back would leave the frontal range on its way: once a clip
    angles = draw_tilt_and_turn("frontal", rng)
    rotations = [oriented(angles, back)]
    for allowed in reach:
        fresh = draw_tilt_and_turn("frontal", rng)
        angles = walk(angles, fresh, 0.0, float(allowed), _tilt_and_turn_distance, _within_frontal_turn)
        rotations.append(oriented(angles, back))
    return np.stack(rotations)


def _tilt_and_turn_distance(old: np.ndarray, new: np.ndarray) -> float:
    """An upper bound of the angle between the two rotations."""
    return float(np.linalg.norm(new[:2] - old[:2]) + abs(new[2] - old[2]))


def _within_frontal_turn(angles: np.ndarray) -> np.ndarray:
    return np.array([angles[0], angles[1], np.clip(angles[2], -FRONTAL_TURN, FRONTAL_TURN)])


def _wide_turns(reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Along geodesics towards a fresh draw at every keyframe."""
    rotations = [_any_side("wide", rng)]
    for allowed in reach:
        rotations.append(_towards(rotations[-1], _any_side("wide", rng), allowed)[0])
    return np.stack(rotations)


def _free_turns(reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Along geodesics to goals that stay until they are reached: slow hands get as far round as fast ones."""
    rotations, goal = [_any_side("free", rng)], _any_side("free", rng)
    for allowed in reach:
        rotation, reached = _towards(rotations[-1], goal, allowed)
        rotations.append(rotation)
        if reached:
            goal = _any_side("free", rng)
    return np.stack(rotations)


def _any_side(orientation: Orientation, rng: np.random.Generator) -> np.ndarray:
    return draw_orientation(orientation, rng.random() < 0.5, rng)


def _towards(rotation: np.ndarray, goal: np.ndarray, reach: float) -> tuple[np.ndarray, bool]:
    """The rotation at most `reach` rad on the way to the goal, and whether that is the goal itself."""
    step = rotation_vector(rotation.T @ goal)
    share = min(1.0, reach / max(float(np.linalg.norm(step)), 1e-9))
    return rotation @ rotation_matrix(step * share), share == 1.0
