"""The tracker: one pure step from a window of events and a state to a pose and the next state.

A track starts where the detector finds a hand in the events, then follows the crop that its own last pose predicts.
A still hand makes no events, so a window with few of them keeps the last pose; only a hand that leaves the image or
poses that the estimator does not believe in end a track. Offline files and live cameras run the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from evhands.boxes import (
    NOISE_MARGIN,
    CropBox,
    events_inside,
    joints_box,
    noise_density,
    overlap,
    recent_events,
)
from evhands.events.windows import windows_by_time
from evhands.geometry import crop_camera
from evhands.hand.model import HandModel, pose_hand
from evhands.inputs import InputConfig, filled_window
from evhands.smoothing import SmoothingConfig, SmoothingState, smooth_pose
from evhands.types import Camera, Events, EventStream, EventWindow, HandMesh, HandPose, Prediction, Side

Status = Literal["searching", "found", "tracked", "held"]
"""searching: no pose. found: first pose after a detection. held: the last pose of a hand that makes no events."""


@runtime_checkable
class PoseEstimator(Protocol):
    """A network that turns a window and a crop into a pose in the frame of the real camera; its memory is `state`."""

    @property
    def input_config(self) -> InputConfig: ...

    def initial_state(self, batch: int) -> Any: ...

    def predict(
        self, window: EventWindow, camera: Camera, crop: Camera, state: Any, side: Side = "right"
    ) -> tuple[Prediction, Any]: ...


@runtime_checkable
class Detection(Protocol):
    """Centre and larger extent of a hand's joints in pixels of the undistorted camera, and how sure (0 to 1)."""

    @property
    def centre_px(self) -> Any: ...

    @property
    def extent_px(self) -> float: ...

    @property
    def confidence(self) -> float: ...


@runtime_checkable
class HandDetector(Protocol):
    """Finds a hand from the events of a window alone; None where there is none."""

    def detect(self, window: EventWindow, camera: Camera) -> Detection | None: ...


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """When a track starts, holds and ends, and how its crop moves.

    min_confidence: a pose below it is doubted; doubt longer than patience_us ends the track.
    min_detection: the detector starts a track from this confidence up.
    min_events: fewer events in the crop, beyond those of noise, hold the last pose; after recheck_us of that the
        detector may move the track.
    hold_half_life_us: the confidence of a held pose halves in this time.
    lookahead: share of the last motion that the crop is moved ahead by.
    side_smoothing: weight of the new crop size against the old one.
    anchor, min_anchor: weight of the detector's box against the track's own, used from this confidence up: it keeps a
        crop from shrinking onto a single moving finger.
    min_refined: the first pose of a track moves the detector's crop only if both overlap by so much (intersection over
        union) and the pose is not doubted. A track that is doubted and overlaps less begins anew in the detector's box.
    elsewhere: a track moves to where the detector sees a livelier hand after so many windows in a row.
    min_inside: a track ends when less than this share of its crop is in the image.
    max_distance_m: a crop is never smaller than a fist (9 cm) at this distance.
    min_side_px, max_side: smallest crop in pixels, largest as a multiple of the longer image side.
    smoothing: filter of the poses given out; None gives them as they are. The crop follows the unfiltered ones.
    """

    min_confidence: float = 0.15
    patience_us: int = 400_000
    min_detection: float = 0.3
    min_events: int = 40
    recheck_us: int = 500_000
    hold_half_life_us: int = 2_000_000
    lookahead: float = 0.5
    side_smoothing: float = 0.5
    anchor: float = 0.5
    min_anchor: float = 0.8
    min_refined: float = 0.35
    elsewhere: int = 5
    min_inside: float = 0.35
    max_distance_m: float = 1.4
    min_side_px: float = 24.0
    max_side: float = 2.0
    smoothing: SmoothingConfig | None = field(default_factory=SmoothingConfig)


@dataclass(frozen=True)
class TrackResult:
    """What the tracker says at `t_us`, the end of its window; pose, joints (21, 3) and box are None when searching."""

    t_us: int
    status: Status
    confidence: float
    events: int
    pose: HandPose | None = None
    joints_m: Float[np.ndarray, "21 3"] | None = None
    box: CropBox | None = None

    @property
    def tracked(self) -> bool:
        return self.pose is not None


@dataclass(frozen=True)
class TrackerState:
    """All that the next step needs; `TrackerState()` is a tracker that has seen nothing.

    memory: the estimator's own state. joints_m and previous_joints_m are unfiltered, for the motion of the crop.
    doubted_since_us, held_since_us: when low confidence, or stillness, began.
    """

    last: TrackResult | None = None
    joints_m: Float[np.ndarray, "21 3"] | None = None
    previous_joints_m: Float[np.ndarray, "21 3"] | None = None
    side_px: float = 0.0
    memory: Any = None
    smoothing: SmoothingState | None = None
    doubted_since_us: int | None = None
    held_since_us: int | None = None
    elsewhere: int = 0
    """Windows in a row in which the detector saw a livelier hand in another place."""
    recent: Events | None = None
    """The events of the last `longest_us`."""


