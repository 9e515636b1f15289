"""Training samples on disk: short clips as rows of memory-mapped .npy files, which may grow during training.

A row is one clip: its windows already seen through jittered crops by the one preprocessing path (`evhands.inputs`),
quantised to bytes, with the truth beside them. A shard appears under its name only when it is whole, so a reader may
look at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from evhands.boxes import CropBox
from evhands.events.flashes import calm_window
from evhands.events.windows import window_at
from evhands.files import replacing
from evhands.geometry import crop_camera, project
from evhands.inputs import FILLED, OVERVIEW_SIZE, InputConfig, crop_inputs, filled_window, overview, overview_camera
from evhands.types import Camera, Events, EventWindow, HandPose, InputError


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How clips become rows. Jitters imitate a tracker that follows a hand: a part that stays for the clip, a part a
    window."""

    inputs: InputConfig = FILLED
    windows: int = 56
    """Windows of a clip: long enough to learn what to remember."""
    clips_per_shard: int = 64
    shift: float = 0.07
    scale: float = 0.10
    overviews: int = 4


@dataclass(frozen=True)
class LabelledClip:
    """Events of a clip with the truth at label times: joints (m, 21, 3) metres in the camera's frame, `openpose21`."""

    events: Events
    camera: Camera
    label_t_us: np.ndarray
    pose: HandPose
    joints_m: np.ndarray
    turned: bool = False
    """Whether its orientations are those of `free` instead of `frontal`."""


def row_dtype(config: ShardConfig) -> np.dtype:
    T, S = config.windows, config.inputs.size_px
    w, h = OVERVIEW_SIZE
    return np.dtype(
        [
            ("lnes", "u1", (T, 2, S, S)),
            ("K", "f4", (T, 3, 3)),
            ("joints", "f4", (T, 21, 3)),
            ("orientation", "f4", (T, 3)),
            ("rotvecs", "f4", (T, 15, 3)),
            ("shape", "f4", (10,)),
            ("events", "i4", (T,)),
            ("turned", "u1"),
            ("overview", "u1", (config.overviews, 2, h, w)),
            ("box", "f4", (config.overviews, 3)),
        ]
    )


def clip_row(clip: LabelledClip, config: ShardConfig, rng: np.random.Generator) -> np.ndarray:
    """One clip as a row of `row_dtype`: windows end at its last `windows` labels; crops jittered by `rng`."""
    row = np.zeros((), row_dtype(config))
    last = np.arange(len(clip.label_t_us) - config.windows, len(clip.label_t_us))
    seen = [seen_window(clip.events, int(t), config.inputs) for t in clip.label_t_us[last]]
    joints = clip.joints_m[last]
    boxes = _jittered_boxes(project(joints, clip.camera.K), config, rng)
    crops = [crop_camera(clip.camera, box.centre_px, box.side_px, config.inputs.size_px) for box in boxes]
    filled = [
        filled_window(window, recent, box, clip.camera, config.inputs)
        for (window, recent), box in zip(seen, boxes, strict=True)
    ]
    images = crop_inputs(filled, clip.camera, crops, config.inputs)
    row["lnes"] = np.ceil(images["lnes"] * 255)
    row["K"] = images["K"]
    row["joints"] = joints
    row["orientation"] = clip.pose.orientation[last]
    row["rotvecs"] = clip.pose.joints[last]
    row["shape"] = clip.pose.shape[last[-1]]
    row["turned"] = clip.turned
    row["events"] = [len(window.events) for window, _ in seen]
    for k, i in enumerate(rng.choice(config.windows, config.overviews, replace=False)):
        window, recent = seen[i]
        whole = filled_window(window, recent, None, clip.camera, config.inputs)
        row["overview"][k] = np.ceil(overview(whole, clip.camera)[0] * 255)
        row["box"][k] = overview_box(project(joints[i], clip.camera.K), clip.camera)
    return row


def seen_window(events: Events, end_us: int, inputs: InputConfig) -> tuple[EventWindow, Events]:
    """The window that ends there and the events of the last `longest_us`, as a tracker sees them: without flashes."""
    recent = window_at(events, end_us, max(inputs.longest_us, inputs.window_us)).events
    return calm_window(window_at(events, end_us, inputs.window_us), recent)


def numbered_row(clip: LabelledClip, config: ShardConfig, seed: int, index: int) -> np.ndarray:
    """The row of clip `index` of a series: its jitter is a function of (seed, index) alone."""
    return clip_row(clip, config, np.random.default_rng((seed, index, 7)))


