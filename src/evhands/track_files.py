"""A whole track as arrays, and what it leaves on disk: poses.npz, poses.csv, overlay.mp4 and summary.json.

Several jobs track a stream and keep the result; this is what they share.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped

from evhands.boxes import sensor_pixels
from evhands.files import replacing
from evhands.hand.model import HandModel
from evhands.hand.skeleton import JOINT_ORDERS
from evhands.overlay import OverlayStyle, draw_overlay, video_writer
from evhands.tracking import Tracker, TrackerState, TrackResult, hand_mesh, step, whole_windows
from evhands.types import Camera, Events, EventStream, EventWindow, HandPose, InputError, Side

FILES = ("poses.npz", "poses.csv", "overlay.mp4", "summary.json")


class Sink(Protocol):
    """Takes a window and what the tracker says of every hand in it, as soon as it is known."""

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Track:
    """The poses of one recording, one row a window; rows without a hand hold NaN and `tracked` False.

    t_us: end of the window, on the clock of the recording. orientation (n, 3), wrist (n, 3) m, joints (n, 15, 3) and
    shape (n, 10) as in `HandPose`, in the frame of `camera`. joints_m: 21 joints in `openpose21` order, metres, camera
    frame. joints_px: where they lie on the sensor, lens distortion included. boxes_px: x0 y0 x1 y1 of the crop in the
    undistorted image. status: searching, found, tracked, held. events: in the window, the whole sensor.
    """

    t_us: Int64[np.ndarray, " n"]
    side: Side
    hand_model: str
    model: str
    camera: Camera
    orientation: Float32[np.ndarray, "n 3"]
    wrist: Float32[np.ndarray, "n 3"]
    joints: Float32[np.ndarray, "n 15 3"]
    shape: Float32[np.ndarray, "n 10"]
    joints_m: Float32[np.ndarray, "n 21 3"]
    joints_px: Float32[np.ndarray, "n 21 2"]
    boxes_px: Float32[np.ndarray, "n 4"]
    confidence: Float32[np.ndarray, " n"]
    tracked: Bool[np.ndarray, " n"]
    status: Shaped[np.ndarray, " n"]
    events: Int64[np.ndarray, " n"]
    seconds: float = 0.0
    """How long all tracker steps took together, without reading and drawing."""

    def __len__(self) -> int:
        return len(self.t_us)

    @property
    def pose(self) -> HandPose:
        """All poses as one batch."""
        return HandPose(self.side, self.orientation, self.wrist, self.joints, self.shape, self.hand_model)

    @property
    def poses_per_second(self) -> float:
        return float(np.count_nonzero(self.tracked)) / self.seconds if self.seconds > 0 else 0.0

    def joints_at(self, t_us: Int64[np.ndarray, " m"]) -> Float[np.ndarray, "m 21 3"]:
        """The 21 joints at any times: linear between neighbouring poses, the nearest one outside; NaN with no pose."""
        if not self.tracked.any():
            return np.full((len(t_us), 21, 3), np.nan)
        times, joints = self.t_us[self.tracked], self.joints_m[self.tracked].astype(np.float64)
        after = np.clip(np.searchsorted(times, t_us), 1, max(len(times) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(times) - 1)
        span = np.maximum(times[after] - times[before], 1)
        share = np.clip((np.asarray(t_us) - times[before]) / span, 0.0, 1.0)[:, None, None]
        return joints[before] * (1 - share) + joints[after] * share


def collect(results: Sequence[TrackResult], tracker: Tracker, model: str, seconds: float = 0.0) -> Track:
    """The rows of a track from the results of its windows (none = an empty track)."""
    n, camera = len(results), tracker.camera
    rows = {
        name: np.full((n, *shape), np.nan, np.float32)
        for name, shape in (
            ("orientation", (3,)), ("wrist", (3,)), ("joints", (15, 3)), ("shape", (10,)),
            ("joints_m", (21, 3)), ("joints_px", (21, 2)), ("boxes_px", (4,)),
        )
    }  # fmt: skip
    for i, result in enumerate(results):
        if result.pose is None or result.joints_m is None or result.box is None:
            continue
        for name in ("orientation", "wrist", "joints", "shape"):
            rows[name][i] = getattr(result.pose, name)
        rows["joints_m"][i] = result.joints_m
        rows["joints_px"][i] = sensor_pixels(result.joints_m, camera)
        rows["boxes_px"][i] = result.box.corners()
    return Track(
        t_us=np.array([r.t_us for r in results], np.int64),
        side=tracker.hand.side,
        hand_model=tracker.hand.name,
        model=model,
        camera=camera,
        confidence=np.array([r.confidence for r in results], np.float32),
        tracked=np.array([r.tracked for r in results], np.bool_),
        status=np.array([r.status for r in results], dtype="U9"),
        events=np.array([r.events for r in results], np.int64),
        seconds=seconds,
        **rows,
    )


def run_track(
    tracker: Tracker,
    stream: EventStream,
    *,
    model: str,
    stride_us: int | None = None,
    out: Path | None = None,
    video: bool = True,
    style: OverlayStyle = OverlayStyle(),
    sinks: Sequence[Sink] = (),
    facts: dict[str, Any] | None = None,
) -> Track:
    """Track a stream to its end and, where `out` is given, write the files there in one go.

    Nothing appears in `out` before all is written: an interruption leaves what was there before. `facts` go into
    summary.json as they are. Every window goes to the `sinks` with its hands as soon as they are known. Raises
    InputError where the stream holds no event at all.
    """
    stride = stride_us or tracker.estimator.input_config.stride_us
    names = [name for name in FILES if out is not None and (video or name != "overlay.mp4")]
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        paths = {name: stack.enter_context(replacing(Path(out or ".") / name)) for name in names}
        if video and paths:
            sinks = (*sinks, stack.enter_context(_overlay(paths["overlay.mp4"], tracker, stride, style)))
        counted = _Counted(stream)
        results, seconds = _results(tracker, counted, stride, sinks)
        track = collect(results, tracker, model, seconds)
        if paths:
            save_track(track, paths["poses.npz"])
            write_csv(track, paths["poses.csv"])
            summary = {**(facts or {}), "events": counted.events, **summarise(track)}
            paths["summary.json"].write_text(json.dumps(summary, indent=2) + "\n")
    return track


@contextmanager
def one_thread() -> Iterator[None]:
    """One window at a time gains little from more threads of torch, and waits long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Counted:
    """A stream that knows how many events have been read of it."""

    def __init__(self, stream: EventStream):
        self.stream, self.size, self.events = stream, stream.size, 0

    def __iter__(self) -> Iterator[Events]:
        for part in self.stream:
            self.events += len(part)
            yield part


