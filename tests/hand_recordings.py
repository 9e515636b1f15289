"""Recordings of hands for the tests of the data path: a posed hand that moves, and events near its joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evhands.data.cache import CacheConfig, CachedRecording, cache_recordings
from evhands.geometry import project
from evhands.hand.model import load_hand, pose_hand
from evhands.recording import Recording, Tags, read_recording, write_recording
from evhands.types import Camera, Events, HandPose, Side

SIZE = (346, 260)
LENS = np.array([-0.37, 0.17, 0.0006, -0.0004, -0.04])


def write_hand(
    path: Path,
    seed: int = 0,
    *,
    side: Side = "right",
    lens: bool = True,
    seconds: float = 2.2,
    rate_hz: float = 15,
    per_second: int = 20_000,
    start_us: int = 1_655_000_000_000_000,
    subject: str = "5",
    leave_out: tuple[int, ...] = (),
) -> Recording:
    """Write a recording of a hand on a smooth path, with labels at `rate_hz` but for rows `leave_out`, and read it."""
    rng = np.random.default_rng(seed)
    camera = Camera(np.array([[300.0, 0, 171.3], [0, 301, 131.8], [0, 0, 1]]), SIZE, LENS if lens else np.zeros(0))
    t_us = np.round(np.arange(1, int(seconds * rate_hz)) * 1e6 / rate_hz).astype(np.int64)
    t_us = np.delete(t_us, list(leave_out))
    phase = t_us[:, None] * 1e-6 * rng.uniform(1, 3, 3) + rng.uniform(0, 6, 3)
    wrist = np.array([0.02, 0.0, 0.85]) + np.sin(phase) * [0.05, 0.04, 0.05]
    joints = 0.3 * np.sin(t_us[:, None, None] * 1e-6 * rng.uniform(0, 2, (15, 3)) + rng.uniform(0, 6, (15, 3)))
    orientation = rng.uniform(-1, 1, 3) + 0.3 * np.sin(phase)
    shape = np.broadcast_to(rng.normal(0, 0.5, 10), (len(t_us), 10))
    pose = HandPose(side, *(v.astype(np.float32) for v in (orientation, wrist, joints, shape)), "open")
    with torch.no_grad():
        joints_m = pose_hand(load_hand("open", side), pose).joints().numpy()
    events = _events_near(project(joints_m.astype(np.float64), camera.K), t_us, seconds, per_second, start_us, rng)
    tags = Tags(side=side, subject=subject, scene="normal", fast=False, gesture="random", checked=True)
    write_recording(path, events, camera, t_us + start_us, pose, joints_m, tags=tags)
    return read_recording(path)


def _events_near(
    pixels: np.ndarray, t_us: np.ndarray, seconds: float, per_second: int, start_us: int, rng: np.random.Generator
) -> Events:
    count = int(seconds * per_second)
    times = np.sort(rng.integers(0, int(seconds * 1e6), count))
    times[0] = 0
    row = np.searchsorted(t_us, times).clip(0, len(t_us) - 1)
    spot = pixels[row, rng.integers(0, 21, count)] + rng.normal(0, 4, (count, 2))
    spot = np.where(rng.random((count, 1)) < 0.1, rng.uniform(0, SIZE, (count, 2)), spot)  # noise up to the border
    x, y = (spot[:, k].clip(0, SIZE[k] - 1).astype(np.uint16) for k in (0, 1))
    return Events(x, y, times + start_us, rng.random(count) < 0.5, SIZE)


def cached_hand(folder: Path, seed: int = 0, config: CacheConfig = CacheConfig(), **options) -> CachedRecording:
    """The same in a cache."""
    path = folder / f"hand{seed}.h5"
    write_hand(path, seed, **options)
    return cache_recordings([path], folder / "cache", config)[0]
