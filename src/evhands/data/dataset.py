"""A batch of items: events through affine maps into crops, their images, and the labels, as arrays.

One pass of a numba kernel over the events of an item does undistortion, left-to-right mirror, augmentation and crop;
LNES and voxel grid are made of all windows of the batch at once. No torch: `torch.from_numpy` outside, or, on a GPU, no
images here and `events.representations_torch` on the columns of `windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from evhands.data.augment import NO_AUGMENTATION, AugmentConfig, Draw, Move, draw, lnes_noise, move_of
from evhands.data.cache import CachedRecording
from evhands.data.crops import (
    CropConfig,
    HandPath,
    crop_affine,
    crop_matrix,
    crop_of_camera,
    crops_around,
    hand_path,
    window_boxes,
)
from evhands.data.items import Items, whole_us
from evhands.data.kernels import move_windows, thin
from evhands.data.labels import Labels
from evhands.data.published import PublishedData, published_moves
from evhands.events.representations import lnes, voxel_grid
from evhands.types import InputError, Size, WindowBatch

_LABEL_SHAPES = {
    "orientation": (3,), "wrist": (3,), "joints": (15, 3), "shape": (10,), "joints_m": (21, 3), "joints_px": (21, 2),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What a batch holds. augment: None leaves everything where it is. images: whether LNES and voxel grid are made.

    raw_windows: of how many last windows the events in the moved image are given, at most most_events each;
    raw_in_crop: in the crops instead, where fewer are. as_right: left hands are given as the right hands that are their
    mirror images about the principal point.
    """

    crop: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig | None = None
    voxel_bins: int = 5
    images: bool = True
    raw_windows: int = 2
    raw_in_crop: bool = False
    most_events: int = 10_000
    as_right: bool = True
    published: PublishedData | None = None


@dataclass(frozen=True)
class SequenceBatch:
    """b items of t windows; S is the side of the crop. Labels hold zeros where their mask is False.

    windows: events in pixels of the crops, window i t + k is window k of item i. lnes, voxel: their images.
    raw: events of the last windows in pixels of the moved image (or of the crops), thinned; window i r + k.
    crop: (s, left, top), cuts the moved image. virtual: (s, left, top), cuts the same from the image of K: with it and
    K a prediction in the crop's virtual camera becomes one in the frame of the labels. crop_K: projects that frame into
    the crop.
    K: the camera of the labels. image_K: projects their frame onto the moved image (is K without augmentation).
    labelled: whether a window's end has joints, in space or in the image; posed: whether it has hand parameters.
    orientation, wrist, joints, shape: as `HandPose`. joints_m: `openpose21`. joints_px: pixels of the moved image.
    boxes_px: x0, y0, x1, y1 of the hand at both ends of a window, in the moved image. events_in_image: how many events
    a window has there. mirrored: left hands given as right ones. recording, label: see `Items`.
    """

    windows: WindowBatch
    raw: WindowBatch
    lnes: Float32[np.ndarray, "b t 2 S S"] | None
    voxel: Float32[np.ndarray, "b t bins S S"] | None
    crop: Float32[np.ndarray, "b t 3"]
    virtual: Float32[np.ndarray, "b t 3"]
    crop_K: Float32[np.ndarray, "b t 3 3"]
    K: Float32[np.ndarray, "b 3 3"]
    image_K: Float32[np.ndarray, "b 3 3"]
    labelled: Bool[np.ndarray, "b t"]
    posed: Bool[np.ndarray, "b t"]
    orientation: Float32[np.ndarray, "b t 3"]
    wrist: Float32[np.ndarray, "b t 3"]
    joints: Float32[np.ndarray, "b t 15 3"]
    shape: Float32[np.ndarray, "b t 10"]
    joints_m: Float32[np.ndarray, "b t 21 3"]
    joints_px: Float32[np.ndarray, "b t 21 2"]
    boxes_px: Float32[np.ndarray, "b t 4"]
    events_in_image: Int64[np.ndarray, "b t"]
    edges_us: Int64[np.ndarray, "b t_plus_1"]
    mirrored: Bool[np.ndarray, " b"]
    recording: Int32[np.ndarray, " b"]
    label: Int32[np.ndarray, "b t"]


@dataclass(frozen=True)
class _Source:
    """A recording as the batches read it: labels and path of the hand mirrored where it is given as a right one."""

    events: CachedRecording
    labels: Labels
    path: HandPath | None
    mirrored: bool
    table: np.ndarray
    K: np.ndarray


