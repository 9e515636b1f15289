"""`evhands evaluate`: predict a data set to a file, then score the file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands.data.cache import sources_in
from evhands.evaluation import Crop, Method, PredictConfig, of_subjects, open_method, predict_group
from evhands.hand.model import HandModel, load_hand
from evhands.models.checkpoint import code_version
from evhands.predictions import Predictions, Protocol, joined, load_predictions, save_predictions
from evhands.published_config import PublishedConfig, read_published
from evhands.run_folder import checksum, environment
from evhands.saved import PUBLISHED_LOG
from evhands.score_files import Intervals, Saved, score_to
from evhands.types import InputError

PREDICTIONS = "predictions.npz"
_TOGETHER = 8
"""Recordings that run in step where the crop is known: a batch of the network."""
_TOGETHER_BYTES = 400_000_000
"""Of their files; events in memory take three to six times as much."""


def evaluate(
    checkpoint: str,
    *,
    data: list[Path] | None = None,
    out: Path,
    protocol: Protocol | None = None,
    crop: Crop | None = None,
    subjects: list[str] | None = None,
    mano: Path | None = None,
    constant: Path | None = None,
    intervals: Intervals = "recording",
    smooth: bool = False,
    both_ways: bool = False,
    unlabelled: bool = False,
    save: list[Saved] | None = None,
    report: bool = True,
    workers: int = 1,
    device: str = "cpu",
    cache: Path | None = None,
    published: list[Path] | None = None,
) -> str:
    """Predict the hands of a data set, and score them.

    Writes to the folder OUT: predictions.npz (every row, for `evhands score`), results.json (all figures, with hashes
    of data, weights and code) and report.html (one page that needs no network). Recordings that are predicted are kept
    in OUT/parts until all are, so the same command goes on where it stopped.

    Args:
        checkpoint: a model that ships with evhands (small), a checkpoint of ours, the folder of a training run, or a
            published checkpoint (.ckpt).
        data: recordings (.h5), EvRealHands sequence folders, or folders of either; several times if need be. Left out,
            the folder that the published files name.
        out: folder to write to.
        protocol: evhandpose is that of the published figures (true crop, 1.2 s of history); evhands scores every
            labelled time from 100 ms on, and finds the crop in the events. Left out, evhands, with published files
            evhandpose.
        crop: truth or detected; left out, truth for evhandpose and detected for evhands.
        subjects: whose recordings; left out, the test subjects 1 and 3 where the data shows them, else all.
        mano: MANO_RIGHT.pkl, where the truth or the checkpoint is of MANO and the checkpoint does not carry it.
        constant: .npz of another constant pose (rooted, shape), which hands that are not found score.
        intervals: recording or subject: what the bootstrap of the confidence intervals draws.
        smooth: filter the tracked poses as `evhands track` does (crop detected).
        both_ways: track in both directions of time, as `evhands track --both-ways` does (crop detected).
        unlabelled: under evhandpose also predict its clock's ticks without a label, to be saved, not scored.
        save: all, or any of joints, mesh, projected, glb, joints2d, events, flow, iwe; several times if need be.
        report: write report.html.
        workers: processes, each with recordings of its own.
        device: torch device of the network, such as cpu or cuda.
        cache: where recordings of the protocol evhandpose are kept decoded; OUT/cache when left out.
        published: YAML files of the published code, such as pretrain.yml eval.yml: they say which data, MANO file,
            subjects and files to save where no other option does.
    """
    told = None if published is None else read_published(published)
    if told is not None:
        protocol, mano = protocol or "evhandpose", mano or (told.hand if told.hand and told.hand.is_file() else None)
        data = data or ([told.data] if told.data is not None else None)
        subjects, save = subjects or _subjects(told), save or _saved(told)
    if not data:
        raise InputError("Found no data to evaluate. Wanted recordings or folders of them: give --data.")
    protocol = protocol or "evhands"
    config = PredictConfig(
        protocol=protocol,
        crop=crop or ("truth" if protocol == "evhandpose" else "detected"),
        smooth=smooth,
        both_ways=both_ways,
        unlabelled=unlabelled,
    )
    if both_ways and config.crop == "truth":
        raise InputError(
            "Found --both-ways with the true crop. Wanted --crop detected with it, since it is the track that goes "
            "both ways; choose one of the two."
        )
    method = open_method(checkpoint, mano, device)
    hand = load_hand(mano) if mano is not None else method.hand if method.hand.name == "mano" else None
    sources, chosen = of_subjects([s for folder in data for s in sources_in(folder)], hand, subjects)
    meta = _meta(method, config, sources, chosen)
    order = _Order(checkpoint, mano, device, cache or out / "cache", config, meta, workers)
    predictions = _predicted(order, method, hand, sources, out)
    save_predictions(predictions, out / PREDICTIONS)
    shutil.rmtree(out / "parts", ignore_errors=True)
    return score_to(
        predictions, out, constant=constant, intervals=intervals, report=report, save=save or (), sources=sources,
        hand=method.hand, reading=hand,
    )  # fmt: skip


def _subjects(told: PublishedConfig) -> list[str] | None:
    """`data.eval_subject`, where the files say it."""
    named = told.values.get("data.eval_subject")
    return [str(subject) for subject in named] if named else None


def _saved(told: PublishedConfig) -> list[Saved]:
    """What `log.save_result` and its like ask for."""
    kinds = [kind for name, of in PUBLISHED_LOG.items() if told.log.get(name) for kind in of]
    return cast(list[Saved], list(dict.fromkeys(kinds)))


def _meta(method: Method, config: PredictConfig, sources: Sequence[Path], subjects: Sequence[str]) -> dict[str, Any]:
    return {
        "method": method.name,
        "protocol": config.protocol,
        "crop": config.crop,
        "smooth": config.smooth if config.crop == "detected" else False,
        "both_ways": config.both_ways,
        "hand_model": method.hand.name,
        "subjects": list(subjects),
        "data": checksum([file for source in sources for file in _files(source)]),
        "weights": method.weights(),
        "code": code_version(),
        "environment": environment(),
    }


def _files(source: Path) -> list[Path]:
    """What the checksum of a recording is of."""
    if source.is_file():
        return [source]
    return sorted([*source.glob("*.json"), *source.glob("*.aedat4")])


@dataclass(frozen=True)
class _Order:
    """All that a process needs to predict a group of recordings."""

    checkpoint: str
    mano: Path | None
    device: str
    cache: Path
    config: PredictConfig
    meta: dict[str, Any]
    workers: int


def _predicted(order: _Order, method: Method, hand: HandModel | None, sources: list[Path], out: Path) -> Predictions:
    """All recordings' predictions in the order of `sources`, those of an earlier run from OUT/parts."""
    parts = {source: out / "parts" / f"{_key(order, source)}.npz" for source in sources}
    todo = [source for source in sources if not parts[source].exists()]
    together = 1 if order.config.crop == "detected" else max(1, min(_TOGETHER, -(-len(todo) // order.workers)))
    groups = _groups(todo, together)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("recordings", total=len(sources), completed=len(sources) - len(todo))
        for group, found in _done(order, method, hand, groups):
            for source, predictions in zip(group, found):
                save_predictions(predictions, parts[source])
                bar.advance(row)
    return joined([load_predictions(parts[source]) for source in sources])


def _groups(sources: list[Path], together: int) -> list[list[Path]]:
    """Neighbours of at most so many, whose files are small enough that their events lie in memory side by side."""
    groups: list[list[Path]] = []
    room = 0
    for source in sources:
        size = sum(file.stat().st_size for file in _files(source))
        if not groups or len(groups[-1]) == together or size > room:
            groups.append([])
            room = _TOGETHER_BYTES
        groups[-1].append(source)
        room -= size
    return groups


def _key(order: _Order, source: Path) -> str:
    """A name for the predictions of a recording: another method, setting or recording has another."""
    about = {name: order.meta[name] for name in ("weights", "code", "protocol", "crop", "smooth", "hand_model")}
    told = json.dumps([about, asdict(order.config), str(source.resolve()), checksum(_files(source))], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _done(
    order: _Order, method: Method, hand: HandModel | None, groups: list[list[Path]]
) -> Iterator[tuple[list[Path], list[Predictions]]]:
    if order.workers <= 1 or len(groups) < 2:
        for group in groups:
            yield group, predict_group(method, group, order.cache, hand, order.config, order.meta)
        return
    with multiprocessing.get_context("spawn").Pool(order.workers) as pool:
        yield from pool.imap_unordered(_work, [(order, group) for group in groups])


def _work(task: tuple[_Order, list[Path]]) -> tuple[list[Path], list[Predictions]]:
    order, group = task
    torch.set_num_threads(1)
    method = open_method(order.checkpoint, order.mano, order.device)
    hand = load_hand(order.mano) if order.mano is not None else method.hand if method.hand.name == "mano" else None
    return group, predict_group(method, group, order.cache, hand, order.config, order.meta)
