"""`evhands train`: a recipe on prepared shards; stops and goes on at will."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from evhands.data.shards import ShardConfig
from evhands.models.checkpoint import checkpoint_path, read_checkpoint
from evhands.recipes import RECIPES, TrainConfig
from evhands.simulated_rows import MemoryRows, RowSeries, StreamedRows, make_row
from evhands.training import TrainData
from evhands.training import train as run
from evhands.types import InputError

VALIDATION_CLIPS, FIRST_CLIPS = 64, 128


def train(
    out: Path,
    *,
    data: Path | None = None,
    simulate: int = 0,
    recipe: Literal["small", "detector"] = "small",
    start: str | None = None,
    hours: float | None = None,
    steps: int | None = None,
    images: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Train a model on the shards that `evhands prepare` makes (they may still be growing), or while simulating.

    The same command goes on where it stopped (OUT/last.pt, saved every two minutes). Follow it with
    `tensorboard --logdir OUT` or in OUT/log.csv.

    Args:
        out: folder of the run; the model ends in OUT/model.pt, which `evhands track --model OUT/model.pt` takes.
        data: folder with the shards, of `evhands prepare`.
        simulate: instead of --data, processes that simulate fresh clips while the training runs, without any file.
        recipe: what to train.
        start: begin with the weights of a model that ships with evhands (small) or of a checkpoint, instead of random
            ones.
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
    first = None if start is None else read_checkpoint(checkpoint_path(start), wanted=recipe).model
    command = "evhands " + shlex.join(sys.argv[1:])
    if (data is None) == (simulate <= 0):
        raise InputError("Wanted either --data FOLDER (of `evhands prepare`) or --simulate PROCESSES, one of the two.")
    if data is not None:
        path = run(config, recipe, data, out, start=first, device=device, command=command)
    else:
        path = _while_simulating(config, recipe, simulate, out, first, device, command)
    print(f"Wrote {path}. Try it: evhands track RECORDING --out DIR --model {path}")


def _while_simulating(
    config: TrainConfig, recipe: str, workers: int, out: Path, start: nn.Module | None, device: str, command: str
) -> Path:
    """Train on rows that other processes make meanwhile; validate on clips simulated first."""
    series, shard = RowSeries(seed=config.seed), ShardConfig()
    print(f"Simulating {VALIDATION_CLIPS} validation clips and the first {FIRST_CLIPS} for training ...")
    with StreamedRows(series, workers=workers) as stream:
        rows = [make_row(series.held_out(), i, shard) for i in range(VALIDATION_CLIPS)]
        stream.wait_for(FIRST_CLIPS)
        data = TrainData(stream, MemoryRows(np.stack(rows)), {"shares": asdict(series.shares), "streamed": True})
        return run(config, recipe, data, out, start=start, device=device, command=command)
