"""`evhands export`: a checkpoint as a file that runs without torch, and how far its hands are from torch's."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np

from evhands.events.io import open_events
from evhands.evidence import RECOGNISER_SIZE
from evhands.files import replacing
from evhands.following import HandDetector
from evhands.hand.model import HandModel, load_hand
from evhands.inputs import OVERVIEW_SIZE, InputConfig, crop_inputs, mirror_images
from evhands.models.checkpoint import ASSETS, checkpoint_path, code_version, load_model, read_checkpoint
from evhands.models.paper import PaperEstimator
from evhands.models.paper_graph import paper_to_onnx, state_sizes
from evhands.models.small import SmallEstimator
from evhands.models.small_graph import network_to_onnx, to_onnx
from evhands.recording import find_camera
from evhands.runtime import DETECTOR, RECOGNISER, ExportedEstimator, ModelFacts
from evhands.runtime.exported import METADATA
from evhands.tracking import Tracker, TrackerConfig, hand_joints, track_stream
from evhands.types import Camera, EventStream, EventWindow, InputError, Prediction, Side

_CALIBRATION = 200
"""Windows whose activations set the ranges of the int8 model."""

Exportable = SmallEstimator | PaperEstimator


def export(
    checkpoint: str,
    *,
    to: Literal["onnx"] = "onnx",
    out: Path | None = None,
    int8: bool = False,
    data: Path | None = None,
    history: Literal["exact", "carried"] = "exact",
    mano: Path | None = None,
) -> str:
    """Write a model of the kind `small` or `paper` as a file for onnxruntime, and compare it with torch.

    The file holds network, decoding and hand model; its metadata say what it wants to see, and carry the networks that
    find hands and tell their sides. Torch and onnxruntime then follow the hand of a recording side by side, each with
    its own memory, and the distances of their 21 joints are printed in millimetres. `evhands.runtime` runs the file
    without torch.

    Args:
        checkpoint: a model that ships with evhands (small), or the path of a checkpoint.
        to: format of the file.
        out: file to write; default is the name of the checkpoint with .onnx (or -int8.onnx) in this folder.
        int8: convolutions in 8-bit integers, with ranges found in the first windows of the recording.
        history: of `paper`: exactly the published result from what is kept of eleven windows, or a state that is
            carried on without end.
        mano: MANO_RIGHT.pkl, for a checkpoint whose hand is MANO. The file then holds its numbers: keep it to yourself.
        data: event recording to compare on; default is the one that ships with the package.
    """
    wanted_packages()
    path = checkpoint_path(checkpoint)
    estimator, detector = load_model(checkpoint)
    if isinstance(estimator, PaperEstimator):
        estimator = estimator.with_history(history)
    elif not isinstance(estimator, SmallEstimator):
        raise InputError(
            f"{path} holds a {type(estimator).__name__}, which cannot be exported. Wanted a model of the kind 'small' "
            "or 'paper'; choose such a checkpoint."
        )
    hand = hand_of(estimator, mano)
    out = out or Path(f"{path.stem}{'-int8' if int8 else ''}.onnx")
    stream, camera, seen = recording(data)
    facts, parts = facts_of(estimator), finding_networks(detector)
    with TemporaryDirectory() as folder, replacing(out) as file:
        write_model(file, graph_of(estimator, hand), facts, parts)
        parity = compare(estimator, hand, ExportedEstimator(file), cast(Any, detector), stream, camera)
        if int8:
            quantised = Path(folder) / "int8.onnx"
            quantise(file, quantised, parity.feeds[:_CALIBRATION])
            write_model(file, quantised.read_bytes(), facts_of(estimator, "int8"), parts)
            parity = compare(estimator, hand, ExportedEstimator(file), cast(Any, detector), stream, camera)
        if parity.joints_mm.size == 0:
            raise InputError(
                f"No hand was found in {seen}, so that nothing could be compared and no file was written. Wanted a "
                "recording of a hand and a trained model; give another one with --data."
            )
    return report(out, parity, seen, int8)


def wanted_packages() -> None:
    """InputError where the packages of the extra `export` are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Exporting needs onnx and onnxruntime ({error}). Install them with: pip install 'evhands[export]'."
        ) from error


