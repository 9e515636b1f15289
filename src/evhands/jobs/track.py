"""`evhands track`: an event recording, or an ordinary video, in; 3D hand poses and a picture of them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from evhands.sources import file_of, open_source
from evhands.track_files import FILES, Track, run_track
from evhands.tracking import PoseEstimator, Tracker, TrackerConfig
from evhands.types import Camera, Events, EventStream, InputError, Side, Size

Runtime = Literal["torch", "onnx"]


def track(
    source: Path | str,
    *,
    model: str = "small",
    camera: Camera | Path | str | None = None,
    side: Side = "right",
    rate: float | None = None,
    device: str = "cpu",
    smooth: bool = True,
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
        side: which hand is seen.
        rate: poses a second; None is what the model was trained for.
        device: torch device of the network.
        smooth: pass the poses through a light filter.
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
        tracker = make_tracker(model, seen, side, device, smooth, None if mano is None else Path(mano))
    else:
        tracker = exported_tracker(model, seen, side, smooth)
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
    side: Side = "right",
    rate: float | None = None,
    video: bool = True,
    smooth: bool = True,
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
        side: which hand is seen.
        rate: poses a second; default is what the model was trained for.
        video: write overlay.mp4.
        smooth: pass the poses through a light filter.
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
        side=side,
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
                       f" ({100 * facts['held_share']:.1f} % kept while still)"),
        ("confidence", f"{facts['mean_confidence']:.2f} on average"),
        ("speed", f"{facts['poses_per_second']:.0f} poses/s with model {result.model} (crop, network, hand)"),
        ("files", "  ".join(str(out / name) for name in names)),
    ]  # fmt: skip
    if not result.tracked.any():
        lines.append(("note", "no hand was found; is one in view, near enough (0.3 to 1 m) and moving?"))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)


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
