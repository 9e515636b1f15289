"""The measure of detection: what counts as a hit, a loss and its recovery."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evhands.boxes import CropBox
from evhands.jobs.simulate import simulate
from evhands.live.making import make_tracker
from evhands.recording import read_recording

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "evaluate_detection.py"


@pytest.fixture(name="script", scope="module")
def _script():
    spec = importlib.util.spec_from_file_location("evaluate_detection", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(script, visible: str, tracked: str):
    t_us = 33_333 * np.arange(len(visible))
    flags = [np.array([c == "1" for c in text]) for text in (visible, visible, tracked)]
    return script.Found(t_us, *flags)


@pytest.mark.parametrize(
    ("visible", "tracked", "wanted"),
    [
        ("111111", "111111", []),
        ("111111", "001111", [2]),
        ("001111", "000011", [2]),  # what cannot be seen is not lost
        ("111111", "100111", [2]),
        ("1111111111", "1000000000", [np.inf]),
        ("111111", "111100", []),  # the recording ends too early to tell
    ],
)
def test_a_loss_lasts_from_the_first_miss_of_a_visible_hand_to_the_next_hit(script, visible, tracked, wanted) -> None:
    np.testing.assert_array_equal(script.losses_us(found(script, visible, tracked)), [w * 33_333 for w in wanted])


def test_a_hit_lies_within_half_a_side(script) -> None:
    box = CropBox(np.array([50.0, 40.0]), 30.0)
    assert script.is_hit(np.array([64.9, 40.0]), box) and not script.is_hit(np.array([50.0, 55.1]), box)


def test_a_tracked_hand_stands_for_one_true_hand_the_nearest_that_it_hits(script) -> None:
    boxes = [CropBox(np.array([50.0, 40.0]), 30.0), CropBox(np.array([60.0, 40.0]), 30.0)]
    near, between, far = (np.array([x, 40.0]) for x in (59.0, 56.0, 200.0))
    assert script.assigned([between, near], boxes) == {1: 1, 0: 0}
    assert script.assigned([near], boxes) == {1: 0} and script.assigned([far], boxes) == {}


def test_sides_are_counted_of_visible_hands_that_are_tracked(script) -> None:
    flags = [np.array([c == "1" for c in text]) for text in ("1110", "1101", "1001")]
    text = script.report_two([script.FoundTwo(*flags, np.array([0, 1]))])
    assert " 66.7 %" in text and " 50.0 %" in text and "3 visible hands in 2 windows" in text


def test_shares_are_of_visible_hands(script) -> None:
    text = script.report({"all": [found(script, "1110", "1100")]})
    assert " 66.7 %" in text.splitlines()[1]


@pytest.mark.slow
def test_the_shipped_networks_find_and_keep_two_simulated_hands(script, tmp_path) -> None:
    simulate(tmp_path, preset="two-hands", seconds=2, seed=3)
    found = []
    for path in sorted(tmp_path.glob("*.h5")):
        recording = read_recording(path)
        tracker = make_tracker("small", recording.camera, "right", "cpu")
        found.append(script.find_two(recording, replace(tracker, mirrored=tracker.hand.mirrored(), count=2)))
    visible, hit = (np.concatenate([getattr(f, name) for f in found]) for name in ("visible", "hit"))
    assert visible.sum() > 50 and hit[visible].mean() > 0.9
