"""How surely hands are found: by the detector in single windows, and by the tracker over time.

    evhands simulate DIR --preset testset
    evhands simulate EMPTY --preset train --shares.empty 1 --seconds 60
    python scripts/evaluate_detection.py DIR [--empty EMPTY] [--model small] [--detector CHECKPOINT]

A hand is visible at a label if 16 of its joints are in view and it made 200 events in the last 50 ms (events in 1.2
times the box of its joints, less the noise of such an area). A hit: the centre lies within half a hand's side, the
larger extent of the joints' box. A loss begins at the first visible label of a recording, or where the tracker's crop
was a hit and is none any more, and lasts until the next hit. A false alarm: a window of a recording without a hand in
which the detector is sure enough to start a track.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track as progress_bar

from evhands.boxes import CropBox, events_inside, joints_box, noise_density
from evhands.events.windows import window_at
from evhands.geometry import project
from evhands.inputs import filled_window
from evhands.live.making import make_tracker
from evhands.models.checkpoint import read_checkpoint
from evhands.recording import read_recording
from evhands.sim.generate import Clip
from evhands.tracking import Tracker, track_windows
from evhands.types import EventWindow

RECOVERY_US = 200_000


@dataclass(frozen=True)
class Found:
    """One row a label (n,): its time, whether a hand is visible, and whether detector and tracker hit it."""

    t_us: np.ndarray
    visible: np.ndarray
    detected: np.ndarray
    tracked: np.ndarray


def is_visible(clip: Clip, label: int) -> bool:
    """Whether 16 joints are in view and the hand made 200 events in the last 50 ms."""
    joints, camera = clip.joints_m[label].astype(np.float64), clip.camera
    pixels = project(joints, camera.K)
    in_view = ((pixels >= -0.5) & (pixels < np.array(camera.size) - 0.5)).all(1).sum()
    window = window_at(clip.events, int(clip.label_t_us[label]), 50_000)
    box = joints_box(joints, camera, 1.2)
    of_hand = events_inside(window, box, camera) - noise_density(window) * box.side_px**2
    return bool(in_view >= 16 and of_hand >= 200)


def is_hit(centre_px: np.ndarray, box: CropBox) -> bool:
    """box: of the joints themselves."""
    return bool(np.linalg.norm(centre_px - box.centre_px) <= box.side_px / 2)


def find(clip: Clip, tracker: Tracker, labels: Sequence[int], windows: Sequence[EventWindow]) -> Found:
    """Run detector and tracker over a clip; windows end at the labels."""
    visible, detected, tracked = ([] for _ in range(3))
    for label, (window, result) in zip(labels, track_windows(tracker, windows), strict=True):
        box = joints_box(clip.joints_m[label].astype(np.float64), clip.camera, 1.0)
        seen = _detections(tracker, clip, window)
        visible.append(is_visible(clip, label))
        detected.append(bool(seen) and is_hit(seen[0].centre_px, box))
        tracked.append(result.box is not None and is_hit(result.box.centre_px, box))
    return Found(clip.label_t_us[list(labels)], *map(np.array, (visible, detected, tracked)))


def losses_us(found: Found) -> np.ndarray:
    """How long each loss lasted; one that the recording ends in, until then and infinitely long if that is too long to
    be a recovery."""
    out, since = [], None
    for t_us, visible, hit in zip(found.t_us, found.visible, found.tracked, strict=True):
        if hit:
            if since is not None:
                out.append(float(t_us - since))
            since = None
        elif since is None and visible:
            since = t_us
    if since is not None and found.t_us[-1] - since > RECOVERY_US:
        out.append(np.inf)
    return np.array(out)


def alarms(path: Path, tracker: Tracker) -> np.ndarray:
    """(windows,) whether the detector would start a track in a recording without a hand."""
    recording = read_recording(path)
    inputs, least = tracker.estimator.input_config, tracker.config.min_detection
    empty = Clip(recording.events, recording.camera, (), {})
    out = []
    for end_us in range(200_000, int(recording.events.t_us[-1]) if len(recording.events) else 0, inputs.stride_us):
        seen = _detections(tracker, empty, window_at(recording.events, end_us, inputs.window_us))
        out.append(bool(seen) and seen[0].confidence >= least)
    return np.array(out, bool)


def _detections(tracker: Tracker, clip: Clip, window: EventWindow) -> Sequence[object]:
    inputs = tracker.estimator.input_config
    return tracker.detector.detect(filled_window(window, clip.events, None, clip.camera, inputs), clip.camera)


def report(parts: dict[str, list[Found]]) -> str:
    """A line per part."""
    lines = [f"{'':28}{'visible':>8}{'detected':>10}{'tracked':>9}{'losses':>8}{'within 200 ms':>15}"]
    for name in sorted(parts):
        visible, detected, tracked = (
            np.concatenate([getattr(f, field) for f in parts[name]]) for field in ("visible", "detected", "tracked")
        )
        lost = np.concatenate([losses_us(f) for f in parts[name]])
        shares = [100 * x[visible].mean() if visible.any() else float("nan") for x in (detected, tracked)]
        back = f"{100 * (lost <= RECOVERY_US).mean():13.1f} %" if len(lost) else f"{'-':>15}"
        lines.append(f"{name:28}{visible.sum():8d}{shares[0]:8.1f} %{shares[1]:7.1f} %{len(lost):8d}{back}")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    from evaluate_simulated import clip_windows, recorded_clip  # the script beside this one

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--empty", type=Path, help="folder of recordings without a hand")
    parser.add_argument("--model", default="small")
    parser.add_argument("--detector", type=Path, help="a checkpoint; the one that ships with evhands when left out")
    options = parser.parse_args()
    parts: dict[str, list[Found]] = {}

    def tracker_of(clip_or_recording: object) -> Tracker:
        tracker = make_tracker(options.model, clip_or_recording.camera, "right", "cpu")  # type: ignore[attr-defined]
        if options.detector is None:
            return tracker
        return replace(tracker, detector=read_checkpoint(options.detector, wanted="detector").model)

    for path in progress_bar(sorted(options.recordings.glob("*.h5")), "recordings"):
        clip = recorded_clip(path)
        tracker = tracker_of(clip)
        labels, windows = zip(*clip_windows(clip, tracker.estimator.input_config.window_us), strict=True)
        found = find(clip, tracker, labels, windows)
        for name in (path.stem.rsplit("-", 1)[0], path.stem.split("-")[0]):
            parts.setdefault(name, []).append(found)
    print(report(parts))
    if options.empty is not None:
        false = [alarms(path, tracker_of(read_recording(path))) for path in sorted(options.empty.glob("*.h5"))]
        both = np.concatenate(false)
        print(f"false alarms in {100 * both.mean():.2f} % of {len(both)} windows without a hand")


if __name__ == "__main__":
    main()
