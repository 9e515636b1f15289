"""What is in view beside hands, and how it changes: a background that may move, a lamp that may flicker, things.

Camera motion is told by the background: hands move in the camera's own frame, whatever carries the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from evhands.geometry import unproject
from evhands.sim.keyframes import PEAK, Track, log_uniform
from evhands.sim.rotations import rotation_matrix
from evhands.types import Size

LightType = Literal["normal", "highlight", "flash", "mains"]


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What else is drawn into a clip; shares are chances a clip, ranges are uniform unless said otherwise."""

    light: LightType = "normal"
    """highlight: a strong near lamp with glossy skin. flash: a lamp that goes on and off at 1 to 20 Hz. mains: the 100
    or 120 Hz of lamps on alternating current."""
    clutter: float = 0.5
    """Share of clips with shapes on the wall."""
    moving_background: float = 0.0
    """Share of clips whose background slides by."""
    background_px_s: tuple[float, float] = (20.0, 300.0)
    """Its greatest speed in pixels a second (log-uniform)."""
    camera_turn: float = 0.0
    """Share of clips in which the camera turns, as on a head: everything but the hands moves."""
    camera_turn_rad_s: tuple[float, float] = (0.05, 1.5)
    """Its greatest speed (log-uniform)."""
    thing: float = 0.0
    """Share of clips with a second moving object."""
    jewellery: float = 0.0
    """Share of hands with a ring or a watch."""
    gloss: tuple[float, float] = (0.0, 0.0)
    """Strength of the weak specular light of the skin; white paper under the main light is 1."""


@dataclass(frozen=True)
class Lamp:
    """How all light of a scene changes with time: a factor of at most 1."""

    kind: LightType
    hz: float = 0.0
    depth: float = 0.0
    """Share of the light that comes and goes."""
    phase: float = 0.0

    RISE_S = 1e-3

    def gain(self, t_s: np.ndarray) -> np.ndarray:
        """The factor (n,) at times (n,)."""
        if self.kind == "mains":
            return 1 - self.depth * np.sin(math.pi * self.hz * t_s + self.phase) ** 2
        if self.kind != "flash":
            return np.ones(len(t_s))
        cycle = (self.hz * t_s + self.phase) % 1.0
        up, down = (
            np.clip(cycle / (self.hz * self.RISE_S), 0, 1),
            np.clip((cycle - 0.5) / (self.hz * self.RISE_S), 0, 1),
        )
        return 1 - self.depth * (1 - (up * up * (3 - 2 * up)) + down * down * (3 - 2 * down))

    def times(self, duration_s: float) -> np.ndarray:
        """When light must be looked at so as to see its change, in seconds."""
        if self.kind == "mains":
            return np.arange(0, duration_s, 1 / (12 * self.hz))
        if self.kind != "flash":
            return np.zeros(0)
        edges = (np.arange(math.ceil(2 * self.hz * duration_s) + 4) / 2 - 1 - self.phase) / self.hz
        # A look just before and after, because times are rounded: the change must not leak into the still stretches.
        times = (edges[:, None] + [-2e-6, *np.linspace(0, self.RISE_S, 6), self.RISE_S + 2e-6]).ravel()
        return times[(times >= 0) & (times <= duration_s)]


def draw_lamp(light: LightType, rng: np.random.Generator) -> Lamp:
    """A lamp of a scene type."""
    if light == "flash":
        hz = float(np.exp(rng.uniform(0, math.log(20))))
        return Lamp("flash", hz, rng.uniform(0.15, 0.6), rng.random())
    if light == "mains":
        return Lamp("mains", float(rng.choice([100.0, 120.0])), rng.uniform(0.05, 0.3), rng.uniform(0, math.pi))
    return Lamp(light)


