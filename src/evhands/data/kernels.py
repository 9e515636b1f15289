"""The loops over events of the data path: finding windows, moving their events into crops, thinning. No torch."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def first_at(t_us, first_of_ms, start_us, times):
    """For each time the index of the first event at or after it, by the index of milliseconds and a short search."""
    found = np.empty(len(times), np.int64)
    for k in range(len(times)):
        tick = (times[k] - start_us) // 1000
        if times[k] <= start_us:
            found[k] = 0
            continue
        low = first_of_ms[min(tick, len(first_of_ms) - 1)]
        high = first_of_ms[tick + 1] if tick + 1 < len(first_of_ms) else len(t_us)
        while low < high:
            middle = (low + high) // 2
            if t_us[middle] < times[k]:
                low = middle + 1
            else:
                high = middle
        found[k] = low
    return found


@njit(cache=True, nogil=True)
def move_windows(
    x, y, t_us, p, table, first, start_us, edges_us, moves, image_size, crops, crop_limits, at, out_x, out_y, out_t,
    out_p, ends, in_image,
):  # fmt: skip
    """Write the events of consecutive windows into flat columns from entry `at` on; returns the entry behind the last.

    Window k: entries first[k]:first[k + 1], times [edges_us[k], edges_us[k + 1]) after start_us. A pixel goes through
    the table (of no rows: none) and moves[k] (2, 3) into the moved image; there it must lie on [0, w - 1] x [0, h - 1];
    then by crops[k] = (scale, x0, y0) into the crop, where it must lie in crop_limits (low, right, bottom), inclusive.
    ends[k]: the entry behind the window's last; in_image[k]: how many events lay in the image.
    """
    zero, right_of_image, bottom_of_image = np.float32(0), np.float32(image_size[0] - 1), np.float32(image_size[1] - 1)
    low, right, bottom = np.float32(crop_limits[0]), np.float32(crop_limits[1]), np.float32(crop_limits[2])
    rows, columns = table.shape[0], table.shape[1]
    kept = np.uint64(at)  # unsigned: no test for a negative index
    for k in range(len(first) - 1):
        xx, xy, x0 = moves[k, 0, 0], moves[k, 0, 1], moves[k, 0, 2]
        yx, yy, y0 = moves[k, 1, 0], moves[k, 1, 1], moves[k, 1, 2]
        scale, left, top = crops[k, 0], crops[k, 1], crops[k, 2]
        begin, per_us = edges_us[k], 1.0 / (edges_us[k + 1] - edges_us[k])
        window = slice(first[k], first[k + 1])
        here_x, here_y, here_t, here_p = x[window], y[window], t_us[window], p[window]
        inside = np.uint64(0)
        for i in range(len(here_x)):
            u, v = float(here_x[i]), float(here_y[i])
            if rows > 0:
                if here_x[i] >= columns or here_y[i] >= rows:
                    continue
                u, v = float(table[here_y[i], here_x[i], 0]), float(table[here_y[i], here_x[i], 1])
            a, b = np.float32(xx * u + xy * v + x0), np.float32(yx * u + yy * v + y0)
            stays = (a >= zero) & (a <= right_of_image) & (b >= zero) & (b <= bottom_of_image)
            inside += np.uint64(stays)
            c, d = np.float32(scale * a + left), np.float32(scale * b + top)
            stays &= (c >= low) & (c <= right) & (d >= low) & (d <= bottom)
            # Written in any case and counted if it stays: which events stay is a guess that the processor often loses.
            out_x[kept], out_y[kept], out_p[kept] = c, d, here_p[i]
            out_t[kept] = np.float32((float(here_t[i] - start_us) - begin) * per_us)
            kept += np.uint64(stays)
        ends[k], in_image[k] = kept, inside
    return kept


@njit(cache=True, nogil=True)
def thin(x, y, t, p, offsets, most, seeds, out_x, out_y, out_t, out_p, out_offsets):
    """Write a random subset of at most `most` events of every window, in their order; window w draws from seeds[w].

    Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S) on the random numbers of splitmix64.
    """
    written = 0
    out_offsets[0] = 0
    for window in range(len(offsets) - 1):
        left = offsets[window + 1] - offsets[window]
        wanted = min(most, left)
        state = np.uint64(seeds[window])
        for i in range(offsets[window], offsets[window + 1]):
            take = wanted == left
            if not take:
                state += np.uint64(0x9E3779B97F4A7C15)
                take = bool(_uniform(state) * left < wanted)
            if take:
                out_x[written], out_y[written], out_t[written], out_p[written] = x[i], y[i], t[i], p[i]
                written += 1
                wanted -= 1
            left -= 1
        out_offsets[window + 1] = written
    return written


@njit(cache=True, nogil=True, inline="always")
def _uniform(state):
    """In [0, 1): the mixing step of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / (1 << 53))


@njit(cache=True, nogil=True)
def keep_events(x, y, t_us, p, kept, out_x, out_y, out_t, out_p):
    """Write the events whose pixel is kept (h, w), in their order; returns how many."""
    n = 0
    for i in range(len(x)):
        out_x[n], out_y[n], out_t[n], out_p[n] = x[i], y[i], t_us[i], p[i]
        n += kept[y[i], x[i]]
    return n
