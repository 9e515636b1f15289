"""The best constant pose: what a tracker that always says the same hand would score. Printed beside every figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from evhands.metrics import mpjpe, pa_mpjpe, procrustes_aligned

_ROUNDS = 40


@dataclass(frozen=True)
class ConstantPose:
    """One hand for all: `rooted` for the root-aligned error (orientation included), `shape` for the Procrustes one."""

    rooted: Float[np.ndarray, "21 3"]
    shape: Float[np.ndarray, "21 3"]

    def score(self, truth: Float[np.ndarray, "n 21 3"]) -> tuple[float, float]:
        """(MPJPE, PA-MPJPE) in millimetres over 21 joints and all samples."""
        said = np.broadcast_to(self.rooted, truth.shape)
        bent = np.broadcast_to(self.shape, truth.shape)
        return float(1000 * mpjpe(said, truth)["mpjpe21"].mean()), float(
            1000 * pa_mpjpe(bent, truth)["pa_mpjpe21"].mean()
        )


def fit_constant_pose(joints_m: Float[np.ndarray, "n 21 3"]) -> ConstantPose:
    """The constant poses with the least mean error over some hands in metres, each by reweighted least squares.

    `rooted` is the geometric median of every root-aligned joint (Weiszfeld 1937), `shape` the generalised Procrustes
    mean (Gower 1975) with the same weights: means of squares would score half a millimetre worse.
    """
    hands = joints_m.astype(np.float64) - joints_m[:, :1]
    rooted, shape = hands.mean(axis=0), hands.mean(axis=0)
    for _ in range(_ROUNDS):
        rooted = _weighted_mean(hands, 1 / np.maximum(np.linalg.norm(hands - rooted, axis=-1), 1e-4))
    for _ in range(_ROUNDS):
        aligned = procrustes_aligned(np.broadcast_to(shape, hands.shape), hands)
        scale, back = _carried_back(hands, aligned, shape)
        distance = np.maximum(np.linalg.norm(aligned - hands, axis=-1), 1e-4)
        shape = _weighted_mean(back, scale[:, None] ** 2 / distance)
    return ConstantPose(rooted, shape - shape[:1])


def _weighted_mean(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights[..., None] * points).sum(axis=0) / weights.sum(axis=0)[:, None]


def _carried_back(hands: np.ndarray, aligned: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scale, hands in the frame of `shape`) by the similarity transforms that took `shape` to `aligned`."""
    middle, middles = shape.mean(axis=0), aligned.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(aligned - middles, axis=(1, 2)) / np.linalg.norm(shape - middle)
    u, _, vt = np.linalg.svd((shape - middle).T @ (aligned - middles))
    return scale, (hands - middles) / scale[:, None, None] @ np.swapaxes(u @ vt, 1, 2) + middle
