"""Laws of batches: events, labels and crops of an item agree, and what is random is a function of the item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evhands.data.augment import AugmentConfig
from evhands.data.cache import CachedRecording, cache_recordings
from evhands.data.dataset import BatchConfig, SequenceBatch, SequenceDataset
from evhands.data.items import Items, WindowConfig, evaluation_items, semi_supervised_items, supervised_items
from evhands.events import representations_torch
from evhands.events.representations import lnes, voxel_grid
from evhands.events.windows import PixelMap, batch_windows
from evhands.geometry import project
from evhands.hand.model import load_hand, pose_hand
from evhands.recording import Tags, write_recording
from evhands.sim.generate import ClipConfig, simulate_clip
from evhands.types import EventWindow, HandPose, InputError, WindowBatch
from hand_recordings import SIZE, cached_hand

QUIET = AugmentConfig(noise=0.0, salt=0.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[CachedRecording]:
    folder = tmp_path_factory.mktemp("hands")
    return [cached_hand(folder, 1, seconds=1.6), cached_hand(folder, 2, side="left", seconds=1.6)]


def _items(recordings: list[CachedRecording]) -> Items:
    return Items.concatenate(
        [supervised_items(recordings, WindowConfig())[::3],
         semi_supervised_items(recordings, WindowConfig(), seed=0, epoch=0)[::3]]
    )  # fmt: skip


def _batch(recordings: list[CachedRecording], config: BatchConfig, **options) -> SequenceBatch:
    return SequenceDataset(recordings, config).batch(_items(recordings), **options)


def _joints(batch: SequenceBatch, hand: str = "open") -> np.ndarray:
    fields = (batch.orientation, batch.wrist, batch.joints, batch.shape)
    pose = HandPose("right", *(torch.from_numpy(v[batch.posed]) for v in fields), hand)
    with torch.no_grad():
        return pose_hand(load_hand("open"), pose).joints().numpy()


@pytest.mark.parametrize("augment", [None, QUIET])
def test_events_are_moved_as_one_map_of_each_window_says(recordings, augment):
    """Undistorted, mirrored, moved, cut at the image's border and at the crop's; beside `batch_windows`."""
    items, dataset = _items(recordings), SequenceDataset(recordings, BatchConfig(augment=augment))
    batch = dataset.batch(items)
    for i in range(0, len(items), 3):
        recording = recordings[items.recording[i]]
        flip = np.diag([-1.0, 1.0]) if batch.mirrored[i] else np.eye(2)
        to_right = np.array([2 * recording.camera.K[0, 2], 0]) * batch.mirrored[i]
        move = _move_of(batch, i, recording)
        for k in (0, 10, 11):
            first, last = items.first[i, k : k + 2]
            window = EventWindow(recording.events()[first:last], *(int(t) for t in batch.edges_us[i, k : k + 2]))
            whole = PixelMap(SIZE, recording.table, move[:, :2] @ flip, move[:, :2] @ to_right + move[:, 2])
            image = batch_windows([window], whole, inside="centres")
            assert abs(len(image.x) - batch.events_in_image[i, k]) <= 2  # on the border
            s, left, top = batch.crop[i, k].astype(np.float64)
            centre = batch.image_K[i, :2, 2].astype(np.float64)
            x, y = ((image.x, image.y)[a] * s + centre[a] * (1 - s) - (left, top)[a] for a in (0, 1))
            kept = (x >= 0) & (x <= 127) & (y >= 0) & (y <= 127)
            found = slice(*batch.windows.offsets[i * 12 + k : i * 12 + k + 2])
            if kept.sum() == found.stop - found.start:
                np.testing.assert_allclose(batch.windows.x[found], x[kept], atol=2e-3)
                np.testing.assert_allclose(batch.windows.y[found], y[kept], atol=2e-3)
                np.testing.assert_allclose(batch.windows.t[found], image.t[kept], atol=1e-4)
                np.testing.assert_array_equal(batch.windows.p[found], image.p[kept])
            else:
                assert abs(int(kept.sum()) - (found.stop - found.start)) <= 2


def _move_of(batch: SequenceBatch, i: int, recording: CachedRecording) -> np.ndarray:
    """The (2, 3) map onto the moved image, from the cameras alone: of the label's joints before and after."""
    k = int(np.flatnonzero(batch.posed[i])[-1])
    before = recording.labels.joints_m[batch.label[i, k]].astype(np.float64)
    if batch.mirrored[i]:
        before = before * [-1, 1, 1]
    after = project(batch.joints_m[i, k].astype(np.float64), batch.image_K[i].astype(np.float64))
    at = np.concatenate([project(before, recording.camera.K), np.ones((21, 1))], -1)
    return np.linalg.lstsq(at, after, rcond=None)[0].T


