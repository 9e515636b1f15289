"""The recogniser: whether a crop shows a right hand, a left one or neither, from the events of one window alone.

The detector proposes places in a coarse picture of the whole image; this network looks at one of them as closely as the
pose network does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evhands.detection import Recognition, recognition_of
from evhands.evidence import RECOGNISER_SIZE
from evhands.inputs import InputConfig, crop_inputs
from evhands.models.small_encoder import encoder_stages
from evhands.types import Camera, EventWindow


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig:
    """Side of the crop in pixels; channels and blocks of the encoder, as those of `small`, with whose weights a
    training may begin; units of the head."""

    size_px: int = RECOGNISER_SIZE
    channels: tuple[int, int, int] = (48, 80, 144)
    blocks: tuple[int, int, int] = (1, 2, 2)
    hidden: int = 64
    dropout: float = 0.2


class Recogniser(nn.Module):
    """LNES of a crop -> what it shows."""

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        self.config = config
        self.stem, self.stage1, self.stage2, self.stage3 = encoder_stages(config.channels, config.blocks)
        self.narrow = nn.Sequential(nn.Conv2d(config.channels[-1], 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        cells = config.size_px // 16
        self.trunk = nn.Sequential(
            nn.Flatten(), nn.Dropout(config.dropout), nn.Linear(32 * cells * cells, config.hidden), nn.ReLU()
        )
        self.side = nn.Linear(config.hidden, 1)
        self.hand = nn.Linear(config.hidden, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, S, S) LNES -> (B, 2): logit that a hand is there, logit that it is a right one.

        The side of a mirrored crop is the other one by construction: half the difference of both is the logit.
        """
        seen = self._seen(torch.cat([image, image.flip(-1)]))
        (hand, hand_mirrored), (side, side_mirrored) = self.hand(seen)[:, 0].chunk(2), self.side(seen)[:, 0].chunk(2)
        return torch.stack([(hand + hand_mirrored) / 2, (side - side_mirrored) / 2], dim=1)

    def _seen(self, image: Tensor) -> Tensor:
        features = self.stage3(self.stage2(self.stage1(self.stem(image))))
        return self.trunk(self.narrow(features).float())

    def take_encoder(self, network: nn.Module) -> None:
        """Begin with the encoder of a network of `small` of the same channels and blocks."""
        for name in ("stem", "stage1", "stage2", "stage3"):
            getattr(self, name).load_state_dict(getattr(network, name).state_dict())

    @torch.no_grad()
    def recognise(self, window: EventWindow, camera: Camera, crop: Camera) -> Recognition:
        """What a crop of `size_px` shows; the window is one filled for that crop."""
        images = crop_inputs([window], camera, [crop], InputConfig(size_px=self.config.size_px))["lnes"]
        return recognition_of(self(torch.from_numpy(images).to(self.side.weight.device))[0].cpu().numpy())


def recogniser_losses(logits: Tensor, shown: Tensor) -> dict[str, Tensor]:
    """Named losses (B,) of `Recogniser.forward` against what crops show (B,): 0 nothing, 1 a right hand, 2 a left one.

    hand: cross-entropy of there being one; side: of its being a right one, 0 where there is none.
    """
    hand = (shown > 0).to(logits.dtype)
    right = (shown == 1).to(logits.dtype)
    side = F.binary_cross_entropy_with_logits(logits[:, 1], right, reduction="none")
    return {"hand": F.binary_cross_entropy_with_logits(logits[:, 0], hand, reduction="none"), "side": side * hand}
