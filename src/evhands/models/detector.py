"""The detector: where in the whole image is the hand, from the events of one window alone.

A small fully convolutional network reads a shrunken LNES image (88 x 64), wide enough in its receptive field to tell a
hand from its forearm, and says for every cell of 4 x 4 pixels how likely the hand's centre lies there (against its
lying nowhere, whose logit is 0), where in the cell, and how large the hand is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evhands.detection import LEAST_EVENTS, STRIDE, Detection, places_in
from evhands.inputs import OVERVIEW_SIZE, overview
from evhands.types import Camera, EventWindow


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Channels of the layers and the dilations of the context layers."""

    channels: int = 40
    dilations: tuple[int, ...] = (1, 2, 4, 1)


class Detector(nn.Module):
    """Events of one window -> the places where a hand may be."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        c = config.channels
        layers: list[nn.Module] = []
        for inputs, outputs, stride, dilation in [
            (2, 24, 2, 1),
            (24, c, 2, 1),
            *((c, c, 1, d) for d in config.dilations),
        ]:
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.context = nn.Conv2d(c, c, 1)
        self.head = nn.Conv2d(c, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, 64, 88) LNES -> (B, 4, 16, 22): logit of the centre, its offset in the cell (x, y, in cells), log
        extent / 16."""
        features = self.features(image)
        return self.head(F.relu(features + self.context(features.mean(dim=(2, 3), keepdim=True))))

    @torch.no_grad()
    def detect(self, window: EventWindow, camera: Camera) -> tuple[Detection, ...]:
        """The places in the undistorted image of `camera` where the hand may be (`evhands.detection.places_in`)."""
        if len(window.events) < LEAST_EVENTS:
            return ()
        image = torch.from_numpy(overview(window, camera)).to(self.head.weight.device)
        return places_in(self(image)[0].cpu().numpy(), camera)


def place_weights(maps: Tensor) -> Tensor:
    """(B, h * w + 1): how likely the hand's centre lies in each cell, and last, that no hand is there."""
    nowhere = maps.new_zeros(len(maps), 1)
    return torch.cat([maps[:, 0].flatten(1), nowhere], dim=1).softmax(1)


def image_size(maps: Tensor) -> tuple[int, int]:
    """Width and height of the small image behind some maps."""
    return maps.shape[-1] * STRIDE, maps.shape[-2] * STRIDE


def hand_in(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Which boxes (B, 3) count as a hand in a small image: those with their centres at most a quarter of their extent
    outside it."""
    limit = boxes.new_tensor(size)
    centre, margin = boxes[:, :2] + 0.5, boxes[:, 2:] / 4
    return ((centre >= -margin) & (centre <= limit + margin)).all(1)


def detector_losses(maps: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Named losses (B,) of `Detector.forward` against boxes (B, 3): centre x, y and extent in pixels of the small
    image.

    place: cross-entropy of the cell that holds the centre, or of its lying nowhere; offset: distance in cells there;
    extent: |log ratio| there; both 0 without a hand.
    """
    H, W = maps.shape[-2:]
    hand = hand_in(boxes, image_size(maps))
    logits = torch.cat([maps[:, 0].flatten(1), maps.new_zeros(len(maps), 1)], dim=1)
    cells = (boxes[:, :2] + 0.5) / STRIDE
    column = cells[:, 0].long().clamp(0, W - 1)
    row = cells[:, 1].long().clamp(0, H - 1)
    here = maps[torch.arange(len(maps), device=maps.device), :, row, column]
    inside = torch.stack([cells[:, 0] - column - 0.5, cells[:, 1] - row - 0.5], dim=1)
    return {
        "place": F.cross_entropy(logits, torch.where(hand, row * W + column, H * W), reduction="none"),
        "offset": (here[:, 1:3] - inside).norm(dim=1) * hand,
        "extent": (here[:, 3] - torch.log(boxes[:, 2] / 16)).abs() * hand,
    }


__all__ = ["OVERVIEW_SIZE", "Detection", "Detector", "DetectorConfig", "detector_losses"]