@pytest.mark.parametrize("augment", [None, QUIET])
def test_labels_cameras_and_crops_agree(recordings, augment):
    """Joints of the hand model at the parameters = joints; projected through crop_K = through image and crop; as
    through K and the virtual crop; and left hands are right ones."""
    batch = _batch(recordings, BatchConfig(augment=augment))
    assert batch.mirrored.any() and not batch.mirrored.all()
    assert (batch.posed.sum(1) >= 1).all() and (batch.posed == (batch.label >= 0)).all()
    joints = batch.joints_m[batch.posed].astype(np.float64)
    np.testing.assert_allclose(_joints(batch), joints, atol=3e-6)
    item = np.nonzero(batch.posed)[0]
    K, image_K = batch.K[item].astype(np.float64), batch.image_K[item].astype(np.float64)
    straight = project(joints, batch.crop_K[batch.posed].astype(np.float64))
    for crop, camera in ((batch.crop, image_K), (batch.virtual, K)):
        s, corner = crop[batch.posed][:, None, :1], crop[batch.posed][:, None, 1:]
        centre = camera[:, None, :2, 2]
        cut = (project(joints, camera) - centre) * s + centre - corner
        np.testing.assert_allclose(cut, straight, atol=1e-3)
    assert (straight > -30).all() and (straight < 158).all()


def test_the_hand_fills_half_of_its_crop_and_lies_in_the_middle(recordings):
    batch = _batch(recordings, BatchConfig())
    scale, centre = batch.crop[..., :1], batch.K[:, None, :2, 2]
    low, high = (
        (corner - centre) * scale + centre - batch.crop[..., 1:]
        for corner in (batch.boxes_px[..., :2], batch.boxes_px[..., 2:])
    )
    np.testing.assert_allclose((low + high) / 2, 63.5, atol=1e-3)
    np.testing.assert_allclose((high - low).max(-1), 64, atol=1e-3)


def test_images_are_those_of_the_columns(recordings):
    batch = _batch(recordings, BatchConfig(augment=QUIET))
    shape = batch.lnes.shape[:2]
    np.testing.assert_array_equal(batch.lnes, lnes(batch.windows).reshape(*shape, 2, 128, 128))
    np.testing.assert_array_equal(batch.voxel, voxel_grid(batch.windows, 5).reshape(*shape, 5, 128, 128))
    w = batch.windows
    on_device = WindowBatch(*(torch.from_numpy(c) for c in (w.x, w.y, w.t, w.p, w.offsets)), w.size)
    np.testing.assert_array_equal(representations_torch.lnes(on_device).numpy().reshape(batch.lnes.shape), batch.lnes)
    alone = _batch(recordings, BatchConfig(augment=QUIET, images=False))
    assert alone.lnes is None and alone.voxel is None
    np.testing.assert_array_equal(alone.windows.x, w.x)


