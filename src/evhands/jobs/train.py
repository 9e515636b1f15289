"""`evhands train`: a recipe on prepared shards, on clips simulated meanwhile, or on recordings; stops and goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from evhands.data.shards import ShardConfig
from evhands.models.checkpoint import checkpoint_path, read_checkpoint
from evhands.models.paper import PaperConfig, PaperEstimator
from evhands.models.published import load_published
from evhands.models.recogniser import RecogniserConfig
from evhands.processes import DeviceConfig, Processes
from evhands.published_config import PublishedConfig, read_published
from evhands.settings import changed
from evhands.simulated_rows import MemoryRows, RowSeries, StreamedRows, make_row
from evhands.stage_data import StageTrainConfig, builds_on_flow, stage_data
from evhands.training import ALL_RECIPES, TrainData, launched, shards
from evhands.training import train as run
from evhands.types import InputError

RecipeName = Literal[
    "small", "detector", "recogniser", "flow", "supervised", "semi", "small-flow", "small-supervised", "small-semi"
]
VALIDATION_CLIPS, FIRST_CLIPS = 64, 128
_NEXT = {
    "small": " Try it: evhands track RECORDING --out DIR --model MODEL",
    "detector": "",
    "recogniser": "",
    "flow": " Next: evhands train RUN --recipe supervised --data DIR --from MODEL",
    "supervised": " Next: evhands train RUN --recipe semi --data DIR --from MODEL",
    "semi": "",
    "small-flow": " Next: evhands train RUN --recipe small-supervised --data DIR --from MODEL",
    "small-supervised": " Next: evhands train RUN --recipe small-semi --data DIR --from MODEL",
    "small-semi": " Try it: evhands track RECORDING --out DIR --model MODEL",
}


def train(
    out: Path,
    *,
    data: list[Path] | None = None,
    simulate: int = 0,
    recipe: RecipeName | None = None,
    published: list[Path] | None = None,
    start: str | None = None,
    labels: float | None = None,
    hand: str | None = None,
    cache: Path | None = None,
    epochs: int | None = None,
    hours: float | None = None,
    steps: int | None = None,
    images: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    strategy: Literal["auto", "ddp"] = "auto",
    threads: int = 1,
) -> None:
    """Train a model: `small` and the detector on clips, the three stages of a network on recordings.

    The recipes small, detector and recogniser learn from the shards that `evhands prepare` makes (they may still be
    growing), or while simulating; flow, supervised and semi (the paper's network), or small-flow, small-supervised
    and small-semi, one after the other, from folders of recordings of several subjects.

    The same command goes on where it stopped (OUT/last.pt, saved every few minutes). Follow it with
    `tensorboard --logdir OUT` or in OUT/log.csv.

    Args:
        out: folder of the run; the model ends in OUT/model.pt (the best by validation in OUT/best.pt); a `small` is
            what `evhands track --model OUT/model.pt` takes.
        data: folder with the shards of `evhands prepare`; of the stages a folder of recordings. May be given
            several times.
        simulate: instead of --data, processes that simulate fresh clips while the training runs, without any file.
        recipe: what to train (small when left out).
        published: YAML files of the published code, a later one over an earlier one, instead of a recipe; whatever else
            is given goes over them.
        start: begin with the weights of a model that ships with evhands (small) or of a checkpoint, instead of random
            ones; the stages supervised and semi need the one of the stage before. May be a published .ckpt.
        labels: share of the annotations that the stages may see.
        hand: hand model of the labels of the stages, open or the path of MANO_RIGHT.pkl.
        cache: where recordings are kept decoded; OUT/cache when left out.
        epochs: of the stages.
        hours: stop after so many hours of training in all (the recipe's own when left out).
        steps: ... or after so many steps.
        images: images a step, of small and the detector.
        batch: items a step, of the stages.
        learning_rate: at its peak.
        settings: any other field of the recipe, as --settings.micro_batch 2 or --settings.split.validation '["7"]'.
        seed: of the first weights and of the order of the data.
        device: cpu, cuda, mps or auto.
        devices: processes a node, each with a GPU of its own; a step is the same one whatever their number. 1 when
            left out, or as many as torchrun or SLURM started.
        nodes: ... and how many nodes; start the command on each with torchrun or srun.
        strategy: how the processes work together; ddp is all there is.
        threads: threads of torch on the CPU, of each process.
    """
    given: dict[str, Any] = {
        "labels": labels, "hand": hand, "epochs": epochs, "hours": hours, "steps": steps, "images": images,
        "batch": batch, "learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None} | (settings or {})
    told = None if published is None else _published(published, recipe)
    if told is not None:
        recipe, changes = told.recipe, _of_published(told, hand) | changes  # type: ignore[assignment]
        data = data or (None if told.data is None else [told.data])
        start = start or (None if told.start is None else str(told.start))
        devices = devices or told.devices
    recipe = recipe or "small"
    config = changed(ALL_RECIPES[recipe][0](), changes)
    _check(config)
    first = None if start is None else _read_start(start, recipe)
    command = "evhands " + shlex.join(sys.argv[1:])
    _check_source(config, data, simulate, first)
    fabric = launched(out, DeviceConfig(accelerator=device, devices=devices, nodes=nodes, strategy=strategy))
    torch.set_num_threads(threads)  # a launcher has set its own
    processes = Processes.of(fabric)
    tell = print if processes.first else _silent
    for line in () if told is None else _without_effect(told):
        tell(line)
    if isinstance(config, StageTrainConfig):
        folders, place = data or [], cache or out / "cache"
        source = processes.first_then_others(lambda: _recordings(config, folders, place, tell))
        path = run(config, recipe, source, out, start=first, command=command, fabric=fabric)
    elif not data:
        processes.first_alone(lambda: _check_alone(processes))
        path = _while_simulating(config, recipe, simulate, out, first, fabric, command)
    else:
        folders, fields = data, ALL_RECIPES[recipe][1].fields
        clips = processes.first_then_others(lambda: shards(folders, fields))
        path = run(config, recipe, clips, out, start=first, command=command, fabric=fabric)
    tell(f"Wrote {path}, and beside it the best by validation, best.pt.{_NEXT[recipe]}".replace("MODEL", str(path)))


def _silent(*_: Any) -> None: ...


def _published(paths: Sequence[Path], recipe: str | None) -> PublishedConfig:
    told = read_published(paths)
    if told.mode != "train":
        raise InputError(f"exper.mode = {told.mode!r}. Wanted train; what evaluates is another command.")
    if recipe not in (None, told.recipe):
        raise InputError(f"The published files are of the stage {told.recipe!r}, --recipe is {recipe!r}. Wanted one.")
    return told


def _of_published(told: PublishedConfig, hand: str | None) -> dict[str, Any]:
    """Settings of published files. The path of the hand model is checked where no other was given."""
    if told.hand is None or hand is not None:
        return told.settings
    if not told.hand.is_file():
        raise InputError(
            f"data.smplx_path: found no MANO_RIGHT.pkl at {told.hand}. Wanted its path or its folder; correct it, or "
            "give --hand."
        )
    return told.settings | {"hand": str(told.hand)}


def _without_effect(told: PublishedConfig) -> Iterator[str]:
    """Lines that say which published keys change nothing here, by the reason."""
    for reason in dict.fromkeys(told.without_effect.values()):
        keys = [key for key, why in told.without_effect.items() if why == reason]
        yield f"Without effect: {', '.join(keys)} ({reason})."


def _read_start(start: str, recipe: str) -> nn.Module:
    """The model to begin with: ours, or a published checkpoint."""
    path = checkpoint_path(start)
    if recipe == "recogniser":  # its encoder may be that of small
        begun = read_checkpoint(path)
        return begun.model if begun.name == "small" else read_checkpoint(path, wanted="recogniser").model
    if path.suffix != ".ckpt" or _model_of(recipe) != "paper":
        return read_checkpoint(path, wanted=_model_of(recipe)).model
    found = load_published(path)
    if found.estimator is not None:
        return found.estimator
    if found.hand is None:
        raise InputError(f"{path} holds a FlowNet alone. Wanted a checkpoint of a training; choose another.")
    model = PaperEstimator(PaperConfig(hand_model="mano")).use_hand(found.hand)
    assert model.flow is not None
    model.flow.load_state_dict(found.flow.state_dict())
    return model


def _model_of(recipe: str) -> str:
    return ALL_RECIPES[recipe][1].model_name


def _check(config: Any) -> None:
    for name in ("hours", "steps", "images", "batch", "micro_batch", "epochs", "validate_every", "learning_rate"):
        if (value := getattr(config, name, None)) is not None and not value > 0:
            raise InputError(f"{name} = {value}. Wanted more than zero; correct it, or leave it out.")


def _check_source(config: Any, folders: Sequence[Path] | None, simulate: int, start: nn.Module | None) -> None:
    """InputError where a recipe cannot learn from what was given; nothing is read yet."""
    if not isinstance(config, StageTrainConfig):
        if (not folders) == (simulate <= 0):
            raise InputError(
                "Wanted either --data FOLDER (of `evhands prepare`) or --simulate PROCESSES, one of the two."
            )
        if simulate > 0 and isinstance(config.model, RecogniserConfig):
            raise InputError(
                "The recogniser learns from crops with and without hands, which --simulate does not make. Wanted "
                "--data FOLDER of `evhands prepare FOLDER --kind finding`."
            )
        return
    if not folders or simulate > 0:
        raise InputError(
            f"The stage {config.stage} learns from recordings. Wanted --data FOLDER of them, once or several times, "
            "and no --simulate; `evhands simulate FOLDER --preset evrealhands` makes some."
        )
    for folder in folders:
        if any((folder / "train").glob("shard-*.npy")):
            raise InputError(
                f"{folder} holds shards of `evhands prepare`, which small, detector and recogniser learn from. Wanted "
                f"recordings for the stage {config.stage}; choose another folder or recipe."
            )
    if start is None and builds_on_flow(config):
        raise InputError(
            f"The flow network is frozen in the stage {config.stage}, and without --from it would be a random one. "
            "Wanted --from CHECKPOINT of the stage before: train flow first, then supervised, then semi."
        )


def _check_alone(processes: Processes) -> None:
    if processes.count > 1:
        raise InputError(
            f"--simulate in {processes.count} processes: each would see other clips. Wanted the same for all; make "
            "them first with `evhands prepare`, or take one process."
        )


def _recordings(config: StageTrainConfig, folders: Sequence[Path], cache: Path, tell: Callable[..., None]) -> TrainData:
    train, held_out, card = stage_data(folders, cache, config, tell)
    tell(f"{len(train)} items to train on, {len(held_out)} to validate on.")
    return TrainData(train, held_out, card)


def _while_simulating(
    config: Any, recipe: str, workers: int, out: Path, start: nn.Module | None, fabric: Fabric, command: str
) -> Path:
    """Train on rows that other processes make meanwhile; validate on clips simulated first."""
    series, shard = RowSeries(seed=config.seed), ShardConfig()
    print(f"Simulating {VALIDATION_CLIPS} validation clips and the first {FIRST_CLIPS} for training ...")
    with StreamedRows(series, workers=workers) as stream:
        rows = [make_row(series.held_out(), i, shard) for i in range(VALIDATION_CLIPS)]
        stream.wait_for(FIRST_CLIPS)
        data = TrainData(stream, MemoryRows(np.stack(rows)), {"shares": asdict(series.shares), "streamed": True})
        return run(config, recipe, data, out, start=start, command=command, fabric=fabric)