def _results(
    tracker: Tracker,
    stream: EventStream,
    stride_us: int,
    sinks: Sequence[Sink],
) -> tuple[list[TrackResult], float]:
    """All results, and the seconds of the steps alone: without reading, cutting into windows, drawing and compiling."""
    results: list[TrackResult] = []
    state, seconds = TrackerState(), 0.0
    for window in whole_windows(stream, tracker.estimator.input_config.window_us, stride_us):
        if len(results) < 3:  # a step is pure: run it once for nothing, so that what is compiled on first use is there
            step(tracker, window, state)
        start = time.perf_counter()
        result, state = step(tracker, window, state)
        seconds += time.perf_counter() - start
        results.append(result)
        for sink in sinks:
            sink(window, (result,))
    if not results:
        raise InputError(
            "The recording holds no events. Wanted a recording of a moving hand; look at the file with `evhands info`, "
            "and record again."
        )
    return results, seconds


def summarise(track: Track) -> dict[str, Any]:
    """The figures of a track (of at least one window) as plain values."""
    return {
        "model": track.model,
        "side": track.side,
        "hand_model": track.hand_model,
        "sensor": list(track.camera.size),
        "windows": len(track),
        "first_us": int(track.t_us[0]),
        "last_us": int(track.t_us[-1]),
        "tracked_share": round(float(track.tracked.mean()), 4),
        "held_share": round(float(np.mean(track.status == "held")), 4),
        "mean_confidence": round(float(track.confidence[track.tracked].mean()), 4) if track.tracked.any() else 0.0,
        "tracking_seconds": round(track.seconds, 3),
        "poses_per_second": round(track.poses_per_second, 1),
    }


