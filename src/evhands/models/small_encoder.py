"""The encoder of `small`: strided convolutions and residual bottlenecks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Block(nn.Module):
    """Residual bottleneck: 1 x 1 to two thirds of the channels, 3 x 3, 1 x 1 back."""

    def __init__(self, channels: int):
        super().__init__()
        inner = (channels * 2 // 3 + 7) // 8 * 8
        self.inner = nn.Sequential(conv(channels, inner, 1), conv(inner, inner))
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.outer = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.outer(self.inner(x)))


def encoder_stages(channels: tuple[int, int, int], blocks: tuple[int, int, int]) -> tuple[nn.Sequential, ...]:
    """The encoder (stem, stage1, stage2, stage3): two channels of a crop -> maps of a quarter, an eighth, a sixteenth
    of its side."""
    c1, c2, c3 = channels
    return (
        nn.Sequential(nn.PixelUnshuffle(2), conv(8, c1, 3, 2)),
        nn.Sequential(*[Block(c1) for _ in range(blocks[0])]),
        nn.Sequential(conv(c1, c2, 3, 2), *[Block(c2) for _ in range(blocks[1])]),
        nn.Sequential(conv(c2, c3, 3, 2), *[Block(c3) for _ in range(blocks[2])]),
    )
