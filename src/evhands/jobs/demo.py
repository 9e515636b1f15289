"""`evhands demo`: track the recording that ships with the package, and score it against the truth inside."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np

from evhands.baselines import ConstantPose
from evhands.hand.model import HandModel
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.checkpoint import load_model
from evhands.recording import Recording, read_recording
from evhands.track_files import Track, run_track
from evhands.tracking import PoseEstimator, Tracker
from evhands.types import InputError

RECORDING = "demo.h5"
CONSTANT = "constant_pose.npz"


def demo(*, out: Path = Path("evhands-demo"), model: str = "small", video: bool = True) -> str:
    """Track the recording that ships with the package and score it.

    The recording was made by the simulator with a hand that no model was trained on. Detector and tracker see its
    events only; the truth beside them is used for the score.

    Args:
        out: folder for poses.npz, poses.csv, overlay.mp4 and summary.json; made if it is not there.
        model: a model that ships with evhands, or the path of a checkpoint.
        video: write overlay.mp4.
    """
    recording = read_recording(_asset(RECORDING))
    estimator, detector = load_model(model)
    hand = cast(HandModel, estimator.hand)
    tracker = Tracker(cast(PoseEstimator, estimator), cast(Any, detector), hand, recording.camera)
    track = run_track(tracker, recording.stream, model=model, out=out, video=video, facts={"file": RECORDING})
    return report(track, recording, _constant(), out, video)


def report(track: Track, recording: Recording, constant: ConstantPose, out: Path, video: bool = True) -> str:
    """The score of the track against the truth of the recording, beside the constant pose, for a terminal."""
    if not track.tracked.any():
        raise InputError(f"The model {track.model!r} finds no hand in {RECORDING}. Wanted a trained one; try 'small'.")
    t_us, truth = labelled(recording, track)
    predicted = track.joints_at(t_us)
    mpjpe_mm = 1000 * mpjpe(predicted, truth)["mpjpe21"].mean()
    pa_mm = 1000 * pa_mpjpe(predicted, truth)["pa_mpjpe21"].mean()
    constant_mm, constant_pa_mm = constant.score(truth)
    width, height = track.camera.size
    lines = [
        f"recording   simulated hand, {width}x{height}, {(track.t_us[-1] - track.t_us[0]) / 1e6:.1f} s",
        f"hand found  in {100 * track.tracked.mean():.1f} % of {len(track)} windows",
        f"{'':12}{'this track':>10}{'best constant pose':>20}",
        f"{'MPJPE':12}{mpjpe_mm:7.1f} mm{constant_mm:17.1f} mm   (21 joints, wrist on wrist)",
        f"{'PA-MPJPE':12}{pa_mm:7.1f} mm{constant_pa_mm:17.1f} mm   (after the best similarity transform)",
        f"speed       {track.poses_per_second:.0f} poses/s, one window at a time (crop, network, hand)",
        f"poses       {out / 'poses.npz'}  {out / 'poses.csv'}",
    ]
    if video:
        lines.append(f"video       {out / 'overlay.mp4'}")
    return "\n".join(lines)


def labelled(recording: Recording, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Times and joints of the truth within the time of the track: nothing is known before its first window."""
    assert recording.pose_t_us is not None and recording.joints_m is not None
    inside = (recording.pose_t_us >= track.t_us[0]) & (recording.pose_t_us <= track.t_us[-1])
    return recording.pose_t_us[inside], recording.joints_m[inside].astype(np.float64)


def _asset(name: str) -> Path:
    return Path(str(resources.files("evhands"))) / "assets" / name


def _constant() -> ConstantPose:
    """Fitted on simulated clips of the training subjects by scripts/evaluate_simulated.py."""
    with np.load(_asset(CONSTANT)) as file:
        return ConstantPose(file["rooted"], file["shape"])