def _jittered_boxes(joints_px: np.ndarray, config: ShardConfig, rng: np.random.Generator) -> list[CropBox]:
    stay, scale_stay = rng.normal(0, config.shift, 2), rng.normal(0, config.scale)
    boxes = []
    for points in joints_px:
        low, high = points.min(axis=0), points.max(axis=0)
        factor = np.exp(scale_stay + rng.normal(0, config.scale / 2))
        side = max(float((high - low).max()) * config.inputs.crop_scale * factor, 16.0)
        centre = (low + high) / 2 + (stay + rng.normal(0, config.shift / 2, 2)) * side
        boxes.append(CropBox(centre, side))
    return boxes


def overview_box(joints_px: np.ndarray, camera: Camera) -> np.ndarray:
    """Centre x, y and extent (3,) of joints in the pixels of the small picture of the whole image."""
    scale = overview_camera(camera).K[0, 0] / camera.K[0, 0]
    points = (joints_px + 0.5) * scale - 0.5
    low, high = points.min(axis=0), points.max(axis=0)
    return np.array([*((low + high) / 2), (high - low).max()])


def write_shard(folder: Path, number: int, make_row: Callable[[int], np.ndarray], clips: int) -> Path:
    """Make shard `number`: the rows of the clips number * clips .. (number + 1) * clips - 1. One that is there is
    kept."""
    path = folder / f"shard-{number:05d}.npy"
    if path.exists():
        return path
    rows = np.stack([make_row(index) for index in range(number * clips, (number + 1) * clips)])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, rows)
    return path


class Pool(Protocol):
    """Rows of clips by number, which may become more: what a training draws from."""

    def refresh(self) -> int: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray: ...


def drawn(pool: Pool, rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of a pool at random; from every folder of shards equally often, however large."""
    if not isinstance(pool, ShardPool) or len(pool.folders) == 1:
        return pool.take(rng.integers(0, len(pool), count))
    numbers = [np.flatnonzero(pool.folder_of() == k) for k in range(len(pool.folders))]
    numbers = [rows for rows in numbers if len(rows)]
    return pool.take(np.array([rng.choice(numbers[k]) for k in rng.integers(0, len(numbers), count)]))


class ShardPool:
    """All rows of folders of shards, which may grow: `refresh` takes in what has appeared since.

    fields: the fields of a row that are read, None for all; in them the folders must be of one kind.
    """

    def __init__(self, *folders: Path, fields: tuple[str, ...] | None = None):
        self.folders, self.fields = folders, fields
        self._shards: dict[Path, np.ndarray] = {}
        self.refresh()

    def refresh(self) -> int:
        """Look for new shards; returns the number of rows."""
        for path in (path for folder in self.folders for path in sorted(folder.glob("shard-*.npy"))):
            if path not in self._shards:
                shard = np.load(path, mmap_mode="r")
                missing = set(self.fields or ()) - set(shard.dtype.names or ())
                if missing:
                    raise InputError(
                        f"{path} holds rows without {' and '.join(sorted(missing))}. Wanted those that the recipe "
                        "learns from: `evhands prepare` makes them with --kind poses for small, --kind finding for "
                        "detector and recogniser."
                    )
                if self._shards and self._kind(shard) != self._kind(next(iter(self._shards.values()))):
                    raise InputError(
                        f"{path} holds other rows than the shards before it. Wanted folders that `evhands prepare` "
                        "made with the same --windows."
                    )
                self._shards[path] = shard
        return len(self)

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards.values())

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Rows by number (copies)."""
        shards = list(self._shards.values())
        ends = np.cumsum([len(shard) for shard in shards])
        rows = np.empty(len(indices), self._kind(shards[0]))
        for k, (i, shard) in enumerate(zip(indices, np.searchsorted(ends, indices, side="right"), strict=True)):
            for name in rows.dtype.names or ():
                rows[name][k] = shards[shard][name][i - ends[shard]]  # counted from the end of the shard
        return rows

    def folder_of(self) -> np.ndarray:
        """(n,) number of the folder of each row."""
        return np.concatenate(
            [np.full(len(shard), self.folders.index(path.parent)) for path, shard in self._shards.items()]
        )

    def _kind(self, shard: np.ndarray) -> np.dtype:
        names = self.fields or shard.dtype.names or ()
        return np.dtype([(name, shard.dtype[name]) for name in names])
