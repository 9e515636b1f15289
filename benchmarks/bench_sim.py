"""The simulator on one thread, beside drawing the whole image every millisecond: `python benchmarks/bench_sim.py`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import torch

from evhands.sim import generate
from evhands.sim.generate import ClipConfig, simulate_clip
from evhands.sim.sensor import EventSensor, union

CLIPS = 12
ROUNDS = 4
PARTS = {
    "motion": (generate, "draw_motion"),
    "skin, light, background": (generate, "_draw_scene"),
    "times and truth": (generate, "_times_and_truth"),
    "meshes": (generate, "scene_vertices"),
    "drawing": (generate, "render"),
    "event model, leak, noise": (EventSensor, "expose"),
    "sorting and readout": (EventSensor, "take"),
}


def main() -> None:
    """Print simulated seconds a second, and where the time goes."""
    torch.set_num_threads(1)
    config = ClipConfig()
    simulate_clip(config, 0, 0)
    renders = [simulate_clip(config, 0, i).meta["renders"] for i in range(CLIPS)]
    events = sum(len(simulate_clip(config, 0, i).events) for i in range(CLIPS))
    seconds = CLIPS * config.duration_us * 1e-6
    print(
        f"{CLIPS} clips of {config.duration_us * 1e-6:g} s, {config.size[0]}x{config.size[1]}, one thread; "
        f"{np.sum(renders) / seconds:.0f} images and {events / seconds / 1e6:.2f} Mev a simulated second"
    )
    ours = _cost(lambda i: simulate_clip(config, 0, i), CLIPS)
    print(f"  adaptive times, box of the hand   {_speeds(seconds, ours)}   limit 7")
    _profile(config)
    few = max(CLIPS // 4, 1)
    naive = _naive(config)
    slow = _cost(lambda i: _naively(naive, i), few)
    print(f"  every millisecond, whole image    {_speeds(seconds * few / CLIPS, slow)}")
    print(f"  gain {slow.processor_s / few / (ours.processor_s / CLIPS):.1f} x in processor time")


@dataclass(frozen=True)
class Cost:
    """Seconds of a set of clips, each at its best of several rounds: by the clock, and of the processor."""

    clock_s: float
    processor_s: float


def _cost(simulate: Callable[[int], object], clips: int) -> Cost:
    """The best of several rounds for each clip: a busy machine disturbs some round of each, rarely all."""
    clock, processor = np.empty((ROUNDS, clips)), np.empty((ROUNDS, clips))
    for r in range(ROUNDS):
        for i in range(clips):
            start, start_processor = time.perf_counter(), time.thread_time()
            simulate(i)
            clock[r, i], processor[r, i] = time.perf_counter() - start, time.thread_time() - start_processor
    return Cost(float(clock.min(0).sum()), float(processor.min(0).sum()))


def _speeds(seconds: float, cost: Cost) -> str:
    return (
        f"{seconds / cost.processor_s:6.2f} simulated s a processor second, {seconds / cost.clock_s:6.2f} by the clock"
    )


def _profile(config: ClipConfig) -> None:
    spent = dict.fromkeys(PARTS, 0.0)
    with ExitStack() as stack:
        for name, (owner, function) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, function, _timed(getattr(owner, function), spent, name)))
        start = time.thread_time()
        for i in range(CLIPS):
            simulate_clip(config, 0, i)
        total = time.thread_time() - start
    for name, value in [*spent.items(), ("the rest", total - sum(spent.values()))]:
        print(f"    {name:<30} {100 * value / total:5.1f} %   {1e3 * value / CLIPS:7.2f} ms a clip")


def _timed(function: Callable[..., object], spent: dict[str, float], name: str) -> Callable[..., object]:
    def timed(*arguments: object) -> object:
        start = time.thread_time()
        result = function(*arguments)
        spent[name] += time.thread_time() - start
        return result

    return timed


def _naive(config: ClipConfig) -> ClipConfig:
    """An image every millisecond, however slowly the hand moves."""
    return replace(config, step_px=1e9, step_us=1000.0)


def _naively(config: ClipConfig, index: int) -> None:
    with _whole_images(config):
        simulate_clip(config, 0, index)


@contextmanager
def _whole_images(config: ClipConfig) -> Iterator[None]:
    """The box of every image is the whole image."""
    boxes = generate.image_boxes

    def whole(*arguments: object) -> object:
        points, found = boxes(*arguments)  # type: ignore[arg-type]
        return points, [union(box, (0, 0, *config.size)) for box in found]

    with mock.patch.object(generate, "image_boxes", whole):
        yield


if __name__ == "__main__":
    main()