def hand_of(estimator: Exportable, mano: Path | None) -> HandModel:
    """The right hand of a model; InputError where it is MANO and no file is given."""
    if isinstance(estimator, SmallEstimator):
        return estimator.hand
    if (name := estimator.config.hand_model) == "open":
        return load_hand(name)
    if mano is None:
        raise InputError(
            f"The checkpoint speaks of the hand model '{name}', which does not ship with evhands. Wanted its file; "
            "give it with --mano MANO_RIGHT.pkl."
        )
    return load_hand(mano)


def graph_of(estimator: Exportable, hand: HandModel) -> bytes:
    return to_onnx(estimator) if isinstance(estimator, SmallEstimator) else paper_to_onnx(estimator, hand)


def facts_of(estimator: Exportable, precision: str = "float32") -> ModelFacts:
    small = isinstance(estimator, SmallEstimator)
    return ModelFacts(
        model="small" if small else "paper",
        hand=estimator.hand.name if isinstance(estimator, SmallEstimator) else estimator.config.hand_model,
        inputs=estimator.input_config,
        state_size=state_size(estimator),
        precision=precision,
        code_version=code_version(),
        frame="turned" if small else "moved",
    )


def state_size(estimator: Exportable) -> int:
    """Numbers of the memory that the graph takes and gives."""
    if isinstance(estimator, SmallEstimator):
        return int(estimator.initial_state(1).shape[1])
    return sum(int(np.prod(size)) for size in state_sizes(estimator))


def write_model(path: Path, graph: bytes, facts: ModelFacts, parts: dict[str, bytes] | None = None) -> None:
    """The graph, with its facts and the networks that find hands in the metadata."""
    import onnx

    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, {METADATA: facts.to_json(), **_carried(parts or {})})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _carried(parts: dict[str, bytes]) -> dict[str, str]:
    return {f"{METADATA}.{name}": base64.b64encode(content).decode() for name, content in parts.items()}


def finding_networks(detector: Any) -> dict[str, bytes]:
    """The detector of a checkpoint and the recogniser that ships with evhands, as ONNX files."""
    networks = {DETECTOR: (detector, OVERVIEW_SIZE)}
    if (shipped := ASSETS / "recogniser.pt").exists():
        networks[RECOGNISER] = read_checkpoint(shipped, wanted="recogniser").model, (RECOGNISER_SIZE, RECOGNISER_SIZE)
    return {name: network_to_onnx(network, size) for name, (network, size) in networks.items()}


