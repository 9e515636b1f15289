"""The many images of a clip before the sensor: drawn row by row only where something changes, in one compiled loop.

Meshes and their light are worked out at key times, and move straight in between. A row is drawn, blurred and shown to
the pixels only from the leftmost to the rightmost pixel that a mesh touches, or touched in the image before, and where
pixels still follow; the whole image only where background or lamp change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from evhands.sim.fill import blur_down, fill, framed, repeat_border
from evhands.sim.render import corners, image_boxes, log_background, log_light
from evhands.sim.scenery import warp_row
from evhands.sim.sensor import Box
from evhands.sim.sensor_kernels import PIECE, Buffers, Law, Pixels, advance, aim_blurred, fire, grown
from evhands.sim.world import World

_KEYS_AT_ONCE = 96
_U = np.uintp  # as in `evhands.sim.fill`


class Stage(NamedTuple):
    """What the images are drawn on and from; arrays that one film writes over and over."""

    canvas: np.ndarray
    """(height + 2, columns) float32, `evhands.sim.fill`."""
    wall: np.ndarray
    """The same without meshes."""
    nearest: np.ndarray
    touched: np.ndarray
    """(2, height + 2) int32: columns from and to which a mesh touches the canvas."""
    before: np.ndarray
    """(2, height) int32: pixels from and to which the blurred mesh touched the image before."""
    mesh: np.ndarray
    """(v, 4) float32 corners of now."""
    work: np.ndarray
    """(3, v) float32."""
    faces: np.ndarray
    picture: np.ndarray
    """(H, W) float32 light of the backdrop."""
    picture_log: np.ndarray
    """(H, W) float32 its logarithm at the gain of the image before."""
    picture_work: np.ndarray
    down: np.ndarray
    """(columns,) float32: a row of the canvas, blurred along the columns."""
    strip: np.ndarray
    """(3, columns) float32: rows of a wall that moves."""
    seen_us: np.ndarray
    """(height, pieces) int64: when pieces were last shown what is before them."""
    now: np.ndarray
    """(height, 2) int64: from and to which piece a row is shown now."""


class Keys(NamedTuple):
    """Meshes at k successive times."""

    t_us: np.ndarray
    """(k,) float64."""
    corners: np.ndarray
    """(k, v, 4) float32, `evhands.sim.render.corners`."""


class Shots(NamedTuple):
    """n images to be taken."""

    t_us: np.ndarray
    """(n,) int64."""
    gain: np.ndarray
    """(n + 1,) float32 of all light, beginning with that of the image before the first."""
    maps: np.ndarray
    """(n + 1, 3, 3) float64 sensor pixels to pixels of the backdrop, as the gain; (0, 3, 3) where it stands still."""
    due: np.ndarray
    """(n,) bool: whether a backdrop that moves must be looked at everywhere; the last must be."""


def new_stage(world: World, wall: np.ndarray, dark: float, t_us: int, gain: float, box: Box) -> Stage:
    """A stage whose last image, at a time, had this wall (height, width) and gain, and its mesh within a box."""
    height, width = wall.shape
    canvas = framed(wall, -(-width // PIECE) * PIECE + 2)
    touched, before = np.empty((2, height + 2), np.int32), np.zeros((2, height), np.int32)
    touched[0], touched[1] = canvas.shape[1], 0
    before[:, box[1] : box[3]] = [[box[0]], [box[2]]]
    picture = np.ascontiguousarray(world.backdrop.picture, np.float32)
    log = log_background(picture, dark, gain)
    vertices = sum(len(a.shaped.vertices) + len(a.arm.vertices) for a in world.actors)
    vertices += sum(len(thing.vertices) for thing in world.things)
    return Stage(
        canvas, canvas.copy(), np.zeros_like(canvas), touched, before, np.empty((vertices, 4), np.float32),
        np.empty((3, vertices), np.float32), world.faces, picture, log, np.empty_like(picture),
        np.zeros(canvas.shape[1], np.float32), np.zeros((3, canvas.shape[1]), np.float32),
        np.full((height, canvas.shape[1] // PIECE), t_us, np.int64), np.zeros((height, 2), np.int64),
    )  # fmt: skip


def part_of(shots: Shots, images: slice) -> Shots:
    """Some of the images, the last of which is then due."""
    due = shots.due[images].copy()
    due[-1:] = True
    before = slice(images.start, images.stop + 1)
    return Shots(shots.t_us[images], shots.gain[before], shots.maps[before], due)


def keyed(world: World, key_s: np.ndarray) -> Iterator[Keys]:
    """Meshes at times (k,) in seconds, in overlapping parts."""
    for start in range(0, max(len(key_s) - 1, 1), _KEYS_AT_ONCE):
        t_us = key_s[start : start + _KEYS_AT_ONCE + 1] * 1e6
        vertices = world.vertices(t_us)
        points, _ = image_boxes(vertices, world.camera)
        yield Keys(t_us, corners(vertices, points, world.faces, world.look))


@njit(cache=True, nogil=True)
def shoot(keys, shots, dark, stage, pixels, law, start_us, buffers, n):  # type: ignore[no-untyped-def]
    """Show the images to the pixels, from the time before the first; returns the events as `EventSensor` keeps them."""
    t0, key, moves = start_us, 0, len(shots.maps) > 0
    for i in range(len(shots.t_us)):
        t1, gain = shots.t_us[i], shots.gain[i + 1]
        while key + 2 < len(keys.t_us) and keys.t_us[key + 1] <= t1:
            key += 1
        _pose(keys, key, t1, gain, dark, stage)
        relit = gain != shots.gain[i]
        if relit:
            log_light(
                stage.picture.reshape(-1), gain, dark, stage.picture_work.reshape(-1), stage.picture_log.reshape(-1)
            )
            if not moves:
                _hang(stage, pixels.width)
        fill(stage.mesh, stage.faces, stage.canvas, stage.nearest, stage.touched[0], stage.touched[1])
        if moves:
            buffers, n = _before_moving_wall(shots, i, t0, stage, pixels, law, buffers, n)
        else:
            buffers, n = _before_still_wall(relit, t0, t1, stage, pixels, law, buffers, n)
        _clear(stage)
        t0 = t1
    return buffers, n


@njit(cache=True, nogil=True)
def _before_still_wall(relit, t0, t1, stage, pixels, law, buffers, n):  # type: ignore[no-untyped-def]
    """Show the canvas to the pixels, where a mesh is or was, and where they still follow; or all of it."""
    for y in range(len(pixels.waiting)):
        first, end = _pieces(stage, y, pixels.width)
        if relit:
            first, end = 0, len(pixels.hits)
        elif pixels.waiting[y, 0] < pixels.waiting[y, 1]:
            first, end = min(first, pixels.waiting[y, 0]), max(end, pixels.waiting[y, 1])
        if first < end:
            blur_down(stage.canvas, y, first * PIECE, end * PIECE + 2, stage.down)
            buffers, n = _step(pixels, law, y, first, end, t0, t1, stage.down, buffers, n)
    return buffers, n


@njit(cache=True, nogil=True)
def _before_moving_wall(shots, i, t0, stage, pixels, law, buffers, n):  # type: ignore[no-untyped-def]
    """Show the canvas to the pixels before a wall that moves.

    Away from meshes it is drawn only for images that are `due`, which is as often as the wall itself asks for: each
    piece of a row remembers when it was last looked at. Where a mesh comes in, the wall of the image before is looked
    at first.
    """
    height, t1 = len(pixels.waiting), shots.t_us[i]
    for y in range(height):
        first, end = _pieces(stage, y, pixels.width)
        a = first
        while a < end:
            b = _alike(stage.seen_us[y], a, end)
            if stage.seen_us[y, a] < t0:
                _warp_strip(shots.maps[i], y, a, b, stage, pixels.width)
                blur_down(stage.strip, 0, a * PIECE, b * PIECE + 2, stage.down)
                buffers, n = _step(pixels, law, y, a, b, stage.seen_us[y, a], t0, stage.down, buffers, n)
                stage.seen_us[y, a:b] = t0
            a = b
        stage.now[y, 0], stage.now[y, 1] = (0, len(pixels.hits)) if shots.due[i] else (first, end)
    for row in range(height + 2):
        y = min(max(row - 1, 0), height - 1)
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        first = min(stage.now[above, 0], stage.now[y, 0], stage.now[below, 0])
        end = max(stage.now[above, 1], stage.now[y, 1], stage.now[below, 1])
        if first < end:
            _warp_under(shots.maps[i + 1], row, y, first, end, stage, pixels.width)
    for y in range(height):
        a, end = stage.now[y]
        if a < end:
            blur_down(stage.canvas, y, a * PIECE, end * PIECE + 2, stage.down)
        while a < end:
            b = _alike(stage.seen_us[y], a, end)
            buffers, n = _step(pixels, law, y, a, b, stage.seen_us[y, a], t1, stage.down, buffers, n)
            stage.seen_us[y, a:b] = t1
            a = b
    return buffers, n


@njit(cache=True, nogil=True, forceinline=True)
def _alike(seen_us, first, end):  # type: ignore[no-untyped-def]
    """The end of the pieces from the first on that were last looked at at the same time."""
    last = first + 1
    while last < end and seen_us[last] == seen_us[first]:
        last += 1
    return last


@njit(cache=True, nogil=True)
def _warp_strip(m, y, first, end, stage, width):  # type: ignore[no-untyped-def]
    """Draw three rows of wall around row y, for pieces of it, into the strip."""
    height = len(stage.canvas) - 2
    for k in range(3):
        _warp_row(m, min(max(y + k - 1, 0), height - 1), first * PIECE, end * PIECE + 2, stage, width, stage.strip[k])


@njit(cache=True, nogil=True, forceinline=True)
def _warp_row(m, y, start, stop, stage, width, out):  # type: ignore[no-untyped-def]
    """Columns start to stop of a row of canvas."""
    warp_row(stage.picture_log, m, y, max(start - 1, 0), min(stop - 1, width), out[1:])
    if start == 0:
        out[0] = out[1]
    for x in range(_U(width + 1), _U(stop)):
        out[x] = out[width]


@njit(cache=True, nogil=True)
def _warp_under(m, row, y, first, end, stage, width):  # type: ignore[no-untyped-def]
    """Draw the wall into a row of the canvas where no mesh is."""
    start, stop = first * PIECE, end * PIECE + 2
    wall, canvas, nearest = stage.strip[0], stage.canvas[row], stage.nearest[row]
    _warp_row(m, y, start, stop, stage, width, wall)
    for x in range(_U(start), _U(stop)):
        canvas[x] = canvas[x] if nearest[x] > 0 else wall[x]


@njit(cache=True, nogil=True, forceinline=True)
def _step(pixels, law, y, first, end, t0, t1, down, buffers, n):  # type: ignore[no-untyped-def]
    """Let pieces of a row go to what `down` shows of them once it is blurred along the row too."""
    aim_blurred(pixels, first, end, down)
    total = advance(pixels, law, y, first, end, t1 - t0)
    if total > 0:
        if n + total > len(buffers[1]):
            buffers = grown(buffers, n + total)
        n = fire(pixels, law, y, first, end, t0, t1, buffers[0], buffers[1], buffers[2], n)
    return buffers, n


@njit(cache=True, nogil=True, forceinline=True)
def _pieces(stage, y, width):  # type: ignore[no-untyped-def]
    """From which to which piece a mesh touches row y, or touched it in the image before; (0, 0) if none."""
    low, high = stage.touched
    # The lens blurs by a pixel: the columns of three rows, in pixels.
    left, right = min(low[y], low[y + 1], low[y + 2]) - 2, max(high[y], high[y + 1], high[y + 2])
    left, right = max(left, 0), min(right, width)
    first, end = 1 << 30, 0
    if left < right:
        first, end = left // PIECE, (right + PIECE - 1) // PIECE
    if stage.before[0, y] < stage.before[1, y]:
        first = min(first, stage.before[0, y] // PIECE)
        end = max(end, (stage.before[1, y] + PIECE - 1) // PIECE)
    stage.before[0, y], stage.before[1, y] = left, right
    return first, end


@njit(cache=True, nogil=True)
def _pose(keys, key, t_us, gain, dark, stage):  # type: ignore[no-untyped-def]
    """The corners of the mesh at a time, between two keys."""
    mesh = stage.mesh.reshape(-1)
    here = keys.corners[key].reshape(-1)
    there = keys.corners[min(key + 1, len(keys.t_us) - 1)].reshape(-1)
    span = keys.t_us[min(key + 1, len(keys.t_us) - 1)] - keys.t_us[key]
    share = np.float32((t_us - keys.t_us[key]) / span) if span > 0 else np.float32(0)
    for k in range(len(mesh)):
        mesh[k] = here[k] + share * (there[k] - here[k])
    light, work, log = stage.work
    for v in range(len(light)):
        light[v] = stage.mesh[v, 3]
    log_light(light, gain, dark, work, log)
    for v in range(len(light)):
        stage.mesh[v, 3] = log[v]


@njit(cache=True, nogil=True)
def _hang(stage, width):  # type: ignore[no-untyped-def]
    """The still wall and the canvas after the lamp has changed."""
    stage.wall[1:-1, 1 : width + 1] = stage.picture_log
    repeat_border(stage.wall, width)
    stage.canvas[:] = stage.wall


@njit(cache=True, nogil=True, forceinline=True)
def _clear(stage):  # type: ignore[no-untyped-def]
    """Take the mesh off the canvas."""
    low, high = stage.touched
    for row in range(len(low)):
        canvas, wall, nearest = stage.canvas[row], stage.wall[row], stage.nearest[row]
        if low[row] < high[row]:
            for x in range(_U(low[row]), _U(high[row])):
                canvas[x] = wall[x]
                nearest[x] = 0
        low[row], high[row] = stage.canvas.shape[1], 0


def show(
    keys: Keys, shots: Shots, dark: float, stage: Stage, pixels: Pixels, law: Law, start_us: int, buffers: Buffers,
    count: int,
) -> tuple[Buffers, int]:  # fmt: skip
    """`shoot` from Python."""
    return shoot(keys, shots, np.float32(dark), stage, pixels, law, start_us, buffers, count)
