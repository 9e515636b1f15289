"""A step of the stages of `small` on one thread, and the pull of each loss: `python benchmarks/bench_small_stages.py`.

On six simulated recordings of 2 s, with the shipped weights: processor time of a step of 12 items of 8 windows, and the
norm of the gradient of each loss before its weight, over five steps; the weights of the losses without labels come
from these norms.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from evhands.data.cache import CachedRecording, cache_recordings
from evhands.models.checkpoint import ASSETS, read_checkpoint
from evhands.models.small_losses import SmallLossWeights
from evhands.recording import Tags, write_recording
from evhands.sim.generate import simulate_clip
from evhands.sim.presets import clip_of_testset
from evhands.small_recipes import SmallStageTask, small_semi_recipe, small_supervised_recipe
from evhands.stage_data import training_sequences

STEPS = 5
TAGS = Tags(side="right", subject="5", scene="normal", fast=False, gesture="random", checked=True)


def main() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            recordings = some_recordings(Path(folder))
            for made in (small_supervised_recipe, small_semi_recipe):
                print_step(recordings, replace(made(), labels=0.5 if made is small_semi_recipe else 1.0))
    finally:
        torch.set_num_threads(before)


def some_recordings(folder: Path) -> list[CachedRecording]:
    """Hands that no test shows, of every second part of the test set."""
    paths = [folder / f"{i}.h5" for i in range(6)]
    for i, path in enumerate(paths):
        config = replace(clip_of_testset(28 * i)[1], label_rate_hz=15.0, subjects=(100, 10_000))
        clip = simulate_clip(config, 7, i)
        write_recording(path, clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, tags=TAGS)
    return cache_recordings(paths, folder / "cache")


def print_step(recordings: list[CachedRecording], config) -> None:
    task = SmallStageTask(config)
    task.begin_with(read_checkpoint(ASSETS / "small.pt").model)
    task.train()
    pool, place = training_sequences(recordings, config), None
    learning = [parameter for parameter in task.parameters() if parameter.requires_grad]
    seconds, norms = [], {}
    for step in range(STEPS + 1):
        began = time.process_time()
        batch, place = task.sample(pool, np.random.default_rng(0), place)
        (part,) = task.parts(batch)
        values, _ = task(part)
        total = torch.stack([weight * values[name] for name, weight in config.weights.items()]).sum()
        total.backward(retain_graph=True)
        if step:  # the first compiles
            seconds.append(time.process_time() - began)
            for name, gradient in gradients(values, learning).items():
                norms.setdefault(name, []).append(gradient)
    print(f"{config.stage} step, {config.batch} items: {np.median(seconds):.2f} s of processor time")
    for name, found in norms.items():
        print(f"    gradient of {name:10} {np.median(found):7.2f} ({min(found):.2f} to {max(found):.2f})")


def gradients(values: dict[str, torch.Tensor], learning: list[torch.nn.Parameter]) -> dict[str, float]:
    """Norms of the gradients of the losses of labels, added with their weights, and of each other loss."""
    own = vars(SmallLossWeights())
    sums = {"labels": torch.stack([weight * values[name] for name, weight in own.items()]).sum()}
    sums |= {name: values[name] for name in values if name not in own}
    found = {}
    for name, value in sums.items():
        parts = torch.autograd.grad(value, learning, retain_graph=True, allow_unused=True)
        found[name] = float(torch.stack([part.norm() for part in parts if part is not None]).norm())
    return found


if __name__ == "__main__":
    main()