def quantise(source: Path, target: Path, feeds: list[dict[str, np.ndarray]]) -> None:
    """Convolutions in int8 (weights by channel, activations by tensor) with ranges that the feeds give.

    The heat maps stay in float32: their soft maximum needs more than 256 levels. So do memory, heads and decoding.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Feeds(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[dict[str, np.ndarray]] = ({n: feed[n] for n in wanted} for feed in feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    graph = onnx.load(str(source)).graph
    wanted = [value.name for value in graph.input]
    kept = [n.name for n in graph.node if n.op_type == "Conv" and "maps" in n.name]
    quantize_static(
        str(source),
        str(target),
        Feeds(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=kept,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def recording(path: Path | None) -> tuple[EventStream, Camera, str]:
    """The events to compare on, their camera, and what to call them."""
    name = "the demo recording" if path is None else str(path)
    path = Path(str(resources.files("evhands"))) / "assets" / "demo.h5" if path is None else path
    stream = open_events(path)
    return stream, find_camera(None, stream.size, path)[0], name


@dataclass
class Parity:
    """Distances (n, 21) mm between the joints of torch and of the file, where they are and with wrist on wrist; and
    differences of confidence, times of a call in ms, and what the file was fed."""

    absolute: list[np.ndarray] = field(default_factory=list)
    rooted: list[np.ndarray] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    torch_ms: list[float] = field(default_factory=list)
    file_ms: list[float] = field(default_factory=list)
    feeds: list[dict[str, np.ndarray]] = field(default_factory=list)

    @property
    def joints_mm(self) -> np.ndarray:
        return np.array(self.absolute).reshape(-1, 21)

    @property
    def rooted_mm(self) -> np.ndarray:
        return np.array(self.rooted).reshape(-1, 21)


@dataclass(frozen=True)
class SideBySide:
    """Torch as the estimator of a tracker, with the file looking at the same crops; each has a memory of its own."""

    torch: Exportable
    hand: HandModel
    file: ExportedEstimator
    parity: Parity

    @property
    def input_config(self) -> InputConfig:
        return self.torch.input_config

    def initial_state(self, batch: int) -> Any:
        return self.torch.initial_state(batch), self.file.initial_state(batch)

    def predict(
        self, window: EventWindow, camera: Camera, crop: Camera, state: Any, side: Side = "right"
    ) -> tuple[Prediction, Any]:
        images = crop_inputs([window], camera, [crop], self.input_config)
        self.parity.feeds.append({**(mirror_images(images) if side == "left" else images), "state": state[1]})
        (prediction, first), torch_ms = _timed(lambda: self.torch.predict(window, camera, crop, state[0], side))
        (hand, second), file_ms = _timed(lambda: self.file.look(window, camera, crop, state[1], side))
        model = self.hand if side == "right" else self.hand.mirrored()
        joints = hand_joints(model, prediction.pose)
        distance = np.linalg.norm(joints - hand.joints_m, axis=-1)
        rooted = np.linalg.norm(joints - joints[0] - hand.joints_m + hand.joints_m[0], axis=-1)
        self.parity.absolute.append(1000 * distance)
        self.parity.rooted.append(1000 * rooted)
        self.parity.confidence.append(abs(float(prediction.confidence) - hand.confidence))
        self.parity.torch_ms.append(torch_ms)
        self.parity.file_ms.append(file_ms)
        return prediction, (first, second)


def compare(
    estimator: Exportable, hand: HandModel, file: ExportedEstimator, detector: HandDetector, stream: EventStream,
    camera: Camera,
) -> Parity:  # fmt: skip
    """Track the stream with torch, the file beside it."""
    both = SideBySide(estimator, hand, file, Parity())
    for _ in track_stream(Tracker(both, detector, hand, camera, TrackerConfig(smoothing=None)), stream):
        pass
    return both.parity


def report(out: Path, parity: Parity, seen: str, int8: bool) -> str:
    """The figures of a comparison, for a terminal."""

    def row(values: np.ndarray) -> str:
        return f"{values.mean():8.4f} {np.percentile(values, 99):8.4f} {values.max():8.4f} mm"

    torch_ms, file_ms = np.median(parity.torch_ms), np.median(parity.file_ms)
    lines = [
        f"file        {out} ({out.stat().st_size / 1e6:.1f} MB, {'int8' if int8 else 'float32'})",
        f"compared    {len(parity.joints_mm)} windows of {seen}, torch against onnxruntime, 21 joints",
        f"{'':12}{'mean':>8} {'p99':>8} {'max':>8}",
        f"joints      {row(parity.joints_mm)}   (where they are)",
        f"pose        {row(parity.rooted_mm)}   (wrist on wrist)",
        f"confidence  {np.mean(parity.confidence):8.4f} {'':8} {max(parity.confidence):8.4f}",
        f"median      {torch_ms:.1f} ms torch, {file_ms:.1f} ms onnxruntime on one thread (crop, network, hand)",
    ]
    if int8:
        lines.append(f"calibrated  on the first {min(_CALIBRATION, len(parity.feeds))} windows of the same recording")
    return "\n".join(lines)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, 1000 * (time.perf_counter() - start)