@dataclass(frozen=True)
class Backdrop:
    """A picture behind everything, seen through a homography that may change with time.

    picture: (H, W) float32 light; as large as the sensor, or larger where it moves (mirrored beyond its edges).
    shift: pixels (x, y) by which it slides, or None; turn: rotation vectors of the camera (rad), or None.
    """

    picture: np.ndarray
    K: np.ndarray
    size: Size
    shift: Track | None = None
    turn: Track | None = None

    @property
    def moves(self) -> bool:
        return self.shift is not None or self.turn is not None

    def maps(self, t_s: np.ndarray) -> np.ndarray:
        """(n, 3, 3): sensor pixels to pixels of the picture at times (n,)."""
        margin = (np.array(self.picture.shape[::-1]) - self.size) / 2
        maps = np.tile(np.array([[1, 0, margin[0]], [0, 1, margin[1]], [0, 0, 1.0]]), (len(t_s), 1, 1))
        if self.shift is not None:
            maps[:, :2, 2] += self.shift.at(t_s)
        if self.turn is not None:
            maps = maps @ (self.K @ rotation_matrix(self.turn.at(t_s)) @ np.linalg.inv(self.K))
        return maps

    def speed_px_s(self, t_s: np.ndarray) -> np.ndarray:
        """(n - 1,) the fastest corner between neighbouring times."""
        width, height = self.size
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]]).T
        seen = self.maps(t_s) @ corners
        seen = seen[:, :2] / seen[:, 2:]
        return np.linalg.norm(np.diff(seen, axis=0), axis=1).max(-1) / np.maximum(np.diff(t_s), 1e-9)


def slide(config: SceneConfig, duration_s: float, rng: np.random.Generator) -> tuple[Track | None, Track | None]:
    """(shift, turn) of a backdrop: one of both, or neither."""
    which = rng.random()
    if which < config.moving_background:
        speed = log_uniform(rng, config.background_px_s)
        return _walk(duration_s, 2, lambda: rng.normal(0, 60, 2), speed, rng), None
    if which < config.moving_background + config.camera_turn:
        speed = log_uniform(rng, config.camera_turn_rad_s)
        return None, _walk(duration_s, 3, lambda: rng.normal(0, 0.25, 3) * [1, 1, 0.5], speed, rng)
    return None, None


def _walk(duration_s: float, size: int, draw, speed: float, rng: np.random.Generator) -> Track:  # type: ignore[no-untyped-def]
    """Minimum-jerk moves to drawn places, each begun when the last is done, none faster than `speed`."""
    times, values = [-rng.uniform(0.1, 0.5)], [np.zeros(size)]
    while times[-1] <= duration_s:
        goal = draw()
        length = max(PEAK * float(np.linalg.norm(goal - values[-1])) / speed, rng.uniform(0.2, 0.8))
        times.append(times[-1] + length)
        values.append(goal)
    return Track(np.array(times), np.stack(values))


