"""`evhands prepare evrealhands SRC DST`: sequences of the EvRealHands layout as recordings, by several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evhands.data.evrealhands import Prepared, prepare_sequence
from evhands.evrealhands_layout import read_index, sequence_folders
from evhands.evrealhands_layout.index import INDEX
from evhands.hand.model import HandModel, load_hand
from evhands.types import InputError


def prepare_evrealhands(
    source: Path,
    target: Path,
    *,
    hand: Path | None = None,
    workers: int = 1,
    keep_going: bool = False,
    salvage: bool = False,
) -> int:
    """Make a recording (.h5) of every sequence of an EvRealHands folder.

    Each is read and checked whole before anything is written: every key that is missing, mistyped or of the wrong
    length is named. Recordings hold metres in the event camera's frame, left hands as left hands, int64 microseconds on
    the clock of the events, and the RGB frames; events that leave the undistorted image are left out. A sequence whose
    recording is there already is kept, so the same command goes on where it stopped. The exit code is 1 where sequences
    were skipped.

    Args:
        source: folder with id_seq_all.json and sequence folders, or one sequence folder.
        target: folder to write; sequence 12 becomes TARGET/12.h5.
        hand: MANO_RIGHT.pkl, for poses of MANO (not needed for simulated hands).
        workers: processes; one a core.
        keep_going: skip sequences that cannot be used, and list them at the end; otherwise the first one stops all.
        salvage: take what is sound of recordings of events that are cut off or damaged.
    """
    if workers < 1:
        raise InputError(f"Found --workers {workers}. Wanted 1 or more.")
    folders, wrong = _sequences(source)
    if wrong and not keep_going:
        raise InputError(next(iter(wrong.values())))
    if hand is not None:
        _hand(hand)  # what is wrong with it is said once, and before anything is done
    target.mkdir(parents=True, exist_ok=True)
    tasks = [_Task(folder, target / f"{folder.name}.h5", hand, salvage) for folder in folders]
    done: list[Prepared] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        row = bar.add_task("sequences", total=len(tasks))
        for task, outcome in _outcomes(tasks, workers):
            bar.advance(row)
            if isinstance(outcome, Prepared):
                done.append(outcome)
                for text in outcome.warnings:
                    bar.console.print(f"evhands: warning: {text}", markup=False, highlight=False, soft_wrap=True)
            elif keep_going:
                wrong[task.folder.name] = outcome
            else:
                raise InputError(f"{outcome} (Use --keep-going to skip such sequences.)")
    _report(done, wrong, target)
    return 1 if wrong else 0


@dataclass(frozen=True)
class _Task:
    """One sequence to prepare."""

    folder: Path
    target: Path
    hand: Path | None
    salvage: bool


def _sequences(source: Path) -> tuple[list[Path], dict[str, str]]:
    """The sequence folders, and what is wrong with those that the index names and that are not there."""
    folders = sequence_folders(source)
    wrong = {}
    if (source / INDEX).exists():
        try:
            named = read_index(source).sequences()
        except InputError as error:
            wrong[INDEX], named = str(error), ()
        for name in named:
            if name not in {folder.name for folder in folders}:
                wrong[name] = f"{source / INDEX} names the sequence {name!r}, of which there is no folder. Copy it."
    if not folders:
        raise InputError(
            f"{source} holds no sequence of the EvRealHands layout. Wanted folders with an annot.json and an .aedat4 "
            "file in it; check the path."
        )
    return folders, wrong


def _outcomes(tasks: list[_Task], workers: int) -> Iterator[tuple[_Task, Prepared | str]]:
    if workers == 1 or len(tasks) < 2:
        yield from zip(tasks, map(_outcome, tasks))
        return
    pool = ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"))
    try:
        yield from zip(tasks, pool.map(_outcome, tasks))
    except BrokenProcessPool as error:
        raise InputError(
            "A process was ended from outside, perhaps for want of memory. Finished recordings stay: run the command "
            "again, with fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # those that run finish, so that none leaves half a file


def _outcome(task: _Task) -> Prepared | str:
    """The prepared sequence, or what is wrong with it."""
    import torch

    torch.set_num_threads(1)
    try:
        hand = None if task.hand is None else _hand(task.hand)
        return prepare_sequence(task.folder, task.target, hand=hand, salvage=task.salvage)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or task.folder}: {error.strerror or error}. Check the path and its permissions."


@lru_cache(maxsize=1)
def _hand(path: Path) -> HandModel:
    return load_hand(path)


def _report(done: list[Prepared], wrong: dict[str, str], target: Path) -> None:
    kept = sum(prepared.kept for prepared in done)
    events, left_out = sum(p.events for p in done), sum(p.left_out for p in done)
    print(
        f"{target} holds {len(done)} recordings ({kept} were there already): {events} events, "
        f"{sum(p.labels for p in done)} labels, {sum(p.frames for p in done)} frames. {left_out} events lie outside "
        f"the undistorted image and are left out."
    )
    if wrong:
        print(f"{len(wrong)} skipped:", file=sys.stderr)
    for name, text in wrong.items():
        print(f"  {name}: {text}", file=sys.stderr)