@dataclass(frozen=True)
class Tracker:
    """What every step shares: the networks, the hand of the right side, the camera and the thresholds."""

    estimator: PoseEstimator
    detector: HandDetector
    hand: HandModel
    camera: Camera
    config: TrackerConfig = TrackerConfig()


def step(tracker: Tracker, window: EventWindow, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    """One window in, one result out; windows come in order of time and may be empty."""
    recent = recent_events(state.recent, window, tracker.estimator.input_config.longest_us)
    result, state = _step(tracker, window, replace(state, recent=recent))
    return replace(result, events=len(window.events)), replace(state, recent=recent)


def _step(tracker: Tracker, window: EventWindow, state: TrackerState) -> tuple[TrackResult, TrackerState]:
    assert state.recent is not None
    inputs = tracker.estimator.input_config
    if state.last is None or state.joints_m is None:
        return _search(tracker, filled_window(window, state.recent, None, tracker.camera, inputs))
    box = next_box(state, tracker.camera, inputs.crop_scale, tracker.config)
    if not _plausible(box, tracker.camera, tracker.config):
        return _search(tracker, window)
    filled = filled_window(window, state.recent, box, tracker.camera, inputs)
    noise = noise_density(window) * min(box.side_px**2, tracker.camera.size[0] * tracker.camera.size[1])
    if events_inside(window, box, tracker.camera) < tracker.config.min_events + NOISE_MARGIN * noise:
        return _hold(tracker, window, state, box)
    box, state = _anchored(tracker, filled, box, state)
    if state.elsewhere >= tracker.config.elsewhere:
        return _search(tracker, filled)
    return _follow(tracker, filled, state, box)


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


def hand_joints(hand: HandModel, pose: HandPose) -> Float[np.ndarray, "21 3"]:
    """The 21 joints of one pose in `openpose21` order, metres, camera frame."""
    with torch.no_grad():
        return pose_hand(hand, pose).joints().numpy().astype(np.float64)


def hand_mesh(hand: HandModel, pose: HandPose) -> HandMesh:
    """The surface and joints of one pose as numpy arrays, metres, camera frame."""
    with torch.no_grad():
        mesh = pose_hand(hand, pose).mesh()
    return HandMesh(mesh.vertices.numpy(), mesh.joints.numpy(), mesh.faces.numpy())


def next_box(state: TrackerState, camera: Camera, crop_scale: float, config: TrackerConfig) -> CropBox:
    """The crop for the next window: the last joints moved on a little, the size changing slowly."""
    assert state.joints_m is not None
    previous = state.joints_m if state.previous_joints_m is None else state.previous_joints_m
    ahead = state.joints_m + config.lookahead * (state.joints_m - previous)
    if ahead[:, 2].min() < 0.02:
        ahead = state.joints_m
    box = joints_box(ahead, camera, crop_scale)
    side = state.side_px + config.side_smoothing * (box.side_px - state.side_px)
    return CropBox(box.centre_px, max(side, least_side_px(camera, crop_scale, config)))


def _anchored(tracker: Tracker, window: EventWindow, box: CropBox, state: TrackerState) -> tuple[CropBox, TrackerState]:
    """The track's crop drawn towards the detector's, or one more window in which the hand seems to be elsewhere."""
    config = tracker.config
    detection = _detect(tracker, window)
    if detection is None or detection.confidence < config.min_anchor:
        return box, replace(state, elsewhere=0)
    found = _detected_box(detection, tracker.estimator.input_config.crop_scale, tracker.camera, config)
    if state.doubted_since_us is not None and overlap(found, box) < config.min_refined:
        # What the network remembers is of another place.
        return found, replace(state, elsewhere=0, memory=tracker.estimator.initial_state(1))
    if overlap(found, box) < 0.2:
        livelier = events_inside(window, found, tracker.camera) > 2 * events_inside(window, box, tracker.camera)
        return box, replace(state, elsewhere=state.elsewhere + 1 if livelier else 0)
    centre = box.centre_px + config.anchor * (found.centre_px - box.centre_px)
    return CropBox(centre, box.side_px + config.anchor * (found.side_px - box.side_px)), replace(state, elsewhere=0)


def least_side_px(camera: Camera, crop_scale: float, config: TrackerConfig) -> float:
    """Side of the crop of the smallest hand that is worth a look."""
    return max(config.min_side_px, crop_scale * 0.09 * float(camera.K[0, 0]) / config.max_distance_m)


def _search(tracker: Tracker, window: EventWindow) -> tuple[TrackResult, TrackerState]:
    """Ask the detector; on a hit predict twice, because the crop of the first pose is better than the detector's."""
    nothing = TrackResult(window.end_us, "searching", 0.0, len(window.events)), TrackerState()
    detection = _detect(tracker, window)
    if detection is None:
        return nothing
    crop_scale = tracker.estimator.input_config.crop_scale
    box = _detected_box(detection, crop_scale, tracker.camera, tracker.config)
    prediction, _ = _predict(tracker, window, box, tracker.estimator.initial_state(1))
    joints = hand_joints(tracker.hand, prediction.pose)
    if not _sane(joints):
        return nothing
    refined = joints_box(joints, tracker.camera, crop_scale)
    believed = float(prediction.confidence) >= tracker.config.min_confidence
    if (
        believed
        and _plausible(refined, tracker.camera, tracker.config)
        and overlap(refined, box) > tracker.config.min_refined
    ):
        box = CropBox(
            refined.centre_px, max(refined.side_px, least_side_px(tracker.camera, crop_scale, tracker.config))
        )
    start = TrackerState(side_px=box.side_px, memory=tracker.estimator.initial_state(1))
    return _follow(tracker, window, start, box, status="found")


def _follow(
    tracker: Tracker, window: EventWindow, state: TrackerState, box: CropBox, status: Status = "tracked"
) -> tuple[TrackResult, TrackerState]:
    prediction, memory = _predict(tracker, window, box, state.memory)
    joints = hand_joints(tracker.hand, prediction.pose)
    confidence = float(prediction.confidence) if _sane(joints) else 0.0
    doubted = confidence < tracker.config.min_confidence
    since = state.doubted_since_us if state.doubted_since_us is not None else window.end_us
    if doubted and (window.end_us - since >= tracker.config.patience_us or not _sane(joints)):
        # One more look only when this was a running track: a fresh detection has just been tried.
        if status == "tracked":
            return _search(tracker, window)
        return TrackResult(window.end_us, "searching", 0.0, len(window.events)), TrackerState()
    pose, smoothing, shown = prediction.pose, None, joints
    if tracker.config.smoothing is not None:
        pose, smoothing = smooth_pose(pose, window.end_us, state.smoothing, tracker.config.smoothing)
        shown = hand_joints(tracker.hand, pose)
    result = TrackResult(window.end_us, status, confidence, len(window.events), pose, shown, box)
    return result, TrackerState(
        result, joints, state.joints_m, box.side_px, memory, smoothing, since if doubted else None
    )


def _hold(tracker: Tracker, window: EventWindow, state: TrackerState, box: CropBox) -> tuple[TrackResult, TrackerState]:
    """Keep the last pose; after a while let the detector move the track to where a hand does make events."""
    assert state.last is not None
    since = state.held_since_us if state.held_since_us is not None else window.start_us
    if window.end_us - since >= tracker.config.recheck_us and len(window.events) >= tracker.config.min_events:
        detection = _detect(tracker, window)
        crop_scale = tracker.estimator.input_config.crop_scale
        if (
            detection is not None
            and overlap(_detected_box(detection, crop_scale, tracker.camera, tracker.config), box) < 0.3
        ):
            return _search(tracker, window)
    decay = 0.5 ** ((window.end_us - state.last.t_us) / tracker.config.hold_half_life_us)
    result = replace(
        state.last,
        t_us=window.end_us,
        status="held",
        confidence=state.last.confidence * decay,
        events=len(window.events),
    )
    return result, replace(state, last=result, previous_joints_m=state.joints_m, held_since_us=since)


def _detect(tracker: Tracker, window: EventWindow) -> Detection | None:
    if len(window.events) < tracker.config.min_events:
        return None
    detection = tracker.detector.detect(window, tracker.camera)
    if detection is None or detection.confidence < tracker.config.min_detection:
        return None
    return detection


def _detected_box(detection: Detection, crop_scale: float, camera: Camera, config: TrackerConfig) -> CropBox:
    side = max(float(detection.extent_px) * crop_scale, least_side_px(camera, crop_scale, config))
    return CropBox(np.asarray(detection.centre_px, np.float64), side)


def _predict(tracker: Tracker, window: EventWindow, box: CropBox, memory: Any) -> tuple[Prediction, Any]:
    crop = crop_camera(tracker.camera, box.centre_px, box.side_px, tracker.estimator.input_config.size_px)
    return tracker.estimator.predict(window, tracker.camera, crop, memory, tracker.hand.side)


def _plausible(box: CropBox, camera: Camera, config: TrackerConfig) -> bool:
    """Whether enough of the crop lies in the image, and the crop is not far larger than it."""
    if box.side_px > config.max_side * max(camera.size):
        return False
    image = np.array([0, 0, *camera.size], np.float64) - 0.5
    x0, y0, x1, y1 = box.corners()
    inside = max(0.0, min(x1, image[2]) - max(x0, image[0])) * max(0.0, min(y1, image[3]) - max(y0, image[1]))
    return bool(inside >= config.min_inside * min(box.side_px**2, camera.size[0] * camera.size[1]))


def _sane(joints_m: Float[np.ndarray, "21 3"]) -> bool:
    """Finite and in front of the camera."""
    return bool(np.isfinite(joints_m).all() and joints_m[:, 2].min() > 0.02)
