"""Laws of the three stages of `small`, on a tiny network and recordings of a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evhands.data.items import EvaluationConfig
from evhands.inputs import InputConfig
from evhands.models.checkpoint import read_checkpoint
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.models.small_stages import run_windows
from evhands.recipes import small_recipe
from evhands.small_recipes import SMALL_STAGE_RECIPES, SmallStageConfig, SmallStageTask
from evhands.stage_data import stage_data
from evhands.training import ALL_RECIPES, TrainData, train
from evhands.types import InputError
from hand_recordings import write_hand

SIDE = 32
NETWORK = SmallConfig(
    inputs=InputConfig(size_px=SIDE, voxel_bins=3),
    channels=(8, 8, 16),
    blocks=(1, 1, 1),
    memory=8,
    decoder=8,
    flow=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings of a subject to learn from, a right and a left hand, and of one to be validated on."""
    path = tmp_path_factory.mktemp("recordings")
    write_hand(path / "a.h5", 1, seconds=0.9, subject="5")
    write_hand(path / "b.h5", 2, seconds=0.7, subject="5", side="left")
    write_hand(path / "c.h5", 3, seconds=0.9, subject="7")
    return path


def config(stage: str, **changes) -> SmallStageConfig:
    made = SMALL_STAGE_RECIPES[f"small-{stage}"][0]()
    tiny = replace(
        made,
        model=NETWORK,
        windows=replace(made.windows, windows=4, spread_us=10_000.0),
        evaluation=EvaluationConfig(windows=4, history_us=250_000),
        batch=4,
        micro_batch=2,
        steps=3,
        warmup_steps=0,
        bf16=False,
        save_every_s=1e9,
    )
    return replace(tiny, **changes)


def data(folder: Path, config: SmallStageConfig) -> TrainData:
    return TrainData(*stage_data([folder], folder.parent / f"{folder.name}-cache", config))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path, wanted="small").model.state_dict()


def a_start(**changes) -> SmallEstimator:
    torch.manual_seed(0)
    return SmallEstimator(replace(NETWORK, **changes)).eval()


