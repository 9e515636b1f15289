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

from evhands.data.finding import FindingConfig, HandsClip, finding_row
from evhands.data.shards import LabelledClip, ShardConfig, numbered_row, row_dtype
from evhands.sim.config import ClipConfig
from evhands.sim.generate import simulate_clip
from evhands.sim.presets import TrainShares, train_clip

VALIDATION_SUBJECTS = (1_000_100, 1_000_200)
VALIDATION_SEED = 1_000_003
"""Added to the seed of the training clips."""
LABEL_HZ = 30.0
ROW_SHARES = TrainShares(fast=0.15, fixed=0.3, fingers=0.1, holding=0.3, far=1.0, video=0.25)
"""What training mixes: as the preset `train`, but many hands whose fingers hold, any distance, and some videos."""


@dataclass(frozen=True)
class RowSeries:
    """Clips of one series: clip `index` of it is a function of the series and the index alone."""

    shares: TrainShares = ROW_SHARES
    seed: int = 0
    subjects: tuple[int, int] | None = None
    """First and last + 1 subject; None = those of the preset."""

    def held_out(self) -> RowSeries:
        """The series for validation: the same mixture, other numbers, subjects that no training shows."""
        return RowSeries(self.shares, self.seed + VALIDATION_SEED, VALIDATION_SUBJECTS)

    def clip(self, index: int, config: ShardConfig) -> ClipConfig:
        """A right hand (left ones are mirrored inside the estimator), just long enough for a row."""
        drawn = train_clip(np.random.default_rng((self.seed, index, 9)), self.shares)
        strides = config.windows - 1 + -(-config.inputs.window_us // config.inputs.stride_us)
        return replace(
            drawn,
            duration_us=round(1e6 * strides / LABEL_HZ),
            label_rate_hz=LABEL_HZ,
            side="right",
            subjects=self.subjects or drawn.subjects,
        )


def make_clip(series: RowSeries, index: int, config: ShardConfig) -> LabelledClip:
    """Clip `index` of a series, simulated."""
    kind = series.clip(index, config)
    clip = simulate_clip(kind, series.seed, index)
    turned = kind.orientation != "frontal"
    return LabelledClip(clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, turned)


def make_row(series: RowSeries, index: int, config: ShardConfig) -> np.ndarray:
    """The row of clip `index`: the same as `evhands prepare` writes for it."""
    return numbered_row(make_clip(series, index, config), config, series.seed, index)


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


TWO_HANDS = 0.35
"""Share of the clips with hands that show two."""


def finding_clip(series: RowSeries, index: int, config: FindingConfig) -> ClipConfig:
    """Clip `index` of a series for those who look for hands: a right hand, none, or both hands; just long enough."""
    drawn = series.clip(index, ShardConfig(inputs=config.inputs, windows=config.windows))
    rng = np.random.default_rng((series.seed, index, 11))
    if drawn.empty or rng.random() >= TWO_HANDS:
        return drawn
    return replace(drawn, side="both")


def make_finding_row(series: RowSeries, index: int, config: FindingConfig) -> np.ndarray:
    """The row of clip `index` for the detector and the recogniser, as `evhands prepare --kind finding` writes it."""
    kind = finding_clip(series, index, config)
    clip = simulate_clip(kind, series.seed, index)
    hands = () if kind.empty else tuple((truth.pose.side, truth.joints_m) for truth in clip.hands)
    row_clip = HandsClip(clip.events, clip.camera, clip.label_t_us, hands)
    return finding_row(row_clip, config, np.random.default_rng((series.seed, index, 7)))


class StreamedRows:
    """The newest `capacity` rows of clips that worker processes simulate without end; close it, or use it in `with`.

    Which rows are there when depends on the speed of the machine, so a run is not repeatable to the bit; the clips
    themselves are those of (seed, index).
    """

    def __init__(
        self, series: RowSeries, *, workers: int = 1, capacity: int = 1500, config: ShardConfig | None = None
    ) -> None:
        config = config or ShardConfig()
        self._rows = np.zeros(capacity, row_dtype(config))
        self._count = 0
        context = multiprocessing.get_context("spawn")
        self._queue: Any = context.Queue(maxsize=16)
        self._workers = [
            context.Process(target=_simulate_without_end, args=(self._queue, series, w, workers, config), daemon=True)
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


def _simulate_without_end(out: Any, series: RowSeries, first: int, step: int, config: ShardConfig) -> None:
    import torch

    torch.set_num_threads(1)
    index = first
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            out.put(make_row(series, index, config).tobytes())
            index += step
