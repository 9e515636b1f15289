"""Rotation vectors of a handful of joints, put together and taken apart in microseconds, as unit quaternions.

`scipy.spatial.transform` says the same and takes a third of a millisecond for it, which is much of a live tracker's
window. All in float64; the results are of at most pi.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numba import njit


def composed(first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The rotation vectors of the matrices R(first) R(second)."""
    return _product(_floats(first), _floats(second), 1.0)


def leading(first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The rotation vectors from the first to the second, in the frame of the first: of R(first)' R(second)."""
    return _product(_floats(first), _floats(second), -1.0)


def _floats(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, np.float64)


@njit(cache=True, nogil=True)
def _product(first, second, sign):
    """sign -1 takes the inverse of the first."""
    out = np.empty_like(first)
    for i in range(len(first)):
        a0, a1, a2, a3 = _quaternion(first[i])
        a1, a2, a3 = sign * a1, sign * a2, sign * a3
        b0, b1, b2, b3 = _quaternion(second[i])
        w = a0 * b0 - a1 * b1 - a2 * b2 - a3 * b3
        x = a0 * b1 + a1 * b0 + a2 * b3 - a3 * b2
        y = a0 * b2 - a1 * b3 + a2 * b0 + a3 * b1
        z = a0 * b3 + a1 * b2 - a2 * b1 + a3 * b0
        if w < 0:
            w, x, y, z = -w, -x, -y, -z
        sine = np.sqrt(x * x + y * y + z * z)
        scale = 2.0 * np.arctan2(sine, w) / sine if sine > 1e-12 else 2.0
        out[i, 0], out[i, 1], out[i, 2] = scale * x, scale * y, scale * z
    return out


@njit(cache=True, nogil=True)
def _quaternion(vector):
    angle = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    scale = np.sin(angle / 2) / angle if angle > 1e-8 else 0.5
    return np.cos(angle / 2), scale * vector[0], scale * vector[1], scale * vector[2]
