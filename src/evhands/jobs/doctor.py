"""`evhands doctor DATA`: look through recordings or an EvRealHands folder, and say what is not in order."""

from __future__ import annotations

import json as json_format
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from evhands import __version__
from evhands.examination import KINDS, Examined, Finding, contact_sheet, examine, examine_index, sources_of
from evhands.files import replacing
from evhands.hand.model import HandModel, load_hand
from evhands.types import InputError

_SHOWN = 200


def doctor(
    data: Path,
    *,
    hand: Path | None = None,
    sheet: Path | None = None,
    json: Path | None = None,
    workers: int = 1,
) -> int:
    """Look through a data set and say what is not in order.

    DATA is a folder of recordings (.h5) or of EvRealHands sequences, or one of these. Looked at are: every key of the
    annotations; counts, pauses, cut-off files and times of the events; labels and images that are missing; lengths,
    axes, order of fingers and side of the hand; joints against the hand mesh; boxes and camera matrices; and whether
    the mesh moves when and where the events are, which tells how far the two clocks are apart. Nothing is changed. The
    exit code is 1 when something is wrong.

    Args:
        data: folder of recordings or of sequences, one recording, or one sequence folder.
        hand: MANO_RIGHT.pkl, for poses of MANO (not needed for simulated hands).
        sheet: PNG file to write, with the truth over the events of each recording.
        json: file to write all figures and findings to.
        workers: processes; one a core.
    """
    if workers < 1:
        raise InputError(f"Found --workers {workers}. Wanted 1 or more.")
    if not data.exists():
        raise InputError(f"{data} is not there. Wanted a folder of recordings, or one; check the path.")
    if hand is not None:
        _hand(hand)
    sources = sources_of(data)
    examined = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("looking", total=len(sources))
        for one in _examined([(source, hand) for source in sources], workers):
            examined.append(one)
            bar.advance(row)
    of_index = examine_index(data, examined) if data.is_dir() else []
    _print(examined, of_index)
    if json is not None:
        with replacing(json) as temporary:
            temporary.write_text(json_format.dumps(_as_json(data, examined, of_index), indent=1))
    if sheet is not None:
        _write_sheet(sheet, examined)
    return 1 if of_index or any(one.findings for one in examined) else 0


def _examined(tasks: list[tuple[Path, Path | None]], workers: int) -> Iterator[Examined]:
    if workers == 1 or len(tasks) < 2:
        yield from map(_examine, tasks)
        return
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_examine, tasks)


def _examine(task: tuple[Path, Path | None]) -> Examined:
    import torch

    torch.set_num_threads(1)
    source, hand = task
    return examine(source, hand=None if hand is None else _hand(hand))


@lru_cache(maxsize=1)
def _hand(path: Path) -> HandModel:
    return load_hand(path)


def _write_sheet(path: Path, examined: list[Examined]) -> None:
    tiles = [one.tile for one in examined if one.tile is not None]
    if not tiles:
        print(f"No picture for {path}: nothing could be read so far that it could be shown.", file=sys.stderr)
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        Image.fromarray(contact_sheet(tiles)).save(file, "png")
    print(f"Contact sheet: {path}")


# --- telling --------------------------------------------------------------------------------------------------------


def _print(examined: list[Examined], of_index: list[Finding]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(_table(examined))
    wrong = [(one.name, finding) for one in examined for finding in one.findings]
    wrong += [("the data set", finding) for finding in of_index]
    for name, finding in wrong[:_SHOWN]:
        text = " ".join(finding.text.split())
        console.print(f"{name}: {finding.kind}: {text}", markup=False, highlight=False, soft_wrap=True)
    if len(wrong) > _SHOWN:
        console.print(f"... and {len(wrong) - _SHOWN} more (--json FILE has all).")
    for text, count in Counter(text for one in examined for text in one.not_examined).items():
        console.print(f"not looked at in {count}: {text}", markup=False, highlight=False, soft_wrap=True)
    several = "" if len(wrong) == 1 else "s"
    faulty = len({name for name, _ in wrong})
    told = f"{len(wrong)} finding{several} in {faulty} of {len(examined)}: not in order."
    sound = told if wrong else f"All {len(examined)} in order."
    console.print(sound, style="bold")


def _table(examined: list[Examined]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name in ("recording", "hand", "subject", "kind", "sensor"):
        table.add_column(name, no_wrap=name == "recording")
    for name in ("events", "s", "Mev/s", "gaps", "labels", "missing", "frames", "clock ms", "mesh mm", "findings"):
        table.add_column(name, justify="right")
    for one in examined:
        offset = "-" if one.offset_ms is None else f"{one.offset_ms:+.1f} ±{one.spread_ms:.1f}"
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in one.findings))
        table.add_row(
            one.name, _told(one.side), _told(one.subject), _told(one.bucket),
            "-" if one.size is None else f"{one.size[0]}x{one.size[1]}", _told(one.events), _told(one.seconds, ".1f"),
            "-" if one.rate_hz is None else f"{one.rate_hz / 1e6:.2f}", _told(one.gaps), _told(one.labels),
            _told(one.missing_labels), _told(one.frames), offset, _told(one.residual_mm, ".1f"), kinds or "none",
            style="red" if one.findings else None,
        )  # fmt: skip
    return table


def _told(value: Any, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _as_json(data: Path, examined: list[Examined], of_index: list[Finding]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    return {
        "evhands": __version__,
        "data": str(data),
        "in_order": not of_index and not any(one.findings for one in examined),
        "kinds": KINDS,
        "data_set": [{"kind": finding.kind, "text": finding.text} for finding in of_index],
        "recordings": [plain(one.plain()) for one in examined],
    }
