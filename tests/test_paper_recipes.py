"""Laws of the paper's stages in the training loop, on a tiny network and recordings of a second."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evhands import losses
from evhands.data.augment import AugmentConfig
from evhands.data.items import EvaluationConfig, Items
from evhands.hand.model import load_hand
from evhands.hand_flow import crop_flow, hand_flow
from evhands.inputs import InputConfig
from evhands.models.checkpoint import read_checkpoint
from evhands.models.encoder import EncoderConfig
from evhands.models.flow import FlowConfig
from evhands.models.paper import PaperConfig, PoseNetworkConfig
from evhands.models.paper_stages import StageConfig, prediction_losses, true_poses
from evhands.paper_recipes import PAPER_RECIPES, PaperTask, semi_recipe
from evhands.stage_data import Sequences, StageTrainConfig, stage_data
from evhands.stage_task import counted_as, term_counts
from evhands.training import TrainData, train
from evhands.types import HandPose, InputError
from hand_recordings import SIZE, write_hand

SIDE = 32
NETWORK = PaperConfig(
    flow=FlowConfig(bins=3, base_channels=4, levels=2, residual_blocks=1, range_px=SIDE / 8),
    pose=PoseNetworkConfig(
        encoder=EncoderConfig(channels=(8, 16), blocks=(1, 1)),
        recurrent_channels=8,
        hidden=16,
        translation_mean=(0.0, 0.0, 0.85),
        translation_scale=(0.03, 0.03, 0.03),
    ),
    inputs=InputConfig(size_px=SIDE, crop_scale=2.0, voxel_bins=3),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings of a subject to learn from, a left and a right hand, and of one to be validated on."""
    path = tmp_path_factory.mktemp("recordings")
    write_hand(path / "a.h5", 1, seconds=0.9, subject="5")
    write_hand(path / "b.h5", 2, seconds=0.7, subject="5", side="left")
    write_hand(path / "c.h5", 3, seconds=0.9, subject="7")
    return path


def config(recipe: str, **changes) -> StageTrainConfig:
    made = PAPER_RECIPES[recipe][0]()
    return replace(
        made,
        model=replace(NETWORK, flow_training=made.model.flow_training),
        windows=replace(made.windows, windows=3, spread_us=10_000.0),
        evaluation=EvaluationConfig(windows=3, history_us=250_000),
        batch=2,
        micro_batch=1,
        steps=3,
        save_every_s=1e9,
        **changes,
    )


def data(folder: Path, config: StageTrainConfig) -> TrainData:
    return TrainData(*stage_data([folder], folder.parent / f"{folder.name}-cache", config))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path, wanted="paper").model.state_dict()


def test_a_stage_stopped_and_resumed_is_uninterrupted_bit_for_bit(folder, tmp_path, monkeypatch):
    whole = config("semi")
    train(whole, "semi", data(folder, whole), tmp_path / "whole", device="cpu")
    sample, calls = PaperTask.sample, []

    def interrupted(self, pool, rng, lanes):
        calls.append(lanes)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, pool, rng, lanes)

    with monkeypatch.context() as patched:
        patched.setattr(PaperTask, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(whole, "semi", data(folder, whole), tmp_path / "parts", device="cpu")
    train(whole, "semi", data(folder, whole), tmp_path / "parts", device="cpu")
    one, two = (weights(tmp_path / run / "model.pt") for run in ("whole", "parts"))
    for name, value in one.items():
        assert torch.equal(two[name], value), name


@pytest.mark.parametrize("recipe", ["flow", "supervised"])
def test_each_stage_changes_its_own_network_only(recipe, folder, tmp_path):
    """The FlowNet in the first stage; in the others the pose network, not even the FlowNet's batch norms."""
    settings = config(recipe, validate_every=1)
    torch.manual_seed(0)
    start = PaperTask(settings).model
    before = {name: value.clone() for name, value in start.state_dict().items()}
    path = train(settings, recipe, data(folder, settings), tmp_path, start=start, device="cpu")
    changed = {name.split(".")[0] for name, value in weights(path).items() if not torch.equal(value, before[name])}
    assert changed == {"flow" if recipe == "flow" else "pose"}
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    metric = "flow" if recipe == "flow" else "mpjpe_mm"
    assert len(rows) == 3
    best = read_checkpoint(tmp_path / "best.pt", wanted="paper").meta.figures[metric]
    assert best == pytest.approx(min(float(row[metric]) for row in rows), rel=1e-3)


def test_a_run_folder_says_what_it_was_made_with(folder, tmp_path):
    settings = config("supervised")
    train(settings, "supervised", data(folder, settings), tmp_path, device="cpu", command="evhands train x")
    told = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "environment", "data")}
    assert told["config"]["recipe"] == "supervised" and told["config"]["model"]["inputs"]["size_px"] == SIDE
    assert told["environment"]["command"] == "evhands train x" and told["environment"]["packages"]["torch"]
    assert [name.split("-")[0] for name in told["data"]["recordings"]["validation"]] == ["c"]
    assert {"best.pt", "last.pt", "model.pt"} <= {path.name for path in tmp_path.iterdir()}
    assert list(tmp_path.glob("events.out.tfevents*"))
    with pytest.raises(InputError, match="semi"):
        train(config("semi"), "semi", data(folder, config("semi")), tmp_path, device="cpu")


