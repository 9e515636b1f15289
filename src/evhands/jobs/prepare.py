"""`evhands prepare`: simulated clips as training shards, made by several processes and resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evhands import __version__
from evhands.data.shards import LabelledClip, ShardConfig, write_shard
from evhands.files import replacing
from evhands.sim.generate import ClipConfig, simulate_clip
from evhands.sim.motion import MotionConfig
from evhands.sim.sensor import SENSORS
from evhands.types import InputError

VALIDATION_SUBJECTS = (1_000_100, 1_000_200)


def prepare(
    out: Path,
    *,
    clips: int = 20_000,
    val_clips: int = 512,
    wide: float = 0.2,
    fingers: float = 0.2,
    video: float = 0.15,
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


def clip_kinds(wide: float, fingers: float, video: float) -> list[tuple[ClipConfig, float]]:
    """The kinds of clips that training mixes, with their shares; the share `video` of each comes as a converted video.

    Frontal and `wide` orientations move as the simulator's defaults do; in the share `fingers` the hand nearly stands
    still while its fingers move, which makes few events and leaves most of the hand unseen.
    """
    frontal = ClipConfig(duration_us=540_000, step_px=1.0)
    quiet = replace(frontal.sensor, shot_noise_hz=(0.0, 0.1))
    still = MotionConfig(peak_speed=(0.003, 0.08), peak_turn=(0.02, 0.8), hold_share=0.4, wobble_m=(0.0002, 0.003))
    kinds = [
        (frontal, 1 - wide - fingers),
        (replace(frontal, orientation="wide"), wide),
        (replace(frontal, motion=still, sensor=quiet), fingers),
    ]
    converted = replace(SENSORS["ideal"], threshold=(0.13, 0.3), mismatch=(0.03, 0.03), dark=0.01)
    videos = [(replace(kind, sensor=converted, video_fps=30.0), share * video) for kind, share in kinds]
    return [*((kind, share * (1 - video)) for kind, share in kinds), *videos]


def _shards(clips: int, config: ShardConfig) -> int:
    return -(-clips // config.clips_per_shard)


def _write_card(out: Path, config: ShardConfig, seed: int, kinds: list[tuple[ClipConfig, float]]) -> None:
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
    kinds: list[tuple[ClipConfig, float]]


def _made(
    jobs: list[tuple[str, int]],
    out: Path,
    config: ShardConfig,
    seed: int,
    kinds: list[tuple[ClipConfig, float]],
    workers: int,
) -> Iterator[Path]:
    # Validation: frontal clips with the simulator's usual motion, of other subjects and another series of clips.
    usual = replace(kinds[0][0], subjects=VALIDATION_SUBJECTS)
    held_out = [(usual, 1.0)]
    series = {"train": (seed, kinds), "val": (seed + 1_000_003, held_out)}
    todo = [_Job(out / split, number, config, *series[split]) for split, number in jobs]
    if workers == 1:
        yield from map(_shard, todo)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_shard, todo)


def _shard(job: _Job) -> Path:
    import torch

    torch.set_num_threads(1)
    shares = np.cumsum([share for _, share in job.kinds])

    def make(index: int) -> LabelledClip:
        kind = min(int(np.searchsorted(shares, (index * 0.6180339887) % 1, side="right")), len(shares) - 1)
        clip = simulate_clip(job.kinds[kind][0], job.seed, index)
        return LabelledClip(clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m)

    return write_shard(job.folder, job.number, make, job.config, job.seed)
