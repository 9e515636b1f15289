"""Rows of shards kept in the memory of a GPU, where training pictures are also cropped anew and augmented: the same
changes as `recrop` and `row_augment` make on the CPU, without a copy of every picture on its way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evhands.data.recrop import pixel_moves
from evhands.data.shards import Pool

FIELDS = ("lnes", "K", "joints", "orientation", "rotvecs", "shape")
"""What training reads of a row; all but the last a window."""


class DeviceRows:
    """The rows of a pool on a device, with the interface of a pool: a row is its number.

    At most `capacity` rows are kept; where a pool has more, the newest take the places of the oldest.
    """

    def __init__(self, pool: Pool, device: torch.device, capacity: int | None = None, part: int = 64) -> None:
        self._pool, self._seen = pool, 0
        first = pool.take(np.array([0]))
        self.windows = int(first["lnes"].shape[1])
        row_bytes = sum(first.dtype[name].itemsize for name in FIELDS)
        self.capacity = capacity or _room(device) // row_bytes
        self._part = min(part, self.capacity)
        self._fields = {
            name: torch.from_numpy(first[name].copy()).new_empty((self.capacity, *first[name].shape[1:]), device=device)
            for name in FIELDS
        }
        self.refresh()

    def refresh(self) -> int:
        """Copy the rows that the pool has got since; returns how many are kept."""
        there = self._pool.refresh()
        for begin in range(self._seen, there, self._part):
            numbers = np.arange(begin, min(begin + self._part, there))
            rows = self._pool.take(numbers)
            places = torch.from_numpy(numbers % self.capacity)
            for name, kept in self._fields.items():
                kept[places.to(kept.device)] = torch.from_numpy(rows[name].copy()).to(kept.device)
        self._seen = there
        return len(self)

    def __len__(self) -> int:
        return min(self._seen, self.capacity)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The numbers themselves."""
        return np.asarray(indices, np.int64)

    def windows_of(self, rows: np.ndarray, chosen: np.ndarray) -> dict[str, Tensor]:
        """FIELDS of the windows `chosen` (B, T) of rows (B,): tensors (B, T, ...), the shape (B, 10)."""
        device = self._fields["lnes"].device
        row, window = torch.from_numpy(rows).to(device), torch.from_numpy(chosen).to(device)
        values = {name: self._fields[name][row[:, None], window] for name in FIELDS[:-1]}
        return values | {"shape": self._fields["shape"][row]}


def recropped_on_device(images: Tensor, K: Tensor, crops: np.ndarray) -> tuple[Tensor, Tensor]:
    """`evhands.data.recrop.recropped` of tensors, on their device.

    Where a pixel goes grows with where it is, so the pixels that meet in a new one are neighbours: of each row, and
    then of each column, the brightest of those few is taken.
    """
    side = images.shape[-1]
    scale, shift = pixel_moves(crops, side)
    where = np.floor(np.arange(side) * scale[:, None, None] + shift[..., None] + 0.5).astype(np.int64)
    first, behind = _sources(where, side)
    most = int((behind - first).max(initial=1))
    for axis, dim in ((1, 3), (0, 4)):
        images = _brightest(images, first[:, axis], behind[:, axis], most, dim)
    moved = K.clone()
    moved[..., :2, :] *= torch.from_numpy(scale).to(K)[:, None, None, None]
    moved[..., :2, 2] += torch.from_numpy(shift).to(K)[:, None]
    return images, moved


def augmented_on_device(images: Tensor, generator: torch.Generator, thinning: float, noise: float) -> Tensor:
    """`evhands.data.row_augment.augmented` of tensors, on their device; the random numbers are others."""
    strength = (len(images),) + (1,) * (images.ndim - 1)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator, device=images.device)

    kept = random(images.shape) >= thinning * random(strength) ** 2
    added = random(images.shape) > 1 - noise * random(strength) ** 3
    return torch.where(added, random(images.shape), images * kept)


def _sources(where: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 of the pixels that go to each pixel, (B, 2, side) each, from where (B, 2, side) they go."""
    wanted = np.arange(side)
    first = np.stack([[np.searchsorted(line, wanted, "left") for line in lane] for lane in where])
    behind = np.stack([[np.searchsorted(line, wanted, "right") for line in lane] for lane in where])
    return first, behind


def _brightest(images: Tensor, first: np.ndarray, behind: np.ndarray, most: int, dim: int) -> Tensor:
    """Along a dimension, the greatest of the pixels first .. behind - 1 (B, side); zero where there is none."""
    shape = [len(images)] + [1] * (images.ndim - 1)
    shape[dim] = first.shape[1]
    low, high = (torch.from_numpy(values).to(images.device).view(shape) for values in (first, behind))
    out = torch.zeros_like(images)
    for k in range(most):
        source = (low + k).clamp(max=images.shape[dim] - 1).expand(images.shape)
        out = torch.maximum(out, torch.gather(images, dim, source) * (low + k < high))
    return out


def _room(device: torch.device) -> int:
    """Bytes for rows: half of what is free on a GPU."""
    return torch.cuda.mem_get_info(device)[0] // 2
