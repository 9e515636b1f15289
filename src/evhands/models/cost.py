"""What a network costs: parameters, and multiply-accumulates of convolutions, linear layers and upsampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def count(model: nn.Module, *inputs: Any) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of `model(*inputs)`.

    Counted as in the published figures: convolutions with their zero padding, linear layers, and four products for
    every value of a bilinear `nn.Upsample`; norms and activations are left out. Divide by the windows in the inputs
    for a figure per window. A recurrent cell runs as convolutions, which are counted, only in training mode.
    """
    macs = 0

    def add(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * _products(layer)

    layers = [m for m in model.modules() if _products(m)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(parameter.numel() for parameter in model.parameters()), macs


def _products(layer: nn.Module) -> int:
    """Products per value that a layer puts out; 0 for layers that are not counted."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
        return layer.weight.numel() // layer.weight.shape[0]  # one dot product with a filter
    return 4 if isinstance(layer, nn.Upsample) and layer.mode == "bilinear" else 0
