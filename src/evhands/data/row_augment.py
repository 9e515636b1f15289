"""Changes at random to the images of rows of shards, while training."""

from __future__ import annotations

import numpy as np


def augmented(images: np.ndarray, rng: np.random.Generator, thinning: float, noise: float) -> np.ndarray:
    """LNES images (B, T, 2, h, w) with some pixels emptied and some set: one strength a clip, new pixels a window."""
    strength = (len(images),) + (1,) * (images.ndim - 1)
    chance = rng.random(images.shape, dtype=np.float32)
    kept = chance >= thinning * rng.random(strength, dtype=np.float32) ** 2
    added = chance > 1 - noise * rng.random(strength, dtype=np.float32) ** 3
    return np.where(added, rng.random(images.shape, dtype=np.float32), images * kept)


def moved(images: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Overview pictures and boxes shifted by up to an eighth of the picture, and half of the batches mirrored."""
    dy, dx = rng.integers(-8, 9), rng.integers(-11, 12)
    shifted = np.zeros_like(images)
    h, w = images.shape[-2:]
    shifted[..., max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = images[
        ..., max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)
    ]
    boxes = boxes + np.array([dx, dy, 0], np.float32)
    if rng.random() < 0.5:
        shifted = shifted[..., ::-1]
        boxes[:, 0] = w - 1 - boxes[:, 0]
    return shifted, boxes