def changed_names(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_the_flow_stage_learns_the_flow_and_changes_nothing_but_its_branch(folder, tmp_path):
    settings = config("flow", steps=20, average=0.0)
    source, start = data(folder, settings), a_start()
    before = SmallStageTask(settings).figures(start, source.held_out)["flow"]
    path = train(settings, "small-flow", source, tmp_path, start=start, device="cpu")
    assert read_checkpoint(path).meta.figures["flow"] < 0.9 * before
    changed = changed_names(start.state_dict(), weights(path))
    assert {name.rpartition(".")[0].split(".")[2] for name in changed} == {"features", "flow"}
    assert all(name.startswith("network.flow.") for name in changed)


def test_the_supervised_stage_leaves_the_flow_and_its_norms_alone(folder, tmp_path):
    settings, start = config("supervised", average=0.0), a_start()
    path = train(settings, "small-supervised", data(folder, settings), tmp_path, start=start, device="cpu")
    changed = changed_names(start.state_dict(), weights(path))
    assert not [name for name in changed if name.startswith(("network.flow.features", "network.flow.flow"))]
    assert {"network.flow.out.weight", "network.maps.weight", "network.stem.1.0.weight"} <= changed


def test_a_start_without_the_branch_gives_the_same_poses(folder):
    settings = config("supervised")
    held_out, start = data(folder, settings).held_out, a_start(flow=False)
    plain = SmallStageTask(replace(settings, model=replace(NETWORK, flow=False)))
    plain.begin_with(start)
    task = SmallStageTask(settings)
    task.begin_with(start)
    assert task.figures(task.model.eval(), held_out) == plain.figures(plain.model.eval(), held_out)
    remembering = SmallStageTask(replace(settings, model=replace(NETWORK, recall=8)))
    remembering.begin_with(start)
    figures = remembering.figures(remembering.model.eval(), held_out)
    assert figures == pytest.approx(plain.figures(plain.model.eval(), held_out), rel=1e-5)
    with pytest.raises(InputError, match="does not fit"):
        plain.begin_with(a_start())  # what the branch has learnt would be lost in silence


@pytest.mark.parametrize("loss", ["contrast", "edge"])
def test_events_alone_teach_every_part_that_makes_poses(folder, loss):
    """A semi-supervised step without the losses of labels: its gradient is finite, and not nothing."""
    settings = config("semi", weights={loss: 1.0})
    task = SmallStageTask(settings)
    task.begin_with(a_start())
    task.train()
    batch, _ = task.sample(data(folder, settings).train, np.random.default_rng(0), None)
    for part in task.parts(batch):
        task(part)[0][loss].backward()
    gradients = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for name in ("stem.1.0.weight", "maps.weight", "head.weight", "memory.from_input.weight"):
        assert gradients[f"network.{name}"].abs().max() > 0, name


def test_a_stage_stopped_and_resumed_is_uninterrupted_bit_for_bit(folder, tmp_path, monkeypatch):
    whole = config("semi")
    train(whole, "small-semi", data(folder, whole), tmp_path / "whole", start=a_start(), device="cpu")
    sample, calls = SmallStageTask.sample, []

    def interrupted(self, pool, rng, lanes):
        calls.append(lanes)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, pool, rng, lanes)

    with monkeypatch.context() as patched:
        patched.setattr(SmallStageTask, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(whole, "small-semi", data(folder, whole), tmp_path / "parts", start=a_start(), device="cpu")
    train(whole, "small-semi", data(folder, whole), tmp_path / "parts", device="cpu")
    assert not changed_names(*(weights(tmp_path / run / "model.pt") for run in ("whole", "parts")))


def test_parts_of_a_batch_give_the_gradients_of_the_whole(folder):
    """Every loss is divided by the number of labels of the whole batch, wherever these lie."""
    settings = config("semi", labels=0.5)
    pool, task = data(folder, settings).train, SmallStageTask(settings).eval()
    batch, _ = task.sample(pool, np.random.default_rng(0), None)
    gradients = []
    for size in (4, 1):
        task.zero_grad()
        task.config = replace(settings, micro_batch=size)
        for part in task.parts(batch):
            values = task(part)[0]
            sum(weight * values[name] for name, weight in settings.weights.items()).backward()
        gradients.append({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        tolerance = float(1e-3 * gradient.abs().max()) + 1e-9
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("recall", [0, 8])
def test_the_last_windows_are_those_of_all(folder, recall):
    model = a_start(recall=recall)
    if recall:
        torch.nn.init.normal_(model.network.recall.out.weight)
    batch = {
        "lnes": torch.rand(2, 4, 2, SIDE, SIDE),
        "voxel": torch.rand(2, 4, 3, SIDE, SIDE),
        "crop_K": torch.tensor([[90.0, 0, 16], [0, 90, 16], [0, 0, 1]]).expand(2, 4, 3, 3),
    }
    with torch.no_grad():
        whole, _ = run_windows(model, batch, 4)
        last, _ = run_windows(model, batch | {"crop_K": batch["crop_K"][:, -2:]}, 2)
    for name, value in vars(last).items():
        torch.testing.assert_close(value, getattr(whole, name)[:, -2:], msg=name)


def test_semi_supervised_items_are_as_many_as_asked_and_other_ones_every_epoch(folder):
    many, few = config("semi", labels=0.4, semi_items=None), config("semi", labels=0.4, semi_items=0.5)
    supervised = len(data(folder, replace(many, semi_items=0.0)).train)
    assert len(data(folder, many).train) - supervised > round(0.5 * supervised) > 0
    pool = data(folder, few).train
    assert len(pool) == supervised + round(0.5 * supervised)
    drawn = [pool.items(epoch).edges_us[supervised:] for epoch in (0, 1)]
    assert not np.array_equal(*drawn)


def test_the_recipes_are_known_and_small_has_its_own_losses():
    assert set(SMALL_STAGE_RECIPES) <= set(ALL_RECIPES)
    own = small_recipe().weights
    assert SMALL_STAGE_RECIPES["small-supervised"][0]().weights == own
    assert set(SMALL_STAGE_RECIPES["small-semi"][0]().weights) == {*own, "contrast", "edge", "smooth"}
    with pytest.raises(InputError, match="flow"):
        SmallStageTask(config("flow", model=replace(NETWORK, flow=False)))


def test_losses_of_labels_are_of_labelled_windows_alone(folder):
    """Whatever stands where there is no label has no part in values and gradients; motion needs two labels in turn."""
    settings = config("supervised", labels=0.5)
    pool, task = data(folder, settings).train, SmallStageTask(settings).eval()
    batch = pool.tensors(pool.items(0)[:6])
    labelled = batch["labelled"]
    assert labelled.any() and not labelled.all()
    found = []
    for hidden in (0.0, float("nan")):
        changed = {
            name: torch.where(labelled.view(*labelled.shape, *[1] * (batch[name].ndim - 2)), batch[name], hidden)
            for name in ("orientation", "wrist", "joints", "shape")
        }
        task.zero_grad()
        terms = task._terms(task.model, batch | changed)
        torch.stack([term.values[term.counted].sum() for term in terms.values()]).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
        assert gradient.isfinite().all()
        found.append(({name: term.values[labelled] for name, term in terms.items()}, gradient))
        assert all(torch.equal(term.counted, labelled) for term in terms.values())
    assert torch.equal(found[0][1], found[1][1])
    behind = torch.cat([torch.zeros_like(labelled[:, :1]), labelled[:, :-1]], 1) & labelled
    assert torch.equal(terms["motion"].values > 0, behind)
