"""Training pictures as other crops would show them: larger, smaller or moved, as an unsure tracker cuts them."""

from __future__ import annotations

import numpy as np
from numba import njit


def recropped(images: np.ndarray, K: np.ndarray, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and cameras of crops cut anew from crops.

    Every pixel goes where it lies in the new crop, the brightest of those that meet counts: of an LNES the latest
    event, as if it had been made for the new crop (but for the rounding to pixels of the old one).

    images: (B, T, 2, S, S); K: (B, T, 3, 3) of their cameras; crops: (B, 3) side over the old side, and how far the
    centre moves right and down, in old sides. Returns arrays as images and K.
    """
    side = images.shape[-1]
    scale, shift = pixel_moves(crops, side)
    out = np.zeros_like(images)
    lanes = images.shape[0]
    _move(images.reshape(lanes, -1, side, side), scale, shift, out.reshape(lanes, -1, side, side))
    moved = K.copy()
    moved[..., :2, :] *= scale[:, None, None, None].astype(K.dtype)
    moved[..., :2, 2] += shift[:, None].astype(K.dtype)
    return out, moved


def pixel_moves(crops: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale (B,) and shift (B, 2) of the pixels of crops of `side` pixels: u goes to scale * u + shift."""
    centre = (side - 1) / 2
    return 1 / crops[:, 0], centre - (centre + crops[:, 1:] * side) / crops[:, :1]


@njit(cache=True, nogil=True)
def _move(images, scale, shift, out):  # type: ignore[no-untyped-def]
    side = images.shape[-1]
    where = np.empty((2, side), np.int64)
    for b in range(len(images)):
        for axis in range(2):
            for u in range(side):
                where[axis, u] = int(np.floor(u * scale[b] + shift[b, axis] + 0.5))
        for k in range(images.shape[1]):
            for y in range(side):
                row = where[1, y]
                if row < 0 or row >= side:
                    continue
                for x in range(side):
                    column = where[0, x]
                    if 0 <= column < side and images[b, k, y, x] > out[b, k, row, column]:
                        out[b, k, row, column] = images[b, k, y, x]
