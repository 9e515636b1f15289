"""A tracker from the name of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from evhands.evaluation import open_method
from evhands.hand.model import load_hand
from evhands.models.checkpoint import ASSETS, read_checkpoint
from evhands.runtime import ExportedEstimator
from evhands.tracking import PoseEstimator, Tracker, TrackerConfig
from evhands.types import Camera, Side

Runtime = Literal["torch", "onnx"]
GRACE_US = 20_000
"""Events of a camera or a network are taken to come this late at most, where it must be known that none will come."""


def make_any_tracker(
    model: str, camera: Camera, side: Side, runtime: Runtime, device: str = "cpu", smooth: bool = True,
    mano: Path | None = None,
) -> Tracker:  # fmt: skip
    """The tracker of a model, run by torch or, where it is an exported file, by onnxruntime."""
    if runtime == "torch":
        return make_tracker(model, camera, side, device, smooth, mano)
    return exported_tracker(model, camera, side, smooth)


def make_tracker(
    model: str, camera: Camera, side: Side, device: str, smooth: bool = True, mano: Path | None = None
) -> Tracker:
    """The networks of a model on a device, with the hand of the wanted side."""
    method = open_method(model, mano, device)
    config = TrackerConfig() if smooth else TrackerConfig(smoothing=None)
    hand = method.hand.to("cpu")
    return Tracker(
        cast(PoseEstimator, method.estimator),
        cast(Any, method.detector),
        hand if hand.side == side else hand.mirrored(),
        camera,
        config,
    )


def exported_tracker(model: str, camera: Camera, side: Side, smooth: bool = True) -> Tracker:
    """The tracker with an exported file as its estimator; detector and filtered hand still run in torch."""
    estimator = ExportedEstimator(model)
    detector = read_checkpoint(ASSETS / "detector.pt", wanted="detector").model
    config = TrackerConfig() if smooth else TrackerConfig(smoothing=None)
    return Tracker(estimator, cast(Any, detector), load_hand(estimator.facts.hand, side), camera, config)
