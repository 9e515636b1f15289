"""Chunks packed here are read by the library's own filters, whatever they hold and however they were appended."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from evhands.events.io.hdf5 import EventsWriter
from evhands.events.io.hdf5_kernels import packed_chunk
from evhands.types import Events

KINDS = {
    "constant": lambda rng, n: np.full(n, 300),
    "noise": lambda rng, n: rng.integers(0, 1 << 16, n),
    "short runs": lambda rng, n: np.repeat(rng.integers(0, 345, n), rng.integers(1, 9, n))[:n],
    "long runs": lambda rng, n: np.repeat(rng.integers(0, 345, n), rng.integers(1, 3000, n))[:n],
    "counting": lambda rng, n: np.arange(n) % 346,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 33, 264, 265, 266, 270, 5000])
def test_a_packed_chunk_is_unpacked_by_the_library(tmp_path: Path, kind: str, dtype: type, length: int) -> None:
    values = KINDS[kind](np.random.default_rng(length), length).astype(dtype)
    content, packed = packed_chunk(values)
    assert len(content) < values.nbytes if packed else len(content) == values.nbytes
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", (length,), dtype, chunks=(length,), shuffle=True, compression="lzf")
        made.id.write_direct_chunk((0,), content, 0 if packed else 0b10)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        np.testing.assert_array_equal(file["a"][()], values)


def test_appended_parts_of_any_length_come_back_and_are_there_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 300_000
    events = Events(rng.integers(0, 346, n).astype(np.uint16), rng.integers(0, 260, n).astype(np.uint16),
                    np.sort(rng.integers(0, 10**6, n)) + 10**15, rng.random(n) < 0.5, (346, 260))  # fmt: skip
    cuts = [0, 1, 1, 40_000, 65_536, 65_537, 131_071, 131_072, 290_000, n]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        writer = EventsWriter(file, events.size)
        for start, end in zip(cuts, cuts[1:]):
            writer.append(events[start:end])
            np.testing.assert_array_equal(file["events/x"][()], events.x[:end])
    with h5py.File(tmp_path / "a.h5", "r") as file:
        for name, values in (("x", events.x), ("y", events.y), ("t", events.t_us - events.t_us[0]), ("p", events.p)):
            np.testing.assert_array_equal(file[f"events/{name}"][()], values)