@dataclass(frozen=True)
class Thing:
    """A rigid object: vertices (v, 3) m about its centre, faces (f, 3), albedo (v,), and where it is over time."""

    vertices: np.ndarray
    faces: np.ndarray
    albedo: np.ndarray
    path: Track
    spin: Track

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Vertices (n, v, 3) float32 in the camera frame."""
        turned = self.vertices @ np.swapaxes(rotation_matrix(self.spin.at(t_s)), -1, -2)
        return (turned + self.path.at(t_s)[:, None]).astype(np.float32)


def draw_thing(
    K: np.ndarray, size: Size, hand_depth_m: tuple[float, float], duration_s: float, rng: np.random.Generator
) -> Thing:
    """An ellipsoid, a box or a can of 4 to 20 cm that moves behind the hands, or (one in four) before them."""
    vertices, faces = SOLIDS[str(rng.choice(list(SOLIDS)))]()
    half = np.exp(rng.uniform(math.log(0.02), math.log(0.1), 3))
    near, far = hand_depth_m
    behind = rng.random() < 0.75 or near < 0.25
    depth = (far + 0.12, far + 0.6) if behind else (max(near - 0.15, 0.15), near - 0.08)
    half = half if behind else half * 0.3
    shade = float(np.exp(rng.uniform(math.log(0.05), math.log(0.9))))
    stripes = 1 + rng.uniform(0, 0.5) * np.sign(np.sin(vertices @ rng.normal(0, 3, 3) + rng.uniform(0, 6)))

    def place() -> np.ndarray:
        return unproject(np.array(size) * rng.uniform(0, 1, 2), np.array(rng.uniform(*depth)), K)

    path = _walk(duration_s, 3, place, log_uniform(rng, (0.05, 1.5)), rng)
    path = Track(path.times, np.concatenate([[place()], path.values[1:]]))
    spin = _walk(duration_s, 3, lambda: rng.normal(0, 1.0, 3), log_uniform(rng, (0.2, 5.0)), rng)
    albedo = np.clip(shade * stripes, 0.02, 1.0).astype(np.float32)
    return Thing(vertices * half, faces, albedo, path, spin)


def _sphere(rings: int = 9, segments: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere of `rings` circles and two poles."""
    polar = np.arange(1, rings + 1) * math.pi / (rings + 1)
    around = np.arange(segments) * 2 * math.pi / segments
    circles = np.stack([
        np.outer(np.sin(polar), np.cos(around)), np.outer(np.sin(polar), np.sin(around)),
        np.repeat(np.cos(polar)[:, None], segments, 1),
    ], -1).reshape(-1, 3)  # fmt: skip
    vertices = np.concatenate([circles, [[0, 0, 1.0], [0, 0, -1.0]]])
    faces = []
    for j in range(segments):
        k = (j + 1) % segments
        faces += [[len(circles), j, k], [len(circles) + 1, len(circles) - segments + k, len(circles) - segments + j]]
        for i in range(rings - 1):
            a, b, c, d = i * segments + j, i * segments + k, (i + 1) * segments + j, (i + 1) * segments + k
            faces += [[a, c, b], [b, c, d]]
    return vertices, np.array(faces, np.int32)


def _box() -> tuple[np.ndarray, np.ndarray]:
    """A cube with rounded-off shading: a sphere's grid pushed to the sides, so that edges are sharp but closed."""
    vertices, faces = _sphere(11, 20)
    return vertices / np.abs(vertices).max(1, keepdims=True) * 0.8, faces


def _can() -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = _sphere(11, 20)
    wide = np.linalg.norm(vertices[:, :2], axis=1, keepdims=True)
    return vertices / np.maximum(wide, np.abs(vertices[:, 2:])) * [0.6, 0.6, 1.0], faces


SOLIDS = {"ellipsoid": _sphere, "box": _box, "can": _can}


def wall_at(picture_log: np.ndarray, map_: np.ndarray, size: Size) -> np.ndarray:
    """The logarithm of the background's light (height, width) float32 through a homography, bilinear."""
    return _warped(np.ascontiguousarray(picture_log), np.ascontiguousarray(map_, np.float64), *size)


@njit(cache=True, nogil=True)
def _warped(picture, m, width, height):  # type: ignore[no-untyped-def]
    out = np.empty((height, width), np.float32)
    for y in range(height):
        warp_row(picture, m, y, 0, width, out[y])
    return out


_U = np.uintp  # as in `evhands.sim.fill`
WARP = 16
"""Pixels over which the place in the picture is taken as linear: wrong by less than 0.01 pixels for a camera that turns
by half a radian."""


