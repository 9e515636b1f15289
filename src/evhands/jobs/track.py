"""`evhands track`: an event recording, or an ordinary video, in; 3D hand poses and a picture of them out."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evhands.both_ways import check_one_hand
from evhands.live import EventCount, LiveConfig, LiveReport, TimeStep, Windowing, as_they_come, replayed, run_live
from evhands.live.making import DEFAULT_HANDS, GRACE_US, Hands, Runtime, open_tracking
from evhands.live.page import LivePage
from evhands.live.telling import StatusLine, ending_well, report_live
from evhands.live.writing import TrackWriter
from evhands.sinks import open_sinks
from evhands.smoothing import Smooth
from evhands.track_both_ways import Watch
from evhands.track_both_ways import both_ways as in_both_ways
from evhands.track_files import Sink, Track, file_names, one_thread, run_track
from evhands.tracking import Tracker
from evhands.types import Camera, Events, EventStream, InputError


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
    both_ways: bool = False,
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
        runtime: what runs the network; with any but torch, `model` is a file of `evhands export` and `device` the CPU.
        mano: MANO_RIGHT.pkl, where the checkpoint is of MANO and does not carry it.
        topic: topic of a ROS bag that has several of events.
        wait: seconds to wait for a network stream or camera, at the start and each time it is lost; None = 10.
        jsonl: file to write the hands to as they are found, one line a window; - is standard output.
        serve: [HOST:]PORT of a WebSocket that sends the same.
        both_ways: track forwards and backwards in time and give the middle of both poses, without delay; one hand, and
            all events are held in memory.

    Raises:
        InputError: files that cannot be used, recordings without events, unknown models.
    """
    opened = open_tracking(
        source, model, camera, hands, runtime, device, smooth=smooth, mano=mano, salvage=salvage, topic=topic, wait=wait
    )
    _check_rate(rate)
    seen = opened.tracker.camera
    if both_ways:
        check_one_hand(opened.tracker)
    with open_sinks(jsonl, serve, seen, model) as sinks, _progress(quiet) as watch:
        result = run_track(
            opened.tracker,
            watch(opened.stream, "reading" if both_ways else "tracking"),
            model=model,
            stride_us=None if rate is None else round(1e6 / rate),
            out=None if out is None else Path(out),
            video=video,
            sinks=sinks,
            facts=opened.facts | {"both_ways": both_ways},
            passes=in_both_ways(watch) if both_ways else None,
        )
    return result


