"""`evhands simulate`: recordings of simulated hands, with the truth inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands.recording import write_recording
from evhands.sim.generate import TEST_SUBJECTS, ClipConfig, simulate_clip
from evhands.sim.motion import MotionConfig
from evhands.types import InputError, Side

Preset = Literal["demo", "train"]

PRESETS: dict[str, ClipConfig] = {
    # A hand of a test subject that moves as people do before a camera, always near enough to be seen well.
    "demo": ClipConfig(
        duration_us=4_000_000,
        label_rate_hz=100.0,
        depth_m=(0.4, 0.6),
        subjects=TEST_SUBJECTS,
        motion=MotionConfig(
            keyframe_s=(0.3, 1.2), peak_speed=(0.3, 0.6), peak_turn=(1.5, 4.0), finger_speed=(6.0, 12.0)
        ),
    ),
    "train": ClipConfig(duration_us=1_000_000),
}
"""Preset name -> one clip of it."""


def simulate(out: Path, *, preset: Preset = "demo", seconds: float = 10.0, seed: int = 0, side: Side = "right") -> None:
    """Simulate a moving hand and write what an event camera sees of it, with the truth.

    With OUT a name that ends in .h5, one recording of that length; else a folder of short recordings, each of another
    hand, light and background, which is filled up where it was left. Recordings hold events, camera, poses, 21 joints,
    boxes and how they were made.

    Args:
        out: a file that ends in .h5, or a folder.
        preset: demo is a hand of a test subject moving at ease; train is what training sees, fast and slow.
        seconds: length of the recording, or of all recordings of the folder together.
        seed: recording i is a function of (seed, i) alone.
        side: which hand.
    """
    if not seconds > 0:
        raise InputError(f"Found a length of {seconds} s. Wanted more than 0.")
    torch.set_num_threads(1)  # the products of one clip are too small to share
    config = replace(PRESETS[preset], side=side)
    if out.suffix == ".h5":
        paths = [out]
        config = replace(config, duration_us=max(round(seconds * 1e6), 1))
    else:
        count = max(round(seconds * 1e6 / config.duration_us), 1)
        paths = [out / f"{preset}-{side}-{seed}-{i:06d}.h5" for i in range(count)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    written = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task("recordings", total=len(paths))
        for index, path in enumerate(paths):
            if path == out or not path.exists():
                written += _write(path, config, seed, index)
            bar.advance(row)
    length = config.duration_us * 1e-6
    print(f"Wrote {len(paths)} recording{'s' * (len(paths) > 1)} of {length:g} s, {written} events, to {out}.")


def _write(path: Path, config: ClipConfig, seed: int, index: int) -> int:
    """Simulate one recording into `path`; returns the number of its events."""
    clip = simulate_clip(config, seed, index)
    write_recording(path, clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, clip.boxes_px, clip.meta)
    return len(clip.events)
