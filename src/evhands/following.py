"""Following a place in the events from window to window: what detector and estimator say of it, and of its rival.

The parts of a step of the tracker (`evhands.tracking`), which puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float

from evhands.boxes import CropBox, joints_box, overlap
from evhands.events.flashes import FlashConfig
from evhands.evidence import RECOGNISER_SIZE, Evidence, EvidenceConfig, HandRecogniser, Recognition
from evhands.geometry import crop_camera
from evhands.hand.one_pose import PosableHand
from evhands.inputs import InputConfig, filled_window
from evhands.smoothing import AnySmoothing, SmoothingConfig
from evhands.stopwatch import part
from evhands.types import Camera, Events, EventWindow, HandPose, Prediction, Side


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
    """Finds the places where a hand may be from the events of a window alone, the likeliest first; none where there is
    no hand. Their confidences add up to at most 1."""

    def detect(self, window: EventWindow, camera: Camera) -> Sequence[Detection]: ...


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """When a track starts, holds and ends, and how its crop moves.

    min_confidence: a pose below it is doubted unless the detector sees the hand there too; doubt longer than
        patience_us ends the track.
    detect_every_us: while a hand is tracked, the detector looks no more often; in between, what it saw last is taken.
        Windows that come less often are all looked at.
    min_detection: a place that the detector is so sure of starts a track, or a rival.
    min_events: fewer events in the crop, beyond those of noise, hold the last pose; after recheck_us of that the
        detector may move the track, if it is as sure as `sure`.
    hold_half_life_us: the confidence of a held pose halves in this time.
    lookahead: share of the last motion that the crop is moved ahead by.
    side_smoothing: weight of the new crop size against the old one.
    min_overlap: two boxes show the same hand if they overlap by so much (intersection over union).
    takeover: a rival becomes the track when its lead, a sum of logarithms of ratios of confidence, is so large.
    most_lead: what a single window can add to it: no window alone makes a rival the track.
    min_inside: a track ends when less than this share of its crop is in the image.
    max_distance_m: a crop is never smaller than a fist (9 cm) at this distance.
    min_side_px, max_side: smallest crop in pixels, largest as a multiple of the longer image side.
    flashes: which milliseconds are left out because the light of the whole scene jumps; None = all are looked at.
    smoothing: filter of the poses given out; None gives them as they are. The crop follows the unfiltered ones.
    evidence: how the looks of a recogniser add up.
    """

    min_confidence: float = 0.15
    patience_us: int = 400_000
    detect_every_us: int = 25_000
    min_detection: float = 0.3
    min_events: int = 40
    recheck_us: int = 200_000
    hold_half_life_us: int = 2_000_000
    lookahead: float = 0.5
    side_smoothing: float = 0.5
    sure: float = 0.8
    min_overlap: float = 0.2
    takeover: float = 4.0
    most_lead: float = 3.0
    min_inside: float = 0.35
    max_distance_m: float = 1.4
    min_side_px: float = 24.0
    max_side: float = 2.0
    smoothing: AnySmoothing | None = field(default_factory=SmoothingConfig)
    flashes: FlashConfig | None = FlashConfig()
    evidence: EvidenceConfig = EvidenceConfig()


@dataclass(frozen=True)
class Tracker:
    """What every step shares: the networks, the hand, the camera and the thresholds.

    hand: of the side that is tracked, or where sides are found, of the one that a hand is taken for before anything is
    known. mirrored: the hand of the other side; with it and a recogniser, sides are found. count: how many hands are
    tracked at most (by `evhands.hands.step`). right_prior: log odds that a hand is a right one before it is looked at.
    """

    estimator: PoseEstimator
    detector: HandDetector
    hand: PosableHand
    camera: Camera
    config: TrackerConfig = TrackerConfig()
    recogniser: HandRecogniser | None = None
    mirrored: PosableHand | None = None
    count: int = 1
    right_prior: float = 0.0

    @property
    def finds_sides(self) -> bool:
        return self.recogniser is not None and self.mirrored is not None

    def hand_of(self, side: Side) -> PosableHand:
        if side == self.hand.side or self.mirrored is None:
            return self.hand
        return self.mirrored


@dataclass(frozen=True)
class Follower:
    """A place that is followed from window to window.

    joints_m and previous_joints_m are unfiltered, for the motion of the crop; memory is the estimator's own state, of
    hands of `side`.
    """

    joints_m: Float[np.ndarray, "21 3"]
    previous_joints_m: Float[np.ndarray, "21 3"]
    side_px: float
    memory: Any
    confidence: float
    side: Side = "right"
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Rival:
    """Another place that the hand may be in, and how much more speaks for it than for the track, so far."""

    follower: Follower
    lead: float


@dataclass(frozen=True)
class Seen:
    """What a step is given: the window, the events before it, and where the detector sees hands in them."""

    window: EventWindow
    recent: Events
    detections: tuple[Place, ...]


@dataclass(frozen=True)
class Place:
    """A detection as a crop."""

    box: CropBox
    confidence: float


@dataclass(frozen=True)
class Look:
    """What the estimator says of a crop."""

    box: CropBox
    pose: HandPose
    confidence: float
    follower: Follower
    joint_confidence: Float[np.ndarray, " 21"]


def hand_joints(hand: PosableHand, pose: HandPose) -> Float[np.ndarray, "21 3"]:
    """The 21 joints of one pose in `openpose21` order, metres, camera frame."""
    return hand.joints_of(pose)


def next_box(follower: Follower, camera: Camera, crop_scale: float, config: TrackerConfig) -> CropBox:
    """The crop for the next window: the last joints moved on a little, the size changing slowly."""
    ahead = follower.joints_m + config.lookahead * (follower.joints_m - follower.previous_joints_m)
    if ahead[:, 2].min() < 0.02:
        ahead = follower.joints_m
    box = joints_box(ahead, camera, crop_scale)
    side = follower.side_px + config.side_smoothing * (box.side_px - follower.side_px)
    return CropBox(box.centre_px, max(side, least_side_px(camera, crop_scale, config)))


def place_at(tracker: Tracker, seen: Seen, box: CropBox) -> Place | None:
    """Where the detector sees the hand of a crop."""
    return next((d for d in seen.detections if overlap(d.box, box) >= tracker.config.min_overlap), None)


def anchored(box: CropBox, confidence: float, there: Place | None) -> CropBox:
    """A crop that comes from a pose of some confidence, drawn towards the detector's: as far as the detector is sure,
    and the estimator is not.

    The detector's boxes do not depend on those before, so that no crop shrinks by itself, as onto a moving finger.
    """
    if there is None:
        return box
    weight = there.confidence * (1 - confidence)
    centre = box.centre_px + weight * (there.box.centre_px - box.centre_px)
    return CropBox(centre, box.side_px * (there.box.side_px / box.side_px) ** weight)


def next_rival(
    tracker: Tracker, seen: Seen, rival: Rival | None, track: Look, there: Place | None
) -> tuple[Look, Rival] | None:
    """The place that may be better than the track's, with its lead; None where nothing speaks for one.

    there: what the detector sees at the track. Estimator and detector each say how sure they are of both places; their
    ratios are added up over windows as logarithms, as in a sequential test of two hypotheses.
    """
    config = tracker.config
    other = next((d for d in seen.detections if overlap(d.box, track.box) < config.min_overlap), None)
    look, lead, shown = None, 0.0, None
    if rival is not None:
        box = next_box(rival.follower, tracker.camera, tracker.estimator.input_config.crop_scale, config)
        shown = place_at(tracker, seen, box)
        kept = other is None or shown is not None or other.confidence < config.min_detection
        if kept and plausible(box, tracker.camera, config):
            box = anchored(box, rival.follower.confidence, shown)
            look, lead = look_at(tracker, seen, box, rival.follower), rival.lead
    if look is None and other is not None and other.confidence >= config.min_detection:
        look, shown = first_look(tracker, seen, other), other
    if look is None or overlap(look.box, track.box) > 0.8:
        return None
    gain = _log_ratio(look.confidence, track.confidence)
    if shown is not there:
        gain += _log_ratio(shown.confidence if shown else 0.0, there.confidence if there else 0.0)
    lead += float(np.clip(gain, -config.most_lead, config.most_lead))
    return None if lead < 0 else (look, Rival(look.follower, lead))


def _log_ratio(first: float, second: float) -> float:
    """Confidences below 0.05 are all alike: nobody is surer than that."""
    return float(np.log(max(first, 0.05) / max(second, 0.05)))


def least_side_px(camera: Camera, crop_scale: float, config: TrackerConfig) -> float:
    """Side of the crop of the smallest hand that is worth a look."""
    return max(config.min_side_px, crop_scale * 0.09 * float(camera.K[0, 0]) / config.max_distance_m)


def first_look(tracker: Tracker, seen: Seen, place: Place) -> Look | None:
    """Predict twice: the second time in a crop that the first pose has a part in; None where the recogniser sees no
    hand."""
    config, crop_scale = tracker.config, tracker.estimator.input_config.crop_scale
    known = Evidence()
    if tracker.recogniser is not None:
        recognition = _recognition(tracker, seen, place.box)
        if recognition.nothing > config.evidence.max_nothing:
            return None
        known = known.with_look(recognition, config.evidence)
    side = _side(tracker, tracker.hand.side, known, change=0.0)
    look = _predicted(tracker, seen, place.box, None, side, known)
    if look.confidence < config.min_confidence:
        return look
    refined = joints_box(look.follower.joints_m, tracker.camera, crop_scale)
    if not plausible(refined, tracker.camera, config) or overlap(refined, place.box) <= config.min_overlap:
        return look
    return _predicted(tracker, seen, anchored(refined, look.confidence, place), None, side, known)


def look_at(tracker: Tracker, seen: Seen, box: CropBox, before: Follower) -> Look:
    """Ask recogniser and estimator about the crop of a track; one whose side changes begins anew with the other
    hand."""
    known, side, config = before.evidence, before.side, tracker.config.evidence
    if tracker.recogniser is not None:
        if known.due(config, tracker.finds_sides):
            known = known.with_look(_recognition(tracker, seen, box), config)
            side = _side(tracker, side, known, config.change)
        else:
            known = replace(known, windows=known.windows + 1)
    return _predicted(tracker, seen, box, before, side, known)


def _side(tracker: Tracker, side: Side, known: Evidence, change: float) -> Side:
    """The side that a hand is taken for: the other one than before once the evidence for it exceeds `change`."""
    if not tracker.finds_sides:
        return side
    right = known.right + tracker.right_prior
    if abs(right) <= change:
        return side
    return "right" if right > 0 else "left"


def _recognition(tracker: Tracker, seen: Seen, box: CropBox) -> Recognition:
    assert tracker.recogniser is not None
    filled = filled_window(seen.window, seen.recent, box, tracker.camera, tracker.estimator.input_config)
    crop = crop_camera(tracker.camera, box.centre_px, box.side_px, RECOGNISER_SIZE)
    return tracker.recogniser.recognise(filled, tracker.camera, crop)


def _predicted(
    tracker: Tracker, seen: Seen, box: CropBox, before: Follower | None, side: Side, known: Evidence
) -> Look:
    """Ask the estimator about a crop; a pose that cannot be has the confidence 0."""
    inputs, camera = tracker.estimator.input_config, tracker.camera
    crop = crop_camera(camera, box.centre_px, box.side_px, inputs.size_px)
    fresh = before is None or before.side != side
    memory = tracker.estimator.initial_state(1) if fresh else cast(Follower, before).memory
    with part("slicing"):
        filled = filled_window(seen.window, seen.recent, box, camera, inputs)
    prediction, memory = tracker.estimator.predict(filled, camera, crop, memory, side)
    with part("hand"):
        joints = hand_joints(tracker.hand_of(side), prediction.pose)
    confidence = float(prediction.confidence) if _sane(joints) else 0.0
    of_joints = prediction.joint_confidence
    of_joints = np.full(21, confidence) if of_joints is None else np.asarray(of_joints, np.float64)
    previous = joints if before is None else before.joints_m
    follower = Follower(joints, previous, box.side_px, memory, confidence, side, known)
    return Look(box, prediction.pose, confidence, follower, of_joints)


def detections(tracker: Tracker, window: EventWindow, recent: Events) -> tuple[Place, ...]:
    """Where the detector sees hands, surest first; it looks at windows filled as those that it was trained on."""
    if len(window.events) < tracker.config.min_events:
        return ()
    inputs = tracker.estimator.input_config
    with part("detector"):
        filled = filled_window(window, recent, None, tracker.camera, inputs)
        found = tracker.detector.detect(filled, tracker.camera)
    return tuple(
        Place(_detected_box(d, inputs.crop_scale, tracker.camera, tracker.config), float(d.confidence)) for d in found
    )


def _detected_box(detection: Detection, crop_scale: float, camera: Camera, config: TrackerConfig) -> CropBox:
    side = max(float(detection.extent_px) * crop_scale, least_side_px(camera, crop_scale, config))
    return CropBox(np.asarray(detection.centre_px, np.float64), side)


def plausible(box: CropBox, camera: Camera, config: TrackerConfig) -> bool:
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
