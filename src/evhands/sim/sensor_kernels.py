"""The loops over pixels and over events of the event sensor, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

Buffers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Flat pixel int32, t_us int64, polarity bool, with room at the end."""

LONGEST_WAIT_US = 1000.0
"""An event that the bus cannot read within this is lost."""
SETTLED = np.float32(1e-3)
"""A low-passed pixel this near to its target (log light) is left alone until its light changes."""

_PIECE = 32
"""Pixels that are searched for leak events together."""


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


@njit(cache=True, nogil=True)
def _counting_sort(pixel, t_us, p, start, span, width):  # type: ignore[no-untyped-def]
    position = np.zeros(span + 1, np.int32)
    for i in range(len(t_us)):
        position[t_us[i] - start + 1] += 1
    for k in range(span):
        position[k + 1] += position[k]
    x = np.empty(len(t_us), np.uint16)
    y = np.empty(len(t_us), np.uint16)
    t = np.empty(len(t_us), np.int64)
    q = np.empty(len(t_us), np.bool_)
    for i in range(len(t_us)):
        slot = t_us[i] - start
        k = position[slot]
        position[slot] = k + 1
        y[k] = pixel[i] // width
        x[k] = pixel[i] % width
        t[k] = t_us[i]
        q[k] = p[i]
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


