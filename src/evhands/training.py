"""The training loop: one readable file on Lightning Fabric. What is trained, and how, is a recipe.

A run is a folder: what it was made with (`run_folder`), `last.pt` (everything needed to go on), `best.pt` (the
checkpoint with the best validation), `model.pt` (the one at the end), `log.csv` and tensorboard events. The same
command goes on where it stopped.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from evhands.data.shards import ShardPool
from evhands.files import replacing
from evhands.models.checkpoint import CheckpointMeta, save_checkpoint
from evhands.paper_recipes import PAPER_RECIPES
from evhands.recipes import RECIPES, LoopConfig, Task
from evhands.run_folder import append_row, checksum, describe_run
from evhands.small_recipes import SMALL_STAGE_RECIPES
from evhands.types import InputError

ALL_RECIPES: dict[str, tuple[Callable[[], Any], type[Task]]] = {**RECIPES, **PAPER_RECIPES, **SMALL_STAGE_RECIPES}
"""Recipe name -> (its configuration, its task)."""


@dataclasses.dataclass(frozen=True)
class TrainData:
    """What a run learns from and is validated on, as its task reads it, and what is written of them into the
    checkpoint."""

    train: Any
    held_out: Any
    card: dict[str, Any]


def train(
    config: LoopConfig,
    recipe: str,
    data: Path | TrainData,
    out: Path,
    *,
    start: nn.Module | None = None,
    device: str = "auto",
    command: str = "",
) -> Path:
    """Train a recipe on a folder's shards (`data`/train, validated on `data`/val), or on data given; returns the path
    of the model at the end. start: a model whose weights a new run begins with."""
    data = data if isinstance(data, TrainData) else _shards(data)
    fabric = Fabric(accelerator=device, devices=1, loggers=[TensorBoardLogger(out, name="", version="")])
    fabric.seed_everything(config.seed, verbose=False)
    task = ALL_RECIPES[recipe][1](config)
    if start is not None:
        task.begin_with(start)
    describe_run(out, recipe, config, data.card, command)
    step, optimizer = fabric.setup(task.train(), _optimizer(task, config))  # train() is what freezes frozen norms
    run = _Run(out, fabric, task, step, optimizer, copy.deepcopy(task.model).eval(), data, command)
    steps, validate_every = task.steps(data.train), task.validate_every(data.train)
    progress, lanes = _resume(run)
    figures: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        row = bar.add_task(recipe, total=steps, completed=progress["step"])
        clock = time.process_time if config.processor_time else time.monotonic
        began, saved = clock() - progress["seconds"], time.monotonic()
        try:
            while (share := _share(config, steps, progress)) < 1:
                rate = config.learning_rate * _schedule(config, share, progress["step"])
                batch, lanes = task.sample(data.train, np.random.default_rng((config.seed, progress["step"])), lanes)
                losses, norm, memory = _optimise(run, config, rate, batch)
                if lanes is not None and memory is not None:
                    lanes = dataclasses.replace(lanes, memory=memory)
                progress["step"] += 1
                before, progress["seconds"] = progress["seconds"], clock() - began
                _average(run.average, task.model, min(config.average, progress["step"] / (progress["step"] + 20)))
                bar.update(row, completed=progress["step"], description=f"{recipe} loss {losses['total']:.3f}")
                if progress["step"] % 50 == 0 or progress["step"] == 1:
                    data.train.refresh()
                    told = {"gradient_norm": norm, "rate": rate, "step_s": progress["seconds"] - before}
                    told |= {f"loss/{name}": value for name, value in losses.items()}
                    fabric.log_dict(told, progress["step"])
                figures = {}
                if progress["step"] % validate_every == 0:
                    figures = _validated(run, progress)
                    values = {**progress, "clips": len(data.train), "loss": losses["total"], **figures}
                    append_row(out, values)
                    bar.console.print("  ".join(f"{k} {v:.4g}" for k, v in values.items()))
                if time.monotonic() - saved > config.save_every_s:
                    _save(run, progress, lanes)
                    saved = time.monotonic()
        finally:  # an interrupted run goes on at this very step
            _save(run, progress, lanes)
    figures = figures or _validated(run, progress)
    save_checkpoint(out / "model.pt", task.model_name, run.average, _meta(run, progress, figures))
    return out / "model.pt"


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a run that stay the same ones while it goes on."""

    out: Path
    fabric: Fabric
    task: Task
    step: Any
    optimizer: Any
    average: nn.Module
    data: TrainData
    command: str


