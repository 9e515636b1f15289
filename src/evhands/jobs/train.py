"""`evhands train`: a recipe on prepared shards; stops and goes on at will."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from evhands.recipes import RECIPES
from evhands.training import train as run
from evhands.types import InputError


def train(
    out: Path,
    *,
    data: Path,
    recipe: Literal["small", "detector"] = "small",
    hours: float | None = None,
    steps: int | None = None,
    images: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Train a model on the shards that `evhands prepare` makes; they may still be growing.

    The same command goes on where it stopped (OUT/last.pt, saved every two minutes). Follow it with
    `tensorboard --logdir OUT` or in OUT/log.csv.

    Args:
        out: folder of the run; the model ends in OUT/model.pt, which `evhands track --model OUT/model.pt` takes.
        data: folder with the shards, of `evhands prepare`.
        recipe: what to train.
        hours: stop after so many hours of training in all (the recipe's own when left out).
        steps: ... or after so many steps.
        images: images a step.
        learning_rate: of AdamW, at its peak.
        seed: of the first weights and of the order of the clips.
        device: cpu, cuda or auto.
        threads: threads of torch on the CPU.
    """
    torch.set_num_threads(threads)
    config = replace(RECIPES[recipe][0](), seed=seed)
    given: dict[str, Any] = {"hours": hours, "steps": steps, "images": images, "learning_rate": learning_rate}
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if config.hours <= 0 or config.steps <= 0 or config.images <= 0:
        raise InputError(
            f"hours {config.hours}, steps {config.steps} and images {config.images} must all be above zero."
        )
    command = "evhands " + shlex.join(sys.argv[1:])
    path = run(config, recipe, data, out, device=device, command=command)
    print(f"Wrote {path}. Try it: evhands track RECORDING --out DIR --model {path}")