COLUMNS = (
    "t_us", "orientation", "wrist", "joints", "shape", "joints_m", "joints_px", "boxes_px",
    "confidence", "tracked", "status", "events",
)  # fmt: skip
"""The arrays of `Track` with a row a window."""
CSV_HEADER = ("t_us", "confidence", *(f"{joint}_{axis}" for joint in JOINT_ORDERS["openpose21"] for axis in "xyz"))


def save_track(track: Track, path: Path | str) -> None:
    """Write poses.npz: the arrays of `Track` by their names, the camera as K, distortion and size."""
    arrays = {name: getattr(track, name) for name in COLUMNS} | one_values(track)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)


def one_values(track: Track) -> dict[str, Any]:
    """What poses.npz holds once, whatever the number of windows."""
    camera = track.camera
    values = {name: np.asarray(getattr(track, name)) for name in ("side", "hand_model", "model", "seconds")}
    values |= {"K": camera.K, "distortion": camera.distortion, "size": np.array(camera.size)}
    return values | {"joint_names": np.array(JOINT_ORDERS["openpose21"])}


def load_track(path: Path | str) -> Track:
    """Read poses.npz back."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        width, height = (int(v) for v in content.pop("size"))
        camera = Camera(content.pop("K"), (width, height), content.pop("distortion"))
        content.pop("joint_names")
        words = {name: str(content.pop(name)) for name in ("side", "hand_model", "model")}
        seconds = float(content.pop("seconds"))
        return Track(camera=camera, seconds=seconds, **words, **content)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a track: {error}. Wanted the poses.npz that `evhands track` writes; track again."
        ) from error


def write_csv(track: Track, path: Path | str) -> None:
    """Write poses.csv: one row a window: t_us, confidence, then x, y, z in metres of the 21 joints; empty = no hand."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_HEADER)
        writer.writerows(csv_rows(track))


def csv_rows(track: Track) -> Iterator[list[Any]]:
    """The rows of poses.csv below its header."""
    for t_us, confidence, joints in zip(track.t_us, track.confidence, track.joints_m.reshape(-1, 63), strict=True):
        values = [""] * 63 if np.isnan(joints[0]) else [f"{v:.6f}" for v in joints]
        yield [int(t_us), f"{confidence:.4f}", *values]


@contextmanager
def _overlay(path: Path, tracker: Tracker, stride_us: int, style: OverlayStyle) -> Iterator[Sink]:
    """A sink that appends the picture of one window to the video at `path`, at the recording's speed."""
    origin_us: int | None = None
    with video_writer(path, 1e6 / stride_us) as write:

        def draw(window: EventWindow, hands: Sequence[TrackResult]) -> None:
            nonlocal origin_us
            origin_us = window.start_us if origin_us is None else origin_us
            write(draw_result(window, hands[0], tracker.hand, tracker.camera, style, origin_us))

        yield draw


def draw_result(
    window: EventWindow,
    result: TrackResult,
    hand: HandModel,
    camera: Camera,
    style: OverlayStyle = OverlayStyle(),
    origin_us: int = 0,
) -> np.ndarray:
    """The frame of one result; times in the text count from `origin_us`."""
    mesh = None if result.pose is None else hand_mesh(hand, result.pose)
    text = f"{(result.t_us - origin_us) / 1e6:6.2f} s   {result.status}"
    if result.tracked:
        text += f"   {result.confidence:.2f}"
    length = window.end_us - window.start_us
    return draw_overlay(window.events, window.end_us, length, camera, mesh, style, text, result.confidence)
