"""Images of the events of a window: LNES, voxel grid, event image; numba on the CPU, the reference of the torch path.

All three take a `WindowBatch` and give (b, channels, h, w) float32; a window without events gives zeros. With
`bilinear` an event at (x, y) acts on the up to four pixels around it that lie inside the image; without, on the pixel
(floor x, floor y), if that lies inside. NaN coordinates act on nothing. Nothing depends on the number of threads;
LNES is bit for bit independent of the order of the events, sums are so up to float32 rounding (1e-5).

The kernels work block by block: a first loop without branches, which LLVM vectorises, finds the places and weights of a
block of events, a second one adds to (or takes the maximum with) short runs of neighbouring floats in an image with a
border of one pixel, so that no tap needs a test. This module imports no torch: the exported runtime uses it too.
`representations_torch` computes the same on tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from evhands.types import WindowBatch

ON, OFF = 0, 1
"""Channels of LNES, event image and image of warped events."""


def lnes(batch: WindowBatch, *, bilinear: bool = True, last_in_order: bool = False) -> Float32[np.ndarray, "b 2 h w"]:
    """Time (0 to 1 in the window) of the latest event at each pixel, channel 0 = ON, 1 = OFF; 0 where there is none.

    Bilinear: each of the four neighbours with a non-zero weight gets the full time. The latest is the per-pixel
    maximum, whatever the order of the events; `last_in_order` (only with bilinear=False) keeps the published rule for
    unsorted events: the last one in the input.
    """
    if bilinear and last_in_order:
        raise ValueError("last_in_order goes with bilinear=False only")
    if last_in_order:
        return _image(batch, 2, _last_in_order)
    return _image(batch, 2, _latest, np.float32(bilinear))


def voxel_grid(batch: WindowBatch, bins: int = 5, *, bilinear: bool = True) -> Float32[np.ndarray, "b bins h w"]:
    """Signed polarity (+1 ON, -1 OFF) spread linearly in time over `bins` planes at t = 0, 1/(bins-1), ..., 1.

    Without a loss at the border the sum of a window is its number of ON minus OFF events. Times are clipped to [0, 1].
    """
    if bins < 1:
        raise ValueError(f"bins = {bins}; wanted at least 1")
    return _image(batch, bins, _voxels, np.float32(bilinear))


def event_image(batch: WindowBatch, *, bilinear: bool = True) -> Float32[np.ndarray, "b 2 h w"]:
    """Number of events at each pixel, channel 0 = ON, 1 = OFF (bilinear: their weights)."""
    return _image(batch, 2, _counts, np.float32(bilinear))


def _image(batch: WindowBatch, channels: int, kernel: Callable[..., None], *options: object) -> np.ndarray:
    """Run a kernel, with the columns in the one layout that the kernels are compiled for."""
    width, height = batch.size
    x, y, t = (np.ascontiguousarray(column, np.float32) for column in (batch.x, batch.y, batch.t))
    p, offsets = np.ascontiguousarray(batch.p, np.bool_), np.ascontiguousarray(batch.offsets, np.int64)
    out = np.empty((len(batch), channels, height, width), np.float32)
    kernel(x, y, t, p, offsets, *options, out)
    return out


BLOCK = 256
ZERO, UNIT = np.float32(0), np.float32(1)
# Indices are unsigned where it matters: numba then leaves out its test for negative ones.
ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def locate(x, y, width, height, spread, at, parts):
    """Of a block of events the index of floor(x, y) in an image with a border of one pixel; parts = fx, fy, inside.

    An event that touches no pixel (NaN as well) gets the corner of the border and inside = 0. spread = 0 makes the
    fractions 0, so that an event acts on floor(x, y) alone.
    """
    w, h, stride = np.float32(width), np.float32(height), np.int32(width + 2)
    for j in range(len(x)):
        ok = (x[j] >= -UNIT) & (x[j] < w) & (y[j] >= -UNIT) & (y[j] < h)
        px = x[j] if ok else -UNIT
        py = y[j] if ok else -UNIT
        left, top = np.floor(px), np.floor(py)
        parts[0, j] = (px - left) * spread
        parts[1, j] = (py - top) * spread
        parts[2, j] = UNIT if ok else ZERO
        at[j] = (np.int32(top) + np.int32(1)) * stride + np.int32(left) + np.int32(1)


@njit(cache=True, nogil=True)
def _latest(x, y, t, p, offsets, spread, out):
    height, width = out.shape[2], out.shape[3]
    stride, plane = np.uint64(width + 2), np.uint32((height + 2) * (width + 2))
    padded = np.empty(2 * plane, np.float32)
    at, parts = np.empty(BLOCK, np.int32), np.empty((3, BLOCK), np.float32)
    for window in range(len(offsets) - 1):
        padded[:] = 0
        for first in range(offsets[window], offsets[window + 1], BLOCK):
            block = slice(first, min(first + BLOCK, offsets[window + 1]))
            time, on = t[block], p[block]
            locate(x[block], y[block], width, height, spread, at, parts)
            for j in range(len(on)):
                here = np.uint64(np.uint32(at[j]) + plane * np.uint32(not on[j]))
                below = here + (stride if parts[1, j] > ZERO else np.uint64(0))
                left = time[j] * parts[2, j]
                right = left if parts[0, j] > ZERO else ZERO
                padded[here] = max(padded[here], left)
                padded[here + ONE] = max(padded[here + ONE], right)
                padded[below] = max(padded[below], left)
                padded[below + ONE] = max(padded[below + ONE], right)
        _unpad(padded, out[window])


@njit(cache=True, nogil=True)
def _last_in_order(x, y, t, p, offsets, out):
    height, width = out.shape[2], out.shape[3]
    out[:] = 0
    for window in range(len(offsets) - 1):
        for i in range(offsets[window], offsets[window + 1]):
            if x[i] >= 0 and x[i] < width and y[i] >= 0 and y[i] < height:
                out[window, 0 if p[i] else 1, int(y[i]), int(x[i])] = t[i]


@njit(cache=True, nogil=True)
def _counts(x, y, t, p, offsets, spread, out):
    height, width = out.shape[2], out.shape[3]
    stride, plane = np.uint64(width + 2), np.uint32((height + 2) * (width + 2))
    padded = np.empty(2 * plane, np.float32)
    at, parts = np.empty(BLOCK, np.int32), np.empty((3, BLOCK), np.float32)
    for window in range(len(offsets) - 1):
        padded[:] = 0
        for first in range(offsets[window], offsets[window + 1], BLOCK):
            block = slice(first, min(first + BLOCK, offsets[window + 1]))
            on = p[block]
            locate(x[block], y[block], width, height, spread, at, parts)
            for j in range(len(on)):
                here = np.uint64(np.uint32(at[j]) + plane * np.uint32(not on[j]))
                below = here + stride
                fx, fy, inside = parts[0, j], parts[1, j], parts[2, j]
                upper, lower = inside * (UNIT - fy), inside * fy
                padded[here] += (UNIT - fx) * upper
                padded[here + ONE] += fx * upper
                padded[below] += (UNIT - fx) * lower
                padded[below + ONE] += fx * lower
        _unpad(padded, out[window])


@njit(cache=True, nogil=True)
def _voxels(x, y, t, p, offsets, spread, out):
    """Sums in (intervals of time, h + 2, w + 2, 2 ends): the taps at x and x + 1 are four neighbouring floats."""
    bins, height, width = out.shape[1], out.shape[2], out.shape[3]
    intervals = max(bins - 1, 1)
    stride, plane = np.uint64(2 * (width + 2)), np.int32(2 * (height + 2) * (width + 2))
    steps, last = np.float32(bins - 1), np.int32(intervals - 1)
    padded = np.empty(intervals * plane, np.float32)
    at, parts, ends = np.empty(BLOCK, np.int32), np.empty((3, BLOCK), np.float32), np.empty((2, BLOCK), np.float32)
    for window in range(len(offsets) - 1):
        padded[:] = 0
        for first in range(offsets[window], offsets[window + 1], BLOCK):
            block = slice(first, min(first + BLOCK, offsets[window + 1]))
            time, on = t[block], p[block]
            locate(x[block], y[block], width, height, spread, at, parts)
            for j in range(len(on)):
                step = min(max(time[j], ZERO), UNIT) * steps
                interval = min(np.int32(step), last)
                sign = parts[2, j] * (np.float32(2) * np.float32(on[j]) - UNIT)
                ends[1, j] = sign * (step - np.float32(interval))
                ends[0, j] = sign - ends[1, j]
                at[j] = interval * plane + np.int32(2) * at[j]
            for j in range(len(on)):
                here = np.uint64(np.uint32(at[j]))
                fx, fy, early, late = parts[0, j], parts[1, j], ends[0, j], ends[1, j]
                _add_four(padded, here, (UNIT - fx) * (UNIT - fy), fx * (UNIT - fy), early, late)  # type: ignore[call-arg]
                _add_four(padded, here + stride, (UNIT - fx) * fy, fx * fy, early, late)  # type: ignore[call-arg]
        _merge_intervals(padded.reshape(intervals, height + 2, width + 2, 2), out[window])


@intrinsic
def _add_four(typingctx, array, index, left, right, early, late):
    """array[index : index + 4] += (left early, left late, right early, right late), all float32, in one vector.

    Written for LLVM because numba leaves its pass that would join the four additions switched off: a third faster.
    """
    signature = types.void(array, index, left, right, early, late)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        four = ir.VectorType(ir.FloatType(), 4)

        def vector(values):
            built = ir.Constant(four, ir.Undefined)
            for lane, value in enumerate(values):
                built = builder.insert_element(built, value, ir.IntType(32)(lane))
            return built

        left, right, early, late = arguments[2:]
        added = builder.fmul(vector((left, left, right, right)), vector((early, late, early, late)))
        place = builder.bitcast(builder.gep(data, [arguments[1]]), four.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=4), added), place, align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True)
def _merge_intervals(ends, out):
    """A bin is the beginning of its interval plus the end of the one before."""
    bins, height, width = out.shape
    for plane in range(bins):
        for row in range(height):
            for column in range(width):
                value = ends[plane, row + 1, column + 1, 0] if plane < len(ends) else ZERO
                if plane > 0:
                    value += ends[plane - 1, row + 1, column + 1, 1]
                out[plane, row, column] = value


@njit(cache=True, nogil=True)
def _unpad(padded, out):
    channels, height, width = out.shape
    out[:] = padded.reshape(channels, height + 2, width + 2)[:, 1:-1, 1:-1]
