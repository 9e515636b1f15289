"""`evhands prepare`: simulated clips as training shards, made by several processes and resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands import __version__
from evhands.data.finding import FindingConfig
from evhands.data.shards import ShardConfig, write_shard
from evhands.files import replacing
from evhands.sim.presets import TrainShares
from evhands.simulated_rows import ROW_SHARES, VALIDATION_SUBJECTS, RowSeries, finding_clip, make_finding_row, make_row
from evhands.types import InputError

Kind = Literal["poses", "finding"]
Rows = ShardConfig | FindingConfig


def prepare(
    out: Path,
    *,
    clips: int = 10_000,
    val_clips: int = 192,
    shares: TrainShares = ROW_SHARES,
    windows: int | None = None,
    kind: Kind = "poses",
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Simulate clips of hands and write them as the shards that `evhands train` reads.

    Shards that are there already are kept, so the same command goes on where it stopped, and a training may
    read the folder while it grows. The validation clips show subjects that no training clip shows.

    Args:
        out: folder to write; shards go to OUT/train and OUT/val, every setting to OUT/card.json.
        clips: training clips of about 2 s each (a thirtieth of a second a window).
        val_clips: validation clips of the same mixture.
        shares: what the clips show: --shares.free, --shares.holding, --shares.video ...
        windows: windows a clip; 56 when left out, 6 for finding, which looks at single ones.
        kind: poses, for the recipe small; or finding, for detector and recogniser: short clips with one hand or two, or
            none (--shares.empty 0.3), and crops of hands and of what is none.
        seed: clip i is a function of (seed, i) alone.
        workers: processes; one a core.
    """
    config: Rows = ShardConfig() if kind == "poses" else FindingConfig()
    config = replace(config, windows=windows or config.windows)
    if config.windows < (least := ShardConfig.overviews):
        raise InputError(f"Found --windows {windows}. Wanted {least} or more, from which so many pictures are drawn.")
    series = RowSeries(shares, seed)
    jobs = [("val", k) for k in range(_shards(val_clips, config))] + [
        ("train", k) for k in range(_shards(clips, config))
    ]
    out.mkdir(parents=True, exist_ok=True)
    _write_card(out, config, series)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        row = bar.add_task("clips", total=len(jobs) * config.clips_per_shard)
        for _ in _made(jobs, out, config, series, workers):
            bar.advance(row, config.clips_per_shard)
    print(f"Wrote {len(jobs)} shards to {out}. Next: evhands train RUN --data {out}")


def _shards(clips: int, config: Rows) -> int:
    return -(-clips // config.clips_per_shard)


def _write_card(out: Path, config: Rows, series: RowSeries) -> None:
    first = finding_clip(series, 0, config) if isinstance(config, FindingConfig) else series.clip(0, config)
    card = {
        "shares": asdict(series.shares), "first_clip": asdict(first), "shards": asdict(config),
        "seed": series.seed, "validation_subjects": VALIDATION_SUBJECTS, "evhands": __version__,
    }  # fmt: skip
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1))


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    folder: Path
    number: int
    config: Rows
    series: RowSeries


def _made(jobs: list[tuple[str, int]], out: Path, config: Rows, series: RowSeries, workers: int) -> Iterator[Path]:
    splits = {"train": series, "val": series.held_out()}
    todo = [_Job(out / split, number, config, splits[split]) for split, number in jobs]
    if workers == 1:
        yield from map(_shard, todo)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_shard, todo)


def _shard(job: _Job) -> Path:
    import torch

    torch.set_num_threads(1)

    def make(index: int) -> np.ndarray:
        if isinstance(job.config, FindingConfig):
            return make_finding_row(job.series, index, job.config)
        return make_row(job.series, index, job.config)

    return write_shard(job.folder, job.number, make, job.config.clips_per_shard)
