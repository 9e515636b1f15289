"""Laws of the detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evhands.geometry import default_camera
from evhands.inputs import overview_camera
from evhands.models.detector import STRIDE, Detector, DetectorConfig, detector_losses, place_weights
from evhands.types import Events, EventWindow


def maps_of(boxes: torch.Tensor, sharpness: float = 40.0) -> torch.Tensor:
    """The maps of a network that knows the boxes."""
    maps = torch.zeros(len(boxes), 4, 16, 22)
    cells = (boxes[:, :2] + 0.5) / STRIDE
    for i, (x, y) in enumerate(cells.tolist()):
        row, column = int(y), int(x)
        maps[i, 0, row, column] = sharpness
        maps[i, 1:3, row, column] = torch.tensor([x - column - 0.5, y - row - 0.5])
        maps[i, 3, row, column] = torch.log(boxes[i, 2] / 16)
    return maps


def test_losses_vanish_for_a_network_that_knows():
    boxes = torch.tensor([[10.3, 20.7, 12.0], [80.0, 3.0, 40.0], [44.0, 60.2, 25.0]])
    for name, value in detector_losses(maps_of(boxes), boxes).items():
        assert value.abs().max() < 1e-5, name


def test_a_picture_without_a_hand_asks_for_no_place() -> None:
    away = torch.tensor([[500.0, 20.0, 12.0]])
    nowhere = torch.zeros(1, 4, 16, 22)
    nowhere[:, 0] = -40.0
    for name, value in detector_losses(nowhere, away).items():
        assert value.abs().max() < 1e-5, name
    assert detector_losses(maps_of(torch.tensor([[10.3, 20.7, 12.0]])), away)["place"].min() > 10


def test_places_come_with_the_likeliest_first_and_apart(monkeypatch) -> None:
    boxes = torch.tensor([[20.3, 20.7, 16.0]])
    maps = maps_of(boxes, 6.0)
    maps[0, 3] = 0.0  # extents of 16 pixels
    maps[0, 0, 5, 6], maps[0, 0, 12, 15] = 5.5, 5.0  # beside the first, and far away
    detector = Detector(DetectorConfig()).eval()
    monkeypatch.setattr(detector, "forward", lambda image: maps)
    camera = default_camera((88, 64))
    events = Events(*(np.zeros(60, kind) for kind in (np.uint16, np.uint16, np.int64, bool)), (88, 64))
    first, second = detector.detect(EventWindow(events, 0, 1000), camera)
    weight = place_weights(maps)[0, :-1].reshape(16, 22)
    assert 1 > first.confidence > float(weight[5, 5] + weight[5, 6]) and first.confidence > second.confidence
    assert first.confidence + second.confidence <= 1
    assert np.linalg.norm(first.centre_px - second.centre_px) > first.extent_px / 2
    assert second.centre_px[0] == pytest.approx(15.5 * STRIDE - 0.5)


@pytest.mark.parametrize("size", [(346, 260), (1280, 720)])
def test_a_detection_lies_where_the_maps_say(size, monkeypatch):
    """The box of the small picture, in the pixels of the sensor."""
    camera = default_camera(size)
    scale = camera.K[0, 0] / overview_camera(camera).K[0, 0]
    boxes = torch.tensor([[30.25, 40.5, 20.0]])
    detector = Detector(DetectorConfig()).eval()
    monkeypatch.setattr(detector, "forward", lambda image: maps_of(boxes))
    n = 200
    rng = np.random.default_rng(0)
    events = Events(
        rng.integers(0, size[0], n).astype(np.uint16),
        rng.integers(0, size[1], n).astype(np.uint16),
        np.sort(rng.integers(0, 1000, n)),
        rng.random(n) < 0.5,
        size,
    )
    (detection,) = detector.detect(EventWindow(events, 0, 1000), camera)
    assert detection.confidence == pytest.approx(1.0)
    np.testing.assert_allclose(detection.centre_px, (boxes[0, :2].numpy() + 0.5) * scale - 0.5, atol=1e-3)
    assert detection.extent_px == pytest.approx(20.0 * scale, rel=1e-5)


def test_too_few_events_are_no_hand():
    window = EventWindow(Events.empty((346, 260)), 0, 1000)
    assert Detector(DetectorConfig()).eval().detect(window, default_camera((346, 260))) == ()


def test_gradients_reach_every_layer():
    detector = Detector(DetectorConfig())
    losses = detector_losses(detector(torch.rand(2, 2, 64, 88)), torch.tensor([[10.0, 20.0, 12.0], [50.0, 30.0, 20.0]]))
    torch.stack([v.mean() for v in losses.values()]).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name
