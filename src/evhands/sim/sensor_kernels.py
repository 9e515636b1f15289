"""The loops over pixels and over events of the event sensor, compiled."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from evhands.types import Size

Buffers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Flat pixel int32, t_us int64, polarity bool, with room at the end."""

LONGEST_WAIT_US = 1000.0
"""An event that the bus cannot read within this is lost."""
SETTLED = np.float32(1e-3)
"""A low-passed pixel this near to its target (log light) is left alone until its light changes."""

PIECE = 16
"""Pixels of a row that are kept, followed and searched for events together."""
FIELDS = 6
"""Numbers of a pixel: target, level, reference, ON and OFF threshold, leak."""
_U = np.uintp  # unsigned indices spare the kernels a test for negative ones, which keeps loops from vectorising
_LEVEL, _REFERENCE, _ON, _OFF, _LEAK = (_U(k * PIECE) for k in range(1, FIELDS))
_SIZE, _ALL = _U(PIECE), _U(FIELDS * PIECE)


class Pixels(NamedTuple):
    """The state of all pixels, in pieces of 16 along the rows, because what a step reads then lies together."""

    values: np.ndarray
    """(height * pieces * FIELDS * PIECE,) float32: piece by piece, of each its fields in turn."""
    last_us: np.ndarray
    """(height * pieces * PIECE,) int64: time of the last event."""
    waiting: np.ndarray
    """(height, 2) int32: from which to which piece a row has not reached its target."""
    hits: np.ndarray
    """(pieces,) bool: which pieces of the row at work have pixels that reached a threshold."""
    goal: np.ndarray
    """(pieces * PIECE,) float32: where the row at work goes."""
    before: np.ndarray
    """(pieces * PIECE,) float32: its levels before the step."""
    crossed: np.ndarray
    """(pieces * PIECE,) float32: how many thresholds its pixels have crossed, OFF negative; only where `hits`."""
    width: int

    def field(self, k: int) -> np.ndarray:
        """View (height, pieces, PIECE) of a field."""
        return self.values.reshape(len(self.waiting), len(self.hits), FIELDS, PIECE)[:, :, k]

    def image(self, k: int) -> np.ndarray:
        """Copy (height, width) of a field."""
        return self.field(k).reshape(len(self.waiting), -1)[:, : self.width]

    def put(self, k: int, image: np.ndarray, x0: int = 0, y0: int = 0) -> None:
        """Write an image (h, w) into a field."""
        rows, columns = image.shape
        whole = self.field(k)[y0 : y0 + rows].reshape(rows, -1)
        whole[:, x0 : x0 + columns] = image
        self.field(k)[y0 : y0 + rows] = whole.reshape(rows, -1, PIECE)


class Law(NamedTuple):
    """Of all pixels: refractory period and time constant in us (0 = none), light of half cut-off (0 = any)."""

    refractory: float
    tau: float
    half_light: float


