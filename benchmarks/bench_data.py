"""The data path on one thread, from the cache to the network's images: `python benchmarks/bench_data.py`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench_representations import BINS, naive_lnes, naive_voxel_torch
from evhands.data.augment import AugmentConfig, draw, move_of
from evhands.data.cache import CachedRecording, cache_recordings
from evhands.data.crops import crop_affine, crops_around, window_boxes
from evhands.data.dataset import BatchConfig, SequenceDataset
from evhands.data.items import Items, WindowConfig, semi_supervised_items, supervised_items
from evhands.geometry import default_camera, unproject
from evhands.recording import write_recording
from evhands.types import Events, HandPose, WindowBatch
from timing import machine_reference, measure

SENSOR = (346, 260)
WINDOWS, EVENTS = 12, 10_000
LIMIT = 2_000  # windows a second on one core of an idle AVX-512 machine: 12 of 10 000 events an item, both images
SECONDS = 3


def main() -> None:
    """Print windows a second: by the median on the clock, by the fastest call, by the processor time."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recording = cache_recordings([a_recording(Path(folder))], Path(folder) / "cache")[0]
        items = supervised_items([recording], WindowConfig())[:4]
        print(f"  {len(items)} items of {WINDOWS} windows of {_events(items)} events; windows/s")
        print(f"  {'':<56} {'median':>8} {'fastest':>8} {'processor':>9}")
        plain = BatchConfig(augment=AugmentConfig(noise=0.0, salt=0.0))
        configs = {
            "crop, LNES and voxel grid": replace(plain, raw_windows=0),
            "the same, and events for warped images": plain,
            "the same, and noise on LNES": replace(plain, augment=AugmentConfig()),
            "columns alone, for images on a GPU": replace(plain, images=False),
        }
        for name, config in configs.items():
            dataset = SequenceDataset([recording], config)
            _row(f"{name}: ours", items, lambda d=dataset: d.batch(items), f"limit {LIMIT}" if "grid" in name else "")
        naive = SequenceDataset([recording], plain)
        _row("crop, LNES and voxel grid: per window, torch", items, lambda: naive_batch(naive, items), "", 3)
        count = len(recording.labels)
        times = measure(lambda: semi_supervised_items([recording], WindowConfig(), seed=0, epoch=1), 10)
        print(f"  drawing the semi-supervised items of {count} labels {times.processor_ms:.2f} ms")
    for name, times in machine_reference().items():
        print(f"  {name:<56} {times.median_ms:8.3f} {times.fastest_ms:8.3f} {times.processor_ms:9.3f} ms")


def _row(name: str, items: Items, function: Callable[[], object], note: str = "", repeats: int = 15) -> None:
    times, count = measure(function, repeats), len(items) * WINDOWS
    rates = [count / ms * 1e3 for ms in (times.median_ms, times.fastest_ms, times.processor_ms)]
    print(f"  {name:<56} {rates[0]:8.0f} {rates[1]:8.0f} {rates[2]:9.0f}  {note}", flush=True)


def _events(items: Items) -> int:
    return int(np.diff(items.first, axis=1).mean())


def a_recording(folder: Path) -> Path:
    """Seconds of events about a hand that moves sideways, as many as the windows want, seen through a lens."""
    rng = np.random.default_rng(0)
    camera = replace(default_camera(SENSOR), distortion=np.array([-0.3, 0.1, 0.0005, -0.0005, 0.0]))
    label_us = np.round(np.arange(1, 15 * SECONDS + 1) * 1e6 / 15).astype(np.int64)
    middle = np.stack([150 + 40 * np.sin(2 * np.pi * label_us / 1e6), np.full(len(label_us), 130.0)], -1)
    offsets = rng.uniform(-30, 30, (21, 2))
    joints = unproject(middle[:, None] + offsets, np.full((len(label_us), 21), 0.9), camera.K)
    pose = HandPose(
        "right", np.zeros((len(label_us), 3), np.float32), joints[:, 0].astype(np.float32),
        np.zeros((len(label_us), 15, 3), np.float32), np.zeros((len(label_us), 10), np.float32),
    )  # fmt: skip
    count = int(EVENTS * 15 * SECONDS)
    t_us = np.sort(rng.integers(0, SECONDS * 1_000_000, count))
    angle, radius = rng.uniform(0, 2 * np.pi, count), 30 + rng.normal(0, 1, count)
    x = 150 + 40 * np.sin(2 * np.pi * t_us / 1e6) + radius * np.cos(angle)
    events = Events(
        x.astype(np.uint16), (130 + radius * np.sin(angle)).astype(np.uint16), t_us, rng.random(count) < 0.5, SENSOR
    )
    write_recording(folder / "hand.h5", events, camera, label_us, pose, joints.astype(np.float32))
    return folder / "hand.h5"


def naive_batch(dataset: SequenceDataset, items: Items) -> list[torch.Tensor]:
    """Window by window as one would write it first: masks in numpy, images with scatters in torch."""
    recording: CachedRecording = dataset.recordings[0]
    K, config = recording.camera.K, dataset.config
    images = []
    for i in range(len(items)):
        rng = np.random.default_rng(i)
        drawn = draw(config.augment or AugmentConfig(), WINDOWS, rng)
        move = move_of(drawn, K, recording.labels.wrist[items.anchor[i]], config.augment or AugmentConfig())
        path = dataset._sources[0].path
        assert path is not None and recording.table is not None
        boxes = window_boxes(move.pixels(path.outline(items.edges_us[i] + recording.start_us - path.t0_us)))
        centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(-1)
        crop = crops_around(centre, extent, drawn.jitter, move.image_K, config.crop, path.margin)
        affine = crop_affine(crop, move.image_K)
        for k in range(WINDOWS):
            start, end = items.edges_us[i, k : k + 2] + recording.start_us
            which = np.flatnonzero((recording.t_us >= start) & (recording.t_us < end))
            moved = move.pixels(recording.table[recording.y[which], recording.x[which]])
            moved = moved * affine[k, 0] + affine[k, 1:]
            inside = ((moved >= 0) & (moved < config.crop.size_px - 1)).all(1)
            x, y = torch.from_numpy(moved[inside].astype(np.float32)).unbind(1)
            t = torch.from_numpy(((recording.t_us[which][inside] - start) / (end - start)).astype(np.float32))
            p = torch.from_numpy(recording.p[which][inside])
            batch = WindowBatch(x, y, t, p, torch.tensor([0, len(x)]), (128, 128))
            images += [naive_lnes(batch), naive_voxel_torch(batch)]
    assert len(images) == 2 * WINDOWS * len(items) and config.voxel_bins == BINS
    return images


if __name__ == "__main__":
    main()
