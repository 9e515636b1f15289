"""What a network costs: parameters, and multiply-accumulates of its convolutions and linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def count(model: nn.Module, *inputs: Any) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of `model(*inputs)`.

    Counted are convolutions and linear layers, with their zero padding, as the published figures do; norms,
    activations and interpolations are left out. Divide by the windows in the inputs for a figure per window.
    """
    macs = 0

    def add(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # Every output element is one dot product with a filter: weight.numel() / filters products.
        macs += output.numel() * (weight.numel() // weight.shape[0])

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(parameter.numel() for parameter in model.parameters()), macs
