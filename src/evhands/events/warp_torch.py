"""Warping events along a flow as tensors, differentiable with respect to the flow: the same images as `warp`.

Slices and subsets of all windows at once, without a loop over them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
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


def edge_events(
    batch: WindowBatch, end: Literal["last", "first"], share: float = 0.3, least: int = 120, *, padded: bool = False
) -> WindowBatch:
    """The last (forward) or first (backward) `share` of the events of every window, at least `least`.

    The slices of `warp.edge_slices`: all events of a window that has fewer than `least`. padded=True keeps what the
    published code does there (O34, O8): its last slice is empty, its first one is filled up to `least` events with the
    empty slots behind the events, which read as OFF events at pixel (0, 0) and time 0.
    """
    counts = batch.offsets[1:] - batch.offsets[:-1]
    if padded:
        if end == "first":
            batch = _filled_up(batch, counts, least)
        else:
            batch = _chosen(batch, (counts >= least)[window_of(batch)])
        counts = batch.offsets[1:] - batch.offsets[:-1]
    window = window_of(batch)
    place = torch.arange(len(window), device=window.device) - batch.offsets[window]
    if end == "last":
        first = torch.minimum(((1 - share) * counts.double()).long(), counts - least)
        return _chosen(batch, place >= first[window])
    return _chosen(batch, place < (share * counts.double()).long().clamp(min=least)[window])


def thin_windows(batch: WindowBatch, most: int, generator: torch.Generator | None = None) -> WindowBatch:
    """At most `most` events a window: a random subset without repetition, in the order they had."""
    counts = batch.offsets[1:] - batch.offsets[:-1]
    if not (counts > most).any():
        return batch
    window = window_of(batch)
    order = torch.rand(len(window), generator=generator, device=window.device, dtype=torch.float64).argsort()
    order = order[window[order].argsort(stable=True)]
    kept = torch.zeros(len(window), dtype=torch.bool, device=window.device)
    kept[order] = torch.arange(len(window), device=window.device) - batch.offsets[window] < most
    return _chosen(batch, kept)


def _chosen(batch: WindowBatch, kept: Bool[Tensor, " n"]) -> WindowBatch:
    counts = torch.bincount(window_of(batch)[kept], minlength=len(batch))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return WindowBatch(batch.x[kept], batch.y[kept], batch.t[kept], batch.p[kept], offsets, batch.size)


def _filled_up(batch: WindowBatch, counts: Tensor, least: int) -> WindowBatch:
    """Windows of fewer than `least` events (and only those) with OFF events at (0, 0) and time 0 behind theirs."""
    lengths = counts.clamp(min=least)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    index = torch.arange(len(batch.t), device=counts.device) + (offsets - batch.offsets)[window_of(batch)]

    def moved(column: Tensor) -> Tensor:
        return column.new_zeros(int(offsets[-1])).index_copy(0, index, column)

    return WindowBatch(moved(batch.x), moved(batch.y), moved(batch.t), moved(batch.p), offsets, batch.size)
