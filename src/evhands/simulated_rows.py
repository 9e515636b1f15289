"""Simulated clips as rows of training data: which kinds, and a row of each; on disk by `evhands prepare`, or in memory.

`StreamedRows` simulates while a training runs and keeps the newest rows in memory: no file is written.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evhands.data.shards import LabelledClip, ShardConfig, numbered_row, row_dtype
from evhands.sim.config import ClipConfig
from evhands.sim.generate import simulate_clip
from evhands.sim.presets import SLOW
from evhands.sim.sensor import SENSORS

VALIDATION_SUBJECTS = (1_000_100, 1_000_200)
VALIDATION_SEED = 1_000_003
"""Added to the seed of the training clips."""

WIDE, FINGERS, VIDEO = 0.2, 0.2, 0.15
"""Shares of the training clips: widely turned hands, hands of which little but fingers moves, converted videos."""

Kinds = list[tuple[ClipConfig, float]]
"""Configurations of clips with their shares."""


def clip_kinds(wide: float = WIDE, fingers: float = FINGERS, video: float = VIDEO) -> Kinds:
    """The kinds of clips that training mixes, with their shares; the share `video` of each comes as a converted video.

    Frontal and `wide` orientations move as the simulator's defaults do; in the share `fingers` the hand nearly stands
    still while its fingers move, which makes few events and leaves most of the hand unseen.
    """
    frontal = ClipConfig(duration_us=540_000, step_px=1.0)
    quiet = replace(frontal.sensor, shot_noise_hz=(0.0, 0.1))
    kinds = [
        (frontal, 1 - wide - fingers),
        (replace(frontal, orientation="wide"), wide),
        (replace(frontal, motion=SLOW, sensor=quiet), fingers),
    ]
    converted = replace(SENSORS["ideal"], threshold=(0.13, 0.3), mismatch=(0.03, 0.03), dark=0.01)
    videos = [(replace(kind, sensor=converted, video_fps=30.0), share * video) for kind, share in kinds]
    return [*((kind, share * (1 - video)) for kind, share in kinds), *videos]


def held_out_kinds(kinds: Kinds) -> Kinds:
    """Validation: frontal clips with the simulator's usual motion, of subjects that no training shows."""
    return [(replace(kinds[0][0], subjects=VALIDATION_SUBJECTS), 1.0)]


def make_clip(kinds: Kinds, seed: int, index: int) -> LabelledClip:
    """Clip `index` of a series: kinds come in turn by their shares (a golden-ratio sequence)."""
    shares = np.cumsum([share for _, share in kinds])
    kind = min(int(np.searchsorted(shares, (index * 0.6180339887) % 1, side="right")), len(shares) - 1)
    clip = simulate_clip(kinds[kind][0], seed, index)
    return LabelledClip(clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m)


def make_row(kinds: Kinds, seed: int, index: int, config: ShardConfig) -> np.ndarray:
    """The row of clip `index`: the same as `evhands prepare` writes for it."""
    return numbered_row(make_clip(kinds, seed, index), config, seed, index)


@dataclass(frozen=True)
class MemoryRows:
    """Rows held in memory, with the interface of `ShardPool`."""

    rows: np.ndarray

    def refresh(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.rows[indices]


class StreamedRows:
    """The newest `capacity` rows of clips that worker processes simulate without end; close it, or use it in `with`.

    Which rows are there when depends on the speed of the machine, so a run is not repeatable to the bit; the clips
    themselves are those of (seed, index).
    """

    def __init__(
        self, kinds: Kinds, seed: int, *, workers: int = 1, capacity: int = 6000, config: ShardConfig | None = None
    ) -> None:
        config = config or ShardConfig()
        self._rows = np.zeros(capacity, row_dtype(config))
        self._count = 0
        context = multiprocessing.get_context("spawn")
        self._queue: Any = context.Queue(maxsize=16)
        self._workers = [
            context.Process(
                target=_simulate_without_end, args=(self._queue, kinds, seed, w, workers, config), daemon=True
            )
            for w in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> StreamedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.terminate()
            worker.join()

    def wait_for(self, count: int) -> None:
        """Return when at least `count` rows have come."""
        while self._count < min(count, len(self._rows)):
            self._add(self._queue.get())

    def refresh(self) -> int:
        """Take in what the workers have made meanwhile; returns the number of rows."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._add(self._queue.get_nowait())
        return len(self)

    def _add(self, row: bytes) -> None:
        self._rows[self._count % len(self._rows)] = np.frombuffer(row, self._rows.dtype)[0]
        self._count += 1

    def __len__(self) -> int:
        return min(self._count, len(self._rows))

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Rows by number (copies)."""
        return self._rows[indices]


def _simulate_without_end(out: Any, kinds: Kinds, seed: int, first: int, step: int, config: ShardConfig) -> None:
    import torch

    torch.set_num_threads(1)
    index = first
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            out.put(make_row(kinds, seed, index, config).tobytes())
            index += step
