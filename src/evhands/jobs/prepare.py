"""`evhands prepare`: simulated clips as training shards, made by several processes and resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands import __version__
from evhands.data.shards import LabelledClip, ShardConfig, write_shard
from evhands.files import replacing
from evhands.sim.generate import ClipConfig, simulate_clip

TEST_SUBJECTS = (1_000_000, 1_000_008)
VALIDATION_SUBJECTS = (1_000_100, 1_000_200)


def prepare(
    out: Path, *, clips: int = 20_000, val_clips: int = 512, wide: float = 0.25, seed: int = 0, workers: int = 1
) -> None:
    """Simulate clips of hands and write them as the shards that `evhands train` reads.

    Shards that are there already are kept, so the same command goes on where it stopped, and a training may
    read the folder while it grows. The validation clips show subjects that no training clip shows.

    Args:
        out: folder to write; shards go to OUT/train and OUT/val, every setting to OUT/card.json.
        clips: training clips of 0.43 s each.
        val_clips: validation clips, all in the frontal range.
        wide: share of the training clips with orientations far from frontal.
        seed: clip i is a function of (seed, i) alone.
        workers: processes; one a core.
    """
    config = ShardConfig()
    jobs = [("val", k) for k in range(_shards(val_clips, config))] + [
        ("train", k) for k in range(_shards(clips, config))
    ]
    out.mkdir(parents=True, exist_ok=True)
    _write_card(out, config, seed, wide)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        row = bar.add_task("clips", total=len(jobs) * config.clips_per_shard)
        for _ in _made(jobs, out, config, seed, wide, workers):
            bar.advance(row, config.clips_per_shard)
    print(f"Wrote {len(jobs)} shards to {out}. Next: evhands train RUN --data {out}")


def clip_configs(wide: float) -> tuple[ClipConfig, ClipConfig, float]:
    """(frontal clips, wide clips, share of the wide ones) of the training distribution."""
    frontal = ClipConfig(duration_us=440_000, step_px=1.0)
    return frontal, replace(frontal, orientation="wide"), wide


def _shards(clips: int, config: ShardConfig) -> int:
    return -(-clips // config.clips_per_shard)


def _write_card(out: Path, config: ShardConfig, seed: int, wide: float) -> None:
    frontal, _, _ = clip_configs(wide)
    card = {
        "simulator": asdict(frontal), "wide_share": wide, "shards": asdict(config), "seed": seed,
        "validation_subjects": VALIDATION_SUBJECTS, "evhands": __version__,
    }  # fmt: skip
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1))


def _made(
    jobs: list[tuple[str, int]], out: Path, config: ShardConfig, seed: int, wide: float, workers: int
) -> Iterator[Path]:
    arguments = [(out / split, number, split, config, seed, wide) for split, number in jobs]
    if workers == 1:
        yield from map(_shard, arguments)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_shard, arguments)


def _shard(arguments: tuple[Path, int, str, ShardConfig, int, float]) -> Path:
    import torch

    torch.set_num_threads(1)
    folder, number, split, config, seed, wide = arguments
    frontal, turned, share = clip_configs(wide if split == "train" else 0.0)
    if split == "val":
        frontal = replace(frontal, subjects=VALIDATION_SUBJECTS)

    def make(index: int) -> LabelledClip:
        chosen = turned if (index * 0.6180339887) % 1 < share else frontal
        clip = simulate_clip(chosen, seed if split == "train" else seed + 1_000_003, index)
        return LabelledClip(clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m)

    return write_shard(folder, number, make, config, seed)
