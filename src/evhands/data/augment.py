"""The augmentation of EvHandPose as one draw per sequence: in-plane turn, depth, translation, crop shift, image noise.

The turn is a turn of the camera about its optical axis: pose and joints turn with it, exactly. Depth and translation
are changes of the camera too, as a crop is: a hand seen z / z_new times larger, moved by f t / z_new pixels, is seen
through another focal length and principal point, and stays where it is. So whatever is projected through the moved
image's camera lies on the moved events to rounding, joints and hand parameters say the same (the published code moves
both by different amounts, O14), and all windows of a sequence move alike (O12).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Half widths of the uniform draws (specification, section 2). Metres, radians; jitter in sides of the crop.

    A hand is moved within depth_range_m and +-shift_range_m, or not beyond where it is already. noise, salt: standard
    deviation of what is added to LNES, and probability that 1 is. jitter_per_window: one for each window of a
    sequence, as published; else one for all.
    """

    depth_m: float = 0.1
    depth_range_m: tuple[float, float] = (0.7, 1.3)
    turn: float = 0.3
    shift_m: float = 0.1
    shift_range_m: float = 0.3
    jitter: float = 0.15
    jitter_per_window: bool = True
    noise: float = 0.05
    salt: float = 0.001


NO_AUGMENTATION = AugmentConfig(depth_m=0.0, turn=0.0, shift_m=0.0, jitter=0.0, noise=0.0, salt=0.0)


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sequence: metres, radians; jitter in sides of the crop, one a window."""

    depth_m: float
    turn: float
    shift_m: Float64[np.ndarray, " 2"]
    jitter: Float64[np.ndarray, "t 2"]


def draw(config: AugmentConfig, windows: int, rng: np.random.Generator) -> Draw:
    """One draw for a sequence of that many windows."""
    depth, turn, x, y = rng.uniform(-1, 1, 4)
    jitter = rng.uniform(-1, 1, (windows, 2)) * config.jitter
    if not config.jitter_per_window:
        jitter = np.broadcast_to(jitter[:1], jitter.shape)
    return Draw(depth * config.depth_m, turn * config.turn, np.array([x, y]) * config.shift_m, jitter)


@dataclass(frozen=True)
class Move:
    """Where a sequence goes: pixels u -> matrix u + offset, the camera frame turned about z by `turn`.

    image_K: what the camera frame, turned, is projected with onto the moved image.
    """

    matrix: Float64[np.ndarray, "2 2"]
    offset: Float64[np.ndarray, " 2"]
    turn: float
    image_K: Float64[np.ndarray, "3 3"]

    def pixels(self, points: Float[np.ndarray, "*b 2"]) -> Float64[np.ndarray, "*b 2"]:
        """Pixels of the moved image."""
        return points @ self.matrix.T + self.offset

    def points(self, points: Float[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
        """Points of the turned camera frame."""
        return points @ _about_z(self.turn).T

    def rotvecs(self, rotvecs: Float[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
        """Rotations (rotation vectors) of the turned camera frame."""
        flat = Rotation.from_rotvec(np.asarray(rotvecs, np.float64).reshape(-1, 3))
        return (Rotation.from_rotvec([0, 0, self.turn]) * flat).as_rotvec().reshape(rotvecs.shape)


def move_of(
    drawn: Draw, K: Float[np.ndarray, "3 3"], wrist: Float[np.ndarray, " 3"] | None, config: AugmentConfig
) -> Move:
    """The move of a draw for a hand whose wrist is at `wrist` (m, camera frame); without one the turn alone."""
    K = np.asarray(K, np.float64)
    image_K, turn = K.copy(), _about_z(drawn.turn)
    if wrist is not None:
        x, y, z = turn @ np.asarray(wrist, np.float64)
        new_z = moved_within(z, drawn.depth_m, *config.depth_range_m)
        limit = config.shift_range_m
        new = np.array([moved_within(a, d, -limit, limit) for a, d in zip((x, y), drawn.shift_m)])
        image_K[:2, :2] *= z / new_z
        image_K[:2, 2] += K[:2, :2] @ (new - (x, y)) / new_z
    matrix = image_K[:2, :2] @ turn[:2, :2] @ np.linalg.inv(K[:2, :2])
    return Move(matrix, image_K[:2, 2] - matrix @ K[:2, 2], drawn.turn, image_K)


def moved_within(value: float, step: float, low: float, high: float) -> float:
    """value + step within [low, high]; a value that is outside already goes no further out."""
    return float(np.clip(value + step, min(low, value), max(high, value)))


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@lru_cache(maxsize=1)
def _noise_pool() -> Float32[np.ndarray, " n"]:
    """A million normal numbers: fresh ones for every pixel would cost more than all the rest of the data path."""
    return np.random.default_rng(0).standard_normal(1 << 20, np.float32)


def lnes_noise(
    images: Float32[np.ndarray, "*b"], config: AugmentConfig, rng: np.random.Generator
) -> Float32[np.ndarray, "*b"]:
    """The images plus N(0, noise) everywhere and 1 at a share `salt` of the pixels.

    The normal numbers are a stretch of a fixed pool that begins at a random place.
    """
    pool, count = _noise_pool(), images.size
    begin = int(rng.integers(0, len(pool)))
    normal = pool[begin : begin + count] if begin + count <= len(pool) else np.resize(np.roll(pool, -begin), count)
    noisy = normal.reshape(images.shape) * np.float32(config.noise)
    noisy += images
    salted = rng.integers(0, max(count, 1), rng.binomial(count, config.salt))
    noisy.reshape(-1)[salted] += 1  # a pixel drawn twice counts once
    return noisy
