"""The tracker: one pure step from a window of events and a state to a pose and the next state.

A track starts where the detector finds a hand in the events, then follows the crop that its own last pose predicts.
Where the detector sees the hand in another place, that place is followed too, as a rival, until it is clear which of
the two explains the events better. A still hand makes no events, so a window with few of them keeps the last pose; only
a hand that leaves the image, a rival, or poses that nothing speaks for end a track. Offline files and live cameras run
the same step. Its parts are in `evhands.following`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from jaxtyping import Float

from evhands.boxes import NOISE_MARGIN, CropBox, events_inside, noise_density, overlap, recent_events
from evhands.events.flashes import calm_window
from evhands.events.windows import windows_by_time
from evhands.following import (
    Detection,
    Follower,
    HandDetector,
    HandRecogniser,
    Look,
    Place,
    PoseEstimator,
    Recognition,
    Rival,
    Seen,
    Tracker,
    TrackerConfig,
    anchored,
    detections,
    first_look,
    hand_joints,
    look_at,
    next_box,
    next_rival,
    place_at,
    plausible,
)
from evhands.smoothing import SmoothingState, smooth_pose
from evhands.stopwatch import part
from evhands.types import Events, EventStream, EventWindow, HandPose, Side

__all__ = [
    "Detection", "HandDetector", "HandRecogniser", "PoseEstimator", "Recognition", "TrackResult", "Tracker",
    "TrackerConfig", "TrackerState", "hand_joints", "next_box", "step", "track_stream", "track_windows",
    "whole_windows",
]  # fmt: skip

Status = Literal["lost", "moving", "holding"]
"""lost: no pose. moving: a pose of this window. holding: the last pose of a hand that makes no events."""


@dataclass(frozen=True)
class TrackResult:
    """What the tracker says at `t_us`, the end of its window; pose, joints (21, 3) and box are None where the hand is
    lost.

    id: new for every new track, from 1 on; 0 where the hand is lost. joint_confidence: 0 to 1 of every joint; where
    the network knows only of the whole hand, all are the same. Both confidences fade while a hand is held.
    """

    t_us: int
    status: Status
    confidence: float
    events: int
    pose: HandPose | None = None
    joints_m: Float[np.ndarray, "21 3"] | None = None
    box: CropBox | None = None
    id: int = 0
    joint_confidence: Float[np.ndarray, " 21"] | None = None

    @property
    def tracked(self) -> bool:
        return self.pose is not None

    @property
    def side(self) -> Side | None:
        """None where the hand is lost."""
        return None if self.pose is None else self.pose.side


@dataclass(frozen=True)
class TrackerState:
    """All that the next step needs; `TrackerState()` is a tracker that has seen nothing.

    doubted_since_us, held_since_us: when low confidence, or stillness, began. recent: the events of the last
    `longest_us`. begun: how many tracks there have been. places, detected_us: what the detector saw last, and when.
    """

    last: TrackResult | None = None
    follower: Follower | None = None
    rival: Rival | None = None
    smoothing: SmoothingState | None = None
    doubted_since_us: int | None = None
    held_since_us: int | None = None
    recent: Events | None = None
    begun: int = 0
    places: tuple[Place, ...] = ()
    detected_us: int | None = None


def step(tracker: Tracker, window: EventWindow, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """One window in, one result out; windows come in order of time and may be empty."""
    with part("slicing"):
        recent = recent_events(state.recent, window, tracker.estimator.input_config.longest_us)
        seen, calm = calmed(tracker, window, recent)
    result, state = step_seen(tracker, seen, calm, state)
    return replace(result, events=len(window.events)), replace(state, recent=recent)


def calmed(tracker: Tracker, window: EventWindow, recent: Events) -> tuple[EventWindow, Events]:
    """The window, and the events up to its end, without flashes."""
    if tracker.config.flashes is None:
        return window, recent
    return calm_window(window, recent, tracker.config.flashes)


def step_seen(
    tracker: Tracker, window: EventWindow, recent: Events, state: TrackerState
) -> tuple[TrackResult, TrackerState]:
    """A step on events as they are, with those before it: for callers who keep `recent` themselves."""
    return _step(tracker, window, replace(state, recent=recent))


def _step(tracker: Tracker, window: EventWindow, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    camera, config = tracker.camera, tracker.config
    state = _with_places(tracker, window, state)
    assert state.recent is not None
    seen = Seen(window, state.recent, state.places)
    if state.last is None or state.follower is None:
        return _search(tracker, seen, state)
    box = next_box(state.follower, camera, tracker.estimator.input_config.crop_scale, config)
    if not plausible(box, camera, config):
        return _search(tracker, seen, state)
    noise = noise_density(window) * min(box.side_px**2, camera.size[0] * camera.size[1])
    if events_inside(window, box, camera) < config.min_events + NOISE_MARGIN * noise:
        return _hold(tracker, seen, state, box)
    there = place_at(tracker, seen, box)
    look = look_at(tracker, seen, anchored(box, state.follower.confidence, there), state.follower)
    rival = next_rival(tracker, seen, state.rival, look, there)
    if rival is not None and rival[1].lead >= config.takeover:
        return _begun(tracker, seen, rival[0], state)
    return _go_on(tracker, seen, replace(state, rival=rival and rival[1]), look, there)


def _with_places(tracker: Tracker, window: EventWindow, state: TrackerState) -> TrackerState:
    """The state with what the detector sees: anew where a hand is looked for, or the last look is old."""
    assert state.recent is not None
    known = state.follower is not None and state.detected_us is not None
    if known and window.end_us - cast(int, state.detected_us) < tracker.config.detect_every_us:
        return state
    return replace(state, places=detections(tracker, window, state.recent), detected_us=window.end_us)


def track_windows(
    tracker: Tracker, windows: Iterable[EventWindow], state: TrackerState | None = None
) -> Iterator[tuple[EventWindow, TrackResult]]:
    """Run the step over windows, giving each window with its result."""
    state = state or TrackerState()
    for window in windows:
        result, state = step(tracker, window, state)
        yield window, result


def track_stream(
    tracker: Tracker, stream: EventStream, stride_us: int | None = None
) -> Iterator[tuple[EventWindow, TrackResult]]:
    """Track a stream, live or from a file; the estimator's own stride unless another is given."""
    inputs = tracker.estimator.input_config
    return track_windows(tracker, whole_windows(stream, inputs.window_us, stride_us or inputs.stride_us))