@njit(cache=True, nogil=True, error_model="numpy")
def warp_row(picture, m, y, start, end, row):  # type: ignore[no-untyped-def]
    """Pixels start to end of row y of the background, into row[start:end]; the same whatever start and end."""
    rows, columns = picture.shape
    flat = picture.reshape(-1)
    u_end, v_end = _place(m, start // WARP * WARP, y)
    for first in range(start // WARP * WARP, end, WARP):
        x0, x1 = max(first, start), min(first + WARP, end)
        u, v = u_end, v_end
        u_end, v_end = _place(m, first + WARP, y)
        du, dv = np.float32((u_end - u) / WARP), np.float32((v_end - v) / WARP)
        # Relative to a whole pixel of the picture, so that 32 bits are enough.
        i0, j0 = np.int64(math.floor(min(u, u_end))) - 1, np.int64(math.floor(min(v, v_end))) - 1
        u0, v0 = np.float32(u - i0), np.float32(v - j0)
        if i0 < 0 or j0 < 0 or max(u, u_end) >= columns - 2 or max(v, v_end) >= rows - 2:
            for x in range(x0, x1):
                step = np.float32(np.int32(x - first))
                row[x] = _bilinear_mirrored(picture, i0, j0, u0 + step * du, v0 + step * dv)
            continue
        corner = j0 * columns + i0
        i_last, j_first = np.int64(u0 + np.float32(WARP - 1) * du), np.int64(v0)
        if i_last - np.int64(u0) == WARP - 1 and np.int64(v0 + np.float32(WARP - 1) * dv) == j_first:
            i_first = np.int64(u0)  # no turn and no scale: a pixel a pixel, in one row
            a, b = u0 - np.float32(i_first), v0 - np.float32(j_first)
            over = corner + j_first * columns + i_first - first + x0
            _lerped(flat, _U(over), _U(columns), a, du - np.float32(1), b, dv, _U(x0 - first), row, _U(x0), _U(x1 - x0))
        else:
            _looked_up(flat, corner, columns, u0, du, v0, dv, _U(x0 - first), row, _U(x0), _U(x1 - x0))


@njit(cache=True, nogil=True)
def _lerped(flat, over, columns, a0, da, b0, db, skip, row, x0, count):  # type: ignore[no-untyped-def]
    """`count` pixels that look into one row of the picture one after the other, from flat[over] on, into row[x0:];
    they are `skip` pixels from where (a0, b0) is."""
    for n in range(count):
        step = np.float32(np.int32(skip + n))
        a, b, k = a0 + step * da, b0 + step * db, over + n
        top = flat[k] + a * (flat[k + _U(1)] - flat[k])
        below = flat[k + columns] + a * (flat[k + columns + _U(1)] - flat[k + columns])
        row[x0 + n] = top + b * (below - top)


@njit(cache=True, nogil=True)
def _looked_up(flat, corner, columns, u0, du, v0, dv, skip, row, x0, count):  # type: ignore[no-untyped-def]
    """As `_lerped`, for pixels that look anywhere: the nth at (u0, v0) + (skip + n) (du, dv) from flat[corner]."""
    for n in range(count):
        step = np.float32(np.int32(skip + n))
        pu, pv = u0 + step * du, v0 + step * dv
        i, j = np.int32(pu), np.int32(pv)
        a, b = pu - np.float32(i), pv - np.float32(j)
        k = _U(corner + np.int64(j) * columns + i)
        under = k + _U(columns)
        top = flat[k] + a * (flat[k + _U(1)] - flat[k])
        below = flat[under] + a * (flat[under + _U(1)] - flat[under])
        row[x0 + n] = top + b * (below - top)


@njit(cache=True, nogil=True)
def _place(m, x, y):  # type: ignore[no-untyped-def]
    """Where in the picture pixel (x, y) looks, float64."""
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w


@njit(cache=True, nogil=True)
def _bilinear_mirrored(picture, i0, j0, u, v):  # type: ignore[no-untyped-def]
    """The picture at (i0 + u, j0 + v), u and v not below 0, mirrored beyond its edges."""
    rows, columns = picture.shape
    i, j = np.int64(u), np.int64(v)
    a, b = u - np.float32(i), v - np.float32(j)
    left, right = _mirrored(i0 + i, columns), _mirrored(i0 + i + 1, columns)
    over, under = _mirrored(j0 + j, rows), _mirrored(j0 + j + 1, rows)
    top = picture[over, left] + a * (picture[over, right] - picture[over, left])
    below = picture[under, left] + a * (picture[under, right] - picture[under, left])
    return top + b * (below - top)


@njit(cache=True, nogil=True)
def _mirrored(i, n):  # type: ignore[no-untyped-def]
    i = abs(i) % (2 * n - 2)
    return 2 * n - 2 - i if i >= n else i
