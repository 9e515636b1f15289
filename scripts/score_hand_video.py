"""Track a real video of a hand, turned into events, and compare the fingers with estimated joints.

    python scripts/score_hand_video.py [--model small] [--smooth off] [--both-ways] [--out DIR]

The video and the joints lie in the folder that EVHANDS_SHARED names (default ../shared), under real/hand-video.
The reference joints are ESTIMATES of another network on the images, of another skeleton, with the global rotation
removed: nothing may be trained or tuned on them, and only what ignores rotation is compared.

Printed over frames 0-399, with the pose taken at the time of each frame (linear between the tracker's poses, which no
filter has passed unless asked, as in `evhands evaluate`):

* PA-MPJPE: per frame the similarity transform that brings the 21 predicted joints closest to the reference, then the
  mean distance over joints and frames.
* PA-MPJPE without offsets: the aligned joints minus the reference joints are residual vectors in the reference's frame
  (which turns with the hand); the mean residual vector of each joint over all frames is subtracted from its residuals,
  then the mean length of what is left. This takes away where the two skeletons put their joints.
* both for the best constant pose: a generalised Procrustes mean of the very reference joints it is scored on.
* per finger, the correlation over frames of |tip - wrist| / |middle knuckle - wrist| with the same of the reference.
* how late the poses are: PA-MPJPE without offsets of the poses that were given out so much later.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from evhands.baselines import fit_constant_pose
from evhands.hand.skeleton import FINGERS
from evhands.metrics import procrustes_aligned
from evhands.smoothing import SMOOTHING
from evhands.track_files import Track

DELAYS_MS = (17, 33, 50, 67)
TIPS = (4, 8, 12, 16, 20)
MIDDLE_KNUCKLE = 9


def pa_errors_mm(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """(PA-MPJPE, PA-MPJPE after each joint's mean residual is removed) in mm of (n, 21, 3) joints in metres."""
    residual = procrustes_aligned(predicted, reference) - reference
    without_offset = residual - residual.mean(axis=0)
    return tuple(float(1000 * np.linalg.norm(r, axis=-1).mean()) for r in (residual, without_offset))  # type: ignore[return-value]


def finger_extension(joints: np.ndarray) -> np.ndarray:
    """(n, 5): distance of each finger tip from the wrist over the palm's length; needs no alignment."""
    palm = np.linalg.norm(joints[:, MIDDLE_KNUCKLE] - joints[:, 0], axis=-1)
    return np.linalg.norm(joints[:, TIPS] - joints[:, :1], axis=-1) / palm[:, None]


def finger_correlations(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(5,): Pearson correlation over frames of the extension of each finger; NaN where one never changes."""
    a, b = (e - e.mean(axis=0) for e in (finger_extension(predicted), finger_extension(reference)))
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return (a * b).sum(axis=0) / np.where(spread > 1e-12, spread, np.nan)


def report(track: Track, reference: np.ndarray, frame_t_us: np.ndarray) -> str:
    """The printed comparison of a track with reference joints (n, 21, 3) at the times of the frames."""
    if not track.tracked.any():
        return "no hand was found in the video"
    predicted = track.joints_at(frame_t_us)
    ours = pa_errors_mm(predicted, reference)
    constant = pa_errors_mm(np.broadcast_to(fit_constant_pose(reference).shape, reference.shape), reference)
    correlations = finger_correlations(predicted, reference)
    lines = [
        f"frames {len(reference)}, hand found in {100 * track.tracked.mean():.1f} % of {len(track)} windows,"
        f" {track.poses_per_second:.0f} poses/s",
        f"{'':34}{'tracked':>9}{'constant pose':>15}",
        f"{'PA-MPJPE, mm':34}{ours[0]:9.1f}{constant[0]:15.1f}",
        f"{'PA-MPJPE without offsets, mm':34}{ours[1]:9.1f}{constant[1]:15.1f}",
        "correlation of finger extension   "
        + "  ".join(f"{name} {value:.2f}" for name, value in zip(FINGERS, correlations, strict=True))
        + f"   mean {correlations.mean():.2f}",
        "without offsets, of poses given out later: "
        + "  ".join(
            f"{ms} ms {pa_errors_mm(track.joints_at(frame_t_us + 1000 * ms), reference)[1]:.1f}" for ms in DELAYS_MS
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    import evhands

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="small", help="a model that ships with evhands, or a checkpoint")
    parser.add_argument("--smooth", choices=tuple(SMOOTHING), default="off", help="filter of the poses")
    parser.add_argument("--both-ways", action="store_true", help="track in both directions of time")
    parser.add_argument("--out", type=Path, help="write poses and overlay video there too")
    options = parser.parse_args()
    folder = Path(os.environ.get("EVHANDS_SHARED", "../shared")) / "real" / "hand-video"
    with np.load(folder / "joints_frames_0000_0399.npz") as labels:
        reference, fps = labels["joints_m"].astype(np.float64), float(labels["fps"])
    video = folder / "human_hand_video.mp4"
    track = evhands.track(
        video, model=options.model, smooth=options.smooth, both_ways=options.both_ways, out=options.out, quiet=False
    )
    print(report(track, reference, np.round(np.arange(len(reference)) * 1e6 / fps).astype(np.int64)))


if __name__ == "__main__":
    main()
