"""The training loop: one readable file on Lightning Fabric. What is trained, and how, is a recipe.

A run is a folder: `config.json`, `last.pt` (everything needed to go on), `model.pt` (the averaged weights, a checkpoint
of evhands), `log.csv` and tensorboard events. The same command goes on where it stopped.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from evhands.data.shards import Pool, ShardPool
from evhands.files import replacing
from evhands.models.checkpoint import CheckpointMeta, save_checkpoint
from evhands.recipes import RECIPES, Lanes, TrainConfig
from evhands.types import InputError


@dataclasses.dataclass(frozen=True)
class TrainData:
    """What a run learns from and is validated on, and what is written of them into the checkpoint."""

    train: Pool
    held_out: Pool
    card: dict[str, Any]


def train(
    config: TrainConfig,
    recipe: str,
    data: Path | TrainData,
    out: Path,
    *,
    start: nn.Module | None = None,
    device: str = "auto",
    command: str = "",
) -> Path:
    """Train a recipe on a folder's shards (`data`/train, validated on `data`/val), or on rows given; returns the path
    of the averaged model. start: a model whose weights a new run begins with."""
    fabric = Fabric(accelerator=device, devices=1, loggers=[TensorBoardLogger(out, name="", version="")])
    fabric.seed_everything(config.seed, verbose=False)
    data = data if isinstance(data, TrainData) else _shards(data)
    pool, held_out = data.train, data.held_out
    task = RECIPES[recipe][1](config)
    if start is not None:
        task.model.load_state_dict(start.state_dict())
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    step, optimizer = fabric.setup(task, optimizer)
    average = copy.deepcopy(task.model).eval()
    progress, lanes = _resume(out, task.model, average, optimizer, pool)
    _write_config(out, recipe, config)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        row = bar.add_task(recipe, total=config.steps, completed=progress["step"])
        began, saved = time.monotonic() - progress["seconds"], time.monotonic()
        try:
            while (share := _share(config, progress)) < 1:
                rate = config.learning_rate * _schedule(share, progress["step"], config.warmup_steps)
                batch, lanes = task.sample(pool, np.random.default_rng((config.seed, progress["step"])), lanes)
                losses, memory = _optimise(fabric, step, optimizer, config, rate, fabric.to_device(batch))
                if lanes is not None and memory is not None:
                    lanes = dataclasses.replace(lanes, memory=memory)
                progress["step"] += 1
                progress["seconds"] = time.monotonic() - began
                _average(average, task.model, min(config.average, progress["step"] / (progress["step"] + 20)))
                bar.update(row, completed=progress["step"], description=f"{recipe} loss {losses['total']:.3f}")
                if progress["step"] % 50 == 0:
                    pool.refresh()
                    fabric.log_dict({f"loss/{name}": value for name, value in losses.items()}, progress["step"])
                if progress["step"] % config.validate_every == 0:
                    figures = task.figures(average, held_out)
                    fabric.log_dict({f"val/{name}": value for name, value in figures.items()}, progress["step"])
                    _log(out, {**progress, "clips": len(pool), "loss": losses["total"], **figures}, bar)
                if time.monotonic() - saved > config.save_every_s:
                    _save(out, task.model, average, optimizer, progress, lanes)
                    saved = time.monotonic()
        finally:  # an interrupted run goes on at this very step
            _save(out, task.model, average, optimizer, progress, lanes)
    figures = task.figures(average, held_out)
    meta = CheckpointMeta(
        data={"train_clips": len(pool), "val_clips": len(held_out), **data.card, **progress},
        seed=config.seed,
        command=command,
        figures=figures,
    )
    save_checkpoint(out / "model.pt", recipe, average, meta)
    return out / "model.pt"


def _optimise(
    fabric: Fabric, step: Any, optimizer: Any, config: TrainConfig, rate: float, batch: dict[str, Tensor]
) -> tuple[dict[str, float], Tensor | None]:
    """One step at a learning rate; returns the means of the losses by name with `total`, their weighted sum, and the
    memory that the clips are left with."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    values, memory = step(batch)
    losses = {name: value.mean() for name, value in values.items()}
    total = torch.stack([config.weights[name] * value for name, value in losses.items()]).sum()
    fabric.backward(total)
    norm = fabric.clip_gradients(step, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
    if norm is None or torch.isfinite(norm):  # one degenerate alignment must not spoil the weights
        optimizer.step()
    optimizer.zero_grad()
    return {name: float(value.detach()) for name, value in {**losses, "total": total}.items()}, memory


def _shards(folder: Path) -> TrainData:
    data = TrainData(ShardPool(folder / "train"), ShardPool(folder / "val"), _data_card(folder))
    if not (len(data.train) and len(data.held_out)):
        raise InputError(
            f"{folder} holds {len(data.train)} training and {len(data.held_out)} validation clips, wanted some of "
            f"both. Make them with: evhands prepare {folder}"
        )
    return data


def _share(config: TrainConfig, progress: dict[str, Any]) -> float:
    return max(progress["step"] / config.steps, progress["seconds"] / 3600 / config.hours)


def _schedule(share: float, step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _save(
    out: Path, model: nn.Module, average: nn.Module, optimizer: Any, progress: dict[str, Any], lanes: Lanes | None
) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "lanes": None if lanes is None else lanes.state(),
    }
    with replacing(out / "last.pt") as temporary:
        torch.save(state, temporary)


def _resume(
    out: Path, model: nn.Module, average: nn.Module, optimizer: Any, pool: Pool
) -> tuple[dict[str, Any], Lanes | None]:
    if not (out / "last.pt").exists():
        return {"step": 0, "seconds": 0.0}, None
    state = torch.load(out / "last.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    lanes = state["lanes"]
    return dict(state["progress"]), None if lanes is None else Lanes.of(lanes, pool.take(np.array([0])).dtype)


def _write_config(out: Path, recipe: str, config: TrainConfig) -> None:
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps({"recipe": recipe, **dataclasses.asdict(config)}, indent=1))


def _data_card(data: Path) -> dict[str, Any]:
    card = data / "card.json"
    return json.loads(card.read_text()) if card.exists() else {}


def _log(out: Path, values: dict[str, float], bar: Progress) -> None:
    path = out / "log.csv"
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(values)
        writer.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in values.values()])
    bar.console.print("  ".join(f"{k} {v:.4g}" for k, v in values.items()))
