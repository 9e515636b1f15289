"""How hands move: finger angles, wrist rotation and wrist position as smooth functions of time.

Everything is a sum of minimum-jerk moves between keyframes, so that all of it is continuous to the second derivative.
Angles are those of `evhands.hand.open_hand` (anatomical, so that limits and gestures have a meaning); the rotation goes
along geodesics. The wrist may move in two layers (a slow path and a quicker one on top) and trembles at 8-12 Hz.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numba import njit

from evhands.geometry import unproject
from evhands.hand import open_hand
from evhands.hand.skeleton import FINGERS
from evhands.types import Size

Orientation = Literal["frontal", "wide", "free"]


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """How far, how often and how fast a hand moves; ranges are log-uniform unless said otherwise."""

    keyframe_s: tuple[float, float] = (0.15, 1.2)
    hold_share: float = 0.15
    """Share of the moves that stay where they are."""
    peak_speed: tuple[float, float] = (0.05, 2.0)
    """Greatest speed of the wrist path in m/s."""
    peak_turn: tuple[float, float] = (0.5, 15.0)
    """Greatest speed of the wrist rotation in rad/s."""
    finger_speed: tuple[float, float] = (1.0, 20.0)
    """Greatest speed of a finger angle in rad/s."""
    wobble_m: tuple[float, float] = (0.001, 0.015)
    """Standard deviation of the second layer of the wrist path."""
    tremor_m: float = 0.0004


@dataclass(frozen=True, kw_only=True)
class View:
    """From where a hand is seen."""

    K: np.ndarray
    size: Size
    orientation: Orientation
    """frontal: palm or back to the camera within 20 degrees (sigma) an axis, in-plane +-30 degrees (uniform).
    wide: the same with 45 degrees (sigma) and any in-plane turn. free: any rotation."""
    depth_m: tuple[float, float]
    """Distance of the hand's centre from the camera (uniform)."""
    centre_m: np.ndarray
    """(3,) the hand's centre in the hand frame, from the wrist."""


@dataclass(frozen=True)
class Track:
    """Minimum-jerk moves between keyframes: `times` (k,) s ascending, `values` (k, d)."""

    times: np.ndarray
    values: np.ndarray

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Values (n, d) at times (n,)."""
        k, share = self.phase(t_s)
        return self.values[k] + share[:, None] * (self.values[k + 1] - self.values[k])

    def phase(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keyframe before each time, and the share of the move done (no speed or acceleration at its ends)."""
        k = np.clip(np.searchsorted(self.times, t_s, side="right") - 1, 0, len(self.times) - 2)
        s = np.clip((t_s - self.times[k]) / (self.times[k + 1] - self.times[k]), 0.0, 1.0)
        return k, s * s * s * (10 + s * (6 * s - 15))


@dataclass(frozen=True)
class Motion:
    """A hand's motion over a clip, for a RIGHT hand in the camera frame."""

    fingers: tuple[tuple[np.ndarray, Track], ...]
    """(indices into the angles, track of these angles) per group of angles that moves together."""
    turn: Track
    """Keyframe times of the wrist rotation; its values are unused."""
    rotations: np.ndarray
    """(k, 3, 3) rotation of the hand at the keyframes of `turn`."""
    path: Track
    wobble: Track
    """Second layer of the wrist path, in metres."""
    tremor: np.ndarray
    """(3, 3): amplitude in m, frequency in Hz and phase of x, y, z."""

    def angles(self, t_s: np.ndarray) -> np.ndarray:
        """Anatomical finger angles (n, a) in radians."""
        out = np.empty((len(t_s), len(open_hand.ANGLE_NAMES)))
        for indices, track in self.fingers:
            out[:, indices] = track.at(t_s)
        return out

    def rotation(self, t_s: np.ndarray) -> np.ndarray:
        """Hand-to-camera rotation matrices (n, 3, 3)."""
        k, share = self.turn.phase(t_s)
        return _along(self.rotations, k, share)

    def wrist(self, t_s: np.ndarray) -> np.ndarray:
        """Wrist positions (n, 3) in metres in the camera frame."""
        amplitude, frequency, phase = self.tremor
        shake = amplitude * np.sin(2 * math.pi * frequency * t_s[:, None] + phase)
        return self.path.at(t_s) + self.wobble.at(t_s) + shake


