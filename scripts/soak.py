"""Half an hour of live tracking: does memory stay, does latency stay, is a source that dies survived?

    python scripts/soak.py [--minutes 30] [--source FILE] [--json soak.json]

A recording is served over and over at its own pace by another process, as `evhands stream --live` does, and tracked as
a live network stream by the loop of `evhands track --live`, everything that goes to disk included. Every few minutes
the server is killed and started again. At the end: memory (resident, 10^6 bytes) from the second minute on, median
latency of the first and the last quarter, drops, errors, and whether the files can be read. Exit code 1 where memory
grew by more than 20 MB, the latency by more than a half and 2 ms, or anything failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from importlib import resources
from pathlib import Path

import numpy as np

from evhands.events.io import open_events
from evhands.live import LiveConfig, LiveReport, as_they_come, run_live
from evhands.live.load import ForSeconds, Looped, first_seconds
from evhands.live.making import make_any_tracker
from evhands.live.writing import TrackWriter
from evhands.machine import machine, memory_mb
from evhands.recording import find_camera
from evhands.sources import open_source
from evhands.sources.replaying import paced
from evhands.sources.serving import EventServer
from evhands.track_files import load_track, one_thread


class Server:
    """A server in a process of its own, killed and started again from time to time."""

    def __init__(self, recording: Path, address: str, every_s: float) -> None:
        self.command = [sys.executable, __file__, "--source", str(recording), "--serve", address]
        self.every_s, self.deaths, self.stopped = every_s, 0, threading.Event()
        self.process = self._start()
        threading.Thread(target=self._kill_now_and_then, daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _kill_now_and_then(self) -> None:
        while not self.stopped.wait(self.every_s):
            self.process.kill()
            self.process.wait()
            self.deaths += 1
            time.sleep(1.0)
            self.process = self._start()

    def stop(self) -> None:
        self.stopped.set()
        self.process.kill()


def serve(recording: Path, address: str) -> None:
    """Send a recording to whoever comes, over and over, until killed."""
    events = first_seconds(open_events(recording), 60.0)
    with EventServer(address, events.size) as server:
        server.wait()
        for part in paced(Looped(events, 1e7)):
            server.send(part)


class Watch:
    """A sink: memory and latency once a second."""

    def __init__(self, told: LiveReport) -> None:
        self.told, self.start_s, self.next_s = told, time.monotonic(), 0.0
        self.before = told.latency.counts.copy()
        self.rows: list[tuple[float, float, float]] = []
        """(seconds since the start, memory in MB, median latency in ms since the row before)"""

    def __call__(self, *_: object) -> None:
        now_s = time.monotonic() - self.start_s
        if now_s < self.next_s:
            return
        self.next_s = now_s + 1.0
        counts = self.told.latency.counts - self.before
        self.before = self.told.latency.counts.copy()
        middle = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
        self.rows.append((now_s, memory_mb(), 1e-3 * 1.01 ** (middle + 1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--source", type=Path, help="a recording; the one that ships with the package when left out")
    parser.add_argument("--model", default="small")
    parser.add_argument("--runtime", choices=("torch", "onnx"), default="torch")
    parser.add_argument("--kill-every", type=float, default=240.0, help="seconds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = options.source or Path(str(resources.files("evhands"))) / "assets" / "demo.h5"
    if options.serve is not None:
        serve(source, options.serve)
        return 0
    camera = find_camera(None, open_events(source).size, source)[0]
    told, seconds = LiveReport(), 60 * options.minutes
    complaints: list[str] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        address = f"unix:{folder}/events"
        server = Server(source, address, min(options.kill_every, seconds / 3))
        try:
            stream = open_source(address, wait_s=30.0)
            tracker = make_any_tracker(options.model, camera, "right", options.runtime)
            watch = Watch(told)
            with one_thread(), TrackWriter(Path(folder) / "out", tracker, options.model, video=False) as writer:
                run_live(
                    tracker,
                    as_they_come(ForSeconds(stream, seconds), 20_000),
                    stream.size,
                    LiveConfig(),
                    [writer, watch],
                    told,
                )
                writer.finish(told.told())
            rows = len(load_track(Path(folder) / "out" / "poses.npz"))
            if rows != told.windows:
                complaints.append(f"{rows} poses on disk, {told.windows} windows")
        finally:
            server.stop()
    table = np.array(watch.rows)
    settled = table[table[:, 0] > min(120.0, seconds / 4)]
    growth = float(np.median(settled[-60:, 1]) - np.median(settled[:60, 1]))
    most = float(settled[:, 1].max() - np.median(settled[:60, 1]))
    quarter = max(len(settled) // 4, 1)
    first, last = (float(np.median(part[:, 2])) for part in (settled[:quarter], settled[-quarter:]))
    if growth > 20 or most > 40:
        complaints.append(f"memory grew by {growth:.1f} MB (at most {most:.1f})")
    if last > 1.5 * first + 2:
        complaints.append(f"latency rose from {first:.1f} to {last:.1f} ms")
    if server.deaths < 1:
        complaints.append("the server was never killed")
    figures = {
        "minutes": options.minutes, "memory_mb": round(float(np.median(settled[:60, 1])), 1),
        "memory_growth_mb": round(growth, 2), "memory_most_mb": round(most, 2),
        "latency_first_quarter_ms": round(first, 2), "latency_last_quarter_ms": round(last, 2),
        "source_killed": server.deaths, "warnings": len(warned), **told.told(), "machine": machine(),
        "complaints": complaints,
    }  # fmt: skip
    print(json.dumps(figures, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("sound" if not complaints else "; ".join(complaints))
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
