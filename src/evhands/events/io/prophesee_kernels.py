"""Decoders of the Prophesee word formats: one pass, state carried from block to block, one thread.

Every kernel takes the words of a block and the state left by the block before, fills the output columns until they are
nearly full, and returns (words used, events, triggers). Sources: the EVT 2.0, EVT 3.0 and DAT format pages of
Prophesee.

State of EVT 3.0 (int64): 0 time base of the wraps, 1 TIME_HIGH (-1 = none yet), 2 TIME_LOW, 3 y, 4 x base, 5 polarity
of the vector. State of EVT 2.0: 0 time base of the wraps, 1 TIME_HIGH (-1 = none yet). State of DAT: 0 time base, 1
last time. Events and triggers before the first TIME_HIGH have no time and are skipped.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt16, UInt32
from numba import njit

ROOM = 12
"""The most events that one word can hold: a column with less room left counts as full."""

EVT3_STATE = (0, -1, 0, 0, 0, 0)
EVT2_STATE = (0, -1)
DAT_STATE = (0, 0)


@njit(cache=True, nogil=True)
def decode_evt3(
    words: UInt16[np.ndarray, " w"],
    state: Int64[np.ndarray, " 6"],
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
    triggers: Int64[np.ndarray, "m 3"],
) -> tuple[int, int, int]:
    """EVT 3.0: 16-bit words, the top four bits say what the other twelve are. Triggers are rows of time, id, edge."""
    base, high, low, row, vector_x, vector_p = state[0], state[1], state[2], state[3], state[4], state[5]
    time = base + (high << 12) + low
    events = found = i = 0
    limit, trigger_limit = len(t_us) - ROOM, len(triggers)
    while i < len(words) and events <= limit and found < trigger_limit:
        word = np.int64(words[i])
        i += 1
        kind, value = word >> 12, word & 0xFFF
        if kind == 0x2:  # one event: x and polarity
            if high >= 0:
                x[events] = value & 0x7FF
                y[events] = row
                t_us[events] = time
                p[events] = (value >> 11) != 0
                events += 1
        elif kind == 0x0:
            row = value & 0x7FF
        elif kind == 0x6:
            low = value
            time = base + (high << 12) + low
        elif kind == 0x4 or kind == 0x5:  # a vector of 12 or of 8 neighbours
            mask = value if kind == 0x4 else value & 0xFF
            if high >= 0:
                column = vector_x
                while mask:
                    if mask & 1:
                        x[events] = column
                        y[events] = row
                        t_us[events] = time
                        p[events] = vector_p != 0
                        events += 1
                    mask >>= 1
                    column += 1
            vector_x = min(vector_x + (12 if kind == 0x4 else 8), 0xFFF)
        elif kind == 0x3:
            vector_x = value & 0x7FF
            vector_p = value >> 11
        elif kind == 0x8:
            if value != high:
                if high - value > 0x800:
                    base += 1 << 24
                high, low = value, 0
                time = base + (high << 12)
        elif kind == 0xA and high >= 0:
            triggers[found, 0] = time
            triggers[found, 1] = value >> 8
            triggers[found, 2] = value & 1
            found += 1
    state[0], state[1], state[2], state[3], state[4], state[5] = base, high, low, row, vector_x, vector_p
    return i, events, found


@njit(cache=True, nogil=True)
def decode_evt2(
    words: UInt32[np.ndarray, " w"],
    state: Int64[np.ndarray, " 2"],
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
    triggers: Int64[np.ndarray, "m 3"],
) -> tuple[int, int, int]:
    """EVT 2.0: 32-bit words; an event carries the low six bits of its time, x and y of eleven bits each."""
    base, high = state[0], state[1]
    events = found = i = 0
    while i < len(words) and events < len(t_us) and found < len(triggers):
        word = np.int64(words[i])
        i += 1
        kind = word >> 28
        if kind <= 1:
            if high >= 0:
                x[events] = (word >> 11) & 0x7FF
                y[events] = word & 0x7FF
                t_us[events] = base + (high << 6) + ((word >> 22) & 0x3F)
                p[events] = kind == 1
                events += 1
        elif kind == 0x8:
            value = word & 0xFFFFFFF
            if high - value > 0x8000000:
                base += 1 << 34
            high = value
        elif kind == 0xA and high >= 0:
            triggers[found, 0] = base + (high << 6) + ((word >> 22) & 0x3F)
            triggers[found, 1] = (word >> 8) & 0x1F
            triggers[found, 2] = word & 1
            found += 1
    state[0], state[1] = base, high
    return i, events, found


@njit(cache=True, nogil=True)
def decode_dat(
    words: UInt32[np.ndarray, " w"],
    state: Int64[np.ndarray, " 2"],
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
    triggers: Int64[np.ndarray, "m 3"],
) -> tuple[int, int, int]:
    """DAT (2D or CD): pairs of 32-bit words, the time and x (14 bits), y (14 bits), polarity (4 bits)."""
    base, last = state[0], state[1]
    events = min(len(words) // 2, len(t_us))
    for i in range(events):
        time, word = np.int64(words[2 * i]), words[2 * i + 1]
        if last - time > 1 << 31:
            base += 1 << 32
        last = time
        x[i] = word & 0x3FFF
        y[i] = (word >> 14) & 0x3FFF
        t_us[i] = base + time
        p[i] = (word >> 28) != 0
    state[0], state[1] = base, last
    return 2 * events, events, 0
