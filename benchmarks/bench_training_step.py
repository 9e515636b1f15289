"""One training step of the paper's network on two threads, split by part: `python benchmarks/bench_training_step.py`.

Batch 2 x 12 windows of 10 000 events. Limits are for an idle machine with AVX-512; the published implementation takes
8.7 s (supervised) and 10.9 s (semi-supervised) on such a one, 6.1 s of it rasterising.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from evhands import losses
from evhands.events.representations import lnes, voxel_grid
from evhands.geometry import crop_camera
from evhands.hand.model import load_hand
from evhands.models import paper_stages
from evhands.models.paper import PaperEstimator, paper
from evhands.models.paper_stages import StageConfig, stage_losses, stage_weights
from evhands.types import Camera, WindowBatch
from timing import machine_reference

BATCH, WINDOWS, OUTPUTS, EVENTS, SIDE = 2, 12, 3, 10_000, 128
SIZE = (346, 260)
K = np.array([[290.0, 0, 172], [0, 290, 130], [0, 0, 1]])
LIMITS = {("supervised", False): 2.3, ("semi", False): 2.7, ("supervised", True): 1.5, ("semi", True): 1.9}
PARTS = {
    "flow net": (PaperEstimator, "flow_scales"),
    "pose net": (PaperEstimator, "poses"),
    "hand flow": (paper_stages, "hand_flow"),
    "images of warped events": (paper_stages, "image_of_warped_events"),
    "edge": (paper_stages, "edge_sums"),
}
"""Part of a step: the function that is timed for it."""

Laps = dict[str, np.ndarray]
"""Seconds on the clock and of processor time (of all threads, waiting for each other included)."""


def main(threads: int = 2, repeats: int = 3) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for stage, bf16 in LIMITS:
            print_step(stage, bf16, repeats)
    finally:
        torch.set_num_threads(before)


def print_step(stage: paper_stages.Stage, bf16: bool, repeats: int) -> None:
    step = training_step(stage, bf16)
    step(defaultdict(lambda: np.zeros(2)))
    every: list[Laps] = []
    for _ in range(repeats):
        every.append(defaultdict(lambda: np.zeros(2)))
        with lap(every[-1], "whole"):
            step(every[-1])
    median = {name: np.median([laps[name] for laps in every], 0) for name in every[0]}
    clock, processor = median.pop("whole")
    limit = f"limit {LIMITS[stage, bf16]} s" if torch.get_num_threads() == 2 else "limit for two threads alone"
    precision = f"{'bf16' if bf16 else 'fp32'}, threads: {torch.get_num_threads()}"
    print(f"{stage} step, {precision}: {clock:.2f} s, processor time {processor:.2f} s; {limit}")
    median["the rest"] = np.array([clock, processor]) - sum(median.values())
    for name, seconds in median.items():
        print(f"    {name:26} {1000 * seconds[0]:8.1f} ms, processor time {1000 * seconds[1]:8.1f} ms")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"    most memory of the process so far {memory:.1f} GB; limit 4 GB")
    for name, timing in machine_reference().items():
        print(f"    meanwhile {name:34} {timing.median_ms:7.2f} ms (fastest {timing.fastest_ms:.2f})")


def training_step(stage: paper_stages.Stage, bf16: bool) -> Callable[[Laps], None]:
    """A function that takes a whole step, from events to new weights, and adds the seconds of its parts to a dict."""
    torch.manual_seed(0)
    hand, estimator = load_hand(), PaperEstimator(paper())
    estimator = estimator.use_hand(hand).train()
    events, batch = synthetic_batch(stage)
    config = StageConfig(bf16=bf16)
    optimizer = torch.optim.Adam([p for p in estimator.parameters() if p.requires_grad], lr=5e-4, weight_decay=1e-4)

    def step(laps: Laps) -> None:
        with lap(laps, "representation"):
            images = {"lnes": torch.from_numpy(lnes(events)), "voxel": torch.from_numpy(voxel_grid(events, 5))}
            images = {name: image.unflatten(0, (BATCH, WINDOWS)) for name, image in images.items()}
        with timed_parts(laps):
            terms = stage_losses(estimator, hand, batch | images, stage, config)
        total, _ = losses.combined(terms, stage_weights(stage))
        with lap(laps, "backward"):
            total.backward()
        with lap(laps, "optimizer"):
            torch.nn.utils.clip_grad_value_(estimator.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def synthetic_batch(stage: str) -> tuple[WindowBatch, dict[str, torch.Tensor]]:
    """Events of all windows in their crops, and the rest of a batch: a hand 0.55 m away that moves 2 cm a window."""
    rng = np.random.default_rng(0)
    count = BATCH * WINDOWS * EVENTS
    place = (SIDE / 2 + 20 * rng.standard_normal((2, count))).astype(np.float32)
    t = np.sort(rng.random((BATCH * WINDOWS, EVENTS), dtype=np.float32), 1).ravel()
    offsets = np.arange(BATCH * WINDOWS + 1) * EVENTS
    events = WindowBatch(place[0], place[1], t, rng.random(count) < 0.5, offsets, (SIDE, SIDE))
    crop = crop_camera(Camera(K, SIZE), np.array([150.0, 115.0]), 150.0, SIDE).K
    shape = (BATCH, OUTPUTS)
    wrist = torch.tensor([0.06, 0.0, 0.55]) + torch.arange(OUTPUTS)[:, None] * torch.tensor([0.02, 0.01, 0.0])
    last = np.r_[10 * EVENTS : 12 * EVENTS, 22 * EVENTS : 24 * EVENTS]
    batch = {
        "K": torch.from_numpy(K).float().expand(BATCH, 3, 3),
        "crop_K": torch.from_numpy(crop).float().expand(*shape, 3, 3),
        "labelled": torch.tensor([[stage != "semi", True, stage != "semi"]]).expand(shape),
        "orientation": torch.tensor([1.4, 0.0, 0.0]).expand(*shape, 3),
        "wrist": wrist.expand(*shape, 3),
        "joints": load_hand().mean_pose.view(15, 3).expand(*shape, 15, 3),
        "shape": torch.zeros(*shape, 10),
        "event_x": torch.from_numpy(place[0, last]) * 150 / SIDE + 75,
        "event_y": torch.from_numpy(place[1, last]) * 150 / SIDE + 40,
        "event_t": torch.from_numpy(t[last]),
        "event_p": torch.from_numpy(events.p[last]),
        "event_offsets": torch.arange(BATCH * (OUTPUTS - 1) + 1) * EVENTS,
    }
    return events, {name: value.contiguous() for name, value in batch.items()}


@contextmanager
def lap(laps: Laps, name: str) -> Iterator[None]:
    start = np.array([time.perf_counter(), time.process_time()])
    yield
    laps[name] += np.array([time.perf_counter(), time.process_time()]) - start


@contextmanager
def timed_parts(laps: Laps) -> Iterator[None]:
    """Within it the functions of `PARTS` are timed."""
    originals = {name: getattr(owner, function) for name, (owner, function) in PARTS.items()}

    def timed(name: str) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            with lap(laps, name):
                return originals[name](*args, **options)

        return call

    try:
        for name, (owner, function) in PARTS.items():
            setattr(owner, function, timed(name))
        yield
    finally:
        for name, (owner, function) in PARTS.items():
            setattr(owner, function, originals[name])


if __name__ == "__main__":
    # On a busy machine the barriers of two threads cost more than the work: `... 1` runs on one.
    main(*(int(argument) for argument in sys.argv[1:2]))
