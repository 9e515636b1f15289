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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from evhands.processes import DeviceConfig, Processes, launch
from evhands.recipes import RECIPES
from evhands.run_folder import append_row, checksum, describe_run
from evhands.small_recipes import SMALL_STAGE_RECIPES
from evhands.task import LoopConfig, Task
from evhands.training_pictures import pictures
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


def launched(out: Path, config: DeviceConfig = DeviceConfig()) -> Fabric:
    """The processes of a run whose folder is `out`, running."""
    return launch(config, [TensorBoardLogger(out, name="", version="")])


def train(
    config: LoopConfig,
    recipe: str,
    data: Path | Sequence[Path] | TrainData,
    out: Path,
    *,
    start: nn.Module | None = None,
    device: str = "auto",
    command: str = "",
    fabric: Fabric | None = None,
) -> Path:
    """Train a recipe on the shards of folders (DATA/train, validated on DATA/val), or on data given; returns the path
    of the model at the end. start: a model whose weights a new run begins with. fabric: the processes of the run, of
    which the first one writes; without it this one alone, on `device`."""
    fabric = fabric or launched(out, DeviceConfig(accelerator=device))
    if not isinstance(data, TrainData):
        data = shards([data] if isinstance(data, Path) else data, ALL_RECIPES[recipe][1].fields)
    run = begun(config, recipe, data, out, fabric, start, command)
    progress, lanes = _resume(run)
    _check_agreement(run, progress)
    figures = _loop(run, config, recipe, progress, lanes) or _validated(run, progress)
    if run.processes.first:
        save_checkpoint(out / "model.pt", run.task.model_name, run.average, _meta(run, progress, figures))
    fabric.barrier()
    return out / "model.pt"


def begun(
    config: LoopConfig, recipe: str, data: TrainData, out: Path, fabric: Fabric, start: nn.Module | None, command: str
) -> Run:
    """A run before its first step, its folder described."""
    processes = Processes.of(fabric)
    fabric.seed_everything(config.seed, verbose=False)
    task = ALL_RECIPES[recipe][1](config)
    if start is not None:
        task.begin_with(start)
    processes.first_alone(lambda: describe_run(out, recipe, config, data.card, command, processes.count))
    step, optimizer = fabric.setup(task.train(), _optimizer(task, config))  # train() is what freezes frozen norms
    average = copy.deepcopy(task.model).eval()
    data = dataclasses.replace(data, train=task.placed(data.train, fabric.device))
    return Run(out, fabric, processes, task, step, optimizer, average, data, command)


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same ones while it goes on."""

    out: Path
    fabric: Fabric
    processes: Processes
    task: Task
    step: Any
    optimizer: Any
    average: nn.Module
    data: TrainData
    command: str


def _loop(run: Run, config: LoopConfig, recipe: str, progress: dict[str, Any], lanes: Any) -> dict[str, float]:
    """All steps that are left, counted in `progress`; the figures of a validation after the very last one."""
    task, data, first = run.task, run.data, run.processes.first
    steps, validate_every = task.steps(data.train), task.validate_every(data.train)
    figures: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1, disable=not first) as bar:
        row = bar.add_task(recipe, total=steps, completed=progress["step"])
        clock = time.process_time if config.processor_time else time.monotonic
        began, saved = clock() - progress["seconds"], time.monotonic()
        try:
            while (share := _share(config, steps, progress)) < 1:
                rate = config.learning_rate * _schedule(config, share, progress["step"])
                batch, behind = task.sample(data.train, np.random.default_rng((config.seed, progress["step"])), lanes)
                losses, norm, memory = _optimise(run, config, rate, batch, clock() - began)
                if behind is not None and memory is not None:
                    behind = dataclasses.replace(behind, memory=memory)
                lanes, before = behind, progress["seconds"]
                progress["step"], progress["seconds"] = progress["step"] + 1, losses.pop("seconds")
                _average(run.average, task.model, min(config.average, progress["step"] / (progress["step"] + 20)))
                bar.update(row, completed=progress["step"], description=f"{recipe} loss {losses['total']:.3f}")
                if progress["step"] % 50 == 0 or progress["step"] == 1:
                    if run.processes.count == 1:  # several must draw from the same rows
                        data.train.refresh()
                    told = {"gradient_norm": norm, "rate": rate, "step_s": progress["seconds"] - before}
                    told |= {f"loss/{name}": value for name, value in losses.items()}
                    run.fabric.log_dict(told, progress["step"])
                figures = {}
                if progress["step"] % validate_every == 0:
                    figures = _validated(run, progress)
                    values = {**progress, "clips": len(data.train), "loss": losses["total"], **figures}
                    if first:
                        append_row(run.out, values)
                        bar.console.print("  ".join(f"{k} {v:.4g}" for k, v in values.items()))
                if time.monotonic() - saved > config.save_every_s:
                    _save(run, progress, lanes)
                    saved = time.monotonic()
        finally:  # an interrupted run goes on at this very step
            _save(run, progress, lanes)
    return figures


def _optimizer(task: Task, config: LoopConfig) -> torch.optim.Optimizer:
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    learning = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    return kind(learning, lr=config.learning_rate, weight_decay=config.weight_decay)


def _optimise(
    run: Run, config: LoopConfig, rate: float, batch: Any, seconds: float
) -> tuple[dict[str, float], float, Any]:
    """One step at a learning rate; returns the losses by name with `total`, their weighted sum, and `seconds`, of the
    first process; the norm of the gradients before they are clipped, and the memory that the clips are left with."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    told, memory = gradients(run, config, batch)
    told = run.processes.added(told | {"seconds": seconds * run.processes.first}, run.fabric.device)
    limit = math.inf if config.clip_norm is None else config.clip_norm
    norm = run.fabric.clip_gradients(run.step, run.optimizer, max_norm=limit, error_if_nonfinite=False)
    assert norm is not None
    if torch.isfinite(norm):  # one degenerate alignment must not spoil the weights
        if config.clip_value is not None:
            run.fabric.clip_gradients(run.step, run.optimizer, clip_val=config.clip_value)
        run.optimizer.step()
    run.optimizer.zero_grad()
    return told, float(norm), memory


