"""LNES, voxel grid and event image of tensors on any device: the same images as `representations`, which explains them.

The columns of the `WindowBatch` are tensors on one device. LNES is bit for bit the numba one (a per-pixel maximum, by
scatter_reduce, so no race decides); sums agree to float32 rounding and differ between runs on a GPU by no more.
Bilinear voxel grid and event image carry gradients to x and y (and the voxel grid to t).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from evhands.types import WindowBatch


def lnes(batch: WindowBatch, *, bilinear: bool = True) -> Float[Tensor, "b 2 h w"]:
    """Time of the latest event at each pixel, channel 0 = ON, 1 = OFF; 0 where none (see `representations.lnes`)."""
    width, height = batch.size
    out = batch.t.new_zeros(len(batch) * 2 * height * width)
    plane = window_of(batch) * 2 + (~batch.p).long()
    for pixel, weight, inside in _taps(batch, bilinear):
        touched = inside & (weight > 0)
        out.scatter_reduce_(0, _flat(plane, pixel, touched, batch), batch.t * touched, "amax")
    return out.reshape(len(batch), 2, height, width)


def voxel_grid(batch: WindowBatch, bins: int = 5, *, bilinear: bool = True) -> Float[Tensor, "b bins h w"]:
    """Signed polarity spread linearly over `bins` planes of time (see `representations.voxel_grid`)."""
    if bins < 1:
        raise ValueError(f"bins = {bins}; wanted at least 1")
    width, height = batch.size
    out = batch.t.new_zeros(len(batch) * bins * height * width)
    time = batch.t.clamp(0, 1) * (bins - 1)
    interval = time.detach().long().clamp(max=max(bins - 2, 0))
    late = time - interval
    sign = 2 * batch.p.to(batch.t.dtype) - 1
    plane = window_of(batch) * bins + interval
    for pixel, weight, inside in _taps(batch, bilinear):
        index, weight = _flat(plane, pixel, inside, batch), torch.where(inside, weight * sign, 0)
        out = out.index_add(0, index, weight * (1 - late))
        if bins > 1:
            later = index + torch.where(inside, height * width, 0)
            out = out.index_add(0, later, weight * late)
    return out.reshape(len(batch), bins, height, width)


def event_image(batch: WindowBatch, *, bilinear: bool = True) -> Float[Tensor, "b 2 h w"]:
    """Number of events at each pixel, channel 0 = ON, 1 = OFF (see `representations.event_image`)."""
    width, height = batch.size
    plane = window_of(batch) * 2 + (~batch.p).long()
    taps = list(_taps(batch, bilinear))
    index = torch.cat([_flat(plane, pixel, inside, batch) for pixel, _, inside in taps])
    weight = torch.cat([torch.where(inside, weight, 0) for _, weight, inside in taps])
    out = batch.x.new_zeros(len(batch) * 2 * height * width).index_add(0, index, weight)
    return out.reshape(len(batch), 2, height, width)


def window_of(batch: WindowBatch) -> Tensor:
    """The number of the window of each event."""
    counts = batch.offsets[1:] - batch.offsets[:-1]
    return torch.repeat_interleave(torch.arange(len(batch), device=batch.t.device), counts, output_size=len(batch.t))


def _taps(batch: WindowBatch, bilinear: bool) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor, Tensor]]:
    """For each tap (column, row), its weight, and whether it lies inside the image; NaN lies outside."""
    width, height = batch.size
    left, top = batch.x.detach().floor(), batch.y.detach().floor()
    near = (left >= -1) & (left < width) & (top >= -1) & (top < height)
    fx, fy = torch.where(near, batch.x - left, 0), torch.where(near, batch.y - top, 0)
    column, row = torch.where(near, left, -1).long(), torch.where(near, top, -1).long()
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)) if bilinear else ((0, 0),):
        u, v = column + dx, row + dy
        inside = near & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) if bilinear else torch.ones_like(fx)
        yield (u, v), weight, inside


def _flat(plane: Tensor, pixel: tuple[Tensor, Tensor], inside: Tensor, batch: WindowBatch) -> Tensor:
    """Index into the flat output; events outside point at entry 0, where they add nothing."""
    width, height = batch.size
    return torch.where(inside, (plane * height + pixel[1]) * width + pixel[0], 0)
