"""Convolutional recurrent cells: state in, state out.

ConvGRU after Ballas et al. 2016, ConvLSTM after Shi et al. 2015 (without peepholes). A state is a tuple of tensors:
(h,) of a GRU, (h, c) of an LSTM; zeros at the start of a sequence.

What a gate adds up is linear in input and state, so that it falls into halves. The input half depends on its window
alone: whoever keeps it (`run_last`) can begin the recurrence again at any window without looking at the events anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

CellState = tuple[Tensor, ...]
"""What a recurrent model hands back and is given again with the next window."""

CellName = Literal["gru", "lstm"]


class RecurrentCell(nn.Module, ABC):
    """One step of a convolutional recurrence over feature maps."""

    states: int
    """Number of tensors in a state."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, channels

    @property
    @abstractmethod
    def gate_layers(self) -> tuple[nn.Conv2d, ...]:
        """The convolutions of input and state, in the order of the input half's channels."""

    @abstractmethod
    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """The output (b, channels, h, w) for input (b, in_channels, h, w), and the next state."""

    @abstractmethod
    def advance(self, half: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """`forward` from the input half of a step instead of its input."""

    def input_half(self, x: Tensor) -> Tensor:
        """What the input (b, in_channels, h, w) adds to the gates, with their biases: (b, gates channels, h, w)."""
        width = self.in_channels * self.gate_layers[0].weight[0, 0].numel()
        return torch.cat([_correlate(x, gate, slice(0, width), gate.bias) for gate in self.gate_layers], dim=1)

    def state_half(self, h: Tensor, gate: nn.Conv2d) -> Tensor:
        """What the state adds to one of the gates."""
        width = self.in_channels * gate.weight[0, 0].numel()
        return _correlate(h, gate, slice(width, None), None)

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

    @property
    def gate_layers(self) -> tuple[nn.Conv2d, ...]:
        return self.reset, self.update, self.candidate

    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        (h,) = state
        xh = torch.cat([x, h], dim=1)
        z, r = torch.sigmoid(self.update(xh)), torch.sigmoid(self.reset(xh))
        n = torch.tanh(self.candidate(torch.cat([x, r * h], dim=1)))
        h = (1 - z) * h + z * n
        return h, (h,)

    def advance(self, half: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        (h,) = state
        reset, update, candidate = half.chunk(3, dim=1)
        r = torch.sigmoid(reset + self.state_half(h, self.reset))
        z = torch.sigmoid(update + self.state_half(h, self.update))
        n = torch.tanh(candidate + self.state_half(r * h, self.candidate))
        h = (1 - z) * h + z * n
        return h, (h,)


class ConvLSTM(RecurrentCell):
    """i, f, o = sigmoid(conv[x, h]); g = tanh(conv[x, h]); c' = f c + i g; h' = o tanh(c')."""

    states = 2

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels, kernel_size)
        self.gates = nn.Conv2d(in_channels + channels, 4 * channels, kernel_size, 1, kernel_size // 2)

    @property
    def gate_layers(self) -> tuple[nn.Conv2d, ...]:
        return (self.gates,)

    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        return self._from_sums(self.gates(torch.cat([x, state[0]], dim=1)), state)

    def advance(self, half: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        return self._from_sums(half + self.state_half(state[0], self.gates), state)

    def _from_sums(self, sums: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        h, c = state
        i, f, o, g = sums.chunk(4, dim=1)
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
    if not cell.training:
        # Slices of weights would each cost a gradient of full size, but without gradients they are the quicker way.
        return run_halves(cell, input_halves(cell, x), state)
    state = cell.initial_state(x[:, 0]) if state is None else state
    outputs = []
    for step in x.unbind(1):
        output, state = cell(step, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def input_halves(cell: RecurrentCell, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t halves h w"]:
    """The input halves of a sequence."""
    return cell.input_half(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def run_halves(
    cell: RecurrentCell, halves: Float[Tensor, "b t halves h w"], state: CellState | None
) -> tuple[Float[Tensor, "b t features h w"], CellState]:
    """`run_sequence` from the input halves."""
    state = cell.initial_state(halves[:, 0]) if state is None else state
    outputs = []
    for half in halves.unbind(1):
        output, state = cell.advance(half, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def run_last(
    cell: RecurrentCell, x: Float[Tensor, "b t c h w"], kept: Float[Tensor, "b n halves h w"] | None, windows: int
) -> tuple[Float[Tensor, "b t features h w"], Float[Tensor, "b n2 halves h w"]]:
    """Outputs of a cell that begins at zeros `windows` inputs ago for every one of t, and the halves that are kept.

    kept: the input halves before x, at most windows - 1; with fewer, the recurrence begins at the first.
    """
    new = input_halves(cell, x)
    halves = new if kept is None else torch.cat([kept, new], dim=1)
    parts = []
    for span, count in spans(halves.shape[1] - x.shape[1], x.shape[1], windows):
        parts.append(run_halves(cell, halves[:, span], None)[0][:, -count:])
    return torch.cat(parts, dim=1), halves[:, max(0, halves.shape[1] - windows + 1) :]


def spans(past: int, new: int, windows: int) -> list[tuple[slice, int]]:
    """Which runs from zeros give every one of `new` windows after `past` others a history of `windows` with itself.

    Each is a slice of all windows and how many outputs at its end are wanted; the first windows share a run.
    """
    first = min(past + new, windows)
    later = range(windows + 1, past + new + 1)
    return [(slice(0, first), first - past), *((slice(end - windows, end), 1) for end in later)]


def _correlate(maps: Float[Tensor, "b c h w"], gate: nn.Conv2d, columns: slice, bias: Tensor | None) -> Tensor:
    """A gate's convolution by some of its input channels, as a product with a view of its weights.

    Maps are 2 x 2 and weights many: a convolution would read all of them once more to bring them into its own order.
    """
    height, width = maps.shape[-2:]
    side = gate.kernel_size[0]
    padded = F.pad(maps, (side // 2,) * 4)
    taps = [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]
    values = torch.stack(taps, dim=2).flatten(1, 2).flatten(2).transpose(1, 2)
    sums = F.linear(values, gate.weight.flatten(1)[:, columns], bias)
    return sums.transpose(1, 2).unflatten(2, (height, width))
