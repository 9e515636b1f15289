"""Flashes: when the light of the whole scene jumps, nearly every pixel fires within milliseconds, and what moves is
drowned. Such milliseconds can be told by where their events lie: everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from evhands.types import Events, EventWindow

BIN_US = 1000
_GRID = 8
_ENOUGH = 100_000
"""Of twice as many events every second is counted, and so on: a share tells as well where they lie."""


@dataclass(frozen=True, kw_only=True)
class FlashConfig:
    """When a millisecond counts as a flash: half of the 8 x 8 cells of the image hold `ratio` times as many events as
    usual (in the quieter third of the milliseconds that are given), and at least `least` a pixel. Its neighbours, in
    which a flash begins and fades, count from half of both on."""

    ratio: float = 6.0
    least: float = 0.004


def without_flashes(events: Events, config: FlashConfig = FlashConfig()) -> Events:
    """The events but for those of flashes; the events given (a few hundred milliseconds) say what is usual.

    A hand that begins to move, however fast, is no flash, since it fills few cells; a background that moves all the
    time is none, since it is usual. The same array comes back where there is no flash. No more than half of the time
    can be a flash.
    """
    if len(events) < 64:
        return events
    width, height = events.size
    first = int(events.t_us[0]) // BIN_US
    bins = int(events.t_us[-1]) // BIN_US - first + 1
    if bins > 100_000 or len(events) < config.least * width * height:
        return events
    counts = np.zeros((bins, _GRID * _GRID), np.int32)
    every = max(len(events) // _ENOUGH, 1)
    _count(events.x, events.y, events.t_us, first, width, height, every, counts)
    half = _GRID * _GRID // 2
    ordered = np.partition(counts, (half - 1, half), axis=1)
    middle = (ordered[:, half - 1] + ordered[:, half]) / 2
    least = max(config.ratio * float(np.quantile(middle, 1 / 3)), config.least * width * height / _GRID**2 / every)
    flash = middle >= least
    if not flash.any():
        return events
    near = middle >= least / 2
    for _ in range(8):  # as far as it fades, but no further
        grown = flash.copy()
        grown[1:] |= flash[:-1]
        grown[:-1] |= flash[1:]
        flash = flash | (grown & near)
    return events[~flash[events.t_us // BIN_US - first]]


def calm_window(window: EventWindow, recent: Events, config: FlashConfig = FlashConfig()) -> tuple[EventWindow, Events]:
    """A window, and the events up to its end that say what is usual, without flashes."""
    calm = without_flashes(recent, config)
    if calm is recent:
        return window, recent
    return replace(window, events=calm.between(window.start_us, window.end_us)), calm


@njit(cache=True, nogil=True)
def grid_cells(width, height):
    """Tables of columns and rows: their sum at x and y is the cell of an 8 x 8 grid, row by row."""
    columns, rows = np.empty(width, np.int64), np.empty(height, np.int64)
    for i in range(width):
        columns[i] = i * _GRID // width
    for i in range(height):
        rows[i] = i * _GRID // height * _GRID
    return columns, rows


@njit(cache=True, nogil=True)
def _count(x, y, t_us, first, width, height, every, counts):
    # Tables instead of three divisions an event, and times in order: a live tracker counts 200 ms for every window.
    columns, rows = grid_cells(width, height)
    bin, end_us = 0, (first + 1) * BIN_US
    for i in range(0, len(x), every):
        if t_us[i] >= end_us:
            bin = t_us[i] // BIN_US - first
            end_us = (first + bin + 1) * BIN_US
        counts[bin, rows[y[i]] + columns[x[i]]] += 1
