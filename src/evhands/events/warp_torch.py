"""Warping events along a flow as tensors, differentiable with respect to the flow: the same images as `warp`."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from evhands.events.representations_torch import event_image, window_of
from evhands.types import WindowBatch


def warp_events(batch: WindowBatch, flow: Float[Tensor, "b 2 h w"], t_ref: float) -> WindowBatch:
    """The events moved to where they are at t_ref (see `warp.warp_events`); NaN where there is no flow to read."""
    width, height = batch.size
    column, row = batch.x.detach().floor(), batch.y.detach().floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    u, v = torch.where(inside, column, 0).long(), torch.where(inside, row, 0).long()
    flat = flow.movedim(1, -1).reshape(-1, 2)
    step = (t_ref - batch.t)[:, None] * flat.index_select(0, (window_of(batch) * height + v) * width + u)
    return replace(
        batch,
        x=torch.where(inside, batch.x + step[:, 0], torch.nan),
        y=torch.where(inside, batch.y + step[:, 1], torch.nan),
    )


def image_of_warped_events(
    batch: WindowBatch, flow: Float[Tensor, "b 2 h w"], t_ref: float
) -> Float[Tensor, "b 2 h w"]:
    """Bilinear counts of the warped events, channel 0 = ON, 1 = OFF, with gradients to the flow.

    The gradient is that of the bilinear weights; it is finite everywhere, also where an event leaves the image.
    """
    return event_image(warp_events(batch, flow, t_ref))