def whole_windows(stream: EventStream, length_us: int, stride_us: int) -> Iterator[EventWindow]:
    """The windows of a stream but for those that its end cuts short; one shorter than a window gives that window."""
    watched = _LastTime(stream)
    for count, window in enumerate(windows_by_time(watched, length_us, stride_us)):
        if count == 0 or window.end_us <= watched.last_us + 1:
            yield window


class _LastTime:
    """A stream that knows how far it has been read."""

    def __init__(self, stream: EventStream):
        self.stream, self.size, self.last_us = stream, stream.size, 0

    def __iter__(self) -> Iterator[Events]:
        for events in self.stream:
            if len(events):
                self.last_us = int(events.t_us[-1])
            yield events


def _search(tracker: Tracker, seen: Seen, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """Start a track in the place that detector and estimator together are surest of."""
    window, config = seen.window, tracker.config
    looks = [(first_look(tracker, seen, d), d) for d in seen.detections if d.confidence >= config.min_detection]
    hands = [(look, d) for look, d in looks if look is not None and look.confidence > 0]
    if not hands:
        return lost(window.end_us, state)
    best = max(hands, key=lambda pair: pair[0].confidence * pair[1].confidence)[0]
    return _begun(tracker, seen, best, state)


def lost(t_us: int, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """No hand, and nothing kept but how many there have been."""
    return TrackResult(t_us, "lost", 0.0, 0), TrackerState(begun=state.begun)


def _begun(tracker: Tracker, seen: Seen, look: Look, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """The first pose of a new track."""
    return _given(tracker, seen, look, TrackerState(begun=state.begun + 1))


def _go_on(
    tracker: Tracker, seen: Seen, state: TrackerState, look: Look, there: Place | None
) -> tuple[TrackResult, TrackerState]:
    """The track's next pose, unless nothing has spoken for the track for a while, or the recogniser against it."""
    config, window = tracker.config, seen.window
    if look.follower.evidence.hand <= -config.evidence.end:
        return _search(tracker, seen, state)
    supported = there is not None and there.confidence >= config.min_detection
    if look.confidence > 0 and (supported or look.confidence >= config.min_confidence):
        return _given(tracker, seen, look, replace(state, doubted_since_us=None))
    since = state.doubted_since_us if state.doubted_since_us is not None else window.end_us
    if look.confidence == 0 or window.end_us - since >= config.patience_us:
        return _search(tracker, seen, state)
    return _given(tracker, seen, look, replace(state, doubted_since_us=since))


def _given(tracker: Tracker, seen: Seen, look: Look, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """The pose of a look, filtered, as the result of a step."""
    pose, smoothing, shown = look.pose, None, look.follower.joints_m
    if tracker.config.smoothing is not None:
        before = state.smoothing if state.smoothing and state.smoothing.pose.side == pose.side else None
        with part("smoothing"):
            pose, smoothing = smooth_pose(pose, seen.window.end_us, before, tracker.config.smoothing)
        with part("hand"):
            shown = hand_joints(tracker.hand_of(pose.side), pose)
    result = TrackResult(
        seen.window.end_us, "moving", look.confidence, len(seen.window.events), pose, shown, look.box, state.begun,
        look.joint_confidence,
    )  # fmt: skip
    return result, replace(state, last=result, follower=look.follower, smoothing=smoothing, held_since_us=None)


def _hold(tracker: Tracker, seen: Seen, state: TrackerState, box: CropBox) -> tuple[TrackResult, TrackerState]:
    """Keep the last pose; after a while let the detector move the track to where a hand does make events."""
    assert state.last is not None and state.follower is not None
    window, config = seen.window, tracker.config
    since = state.held_since_us if state.held_since_us is not None else window.start_us
    if window.end_us - since >= config.recheck_us and seen.detections:
        best = seen.detections[0]
        if best.confidence >= config.sure and overlap(best.box, box) < config.min_overlap:
            return _search(tracker, seen, state)
    decay = 0.5 ** ((window.end_us - state.last.t_us) / config.hold_half_life_us)
    of_joints = state.last.joint_confidence
    result = replace(
        state.last, t_us=window.end_us, status="holding", confidence=state.last.confidence * decay,
        joint_confidence=None if of_joints is None else of_joints * decay, events=len(window.events),
    )  # fmt: skip
    still = replace(state.follower, previous_joints_m=state.follower.joints_m)
    return result, replace(state, last=result, follower=still, rival=None, held_since_us=since)
