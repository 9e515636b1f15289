"""Small random batches of windows that the tests of representations and warping share."""

from __future__ import annotations

import numpy as np
import torch

from evhands.types import WindowBatch

SIZE = (23, 17)


def a_batch(
    counts: tuple[int, ...] = (300, 0, 600), seed: int = 0, margin: float = 0.0, whole: bool = False
) -> WindowBatch:
    """Random windows; margin > 0 lets events fall outside, whole puts them on pixel centres."""
    rng = np.random.default_rng(seed)
    n = sum(counts)
    x = rng.uniform(-margin, SIZE[0] - 1 + margin, n).astype(np.float32)
    y = rng.uniform(-margin, SIZE[1] - 1 + margin, n).astype(np.float32)
    if whole:
        x, y = np.round(x), np.round(y)
    t, p = rng.random(n).astype(np.float32), rng.random(n) < 0.5
    return WindowBatch(x, y, t, p, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), SIZE)


def to_torch(batch: WindowBatch) -> WindowBatch:
    columns = (torch.from_numpy(np.array(c)) for c in (batch.x, batch.y, batch.t, batch.p, batch.offsets))
    return WindowBatch(*columns, batch.size)


def permuted(batch: WindowBatch, seed: int) -> WindowBatch:
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.arange(a, b)) for a, b in zip(batch.offsets, batch.offsets[1:])])
    return WindowBatch(batch.x[order], batch.y[order], batch.t[order], batch.p[order], batch.offsets, batch.size)
