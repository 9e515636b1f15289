"""`evhands prepare`: simulated clips as training shards, made by several processes and resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands import __version__
from evhands.data.shards import LabelledClip, ShardConfig, write_shard
from evhands.files import replacing
from evhands.sim.presets import TrainShares
from evhands.simulated_rows import ROW_SHARES, VALIDATION_SUBJECTS, RowSeries, make_clip
from evhands.types import InputError


def prepare(
    out: Path,
    *,
    clips: int = 10_000,
    val_clips: int = 192,
    shares: TrainShares = ROW_SHARES,
    windows: int = ShardConfig.windows,
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
        windows: windows a clip. The detector, which looks at single ones, learns more from many short clips (6) than
            from few long ones, and from some without a hand (--shares.empty 0.15).
        seed: clip i is a function of (seed, i) alone.
        workers: processes; one a core.
    """
    if windows < (least := ShardConfig.overviews):
        raise InputError(f"Found --windows {windows}. Wanted {least} or more: the detector learns from so many a clip.")
    config, series = ShardConfig(windows=windows), RowSeries(shares, seed)
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


def _shards(clips: int, config: ShardConfig) -> int:
    return -(-clips // config.clips_per_shard)


def _write_card(out: Path, config: ShardConfig, series: RowSeries) -> None:
    card = {
        "shares": asdict(series.shares), "first_clip": asdict(series.clip(0, config)), "shards": asdict(config),
        "seed": series.seed, "validation_subjects": VALIDATION_SUBJECTS, "evhands": __version__,
    }  # fmt: skip
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1))


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    folder: Path
    number: int
    config: ShardConfig
    series: RowSeries


def _made(
    jobs: list[tuple[str, int]], out: Path, config: ShardConfig, series: RowSeries, workers: int
) -> Iterator[Path]:
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

    def make(index: int) -> LabelledClip:
        return make_clip(job.series, index, job.config)

    return write_shard(job.folder, job.number, make, job.config, job.series.seed)