def track_command(
    source: str,
    *,
    out: Path | None = None,
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
    live: bool = False,
    events_per_window: int | None = None,
    events_per_hop: int | None = None,
    behind: float = 50.0,
    keep_all: bool = False,
    max_event_rate: float | None = None,
    view: bool = False,
    view_at: str = "127.0.0.1:8080",
    view_keep: bool = True,
    both_ways: bool = False,
) -> str | None:
    """Track the hand of a recording, a stream or a camera.

    Writes to the folder OUT: poses.npz (all arrays, see docs), poses.csv (one row a window: time, confidence, 21
    joints in metres), overlay.mp4 (events with the hand drawn over them) and summary.json. With --live (cameras:
    always) the source sets the pace, and Ctrl-C ends the track and leaves whole files (see docs/live.md).

    Args:
        source: event recording (.aedat4, .raw, .dat, .h5, .npz, .csv, ROS bag ...), or a video, which is turned into
            events; or - (standard input), tcp://HOST:PORT, unix:/PATH (network streams of dv-processing), camera:
            (iniVation), webcam: (see docs/sources.md).
        out: folder to write to; made if it is not there. A live track may go without.
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
        runtime: what runs the network: torch, or for a file that `evhands export` wrote, named by --model: onnx
            (onnxruntime) or openvino.
        mano: MANO_RIGHT.pkl, where the checkpoint is of MANO and does not carry it.
        topic: topic of a ROS bag that has several of events.
        wait: seconds to wait for a network stream or camera, at the start and each time it is lost; default 10.
        jsonl: write the hands to this file as they are found, one line of JSON a window; - is standard output, and
            the report then goes to standard error.
        serve: send the same lines over a WebSocket at [HOST:]PORT; without HOST to this machine only.
        live: track at the pace of the source, a recording at that at which it was made, and pass over windows when
            there is too much to do; cameras and webcams always are.
        events_per_window: (live) windows of so many events instead of windows by time.
        events_per_hop: (live) a window every so many events; default is as many as a window has.
        behind: (live) milliseconds; a window that has waited longer gives way to the newest one, and is counted.
        keep_all: (live) pass over no window, however late it gets.
        max_event_rate: (live) let through so many events a second at most, for sensors of high resolution.
        view: show events and hands in a browser while it runs; a recording is then played at its own pace.
        view_at: [HOST:]PORT of that page; 0.0.0.0:8080 lets other machines look, too.
        view_keep: leave the page there when the source has ended, until Ctrl-C.
        both_ways: track a recording forwards and backwards in time and give the middle of both poses: no delay and
            less noise, for twice the time and memory for all its events; one hand, not live.
    """
    if live or view or str(source).startswith(("camera:", "webcam:")):
        if both_ways:
            raise InputError(
                "Found --both-ways with a source that sets the pace, whose end is not there yet. Wanted a recording, "
                "without --live and --view; record first, or leave --both-ways out."
            )
        told = track_live(
            source, model=model, camera=camera, hands=hands, rate=rate, device=device, smooth=smooth, out=out,
            video=video, salvage=salvage, quiet=False, runtime=runtime, mano=mano, topic=topic, wait=wait,
            jsonl=jsonl, serve=serve, events_per_window=events_per_window, events_per_hop=events_per_hop,
            behind=None if keep_all else behind, max_event_rate=max_event_rate, view_at=view_at if view else None,
            view_keep=view_keep,
        )  # fmt: skip
        return _printed(report_live(told, out, video), jsonl)
    if events_per_window or events_per_hop or keep_all or max_event_rate is not None:
        raise InputError(
            "Windows by count, --keep-all and --max-event-rate are of live tracks. Wanted --live with them."
        )
    if out is None:
        raise InputError("Wanted --out FOLDER for the poses (a track with --live may go without).")
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
        both_ways=both_ways,
    )
    return _printed(report(result, out, video), jsonl)


def _printed(text: str, jsonl: str | None) -> str | None:
    """The report, on standard error where the hands have standard output."""
    if jsonl != "-":
        return text
    print(text, file=sys.stderr)
    return None


