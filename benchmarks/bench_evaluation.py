"""Evaluation on one thread: predicting with `small`, and scoring: `python benchmarks/run.py evaluation`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from dataclasses import replace

import numpy as np
import torch

from evhands.baselines import ConstantPose
from evhands.evaluation import PredictConfig, open_method, predict_tracked
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.checkpoint import ASSETS
from evhands.prediction import predict_stream
from evhands.predictions import Predictions, Seen, blank
from evhands.scenes import Wanted, labelled_times, open_scene
from evhands.score_files import constant_pose
from evhands.scoring import results
from timing import Timing, measure

TOGETHER, POSES = 8, 40
PREDICT_LIMIT = 40.0  # processor seconds for 1 000 poses: 20 s on two idle cores
ROWS, RECORDINGS, NAIVE_ROWS = 100_000, 60, 400
SCORE_LIMIT = 10.0  # seconds for 100 000 poses, on one idle core


def main() -> None:
    """Print seconds for 1 000 predicted and for 100 000 scored poses: median on the clock, processor time."""
    torch.set_num_threads(1)
    print(f"  {'':<58} {'median':>8} {'processor':>9}")
    _predicting()
    _scoring()


def _predicting() -> None:
    method, scene = open_method("small"), open_scene(ASSETS / "demo.h5")
    every = labelled_times(scene)
    wanted = Wanted(every.t_us[:POSES], every.label[:POSES])
    estimator, hand, config = method.estimator, method.hand, PredictConfig()
    together = measure(lambda: predict_stream(estimator, hand, [scene] * TOGETHER, [wanted] * TOGETHER, {}), 3)
    alone = measure(lambda: predict_stream(estimator, hand, [scene], [wanted], {}), 3)
    tracked = measure(lambda: predict_tracked(method, scene, wanted, config, {}), 3)
    limit = f"limit {PREDICT_LIMIT:.0f}: 20 s on two cores"
    _row(f"1 000 poses, true crop, {TOGETHER} recordings in step: ours", together, 1000 / (TOGETHER * POSES), limit)
    _row("1 000 poses, true crop, one recording at a time", alone, 1000 / POSES, "")
    _row("1 000 poses, crop found from events: the tracker", tracked, 1000 / POSES, limit)


def _scoring() -> None:
    predictions, constant = some_predictions(ROWS), constant_pose()
    times = measure(lambda: results(predictions, constant), 3)
    _row("100 000 poses scored, every figure, 1 000 draws: ours", times, 1.0, f"limit {SCORE_LIMIT:.0f}")
    part = predictions.rows(slice(0, NAIVE_ROWS))
    naive = measure(lambda: naive_means(part, constant), 3)
    _row("100 000 poses, four figures, row by row, no intervals", naive, ROWS / NAIVE_ROWS, "")


def naive_means(predictions: Predictions, constant: ConstantPose) -> list[float]:
    """MPJPE and PA-MPJPE of prediction and constant pose, one row after the other."""
    rows = []
    for given, truth in zip(predictions.joints_m.astype(np.float64), predictions.truth_m.astype(np.float64)):
        said = constant.rooted + truth[:1]
        pairs = (mpjpe(given, truth), pa_mpjpe(given, truth), mpjpe(said, truth), pa_mpjpe(constant.shape, truth))
        rows.append([next(iter(pair.values())) for pair in pairs])
    return np.mean(rows, axis=0).tolist()


def some_predictions(count: int) -> Predictions:
    """Rows of several recordings, noise about a truth."""
    rng, columns = np.random.default_rng(0), blank(count)
    truth = rng.normal(0, 0.04, (count, 21, 3)).astype(np.float32) + np.float32([0, 0, 0.6])
    columns["truth_m"] = truth
    columns["joints_m"] = truth + rng.normal(0, 0.01, truth.shape).astype(np.float32)
    for name, points in (("truth_px", "truth_m"), ("joints_px", "joints_m")):
        columns[name] = columns[points][..., :2] / columns[points][..., 2:] * 300
    columns["recording"] = np.sort(rng.integers(0, RECORDINGS, count)).astype(np.int32)
    columns["t_us"] = np.arange(count, dtype=np.int64) * 66_667
    columns["window_us"] += 66_667
    columns["events"] += rng.integers(0, 100_000, count)
    columns["speed"] = rng.random(count, np.float32)
    columns["found"] = rng.random(count) < 0.95
    K = ((300.0, 0.0, 0.0), (0.0, 300.0, 0.0), (0.0, 0.0, 1.0))
    one = Seen(name="0", side="right", subject="1", bucket="normal_fixed", size=(346, 260), K=K, start_us=0)
    seen = tuple(replace(one, name=str(i), side=("right", "left")[i % 2]) for i in range(RECORDINGS))
    return Predictions(meta={"protocol": "evhands"}, recordings=seen, **columns)


def _row(name: str, times: Timing, factor: float, limit: str) -> None:
    clock, processor = (factor * ms / 1000 for ms in (times.median_ms, times.processor_ms))
    print(f"  {name:<58} {clock:7.2f}s {processor:8.2f}s  {limit}", flush=True)


if __name__ == "__main__":
    main()
