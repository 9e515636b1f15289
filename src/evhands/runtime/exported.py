"""An exported `.onnx` file as an estimator, with onnxruntime or OpenVINO and without torch.

    estimator = ExportedEstimator("small.onnx")
    hand, memory = estimator.look(window, camera, crop, estimator.initial_state(1))

The graph holds network, decoding and hand model; preprocessing is that of training (`evhands.inputs`). It is a
`PoseEstimator` of the tracker. The file says in its metadata, as JSON, what it wants to see and where it comes from.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from evhands.geometry import crop_direction, virtual_move
from evhands.inputs import InputConfig, crop_inputs, mirror_images
from evhands.runtime.sessions import Engine, Session, open_session
from evhands.stopwatch import part
from evhands.types import Camera, EventWindow, HandPose, InputError, Prediction, Side

FORMAT = "evhands.onnx"
VERSION = 1
METADATA = "evhands"
"""Key of the metadata of an ONNX file that holds `ModelFacts` as JSON."""
DETECTOR, RECOGNISER = "detector", "recogniser"
"""With a dot and `METADATA` before it: keys of the metadata that hold the networks which find hands, as ONNX files in
base64, so that one file is all that a tracker needs."""

OUTPUTS = ("rotation", "wrist", "joints", "shape", "confidence", "joints_m", "next_state")
"""What a graph gives, in the virtual camera along the crop's centre."""

_MORE = ("joint_confidence", "wrist_offset")
"""What only some graphs give: `small` the confidence of every joint, `paper` where the wrist of the rest pose lies."""