def test_an_item_is_a_function_of_seed_and_epoch_whatever_it_is_batched_with(recordings):
    items, dataset = _items(recordings), SequenceDataset(recordings, BatchConfig(augment=AugmentConfig()))
    whole, alone = dataset.batch(items, seed=1, epoch=2), dataset.batch(items[3:4], seed=1, epoch=2)
    for name in ("lnes", "voxel", "crop", "image_K", "orientation", "joints_px"):
        np.testing.assert_array_equal(getattr(whole, name)[3], getattr(alone, name)[0])
    for options in ({"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 2}):
        other = dataset.batch(items, **options)
        assert (np.abs(other.image_K - whole.image_K).max((1, 2)) > 1e-3).all()


def test_semi_supervised_items_are_augmented_too(recordings):
    """All windows of a sequence by one map, with or without a label (unlike O12 and O13)."""
    items = semi_supervised_items(recordings, WindowConfig(), seed=0, epoch=0)
    batch = SequenceDataset(recordings, BatchConfig(augment=QUIET)).batch(items)
    assert (np.abs(batch.image_K - batch.K).max((1, 2)) > 1e-3).all()


def test_raw_events_are_those_of_the_last_windows_thinned(recordings):
    items = _items(recordings)
    every = SequenceDataset(recordings, BatchConfig(augment=QUIET)).batch(items)
    few = SequenceDataset(recordings, BatchConfig(augment=QUIET, most_events=500)).batch(items)
    counts = np.diff(every.raw.offsets)
    np.testing.assert_array_equal(counts.reshape(-1, 2), every.events_in_image[:, -2:])
    assert counts.max() > 500
    np.testing.assert_array_equal(np.diff(few.raw.offsets), np.minimum(counts, 500))
    taken = []
    for window in range(len(every.raw)):
        a, b = (slice(*batch.raw.offsets[window : window + 2]) for batch in (every, few))
        rows = [np.stack([batch.raw.x[s], batch.raw.y[s], batch.raw.t[s]], -1) for batch, s in ((every, a), (few, b))]
        places = [np.flatnonzero((rows[0] == row).all(1)) for row in rows[1]]
        assert all(len(place) for place in places) and (np.diff(rows[1][:, 2]) >= 0).all()
        taken += [place[0] / len(rows[0]) for place in places] if counts[window] > 500 else []
    assert abs(np.mean(taken) - 0.5) < 0.02  # from anywhere in the window


def test_raw_events_in_the_crops_are_those_that_the_images_show(recordings):
    items = supervised_items(recordings, WindowConfig(windows=4))[:3]
    batch = SequenceDataset(recordings, BatchConfig(raw_in_crop=True)).batch(items)
    assert len(batch.raw) == 6 and batch.raw.size == batch.windows.size
    for k in range(6):
        window = 4 * (k // 2) + 2 + k % 2
        a, b = slice(*batch.raw.offsets[k : k + 2]), slice(*batch.windows.offsets[window : window + 2])
        for name in ("x", "y", "t", "p"):
            np.testing.assert_array_equal(getattr(batch.raw, name)[a], getattr(batch.windows, name)[b])
    few = SequenceDataset(recordings, BatchConfig(raw_in_crop=True, most_events=50)).batch(items)
    np.testing.assert_array_equal(np.diff(few.raw.offsets), np.minimum(np.diff(batch.raw.offsets), 50))


def test_evaluation_windows_without_a_label_hold_zeros(recordings):
    items = evaluation_items(recordings)
    batch = SequenceDataset(recordings, BatchConfig()).batch(items)
    assert (batch.labelled == (items.label >= 0)).all() and len(items) > 5
    assert not batch.wrist[~batch.posed].any() and np.isfinite(batch.lnes).all()
    assert SequenceDataset(recordings, BatchConfig()).batch(items[:0]).lnes.shape == (0, 12, 2, 128, 128)


def test_a_simulated_recording_goes_the_same_way(tmp_path):
    """From the simulator through a file and the cache: its events lie about its hand."""
    clip = simulate_clip(ClipConfig(size=(173, 130), focal_px=165.0, duration_us=200_000, label_rate_hz=30), 0, 0)
    tags = Tags(side="right", subject="0", scene="normal", fast=False, gesture="random", checked=True)
    write_recording(
        tmp_path / "clip.h5", clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, tags=tags
    )
    recording = cache_recordings([tmp_path / "clip.h5"], tmp_path / "cache")[0]
    items = supervised_items([recording], WindowConfig(windows=3, window_us=1e6 / 30, least_events=0))
    assert len(items) == 3  # of 6 labels those with two others before; the first of these begins before the events
    batch = SequenceDataset([recording], BatchConfig(augment=QUIET)).batch(items)
    np.testing.assert_allclose(_joints(batch), batch.joints_m[batch.posed], atol=5e-6)
    last = batch.label.shape[1] - 1
    points = project(batch.joints_m[:, -1].astype(np.float64), batch.crop_K[:, -1].astype(np.float64))
    near = []
    for i in range(len(items)):
        window = slice(*batch.windows.offsets[3 * i + last : 3 * i + last + 2])
        at = np.stack([batch.windows.x[window], batch.windows.y[window]], -1)
        near.append(np.linalg.norm(at[:, None] - points[i], axis=-1).min(1) < 20)
    assert np.concatenate(near).mean() > 0.6


def test_recordings_of_two_sizes_or_hand_models_are_refused(recordings, tmp_path):
    other = replace(recordings[0], camera=replace(recordings[0].camera, size=(640, 480)))
    with pytest.raises(InputError, match="image sizes"):
        SequenceDataset([recordings[0], other])
    labels = replace(recordings[0].labels, hand_model="mano")
    with pytest.raises(InputError, match="hand models"):
        SequenceDataset([recordings[0], replace(recordings[0], labels=labels)])
    with pytest.raises(InputError, match="no recordings"):
        SequenceDataset([])
