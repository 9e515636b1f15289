"""How surely hands are found: by the detector in single windows, and by the tracker over time.

    evhands simulate DIR --preset testset
    evhands simulate EMPTY --preset train --shares.empty 1 --seconds 60
    evhands simulate TWO --preset two-hands --seconds 60
    python scripts/evaluate_detection.py [DIR] [--empty EMPTY] [--two-hands TWO] [--model small] [--detector CHECKPOINT]
        [--recogniser CHECKPOINT]

A hand is visible at a label if 16 of its joints are in view and it made 200 events in the last 50 ms (events in 1.2
times the box of its joints, less the noise of such an area). A hit: the centre lies within half a hand's side, the
larger extent of the joints' box. A loss begins at the first visible label of a recording, or where the tracker's crop
was a hit and is none any more, and lasts until the next hit. A false alarm: a window of a recording without a hand in
which the detector is sure enough to start a track, and for the tracker as a whole, one in which it reports a hand.
Of two hands, each tracked one stands for the hand that is nearest in the image, if it hits it, and for one only; its
side is right if it is that hand's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track as progress_bar

from evhands.boxes import CropBox, events_inside, joints_box, noise_density
from evhands.data.shards import seen_window
from evhands.events.windows import window_at
from evhands.geometry import project
from evhands.hands import track_hands
from evhands.inputs import filled_window
from evhands.live.making import make_tracker
from evhands.models.checkpoint import read_checkpoint
from evhands.recording import Recording, read_recording
from evhands.sim.generate import Clip, simulate_clip
from evhands.sim.presets import TEST_CLIPS, TEST_COUNT, clip_of_testset
from evhands.tracking import Tracker, track_windows
from evhands.types import EventWindow

RECOVERY_US = 200_000
EMPTY_SEED = 777


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


def alarms(empty: Clip, tracker: Tracker) -> np.ndarray:
    """(windows,) whether the detector would start a track in a recording without a hand."""
    least = tracker.config.min_detection
    seen = [_detections(tracker, empty, window) for window in _windows(empty, tracker)]
    return np.array([bool(places) and places[0].confidence >= least for places in seen], bool)


def alarms_of_tracker(empty: Clip, tracker: Tracker) -> np.ndarray:
    """(windows,) whether the tracker as a whole reports a hand in a recording without one."""
    found = track_hands(tracker, _windows(empty, tracker))
    return np.array([any(hand.tracked for hand in hands) for _, hands in found], bool)


def _windows(empty: Clip, tracker: Tracker) -> Iterator[EventWindow]:
    inputs = tracker.estimator.input_config
    last = int(empty.events.t_us[-1]) if len(empty.events) else 0
    return (window_at(empty.events, end_us, inputs.window_us) for end_us in range(200_000, last, inputs.stride_us))


def recorded_empty(path: Path) -> Clip:
    """A recording without a hand."""
    recording = read_recording(path)
    return Clip(recording.events, recording.camera, (), {})


def simulated_empty(index: int) -> Clip:
    """A clip of the kinds of the test set, in turn, whose hand is out of view; other people, another seed."""
    _, config = clip_of_testset(index * TEST_CLIPS % TEST_COUNT)
    clip = simulate_clip(replace(config, empty=True, subjects=(1_000_300, 1_000_400)), EMPTY_SEED, index)
    return Clip(clip.events, clip.camera, (), clip.meta)


@dataclass(frozen=True)
class FoundTwo:
    """One row a hand and label: whether it is visible, whether a tracked hand hits it, and whether that one's side is
    its; and of every label, how many more hands were tracked than hit."""

    visible: np.ndarray
    hit: np.ndarray
    side: np.ndarray
    surplus: np.ndarray


def find_two(recording: Recording, tracker: Tracker) -> FoundTwo:
    """Run the tracker of two hands over a recording of two."""
    from evaluate_simulated import labelled_clip  # the script beside this one

    clips = [labelled_clip(recording), labelled_clip(recording, other=True)]
    labels = [i for i, t_us in enumerate(clips[0].label_t_us) if t_us >= tracker.estimator.input_config.window_us]
    length = tracker.estimator.input_config.window_us
    windows = (window_at(recording.events, int(clips[0].label_t_us[i]), length) for i in labels)
    visible, hit, side, surplus = ([] for _ in range(4))
    for label, (_, hands) in zip(labels, track_hands(tracker, windows), strict=True):
        boxes = [joints_box(clip.joints_m[label].astype(np.float64), clip.camera, 1.0) for clip in clips]
        tracked = [hand for hand in hands if hand.box is not None]
        given = assigned([hand.box.centre_px for hand in tracked], boxes)
        for k, clip in enumerate(clips):
            visible.append(is_visible(clip, label))
            hit.append(k in given)
            side.append(k in given and tracked[given[k]].side == clip.pose.side)
        surplus.append(len(tracked) - len(given))
    return FoundTwo(*map(np.array, (visible, hit, side, surplus)))


def assigned(centres: Sequence[np.ndarray], boxes: Sequence[CropBox]) -> dict[int, int]:
    """Which tracked hand stands for which true one: {true: tracked}, the nearest pairs first, hits only."""
    pairs = [
        (float(np.linalg.norm(centre - box.centre_px)), k, i)
        for i, centre in enumerate(centres)
        for k, box in enumerate(boxes)
        if is_hit(centre, box)
    ]
    given: dict[int, int] = {}
    for _, k, i in sorted(pairs):
        if k not in given and i not in given.values():
            given[k] = i
    return given


def report_two(parts: Sequence[FoundTwo]) -> str:
    """The shares over all recordings of two hands."""
    visible, hit, side, surplus = (
        np.concatenate([getattr(f, name) for f in parts]) for name in FoundTwo.__annotations__
    )
    found = visible & hit
    lines = [
        f"two hands: {visible.sum()} visible hands in {len(surplus)} windows",
        f"  tracked in place          {100 * hit[visible].mean():5.1f} %",
        f"  of these the right side   {100 * side[found].mean() if found.any() else float('nan'):5.1f} %",
        f"  windows with a hand more than there is {100 * (surplus > 0).mean():5.1f} %",
    ]
    return "\n".join(lines)


def _detections(tracker: Tracker, clip: Clip, window: EventWindow) -> Sequence[object]:
    inputs = tracker.estimator.input_config
    calm, recent = seen_window(clip.events, window.end_us, inputs)
    return tracker.detector.detect(filled_window(calm, recent, None, clip.camera, inputs), clip.camera)


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
    parser.add_argument("recordings", type=Path, nargs="?")
    parser.add_argument("--two-hands", type=Path, help="folder of recordings of two hands")
    parser.add_argument("--empty", type=Path, help="folder of recordings without a hand")
    parser.add_argument(
        "--no-hand", type=int, default=0, help="simulate so many clips like the test set's, without one"
    )
    parser.add_argument("--model", default="small")
    parser.add_argument("--detector", type=Path, help="a checkpoint; the one that ships with evhands when left out")
    parser.add_argument("--recogniser", type=Path, help="a checkpoint; the one that ships with evhands when left out")
    options = parser.parse_args()
    parts: dict[str, list[Found]] = {}

    def tracker_of(clip_or_recording: object, two: bool = False) -> Tracker:
        tracker = make_tracker(options.model, clip_or_recording.camera, "right", "cpu")  # type: ignore[attr-defined]
        if options.detector is not None:
            tracker = replace(tracker, detector=read_checkpoint(options.detector, wanted="detector").model)
        if options.recogniser is not None:
            tracker = replace(tracker, recogniser=read_checkpoint(options.recogniser, wanted="recogniser").model)
        return replace(tracker, mirrored=tracker.hand.mirrored(), count=2) if two else tracker

    paths = sorted(options.recordings.glob("*.h5")) if options.recordings is not None else []
    for path in progress_bar(paths, "recordings"):
        clip = recorded_clip(path)
        tracker = tracker_of(clip)
        labels, windows = zip(*clip_windows(clip, tracker.estimator.input_config.window_us), strict=True)
        found = find(clip, tracker, labels, windows)
        for name in (path.stem.rsplit("-", 1)[0], path.stem.split("-")[0]):
            parts.setdefault(name, []).append(found)
    if parts:
        print(report(parts))
    if options.two_hands is not None:
        recordings = map(read_recording, sorted(options.two_hands.glob("*.h5")))
        print(report_two([find_two(r, tracker_of(r, two=True)) for r in recordings if r.other is not None]))
    if options.empty is not None:
        print("recordings without a hand:")
        report_empty([recorded_empty(path) for path in sorted(options.empty.glob("*.h5"))], tracker_of)
    if options.no_hand:
        print(f"{options.no_hand} clips of the kinds of the test set without a hand:")
        report_empty([simulated_empty(i) for i in progress_bar(range(options.no_hand), "clips")], tracker_of)


def report_empty(clips: Sequence[Clip], tracker_of: Callable[..., Tracker]) -> None:
    """Print false alarms of the detector alone, and of trackers of one hand and of two."""
    false = np.concatenate([alarms(clip, tracker_of(clip)) for clip in clips])
    print(f"  false alarms of the detector in {100 * false.mean():.2f} % of {len(false)} windows")
    for two, name in ((False, "one hand"), (True, "two hands")):
        said = np.concatenate([alarms_of_tracker(clip, tracker_of(clip, two)) for clip in clips])
        print(f"  false alarms of the tracker of {name} in {100 * said.mean():.2f} % of them")


if __name__ == "__main__":
    main()
