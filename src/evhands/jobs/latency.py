"""`evhands latency SOURCE`: how long it takes from the last event of a window to its pose, and where the time goes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evhands.files import replacing
from evhands.hands import HandsState, step
from evhands.live import LiveConfig, LiveReport, TimeStep, as_they_come, replayed, run_live
from evhands.live.load import ForSeconds, Looped, first_seconds
from evhands.live.loop import Quantiles
from evhands.live.making import DEFAULT_HANDS, GRACE_US, Hands, Runtime, open_tracking
from evhands.machine import machine
from evhands.stopwatch import PARTS, listening
from evhands.track_files import one_thread
from evhands.tracking import Tracker, TrackResult, whole_windows
from evhands.types import EventStream, EventWindow, InputError


def latency(
    source: str,
    *,
    seconds: float = 20.0,
    model: str = "small",
    runtime: Runtime = "torch",
    camera: Path | None = None,
    hands: Hands = DEFAULT_HANDS,
    rate: float | None = None,
    event_rate: float | None = None,
    behind: float = 50.0,
    device: str = "cpu",
    json_file: Path | None = None,
    wait: float | None = None,
) -> str:
    """Measure how quickly poses follow events on this machine.

    A recording is replayed at its own pace, over and over; a camera or network stream is taken as it comes. The
    latency of a window is from its last event (the end of the window by the clock of the source) to its pose, all
    waiting included. Then the recording is tracked once as fast as possible.

    Args:
        source: as of `evhands track`.
        seconds: how long to measure.
        model: a model that ships with evhands, a checkpoint, or for another runtime than torch a file of `evhands
            export`.
        runtime: what runs the network: torch, onnx or openvino.
        camera: calibration as JSON; as of `evhands track`.
        hands: which are tracked, as `evhands track` takes it.
        rate: windows a second; default is what the model was trained for.
        event_rate: events a second; a recording then passes faster or slower, so that it has so many.
        behind: milliseconds; a window that has waited longer gives way to the newest one, and is counted.
        device: torch device of the network.
        json_file: write all figures to this file, with the machine they were measured on.
        wait: seconds to wait for a network stream or camera; default 10.
    """
    if seconds <= 0:
        raise InputError(f"Found {seconds} seconds. Wanted more than none.")
    before = machine()
    opened = open_tracking(source, model, camera, hands, runtime, device, wait=wait)
    stream, tracker = opened.stream, opened.tracker
    inputs = tracker.estimator.input_config
    windowing = TimeStep(inputs.window_us, inputs.stride_us if rate is None else round(1e6 / rate))
    parts, offline = Parts(), None
    config = LiveConfig(windowing=windowing, behind_us=round(1000 * behind))
    with one_thread():
        if opened.path is None:
            pieces = as_they_come(ForSeconds(stream, seconds), GRACE_US)
            told = _measured(tracker, pieces, stream, config, parts)
        else:
            load = Looped(first_seconds(stream, 60.0), seconds, event_rate)
            told = _measured(tracker, replayed(load), load, config, parts)
            offline = throughput(tracker, Looped(load.events, min(seconds, 10.0), event_rate), windowing)
    figures = _figures(source, model, runtime, windowing, told, parts, offline, before)
    if json_file is not None:
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    return _table(figures) + (f"\nfile           {json_file}" if json_file else "")


@dataclass
class Parts:
    """A sink that keeps the durations of the parts of every step."""

    seconds: dict[str, float] = field(default_factory=dict)
    found: dict[str, Quantiles] = field(default_factory=lambda: {name: Quantiles() for name in PARTS})

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        for name in PARTS:
            self.found[name].add(self.seconds[name])
            self.seconds[name] = 0.0


def _measured(tracker: Tracker, pieces: Any, stream: EventStream, config: LiveConfig, parts: Parts) -> LiveReport:
    with listening() as parts.seconds:
        told = run_live(tracker, pieces, stream.size, config, [parts])
    if not told.windows:
        raise InputError("The source gave no events. Wanted those of a moving hand; look at it with `evhands info`.")
    return told


def throughput(tracker: Tracker, stream: EventStream, windowing: TimeStep) -> dict[str, float]:
    """Windows a second of the clock and of processor time, of steps alone, as fast as possible."""
    state, windows, spent, processor = HandsState(), 0, 0.0, 0.0
    for window in whole_windows(stream, windowing.length_us, windowing.stride_us):
        start, start_cpu = time.perf_counter(), time.process_time()
        state, _ = step(tracker, window, state)
        spent, processor = spent + time.perf_counter() - start, processor + time.process_time() - start_cpu
        windows += 1
    return {"poses_per_second": round(windows / spent, 1), "poses_per_processor_second": round(windows / processor, 1)}


def _figures(
    source: str, model: str, runtime: str, windowing: TimeStep, told: LiveReport, parts: Parts,
    offline: dict[str, float] | None, before: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    facts = told.told()
    return {
        "source": source,
        "model": model,
        "runtime": runtime,
        "window_us": windowing.length_us,
        "stride_us": windowing.stride_us,
        "events_per_second": round(told.events / max(told.seconds, 1e-9)),
        **facts,
        "parts_ms": {name: quantiles.told_ms() for name, quantiles in parts.found.items()},
        "offline": offline,
        "machine": before,
    }


def _table(figures: dict[str, Any]) -> str:
    machine_ = figures["machine"]
    rows = [("latency", figures["latency_ms"]), ("tracker's step", figures["step_ms"])]
    rows += [(f"  {name}", values) for name, values in figures["parts_ms"].items()]
    windows, dropped = figures["windows"], figures["dropped_windows"]
    lines = [
        f"{figures['model']} on {figures['runtime']}, a window of {figures['window_us'] / 1000:.1f} ms every "
        f"{figures['stride_us'] / 1000:.1f} ms, {figures['events_per_second'] / 1e6:.2f} million events/s",
        f"{'ms':14}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "max")),
        *(f"{name:14}" + "".join(f"{values[q]:9.2f}" for q in ("p50", "p95", "p99", "max")) for name, values in rows),
        f"windows        {windows}, {dropped} dropped ({100 * dropped / max(windows + dropped, 1):.2f} %), a hand in "
        f"{100 * figures['tracked_share']:.1f} %",
        f"processor      {100 * figures['processor_share']:.0f} % of a core",
    ]
    if figures["offline"] is not None:
        lines.append(
            f"offline        {figures['offline']['poses_per_second']:.0f} poses/s "
            f"({figures['offline']['poses_per_processor_second']:.0f} a second of processor time)"
        )
    lines.append(
        f"machine        {machine_['processor']}, {machine_['cores']} cores, load {machine_['load']} before the run"
    )
    return "\n".join(lines)