_MIRROR = np.diag(np.array((-1, 1, 1), np.float32))


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What an exported file says of itself. state_size: numbers of the memory; hand: name of the hand model (right).

    frame: the virtual camera that the graph speaks of: that of a crop, turned towards its centre, or moved there, as in
    the published method.
    """

    model: str
    hand: str
    inputs: InputConfig
    state_size: int
    precision: str = "float32"
    code_version: str = ""
    frame: Literal["turned", "moved"] = "turned"
    figures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)})

    @staticmethod
    def from_json(text: str) -> ModelFacts:
        """Raises ValueError, KeyError or TypeError for anything else than what `to_json` writes."""
        content = json.loads(text)
        if (found := (content.pop("format"), content.pop("version"))) != (FORMAT, VERSION):
            raise ValueError(f"format and version are {found}, wanted {(FORMAT, VERSION)}")
        content["inputs"] = InputConfig(**content["inputs"])
        return ModelFacts(**content)


@dataclass(frozen=True)
class PosedHand:
    """A hand in the camera that the crop was cut from, numpy without a batch dimension.

    joints_m: 21 joints in `openpose21` order, metres. confidence: 0 to 1. joint_confidence: of every joint, where the
    network tells.
    """

    pose: HandPose
    joints_m: Float[np.ndarray, "21 3"]
    confidence: float
    joint_confidence: Float[np.ndarray, "21"] | None = None


class ExportedEstimator:
    """A file of `evhands export`, run on the CPU; InputError where it cannot be used.

    threads: of one call. engine: what runs it, onnxruntime or OpenVINO. One object may be used by several Python
    threads at once: it keeps no memory of its own.
    """

    def __init__(self, path: Path | str, threads: int = 1, engine: Engine = "onnx"):
        self.path = Path(path)
        self._session = open_session(self.path, threads, engine)
        self.facts = _facts(self.path, self._session)
        self.input_config = self.facts.inputs
        self._outputs = (*OUTPUTS, *(name for name in _MORE if name in self._session.outputs))
        self._wanted = list(self._session.inputs)

    def part(self, name: str) -> bytes | None:
        """Another ONNX model that the file carries: `DETECTOR` or `RECOGNISER`."""
        text = self._session.metadata.get(f"{METADATA}.{name}")
        return None if text is None else base64.b64decode(text)

    def initial_state(self, batch: int) -> Float[np.ndarray, "b n"]:
        """The memory before the first window; a graph sees one track a call, so `batch` is 1."""
        return np.zeros((batch, self.facts.state_size), np.float32)

    def run(
        self, images: dict[str, np.ndarray], state: Float[np.ndarray, "1 n"]
    ) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "1 n"]]:
        """The outputs of the graph for images as `evhands.inputs.crop_inputs` makes them of one window, and the
        memory."""
        feeds = {name: state if name == "state" else images[name] for name in self._wanted}
        values = dict(zip(self._outputs, self._session.run(self._outputs, feeds)))
        return values, values.pop("next_state")

    def look(
        self, window: EventWindow, camera: Camera, crop: Camera, state: Any, side: Side = "right"
    ) -> tuple[PosedHand, Any]:
        """The hand of one window in the frame of `camera`, and the memory. Left hands are seen in a mirror."""
        with part("representation"):
            images = crop_inputs([window], camera, [crop], self.input_config)
            if side == "left":
                images = mirror_images(images)
        with part("network"):
            values, state = self.run(images, state)
        rotation, wrist, joints = (values[name][0] for name in ("rotation", "wrist", "joints"))
        joints_m = values["joints_m"][0]
        if self.facts.frame == "moved":
            shift = _shift(wrist - values["wrist_offset"][0], crop, camera, side).astype(np.float32)
            wrist, joints_m = wrist + shift, joints_m + shift
        if side == "left":
            rotation, joints = _MIRROR @ rotation @ _MIRROR, joints * -_MIRROR.diagonal()
            wrist, joints_m = _MIRROR @ wrist, joints_m @ _MIRROR
        if self.facts.frame == "turned":
            turn = crop_direction(crop)
            rotation, wrist, joints_m = turn @ rotation, turn @ wrist, joints_m @ turn.T
        orientation = rotation_vector(rotation).astype(np.float32)
        pose = HandPose(side, orientation, wrist.astype(np.float32), joints, values["shape"][0], self.facts.hand)
        of_joints = values["joint_confidence"][0] if "joint_confidence" in values else None
        return PosedHand(pose, joints_m, float(values["confidence"][0]), of_joints), state

    def predict(
        self, window: EventWindow, camera: Camera, crop: Camera, state: Any, side: Side = "right"
    ) -> tuple[Prediction, Any]:
        """What `look` says, as the tracker asks for it; the graph gives no flow."""
        hand, state = self.look(window, camera, crop, state, side)
        return Prediction(hand.pose, np.float32(hand.confidence), joint_confidence=hand.joint_confidence), state


def _shift(translation: Float[np.ndarray, "3"], crop: Camera, camera: Camera, side: Side) -> Float[np.ndarray, "3"]:
    """How far a right hand moves from the virtual camera of the published method to the real one; a left hand is one in
    the mirrored crop (`evhands.models.paper.PaperEstimator.to_camera`)."""
    left, top = camera.K[:2, 2] - crop.K[:2, 2]
    if side == "left":
        left = 2 * camera.K[0, 2] - left - (crop.size[0] - 1)
    return translation[2] * virtual_move(crop.K[0, 0] / camera.K[0, 0], left, top, camera.K)


def rotation_vector(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """The rotation vector, of at most pi, of a rotation matrix; by the surest column of 4 q q' (Bar-Itzhack 2000)."""
    m = np.asarray(matrix, np.float64)
    trace = m.trace()
    outer = np.empty((4, 4))
    outer[0, 0] = 1 + trace
    outer[0, 1:] = outer[1:, 0] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    outer[1:, 1:] = m + m.T + (1 - trace) * np.eye(3)
    q = outer[outer.diagonal().argmax()]
    q = q / np.linalg.norm(q) * (1.0 if q[0] >= 0 else -1.0)
    sine = np.linalg.norm(q[1:])
    return q[1:] * (2 * np.arctan2(sine, q[0]) / sine if sine > 1e-12 else 2.0)


def _facts(path: Path, session: Session) -> ModelFacts:
    try:
        facts = ModelFacts.from_json(session.metadata[METADATA])
        shapes = session.inputs
        if shapes["state"] != [1, facts.state_size] or shapes["lnes"][2:] != [facts.inputs.size_px] * 2:
            raise ValueError(f"inputs have the shapes {shapes}, which the metadata contradicts")
        if missing := set(OUTPUTS) - session.outputs:
            raise ValueError(f"outputs lack {', '.join(sorted(missing))}")
        if facts.frame == "moved" and "wrist_offset" not in session.outputs:
            raise ValueError("outputs lack wrist_offset")
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is an ONNX model, but none that this evhands exported: {error!r}. Wanted metadata under "
            f"{METADATA!r} and the inputs and outputs of `evhands export`; export the checkpoint again."
        ) from error
    return facts
