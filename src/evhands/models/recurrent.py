"""Convolutional recurrent cells: state in, state out.

ConvGRU after Ballas et al. 2016, ConvLSTM after Shi et al. 2015 (without peepholes). A state is a tuple of tensors:
(h,) of a GRU, (h, c) of an LSTM; zeros at the start of a sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

CellState = tuple[Tensor, ...]
"""What a recurrent model hands back and is given again with the next window."""

CellName = Literal["gru", "lstm"]


class RecurrentCell(nn.Module, ABC):
    """One step of a convolutional recurrence over feature maps."""

    states: int
    """Number of tensors in a state."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """The output (b, channels, h, w) for input (b, in_channels, h, w), and the next state."""

    def initial_state(self, x: Tensor) -> CellState:
        """Zeros for a batch of feature maps like x (b, any, h, w), on its device and in its dtype."""
        return tuple(x.new_zeros(x.shape[0], self.channels, *x.shape[-2:]) for _ in range(self.states))


class ConvGRU(RecurrentCell):
    """z, r = sigmoid(conv[x, h]); n = tanh(conv[x, r h]); h' = (1 - z) h + z n."""

    states = 1

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels, kernel_size)
        sizes = (in_channels + channels, channels, kernel_size, 1, kernel_size // 2)
        self.reset = nn.Conv2d(*sizes)
        self.update = nn.Conv2d(*sizes)
        self.candidate = nn.Conv2d(*sizes)

    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        (h,) = state
        xh = torch.cat([x, h], dim=1)
        z, r = torch.sigmoid(self.update(xh)), torch.sigmoid(self.reset(xh))
        n = torch.tanh(self.candidate(torch.cat([x, r * h], dim=1)))
        h = (1 - z) * h + z * n
        return h, (h,)


class ConvLSTM(RecurrentCell):
    """i, f, o = sigmoid(conv[x, h]); g = tanh(conv[x, h]); c' = f c + i g; h' = o tanh(c')."""

    states = 2

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels, kernel_size)
        self.gates = nn.Conv2d(in_channels + channels, 4 * channels, kernel_size, 1, kernel_size // 2)

    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        h, c = state
        i, f, o, g = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


def recurrent_cell(name: CellName, in_channels: int, channels: int, kernel_size: int = 3) -> RecurrentCell:
    """The cell of that name."""
    return {"gru": ConvGRU, "lstm": ConvLSTM}[name](in_channels, channels, kernel_size)


def run_sequence(
    cell: RecurrentCell, x: Float[Tensor, "b t c h w"], state: CellState | None
) -> tuple[Float[Tensor, "b t features h w"], CellState]:
    """All outputs of a cell over a sequence and its last state; None starts at zeros."""
    state = cell.initial_state(x[:, 0]) if state is None else state
    outputs = []
    for step in x.unbind(1):
        output, state = cell(step, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state
