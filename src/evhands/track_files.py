"""A whole track as arrays, and what it leaves on disk: poses.npz, poses.csv, overlay.mp4 and summary.json.

Several jobs track a stream and keep the result; this is what they share.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Shaped

from evhands.boxes import sensor_pixels
from evhands.files import replacing
from evhands.hand.skeleton import JOINT_ORDERS
from evhands.hands import HandsState, step
from evhands.interpolation import pose_at
from evhands.overlay import OverlayStyle, draw_overlay, video_writer
from evhands.tracking import Tracker, TrackResult, whole_windows
from evhands.types import Camera, Events, EventStream, EventWindow, HandPose, InputError, Side

FILES = ("poses.npz", "poses.csv", "overlay.mp4", "summary.json")


def file_names(video: bool) -> list[str]:
    """What a track leaves in its folder, with or without the video."""
    return [name for name in FILES if video or name != "overlay.mp4"]


class Sink(Protocol):
    """Takes a window and what the tracker says of every hand in it, as soon as it is known."""

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None: ...


class Passes(Protocol):
    """Gives all results of a stream, and hands every window of it to the sinks; and the seconds that the tracker's
    steps took."""

    def __call__(
        self, tracker: Tracker, stream: EventStream, stride_us: int, sinks: Sequence[Sink], /
    ) -> tuple[list[TrackResult], float]: ...


@dataclass(frozen=True, kw_only=True)
class Track:
    """The poses of one recording, one row a window; rows without a hand hold NaN and `tracked` False.

    Where several hands are tracked, a window has a row for every hand in it (one without a hand where there is none),
    the oldest first; `hand` gives the rows of one.

    t_us: end of the window, on the clock of the recording. orientation (n, 3), wrist (n, 3) m, joints (n, 15, 3) and
    shape (n, 10) as in `HandPose`, in the frame of `camera`. joints_m: 21 joints in `openpose21` order, metres, camera
    frame. joints_px: where they lie on the sensor, lens distortion included. boxes_px: x0 y0 x1 y1 of the crop in the
    undistorted image. joint_confidence: as `confidence`, of every joint. status: moving, holding (a still hand makes
    no events: the last pose), lost (no hand). events: in the window, the whole sensor. id: of the track, a new one for
    every new track; 0 without a hand. sides: right, left, or empty without a hand. side: of all hands, or both.
    """

    t_us: Int64[np.ndarray, " n"]
    side: Side | Literal["both"]
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
    id: Int64[np.ndarray, " n"]
    sides: Shaped[np.ndarray, " n"]
    joint_confidence: Float32[np.ndarray, "n 21"]
    seconds: float = 0.0
    """How long all tracker steps took together, without reading and drawing."""

    def __len__(self) -> int:
        return len(self.t_us)

    @property
    def pose(self) -> HandPose:
        """All poses as one batch; ValueError where they are of both sides."""
        if self.side == "both":
            raise ValueError("the hands of this track are of both sides: take those of one with Track.hand(id)")
        return HandPose(self.side, self.orientation, self.wrist, self.joints, self.shape, self.hand_model)

    @property
    def poses_per_second(self) -> float:
        return float(np.count_nonzero(self.tracked)) / self.seconds if self.seconds > 0 else 0.0

    @property
    def windows(self) -> int:
        return len(np.unique(self.t_us))

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all tracks, in the order in which they began."""
        return tuple(int(i) for i in np.unique(self.id[self.tracked]))

    def hand(self, id: int) -> Track:
        """The rows of one hand; the side is that which it was last taken for, and so are its rows."""
        rows = self.id == id
        side = cast(Side, str(self.sides[rows][-1])) if rows.any() else self.side
        rows &= self.sides == side
        changed = {f.name: getattr(self, f.name)[rows] for f in fields(self) if len(np.shape(getattr(self, f.name)))}
        return replace(self, side=side, **changed)

    def pose_at(self, t_us: int) -> HandPose | None:
        """The pose of a single hand (see `hand`) at any time, `evhands.interpolation.AHEAD_US` ahead at most; None
        where it was never tracked."""
        if not self.tracked.any():
            return None
        names = ("orientation", "wrist", "joints", "shape")
        poses = replace(self.pose, **{name: getattr(self, name)[self.tracked] for name in names})
        return pose_at(poses, self.t_us[self.tracked], t_us)

    def joints_at(self, t_us: Int64[np.ndarray, " m"]) -> Float[np.ndarray, "m 21 3"]:
        """The 21 joints of a single hand at any times: linear between neighbouring poses, the nearest one outside; NaN
        with no pose."""
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
    """The rows of a track from the results of its windows, several a window where there are several hands (none = an
    empty track)."""
    n, camera = len(results), tracker.camera
    rows = {
        name: np.full((n, *shape), np.nan, np.float32)
        for name, shape in (
            ("orientation", (3,)), ("wrist", (3,)), ("joints", (15, 3)), ("shape", (10,)),
            ("joints_m", (21, 3)), ("joints_px", (21, 2)), ("boxes_px", (4,)), ("joint_confidence", (21,)),
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
        rows["joint_confidence"][i] = result.confidence if result.joint_confidence is None else result.joint_confidence
    sides = {r.side for r in results if r.side is not None} or {tracker.hand.side}
    return Track(
        t_us=np.array([r.t_us for r in results], np.int64),
        side=sides.pop() if len(sides) == 1 else "both",
        hand_model=tracker.hand.name,
        model=model,
        camera=camera,
        confidence=np.array([r.confidence for r in results], np.float32),
        tracked=np.array([r.tracked for r in results], np.bool_),
        status=np.array([r.status for r in results], dtype="U9"),
        events=np.array([r.events for r in results], np.int64),
        id=np.array([r.id for r in results], np.int64),
        sides=np.array([r.side or "" for r in results], dtype="U5"),
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
    passes: Passes | None = None,
) -> Track:
    """Track a stream to its end and, where `out` is given, write the files there in one go.

    Nothing appears in `out` before all is written: an interruption leaves what was there before. `facts` go into
    summary.json as they are. Every window goes to the `sinks` with its hands as soon as they are known. Raises
    InputError where the stream holds no event at all. passes: how the stream becomes results; None = `one_way`.
    """
    stride = stride_us or tracker.estimator.input_config.stride_us
    names = [] if out is None else file_names(video)
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        paths = {name: stack.enter_context(replacing(Path(out or ".") / name)) for name in names}
        if video and paths:
            sinks = (*sinks, stack.enter_context(_overlay(paths["overlay.mp4"], tracker, stride, style)))
        counted = _Counted(stream)
        results, seconds = (passes or one_way)(tracker, counted, stride, sinks)
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
    torch = sys.modules.get("torch")  # where nobody has imported it, nobody uses it
    if torch is None:
        yield
        return
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


def one_way(
    tracker: Tracker,
    stream: EventStream,
    stride_us: int,
    sinks: Sequence[Sink],
) -> tuple[list[TrackResult], float]:
    """All results, and the seconds of the steps alone: without reading, cutting into windows, drawing and compiling."""
    results: list[TrackResult] = []
    state, seconds = HandsState(), 0.0
    for window in whole_windows(stream, tracker.estimator.input_config.window_us, stride_us):
        if len(results) < 3:  # a step is pure: run it once for nothing, so that what is compiled on first use is there
            step(tracker, window, state)
        start = time.perf_counter()
        state, hands = step(tracker, window, state)
        seconds += time.perf_counter() - start
        results.extend(hands)
        for sink in sinks:
            sink(window, hands)
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
        "windows": track.windows,
        "first_us": int(track.t_us[0]),
        "last_us": int(track.t_us[-1]),
        "tracked_share": round(len(np.unique(track.t_us[track.tracked])) / track.windows, 4),
        "holding_share": round(len(np.unique(track.t_us[track.status == "holding"])) / track.windows, 4),
        "mean_confidence": round(float(track.confidence[track.tracked].mean()), 4) if track.tracked.any() else 0.0,
        "tracking_seconds": round(track.seconds, 3),
        "poses_per_second": round(track.poses_per_second, 1),
        "hands": [_hand_summary(track.hand(id), int(np.sum(track.id == id))) for id in track.ids],
    }


def _hand_summary(hand: Track, windows: int) -> dict[str, Any]:
    times = {"first_us": int(hand.t_us[0]), "last_us": int(hand.t_us[-1]), "windows": windows}
    return {"id": int(hand.id[0]), "side": hand.side, **times}


COLUMNS = (
    "t_us", "orientation", "wrist", "joints", "shape", "joints_m", "joints_px", "boxes_px",
    "confidence", "joint_confidence", "tracked", "status", "events", "id", "sides",
)  # fmt: skip
"""The arrays of `Track` with a row a window, or a row a window and hand."""


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
        found = set(content["sides"].tolist()) - {""}
        words["side"] = found.pop() if len(found) == 1 else "both" if found else words["side"]
        return Track(camera=camera, seconds=seconds, **words, **content)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a track: {error}. Wanted the poses.npz that `evhands track` writes; track again."
        ) from error


