"""Laws of the recogniser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evhands.geometry import crop_camera, default_camera
from evhands.models.recogniser import Recogniser, RecogniserConfig, recogniser_losses
from evhands.models.small import SmallConfig, SmallNetwork
from evhands.types import Events, EventWindow

TINY = RecogniserConfig(channels=(8, 8, 16), blocks=(1, 1, 1))
CAMERA = default_camera((346, 260))


@pytest.fixture
def network() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(TINY).eval()


def window(mirrored: bool = False) -> EventWindow:
    rng = np.random.default_rng(2)
    x, y = rng.integers(100, 200, 500), rng.integers(60, 160, 500)
    x = CAMERA.size[0] - 1 - x if mirrored else x
    t_us = np.sort(rng.integers(0, 1000, 500))
    return EventWindow(Events(x.astype(np.uint16), y.astype(np.uint16), t_us, y % 2 == 0, CAMERA.size), 0, 1000)


def test_a_mirror_changes_the_side_and_nothing_else(network):
    centre = np.array([140.0, 110.0])
    there = network.recognise(window(), CAMERA, crop_camera(CAMERA, centre, 120.0, 96))
    opposite = np.array([CAMERA.size[0] - 1 - 140.0, 110.0])
    mirror = network.recognise(window(mirrored=True), CAMERA, crop_camera(CAMERA, opposite, 120.0, 96))
    assert there.right == pytest.approx(mirror.left, abs=1e-5) and there.left == pytest.approx(mirror.right, abs=1e-5)
    assert there.right != pytest.approx(there.left, abs=1e-4)
    assert there.right + there.left + there.nothing == pytest.approx(1)


def test_losses_ask_for_a_side_only_where_a_hand_is():
    logits = torch.tensor([[20.0, 20.0], [20.0, -20.0], [-20.0, 20.0], [-20.0, -20.0]])
    for value in recogniser_losses(logits, torch.tensor([1, 2, 0, 0])).values():
        assert value.abs().max() < 1e-6
    wrong = recogniser_losses(logits, torch.tensor([2, 1, 1, 2]))
    assert wrong["side"].tolist() == pytest.approx([20, 20, 0, 0], abs=1e-5)
    assert wrong["hand"].tolist() == pytest.approx([0, 0, 20, 20], abs=1e-5)


def test_it_learns_what_it_is_shown(network):
    """A bright bar on the left is a right hand, on the right a left one, none is nothing."""
    torch.manual_seed(1)
    images, shown = torch.zeros(12, 2, 96, 96), torch.arange(12) % 3
    images[shown == 1, 0, :, 10:30], images[shown == 2, 0, :, 66:86] = 1, 1
    optimiser = torch.optim.Adam(network.train().parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        sum(value.mean() for value in recogniser_losses(network(images), shown).values()).backward()
        optimiser.step()
    hand, right = network.eval()(images).sigmoid().T.detach()
    assert ((hand > 0.5) == (shown > 0)).all() and ((right > 0.5) == (shown == 1))[shown > 0].all()


def test_it_may_begin_with_the_encoder_of_small(network):
    small = SmallNetwork(SmallConfig(channels=(8, 8, 16), blocks=(1, 1, 1)))
    network.take_encoder(small)
    for name, value in small.stage3.state_dict().items():
        assert torch.equal(value, network.stage3.state_dict()[name])
