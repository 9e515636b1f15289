"""Score a model on simulated recordings of subjects that it was never trained on, beside the best constant pose.

    python scripts/evaluate_simulated.py [--model small] [--clips 60] [--seed 20260] [--orientation frontal]
    python scripts/evaluate_simulated.py --recordings DIR      # of `evhands simulate DIR --preset testset`

Every clip is 3 s of a hand of a test subject (numbers from 1 000 000 on; training subjects lie below 10 000), 0.35 to
1 m from the camera. Detector and tracker find the crop from the events alone; a label that they give no pose for counts
with the constant pose. Errors are over 21 joints of ALL labels that a whole window ends at. "crop from truth" gives the
network the true crop, without tracker and filter: what is lost between the two is the tracker's. The constant pose is
fitted on 400 clips of training subjects (with --recordings: on the motions of 1000 clips of the preset `train`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track as progress_bar

from evhands.baselines import ConstantPose, fit_constant_pose
from evhands.both_ways import with_backward
from evhands.boxes import joints_box, sensor_pixels
from evhands.data.shards import seen_window
from evhands.events.windows import window_at
from evhands.geometry import crop_camera
from evhands.inputs import filled_window
from evhands.live.making import make_tracker
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.recording import Recording, read_recording
from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.generate import Clip, simulate_clip
from evhands.sim.presets import TrainShares, clip_of
from evhands.sim.world import Truth
from evhands.tracking import Tracker, hand_joints, track_windows
from evhands.types import EventWindow, HandPose

TEST_SUBJECTS = (1_000_000, 1_000_100)


@dataclass(frozen=True)
class Scores:
    """One row a label: truth (n, 21, 3), two predictions (NaN where there is none), events in the window, and the
    focal length (n,) in pixels."""

    truth: np.ndarray
    tracked: np.ndarray
    true_crop: np.ndarray
    events: np.ndarray
    focal_px: np.ndarray

    @staticmethod
    def concatenate(parts: list[Scores]) -> Scores:
        return Scores(*(np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0])))


def clip_windows(clip: Clip, length_us: int) -> Iterator[tuple[int, EventWindow]]:
    """(label, window that ends at it) for every label that a whole window of the clip ends at."""
    for i, t_us in enumerate(clip.label_t_us):
        if t_us >= length_us:
            yield i, window_at(clip.events, int(t_us), length_us)


def score_clip(clip: Clip, tracker: Tracker, both_ways: bool = False) -> Scores:
    """Both predictions at every label of a clip; both_ways: tracked in both directions of time."""
    inputs = tracker.estimator.input_config
    labels, windows = zip(*clip_windows(clip, inputs.window_us), strict=True)
    truth = clip.joints_m[list(labels)].astype(np.float64)
    tracked, given = np.full_like(truth, np.nan), np.full_like(truth, np.nan)
    forward = [result for _, result in track_windows(tracker, windows)]
    for row, result in enumerate(with_backward(tracker, forward, clip.events) if both_ways else forward):
        if result.joints_m is not None:
            tracked[row] = result.joints_m
    memory = tracker.estimator.initial_state(1)
    for row, window in enumerate(windows):
        box = joints_box(truth[row], clip.camera, inputs.crop_scale)
        crop = crop_camera(clip.camera, box.centre_px, box.side_px, inputs.size_px)
        seen, recent = seen_window(clip.events, window.end_us, inputs)
        filled = filled_window(seen, recent, box, clip.camera, inputs)
        prediction, memory = tracker.estimator.predict(filled, clip.camera, crop, memory, tracker.hand.side)
        given[row] = hand_joints(tracker.hand, prediction.pose)
    focal = np.full(len(truth), float(clip.camera.K[0, 0]))
    return Scores(truth, tracked, given, np.array([len(w.events) for w in windows]), focal)


def errors_mm(predicted: np.ndarray, truth: np.ndarray, constant: ConstantPose) -> tuple[np.ndarray, np.ndarray]:
    """(MPJPE, PA-MPJPE) in mm of every label; where there is no prediction, of the constant pose."""
    missing = np.isnan(predicted).any(axis=(1, 2))
    rooted = np.where(missing[:, None, None], constant.rooted, predicted)
    shaped = np.where(missing[:, None, None], constant.shape, predicted)
    return 1000 * mpjpe(rooted, truth)["mpjpe21"], 1000 * pa_mpjpe(shaped, truth)["pa_mpjpe21"]


def errors_px(predicted: np.ndarray, scores: Scores, constant: ConstantPose) -> np.ndarray:
    """2D-MPJPE in pixels of every label, wrists laid on each other; a missing hand is the constant pose at the true
    place."""
    missing = np.isnan(predicted).any(axis=(1, 2))
    rooted = scores.truth[:, :1] + constant.rooted
    flat = [j[..., :2] / j[..., 2:] for j in (np.where(missing[:, None, None], rooted, predicted), scores.truth)]
    a, b = (points - points[:, :1] for points in flat)
    return scores.focal_px * np.linalg.norm(a - b, axis=-1).mean(-1)


def report(scores: Scores, constant: ConstantPose) -> tuple[str, dict[str, float]]:
    """The table, and its figures by name."""
    tracked = errors_mm(scores.tracked, scores.truth, constant)
    given = errors_mm(scores.true_crop, scores.truth, constant)
    nothing = errors_mm(np.full_like(scores.truth, np.nan), scores.truth, constant)
    found = ~np.isnan(scores.tracked).any(axis=(1, 2))
    lines = [
        f"labels {len(scores.truth)}, hand found at {100 * found.mean():.1f} %",
        f"{'mm':28}{'MPJPE':>8}{'PA-MPJPE':>10}",
        *(
            f"{name:28}{a.mean():8.1f}{b.mean():10.1f}"
            for name, (a, b) in (
                ("crop found from events", tracked),
                ("crop from truth", given),
                ("best constant pose", nothing),
            )
        ),
        "by events a window           " + "MPJPE   PA   (constant: MPJPE   PA)",
    ]
    edges = np.quantile(scores.events, np.linspace(0, 1, 6))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = (scores.events >= low) & ((scores.events < high) | (high == edges[-1]))
        if chosen.any():
            values = [e[chosen].mean() for e in (*tracked, *nothing)]
            lines.append(
                f"  {low:7.0f} to {high:7.0f}        " + "{:6.1f} {:5.1f}           {:6.1f} {:5.1f}".format(*values)
            )
    figures = {
        "mpjpe_mm": tracked[0].mean(), "pa_mpjpe_mm": tracked[1].mean(),
        "true_crop_mpjpe_mm": given[0].mean(), "true_crop_pa_mpjpe_mm": given[1].mean(),
        "constant_mpjpe_mm": nothing[0].mean(), "constant_pa_mpjpe_mm": nothing[1].mean(), "found": found.mean(),
        "mpjpe_px": errors_px(scores.tracked, scores, constant).mean(),
    }  # fmt: skip
    return "\n".join(lines), {name: round(float(value), 3) for name, value in figures.items()}


def recorded_clip(path: Path) -> Clip:
    """A recording of one hand as a clip, see `labelled_clip`."""
    return labelled_clip(read_recording(path))


def labelled_clip(recording: Recording, other: bool = False) -> Clip:
    """A recording, with the truth of its hand or of the other one, as a clip with 30 labels a second, which is what the
    windows of `small` end at."""
    hand = recording.other if other else recording
    assert hand is not None and hand.pose is not None and hand.joints_m is not None
    assert recording.pose_t_us is not None
    t_us = recording.pose_t_us
    wanted = np.arange(1, int(t_us[-1] * 30e-6) + 1) * 1e6 / 30
    rows = np.unique(np.searchsorted(t_us, wanted - 5000).clip(0, len(t_us) - 1))
    names = ("orientation", "wrist", "joints", "shape")
    pose = HandPose(hand.pose.side, *(getattr(hand.pose, name)[rows] for name in names), hand.pose.hand_model)
    joints_px = sensor_pixels(hand.joints_m[rows], recording.camera)
    boxes_px = np.concatenate([joints_px.min(1), joints_px.max(1)], axis=-1)
    truth = Truth(t_us[rows], pose, hand.joints_m[rows], joints_px, boxes_px)
    return Clip(recording.events, recording.camera, (truth,), recording.meta)


def recordings_report(
    paths: list[Path], model: str, smooth: bool, constant: ConstantPose, both_ways: bool = False
) -> dict[str, dict[str, float]]:
    """Print a table per part (what stands before the number in a name) and per half; returns figures by part."""
    parts: dict[str, list[Scores]] = {}
    for path in progress_bar(paths, "recordings"):
        clip = recorded_clip(path)
        tracker = make_tracker(model, clip.camera, clip.pose.side, "cpu", smooth=smooth)
        scores = score_clip(clip, tracker, both_ways)
        for name in (path.stem.rsplit("-", 1)[0], path.stem.split("-")[0]):
            parts.setdefault(name, []).append(scores)
    figures = {}
    print("MPJPE and PA-MPJPE in mm; 2D-MPJPE in px, wrists laid on each other")
    print(f"{'':28}{'tracked':>16}{'crop from truth':>18}{'constant pose':>16}   found    2D")
    for name in sorted(parts):
        _, row = report(Scores.concatenate(parts[name]), constant)
        figures[name] = row
        pairs = [f"{row[k + 'mpjpe_mm']:8.1f}{row[k + 'pa_mpjpe_mm']:8.1f}" for k in ("", "true_crop_", "constant_")]
        print(f"{name:28}{pairs[0]}  {pairs[1]}{pairs[2]}   {100 * row['found']:5.1f} %{row['mpjpe_px']:6.1f}")
    return figures


def train_motion_joints(clips: int, seed: int) -> np.ndarray:
    """Joints of the preset `train`, ten times a second, without simulating events; left hands mirrored."""
    joints = []
    for i in progress_bar(range(clips), "constant pose"):
        world = draw_world(clip_of("train", seed, i, TrainShares())[1], seed, i)
        truth = world.truth(np.arange(50_000, world.config.duration_us, 100_000))
        joints.append(truth.joints_m * ([-1, 1, 1] if truth.pose.side == "left" else [1, 1, 1]))
    return np.concatenate(joints)


def training_joints(config: ClipConfig, clips: int, seed: int) -> np.ndarray:
    """Joints of short clips of training subjects, six a clip."""
    short = replace(config, duration_us=210_000)
    joints = [simulate_clip(short, seed, i).joints_m for i in progress_bar(range(clips), "constant pose")]
    return np.concatenate(joints)


def _constant(options: argparse.Namespace, joints: Callable[[], np.ndarray]) -> ConstantPose:
    """Read where it was written before, else fitted to `joints`."""
    if options.constant is not None and options.constant.exists():
        with np.load(options.constant) as file:
            return ConstantPose(file["rooted"], file["shape"])
    constant = fit_constant_pose(joints())
    if options.constant is not None:
        np.savez(options.constant, rooted=constant.rooted, shape=constant.shape)
    return constant


def main() -> None:
    torch.set_num_threads(1)  # several wait long for each other on a busy machine
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="small", help="a model that ships with evhands, or a checkpoint")
    parser.add_argument("--recordings", type=Path, help="score the recordings of a folder instead of fresh clips")
    parser.add_argument("--only", default="", help="... whose names begin so (frontal, free-fast, ...)")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a clip")
    parser.add_argument("--constant-clips", type=int, default=400)
    parser.add_argument("--constant", type=Path, help=".npz of a constant pose: read if it is there, else written")
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--orientation", default="frontal", choices=("frontal", "wide"))
    parser.add_argument("--raw", action="store_true", help="without the tracker's smoothing filter")
    parser.add_argument("--both-ways", action="store_true", help="tracked in both directions of time")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    if options.recordings is not None:
        paths = sorted(options.recordings.glob(f"{options.only}*.h5"))
        if not paths:
            parser.error(f"{options.recordings} holds no recording whose name begins with {options.only!r}")
        by_part = recordings_report(
            paths,
            options.model,
            not options.raw,
            _constant(options, lambda: train_motion_joints(1000, options.seed)),
            options.both_ways,
        )
        if options.json is not None:
            options.json.write_text(json.dumps(by_part, indent=1) + "\n")
        return
    config = ClipConfig(orientation=options.orientation, duration_us=round(1e6 * options.seconds))
    constant = _constant(options, lambda: training_joints(config, options.constant_clips, options.seed + 1))
    held_out = replace(config, subjects=TEST_SUBJECTS)
    parts, tracker = [], None
    for i in progress_bar(range(options.clips), "test clips"):
        clip = simulate_clip(held_out, options.seed, i)
        tracker = tracker or make_tracker(options.model, clip.camera, "right", "cpu", smooth=not options.raw)
        parts.append(score_clip(clip, replace(tracker, camera=clip.camera), options.both_ways))
    text, figures = report(Scores.concatenate(parts), constant)
    print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
