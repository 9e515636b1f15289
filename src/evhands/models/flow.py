"""FlowNet: a multi-resolution U-Net from a voxel grid to the optical flow of a window.

Architecture of EvHandPose (Jiang et al. 2024, section 3.2), which takes it from the U-Net of Rebecq et al. 2019 with
the multi-scale flow heads of EV-FlowNet (Zhu et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Sizes of a FlowNet; the defaults are those of the paper (14.13 M parameters)."""

    bins: int = 5
    """Bins of the voxel grid."""
    base_channels: int = 32
    """Channels after the last decoder; every stage towards the middle has twice as many."""
    levels: int = 4
    """Encoders, and as many decoders: the input side must be a multiple of 2**levels."""
    residual_blocks: int = 2
    kernel_size: int = 3
    range_px: float = 16.0
    """Pixels of the crop per window that a flow value of 1 stands for (128 / 8 in the paper)."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip connection; a strided or widening one projects the skip."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class FlowNet(nn.Module):
    """Voxel grid of a window -> optical flow at every scale of the decoder."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base_channels * 2 ** (level + 1) for level in range(config.levels)]
        outputs = [width // 2 for width in reversed(widths)]
        k, pad = config.kernel_size, config.kernel_size // 2
        self.encoders = nn.ModuleList(
            nn.Conv2d(before, after, k, 2, pad) for before, after in zip([config.bins, *widths[:-1]], widths)
        )
        self.residuals = nn.ModuleList(ResidualBlock(widths[-1], widths[-1]) for _ in range(config.residual_blocks))
        # A decoder sees the features so far, the skip of the same width and, from the second on, the previous flow.
        self.decoders = nn.ModuleList(
            nn.Conv2d(2 * width + (2 if i else 0), out, k, 1, pad)
            for i, (width, out) in enumerate(zip(reversed(widths), outputs))
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")
        self.heads = nn.ModuleList(nn.Conv2d(out, 2, 1) for out in outputs)

    def forward(self, voxels: Float[Tensor, "b bins h w"]) -> Float[Tensor, "b levels 2 h w"]:
        """Flow (x, y) at every scale, coarse to fine, upsampled to the input by nearest neighbour.

        Values lie in -1..1; times `config.range_px` they are pixels of the crop per window.
        """
        # Channels last: nearly twice as fast on a CPU as planes.
        x, skips = voxels.contiguous(memory_format=torch.channels_last), []
        for encoder in self.encoders:
            x = F.relu(encoder(x))
            skips.append(x)
        for block in self.residuals:
            x = block(x)
        flows: list[Tensor] = []
        for decoder, head in zip(self.decoders, self.heads):
            x = torch.cat([*flows[-1:], x, skips.pop()], dim=1)
            x = F.relu(decoder(self.upsample(x)))
            flows.append(torch.tanh(head(x)))
        size = voxels.shape[-2:]
        return torch.stack([F.interpolate(flow.contiguous(), size=size, mode="nearest") for flow in flows], dim=1)
