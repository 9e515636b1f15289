"""The library of gestures: possible for a hand, different from each other, and touching where they say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evhands.hand import open_hand
from evhands.hand.model import load_hand
from evhands.sim.gestures import LIBRARY, TOUCHING


def _tips(angles: np.ndarray) -> np.ndarray:
    """(5, 3) m of the mean open hand, thumb first."""
    joints = torch.from_numpy(open_hand.angles_to_joints(angles).astype(np.float32))
    return load_hand("open").with_shape(None).with_pose(None, joints).joints().numpy()[4::4]


@pytest.mark.parametrize("name", LIBRARY)
def test_gestures_are_possible(name: str) -> None:
    assert open_hand.within_limits(LIBRARY[name])


@pytest.mark.parametrize("name", TOUCHING)
def test_tips_that_should_touch_do_and_no_others(name: str) -> None:
    tips = _tips(LIBRARY[name])
    distance = np.linalg.norm(tips[1:] - tips[0], axis=1)
    touching = np.isin(np.arange(1, 5), TOUCHING[name])
    assert (distance[touching] < 0.01).all()
    assert (distance[~touching] > 0.025).all()


def test_every_finger_pinches() -> None:
    assert {finger for fingers in TOUCHING.values() for finger in fingers} == {1, 2, 3, 4}
    assert set(TOUCHING) <= set(LIBRARY)


def test_no_gesture_has_two_names() -> None:
    table = np.stack(list(LIBRARY.values()))
    apart = np.abs(table[:, None] - table).max(-1) + np.eye(len(table))
    assert apart.min() > np.deg2rad(5)


def test_counting_shows_as_many_fingers() -> None:
    """From one to five, tips reach far out or are folded away."""
    rest = np.linalg.norm(_tips(np.zeros(21)), axis=1)
    for count, name in enumerate(("one", "two", "three", "four", "five"), start=1):
        reach = np.linalg.norm(_tips(LIBRARY[name]), axis=1) / rest
        assert (reach > 0.88).sum() == count, name
