"""Laws of the training loop: it learns, stops and goes on as if it had not stopped."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evhands.data.shards import ShardConfig, ShardPool, row_dtype
from evhands.models.checkpoint import read_checkpoint
from evhands.recipes import RECIPES, SmallTask, augmented, moved, small_recipe
from evhands.simulated_rows import MemoryRows
from evhands.training import train
from evhands.types import InputError

CONFIG = ShardConfig(windows=4, clips_per_shard=4)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Rows with a plausible hand and images that show where its joints are."""
    from evhands.geometry import project
    from evhands.models.small import SmallConfig, SmallEstimator

    torch.manual_seed(0)
    estimator = SmallEstimator(SmallConfig())
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        rows = np.zeros(4, row_dtype(CONFIG))
        rotvecs = estimator.joint_rotvecs(torch.randn(4, 1, 24)).expand(4, 4, 15, 3)
        shape = torch.randn(4, 1, 10)
        posed = estimator.hand.with_shape(shape).with_pose(torch.zeros(4, 4, 3), rotvecs, torch.tensor([0.05, 0, 0.5]))
        rows["joints"] = posed.joints().numpy()
        rows["rotvecs"], rows["shape"] = rotvecs.numpy(), shape[:, 0].numpy()
        rows["K"] = [[300, 0, 40], [0, 300, 48], [0, 0, 1]]
        pixels = project(rows["joints"], rows["K"][0, 0]).round().astype(int).clip(0, 95)
        for b, t in np.ndindex(4, 4):
            rows["lnes"][b, t, :, pixels[b, t, :, 1], pixels[b, t, :, 0]] = 255
        rows["overview"] = rng.integers(0, 2, rows["overview"].shape) * 255
        rows["box"] = [40.0, 30.0, 20.0]
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "shard-00000.npy", rows)
    return tmp_path


def config(steps: int, **changes):
    return replace(
        small_recipe(), steps=steps, hours=9.0, images=8, windows=2, warmup_steps=2, validate_every=10, **changes
    )


