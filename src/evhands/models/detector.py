"""The detector: where in the whole image is the hand, from the events of one window alone.

A small fully convolutional network reads a shrunken LNES image (88 x 64), wide enough in its receptive field to tell a
hand from its forearm, and says for every cell of 4 x 4 pixels how likely the hand's centre lies there, where in the
cell, and how large the hand is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evhands.inputs import OVERVIEW_SIZE, overview, overview_camera
from evhands.types import Camera, EventWindow

STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Channels of the layers and the dilations of the context layers."""

    channels: int = 40
    dilations: tuple[int, ...] = (1, 2, 4, 1)


@dataclass(frozen=True)
class Detection:
    """A hand in the image of a camera: centre and larger extent of its 21 joints in pixels, confidence 0 to 1."""

    centre_px: np.ndarray
    extent_px: float
    confidence: float


class Detector(nn.Module):
    """Events of one window -> at most one hand."""

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

    @torch.inference_mode()
    def detect(self, window: EventWindow, camera: Camera, least_events: int = 50) -> Detection | None:
        """The most likely hand in the undistorted image of `camera`; None where the window holds fewer than
        `least_events`."""
        if len(window.events) < least_events:
            return None
        device = self.head.weight.device
        maps = self(torch.from_numpy(overview(window, camera)).to(device))[0].cpu()
        weight = maps[0].flatten().softmax(0).reshape(maps[0].shape)
        cell = int(weight.argmax())
        row, column = divmod(cell, weight.shape[1])
        near = weight[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        offset_x, offset_y, log_extent = maps[1:, row, column].tolist()
        small = overview_camera(camera)
        scale = camera.K[0, 0] / small.K[0, 0]
        centre = np.array([column + 0.5 + offset_x, row + 0.5 + offset_y]) * STRIDE * scale - 0.5
        return Detection(centre, float(np.exp(log_extent)) * 16 * scale, float(near.sum()))


def detector_losses(maps: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Named losses (B,) of `Detector.forward` against boxes (B, 3): centre x, y and extent in pixels of the small
    image.

    place: cross-entropy of the cell that holds the centre; offset: distance in cells there; extent: |log ratio| there.
    """
    H, W = maps.shape[-2:]
    cells = (boxes[:, :2] + 0.5) / STRIDE
    column = cells[:, 0].long().clamp(0, W - 1)
    row = cells[:, 1].long().clamp(0, H - 1)
    here = maps[torch.arange(len(maps), device=maps.device), :, row, column]
    inside = torch.stack([cells[:, 0] - column - 0.5, cells[:, 1] - row - 0.5], dim=1)
    return {
        "place": F.cross_entropy(maps[:, 0].flatten(1), row * W + column, reduction="none"),
        "offset": (here[:, 1:3] - inside).norm(dim=1),
        "extent": (here[:, 3] - torch.log(boxes[:, 2] / 16)).abs(),
    }


__all__ = ["OVERVIEW_SIZE", "Detection", "Detector", "DetectorConfig", "detector_losses"]
