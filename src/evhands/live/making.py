"""A tracker from the name of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from evhands.hand.one_pose import load_plain_hand
from evhands.recording import find_camera
from evhands.runtime import DETECTOR, RECOGNISER, ExportedDetector, ExportedEstimator, ExportedRecogniser
from evhands.runtime.sessions import Engine
from evhands.smoothing import SMOOTHING, Smooth
from evhands.sources import file_of, open_source
from evhands.tracking import HandRecogniser, PoseEstimator, Tracker, TrackerConfig
from evhands.types import Camera, EventStream, InputError, Side

Runtime = Literal["torch", Engine]
Hands = Literal["right", "left", "any", "both", "auto"]
DEFAULT_HANDS: Hands = "right"
GRACE_US = 20_000
"""Events of a camera or a network are taken to come this late at most, where it must be known that none will come."""


@dataclass(frozen=True)
class Opened:
    """A source with the tracker for it. path: of a recording; None = the source sets the pace itself."""

    stream: EventStream
    path: Path | None
    tracker: Tracker
    facts: dict[str, str]
    """What was opened, and which camera it was taken for."""


def open_tracking(
    source: Path | str, model: str, camera: Camera | Path | str | None, hands: Hands, runtime: Runtime, device: str,
    *, smooth: Smooth | bool = "one-euro", mano: Path | str | None = None, salvage: bool = False,
    topic: str | None = None, wait: float | None = None,
) -> Opened:  # fmt: skip
    """Open a source, find its camera, and make the tracker; InputError where any of that cannot be."""
    stream = open_source(source, salvage=salvage, topic=topic, wait_s=wait)
    path = file_of(source)
    seen, camera_source = find_camera(camera, stream.size, path)
    tracker = make_any_tracker(model, seen, hands, runtime, device, smooth, None if mano is None else Path(mano))
    return Opened(stream, path, tracker, {"file": str(source), "camera": camera_source})


def make_any_tracker(
    model: str, camera: Camera, hands: Hands, runtime: Runtime, device: str = "cpu",
    smooth: Smooth | bool = "one-euro", mano: Path | None = None,
) -> Tracker:  # fmt: skip
    """The tracker of a model, run by torch or, where it is an exported file, by onnxruntime or OpenVINO."""
    if runtime == "torch":
        return make_tracker(model, camera, hands, device, smooth, mano)
    return exported_tracker(model, camera, hands, smooth, mano, runtime)


def make_tracker(
    model: str,
    camera: Camera,
    hands: Hands,
    device: str,
    smooth: Smooth | bool = "one-euro",
    mano: Path | None = None,
) -> Tracker:
    """The networks of a model on a device, with the hands that are wanted."""
    from evhands.evaluation import open_method  # torch: what runs an exported file does without
    from evhands.models.checkpoint import ASSETS, read_checkpoint

    method = open_method(model, mano, device)
    hand = method.hand.to("cpu")
    estimator, shipped = cast(PoseEstimator, method.estimator), ASSETS / "recogniser.pt"
    recogniser = read_checkpoint(shipped, wanted="recogniser").model.to(device) if shipped.exists() else None
    tracker = Tracker(estimator, cast(Any, method.detector), hand, camera, tracker_config(smooth))
    return with_hands(tracker, cast(Any, recogniser), hands)


def exported_tracker(
    model: str, camera: Camera, hands: Hands, smooth: Smooth | bool = "one-euro", mano: Path | None = None,
    engine: Engine = "onnx",
) -> Tracker:  # fmt: skip
    """The tracker of an exported file, which carries all of its networks: nothing of it runs in torch."""
    estimator = ExportedEstimator(model, engine=engine)
    detector, recogniser = (estimator.part(name) for name in (DETECTOR, RECOGNISER))
    if detector is None:
        raise InputError(
            f"{model} carries no network that finds hands, as files of older versions of evhands. Wanted one that "
            "does; export the checkpoint again with `evhands export`."
        )
    own = estimator.facts.hand
    hand = load_plain_hand(own if own == "open" or mano is None else str(mano))
    tracker = Tracker(estimator, ExportedDetector(detector, engine=engine), hand, camera, tracker_config(smooth))
    looks = None if recogniser is None else ExportedRecogniser(recogniser, engine=engine)
    return with_hands(tracker, looks, hands)


def tracker_config(smooth: Smooth | bool) -> TrackerConfig:
    """The config with a filter by its name; True is one-euro, False is off."""
    words: dict[Smooth | bool, Smooth] = {True: "one-euro", False: "off"}
    return TrackerConfig(smoothing=SMOOTHING[words.get(smooth, cast(Smooth, smooth))])


def with_hands(tracker: Tracker, recogniser: HandRecogniser | None, hands: Hands) -> Tracker:
    """The tracker of these hands; the recogniser keeps places without a hand out, whichever they are."""
    if hands == "auto":
        hands = "both" if recogniser is not None else "right"
    if hands in ("any", "both") and recogniser is None:
        raise InputError(
            f"Found --hands {hands}, which needs a recogniser of sides, and none that comes with the model. "
            "Wanted right or left; get a newer evhands, or export the model again, for both."
        )
    side: Side = "left" if hands == "left" else "right"
    hand = tracker.hand if tracker.hand.side == side else tracker.hand.mirrored()
    mirrored = hand.mirrored() if hands in ("any", "both") else None
    count = 2 if hands == "both" else 1
    return replace(tracker, hand=hand, recogniser=recogniser, mirrored=mirrored, count=count)
