"""The recogniser: whether a crop shows a right hand, a left one or neither, from the events of one window alone.

The detector proposes places in a coarse picture of the whole image; this network looks at one of them as closely as the
pose network does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evhands.inputs import InputConfig, crop_inputs
from evhands.types import Camera, EventWindow


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig:
    """Side of the crop in pixels; channels of the stages, each of which halves it."""

    size_px: int = 96
    channels: tuple[int, ...] = (16, 32, 64, 96)
    dropout: float = 0.2


@dataclass(frozen=True)
class Recognition:
    """How likely a crop shows a right hand, a left one, nothing of the kind; they add up to 1."""

    right: float
    left: float
    nothing: float


class Recogniser(nn.Module):
    """LNES of a crop -> what it shows."""

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        before = 2
        for i, channels in enumerate(config.channels):
            layers += [nn.Conv2d(before, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            if i > 0:
                layers.append(_Residual(channels))
            before = channels
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.side = nn.Linear(before * 9, 1)
        self.hand = nn.Linear(before * 9, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, S, S) LNES -> (B, 2): logit that a hand is there, logit that it is a right one.

        The side of a mirrored crop is the other one by construction: half the difference of both is the logit.
        """
        seen = self._seen(torch.cat([image, image.flip(-1)]))
        (hand, hand_mirrored), (side, side_mirrored) = self.hand(seen)[:, 0].chunk(2), self.side(seen)[:, 0].chunk(2)
        return torch.stack([(hand + hand_mirrored) / 2, (side - side_mirrored) / 2], dim=1)

    def _seen(self, image: Tensor) -> Tensor:
        return self.dropout(F.adaptive_avg_pool2d(self.features(image), 3).flatten(1))

    @torch.no_grad()
    def recognise(self, window: EventWindow, camera: Camera, crop: Camera) -> Recognition:
        """What a crop of `size_px` shows; the window is one filled for that crop."""
        images = crop_inputs([window], camera, [crop], InputConfig(size_px=self.config.size_px))["lnes"]
        logits = self(torch.from_numpy(images).to(self.side.weight.device)).cpu()[0]
        hand, right = (float(value) for value in logits.sigmoid())
        return Recognition(hand * right, hand * (1 - right), 1 - hand)


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def recogniser_losses(logits: Tensor, shown: Tensor) -> dict[str, Tensor]:
    """Named losses (B,) of `Recogniser.forward` against what crops show (B,): 0 nothing, 1 a right hand, 2 a left one.

    hand: cross-entropy of there being one; side: of its being a right one, 0 where there is none.
    """
    hand = (shown > 0).to(logits.dtype)
    right = (shown == 1).to(logits.dtype)
    side = F.binary_cross_entropy_with_logits(logits[:, 1], right, reduction="none")
    return {"hand": F.binary_cross_entropy_with_logits(logits[:, 0], hand, reduction="none"), "side": side * hand}