class SequenceDataset:
    """Batches of the items of some recordings: a function of the recordings, (seed, epoch) and the items asked for.

    All recordings must have one image size and one hand model.
    """

    def __init__(self, recordings: Sequence[CachedRecording], config: BatchConfig = BatchConfig()) -> None:
        self.config = config
        self.recordings = list(recordings)
        self.size, self.hand_model = _common(self.recordings)
        self._sources = [_source(recording, config) for recording in recordings]

    def batch(
        self, items: Items, *, seed: int = 0, epoch: int = 0, draws: Sequence[Draw] | None = None
    ) -> SequenceBatch:
        """The batch of these items, which were made of the same list of recordings.

        What is random in an item is drawn for (seed, epoch, its recording and anchor) alone; `draws` replaces what
        would be drawn of its augmentation.
        """
        generators = [
            np.random.default_rng([seed, epoch, int(r), int(a) + 1, int(e)])
            for r, a, e in zip(items.recording, items.anchor, items.first[:, -1])
        ]
        augment = self.config.augment or NO_AUGMENTATION
        windows = items.label.shape[1]
        drawn = [draw(augment, windows, rng) for rng in generators]
        seeds = np.array([rng.integers(0, 1 << 63, windows) for rng in generators], np.uint64).reshape(-1, windows)
        places = [self._place(items, i, (draws or drawn)[i]) for i in range(len(items))]
        columns, raw, in_image = self._events(items, places, seeds)
        images = self._images(columns, (len(items), windows), generators, augment)
        return SequenceBatch(
            windows=columns, raw=raw, lnes=images[0], voxel=images[1], events_in_image=in_image,
            edges_us=self._times(items), recording=items.recording, label=items.label, **_stacked(places, windows),
        )  # fmt: skip

    def _times(self, items: Items) -> np.ndarray:
        starts = np.array([recording.start_us for recording in self.recordings], np.int64)
        return whole_us(items.edges_us, 0) + starts[items.recording][:, None]

    def _place(self, items: Items, i: int, drawn: Draw) -> _Place:
        """Where item i goes: its maps, crops and labels."""
        source = self._sources[items.recording[i]]
        if source.path is None:
            raise InputError(
                f"{source.events.name} has no joints and no boxes, so that nobody knows where its hand is. Wanted "
                "labels; take it out, or crop it by a tracker."
            )
        outline = source.path.outline(items.edges_us[i] + (source.events.start_us - source.path.t0_us))
        if self.config.published is not None and self.config.augment is not None:
            return self._published_place(source, items, i, drawn, outline)
        augment = self.config.augment or NO_AUGMENTATION
        anchor = items.anchor[i]
        wrist = source.labels.joints_m[anchor, 0] if anchor >= 0 else np.full(3, np.nan)
        move = move_of(drawn, source.K, wrist if np.isfinite(wrist).all() else None, augment)
        boxes = window_boxes(move.pixels(outline))
        matrix = np.concatenate([move.matrix, move.offset[:, None]], 1)
        crop = crops_around(
            (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(-1), drawn.jitter, move.image_K,
            self.config.crop, source.path.margin,
        )  # fmt: skip
        labels = _moved_labels(source.labels, items.label[i], move)
        moves = np.broadcast_to(matrix, (len(crop), 2, 3))
        return _Place(moves, crop, boxes, move.image_K, source.K, labels, source.mirrored)

    def _published_place(self, source: _Source, items: Items, i: int, drawn: Draw, outline: np.ndarray) -> _Place:
        """The same with the published augmentation, of an item whose last window is labelled (O13)."""
        assert source.path is not None and self.config.published is not None
        rows, K = items.label[i], source.K
        before = window_boxes(outline)
        centre, extent = (before[:, :2] + before[:, 2:]) / 2, (before[:, 2:] - before[:, :2]).max(-1)
        labels = _moved_labels(source.labels, rows, move_of(replace(drawn, depth_m=0.0), K, None, NO_AUGMENTATION))
        if rows[-1] < 0:
            drawn = replace(drawn, depth_m=0.0, turn=0.0, shift_m=np.zeros(2))
            labels = _moved_labels(source.labels, rows, move_of(drawn, K, None, NO_AUGMENTATION))
            moves, scale = np.broadcast_to(np.eye(2, 3), (len(rows), 2, 3)), 1.0
        else:
            augment = self.config.augment or NO_AUGMENTATION
            moves, scale, wrist, joints_m = published_moves(drawn, K, labels, self.config.published, augment)
            labels = {**labels, "wrist": wrist, "joints_m": joints_m}
        centre = (moves[:, :, :2] @ centre[..., None])[..., 0] + moves[:, :, 2]
        crop = crops_around(centre, extent * scale, drawn.jitter, K, self.config.crop, source.path.margin)
        half = extent[:, None] * scale / 2
        boxes = np.concatenate([centre - half, centre + half], -1)
        return _Place(moves, crop, boxes, K, K, labels, source.mirrored)

    def _events(
        self, items: Items, places: list[_Place], seeds: np.ndarray
    ) -> tuple[WindowBatch, WindowBatch, np.ndarray]:
        """Events in the crops, events of the last windows in the moved images, and how many are in the image."""
        side, windows, last = self.config.crop.size_px, items.label.shape[1], self.config.raw_windows
        limits = (0.0, float(side - 1), float(side - 1))
        crops = [crop_affine(place.crop, place.image_K) for place in places]
        columns, in_image = self._moved(items, places, crops, limits, slice(0, windows), (side, side))
        if self.config.raw_in_crop:
            raw = _last_windows(columns, windows, last)
            return columns, _thinned(raw, self.config.most_events, seeds[:, windows - last :]), in_image
        width, height = self.size
        whole = [np.tile([1.0, 0.0, 0.0], (last, 1)) for _ in places]
        limits = (0.0, float(width - 1), float(height - 1))
        raw, _ = self._moved(items, places, whole, limits, slice(windows - last, windows), self.size)
        return columns, _thinned(raw, self.config.most_events, seeds[:, windows - last :]), in_image

    def _moved(
        self, items: Items, places: list[_Place], crops: list[np.ndarray], limits: tuple[float, float, float],
        which: slice, size: Size,
    ) -> tuple[WindowBatch, np.ndarray]:  # fmt: skip
        edges = slice(which.start, which.stop + 1)
        first = np.ascontiguousarray(items.first[:, edges])
        count, total = first.shape[1] - 1, int((first[:, -1] - first[:, 0]).sum())
        out = _columns(total)
        ends, in_image = np.zeros((len(items), count), np.int64), np.zeros((len(items), count), np.int64)
        at = 0
        for i, place in enumerate(places):
            source = self._sources[items.recording[i]]
            events, moves = source.events, _after_mirror(place.moves[which], source)
            edges_us = np.ascontiguousarray(items.edges_us[i, edges])
            at = move_windows(
                events.x, events.y, events.t_us, events.p, source.table, first[i], events.start_us, edges_us, moves,
                self.size, crops[i], limits, at, out.x, out.y, out.t, out.p, ends[i], in_image[i],
            )  # fmt: skip
        offsets, kept = np.concatenate([[0], ends.reshape(-1)]).astype(np.int64), slice(0, int(at))
        return WindowBatch(out.x[kept], out.y[kept], out.t[kept], out.p[kept], offsets, size), in_image

    def _images(
        self,
        columns: WindowBatch,
        shape: tuple[int, int],
        generators: list[np.random.Generator],
        augment: AugmentConfig,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not self.config.images:
            return None, None
        published = self.config.published
        seen = _without_last(columns) if published is not None and published.lnes_without_last else columns
        side = self.config.crop.size_px
        times = lnes(seen).reshape(*shape, 2, side, side)
        if augment.noise > 0 or augment.salt > 0:
            for i, rng in enumerate(generators):
                times[i] = lnes_noise(times[i], augment, rng)
        bins = self.config.voxel_bins
        return times, voxel_grid(columns, bins).reshape(*shape, bins, side, side) if bins else None


@dataclass(frozen=True)
class _Place:
    """Where one item goes. moves: (t, 2, 3) pixels (mirrored where it is) to the moved image."""

    moves: np.ndarray
    crop: np.ndarray
    boxes: np.ndarray
    image_K: np.ndarray
    K: np.ndarray
    labels: dict[str, np.ndarray]
    mirrored: bool


def _common(recordings: Sequence[CachedRecording]) -> tuple[Size, str]:
    if not recordings:
        raise InputError("Found no recordings. Wanted one at least; check the data folder and the split by subject.")
    sizes = {recording.size: recording.name for recording in recordings}
    models = {r.labels.hand_model: r.name for r in recordings if r.labels.posed.any()}
    if len(sizes) > 1 or len(models) > 1:
        found = "image sizes" if len(sizes) > 1 else "hand models"
        told = ", ".join(f"{value} ({name})" for value, name in (sizes if len(sizes) > 1 else models).items())
        raise InputError(f"Found recordings of several {found}: {told}. Wanted one; train with each apart.")
    return next(iter(sizes)), next(iter(models), "open")


def _source(recording: CachedRecording, config: BatchConfig) -> _Source:
    K = np.asarray(recording.camera.K, np.float64)
    mirrored = config.as_right and recording.labels.side == "left"
    labels = recording.labels.mirrored(K[0, 2]) if mirrored else recording.labels
    raw = config.published is not None and config.published.raw_squares
    table = np.empty((0, 0, 2), np.float32) if recording.table is None else recording.table
    return _Source(recording, labels, hand_path(labels, K, config.crop, raw_squares=raw), mirrored, table, K)


def _after_mirror(moves: np.ndarray, source: _Source) -> np.ndarray:
    """The moves as maps of the undistorted image itself: of a left hand its mirror image about cx is moved."""
    if not source.mirrored:
        return np.ascontiguousarray(moves)
    flipped = moves.copy()
    flipped[:, :, 2] += moves[:, :, 0] * 2 * source.K[0, 2]
    flipped[:, :, 0] *= -1
    return flipped


def _moved_labels(labels: Labels, rows: np.ndarray, move: Move) -> dict[str, np.ndarray]:
    """The labels of rows (t,), -1 = none; NaN where there is nothing."""
    taken = {name: np.full((len(rows), *tail), np.nan) for name, tail in _LABEL_SHAPES.items()}
    have = rows >= 0
    for name, values in taken.items():
        values[have] = getattr(labels, name)[rows[have]]
    taken["wrist"], taken["joints_m"] = move.points(taken["wrist"]), move.points(taken["joints_m"])
    taken["joints_px"] = move.pixels(taken["joints_px"])
    posed = np.isfinite(taken["orientation"][:, 0])
    taken["orientation"][posed] = move.rotvecs(taken["orientation"][posed])
    return taken


def _stacked(places: list[_Place], windows: int) -> dict[str, np.ndarray]:
    """All that places hold, over the batch, in the types of a `SequenceBatch`."""

    def stack(values: list[np.ndarray], *shape: int) -> np.ndarray:
        return np.stack(values).astype(np.float32) if values else np.zeros((0, *shape), np.float32)

    labels = {
        name: stack([place.labels[name] for place in places], windows, *tail) for name, tail in _LABEL_SHAPES.items()
    }
    posed = np.isfinite(labels["wrist"][..., 0])
    located = np.isfinite(labels["joints_m"][..., 0, 0]) | np.isfinite(labels["joints_px"][..., 0, 0])
    return {
        **{name: np.nan_to_num(values) for name, values in labels.items()},
        "labelled": located | posed,
        "posed": posed,
        "crop": stack([place.crop for place in places], windows, 3),
        "virtual": stack([crop_of_camera(p.crop, p.image_K, p.K) for p in places], windows, 3),
        "crop_K": stack([crop_matrix(p.crop, p.image_K) for p in places], windows, 3, 3),
        "boxes_px": stack([place.boxes for place in places], windows, 4),
        "K": stack([place.K for place in places], 3, 3),
        "image_K": stack([place.image_K for place in places], 3, 3),
        "mirrored": np.array([place.mirrored for place in places], np.bool_),
    }


def _without_last(batch: WindowBatch) -> WindowBatch:
    """Without a mark of the last event of every window: at time 0 it marks nothing (O2)."""
    t = batch.t.copy()
    t[batch.offsets[1:][np.diff(batch.offsets) > 0] - 1] = 0
    return replace(batch, t=t)


def _last_windows(batch: WindowBatch, windows: int, last: int) -> WindowBatch:
    """Of sequences of `windows` windows the last ones."""
    lengths = np.diff(batch.offsets).reshape(-1, windows)
    kept = np.repeat(np.tile(np.arange(windows) >= windows - last, len(lengths)), lengths.reshape(-1))
    offsets = np.concatenate([[0], np.cumsum(lengths[:, windows - last :])]).astype(np.int64)
    return WindowBatch(batch.x[kept], batch.y[kept], batch.t[kept], batch.p[kept], offsets, batch.size)


def _thinned(batch: WindowBatch, most: int, seeds: np.ndarray) -> WindowBatch:
    """At most `most` events a window, a random subset in their order."""
    if np.diff(batch.offsets).max(initial=0) <= most:
        return batch
    out = _columns(int(np.minimum(np.diff(batch.offsets), most).sum()))
    offsets, seeds = np.zeros_like(batch.offsets), np.ascontiguousarray(seeds).reshape(-1)
    columns = (batch.x, batch.y, batch.t, batch.p)
    thin(*columns, batch.offsets, most, seeds, out.x, out.y, out.t, out.p, offsets)
    return replace(out, offsets=offsets, size=batch.size)


def _columns(total: int) -> WindowBatch:
    """Room for that many events."""
    x, y, t = (np.empty(total, np.float32) for _ in range(3))
    return WindowBatch(x, y, t, np.empty(total, np.bool_), np.zeros(1, np.int64), (0, 0))
