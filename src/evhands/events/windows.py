"""Cutting a stream of events into windows, and windows into the flat batches that representations are made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from numba import njit

from evhands.geometry import affine_between
from evhands.types import Camera, Events, EventStream, EventWindow, InputError, Size, WindowBatch

LONGEST_GAP_WINDOWS = 1_000_000
"""A gap of more empty windows than this is a broken clock, not a pause."""


def windows_by_time(
    stream: EventStream,
    length_us: int,
    stride_us: int | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
) -> Iterator[EventWindow]:
    """Yield the windows [start + k stride, start + k stride + length) that begin before `end_us`, in order.

    stride_us defaults to the length, start_us to the first event, end_us to just behind the last event; events outside
    [start_us, end_us) are left out, so the last windows may be cut short. A window is yielded as soon as an event at or
    behind its end has been read; windows without events are yielded too. Memory: one window and one chunk.
    A stream without events gives no window, or the empty ones between start_us and end_us where both are given.
    Raises InputError where time runs backwards or jumps over more than a million windows.
    """
    stride = length_us if stride_us is None else stride_us
    if length_us <= 0 or stride <= 0:
        raise InputError(
            f"The windows have length {length_us} us and stride {stride} us. Wanted both above zero; give longer ones."
        )
    begin, last_us = start_us, None
    held: deque[Events] = deque()
    for chunk in stream:
        if len(chunk) == 0:
            continue
        check_order(chunk, last_us)
        last_us = int(chunk.t_us[-1])
        begin = int(chunk.t_us[0]) if begin is None else begin
        stop = last_us + 1 if end_us is None else end_us
        wanted = chunk.between(begin, stop)
        if len(wanted):
            _check_gap(begin, wanted, stride)
            held.append(wanted)
        while begin + length_us <= last_us and begin < stop:
            yield gather(held, begin, begin + length_us, stream.size)
            begin += stride
            _forget(held, begin)
        if end_us is not None and last_us >= end_us:
            break
    last_stop = last_us + 1 if end_us is None and last_us is not None else end_us
    while begin is not None and last_stop is not None and begin < last_stop:
        yield gather(held, begin, begin + length_us, stream.size)
        begin += stride


def windows_by_count(stream: EventStream, length: int, stride: int | None = None) -> Iterator[EventWindow]:
    """Yield windows of `length` events, one every `stride` events (default: length); the rest at the end is left out.

    A window spans [time of its first event, time of its last event + 1). A stream of fewer events gives one window of
    all of them; one without events gives none. Memory: one window and one chunk.
    Raises InputError where time runs backwards.
    """
    step = length if stride is None else stride
    if length <= 0 or step <= 0:
        raise InputError(f"The windows have {length} events, one every {step}. Wanted both above zero; give more.")
    held, last_us, count = Events.empty(stream.size), None, 0
    skip = 0
    for chunk in stream:
        if len(chunk) == 0:
            continue
        check_order(chunk, last_us)
        last_us = int(chunk.t_us[-1])
        held = Events.concatenate([held, chunk])
        if skip:
            gone = min(skip, len(held))
            held, skip = held[gone:], skip - gone
        first = 0
        while first + length <= len(held):
            yield counted_window(held[first : first + length])
            first, count = first + step, count + 1
        gone = min(first, len(held))
        held, skip = held[gone:], skip + first - gone
    if count == 0 and len(held):
        yield counted_window(held)


def counted_window(events: Events) -> EventWindow:
    """The window of some events, from the first to just behind the last one."""
    return EventWindow(events, int(events.t_us[0]), int(events.t_us[-1]) + 1)


def check_order(chunk: Events, last_us: int | None) -> None:
    """InputError where a chunk (of at least one event), or what it follows, runs backwards in time."""
    backwards = np.flatnonzero(chunk.t_us[1:] < chunk.t_us[:-1])
    if len(backwards):
        before, after = chunk.t_us[backwards[0]], chunk.t_us[backwards[0] + 1]
    elif last_us is not None and chunk.t_us[0] < last_us:
        before, after = last_us, chunk.t_us[0]
    else:
        return
    raise InputError(
        f"The times of the events run backwards: {after} us comes after {before} us. Wanted events in the order of "
        "time; sort the recording, or cut it at that place."
    )


def _check_gap(begin_us: int, chunk: Events, stride_us: int) -> None:
    largest = max(int(np.diff(chunk.t_us).max(initial=0)), int(chunk.t_us[0]) - begin_us)
    if largest > stride_us * LONGEST_GAP_WINDOWS:
        raise InputError(
            f"The recording has no event for {largest / 1e6:.0f} s, which is more than {LONGEST_GAP_WINDOWS} windows. "
            "Wanted a recording without such a jump of its clock; give start and end times on one side of it."
        )


def gather(held: Sequence[Events] | deque[Events], start_us: int, end_us: int, size: Size) -> EventWindow:
    """The window [start, end) of events in chunks that follow each other."""
    parts = [part for part in (chunk.between(start_us, end_us) for chunk in held) if len(part)]
    events = parts[0] if len(parts) == 1 else Events.concatenate(parts, size)
    return EventWindow(events, start_us, end_us)


def _forget(held: deque[Events], before_us: int) -> None:
    while held and held[0].t_us[-1] < before_us:
        held.popleft()


def window_at(events: Events, end_us: int, length_us: int) -> EventWindow:
    """The window [end - length, end) of events already in memory; may be empty."""
    return EventWindow(events.between(end_us - length_us, end_us), end_us - length_us, end_us)


@dataclass(frozen=True)
class PixelMap:
    """Where the pixels of a sensor land in another image of `size`: an optional lookup table, then an affine map.

    table: float32 (h, w, 2) of the sensor, e.g. `geometry.undistortion_map`. Then (x, y) -> matrix (x, y) + offset.
    """

    size: Size
    table: Float32[np.ndarray, "h w 2"] | None = None
    matrix: Float64[np.ndarray, "2 2"] = field(default_factory=lambda: np.eye(2))
    offset: Float64[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))


def crop_map(camera: Camera, crop: Camera, table: Float[np.ndarray, "h w 2"] | None = None) -> PixelMap:
    """The map from pixels of `camera` (undistorted by `table`) into `crop`, an axis-aligned camera of the same pose."""
    scale, offset = affine_between(camera, crop)
    return PixelMap(crop.size, table, np.diag(scale), offset)


def batch_windows(
    windows: Sequence[EventWindow],
    maps: PixelMap | Sequence[PixelMap] | None = None,
    *,
    inside: Literal["area", "centres"] = "area",
    size: Size | None = None,
) -> WindowBatch:
    """Flat columns of many windows, moved by one map for all or one map a window, without the events that fall outside.

    t is (t_us - start) / (end - start). inside: "area" keeps what lies on the pixels, [-0.5, w - 0.5) x
    [-0.5, h - 0.5); "centres" keeps [0, w - 1] x [0, h - 1], as the published EvHandPose does (O5). Order is kept. All
    maps must lead to one size. `size` is needed only for no windows and no map. A map to NaN drops the event.
    """
    per_window = [maps] * len(windows) if maps is None or isinstance(maps, PixelMap) else list(maps)
    if len(per_window) != len(windows):
        raise ValueError(f"{len(per_window)} maps for {len(windows)} windows")
    sizes = {_target_size(m, w) for m, w in zip(per_window, windows, strict=True)}
    if not windows:
        sizes = {maps.size} if isinstance(maps, PixelMap) else {size} if size is not None else set()
    if len(sizes) != 1:
        raise ValueError(f"A batch has one image size, these windows have {sizes}")
    (width, height) = sizes.pop()
    total = sum(len(w.events) for w in windows)
    x, y, t = np.empty(total, np.float32), np.empty(total, np.float32), np.empty(total, np.float32)
    p, offsets = np.empty(total, np.bool_), np.zeros(len(windows) + 1, np.int64)
    low, high = (-0.5, -0.5) if inside == "area" else (0.0, -1.0)
    limits = np.array([low, width + high, height + high])
    for i, (window, pixel_map) in enumerate(zip(windows, per_window, strict=True)):
        to, clock = slice(offsets[i], None), (window.start_us, window.end_us - window.start_us)
        source = [*_integers(window.events), *clock, *_map_arrays(pixel_map), limits, inside == "area"]
        target = [x[to], y[to], t[to], p[to]]
        offsets[i + 1] = offsets[i] + _move(*source, *target)
    kept = slice(0, offsets[-1])
    return WindowBatch(x[kept], y[kept], t[kept], p[kept], offsets, (width, height))


def _target_size(pixel_map: PixelMap | None, window: EventWindow) -> Size:
    return window.events.size if pixel_map is None else pixel_map.size


def _integers(events: Events) -> tuple[np.ndarray, ...]:
    """The columns in the one layout that the kernel is compiled for."""
    return (
        np.ascontiguousarray(events.x, np.uint16),
        np.ascontiguousarray(events.y, np.uint16),
        np.ascontiguousarray(events.t_us, np.int64),
        np.ascontiguousarray(events.p, np.bool_),
    )


def _map_arrays(pixel_map: PixelMap | None) -> tuple[np.ndarray, np.ndarray]:
    """Lookup table (empty where there is none) and the affine map as (2, 3)."""
    no_table = np.empty((0, 0, 2), np.float32)
    if pixel_map is None:
        return no_table, np.eye(2, 3)
    affine = np.concatenate([pixel_map.matrix, np.reshape(pixel_map.offset, (2, 1))], 1).astype(np.float64)
    return no_table if pixel_map.table is None else np.ascontiguousarray(pixel_map.table, np.float32), affine


@njit(cache=True, nogil=True)
def _move(x, y, t_us, p, start_us, length_us, table, affine, limits, half_open, out_x, out_y, out_t, out_p):
    """Write the events that stay inside, give their number."""
    low, right, bottom = limits
    xx, xy, x0, yx, yy, y0 = affine.ravel()
    rows, columns = table.shape[0], table.shape[1]
    per_us = 1.0 / length_us
    kept = np.uint64(0)  # unsigned: no test for a negative index
    for i in range(len(x)):
        u, v = float(x[i]), float(y[i])
        if rows > 0:
            if x[i] >= columns or y[i] >= rows:
                continue
            u, v = float(table[y[i], x[i], 0]), float(table[y[i], x[i], 1])
        a, b = np.float32(xx * u + xy * v + x0), np.float32(yx * u + yy * v + y0)
        stays = (a >= low) & (a <= right) & (b >= low) & (b <= bottom)
        if half_open:
            stays &= (a < right) & (b < bottom)
        # Written in any case and counted if it stays: which events stay is a guess that the processor often loses.
        out_x[kept], out_y[kept], out_p[kept] = a, b, p[i]
        out_t[kept] = np.float32((t_us[i] - start_us) * per_us)
        kept += np.uint64(stays)
    return kept
