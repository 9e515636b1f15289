"""From a file of predictions to figures: named values of every row, means with confidence intervals, curves.

A row without a hand (not found) scores the constant pose of the training set, in its place the true wrist, and counts
as a miss; camera-space, depth and vertex errors are of found hands only, because a constant pose has no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from evhands import metrics
from evhands.baselines import ConstantPose
from evhands.predictions import Predictions

UNITS = {
    "mpjpe21": "mm", "mpjpe20": "mm", "pa_mpjpe21": "mm", "pa_mpjpe20": "mm", "mpvpe": "mm", "pa_mpvpe": "mm",
    "camera_error": "mm", "depth_error": "mm", "px21": "px", "px20": "px", "palm20": "palms", "published_px21": "px",
    "published_palm21": "palms", "acceleration_error": "m/s2", "jitter": "m/s2", "true_jitter": "m/s2",
    "constant_mpjpe21": "mm", "constant_pa_mpjpe21": "mm", "found": "share",
}  # fmt: skip
"""Every figure and its unit."""
TOLD = {
    "mpjpe21": "MPJPE over 21 joints, the aligned root among them (as published)",
    "mpjpe20": "MPJPE over 20 joints, without the root",
    "pa_mpjpe21": "the same after the best similarity transform, 21 joints",
    "pa_mpjpe20": "the same over 20 joints",
    "mpvpe": "mean error of the vertices, wrists laid on each other",
    "pa_mpvpe": "mean error of the vertices after the best similarity transform",
    "camera_error": "mean joint error in the camera's frame, nothing aligned, of found hands",
    "depth_error": "error of the wrist's distance along the optical axis, of found hands",
    "px21": "2D-MPJPE, roots laid on each other, 21 joints, in the undistorted image",
    "px20": "the same over 20 joints",
    "palm20": "2D-MPJPE over the true palm length, 20 joints",
    "published_px21": "2D-MPJPE against marked points as they lie on the sensor (as published, fast motion)",
    "published_palm21": "palm-normalised 2D-MPJPE as the released code computes it, from absolute coordinates",
    "acceleration_error": "mean error of the joints' acceleration",
    "jitter": "mean acceleration of the predicted joints",
    "true_jitter": "mean acceleration of the true joints",
    "constant_mpjpe21": "MPJPE of the best constant pose of the training set",
    "constant_pa_mpjpe21": "PA-MPJPE of the best constant pose of the training set",
    "found": "share of rows with a pose",
}
SPEED_EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, np.inf)
"""m/s."""
RATE_EDGES = (0.0, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, np.inf)
"""Events a second on the whole sensor."""
PCK_STEP = 10
"""Of a thousand thresholds every tenth is written: 0 to 99 mm."""


@dataclass(frozen=True)
class Values:
    """Per row of a file: `of[name]` (n,), NaN where it does not apply; joint and pa_joint errors (n, 21) in mm."""

    of: dict[str, Float[np.ndarray, " n"]]
    joints_mm: Float[np.ndarray, "n 21"]
    pa_joints_mm: Float[np.ndarray, "n 21"]


def row_values(predictions: Predictions, constant: ConstantPose) -> Values:
    """Every figure of every row."""
    truth = predictions.truth_m.astype(np.float64)
    left = np.array([seen.side == "left" for seen in predictions.recordings], np.bool_)[predictions.recording]
    mirror = np.where(left[:, None, None], [-1.0, 1.0, 1.0], 1.0)
    said, shaped = constant.rooted * mirror, constant.shape * mirror
    found = predictions.found[:, None, None]
    given = predictions.joints_m.astype(np.float64)
    rooted = np.where(found, given, said + truth[:, :1])
    joints = 1000 * metrics.joint_errors(rooted, truth)
    has = np.asarray(np.isfinite(truth).all((1, 2)))
    pa = _where(has, lambda rows: 1000 * metrics.pa_joint_errors(np.where(found, given, shaped)[rows], truth[rows]))
    constant_pa = _where(has, lambda rows: 1000 * metrics.pa_joint_errors(shaped[rows], truth[rows]))
    constant_mm = 1000 * metrics.joint_errors(said + truth[:, :1], truth)
    values = {
        "mpjpe21": joints.mean(-1), "mpjpe20": joints[:, 1:].mean(-1),
        "pa_mpjpe21": pa.mean(-1), "pa_mpjpe20": pa[:, 1:].mean(-1),
        "mpvpe": 1000.0 * predictions.vertex_errors, "pa_mpvpe": 1000.0 * predictions.pa_vertex_errors,
        "camera_error": 1000 * metrics.camera_errors(given, truth).mean(-1),
        "depth_error": 1000 * metrics.depth_errors(given, truth),
        "constant_mpjpe21": constant_mm.mean(-1), "constant_pa_mpjpe21": constant_pa.mean(-1),
        "found": np.where(_scored(predictions), predictions.found, np.nan),
    }  # fmt: skip
    return Values(values | _image_values(predictions, rooted) | _motion_values(predictions), joints, pa)


def _where(mask: np.ndarray, function: Any) -> np.ndarray:
    """(n, 21) of a function that takes rows without NaN only."""
    result = np.full((len(mask), 21), np.nan)
    rows = np.flatnonzero(mask)
    if len(rows):
        result[rows] = function(rows)
    return result


def _scored(predictions: Predictions) -> np.ndarray:
    return np.isfinite(predictions.truth_m[:, 0, 0]) | np.isfinite(predictions.truth_px[:, 0, 0])


def _image_values(predictions: Predictions, rooted: np.ndarray) -> dict[str, np.ndarray]:
    """Errors in the image; a missing hand is the constant pose at the true wrist, where that is known in space."""
    K = np.array([seen.K for seen in predictions.recordings])[predictions.recording]
    constant = (rooted @ np.swapaxes(K, 1, 2))[..., :2] / rooted[..., 2:]
    given = np.where(predictions.found[:, None, None], predictions.joints_px, constant).astype(np.float64)
    truth, marked = predictions.truth_px.astype(np.float64), predictions.annotated_px.astype(np.float64)
    pixels = metrics.errors_2d(given, truth)
    return {
        "px21": pixels.mean(-1), "px20": pixels[:, 1:].mean(-1),
        "palm20": metrics.palm_errors_2d(given, truth)[:, 1:].mean(-1),
        "published_px21": metrics.errors_2d(given, marked).mean(-1),
        "published_palm21": _published_palms(predictions, given, marked),
    }  # fmt: skip


def _published_palms(predictions: Predictions, given: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Left hands are compared mirrored in the published code, about the width for marked points (O41); after the roots
    are laid on each other only the truth's place counts."""
    width = np.array([seen.size[0] if seen.side == "left" else np.nan for seen in predictions.recordings])
    width = width[predictions.recording]

    def mirrored(points: np.ndarray) -> np.ndarray:
        x = np.where(np.isnan(width)[:, None], points[..., 0], width[:, None] - points[..., 0])
        return np.stack([x, points[..., 1]], -1)

    return metrics.published_palm_errors_2d(mirrored(given), mirrored(marked)).mean(-1)


