"""Preparing EvRealHands sequences on one thread, beside the naive formulation: `python benchmarks/run.py prepare`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from evhands.data.evrealhands import prepare_sequence
from evhands.events.io import open_events
from evhands.evrealhands_layout import write_sequence
from evhands.geometry import undistort_points
from evhands.hand.model import load_hand
from evhands.recording import Recording, Tags
from evhands.types import Camera, Events, HandPose, Size
from timing import Timing, measure

SIZE: Size = (346, 260)
EVENTS = 16_000_000
SECONDS = 20
NAIVE_EVENTS = 2 << 20
DISTORTION = np.array([-0.34, 0.13, 0.0004, -0.0003, 0.02])


def main() -> None:
    """Print million events a second, from a sequence folder to a finished recording on disk."""
    with tempfile.TemporaryDirectory() as folder:
        sequence = Path(folder) / "sequence"
        write_sequence(sequence, _recording())
        target = Path(folder) / "0.h5"
        print(f"{EVENTS / 1e6:.0f} M events of moving contours, {SECONDS} s, lens of 5 coefficients; one thread; Mev/s")
        print(f"  {'':<52} {'median':>9} {'fastest':>9} {'processor':>9}")
        _row("prepare_sequence", measure(lambda: _ours(sequence, target), 3), "limit 20")
        size = target.stat().st_size / EVENTS
        reading = measure(lambda: sum(map(len, open_events(sequence / "events.aedat4"))), 3)
        _row("  of which reading the .aedat4", reading)
        print(f"  {size:.2f} bytes an event; {(sequence / 'events.aedat4').stat().st_size / EVENTS:.2f} in the .aedat4")
        naive = measure(lambda: _naive(sequence, target), 1)
        _row(
            "naive: one array, every event undistorted, gzip",
            naive,
            f"of the first {NAIVE_EVENTS / 1e6:.0f} M",
            NAIVE_EVENTS,
        )


def _row(name: str, times: Timing, note: str = "", events: int = EVENTS) -> None:
    rates = (events / 1e3 / ms for ms in (times.median_ms, times.fastest_ms, times.processor_ms))
    print(f"  {name:<52} " + " ".join(f"{rate:9.1f}" for rate in rates) + f"  {note}")


def _ours(sequence: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    prepare_sequence(sequence, target)


def _naive(sequence: Path, target: Path) -> None:
    """All events as one float array, each through the lens, the annotations as they stand."""
    file = islice(open_events(sequence / "events.aedat4"), NAIVE_EVENTS >> 20)
    events = np.concatenate([np.stack([e.x, e.y, e.t_us, e.p], -1).astype(np.float64) for e in file])
    camera = json.loads((sequence / "annot.json").read_text())["camera_info"]["event"]
    K, K_new = np.array(camera["K_old"]), np.array(camera["K_new"])
    events[:, :2] = undistort_points(events[:, :2], K, np.array(camera["dist"]), K_new, iterations=5)
    inside = (events[:, 0] >= 0) & (events[:, 0] <= SIZE[0] - 1) & (events[:, 1] >= 0) & (events[:, 1] <= SIZE[1] - 1)
    with h5py.File(target, "w") as file:
        file.create_dataset("events", data=events[inside], compression="gzip", compression_opts=1)


class _Contours:
    """An event stream of contours that move as a hand's do, made anew in pieces at every pass."""

    size = SIZE

    def __iter__(self) -> Iterator[Events]:
        rng, piece = np.random.default_rng(0), 1 << 20
        for start in range(0, EVENTS, piece):
            n = min(piece, EVENTS - start)
            t = np.sort(rng.integers(0, SECONDS * 1_000_000 * n // EVENTS, n)) + SECONDS * 1_000_000 * start // EVENTS
            angle = rng.random(n) * 2 * np.pi
            x = 173 + 90 * np.sin(t / 4e5) + 60 * np.cos(angle) + rng.normal(0, 2, n)
            y = 130 + 60 * np.cos(t / 3e5) + 50 * np.sin(angle) + rng.normal(0, 2, n)
            x, y = np.clip(x, 0, SIZE[0] - 1).astype(np.uint16), np.clip(y, 0, SIZE[1] - 1).astype(np.uint16)
            yield Events(x, y, t, np.cos(angle) > 0, SIZE)


def _recording() -> Recording:
    m, rng = SECONDS * 15 - 1, np.random.default_rng(0)
    K = np.array([[320.0, 0, 171.3], [0, 320, 131.8], [0, 0, 1]])
    wrist = np.float32([0, 0, 0.6]) + rng.normal(0, 0.05, (m, 3)).astype(np.float32)
    pose = HandPose("right", rng.normal(0, 1, (m, 3)).astype(np.float32), wrist,
                    rng.normal(0, 0.2, (m, 15, 3)).astype(np.float32), np.zeros((m, 10), np.float32))  # fmt: skip
    stream = _Contours()
    start = int(next(iter(stream)).t_us[0])
    tags = Tags(side="right", subject="7", scene="normal", fast=False, gesture="random", checked=True)
    t_us = start + np.round(np.arange(m) * 1e6 / 15).astype(np.int64)
    assert load_hand("open").name == pose.hand_model
    return Recording(stream, Camera(K, SIZE, DISTORTION, np.eye(4)), t_us, pose, tags=tags)


if __name__ == "__main__":
    main()