def write_csv(track: Track, path: Path | str) -> None:
    """Write poses.csv: one row a window: t_us, confidence, then x, y, z in metres of the 21 joints; empty = no hand.

    Where a window has several rows, id and side stand after t_us.
    """
    several = len(track) > track.windows
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(csv_header(several))
        writer.writerows(csv_rows(track, several))


def csv_header(several: bool) -> list[str]:
    """The names of the columns of poses.csv, of one hand or of several."""
    names = [f"{joint}_{axis}" for joint in JOINT_ORDERS["openpose21"] for axis in "xyz"]
    return ["t_us", *(("id", "side") if several else ()), "confidence", *names]


def csv_rows(track: Track, several: bool) -> Iterator[list[Any]]:
    """The rows of poses.csv below its header."""
    for row, joints in enumerate(track.joints_m.reshape(-1, 63)):
        values = [""] * 63 if np.isnan(joints[0]) else [f"{v:.6f}" for v in joints]
        which = [int(track.id[row]), str(track.sides[row])] if several else []
        yield [int(track.t_us[row]), *which, f"{track.confidence[row]:.4f}", *values]


@contextmanager
def _overlay(path: Path, tracker: Tracker, stride_us: int, style: OverlayStyle) -> Iterator[Sink]:
    """A sink that appends the picture of one window to the video at `path`, at the recording's speed."""
    origin_us: int | None = None
    with video_writer(path, 1e6 / stride_us) as write:

        def draw(window: EventWindow, hands: Sequence[TrackResult]) -> None:
            nonlocal origin_us
            origin_us = window.start_us if origin_us is None else origin_us
            write(draw_hands(window, hands, tracker, style, origin_us))

        yield draw


def draw_hands(
    window: EventWindow,
    hands: Sequence[TrackResult],
    tracker: Tracker,
    style: OverlayStyle = OverlayStyle(),
    origin_us: int = 0,
) -> np.ndarray:
    """The frame of one window with its hands; times in the text count from `origin_us`."""
    shown = [hand for hand in hands if hand.pose is not None]
    meshes = [tracker.hand_of(hand.pose.side).mesh_of(hand.pose) for hand in shown if hand.pose is not None]
    words = [f"{hand.side} {hand.id}: {hand.status} {hand.confidence:.2f}" for hand in shown] or ["lost"]
    text = "   ".join([f"{(window.end_us - origin_us) / 1e6:6.2f} s", *words])
    length = window.end_us - window.start_us
    return draw_overlay(
        window.events, window.end_us, length, tracker.camera, meshes[0] if meshes else None, style, text,
        max((hand.confidence for hand in shown), default=0.0), meshes[1:],
        [f"{hand.side} {hand.id}" for hand in shown] if len(shown) > 1 else (),
    )  # fmt: skip
