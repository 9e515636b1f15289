"""Rotation vectors and matrices in numba."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


# scipy does the same, at half a millisecond a call: too slow for the dozens of small calls a clip needs.
def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation vectors (*b, 3) to matrices (*b, 3, 3)."""
    flat = np.ascontiguousarray(vector, np.float64).reshape(-1, 3)
    return _rotation_matrices(flat).reshape(*vector.shape[:-1], 3, 3)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices (*b, 3, 3) to rotation vectors (*b, 3) of at most pi."""
    flat = np.ascontiguousarray(matrix, np.float64).reshape(-1, 3, 3)
    return _rotation_vectors(flat).reshape(*matrix.shape[:-2], 3)


@njit(cache=True, nogil=True)
def _rotation_matrices(vectors):  # type: ignore[no-untyped-def]
    out = np.empty((len(vectors), 3, 3))
    for i in range(len(vectors)):
        x, y, z = vectors[i]
        angle = math.sqrt(x * x + y * y + z * z)
        a = math.sin(angle) / angle if angle > 1e-9 else 1.0
        b = (1 - math.cos(angle)) / (angle * angle) if angle > 1e-9 else 0.5
        m = out[i]
        m[0, 0], m[0, 1], m[0, 2] = 1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y
        m[1, 0], m[1, 1], m[1, 2] = b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x
        m[2, 0], m[2, 1], m[2, 2] = b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y)
    return out


@njit(cache=True, nogil=True)
def _rotation_vectors(matrices):  # type: ignore[no-untyped-def]
    """By way of the quaternion, from whichever of its entries is largest, so that angles near pi are as good."""
    out = np.empty((len(matrices), 3))
    q = np.empty(4)
    for i in range(len(matrices)):
        m = matrices[i]
        squares = (1 + m[0, 0] + m[1, 1] + m[2, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2],
                   1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2])  # fmt: skip
        largest = 0
        for k in range(1, 4):
            if squares[k] > squares[largest]:
                largest = k
        wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
        xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
        if largest == 0:
            q[0], q[1], q[2], q[3] = squares[0], wx, wy, wz
        elif largest == 1:
            q[0], q[1], q[2], q[3] = wx, squares[1], xy, xz
        elif largest == 2:
            q[0], q[1], q[2], q[3] = wy, xy, squares[2], yz
        else:
            q[0], q[1], q[2], q[3] = wz, xz, yz, squares[3]
        if q[0] < 0:
            q *= -1
        length = math.sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        scale = 2 * math.atan2(length, q[0]) / length if length > 1e-12 else 0.0
        for k in range(3):
            out[i, k] = scale * q[k + 1]
    return out
