"""Event representations on one thread beside naive formulations: `python benchmarks/bench_representations.py`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from evhands.events import noise, representations, representations_torch, warp, warp_torch
from evhands.events.windows import batch_windows, crop_map
from evhands.geometry import crop_camera, default_camera, undistortion_map
from evhands.types import Events, EventWindow, WindowBatch
from timing import machine_reference, measure

SIZE = (128, 128)
SENSOR = (346, 260)
BINS = 5
LIMIT = 100  # million events a second, on an idle machine, for 100 000-event windows


def main() -> None:
    """Print million events a second: by the median on the clock, by the fastest call, by the processor time."""
    torch.set_num_threads(1)
    print(f"  {'one window, 128 x 128, Mev/s':<56} {'median':>8} {'fastest':>8} {'processor':>9}")
    for count in (10_000, 100_000):
        for kind, batch in (("anywhere", anywhere(count)), ("on a moving contour", moving_contour(count))):
            print(f" {count} events {kind}")
            _images(batch, count, repeats=100 if count == 10_000 else 40)
    _other_kernels()
    for name, times in machine_reference().items():
        print(f"  {name:<56} {times.median_ms:8.3f} {times.fastest_ms:8.3f} {times.processor_ms:9.3f} ms")


def _row(name: str, count: int, function: Callable[[], object], repeats: int, note: str = "") -> None:
    times = measure(function, repeats)
    rates = [count / ms / 1e3 for ms in (times.median_ms, times.fastest_ms, times.processor_ms)]
    print(f"  {name:<56} {rates[0]:8.1f} {rates[1]:8.1f} {rates[2]:9.1f}  {note}", flush=True)


def _images(batch: WindowBatch, count: int, repeats: int) -> None:
    tensors = as_tensors(batch)
    note = f"limit {LIMIT}" if count == 100_000 else ""
    _row("LNES bilinear: ours (numba)", count, lambda: representations.lnes(batch), repeats, note)
    _row("LNES bilinear: ours (torch, scatter_reduce)", count, lambda: representations_torch.lnes(tensors), repeats)
    _row("LNES bilinear: torch index_put, time order", count, lambda: naive_lnes(tensors), repeats)
    _row("voxel grid trilinear: ours (numba)", count, lambda: representations.voxel_grid(batch, BINS), repeats, note)
    _row("voxel grid trilinear: ours (torch, index_add)", count, lambda: representations_torch.voxel_grid(tensors), 10)
    _row("voxel grid trilinear: torch scatter_add", count, lambda: naive_voxel_torch(tensors), 10)
    _row("voxel grid trilinear: numpy add.at", count, lambda: naive_voxel_numpy(batch), 5)
    _row("event image bilinear: ours (numba)", count, lambda: representations.event_image(batch), repeats)


def _other_kernels() -> None:
    count = 100_000
    batch = moving_contour(count)
    flow = np.random.default_rng(0).standard_normal((1, 2, *SIZE), dtype=np.float32)
    tensors, flow_tensor = as_tensors(batch), torch.from_numpy(flow).requires_grad_()

    def torch_step() -> None:
        image = warp_torch.image_of_warped_events(tensors, flow_tensor, 1.0)
        warp.contrast(image).sum().backward()

    print(f" {count} events, what goes before and after")
    _row("image of warped events: ours (numba)", count, lambda: warp.image_of_warped_events(batch, flow, 1.0), 40)
    _row("the same with gradients (torch)", count, torch_step, 10)
    rng = np.random.default_rng(1)
    columns = (rng.integers(0, high, count).astype(np.uint16) for high in SENSOR)
    events = Events(*columns, np.sort(rng.integers(0, 50_000, count)), rng.random(count) < 0.5, SENSOR)
    camera = default_camera(SENSOR)
    crop = crop_map(camera, crop_camera(camera, np.array([170.0, 130.0]), 200.0, 128), undistortion_map(camera))
    window = EventWindow(events, 0, 50_000)
    _row("undistortion, crop and batch", count, lambda: batch_windows([window], crop), 40)
    _row("activity filter 346 x 260", count, lambda: noise.activity_filter(events), 40)


def anywhere(count: int, seed: int = 0) -> WindowBatch:
    """One window of events anywhere in the image, in the order of time."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SIZE[0] - 1, (2, count)).astype(np.float32)
    return _window(x, y, rng)


def moving_contour(count: int) -> WindowBatch:
    """One window of events on a circle that moves, in the order of time: many a pixel, as on a hand's outline."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 30 + rng.normal(0, 0.7, count)
    x = 54 + 20 * np.linspace(0, 1, count) + radius * np.cos(angle)
    return _window(x.astype(np.float32), (60 + radius * np.sin(angle)).astype(np.float32), rng)


def _window(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> WindowBatch:
    t = np.sort(rng.random(len(x), dtype=np.float32))
    return WindowBatch(x, y, t, rng.random(len(x)) < 0.5, np.array([0, len(x)]), SIZE)


def as_tensors(batch: WindowBatch) -> WindowBatch:
    columns = (torch.from_numpy(column) for column in (batch.x, batch.y, batch.t, batch.p, batch.offsets))
    return WindowBatch(*columns, batch.size)


# The formulations one would write first; none of them looks at the border, the events here stay inside.


def naive_lnes(batch: WindowBatch) -> Tensor:
    """Writes in the order of time: right on one thread only."""
    image = torch.zeros(2, SIZE[1], SIZE[0])
    left, top = batch.x.long(), batch.y.long()
    for dx in (0, 1):
        for dy in (0, 1):
            column = torch.where(batch.x > left, left + dx, left)
            row = torch.where(batch.y > top, top + dy, top)
            image.index_put_(((~batch.p).long(), row, column), batch.t)
    return image


def naive_voxel_torch(batch: WindowBatch) -> Tensor:
    """Eight scatter_add into a flat grid."""
    grid = torch.zeros((BINS + 1) * SIZE[1] * SIZE[0])
    sign, time = batch.p.float() * 2 - 1, batch.t * (BINS - 1)
    corner = [values.long() for values in (batch.x, batch.y, time)]
    part = [values - low for values, low in zip((batch.x, batch.y, time), corner, strict=True)]
    for tap in range(8):
        on = [(tap >> k) & 1 for k in range(3)]
        u, v, b = (low + one for low, one in zip(corner, on, strict=True))
        weight = sign * torch.stack([f if one else 1 - f for f, one in zip(part, on, strict=True)]).prod(0)
        grid.scatter_add_(0, (b * SIZE[1] + v) * SIZE[0] + u, weight)
    return grid


def naive_voxel_numpy(batch: WindowBatch) -> np.ndarray:
    """Eight np.add.at into the grid."""
    grid = np.zeros((BINS + 1, SIZE[1], SIZE[0]), np.float32)
    sign, time = np.where(batch.p, 1, -1).astype(np.float32), batch.t * (BINS - 1)
    corner = [values.astype(np.int64) for values in (batch.x, batch.y, time)]
    part = [values - low for values, low in zip((batch.x, batch.y, time), corner, strict=True)]
    for tap in range(8):
        on = [(tap >> k) & 1 for k in range(3)]
        u, v, b = (low + one for low, one in zip(corner, on, strict=True))
        weight = sign * np.prod([f if one else 1 - f for f, one in zip(part, on, strict=True)], axis=0)
        np.add.at(grid, (b, v, u), weight)
    return grid


if __name__ == "__main__":
    main()
