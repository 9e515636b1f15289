"""Laws of the rows for finding hands: what a crop is said to show, it shows."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.boxes import joints_box
from evhands.data.finding import LEFT, NOTHING, RIGHT, FindingConfig, HandsClip, finding_row
from evhands.geometry import default_camera
from evhands.inputs import OVERVIEW_SIZE
from evhands.types import Events

CAMERA = default_camera((346, 260))
CONFIG = FindingConfig(windows=3, overviews=16, looks=10)
T_US = np.array([210_000, 233_333, 266_667])


def clip(*places: tuple[str, float], events: int = 6000) -> HandsClip:
    """Hands at some x in metres, half a metre away, each with ON events alone if right, OFF if left; no noise."""
    rng = np.random.default_rng(len(places))
    grid = np.stack([*np.meshgrid(np.linspace(-0.05, 0.05, 7), np.linspace(-0.04, 0.04, 3)), np.full((3, 7), 0.5)], -1)
    hands, parts = [], []
    for side, x in places:
        joints = np.repeat(grid.reshape(1, 21, 3) + [x, 0, 0], 3, axis=0).astype(np.float32)
        box = joints_box(joints[0].astype(np.float64), CAMERA, 1.0)
        place = box.centre_px + rng.uniform(-0.5, 0.5, (events, 2)) * box.side_px * [1, 0.7]
        t_us = np.sort(rng.integers(0, 266_667, events))
        parts.append(Events(*place.T.astype(np.uint16), t_us, np.full(events, side == "right"), CAMERA.size))
        hands.append((side, joints))
    merged = Events.concatenate(parts, CAMERA.size)
    return HandsClip(merged[np.argsort(merged.t_us, kind="stable")], CAMERA, T_US, tuple(hands))


def polarity(lnes: np.ndarray) -> np.ndarray:
    """Share of the lit pixels of crops (n, 2, s, s) that are ON, and how many are lit."""
    lit = (lnes > 0).sum((2, 3)).astype(float)
    return np.stack([lit[:, 0] / np.maximum(lit.sum(1), 1), lit.sum(1)], 1)


def test_crops_show_the_hand_of_the_side_that_is_said():
    row = finding_row(clip(("right", -0.1), ("left", 0.1)), CONFIG, np.random.default_rng(0))
    on, lit = polarity(row["lnes"]).T
    assert set(row["shown"]) == {NOTHING, RIGHT, LEFT}
    first = on[row["shown"] == RIGHT] > 0.5
    assert (first == first[0]).all(), "one channel is that of ON events"
    assert ((on[row["shown"] == LEFT] > 0.5) != first[0]).all()
    assert lit[row["shown"] != NOTHING].min() > 200


def test_crops_that_show_nothing_show_a_small_part_of_a_hand_at_most():
    shown, lit = [], []
    for seed in range(20):
        row = finding_row(clip(("right", 0.0)), CONFIG, np.random.default_rng(seed))
        shown, lit = np.append(shown, row["shown"]), np.append(lit, polarity(row["lnes"])[:, 1])
    assert np.mean(shown == NOTHING) == pytest.approx(0.4)
    assert lit[shown == NOTHING].mean() < 0.35 * lit[shown == RIGHT].mean()


def test_pictures_ask_for_one_hand_at_a_time():
    """Where the other one is left out its events are gone; where no box is asked for, all are."""
    row = finding_row(clip(("right", -0.1), ("left", 0.1)), CONFIG, np.random.default_rng(3))
    away = row["box"][:, 0] < -100
    lit = (row["overview"] > 0).sum((2, 3))
    assert 0 < away.sum() < 8
    assert (lit[away].sum(1) < 30).all()
    for picture, box in zip(row["overview"][~away], row["box"][~away], strict=True):
        x, y = np.rint(box[:2]).astype(int)
        assert (picture[:, y - 2 : y + 3, x - 2 : x + 3] > 0).any()
    both = lit[~away].min(1) > 30
    assert 0 < both.sum() < both.size, "now one hand is there, now both"


def test_without_a_hand_nothing_is_asked_for():
    noise = clip(("right", 0.0))
    row = finding_row(HandsClip(noise.events, CAMERA, T_US, ()), CONFIG, np.random.default_rng(1))
    assert (row["shown"] == NOTHING).all() and (row["box"][:, :2] < -100).all()
    assert row["overview"].shape == (16, 2, OVERVIEW_SIZE[1], OVERVIEW_SIZE[0]) and (row["overview"] > 0).any()


def test_rows_are_functions_of_the_generator():
    one, same, other = (finding_row(clip(("left", 0.0)), CONFIG, np.random.default_rng(s)).tobytes() for s in (1, 1, 2))
    assert one == same != other