def gradients(run: Run, config: LoopConfig, batch: Any) -> tuple[dict[str, float], Any]:
    """Leave the gradients of a whole batch in the model of every process, whose parts this one takes its share of.

    Returns this process's part of the losses, and the memory of all clips.
    """
    share, weight = run.task.share(batch, run.processes)
    told: dict[str, float] = {}
    memory = None
    for part, last in _and_whether_last(run.task.parts(share)):
        with run.fabric.no_backward_sync(run.step, enabled=not last):
            values, memory = run.step(run.fabric.to_device(part))
            losses = {name: value.mean() * weight for name, value in values.items()}
            losses["total"] = torch.stack([w * losses[name] for name, w in config.weights.items()]).sum()
            run.fabric.backward(losses["total"] * run.processes.count)  # of which processes take the mean
        for name, value in losses.items():
            told[name] = told.get(name, 0.0) + float(value.detach())
    if memory is not None and run.processes.count > 1:
        memory = torch.cat(run.processes.gathered(memory.cpu()))
    return told, memory


def _and_whether_last(parts: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    waiting: list[Any] = []
    for part in parts:
        if waiting:
            yield waiting.pop(), False
        waiting.append(part)
    for part in waiting:
        yield part, True


def _validated(run: Run, progress: dict[str, Any]) -> dict[str, float]:
    """Figures over all of validation; the best model so far is kept as best.pt."""
    run.processes.same_buffers(run.average)
    figures = run.task.validated(run.average, run.data.held_out, run.processes)
    run.fabric.log_dict({f"val/{name}": value for name, value in figures.items()}, progress["step"])
    if run.processes.first and isinstance(board := run.fabric.logger, TensorBoardLogger):
        for name, picture in pictures(run.task, run.average, run.data.held_out).items():
            board.experiment.add_image(name, picture, progress["step"], dataformats="HWC")
    if figures[run.task.best_by] < progress.get("best", math.inf):
        progress["best"] = figures[run.task.best_by]
        if run.processes.first:
            save_checkpoint(run.out / "best.pt", run.task.model_name, run.average, _meta(run, progress, figures))
    return figures


def _meta(run: Run, progress: dict[str, Any], figures: dict[str, float]) -> CheckpointMeta:
    counts = {"train_clips": len(run.data.train), "val_clips": len(run.data.held_out)}
    told = {**counts, **run.data.card, **progress}
    return CheckpointMeta(data=told, seed=run.task.config.seed, command=run.command, figures=figures)


def shards(folders: Sequence[Path], fields: tuple[str, ...] | None = None) -> TrainData:
    """What `evhands prepare` has written into folders; InputError where that is not enough to train on. fields: those
    of a row that are read, None for all."""
    train, held_out = (ShardPool(*(folder / part for folder in folders), fields=fields) for part in ("train", "val"))
    cards = [_data_card(folder) for folder in folders]
    data = TrainData(train, held_out, cards[0] if len(cards) == 1 else {"parts": cards})
    if not (len(data.train) and len(data.held_out)):
        raise InputError(
            f"{', '.join(map(str, folders))} holds {len(data.train)} training and {len(data.held_out)} validation "
            f"clips, wanted some of both. Make them with: evhands prepare {folders[0]}. (Recordings are what the "
            f"recipes {', '.join([*PAPER_RECIPES, *SMALL_STAGE_RECIPES])} are trained on.)"
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


def _save(run: Run, progress: dict[str, Any], lanes: Any) -> None:
    if not run.processes.first:
        return
    state = {
        "model": run.task.model.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "progress": progress,
        "lanes": None if lanes is None else lanes.state(),
    }
    with replacing(run.out / "last.pt") as temporary:
        torch.save(state, temporary)


def _resume(run: Run) -> tuple[dict[str, Any], Any]:
    if not (run.out / "last.pt").exists():
        return {"step": 0, "seconds": 0.0}, None
    state = torch.load(run.out / "last.pt", weights_only=True, map_location="cpu")
    run.task.model.load_state_dict(state["model"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    lanes = state["lanes"]
    return dict(state["progress"]), None if lanes is None else run.task.restored(lanes, run.data.train)


def _check_agreement(run: Run, progress: dict[str, Any]) -> None:
    """InputError where processes see another run folder or other data: they could not keep step."""
    everyone = run.processes.gathered((progress["step"], len(run.data.train), len(run.data.held_out)))

    def check() -> None:
        if len(set(everyone)) > 1:
            raise InputError(
                f"The processes found different things (steps done, items to train on, to validate on): {everyone}. "
                f"Wanted the same for all: let {run.out} and the data lie where every node sees them, and let nothing "
                "be written to the data meanwhile."
            )

    run.processes.first_alone(check)


def _data_card(data: Path) -> dict[str, Any]:
    """The card of the shards and a checksum of those that are there now."""
    card = json.loads((data / "card.json").read_text()) if (data / "card.json").exists() else {}
    shards = {part: checksum(sorted((data / part).glob("shard-*.npy"))) for part in ("train", "val")}
    return {**card, "shards": shards}
