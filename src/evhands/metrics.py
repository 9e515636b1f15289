"""Metrics of hand pose: pure numpy functions from predictions and truth to named errors, one value a sample or joint.

Joints are in `openpose21` order (the wrist is the root), lengths in metres unless a name says otherwise; leading
batch dimensions are free. Published tables differ in whether the aligned root, whose error is zero, is averaged in:
every mean here exists over 21 joints (with the root, as EvHandPose reports) and over 20 (without), named so.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

ROOT = 0
MIDDLE_KNUCKLE = 9
"""`middle1` of `openpose21`: the palm length reaches from the wrist to it."""

PCK_THRESHOLDS = np.arange(1000) * 1e-4
"""0 to 100 mm in steps of 0.1 mm, in metres."""


def joint_errors(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> Float[np.ndarray, "*b 21"]:
    """Distance of every joint from its truth after the roots are laid on each other."""
    return _distances(_rooted(predicted), _rooted(truth))


def pa_joint_errors(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> Float[np.ndarray, "*b 21"]:
    """Distance of every joint from its truth after the similarity transform that brings them closest."""
    return _distances(procrustes_aligned(predicted, truth), truth)


def mpjpe(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> dict[str, Float[np.ndarray, "*b"]]:
    """Mean root-aligned joint error of each sample: `mpjpe21` with the root, `mpjpe20` without it."""
    return _means("mpjpe", joint_errors(predicted, truth))


def pa_mpjpe(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> dict[str, Float[np.ndarray, "*b"]]:
    """Mean Procrustes-aligned joint error of each sample: `pa_mpjpe21` with the root, `pa_mpjpe20` without it."""
    return _means("pa_mpjpe", pa_joint_errors(predicted, truth))


def procrustes_aligned(
    source: Float[np.ndarray, "*b n d"], target: Float[np.ndarray, "*b n d"]
) -> Float[np.ndarray, "*b n d"]:
    """The source points after the similarity transform (no reflection) nearest to the target in least squares.

    Umeyama 1991. Computed and returned in float64; source points that all coincide come to lie on the target's mean.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    centred = source - source_mean
    u, spread, vt = np.linalg.svd(np.swapaxes(centred, -1, -2) @ (target - target_mean))
    # A reflection would fit better where this is negative: turn the axis of least spread around instead.
    sign = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    u[..., -1] *= sign[..., None]
    spread[..., -1] *= sign
    variance = (centred**2).sum((-2, -1))
    scale = spread.sum(-1) / np.where(variance > 0, variance, 1.0)
    return scale[..., None, None] * (centred @ (u @ vt)) + target_mean


def pck_curve(
    errors: Num[np.ndarray, "*n"], thresholds: Float[np.ndarray, " k"] = PCK_THRESHOLDS
) -> Float[np.ndarray, " k"]:
    """Share of the errors strictly below each threshold; NaN where there are no errors.

    Give the errors without the root (`joint_errors(...)[..., 1:]`), whose zero would count as correct.
    """
    flat = np.sort(errors, axis=None)
    return np.searchsorted(flat, thresholds, side="left") / (len(flat) or np.nan)


def pck_auc(curve: Float[np.ndarray, " k"]) -> float:
    """Area under a PCK curve of even thresholds, 1 at best: its left Riemann sum over the range (published, O44)."""
    return float(curve.mean())


def errors_2d(
    predicted_px: Float[np.ndarray, "*b 21 2"], truth_px: Float[np.ndarray, "*b 21 2"], *, root_aligned: bool = True
) -> Float[np.ndarray, "*b 21"]:
    """Distance of every joint in the image, in pixels, by default after the roots are laid on each other."""
    if root_aligned:
        predicted_px, truth_px = _rooted(predicted_px), _rooted(truth_px)
    return _distances(predicted_px, truth_px)


def palm_errors_2d(
    predicted_px: Float[np.ndarray, "*b 21 2"], truth_px: Float[np.ndarray, "*b 21 2"], *, root_aligned: bool = True
) -> Float[np.ndarray, "*b 21"]:
    """`errors_2d` in true palm lengths: independent of how large the hand appears."""
    errors = errors_2d(predicted_px, truth_px, root_aligned=root_aligned)
    return errors / _distances(truth_px[..., ROOT, :], truth_px[..., MIDDLE_KNUCKLE, :])[..., None]


def published_palm_errors_2d(
    predicted_px: Float[np.ndarray, "*b 21 2"], truth_px: Float[np.ndarray, "*b 21 2"], *, root_aligned: bool = True
) -> Float[np.ndarray, "*b 21"]:
    """The palm-normalised error as EvHandPose's released code computes it, for comparison with its tables only.

    Each hand's absolute pixel coordinates are divided by its own palm length, so the result depends on where in the
    image the hand is. Root alignment moves the prediction onto the true root before that.
    """
    if root_aligned:
        predicted_px = _rooted(predicted_px) + truth_px[..., ROOT : ROOT + 1, :]

    def normalised(points: np.ndarray) -> np.ndarray:
        palm = ((points[..., ROOT, :] - points[..., MIDDLE_KNUCKLE, :]) ** 2).sum(-1)
        return points / np.sqrt(palm + 1e-3)[..., None, None]

    return _distances(normalised(predicted_px), normalised(truth_px))


def _means(name: str, errors: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}21": np.asarray(errors.mean(-1)), f"{name}20": np.asarray(errors[..., 1:].mean(-1))}


def _rooted(joints: np.ndarray) -> np.ndarray:
    return joints - joints[..., ROOT : ROOT + 1, :]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)
