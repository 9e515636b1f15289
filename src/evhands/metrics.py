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


def vertex_errors(
    predicted: Float[np.ndarray, "*b v 3"],
    truth: Float[np.ndarray, "*b v 3"],
    wrists: tuple[Float[np.ndarray, "*b 3"], Float[np.ndarray, "*b 3"]],
) -> dict[str, Float[np.ndarray, "*b"]]:
    """Mean distance of the vertices of one mesh from their truth: `mpvpe` with the wrists (predicted, true) laid on
    each other, `pa_mpvpe` after the similarity transform that brings the vertices closest."""
    rooted = predicted - wrists[0][..., None, :], truth - wrists[1][..., None, :]
    aligned = procrustes_aligned(predicted, truth)
    return {"mpvpe": _distances(*rooted).mean(-1), "pa_mpvpe": _distances(aligned, truth).mean(-1)}


def camera_errors(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> Float[np.ndarray, "*b 21"]:
    """Distance of every joint from its truth in the frame of the camera, nothing aligned."""
    return _distances(predicted, truth)


def depth_errors(
    predicted: Float[np.ndarray, "*b 21 3"], truth: Float[np.ndarray, "*b 21 3"]
) -> Float[np.ndarray, "*b"]:
    """By how much the wrist's distance along the optical axis is off."""
    return np.abs(predicted[..., ROOT, 2] - truth[..., ROOT, 2])


def accelerations(joints: Float[np.ndarray, "n 21 3"], t_s: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 21 3"]:
    """m/s^2 by the second difference around each row of evenly spaced times; NaN where a neighbour is missing or the
    two steps differ by more than a thousandth."""
    step = np.diff(t_s)
    even = np.abs(step[1:] - step[:-1]) <= 1e-3 * np.abs(step[1:])
    found = np.full(joints.shape, np.nan)
    second = joints[2:] - 2 * joints[1:-1] + joints[:-2]
    found[1:-1] = np.where(even[:, None, None], second / (step[1:] * step[:-1])[:, None, None], np.nan)
    return found


def acceleration_errors(
    predicted: Float[np.ndarray, "n 21 3"], truth: Float[np.ndarray, "n 21 3"], t_s: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Mean over the joints of the distance between predicted and true acceleration, m/s^2 (VIBE, Kocabas 2020)."""
    return _distances(accelerations(predicted, t_s), accelerations(truth, t_s)).mean(-1)


def jitter(joints: Float[np.ndarray, "n 21 3"], t_s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mean over the joints of the length of the acceleration, m/s^2: of a still hand what shakes, else beside the
    truth's own."""
    return np.linalg.norm(accelerations(joints, t_s), axis=-1).mean(-1)


def _means(name: str, errors: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}21": np.asarray(errors.mean(-1)), f"{name}20": np.asarray(errors[..., 1:].mean(-1))}


def _rooted(joints: np.ndarray) -> np.ndarray:
    return joints - joints[..., ROOT : ROOT + 1, :]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)
