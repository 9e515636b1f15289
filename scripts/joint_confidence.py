"""Does the confidence of a joint say how wrong it is? Rank correlation on recordings with truth.

    evhands simulate DIR --preset testset
    python scripts/joint_confidence.py DIR [--model small]

Of all labels of visible hands that the tracker follows: Spearman's rank correlation of a joint's confidence and the
distance (mm) of that joint from the truth, wrists laid on each other; over all joints of all labels, within a joint
(mean over the 20 joints but the wrist) and within a hand (mean over labels).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import track as progress_bar
from scipy.stats import spearmanr

from evhands.live.making import make_tracker
from evhands.tracking import track_windows


def correlations(confidence: np.ndarray, error_mm: np.ndarray) -> dict[str, float]:
    """confidence, error_mm (n, 20) -> rank correlations; -1 is a confidence that orders joints as their errors do."""

    def rank(first: np.ndarray, second: np.ndarray) -> float:
        return float(spearmanr(first, second).statistic)

    return {
        "over all joints and labels": rank(confidence.ravel(), error_mm.ravel()),
        "within a joint, over labels": float(np.mean([rank(confidence[:, j], error_mm[:, j]) for j in range(20)])),
        "within a hand, over its joints": float(np.mean([rank(c, e) for c, e in zip(confidence, error_mm)])),
    }


def main() -> None:
    torch.set_num_threads(1)
    from evaluate_detection import is_visible  # the scripts beside this one
    from evaluate_simulated import clip_windows, recorded_clip

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--model", default="small")
    options = parser.parse_args()
    confidence, error = [], []
    for path in progress_bar(sorted(options.recordings.glob("*.h5")), "recordings"):
        clip = recorded_clip(path)
        tracker = make_tracker(options.model, clip.camera, clip.pose.side, "cpu", "off")
        labels, windows = zip(*clip_windows(clip, tracker.estimator.input_config.window_us), strict=True)
        for label, (_, hand) in zip(labels, track_windows(tracker, windows), strict=True):
            if hand.joints_m is None or hand.joint_confidence is None or not is_visible(clip, label):
                continue
            truth = clip.joints_m[label].astype(np.float64)
            off = (hand.joints_m - hand.joints_m[0]) - (truth - truth[0])
            confidence.append(hand.joint_confidence[1:])
            error.append(1000 * np.linalg.norm(off, axis=-1)[1:])
    print(f"{len(error)} labels")
    for name, value in correlations(np.array(confidence), np.array(error)).items():
        print(f"{name:32}{value:6.2f}")


if __name__ == "__main__":
    main()