def _optimizer(task: Task, config: LoopConfig) -> torch.optim.Optimizer:
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    learning = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    return kind(learning, lr=config.learning_rate, weight_decay=config.weight_decay)


def _optimise(run: _Run, config: LoopConfig, rate: float, batch: Any) -> tuple[dict[str, float], float, Any]:
    """One step at a learning rate; returns the losses by name with `total`, their weighted sum, the norm of the
    gradients before they are clipped, and the memory that the clips are left with."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    told: dict[str, float] = {}
    memory = None
    for part in run.task.parts(batch):
        values, memory = run.step(run.fabric.to_device(part))
        losses = {name: value.mean() for name, value in values.items()}
        losses["total"] = torch.stack([weight * losses[name] for name, weight in config.weights.items()]).sum()
        run.fabric.backward(losses["total"])
        for name, value in losses.items():
            told[name] = told.get(name, 0.0) + float(value.detach())
    limit = math.inf if config.clip_norm is None else config.clip_norm
    norm = run.fabric.clip_gradients(run.step, run.optimizer, max_norm=limit, error_if_nonfinite=False)
    assert norm is not None
    if torch.isfinite(norm):  # one degenerate alignment must not spoil the weights
        if config.clip_value is not None:
            run.fabric.clip_gradients(run.step, run.optimizer, clip_val=config.clip_value)
        run.optimizer.step()
    run.optimizer.zero_grad()
    return told, float(norm), memory


def _validated(run: _Run, progress: dict[str, Any]) -> dict[str, float]:
    """Figures over all of validation; the best model so far is kept as best.pt."""
    figures = run.task.figures(run.average, run.data.held_out)
    run.fabric.log_dict({f"val/{name}": value for name, value in figures.items()}, progress["step"])
    if figures[run.task.best_by] < progress.get("best", math.inf):
        progress["best"] = figures[run.task.best_by]
        save_checkpoint(run.out / "best.pt", run.task.model_name, run.average, _meta(run, progress, figures))
    return figures


def _meta(run: _Run, progress: dict[str, Any], figures: dict[str, float]) -> CheckpointMeta:
    counts = {"train_clips": len(run.data.train), "val_clips": len(run.data.held_out)}
    told = {**counts, **run.data.card, **progress}
    return CheckpointMeta(data=told, seed=run.task.config.seed, command=run.command, figures=figures)


def _shards(folder: Path) -> TrainData:
    data = TrainData(ShardPool(folder / "train"), ShardPool(folder / "val"), _data_card(folder))
    if not (len(data.train) and len(data.held_out)):
        raise InputError(
            f"{folder} holds {len(data.train)} training and {len(data.held_out)} validation clips, wanted some of "
            f"both. Make them with: evhands prepare {folder}. (Recordings are what the recipes "
            f"{', '.join([*PAPER_RECIPES, *SMALL_STAGE_RECIPES])} are trained on.)"
        )
    return data


def _share(config: LoopConfig, steps: int, progress: dict[str, Any]) -> float:
    hours = 0.0 if config.hours is None else progress["seconds"] / 3600 / config.hours
    return max(progress["step"] / steps, hours)


def _schedule(config: LoopConfig, share: float, step: int) -> float:
    ramp = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)) if config.schedule == "cosine" else 1.0)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _save(run: _Run, progress: dict[str, Any], lanes: Any) -> None:
    state = {
        "model": run.task.model.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "progress": progress,
        "lanes": None if lanes is None else lanes.state(),
    }
    with replacing(run.out / "last.pt") as temporary:
        torch.save(state, temporary)


def _resume(run: _Run) -> tuple[dict[str, Any], Any]:
    if not (run.out / "last.pt").exists():
        return {"step": 0, "seconds": 0.0}, None
    state = torch.load(run.out / "last.pt", weights_only=True, map_location="cpu")
    run.task.model.load_state_dict(state["model"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    lanes = state["lanes"]
    return dict(state["progress"]), None if lanes is None else run.task.restored(lanes, run.data.train)


def _data_card(data: Path) -> dict[str, Any]:
    """The card of the shards and a checksum of those that are there now."""
    card = json.loads((data / "card.json").read_text()) if (data / "card.json").exists() else {}
    shards = {part: checksum(sorted((data / part).glob("shard-*.npy"))) for part in ("train", "val")}
    return {**card, "shards": shards}
