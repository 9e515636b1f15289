"""What the training loop knows of what it trains: its configuration, and a task that turns data into losses and
figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from evhands.processes import Processes
from evhands.types import InputError

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the loop must know of a run."""

    weights: dict[str, float]
    """Of the losses that are added and learnt from; further ones are only reported."""
    steps: int | None = None
    hours: float | None = None
    """`steps` and `hours` both bound a run: a falling learning rate follows whichever is nearer to its end."""
    processor_time: bool = False
    """Hours are of processor time (of all threads) instead of those on the clock: the same budget on a busy machine."""
    learning_rate: float
    weight_decay: float
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 300
    average: float = 0.998
    """Decay of the averaged weights, which are the ones that are validated and shipped; 0 = the last ones."""
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    """Gradients are clipped by their norm, or else each by its value."""
    validate_every: int | None = 1000
    """Steps; None = an epoch."""
    save_every_s: float = 120.0
    seed: int = 0


class Task(nn.Module, ABC):
    """A model with its losses: `forward` of a batch gives named losses, each a mean or one value a sample, and what a
    later step of the same clips must know; the loop knows no more than this.

    `pool` is what the task draws from, `lanes` where it is in there: handed from step to step and saved with a run.
    """

    model: nn.Module
    model_name: ClassVar[str]
    """Of `models.checkpoint.MODELS`."""
    best_by: str
    """The figure whose least value makes the best checkpoint."""
    added: ClassVar[tuple[str, ...]] = ()
    """Parts that change nothing at first: a model to begin with may lack them."""
    fields: ClassVar[tuple[str, ...] | None] = None
    """What it reads of the rows of shards; None = all."""
    config: Any

    def placed(self, pool: Any, device: torch.device) -> Any:
        """The pool to train on, where the device reads it best."""
        return pool

    @abstractmethod
    def sample(self, pool: Any, rng: np.random.Generator, lanes: Any) -> tuple[Any, Any]:
        """An augmented training batch, all drawn by `rng` or a function of the lanes, and the lanes behind it."""

    @abstractmethod
    def forward(self, batch: Tensors) -> tuple[Tensors, Tensor | None]: ...

    @abstractmethod
    def figures(self, model: nn.Module, pool: Any) -> dict[str, float]:
        """Figures of merit of `model` (in evaluation mode) over all of a pool."""

    def validated(self, model: nn.Module, pool: Any, processes: Processes) -> dict[str, float]:
        """`figures`, in every process: here the first one does all the work."""
        return processes.from_first(self.figures(model, pool) if processes.first else {})

    def share(self, batch: Any, processes: Processes) -> tuple[Any, float]:
        """What one of the processes takes of a batch, and its weight: so weighted, the losses of all add up."""
        count = len(next(iter(batch.values())))
        own = processes.share(count)
        return {name: value[own] for name, value in batch.items()}, (own.stop - own.start) / count

    def parts(self, batch: Any) -> Iterable[Tensors]:
        """The batch in parts that fit into memory, as many in every process; their losses, and so their gradients,
        are added."""
        return [batch]

    def restored(self, lanes: Any, pool: Any) -> Any:
        """Lanes from what their `state` gave."""
        return None

    def steps(self, pool: Any) -> int:
        """Length of a run."""
        return self.config.steps

    def validate_every(self, pool: Any) -> int:
        """Steps between two validations."""
        return self.config.validate_every

    def begin_with(self, start: nn.Module) -> None:
        """Take the weights of a model of the same kind; InputError where they do not fit."""
        own, given = self.model.state_dict(), start.state_dict()
        fresh = {name: own[name] for name in own.keys() - given.keys() if name.startswith(self.added)}
        try:
            self.model.load_state_dict({**fresh, **given})
        except RuntimeError as error:
            raise InputError(
                f"The model to begin with does not fit: {' '.join(str(error).split())[:300]} Wanted one of the same "
                "sizes; choose another, or set the sizes of this run."
            ) from error


def on_device_of(model: nn.Module, batch: Tensors) -> Tensors:
    """The batch where the model is."""
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def quick_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than 32 bits."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