def new_pixels(size: Size) -> Pixels:
    """Pixels (width, height) whose fields are all 0, and which never fire beyond the width."""
    width, height = size
    pieces = -(-width // PIECE)
    row = np.zeros((3, pieces * PIECE), np.float32)
    pixels = Pixels(
        np.zeros(height * pieces * FIELDS * PIECE, np.float32), np.full(height * pieces * PIECE, -(2**62), np.int64),
        np.zeros((height, 2), np.int32), np.zeros(pieces, np.bool_), row[0], row[1], row[2], width,
    )  # fmt: skip
    for k in (3, 4):
        pixels.field(k)[:] = np.inf
    return pixels


def new_buffers(capacity: int) -> Buffers:
    """Empty buffers."""
    return np.empty(capacity, np.int32), np.empty(capacity, np.int64), np.empty(capacity, np.bool_)


@njit(cache=True, nogil=True)
def grown(buffers, least):  # type: ignore[no-untyped-def]
    """The buffers, or longer copies of them with room for `least` events."""
    pixel, t_us, p = buffers
    while least > len(t_us):
        pixel = np.concatenate((pixel, np.empty_like(pixel)))
        t_us = np.concatenate((t_us, np.empty_like(t_us)))
        p = np.concatenate((p, np.empty_like(p)))
    return pixel, t_us, p


def sorted_columns(
    pixel: np.ndarray, t_us: np.ndarray, p: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns x, y, t_us, p of events in time order; equal times keep their order."""
    if len(t_us) == 0:
        return np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_)
    start = int(t_us.min())
    span = int(t_us.max()) - start + 1
    if span > 4_000_000 + 20 * len(t_us):  # sparse and long: counting every microsecond would cost more than sorting
        order = np.argsort(t_us, kind="stable")
        x, y = pixel[order] % width, pixel[order] // width
        return x.astype(np.uint16), y.astype(np.uint16), t_us[order], p[order]
    return _counting_sort(pixel, t_us, p, start, span, width)


@njit(cache=True, nogil=True, error_model="numpy")
def _counting_sort(pixel, t_us, p, start, span, width):  # type: ignore[no-untyped-def]
    position = np.zeros(span, np.int32)
    for i in range(len(t_us)):
        position[_U(t_us[i] - start)] += 1
    before = np.int32(0)
    for k in range(span):
        count = position[k]
        position[k] = before
        before += count
    x = np.empty(len(t_us), np.uint16)
    y = np.empty(len(t_us), np.uint16)
    t = np.empty(len(t_us), np.int64)
    q = np.empty(len(t_us), np.bool_)
    for i in range(len(t_us)):
        slot = _U(t_us[i] - start)
        place = _U(position[slot])
        position[slot] += 1
        row = np.uint32(pixel[i]) // np.uint32(width)
        y[place] = row
        x[place] = np.uint32(pixel[i]) - row * np.uint32(width)
        t[place] = t_us[i]
        q[place] = p[i]
    return x, y, t, q


@njit(cache=True, nogil=True)
def served(t_us, event_us, free_us, now_us):  # type: ignore[no-untyped-def]
    """Read sorted events one by one over a bus that takes `event_us` for each and is free from `free_us` on.

    Gives the times of reading (-1 where an event is lost), how many events are done with before `now_us`, and when the
    bus is free again.
    """
    read_us = np.empty(len(t_us), np.int64)
    for i in range(len(t_us)):
        begin = max(np.float64(t_us[i]), free_us)
        if begin - t_us[i] > LONGEST_WAIT_US:
            read_us[i] = -1
            continue
        if np.int64(begin) >= now_us:
            return read_us, i, free_us
        read_us[i] = np.int64(begin)
        free_us = begin + event_us
    return read_us, len(t_us), free_us


# The loops over pixels are apart and without branches, so that LLVM vectorises them.
@njit(cache=True, nogil=True, forceinline=True)
def _follow(pixels, left, first, end, decay, lag):  # type: ignore[no-untyped-def]
    """Move pieces of a row to their goal through the low-pass, exactly for a target that moves linearly in time."""
    values, goals, before = pixels.values, pixels.goal, pixels.before
    for p in range(first, end):
        base, x = _U(left + p) * _ALL, _U(p) * _SIZE
        for i in range(_SIZE):
            k = base + i
            goal, start, old = goals[x + i], values[k], values[k + _LEVEL]
            shift = lag * (goal - start)
            before[x + i] = old
            values[k + _LEVEL] = goal - shift + (old - start + shift) * decay
            values[k] = goal


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy", fastmath={"contract"})
def _follow_in_light(pixels, left, first, end, steps, half_light):  # type: ignore[no-untyped-def]
    """As `_follow`, each pixel with the cut-off that its light allows; `steps`: the step over bright tau.

    exp(x) is a Taylor polynomial of x / 8 (x / 4) to the power of 8 (4), which vectorises: light is within 1 % above
    0.01, the decay within 1.5 % of what remains after four time constants, and far nearer after few.
    """
    values, goals, before = pixels.values, pixels.goal, pixels.before
    one, half, sixth, last = np.float32(1), np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
    for p in range(first, end):
        base, x = _U(left + p) * _ALL, _U(p) * _SIZE
        for i in range(_SIZE):
            k = base + i
            goal, start, old = goals[x + i], values[k], values[k + _LEVEL]
            z = min(max(np.float32(1 / 16) * (start + goal), np.float32(-0.9)), half)
            light = one + z * (one + z * (half + z * (sixth + z * last)))
            light *= light
            light *= light
            light *= light
            rate, room = steps * light, light + half_light
            inverse = one / (rate * room)  # one division for both rate / room and room / rate
            z = np.float32(1 / 4) * rate * rate * inverse
            growth = one + z * (one + z * (half + z * (sixth + z * last)))
            growth *= growth
            growth *= growth
            shift = (goal - start) * (room * room * inverse)
            before[x + i] = old
            values[k + _LEVEL] = goal - shift + (old - start + shift) / growth
            values[k] = goal


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def _reached(pixels, left, first, end):  # type: ignore[no-untyped-def]
    """Which pieces of a row have pixels that reached a threshold (in `hits`), how many thresholds these have crossed
    (in `crossed`), their sum, and the first and the last + 1 piece that has not settled at its target."""
    values = pixels.values
    total, start, stop = 0, end, end
    for p in range(first, end):
        base = _U(left + p) * _ALL
        fired, far = np.int32(0), np.int32(0)
        for i in range(_SIZE):
            k = base + i
            level = values[k + _LEVEL]
            change = level - values[k + _REFERENCE]
            fired += np.int32(change >= values[k + _ON]) | np.int32(-change >= values[k + _OFF])
            far += np.int32(abs(values[k] - level) >= SETTLED)
        pixels.hits[_U(p)] = fired > 0
        if far > 0:
            start, stop = min(start, p), p + 1
        if fired > 0:
            total += _crossed(values, base, pixels.crossed, _U(p) * _SIZE)
    return total, start, stop


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def _crossed(values, base, crossed, x):  # type: ignore[no-untyped-def]
    """Write how many thresholds each pixel of a piece has crossed; returns their sum."""
    total = np.int32(0)
    for i in range(_SIZE):
        k = base + i
        change = values[k + _LEVEL] - values[k + _REFERENCE]
        threshold = values[k + _ON] if change > 0 else values[k + _OFF]
        count = np.int32(change / threshold) if abs(change) >= threshold else np.int32(0)
        crossed[x + i] = np.float32(count)
        total += abs(count)
    return total


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def advance(pixels, law, y, first, end, step_us):  # type: ignore[no-untyped-def]
    """Let pieces first to end of row y go to their goals; how many thresholds they cross (an upper bound of events).

    What still waits in the row must lie within. `fire` then turns the crossings into events.
    """
    left = y * len(pixels.hits)
    if law.tau <= 0:
        _follow(pixels, left, first, end, np.float32(0), np.float32(0))
    else:
        steps = np.float32(step_us / law.tau)
        if law.half_light > 0:
            _follow_in_light(pixels, left, first, end, steps, np.float32(law.half_light))
        else:
            _follow(pixels, left, first, end, np.float32(math.exp(-steps)), np.float32(1) / steps)
    total, pixels.waiting[y, 0], pixels.waiting[y, 1] = _reached(pixels, left, first, end)
    return total


@njit(cache=True, nogil=True, forceinline=True)
def fire(pixels, law, y, first, end, t0, t1, pixel_out, t_out, p_out, n):  # type: ignore[no-untyped-def]
    """Append the events of pieces that `advance` has moved, from t0 to t1; returns the new number of events."""
    values, crossed, last_us, dt = pixels.values, pixels.crossed, pixels.last_us, np.float64(t1 - t0)
    for p in range(_U(first), _U(end)):
        if not pixels.hits[p]:
            continue
        piece = _U(y * len(pixels.hits)) + p
        for i in range(_SIZE):
            x, k, last = p * _SIZE + i, piece * _ALL + i, piece * _SIZE + i
            if crossed[x] == 0:
                continue
            count = np.int64(crossed[x])
            step = values[k + _ON] if count > 0 else -values[k + _OFF]
            base, before = values[k + _REFERENCE], pixels.before[x]
            values[k + _REFERENCE] = base + abs(count) * step
            rise = values[k + _LEVEL] - before
            if rise == 0:  # rounding left it at its threshold in an earlier step
                continue
            for j in range(1, abs(count) + 1):
                share = (base + j * step - before) / rise
                t = min(t0 + np.int64(min(max(share, 0.0), 1.0) * dt), t1 - 1)
                if t - last_us[last] < law.refractory:
                    continue
                last_us[last] = t
                pixel_out[_U(n)] = y * pixels.width + np.int64(x)
                t_out[_U(n)] = t
                p_out[_U(n)] = count > 0
                n += 1
    return n


@njit(cache=True, nogil=True)
def aim(pixels, y, first, end):  # type: ignore[no-untyped-def]
    """The goal of pieces is where they were going."""
    for p in range(first, end):
        base, x = _U(y * len(pixels.hits) + p) * _ALL, _U(p) * _SIZE
        for i in range(_SIZE):
            pixels.goal[x + i] = pixels.values[base + i]


@njit(cache=True, nogil=True, forceinline=True)
def aim_blurred(pixels, first, end, down):  # type: ignore[no-untyped-def]
    """The goal of pieces is a row of the canvas, blurred by (1 2 1)/4 once it has been so along the columns."""
    quarter, half, goal = np.float32(0.25), np.float32(0.5), pixels.goal
    for x in range(_U(first) * _SIZE, _U(end) * _SIZE):
        goal[x] = quarter * (down[x] + down[x + _U(2)]) + half * down[x + _U(1)]


@njit(cache=True, nogil=True)
def expose(log_light, box, t0, t1, pixels, law, buffers, n):  # type: ignore[no-untyped-def]
    """One step of all pixels in `box` and of those still waiting for their target."""
    pixel_out, t_out, p_out = buffers
    x0, y0, x1, y1 = box
    for y in range(len(pixels.waiting)):
        first, end = pixels.waiting[y]
        inside = y0 <= y < y1 and x0 < x1
        if inside:
            a, b = x0 // PIECE, (x1 + PIECE - 1) // PIECE
            first, end = (min(first, a), max(end, b)) if first < end else (a, b)
        if first >= end:
            continue
        aim(pixels, y, first, end)
        if inside:
            pixels.goal[x0:x1] = log_light[y - y0]
        total = advance(pixels, law, y, first, end, t1 - t0)
        if total > 0:
            if n + total > len(t_out):
                pixel_out, t_out, p_out = grown((pixel_out, t_out, p_out), n + total)
            n = fire(pixels, law, y, first, end, t0, t1, pixel_out, t_out, p_out, n)
    return (pixel_out, t_out, p_out), n


@njit(cache=True, nogil=True)
def drift(pixels, law, t0, t1, buffers, n):  # type: ignore[no-untyped-def]
    """Let all references sink by their leak (log light per second) from t0 to t1, and fire what reaches a threshold."""
    seconds = np.float32((t1 - t0) * 1e-6)
    values, pieces = pixels.values, len(pixels.hits)
    pixel_out, t_out, p_out = buffers
    for piece in range(len(pixels.waiting) * pieces):
        base, fired = _U(piece) * _ALL, np.int32(0)
        for i in range(_SIZE):
            k = base + i
            reference = values[k + _REFERENCE] - values[k + _LEAK] * seconds
            values[k + _REFERENCE] = reference
            fired += np.int32(values[k + _LEVEL] - reference >= values[k + _ON])
        if fired == 0:
            continue
        for i in range(PIECE):
            k = base + _U(i)
            change, rise, leak = values[k + _LEVEL] - values[k + _REFERENCE], values[k + _ON], values[k + _LEAK]
            if change < rise:
                continue
            count = np.int64(change / rise)
            values[k + _REFERENCE] += count * rise
            if n + count > len(t_out):
                pixel_out, t_out, p_out = grown((pixel_out, t_out, p_out), n + count)
            for j in range(1, count + 1):
                ago_s = (change - j * rise) / leak if leak > 0 else np.float32(0)
                t = min(max(np.int64(t1 - ago_s * 1e6), t0), t1 - 1)
                if t - pixels.last_us[piece * PIECE + i] < law.refractory:
                    continue
                pixels.last_us[piece * PIECE + i] = t
                pixel_out[n] = piece // pieces * pixels.width + piece % pieces * PIECE + i
                t_out[n] = t
                p_out[n] = True
                n += 1
    return (pixel_out, t_out, p_out), n