# The loops below run over every pixel of the box: apart, without branches, on few arrays, so that LLVM vectorises.
@njit(cache=True, nogil=True)
def _follow(goal, target, level, before, decay, lag):  # type: ignore[no-untyped-def]
    """Move a row of pixels to their goal through the low-pass, exactly for a target that moves linearly in time."""
    for i in range(len(goal)):
        old = level[i]
        shift = lag * (goal[i] - target[i])
        before[i] = old
        level[i] = goal[i] - shift + (old - target[i] + shift) * decay
        target[i] = goal[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _follow_in_light(goal, target, level, before, time_constants, half_light):  # type: ignore[no-untyped-def]
    """As `_follow`, each pixel with the cut-off that its light allows; `time_constants`: the step over bright tau.

    exp(x) is a Taylor polynomial of x / 8 (x / 4) to the power of 8 (4), which vectorises: light is within 1 % above
    0.01, the decay within 1.5 % of what remains after four time constants, and far nearer after few.
    """
    one, half, sixth, last = np.float32(1), np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
    for i in range(len(goal)):
        old, start, end = level[i], target[i], goal[i]
        z = min(max(np.float32(1 / 16) * (start + end), np.float32(-0.9)), half)
        light = one + z * (one + z * (half + z * (sixth + z * last)))
        light *= light
        light *= light
        light *= light
        rate, room = time_constants * light, light + half_light
        inverse = one / (rate * room)  # one division for both rate / room and room / rate
        z = np.float32(1 / 4) * rate * rate * inverse
        growth = one + z * (one + z * (half + z * (sixth + z * last)))
        growth *= growth
        growth *= growth
        shift = (end - start) * (room * room * inverse)
        before[i] = old
        level[i] = end - shift + (old - start + shift) / growth
        target[i] = end


@njit(cache=True, nogil=True)
def _any_reached(level, reference, on, off):  # type: ignore[no-untyped-def]
    """Whether any pixel of a row reaches a threshold."""
    count = np.int32(0)
    for i in range(len(level)):
        change = level[i] - reference[i]
        count += np.int32(change >= on[i]) | np.int32(-change >= off[i])
    return count > 0


@njit(cache=True, nogil=True, error_model="numpy")
def _crossings(level, reference, on, off, count):  # type: ignore[no-untyped-def]
    """Write how many thresholds each pixel of a row has crossed, OFF as negative numbers; returns their total."""
    total = np.int32(0)
    for i in range(len(level)):
        change = level[i] - reference[i]
        crossed = np.int32(change / (on[i] if change > 0 else off[i]))
        count[i] = crossed
        total += abs(crossed)
    return total


@njit(cache=True, nogil=True)
def _fire(count, before, level, reference, on, off, last_us, t0, t1, refractory, first, pixel_out, t_out, p_out, n):  # type: ignore[no-untyped-def]
    """Append the events of a row whose first pixel is number `first`; returns the new number of events."""
    dt = np.float64(t1 - t0)
    for i in range(len(count)):
        if count[i] == 0:
            continue
        step = on[i] if count[i] > 0 else -off[i]
        base = reference[i]
        reference[i] = base + abs(count[i]) * step
        rise = level[i] - before[i]
        if rise == 0:  # rounding left it at its threshold in an earlier step
            continue
        for k in range(1, abs(count[i]) + 1):
            share = (base + k * step - before[i]) / rise
            t = min(t0 + np.int64(min(max(share, 0.0), 1.0) * dt), t1 - 1)
            if t - last_us[i] < refractory:
                continue
            last_us[i] = t
            pixel_out[n] = first + i
            t_out[n] = t
            p_out[n] = count[i] > 0
            n += 1
    return n


@njit(cache=True, nogil=True)
def _settled(target, level):  # type: ignore[no-untyped-def]
    """Whether all these pixels have reached their target."""
    count = np.int32(0)
    for i in range(len(target)):
        count += np.int32(abs(target[i] - level[i]) < SETTLED)
    return count == len(target)


@njit(cache=True, nogil=True)
def _unsettled(target, level, x0, x1):  # type: ignore[no-untyped-def]
    """The part of x0..x1 of a row outside of which all pixels have reached their target, within 16; (0, 0) if all."""
    while x0 < x1 and _settled(target[x0 : min(x0 + 16, x1)], level[x0 : min(x0 + 16, x1)]):
        x0 += 16
    while x0 < x1 and _settled(target[max(x1 - 16, x0) : x1], level[max(x1 - 16, x0) : x1]):
        x1 -= 16
    return (x0, x1) if x0 < x1 else (0, 0)


@njit(cache=True, nogil=True)
def expose(  # type: ignore[no-untyped-def]
    log_light, box, t0, t1, target, level, reference, last_us, waiting, on, off, refractory, tau, half_light, buffers, n
):
    """One step of all pixels in `box` and of those still `waiting` (height, 2: x0, x1 of each row) for their target."""
    height, width = level.shape
    before = np.empty(width, np.float32)
    count = np.empty(width, np.int32)
    pixel_out, t_out, p_out = buffers
    steps = np.float32((t1 - t0) / tau) if tau > 0 else np.float32(np.inf)
    decay, lag, half_light = np.float32(math.exp(-steps)), 1 / steps, np.float32(half_light)
    for y in range(height):
        x0, x1 = waiting[y, 0], waiting[y, 1]
        inside = box[1] <= y < box[3] and box[0] < box[2]
        if not inside and x0 >= x1:
            continue
        left, right = (box[0], box[2]) if inside else (x1, x1)
        x0, x1 = (min(x0, left), max(x1, right)) if x0 < x1 else (left, right)
        row_target, row_level = target[y], level[y]
        for a, b in ((x0, left), (left, right), (right, x1)):
            if a >= b:
                continue
            # Outside the box pixels go on to where they were going.
            goal = log_light[y - box[1]] if a == left and inside else row_target[a:b]
            if tau > 0 and half_light > 0:
                _follow_in_light(goal, row_target[a:b], row_level[a:b], before[a - x0 : b - x0], steps, half_light)
            else:
                _follow(goal, row_target[a:b], row_level[a:b], before[a - x0 : b - x0], decay, lag)
        if tau > 0:
            waiting[y, 0], waiting[y, 1] = _unsettled(row_target, row_level, x0, x1)
        now, last, rises, falls = row_level[x0:x1], reference[y, x0:x1], on[y, x0:x1], off[y, x0:x1]
        if not _any_reached(now, last, rises, falls):
            continue
        total = _crossings(now, last, rises, falls, count)
        if n + total > len(t_out):
            pixel_out, t_out, p_out = grown((pixel_out, t_out, p_out), n + total)
        n = _fire(
            count[: x1 - x0], before, now, last, rises, falls, last_us[y, x0:x1], t0, t1, refractory, y * width + x0,
            pixel_out, t_out, p_out, n,
        )  # fmt: skip
    return (pixel_out, t_out, p_out), n


@njit(cache=True, nogil=True)
def _sink(level, reference, on, leak, seconds):  # type: ignore[no-untyped-def]
    """Lower the references of a row; whether any pixel then reaches its ON threshold."""
    count = np.int32(0)
    for i in range(len(level)):
        reference[i] -= leak[i] * seconds
        count += np.int32(level[i] - reference[i] >= on[i])
    return count > 0


@njit(cache=True, nogil=True)
def drift(level, reference, last_us, on, leak, t0, t1, refractory, buffers, n):  # type: ignore[no-untyped-def]
    """Let all references sink by `leak` (log light per second) from t0 to t1, and fire what reaches a threshold."""
    height, width = level.shape
    seconds = np.float32((t1 - t0) * 1e-6)
    pixel_out, t_out, p_out = buffers
    for y in range(height):
        now, last, rises, falls = level[y], reference[y], on[y], leak[y]
        for x0 in range(0, width, _PIECE):
            x1 = min(x0 + _PIECE, width)
            if not _sink(now[x0:x1], last[x0:x1], rises[x0:x1], falls[x0:x1], seconds):
                continue
            for x in range(x0, x1):
                change = now[x] - last[x]
                if change < rises[x]:
                    continue
                count = int(change / rises[x])
                last[x] += count * rises[x]
                if n + count > len(t_out):
                    pixel_out, t_out, p_out = grown((pixel_out, t_out, p_out), n + count)
                for k in range(1, count + 1):
                    ago_s = (change - k * rises[x]) / falls[x] if falls[x] > 0 else np.float32(0)
                    t = min(max(np.int64(t1 - ago_s * 1e6), t0), t1 - 1)
                    if t - last_us[y, x] < refractory:
                        continue
                    last_us[y, x] = t
                    pixel_out[n] = y * width + x
                    t_out[n] = t
                    p_out[n] = True
                    n += 1
    return (pixel_out, t_out, p_out), n
