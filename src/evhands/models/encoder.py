"""The image encoder of the pose network: a ResNet-34 in which every stage halves the side.

Blocks and counts of He et al. 2016; unlike there the first stage is strided too and the stem convolution has a bias
(EvHandPose, Jiang et al. 2024), so that 128 x 128 becomes 2 x 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from evhands.models.flow import ResidualBlock


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of an encoder; the defaults are those of the paper."""

    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the stages; the stem has those of the first."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of the stages."""


class Encoder(nn.Module):
    """Images -> feature maps with 1 / 2**(2 + stages) of the side."""

    def __init__(self, config: EncoderConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(in_channels, config.channels[0], 7, 2, 3)
        self.stem_norm = nn.BatchNorm2d(config.channels[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        before = (config.channels[0], *config.channels[:-1])
        self.stages = nn.ModuleList(map(_stage, before, config.channels, config.blocks))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features h2 w2"]:
        x = self.pool(self.stem_norm(self.stem(images)).relu())
        for stage in self.stages:
            x = stage(x)
        return x


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        *(ResidualBlock(in_channels if i == 0 else channels, channels, 2 if i == 0 else 1) for i in range(blocks))
    )