def test_training_learns_what_it_sees(shards):
    train(replace(config(30), validate_every=3), "small", shards, shards / "run", device="cpu")
    with open(shards / "run" / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.8 * losses[0], losses
    checkpoint = read_checkpoint(shards / "run" / "model.pt", wanted="small")
    assert checkpoint.meta.data["train_clips"] == 4 and checkpoint.meta.figures["mpjpe_mm"] > 0


def test_stopped_and_resumed_is_uninterrupted(shards, monkeypatch):
    """Every random draw belongs to its step, so a run in two parts gives the weights of a run in one."""
    whole = config(6, save_every_s=1e9)
    train(whole, "small", shards, shards / "whole", device="cpu")
    interrupted = {"calls": 0}
    draw = SmallTask.sample

    def sample(self, pool, rng, lanes):
        interrupted["calls"] += 1
        if interrupted["calls"] == 4:
            raise KeyboardInterrupt
        return draw(self, pool, rng, lanes)

    monkeypatch.setattr(SmallTask, "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        train(replace(whole, save_every_s=0.0), "small", shards, shards / "parts", device="cpu")
    monkeypatch.setattr(SmallTask, "sample", draw)
    train(whole, "small", shards, shards / "parts", device="cpu")
    one, two = (read_checkpoint(shards / run / "model.pt").model.state_dict() for run in ("whole", "parts"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=1e-5)


def test_the_detector_trains_on_the_same_loop(shards):
    detector = replace(RECIPES["detector"][0](), steps=4, images=8, warmup_steps=2, validate_every=2)
    path = train(detector, "detector", shards, shards / "detector", device="cpu")
    assert 0 <= read_checkpoint(path, wanted="detector").meta.figures["missed"] <= 1


def test_no_shards_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="evhands prepare"):
        train(config(1), "small", tmp_path, tmp_path / "run", device="cpu")


def test_augmentation_thins_and_adds_within_its_bounds():
    images = np.full((6, 3, 2, 32, 32), 0.5, np.float32)
    kept = augmented(images, np.random.default_rng(0), thinning=0.3, noise=0.0)
    assert 0.7 < (kept == 0.5).mean() < 1 and set(np.unique(kept)) == {0.0, 0.5}
    added = augmented(np.zeros_like(images), np.random.default_rng(0), thinning=0.0, noise=0.05)
    assert 0 < (added > 0).mean() < 0.05


def test_moved_pictures_take_their_boxes_along():
    images, boxes = np.zeros((1, 2, 64, 88), np.float32), np.array([[40.0, 30.0, 20.0]], np.float32)
    images[0, :, 30, 40] = 1
    for seed in range(8):
        shifted, box = moved(images, boxes, np.random.default_rng(seed))
        row, column = np.argwhere(shifted[0, 0])[0]
        assert (box[0, :2] == [column, row]).all() and box[0, 2] == 20


def test_validation_looks_at_all_rows(shards):
    task = SmallTask(config(1))
    figures = task.figures(task.model.eval(), ShardPool(shards / "val"))
    names = {"mpjpe_mm", "pa_mpjpe_mm", "uv_px"}
    assert set(figures) == names | {f"free_{name}" for name in names}
    assert all(np.isfinite(figures[name]) for name in names)


def test_validation_tells_turned_hands_from_frontal_ones(shards):
    task = SmallTask(config(1))
    rows = np.load(shards / "val" / "shard-00000.npy")
    rows["turned"] = [0, 1, 0, 1]
    figures = task.figures(task.model.eval(), MemoryRows(rows))
    for prefix, part in (("", rows[[0, 2]]), ("free_", rows[[1, 3]])):
        part["turned"] = 0
        alone = task.figures(task.model.eval(), MemoryRows(part))
        assert figures[f"{prefix}mpjpe_mm"] == pytest.approx(alone["mpjpe_mm"], rel=1e-5)


def test_chunks_with_carried_memory_say_what_the_whole_clip_says(shards):
    """A clip in two steps, the second with the memory of the first, is the clip in one."""
    task = SmallTask(config(1)).eval()
    rows = np.load(shards / "val" / "shard-00000.npy")
    whole, _, _ = task.outputs(task.model, task.batch(rows, np.tile(np.arange(4), (4, 1))))
    first, _, memory = task.outputs(task.model, task.batch(rows, np.tile([0, 1], (4, 1))))
    second, _, _ = task.outputs(task.model, task.batch(rows, np.tile([2, 3], (4, 1))) | {"memory": memory})
    torch.testing.assert_close(torch.cat([first.uv, second.uv]), whole.uv, atol=1e-5, rtol=1e-4)


def test_lanes_walk_through_whole_clips_in_order(shards):
    """Each lane goes on where it was until its clip is done; a new clip begins at its start, with empty memory."""
    task, pool = SmallTask(config(1)), ShardPool(shards / "train")
    _, lanes = task.sample(pool, np.random.default_rng(0), None)
    for step in range(1, 12):
        before = replace(lanes, memory=torch.ones_like(lanes.memory))
        batch, lanes = task.sample(pool, np.random.default_rng(step), before)
        fresh = before.next + before.stride >= 4
        assert (lanes.next - 2 * lanes.stride == np.where(fresh, 0, before.next)).all()
        assert (batch["memory"].flatten(1)[torch.from_numpy(fresh)] == 0).all()
        assert (batch["memory"].flatten(1)[torch.from_numpy(~fresh)] == 1).all()
        assert (lanes.rows["joints"][~fresh] == before.rows["joints"][~fresh]).all()
        assert (lanes.next <= 4 + lanes.stride - 1).all()


def test_a_run_may_begin_with_given_weights(shards):
    start = read_checkpoint(train(config(2), "small", shards, shards / "first", device="cpu")).model
    path = train(config(1, learning_rate=1e-12), "small", shards, shards / "second", start=start, device="cpu")
    for name, value in read_checkpoint(path).model.named_parameters():
        torch.testing.assert_close(value, dict(start.named_parameters())[name], atol=1e-6, rtol=1e-5)


def test_a_training_may_follow_a_tracking():
    """What libraries and the hand keep from a prediction does not spoil the gradients of a later training."""
    code = """
import torch
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.types import Camera, Events, EventWindow
import numpy as np
model = SmallEstimator(SmallConfig()).eval()
none = Events(np.zeros(0, np.uint16), np.zeros(0, np.uint16), np.zeros(0, np.int64), np.zeros(0, bool), (96, 96))
camera = Camera(np.array([[150.0, 0, 48], [0, 150, 48], [0, 0, 1]]), (96, 96))
model.predict(EventWindow(none, 0, 1000), camera, camera, model.initial_state(1))
prediction, _ = model({"lnes": torch.rand(1, 2, 96, 96), "K": torch.tensor(camera.K[None]).float()},
                      model.initial_state(1))
prediction.pose.orientation.sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
