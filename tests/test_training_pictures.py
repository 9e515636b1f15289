"""Laws of the pictures of a training: what is drawn where, always of the same items, and that they are logged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evhands.paper_recipes import PaperTask
from evhands.recipes import RECIPES, DetectorTask, SmallTask
from evhands.training import train
from evhands.training_pictures import PANEL_PX, pictures, sheet, skeletons_panel
from hand_recordings import write_hand
from test_paper_recipes import SIDE, config, data
from test_processes import SMALL, clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    write_hand(path / "a.h5", 1, seconds=0.7, subject="5")
    write_hand(path / "c.h5", 3, seconds=0.9, subject="7")
    return path


def test_joints_are_drawn_where_they_are_the_prediction_above_the_truth():
    truth, predicted = np.full((21, 2), 10.0), np.full((21, 2), 30.0)
    empty = np.zeros((2, 64, 64), np.float32)
    panel = skeletons_panel(empty, truth, predicted, "")
    scale = PANEL_PX // 64
    dark, (a, b) = (
        panel[-1, -1].astype(int),
        (panel[int(n * scale) + scale // 2, int(n * scale) + scale // 2] for n in (10, 30)),
    )
    assert np.abs(a - dark).sum() > 200 and np.abs(b - dark).sum() > 200
    alone = skeletons_panel(empty, truth, truth, "")
    assert np.abs(alone.astype(int) - skeletons_panel(empty, truth, None, "")).sum() > 0


def test_a_sheet_keeps_every_panel_in_its_place():
    panels = [[np.full((5, 7, 3), 10 * i + k, np.uint8) for k in range(3)] for i in range(2)]
    page = sheet([panels[0], panels[1][:2]])
    step = (page.shape[0] - 5, (page.shape[1] - 7) // 2)
    for i, row in enumerate(panels):
        for k, panel in enumerate(row[: 3 - i]):
            assert (page[i * step[0] :, k * step[1] :][:5, :7] == panel).all()


@pytest.mark.parametrize(("recipe", "panels"), [("flow", 3), ("supervised", 4)])
def test_pictures_of_a_stage_are_of_fixed_items_and_change_with_the_weights(recipe, panels, folder):
    """... but the events do not, nor what true poses make of them."""
    settings = config(recipe)
    # Even an untrained network shall lay the hand into the crop, which lies up and left in its virtual camera.
    pose = replace(settings.model.pose, translation_mean=(-0.44, -0.33, 0.85))
    settings = replace(settings, model=replace(settings.model, pose=pose))
    pool = data(folder, settings).held_out
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        task = PaperTask(settings)
        found.append(pictures(task, task.model.eval(), pool))
    side = SIDE * (PANEL_PX // SIDE)
    one, again, other = (each["warped_events"] for each in found)
    assert (one == again).all() and one.shape[1] > side * panels
    assert (one[:, : 2 * side] == other[:, : 2 * side]).all() and (one != other).any()
    skeletons = "truth" if recipe == "flow" else "predictions"
    assert (found[0][skeletons] == found[2][skeletons]).all() == (recipe == "flow")


def test_small_has_pictures_of_its_clips_and_the_detector_none():
    task = SmallTask(SMALL)
    pool = clips().held_out
    page = pictures(task, task.model.eval(), pool)["predictions"]
    side, gap = 3 * 96, 4
    assert page.shape == (4 * (side + gap) - gap, 3 * (side + gap) - gap, 3)  # four of the clips, of four windows each
    detector = DetectorTask(replace(RECIPES["detector"][0]()))
    assert pictures(detector, detector.model, pool) == {}


def test_a_training_logs_them_at_each_validation(folder, tmp_path):
    settings = config("supervised", validate_every=1)
    train(replace(settings, steps=2), "supervised", data(folder, settings), tmp_path, device="cpu")
    log = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert {name: len(log.Images(name)) for name in log.Tags()["images"]} == {"predictions": 2, "warped_events": 2}
    assert {"gradient_norm", "step_s", "loss/joint", "val/mpjpe_mm"} <= set(log.Tags()["scalars"])
