"""The evaluation on simulated clips: a perfect model scores zero, a missing pose counts as the constant one."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evhands.baselines import fit_constant_pose
from evhands.hand.model import load_hand
from evhands.inputs import InputConfig
from evhands.sim.generate import Clip, ClipConfig, simulate_clip
from evhands.tracking import Tracker, TrackerConfig
from evhands.types import HandPose, Prediction

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "evaluate_simulated.py"


@pytest.fixture(name="script", scope="module")
def _script():
    spec = importlib.util.spec_from_file_location("evaluate_simulated", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="clip", scope="module")
def _clip() -> Clip:
    return simulate_clip(ClipConfig(duration_us=300_000, subjects=(1_000_000, 1_000_100)), 1, 0)


class Oracle:
    """Reads the labels; as a detector it sees the hand or, if blind, nothing."""

    input_config = InputConfig()

    def __init__(self, clip: Clip, blind: bool = False):
        self.clip, self.blind = clip, blind
        self.rows = {int(t): i for i, t in enumerate(clip.label_t_us)}

    def initial_state(self, batch):
        return None

    def predict(self, window, camera, crop, state, side="right"):
        names = ("orientation", "wrist", "joints", "shape")
        pose = (getattr(self.clip.pose, name)[self.rows[window.end_us]] for name in names)
        return Prediction(HandPose("right", *pose, "open"), np.float32(0.9)), state

    def detect(self, window, camera):
        if self.blind:
            return ()
        pixels = self.clip.joints_px[self.rows[window.end_us]]
        return (Seen(pixels),)


class Seen:
    confidence = 0.9

    def __init__(self, pixels: np.ndarray):
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        self.centre_px, self.extent_px = (low + high) / 2, float((high - low).max())


def scores(script, clip: Clip, blind: bool = False):
    oracle = Oracle(clip, blind)
    config = TrackerConfig(smoothing=None, min_events=1)
    return script.score_clip(clip, Tracker(oracle, oracle, load_hand("open"), clip.camera, config))


def test_labels_without_a_whole_window_do_not_count(script, clip) -> None:
    labels = [i for i, _ in script.clip_windows(clip, 66_667)]
    assert labels[0] > 0 and clip.label_t_us[labels[0]] >= 66_667 and labels[-1] == len(clip.label_t_us) - 1


def test_a_model_that_knows_the_truth_scores_zero_both_ways(script, clip) -> None:
    constant = fit_constant_pose(clip.joints_m + np.linspace(0, 0.05, 63).reshape(21, 3))
    figures = script.report(scores(script, clip), constant)[1]
    assert figures["found"] == 1.0
    assert max(figures[f"{crop}{name}"] for crop in ("", "true_crop_") for name in ("mpjpe_mm", "pa_mpjpe_mm")) < 0.01
    assert figures["constant_mpjpe_mm"] > 5


def test_what_is_not_found_counts_as_the_constant_pose(script, clip) -> None:
    constant = fit_constant_pose(clip.joints_m + np.linspace(0, 0.05, 63).reshape(21, 3))
    text, figures = script.report(scores(script, clip, blind=True), constant)
    assert figures["found"] == 0.0 and figures["mpjpe_mm"] == figures["constant_mpjpe_mm"]
    assert figures["true_crop_mpjpe_mm"] < 0.01
    assert "best constant pose" in text


def test_scores_of_clips_lie_one_after_the_other(script, clip) -> None:
    one = scores(script, clip)
    two = script.Scores.concatenate([one, replace(one)])
    assert len(two.truth) == 2 * len(one.truth) == len(two.events)