def test_parts_of_a_batch_give_the_gradients_of_the_whole(folder):
    """Every loss is divided by the number of labels of the whole batch, wherever these lie."""
    settings = config("semi", labels=0.5)
    pool = data(folder, settings).train
    task = PaperTask(settings).eval()
    batch, _ = task.sample(pool, np.random.default_rng(0), None)
    batch = replace(batch, items=pool.items(0)[pool.order(0)[:4]])
    gradients = []
    for size in (4, 1):
        task.zero_grad()
        task.config = replace(settings, micro_batch=size)
        for part in task.parts(batch):
            values = task(part)[0]
            sum(weight * values[name] for name, weight in settings.weights.items()).backward()
        gradients.append({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        tolerance = float(2e-4 * gradient.abs().max()) + 1e-12
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=tolerance, msg=name)


def test_counts_from_labels_alone_are_those_of_the_terms(folder):
    settings = config("semi")
    pool = data(folder, settings).train
    task = PaperTask(settings).eval()
    order = pool.order(0)[:3]
    batch = pool.tensors(pool.items(0)[order])
    terms = task._terms(task.model, batch)
    counts = term_counts(batch["labelled"])
    for name, count in losses.term_counts(terms).items():
        if name != "edge":
            assert counts[counted_as(name)] == count, name
    assert terms["edge"].counted.sum() <= counts["edge"]


def test_hand_flow_of_augmented_items_is_that_of_their_crops(folder):
    """Events live in the moved image: the flow cut from there is the flow seen by the camera of the crop."""
    settings = config("flow", augment=AugmentConfig(jitter=0.0))
    pool = data(folder, settings).train
    batch = pool.tensors(pool.items(0)[:2])
    assert (batch["image_K"] - batch["K"]).abs().amax((1, 2)).min() > 1
    hand, pose = load_hand(), true_poses(batch, load_hand())
    start, end = (_windows(pose, part) for part in (slice(0, 2), slice(1, 3)))
    crop_K = batch["crop_K"][:, 1:]
    K = batch["image_K"][:, None].expand_as(crop_K)
    cut = crop_flow(hand_flow(hand, start, end, K, SIZE).flow, K, crop_K, SIDE)
    seen = hand_flow(hand, start, end, crop_K, (SIDE, SIDE)).flow
    both = (cut.abs().sum(2) > 0.1) & (seen.abs().sum(2) > 0.1)
    assert both.float().mean() > 0.05
    error = (cut - seen).norm(dim=2)[both]
    assert error.median() < 0.05 * seen.norm(dim=2)[both].median()
    said = prediction_losses(hand, None, cut[:, :, None], batch, {"flow"}, StageConfig(size=SIZE))["flow"]
    assert said.counted.all() and said.values.max() < 1e-10


def _windows(pose: HandPose, part: slice) -> HandPose:
    names = ("orientation", "wrist", "joints", "shape")
    return replace(pose, **{name: getattr(pose, name)[:, part] for name in names})


def test_validation_is_over_all_labels_alike(folder):
    settings = config("supervised")
    held_out = data(folder, settings).held_out
    found = []
    for size in (1, 4):
        torch.manual_seed(0)
        task = PaperTask(replace(settings, micro_batch=size))
        found.append(task.figures(task.model.eval(), held_out))
    assert len(held_out) > 4 and len(held_out) % 4
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_an_epoch_shows_every_item_once_and_semi_supervised_ones_are_drawn_anew(folder):
    settings = replace(config("semi"), batch=4)
    pool, task = data(folder, settings).train, PaperTask(settings)
    place, seen = None, {0: [], 1: []}
    while place is None or place.epoch < 2:
        batch, place = task.sample(pool, np.random.default_rng(0), place)
        if batch.epoch < 2:
            seen[batch.epoch] += _places(batch.items)
    for epoch in (0, 1):
        assert sorted(seen[epoch]) == sorted(_places(pool.items(epoch)))
    supervised = int(((pool.items(0).label >= 0).sum(1) == 3).sum())
    assert len(seen[0]) > len(set(seen[0]) & set(seen[1])) >= supervised > 0


def _places(items: Items) -> list[tuple[int, bytes]]:
    return [(int(r), edges.tobytes()) for r, edges in zip(items.recording, items.edges_us)]


def test_a_share_of_the_labels_hides_the_others_but_keeps_their_events(folder):
    few = replace(config("semi"), labels=0.3)
    pool, every = data(folder, few).train, data(folder, config("semi")).train

    def shown(pool: Sequences) -> set[tuple[int, int]]:
        items = pool.items(0)
        return {(r, int(row)) for r, rows in zip(items.recording.tolist(), items.label) for row in rows if row >= 0}

    assert shown(pool) < shown(every) and len(shown(pool)) <= 0.5 * len(shown(every))
    assert (pool.items(0).label < 0).all(1).any()


def test_defaults_are_those_of_the_paper():
    for name, epochs, rate, batch in (("flow", 20, 5e-4, 16), ("supervised", 40, 5e-4, 32), ("semi", 40, 5e-5, 32)):
        made = PAPER_RECIPES[name][0]()
        assert (made.epochs, made.learning_rate, made.batch) == (epochs, rate, batch)
        assert (made.optimizer, made.weight_decay, made.clip_value, made.clip_norm) == ("adam", 1e-4, 1.0, None)
        assert made.windows.windows == 12 and made.augment is not None
    assert semi_recipe().weights == {"joint": 1000, "parameter": 0.1, "contrast": -3, "edge": 0.05, "smooth": 0.2}