def track_live(
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
    events_per_window: int | None = None,
    events_per_hop: int | None = None,
    behind: float | None = 50.0,
    max_event_rate: float | None = None,
    view_at: str | None = None,
    view_keep: bool = False,
    sinks: Sequence[Sink] = (),
) -> LiveReport:
    """Track a source at its own pace, a recording at the pace at which it was made; for as long as it lasts.

    Windows, poses and files are those of `track` as long as nothing is passed over. Memory does not grow: what goes to
    `out` is written as it comes, and appears at the end, also after Ctrl-C or SIGTERM, which end the track.

    Args:
        source, model, camera, hands, rate, device, smooth, out, salvage, quiet, runtime, mano, topic, wait, jsonl,
            serve: as in `track`.
        video: whether overlay.mp4 is written, which a thread draws at 30 pictures a second.
        events_per_window, events_per_hop: windows of so many events, one every so many, instead of windows by time.
        behind: milliseconds; a window that has waited longer gives way to the newest one; None = none ever does.
        max_event_rate: events a second that are let through; None = all.
        view_at: [HOST:]PORT of a page that shows events and hands in a browser while it runs; None = no page.
        view_keep: leave the page there when the source has ended, until Ctrl-C.
        sinks: what else takes every window with its hands.

    Raises:
        InputError: as `track`.
    """
    opened = open_tracking(
        source, model, camera, hands, runtime, device, smooth=smooth, mano=mano, salvage=salvage, topic=topic, wait=wait
    )
    stream, tracker = opened.stream, opened.tracker
    config = LiveConfig(
        windowing=_windowing(tracker, rate, events_per_window, events_per_hop),
        behind_us=None if behind is None else round(1000 * behind),
        max_event_rate=max_event_rate,
    )
    told = LiveReport()
    facts = {**opened.facts, "model": model, "hands": hands, "hand_model": tracker.hand.name}
    with ending_well(), one_thread(), ExitStack() as outer, ExitStack() as stack:
        if view_at is not None:
            page = outer.enter_context(LivePage(view_at, tracker, told))
            print(f"look at {page.url}", file=sys.stderr, flush=True)
            sinks = [*sinks, page]
        all_sinks = [*sinks, *stack.enter_context(open_sinks(jsonl, serve, tracker.camera, model))]
        writer = None if out is None else stack.enter_context(TrackWriter(Path(out), tracker, model, video))
        if writer is not None:
            all_sinks.append(writer)
        if not quiet:
            all_sinks.append(stack.enter_context(StatusLine(told)))
        pieces = as_they_come(stream, GRACE_US) if opened.path is None else replayed(stream)
        run_live(tracker, pieces, stream.size, config, all_sinks, told)
        if not told.windows and not told.interrupted:
            raise InputError(
                "The source gave no events. Wanted those of a moving hand; look at it with `evhands info`, or turn the "
                "camera to something that moves."
            )
        if writer is not None:
            writer.finish({**facts, "sensor": list(stream.size), **told.told()})
        stack.close()
        if view_at is not None and view_keep and not told.interrupted:
            print("the source has ended; the page stays until Ctrl-C", file=sys.stderr, flush=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    return told


def _windowing(tracker: Tracker, rate: float | None, length: int | None, hop: int | None) -> Windowing | None:
    """How windows are cut; None = as the network was trained."""
    _check_rate(rate)
    if length is None and hop is None:
        inputs = tracker.estimator.input_config
        return None if rate is None else TimeStep(inputs.window_us, round(1e6 / rate))
    if rate is not None:
        raise InputError("Found --rate beside windows by count. Wanted one of the two; leave one out.")
    length = length or hop or 0
    if length < 50 or (hop or length) < 1:
        raise InputError(f"Found windows of {length} events, one every {hop}. Wanted 50 or more, one every 1 or more.")
    return EventCount(length, hop or length)


def _check_rate(rate: float | None) -> None:
    if rate is not None and not 1 <= rate <= 1000:
        raise InputError(f"Found a rate of {rate} poses a second, wanted 1 to 1000. Leave it out for the model's own.")


def report(result: Track, out: Path, video: bool = True) -> str:
    """The figures of a track that was written to `out`, for a terminal."""
    facts = json.loads((out / "summary.json").read_text())
    span = (facts["last_us"] - facts["first_us"]) / 1e6
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
        ("files", "  ".join(str(out / name) for name in file_names(video))),
    ]  # fmt: skip
    if not result.tracked.any():
        lines.append(("note", "no hand was found; is one in view, near enough (0.3 to 1 m) and moving?"))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)


def _name(row: int) -> str:
    return "hands" if row == 0 else ""


_SLICE = 50_000


class _Readable(Protocol):
    """An event file that says how much of it has been read."""

    def chunks(self) -> Iterator[tuple[Events, float]]: ...


class _Watched:
    """A stream that moves a progress bar along as it is read."""

    def __init__(self, stream: EventStream, bar: Progress, name: str):
        self.stream, self.size, self.bar, self.name = stream, stream.size, bar, name

    def __iter__(self) -> Iterator[Events]:
        row = self.bar.add_task(self.name, total=1.0 if hasattr(self.stream, "chunks") else None)
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
def _progress(quiet: bool) -> Iterator[Watch]:
    """Gives streams back that move a bar of their own along as they are read."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield lambda stream, name: _Watched(stream, bar, name)
