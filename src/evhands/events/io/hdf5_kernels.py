"""Chunks of columns packed as HDF5's shuffle and LZF filters do it, several times as fast as these.

Event columns hold little but runs: the upper bytes of times and coordinates. So the packer here looks for runs of one
byte alone and leaves the rest as it is; any LZF decoder reads the result. Format: liblzf (control byte below 32:
as many literals and one more; else length in the upper three bits, distance back - 1 in the lower five and the next).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8
from numba import njit

_LONGEST_RUN = 264
_LONGEST_LITERAL = 32


def packed_chunk(values: Shaped[np.ndarray, " n"]) -> tuple[UInt8[np.ndarray, " k"], bool]:
    """(bytes of a whole chunk after shuffle and LZF, True); where that saves nothing those after shuffle, False."""
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    shuffled = np.empty(planes.size, np.uint8)
    _shuffle(planes, shuffled)
    out = np.empty(planes.size + planes.size // _LONGEST_LITERAL + 16, np.uint8)
    size = _pack_runs(shuffled, out)
    return (out[:size], True) if size < len(shuffled) else (shuffled, False)


@njit(cache=True, nogil=True)
def _shuffle(planes: UInt8[np.ndarray, "n s"], out: UInt8[np.ndarray, " m"]) -> None:
    n, width = planes.shape
    for k in range(width):
        for i in range(n):
            out[k * n + i] = planes[i, k]


@njit(cache=True, nogil=True)
def _pack_runs(source: UInt8[np.ndarray, " n"], out: UInt8[np.ndarray, " m"]) -> int:
    """Write `source` as an LZF stream; returns its length."""
    n, at, waiting, i = len(source), 0, 0, 0
    while i < n:
        j = i + 1
        while j < n and source[j] == source[i]:
            j += 1
        if j - i < 4:
            i = j
            continue
        at = _literals(source, waiting, i + 1, out, at)
        i += 1
        while j - i >= 3:
            length = min(j - i, _LONGEST_RUN)
            if length < 9:
                out[at] = (length - 2) << 5
                at += 1
            else:
                out[at] = 7 << 5
                out[at + 1] = length - 9
                at += 2
            out[at] = 0  # one byte back
            at += 1
            i += length
        waiting = i
    return _literals(source, waiting, n, out, at)


@njit(cache=True, nogil=True)
def _literals(source: UInt8[np.ndarray, " n"], start: int, end: int, out: UInt8[np.ndarray, " m"], at: int) -> int:
    while start < end:
        count = min(end - start, _LONGEST_LITERAL)
        out[at] = count - 1
        for k in range(count):
            out[at + 1 + k] = source[start + k]
        at += count + 1
        start += count
    return at