def _motion_values(predictions: Predictions) -> dict[str, np.ndarray]:
    names = ("acceleration_error", "jitter", "true_jitter")
    values = {name: np.full(len(predictions), np.nan) for name in names}
    edges = np.flatnonzero(np.diff(predictions.recording, prepend=-1, append=-1))
    for first, last in zip(edges[:-1], edges[1:]):
        rows = slice(first, last)
        t_s = (predictions.t_us[rows] - predictions.t_us[first]) * 1e-6
        given, truth = (v[rows].astype(np.float64) for v in (predictions.joints_m, predictions.truth_m))
        given = np.where(predictions.found[rows, None, None], given, np.nan)
        values["acceleration_error"][rows] = metrics.acceleration_errors(given, truth, t_s)
        values["jitter"][rows] = metrics.jitter(given, t_s)
        values["true_jitter"][rows] = np.where(np.isnan(values["jitter"][rows]), np.nan, metrics.jitter(truth, t_s))
    return values


# --- means ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A mean over rows, its 95 % interval (NaN where fewer than two clusters have it) and how many rows it is of."""

    mean: float
    low: float
    high: float
    rows: int


def means(
    values: Mapping[str, Float[np.ndarray, " n"]],
    cluster: Int64[np.ndarray, " n"],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Mean]:
    """Means of every figure over the rows where it applies, with percentile intervals of a cluster bootstrap.

    Rows of one cluster (a recording, a subject) are not independent, so whole clusters are drawn, with replacement
    (Efron and Tibshirani 1993), for all figures at once.
    """
    names, count = list(values), int(cluster.max(initial=-1)) + 1
    sums, counts = np.zeros((len(names), count)), np.zeros((len(names), count))
    for i, name in enumerate(names):
        there = np.isfinite(values[name])
        sums[i] = np.bincount(cluster[there], values[name][there], minlength=count)
        counts[i] = np.bincount(cluster[there], minlength=count)
    used = np.flatnonzero(counts.any(0))
    sums, counts = sums[:, used], counts[:, used]
    total = counts.sum(1)
    mean = np.divide(sums.sum(1), total, out=np.full(len(names), np.nan), where=total > 0)
    low = high = np.full(len(names), np.nan)
    if len(used) > 1:
        weights = np.random.default_rng(seed).multinomial(len(used), np.full(len(used), 1 / len(used)), draws)
        weighted, drawn = weights @ sums.T, weights @ counts.T
        drawn_means = np.divide(weighted, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
        with np.errstate(invalid="ignore"):
            low, high = _quantiles(drawn_means)
        of_several = (counts > 0).sum(1) > 1
        low, high = (np.where(of_several, end, np.nan) for end in (low, high))
    return {name: Mean(float(mean[i]), float(low[i]), float(high[i]), int(total[i])) for i, name in enumerate(names)}


def _quantiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5 % of each column, NaN left out."""
    ordered = np.sort(drawn, axis=0)  # NaN last
    there = np.isfinite(ordered).sum(0)
    at = [np.round(q * np.maximum(there - 1, 0)).astype(int) for q in (0.025, 0.975)]
    low, high = (ordered[k, np.arange(ordered.shape[1])] for k in at)
    return low, high


def grouped(values: Values, groups: Mapping[str, np.ndarray], cluster: np.ndarray) -> dict[str, dict[str, Mean]]:
    """The means of some masks of rows; groups without a row are left out."""
    return {
        name: means({key: column[mask] for key, column in values.of.items()}, cluster[mask])
        for name, mask in groups.items()
        if mask.any()
    }


def bucket_masks(predictions: Predictions) -> dict[str, np.ndarray]:
    """`all`, and every bucket in the published order, then others by name."""
    bucket = np.array([seen.bucket for seen in predictions.recordings])[predictions.recording]
    order = ["normal_fixed", "normal_random", "highlight_fixed", "highlight_random", "flash_fixed", "flash_random"]
    names = [*order, "fast", *sorted(set(bucket) - {*order, "fast"})]
    return {"all": np.ones(len(bucket), bool)} | {str(name): bucket == name for name in names if (bucket == name).any()}


def subject_masks(predictions: Predictions) -> dict[str, np.ndarray]:
    subject = np.array([seen.subject or "?" for seen in predictions.recordings])[predictions.recording]
    return {str(name): subject == name for name in sorted(set(subject), key=lambda s: (len(s), s))}


# --- everything -----------------------------------------------------------------------------------------------------


def results(predictions: Predictions, constant: ConstantPose, by: str = "recording") -> tuple[dict[str, Any], Values]:
    """All figures of a file as plain values, as they stand in results.json, and the values of its rows."""
    values = row_values(predictions, constant)
    cluster = _clusters(predictions, by)
    shown = values.joints_mm[np.isfinite(values.joints_mm).all(1), 1:]
    curve = metrics.pck_curve(shown / 1000)
    pa_curve = metrics.pck_curve(values.pa_joints_mm[np.isfinite(values.pa_joints_mm).all(1), 1:] / 1000)
    buckets = grouped(values, bucket_masks(predictions), cluster)
    content = {
        **predictions.meta,
        "rows": len(predictions),
        "scored": int(_scored(predictions).sum()),
        "recordings": len(predictions.recordings),
        "intervals": f"95 %, bootstrap over {by}s",
        "seconds": round(predictions.seconds, 3),
        "units": UNITS,
        "figures": _plain(buckets),
        "subjects": _plain(grouped(values, subject_masks(predictions), cluster)),
        "pck": {
            "mm": (1000 * metrics.PCK_THRESHOLDS[::PCK_STEP]).round(3).tolist(),
            "rooted": _told(curve[::PCK_STEP]), "auc": _told(np.array([metrics.pck_auc(curve)]))[0],
            "pa": _told(pa_curve[::PCK_STEP]), "pa_auc": _told(np.array([metrics.pck_auc(pa_curve)]))[0],
        },
        "joints_mm": {"rooted": _column_means(values.joints_mm), "pa": _column_means(values.pa_joints_mm)},
        "over": {
            "speed": _binned(predictions.speed, SPEED_EDGES, values),
            "rate": _binned(predictions.events / np.maximum(predictions.window_us * 1e-6, 1e-9), RATE_EDGES, values),
            "time": _binned(_since(predictions), _time_edges(predictions), values),
        },
    }  # fmt: skip
    return content, values


def _told(values: np.ndarray) -> list[float | None]:
    """Five digits, None for NaN, which JSON does not know."""
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def _clusters(predictions: Predictions, by: str) -> np.ndarray:
    if by == "recording":
        return predictions.recording.astype(np.int64)
    subjects = np.array([seen.subject for seen in predictions.recordings])
    return np.unique(subjects, return_inverse=True)[1][predictions.recording].astype(np.int64)


def _plain(groups: dict[str, dict[str, Mean]]) -> dict[str, Any]:
    def told(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    return {
        group: {
            name: {"mean": told(m.mean), "low": told(m.low), "high": told(m.high), "rows": m.rows}
            for name, m in figures.items()
            if m.rows
        }
        for group, figures in groups.items()
    }


def _column_means(errors: np.ndarray) -> list[float | None]:
    there = np.isfinite(errors).all(1)
    return errors[there].mean(0).round(4).tolist() if there.any() else [None] * errors.shape[1]


def _since(predictions: Predictions) -> np.ndarray:
    start = np.array([seen.start_us for seen in predictions.recordings], np.int64)[predictions.recording]
    return (predictions.t_us - start) * 1e-6


def _time_edges(predictions: Predictions) -> tuple[float, ...]:
    longest = float(_since(predictions).max(initial=1.0))
    return tuple(np.linspace(0, longest * 1.0001, 13))


def _binned(places: np.ndarray, edges: tuple[float, ...], values: Values) -> list[dict[str, Any]]:
    """Mean errors and shares found between neighbouring edges; bins without rows are left out."""
    bins = []
    for low, high in zip(edges[:-1], edges[1:]):
        mask = (places >= low) & (places < high)
        row: dict[str, Any] = {"from": low, "to": high if np.isfinite(high) else None, "rows": int(mask.sum())}
        for name in ("mpjpe21", "pa_mpjpe21", "px21", "constant_mpjpe21", "found"):
            column = values.of[name][mask]
            there = np.isfinite(column)
            row[name] = round(float(column[there].mean()), 4) if there.any() else None
        if row["rows"]:
            bins.append(row)
    return bins