def draw_motion(config: MotionConfig, view: View, duration_s: float, rng: np.random.Generator) -> Motion:
    """Draw a motion of `duration_s` whose hand centre stays well in view of the camera."""
    turn, rotations = _draw_turn(config, view.orientation, duration_s, rng)
    path = _draw_path(config, view, duration_s, turn, rotations, rng)
    wobble_times = _keyframe_times(config, duration_s, rng)
    wobble = rng.normal(0, 1, (len(wobble_times), 3)) * _log_uniform(rng, config.wobble_m)
    tremor = np.stack([
        rng.uniform(0, config.tremor_m, 3), rng.uniform(8, 12, 3), rng.uniform(0, 2 * math.pi, 3)
    ])  # fmt: skip
    fingers = _draw_fingers(config, duration_s, rng)
    return Motion(fingers, turn, rotations, path, Track(wobble_times, wobble), tremor)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))


def _keyframe_times(config: MotionConfig, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Keyframe times that cover [0, duration], the first move already under way at 0."""
    first = _log_uniform(rng, config.keyframe_s)
    times = [-first * rng.random()]
    times.append(times[0] + first)
    while times[-1] <= duration_s:
        times.append(times[-1] + _log_uniform(rng, config.keyframe_s))
    return np.array(times)


PEAK = 1.875
"""Peak speed of a minimum-jerk move over its mean speed."""


def _draw_fingers(
    config: MotionConfig, duration_s: float, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, Track], ...]:
    """Whole-hand keyframes, or (in 40 % of the clips) every finger with times of its own."""
    owner = np.array([FINGERS.index(name.split("_")[0]) for name in open_hand.ANGLE_NAMES])
    groups = [np.flatnonzero(owner == f) for f in range(5)] if rng.random() < 0.4 else [np.arange(len(owner))]
    speed = _log_uniform(rng, config.finger_speed)
    fingers = []
    for indices in groups:
        times = _keyframe_times(config, duration_s, rng)
        keys = open_hand.sample_natural_angles(rng, len(times))[:, indices]
        for k in range(1, len(times)):
            reach = 0.0 if rng.random() < config.hold_share else speed * (times[k] - times[k - 1]) / PEAK
            low, high = open_hand.ANGLE_LIMITS[indices].T
            keys[k] = _walk(
                keys[k - 1], keys[k], _mean_angles()[indices], reach,
                lambda old, new: float(np.abs(new - old).max()), lambda x, low=low, high=high: np.clip(x, low, high),
            )  # fmt: skip
        fingers.append((indices, Track(times, keys)))
    return tuple(fingers)


def _walk(
    old: np.ndarray,
    fresh: np.ndarray,
    centre: np.ndarray | float,
    reach: float,
    distance: Callable[[np.ndarray, np.ndarray], float],
    limited: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """A step from old towards a fresh draw, no longer than `reach`, that keeps the spread of the draws.

    Plain steps of a part of the way would draw everything towards the mean: slow hands would never open or close. So
    the mixture of both is scaled away from the centre to the variance that each of them has.
    """
    share = min(1.0, reach / max(distance(old, fresh), 1e-9))
    new, far = old, 0.0
    for _ in range(4):  # the scaled step is longer than the plain one: look for the share that just reaches
        new = limited(centre + ((1 - share) * (old - centre) + share * (fresh - centre)) / math.hypot(1 - share, share))
        far = distance(old, new)
        if far <= reach:
            break
        share *= 0.98 * reach / max(far, 1e-9)
    return old + (new - old) * min(1.0, reach / max(far, 1e-9))


@lru_cache(maxsize=1)
def _mean_angles() -> np.ndarray:
    return open_hand.sample_natural_angles(np.random.default_rng(0), 4096).mean(0)


def draw_orientation(orientation: Orientation, back: bool, rng: np.random.Generator) -> np.ndarray:
    """A hand-to-camera rotation (3, 3) of a right hand that shows its palm or its back (unless "free")."""
    if orientation == "free":
        direction = rng.standard_normal(4)  # a uniform quaternion
        return rotation_matrix(_quaternion_vector(direction / np.linalg.norm(direction)))
    return oriented(draw_tilt_and_turn(orientation, rng), back)


FRONTAL_TURN = math.radians(30)


def draw_tilt_and_turn(orientation: Literal["frontal", "wide"], rng: np.random.Generator) -> np.ndarray:
    """(3,) radians: tilts about the image's x and y, then the turn in the image plane."""
    sigma, in_plane = (math.radians(20), FRONTAL_TURN) if orientation == "frontal" else (math.radians(45), math.pi)
    return np.array([*rng.normal(0, sigma, 2), rng.uniform(-in_plane, in_plane)])


def oriented(tilt_and_turn: np.ndarray, back: bool) -> np.ndarray:
    """The hand-to-camera rotation (3, 3) of two tilts and a turn, showing the palm or the back."""
    x, y, turn = tilt_and_turn
    vectors = np.array([[0.0, 0.0, turn], [x, y, 0.0], [0.0, math.pi if back else 0.0, 0.0]])
    in_plane_turn, tilted, palm_or_back = rotation_matrix(vectors)
    return in_plane_turn @ tilted @ palm_or_back @ UPRIGHT


def _quaternion_vector(q: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(q[1:])
    return 2 * math.atan2(length, q[0]) * q[1:] / length


UPRIGHT = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Hand to camera: fingers (-x) up in the image (-y), back of the hand (+y) away from the camera (+z)."""


def _draw_turn(
    config: MotionConfig, orientation: Orientation, duration_s: float, rng: np.random.Generator
) -> tuple[Track, np.ndarray]:
    times = _keyframe_times(config, duration_s, rng)
    reach = _log_uniform(rng, config.peak_turn) * np.diff(times) / PEAK
    reach[rng.random(len(reach)) < config.hold_share] = 0.0
    rotations = _frontal_walk(reach, rng) if orientation == "frontal" else _free_walk(orientation, reach, rng)
    return Track(times, np.zeros((len(times), 0))), rotations


def _frontal_walk(reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotations (k + 1, 3, 3) within the frontal range, each at most `reach` (k,) rad from the one before."""
    back = rng.random() < 0.5  # a turn from palm to back would leave the frontal range on its way: once a clip
    angles = draw_tilt_and_turn("frontal", rng)
    rotations = [oriented(angles, back)]
    for allowed in reach:
        fresh = draw_tilt_and_turn("frontal", rng)
        angles = _walk(angles, fresh, 0.0, float(allowed), _tilt_and_turn_distance, _within_frontal_turn)
        rotations.append(oriented(angles, back))
    return np.stack(rotations)


def _tilt_and_turn_distance(old: np.ndarray, new: np.ndarray) -> float:
    """An upper bound of the angle between the two rotations."""
    return float(np.linalg.norm(new[:2] - old[:2]) + abs(new[2] - old[2]))


def _within_frontal_turn(angles: np.ndarray) -> np.ndarray:
    return np.array([angles[0], angles[1], np.clip(angles[2], -FRONTAL_TURN, FRONTAL_TURN)])


def _free_walk(orientation: Orientation, reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotations (k + 1, 3, 3) along geodesics towards fresh draws, each at most `reach` (k,) rad."""
    rotations = [draw_orientation(orientation, rng.random() < 0.5, rng)]
    for allowed in reach:
        step = _step(rotations[-1], draw_orientation(orientation, rng.random() < 0.5, rng))
        share = min(1.0, allowed / max(float(np.linalg.norm(step)), 1e-9))
        rotations.append(rotations[-1] @ rotation_matrix(step * share))
    return np.stack(rotations)


def _step(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return rotation_vector(before.T @ after)


def _draw_path(
    config: MotionConfig, view: View, duration_s: float, turn: Track, rotations: np.ndarray, rng: np.random.Generator
) -> Track:
    times = _keyframe_times(config, duration_s, rng)
    k, share = turn.phase(times)
    at_keys = _along(rotations, k, share)
    speed = _log_uniform(rng, config.peak_speed)
    wrists = [_point_in_view(view, rng) - at_keys[0] @ view.centre_m]
    for i in range(1, len(times)):
        step = _point_in_view(view, rng) - at_keys[i] @ view.centre_m - wrists[-1]
        reach = 0.0 if rng.random() < config.hold_share else speed * (times[i] - times[i - 1]) / PEAK
        wrists.append(wrists[-1] + step * min(1.0, reach / max(float(np.linalg.norm(step)), 1e-9)))
    return Track(times, np.stack(wrists))


def _along(rotations: np.ndarray, k: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The rotation a share of the way along the geodesic from keyframe k to k + 1."""
    steps = rotation_vector(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])
    return rotations[k] @ rotation_matrix(steps[k] * share[:, None])


def _point_in_view(view: View, rng: np.random.Generator) -> np.ndarray:
    """A place of the hand's centre: any pixel of the middle 60 % of the image at any allowed depth."""
    depth = rng.uniform(*view.depth_m)
    pixel = np.array(view.size) * rng.uniform(0.2, 0.8, 2)
    return unproject(pixel, np.array(depth), view.K)


# scipy does the same, at half a millisecond a call: too slow for the dozens of small calls a clip needs.
def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation vectors (*b, 3) to matrices (*b, 3, 3)."""
    flat = np.ascontiguousarray(vector, np.float64).reshape(-1, 3)
    return _rotation_matrices(flat).reshape(*vector.shape[:-1], 3, 3)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices (*b, 3, 3) to rotation vectors (*b, 3) of at most pi."""
    flat = np.ascontiguousarray(matrix, np.float64).reshape(-1, 3, 3)
    return _rotation_vectors(flat).reshape(*matrix.shape[:-2], 3)


@njit(cache=True, nogil=True)
def _rotation_matrices(vectors):  # type: ignore[no-untyped-def]
    out = np.empty((len(vectors), 3, 3))
    for i in range(len(vectors)):
        x, y, z = vectors[i]
        angle = math.sqrt(x * x + y * y + z * z)
        a = math.sin(angle) / angle if angle > 1e-9 else 1.0
        b = (1 - math.cos(angle)) / (angle * angle) if angle > 1e-9 else 0.5
        m = out[i]
        m[0, 0], m[0, 1], m[0, 2] = 1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y
        m[1, 0], m[1, 1], m[1, 2] = b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x
        m[2, 0], m[2, 1], m[2, 2] = b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y)
    return out


@njit(cache=True, nogil=True)
def _rotation_vectors(matrices):  # type: ignore[no-untyped-def]
    """By way of the quaternion, from whichever of its entries is largest, so that angles near pi are as good."""
    out = np.empty((len(matrices), 3))
    q = np.empty(4)
    for i in range(len(matrices)):
        m = matrices[i]
        squares = (1 + m[0, 0] + m[1, 1] + m[2, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2],
                   1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2])  # fmt: skip
        largest = 0
        for k in range(1, 4):
            if squares[k] > squares[largest]:
                largest = k
        wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
        xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
        if largest == 0:
            q[0], q[1], q[2], q[3] = squares[0], wx, wy, wz
        elif largest == 1:
            q[0], q[1], q[2], q[3] = wx, squares[1], xy, xz
        elif largest == 2:
            q[0], q[1], q[2], q[3] = wy, xy, squares[2], yz
        else:
            q[0], q[1], q[2], q[3] = wz, xz, yz, squares[3]
        if q[0] < 0:
            q *= -1
        length = math.sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        scale = 2 * math.atan2(length, q[0]) / length if length > 1e-12 else 0.0
        for k in range(3):
            out[i, k] = scale * q[k + 1]
    return out
