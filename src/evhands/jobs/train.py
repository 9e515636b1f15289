"""`evhands train`: a recipe on prepared shards, on clips simulated meanwhile, or on recordings; stops and goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from evhands.data.shards import ShardConfig
from evhands.models.checkpoint import checkpoint_path, read_checkpoint
from evhands.settings import changed
from evhands.simulated_rows import MemoryRows, RowSeries, StreamedRows, make_row
from evhands.stage_data import StageTrainConfig, builds_on_flow, stage_data
from evhands.training import ALL_RECIPES, TrainData
from evhands.training import train as run
from evhands.types import InputError

VALIDATION_CLIPS, FIRST_CLIPS = 64, 128
_NEXT = {
    "small": " Try it: evhands track RECORDING --out DIR --model MODEL",
    "detector": "",
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
    recipe: Literal[
        "small", "detector", "flow", "supervised", "semi", "small-flow", "small-supervised", "small-semi"
    ] = "small",
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
    threads: int = 1,
) -> None:
    """Train a model: `small` and the detector on clips, the three stages of a network on recordings.

    The recipes small and detector learn from the shards that `evhands prepare` makes (they may still be growing), or
    while simulating; flow, supervised and semi (the paper's network), or small-flow, small-supervised and small-semi,
    one after the other, from folders of recordings of several subjects.

    The same command goes on where it stopped (OUT/last.pt, saved every few minutes). Follow it with
    `tensorboard --logdir OUT` or in OUT/log.csv.

    Args:
        out: folder of the run; the model ends in OUT/model.pt (the best by validation in OUT/best.pt); a `small` is
            what `evhands track --model OUT/model.pt` takes.
        data: folder with the shards of `evhands prepare`; of the stages a folder of recordings, and may be
            given several times.
        simulate: instead of --data, processes that simulate fresh clips while the training runs, without any file.
        recipe: what to train.
        start: begin with the weights of a model that ships with evhands (small) or of a checkpoint, instead of random
            ones; the stages supervised and semi need the one of the stage before.
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
        device: cpu, cuda or auto.
        threads: threads of torch on the CPU.
    """
    torch.set_num_threads(threads)
    given: dict[str, Any] = {
        "labels": labels, "hand": hand, "epochs": epochs, "hours": hours, "steps": steps, "images": images,
        "batch": batch, "learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None} | (settings or {})
    config = changed(ALL_RECIPES[recipe][0](), changes)
    _check(config)
    first = None if start is None else read_checkpoint(checkpoint_path(start), wanted=_model_of(recipe)).model
    command = "evhands " + shlex.join(sys.argv[1:])
    if isinstance(config, StageTrainConfig):
        source = _recordings(config, data, simulate, cache or out / "cache", first)
        path = run(config, recipe, source, out, start=first, device=device, command=command)
    elif (data is None) == (simulate <= 0) or (data is not None and len(data) != 1):
        raise InputError("Wanted either --data FOLDER (of `evhands prepare`) or --simulate PROCESSES, one of the two.")
    elif data is None:
        path = _while_simulating(config, recipe, simulate, out, first, device, command)
    else:
        path = run(config, recipe, data[0], out, start=first, device=device, command=command)
    print(f"Wrote {path}, and beside it the best by validation, best.pt.{_NEXT[recipe]}".replace("MODEL", str(path)))


def _model_of(recipe: str) -> str:
    return ALL_RECIPES[recipe][1].model_name


def _check(config: Any) -> None:
    for name in ("hours", "steps", "images", "batch", "micro_batch", "epochs", "validate_every", "learning_rate"):
        if (value := getattr(config, name, None)) is not None and not value > 0:
            raise InputError(f"{name} = {value}. Wanted more than zero; correct it, or leave it out.")


def _recordings(
    config: StageTrainConfig, folders: Sequence[Path] | None, simulate: int, cache: Path, start: nn.Module | None
) -> TrainData:
    if not folders or simulate > 0:
        raise InputError(
            f"The stage {config.stage} learns from recordings. Wanted --data FOLDER of them, once or several times, "
            "and no --simulate; `evhands simulate FOLDER --preset evrealhands` makes some."
        )
    for folder in folders:
        if any((folder / "train").glob("shard-*.npy")):
            raise InputError(
                f"{folder} holds shards of `evhands prepare`, which the recipes small and detector learn from. Wanted "
                f"recordings for the stage {config.stage}; choose another folder or recipe."
            )
    if start is None and builds_on_flow(config):
        raise InputError(
            f"The flow network is frozen in the stage {config.stage}, and without --from it would be a random one. "
            "Wanted --from CHECKPOINT of the stage before: train flow first, then supervised, then semi."
        )
    train, held_out, card = stage_data(folders, cache, config, print)
    print(f"{len(train)} items to train on, {len(held_out)} to validate on.")
    return TrainData(train, held_out, card)


def _while_simulating(
    config: Any, recipe: str, workers: int, out: Path, start: nn.Module | None, device: str, command: str
) -> Path:
    """Train on rows that other processes make meanwhile; validate on clips simulated first."""
    series, shard = RowSeries(seed=config.seed), ShardConfig()
    print(f"Simulating {VALIDATION_CLIPS} validation clips and the first {FIRST_CLIPS} for training ...")
    with StreamedRows(series, workers=workers) as stream:
        rows = [make_row(series.held_out(), i, shard) for i in range(VALIDATION_CLIPS)]
        stream.wait_for(FIRST_CLIPS)
        data = TrainData(stream, MemoryRows(np.stack(rows)), {"shares": asdict(series.shares), "streamed": True})
        return run(config, recipe, data, out, start=start, device=device, command=command)
