"""`evhands track`: an event recording, or an ordinary video, in; 3D hand poses and a picture of them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evhands.evaluation import open_method
from evhands.events.io import recognise
from evhands.geometry import default_camera, load_camera
from evhands.hand.model import load_hand
from evhands.models.checkpoint import ASSETS, read_checkpoint
from evhands.recording import read_camera
from evhands.runtime import ExportedEstimator
from evhands.sinks import open_sinks
from evhands.smoothing import SMOOTHING, Smooth
from evhands.sources import file_of, open_source
from evhands.track_files import FILES, Track, run_track
from evhands.tracking import HandRecogniser, PoseEstimator, Tracker, TrackerConfig
from evhands.types import Camera, Events, EventStream, InputError, Side, Size

Runtime = Literal["torch", "onnx"]
Hands = Literal["right", "left", "any", "both", "auto"]
DEFAULT_HANDS: Hands = "right"


def track(
    source: Path | str,
    *,
    model: str = "small",
    camera: Camera | Path | str | None = None,
    hands: Hands = DEFAULT_HANDS,
    rate: float | None = None,
    device: str = "cpu",
    smooth: Smooth | bool = "one-euro",
    out: Path | str | None = None,
    video: bool = True,
    salvage: bool = False,
    quiet: bool = True,
    runtime: Runtime = "torch",
    mano: Path | str | None = None,
    topic: str | None = None,
    wait: float | None = None,
    jsonl: str | None = None,
    serve: str | None = None,
) -> Track:
    """Track the hand of a recording and return its poses; with `out`, write them and an overlay video there.

    Args:
        source: event file of any known format, a video, or any other source of `evhands.sources.open_source`.
        model: a model that ships with evhands, a checkpoint, the folder of a training run, or a published .ckpt file.
        camera: the calibration, or a JSON file of it; None takes the one in the recording, else a stated default.
        hands: right or left: one hand, taken for one of that side. any: one hand, whose side is found. both: up to two,
            whose sides are found. auto: both where a recogniser of sides ships with evhands, else right.
        rate: poses a second; None is what the model was trained for.
        device: torch device of the network.
        smooth: the filter that the poses pass through: one-euro (also True), kalman, or off (also False).
        out: folder to write poses.npz, poses.csv, overlay.mp4 and summary.json to; None writes nothing.
        video: whether overlay.mp4 is among them.
        salvage: read on over times that run backwards and events outside the sensor.
        quiet: show no progress bar.
        runtime: what runs the network; with onnx, `model` is a file of `evhands export` and `device` the CPU.
        mano: MANO_RIGHT.pkl, where the checkpoint is of MANO and does not carry it.
        topic: topic of a ROS bag that has several of events.
        wait: seconds to wait for a network stream or camera, at the start and each time it is lost; None = 10.
        jsonl: file to write the hands to as they are found, one line a window; - is standard output.
        serve: [HOST:]PORT of a WebSocket that sends the same.

    Raises:
        InputError: files that cannot be used, recordings without events, unknown models.
    """
    stream = open_source(source, salvage=salvage, topic=topic, wait_s=wait)
    seen, camera_source = find_camera(camera, stream.size, file_of(source))
    if runtime == "torch":
        tracker = make_tracker(model, seen, hands, device, smooth, None if mano is None else Path(mano))
    else:
        tracker = exported_tracker(model, seen, hands, smooth)
    if rate is not None and not 1 <= rate <= 1000:
        raise InputError(f"Found a rate of {rate} poses a second, wanted 1 to 1000. Leave it out for the model's own.")
    with open_sinks(jsonl, serve, seen, model) as sinks, _progress(stream, quiet) as watched:
        result = run_track(
            tracker,
            watched,
            model=model,
            stride_us=None if rate is None else round(1e6 / rate),
            out=None if out is None else Path(out),
            video=video,
            sinks=sinks,
            facts={"file": str(source), "camera": camera_source},
        )
    return result


def track_command(
    source: str,
    *,
    out: Path,
    camera: Path | None = None,
    model: str = "small",
    hands: Hands = DEFAULT_HANDS,
    rate: float | None = None,
    video: bool = True,
    smooth: Smooth = "one-euro",
    device: str = "cpu",
    salvage: bool = False,
    runtime: Runtime = "torch",
    mano: Path | None = None,
    topic: str | None = None,
    wait: float | None = None,
    jsonl: str | None = None,
    serve: str | None = None,
) -> str | None:
    """Track the hand of a recording, a stream or a camera.

    Writes to the folder OUT: poses.npz (all arrays, see docs), poses.csv (one row a window: time, confidence, 21
    joints in metres), overlay.mp4 (events with the hand drawn over them) and summary.json.

    Args:
        source: event recording (.aedat4, .raw, .dat, .h5, .npz, .csv, ROS bag ...), or a video, which is turned into
            events; or - (standard input), tcp://HOST:PORT, unix:/PATH (network streams of dv-processing), camera:
            (iniVation), webcam: (see docs/sources.md).
        out: folder to write to; made if it is not there.
        camera: calibration as JSON: {"K": 3x3, "distortion": [...], "size": [w, h]}. Without it: the one in the
            recording, else f = 0.95 times the longer side.
        model: a model that ships with evhands, a checkpoint, the folder of a training run, or a published .ckpt file.
        hands: right or left: one hand, taken for one of that side. any: one hand, whose side is found. both: up to two,
            whose sides are found. auto: both where a recogniser of sides ships with evhands, else right.
        rate: poses a second; default is what the model was trained for.
        video: write overlay.mp4.
        smooth: the filter that the poses pass through: one-euro (smooth when still, quick when moving), kalman (follows
            steady motion without lag) or off.
        device: torch device of the network, such as cpu or cuda.
        salvage: read on over times that run backwards and events outside the sensor.
        runtime: what runs the network: torch, or onnx for a file that `evhands export` wrote, named by --model.
        mano: MANO_RIGHT.pkl, where the checkpoint is of MANO and does not carry it.
        topic: topic of a ROS bag that has several of events.
        wait: seconds to wait for a network stream or camera, at the start and each time it is lost; default 10.
        jsonl: write the hands to this file as they are found, one line of JSON a window; - is standard output, and
            the report then goes to standard error.
        serve: send the same lines over a WebSocket at [HOST:]PORT; without HOST to this machine only.
    """
    result = track(
        source,
        model=model,
        camera=camera,
        hands=hands,
        rate=rate,
        device=device,
        smooth=smooth,
        out=out,
        video=video,
        salvage=salvage,
        quiet=False,
        runtime=runtime,
        mano=mano,
        topic=topic,
        wait=wait,
        jsonl=jsonl,
        serve=serve,
    )
    text = report(result, out, video)
    if jsonl == "-":
        print(text, file=sys.stderr)
        return None
    return text


def report(result: Track, out: Path, video: bool = True) -> str:
    """The figures of a track that was written to `out`, for a terminal."""
    facts = json.loads((out / "summary.json").read_text())
    span = (facts["last_us"] - facts["first_us"]) / 1e6
    names = [name for name in FILES if video or name != "overlay.mp4"]
    width, height = result.camera.size
    lines = [
        ("recording", f"{facts['events']:,} events, {width}x{height}, poses over {span:.2f} s"),
        ("camera", f"{facts['camera']}, f = {result.camera.K[0, 0]:.0f} px"),
        ("hand found", f"{100 * facts['tracked_share']:.1f} % of {facts['windows']} windows"
                       f" ({100 * facts['holding_share']:.1f} % kept while still)"),
        *((_name(i), f"id {h['id']}, {h['side']}, in {h['windows']} windows") for i, h in enumerate(facts["hands"][:12])
          if len(facts["hands"]) > 1),
        ("confidence", f"{facts['mean_confidence']:.2f} on average"),
        ("speed", f"{facts['poses_per_second']:.0f} poses/s with model {result.model} (crop, network, hand)"),
        ("files", "  ".join(str(out / name) for name in names)),
    ]  # fmt: skip
    if not result.tracked.any():
        lines.append(("note", "no hand was found; is one in view, near enough (0.3 to 1 m) and moving?"))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)


def _name(row: int) -> str:
    return "hands" if row == 0 else ""


def make_tracker(
    model: str,
    camera: Camera,
    hands: Hands,
    device: str,
    smooth: Smooth | bool = "one-euro",
    mano: Path | None = None,
) -> Tracker:
    """The networks of a model on a device, with the hands that are wanted."""
    method = open_method(model, mano, device)
    hand = method.hand.to("cpu")
    estimator = cast(PoseEstimator, method.estimator)
    return _with_hands(Tracker(estimator, cast(Any, method.detector), hand, camera, _config(smooth)), hands, device)


def exported_tracker(model: str, camera: Camera, hands: Hands, smooth: Smooth | bool = "one-euro") -> Tracker:
    """The tracker with an exported file as its estimator; detector and filtered hand still run in torch."""
    estimator = ExportedEstimator(model)
    detector = read_checkpoint(ASSETS / "detector.pt", wanted="detector").model
    hand = load_hand(estimator.facts.hand)
    return _with_hands(Tracker(estimator, cast(Any, detector), hand, camera, _config(smooth)), hands, "cpu")


def _config(smooth: Smooth | bool) -> TrackerConfig:
    words: dict[Smooth | bool, Smooth] = {True: "one-euro", False: "off"}
    return TrackerConfig(smoothing=SMOOTHING[words.get(smooth, cast(Smooth, smooth))])


def _with_hands(tracker: Tracker, hands: Hands, device: str) -> Tracker:
    """The tracker of these hands; the recogniser keeps places without a hand out, whichever they are."""
    shipped = ASSETS / "recogniser.pt"
    if hands == "auto":
        hands = "both" if shipped.exists() else "right"
    if hands in ("any", "both") and not shipped.exists():
        raise InputError(
            f"Found --hands {hands}, which needs the recogniser of sides, and no {shipped.name} among the files that "
            "ship with this evhands. Wanted right or left; get a newer evhands for both."
        )
    side: Side = "left" if hands == "left" else "right"
    hand = tracker.hand if tracker.hand.side == side else tracker.hand.mirrored()
    if not shipped.exists():
        return replace(tracker, hand=hand)
    recogniser = cast(HandRecogniser, read_checkpoint(shipped, wanted="recogniser").model.to(device))
    mirrored = hand.mirrored() if hands in ("any", "both") else None
    return replace(tracker, hand=hand, recogniser=recogniser, mirrored=mirrored, count=2 if hands == "both" else 1)


def find_camera(camera: Camera | Path | str | None, size: Size, path: Path | None) -> tuple[Camera, str]:
    """The camera that was given, else the one in the recording, else the default of its size; and which it is."""
    if isinstance(camera, Camera):
        return camera, "given"
    if camera is not None:
        return load_camera(camera, size), str(camera)
    recorded = read_camera(path) if path is not None and recognise(path) == "hdf5" else None
    if recorded is not None:
        return recorded, "from the recording"
    return default_camera(size), "default, no calibration given"


_SLICE = 50_000


class _Readable(Protocol):
    """An event file that says how much of it has been read."""

    def chunks(self) -> Iterator[tuple[Events, float]]: ...


class _Watched:
    """A stream that moves a progress bar along as it is read."""

    def __init__(self, stream: EventStream, bar: Progress):
        self.stream, self.size, self.bar = stream, stream.size, bar

    def __iter__(self) -> Iterator[Events]:
        row = self.bar.add_task("tracking", total=1.0 if hasattr(self.stream, "chunks") else None)
        if not hasattr(self.stream, "chunks"):
            yield from self.stream
            return
        before = 0.0
        for events, fraction in cast(_Readable, self.stream).chunks():
            # A chunk holds up to a million events: in slices, so that the bar moves.
            for first in range(0, len(events), _SLICE):
                yield events[first : first + _SLICE]
                share = min(1.0, (first + _SLICE) / len(events))
                self.bar.update(row, completed=before + share * (fraction - before))
            before = fraction


@contextmanager
def _progress(stream: EventStream, quiet: bool) -> Iterator[EventStream]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield _Watched(stream, bar)
