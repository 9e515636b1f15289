"""Laws of shards: rows hold what the one preprocessing path sees, and files that grow are read whole."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.data.shards import (
    LabelledClip,
    ShardConfig,
    ShardPool,
    clip_row,
    drawn,
    numbered_row,
    row_dtype,
    write_shard,
)
from evhands.geometry import crop_camera, default_camera, project
from evhands.types import Events, HandPose, InputError

CONFIG = ShardConfig(windows=3, clips_per_shard=2, overviews=2)
CAMERA = default_camera((346, 260))


def clip(index: int = 0) -> LabelledClip:
    """A clip without a simulator: joints on a moving grid, events at random places near them."""
    rng = np.random.default_rng(index)
    t_us = np.array([100_000, 133_333, 166_667, 200_000])
    grid = np.stack([*np.meshgrid(np.linspace(-0.07, 0.07, 7), np.linspace(-0.06, 0.06, 3)), np.full((3, 7), 0.5)], -1)
    joints = grid.reshape(21, 3)[None] + np.linspace(0, 0.03, 4)[:, None, None] * [1, 0, 0]
    n = 3000
    x, y = np.rint(project(joints[0, rng.integers(0, 21, n)], CAMERA.K) + rng.normal(0, 6, (n, 2))).astype(int).T
    events = Events(
        x.clip(0, 345).astype(np.uint16), y.clip(0, 259).astype(np.uint16), np.sort(rng.integers(0, 200_000, n)),
        rng.random(n) < 0.5, (346, 260),
    )  # fmt: skip
    values = [np.zeros((4, 3)), joints[:, 0], np.zeros((4, 15, 3)), np.ones((4, 10))]
    pose = HandPose("right", *(v.astype(np.float32) for v in values))
    return LabelledClip(events, CAMERA, t_us, pose, joints.astype(np.float32))


def row(index: int) -> np.ndarray:
    return numbered_row(clip(index), CONFIG, 5, index)


def test_rows_are_reproducible_and_jitter_follows_the_seed():
    one, same = (clip_row(clip(), CONFIG, np.random.default_rng(1)) for _ in range(2))
    other = clip_row(clip(), CONFIG, np.random.default_rng(2))
    assert one.tobytes() == same.tobytes()
    assert np.abs(one["K"] - other["K"]).max() > 1 and (one["joints"] == other["joints"]).all()


def test_crops_hold_the_hand():
    """The joints of a row, projected by the row's K, stay in the crop for jitters within three deviations."""
    rows = [clip_row(clip(i), CONFIG, np.random.default_rng(i)) for i in range(12)]
    inside = [(project(r["joints"], r["K"]) > -5) & (project(r["joints"], r["K"]) < 101) for r in rows]
    assert np.mean(inside) > 0.97


def test_images_are_those_of_the_preprocessing_path():
    """Without jitter a row holds the crop at the joints' box, quantised to bytes."""
    still = ShardConfig(windows=3, clips_per_shard=2, overviews=2, shift=0.0, scale=0.0)
    row, source = clip_row(clip(), still, np.random.default_rng(0)), clip()
    points = project(source.joints_m[-1], CAMERA.K)
    low, high = points.min(0), points.max(0)
    crop = crop_camera(CAMERA, (low + high) / 2, float((high - low).max()) * still.inputs.crop_scale, 96)
    np.testing.assert_allclose(row["K"][-1], crop.K, rtol=1e-6)
    in_window = (source.events.t_us >= 200_000 - 66_667) & (source.events.t_us < 200_000)
    assert row["events"][-1] == in_window.sum()
    assert row["lnes"][-1].max() <= 255 and (row["lnes"][-1] > 0).any()


def test_a_growing_folder(tmp_path):
    pool = ShardPool(tmp_path)
    assert len(pool) == 0
    path = write_shard(tmp_path, 0, row, 2)
    before = path.read_bytes()
    assert pool.refresh() == 2
    write_shard(tmp_path, 1, row, 2)
    assert write_shard(tmp_path, 0, lambda i: pytest.fail("made again"), 2).read_bytes() == before
    assert pool.refresh() == 4
    rows = pool.take(np.array([3, 0]))
    assert rows[0].tobytes() == clip_row(clip(3), CONFIG, np.random.default_rng((5, 3, 7))).tobytes()


def test_overview_boxes_cover_the_joints():
    row = clip_row(clip(), CONFIG, np.random.default_rng(0))
    image, (x, y, extent) = row["overview"][0], row["box"][0]
    rows, columns = np.nonzero(image.max(0))
    assert abs(columns.mean() - x) < extent / 3 and abs(rows.mean() - y) < extent / 3


def some_shards(folder, config: ShardConfig, marks: list[int]) -> None:
    """A shard of two rows for each mark, which stands in the first box of its rows."""
    folder.mkdir()
    for number, mark in enumerate(marks):
        rows = np.zeros(2, row_dtype(config))
        rows["box"][:, 0, 0] = mark
        np.save(folder / f"shard-{number:05d}.npy", rows)


def test_folders_of_unlike_clips_are_one_pool_in_the_fields_they_share(tmp_path):
    some_shards(tmp_path / "long", ShardConfig(windows=7), [1, 2, 3])
    some_shards(tmp_path / "short", ShardConfig(windows=5), [4])
    folders = tmp_path / "long", tmp_path / "short"
    pool = ShardPool(*folders, fields=("overview", "box"))
    rows = pool.take(np.arange(len(pool)))
    np.testing.assert_array_equal(rows["box"][:, 0, 0], [1, 1, 2, 2, 3, 3, 4, 4])
    assert rows.dtype.names == ("overview", "box")
    short = drawn(pool, np.random.default_rng(0), 400)["box"][:, 0, 0] == 4
    assert abs(short.mean() - 0.5) < 4 * np.sqrt(0.25 / 400), "every folder is drawn from equally often"
    with pytest.raises(InputError, match="--windows"):
        ShardPool(*folders)


def test_rows_of_another_kind_are_refused_by_what_they_lack(tmp_path):
    some_shards(tmp_path / "poses", ShardConfig(windows=7), [1])
    with pytest.raises(InputError, match="without shown.*--kind finding"):
        ShardPool(tmp_path / "poses", fields=("lnes", "shown"))
