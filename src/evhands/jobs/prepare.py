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
from evhands.simulated_rows import (
    FINGERS,
    VALIDATION_SEED,
    VALIDATION_SUBJECTS,
    VIDEO,
    WIDE,
    Kinds,
    clip_kinds,
    held_out_kinds,
    make_clip,
)
from evhands.types import InputError


def prepare(
    out: Path,
    *,
    clips: int = 20_000,
    val_clips: int = 512,
    wide: float = WIDE,
    fingers: float = FINGERS,
    video: float = VIDEO,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Simulate clips of hands and write them as the shards that `evhands train` reads.

    Shards that are there already are kept, so the same command goes on where it stopped, and a training may
    read the folder while it grows. The validation clips show subjects that no training clip shows.

    Args:
        out: folder to write; shards go to OUT/train and OUT/val, every setting to OUT/card.json.
        clips: training clips of 0.54 s each.
        val_clips: validation clips, all in the frontal range.
        wide: share of the training clips with orientations far from frontal.
        fingers: share of the training clips in which little but the fingers moves.
        video: share of the training clips whose events come from frames, as `evhands convert` makes them of a video.
        seed: clip i is a function of (seed, i) alone.
        workers: processes; one a core.
    """
    config = ShardConfig()
    if min(wide, fingers, video) < 0 or wide + fingers > 1 or video > 1:
        raise InputError(
            f"Found the shares --wide {wide}, --fingers {fingers} and --video {video}: wanted all >= 0, the first two "
            "together <= 1, and the last <= 1."
        )
    kinds = clip_kinds(wide, fingers, video)
    jobs = [("val", k) for k in range(_shards(val_clips, config))] + [
        ("train", k) for k in range(_shards(clips, config))
    ]
    out.mkdir(parents=True, exist_ok=True)
    _write_card(out, config, seed, kinds)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        row = bar.add_task("clips", total=len(jobs) * config.clips_per_shard)
        for _ in _made(jobs, out, config, seed, kinds, workers):
            bar.advance(row, config.clips_per_shard)
    print(f"Wrote {len(jobs)} shards to {out}. Next: evhands train RUN --data {out}")


def _shards(clips: int, config: ShardConfig) -> int:
    return -(-clips // config.clips_per_shard)


def _write_card(out: Path, config: ShardConfig, seed: int, kinds: Kinds) -> None:
    card = {
        "simulator": [{"share": share, **asdict(kind)} for kind, share in kinds], "shards": asdict(config),
        "seed": seed, "validation_subjects": VALIDATION_SUBJECTS, "evhands": __version__,
    }  # fmt: skip
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1))


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    folder: Path
    number: int
    config: ShardConfig
    seed: int
    kinds: Kinds


def _made(
    jobs: list[tuple[str, int]],
    out: Path,
    config: ShardConfig,
    seed: int,
    kinds: Kinds,
    workers: int,
) -> Iterator[Path]:
    series = {"train": (seed, kinds), "val": (seed + VALIDATION_SEED, held_out_kinds(kinds))}
    todo = [_Job(out / split, number, config, *series[split]) for split, number in jobs]
    if workers == 1:
        yield from map(_shard, todo)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_shard, todo)


def _shard(job: _Job) -> Path:
    import torch

    torch.set_num_threads(1)

    def make(index: int) -> LabelledClip:
        return make_clip(job.kinds, job.seed, index)

    return write_shard(job.folder, job.number, make, job.config, job.seed)
