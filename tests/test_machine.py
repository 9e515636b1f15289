"""What a process says of its memory, and gives back of it."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.machine import give_memory_back, machine, memory_mb


def test_the_machine_is_named() -> None:
    assert machine()["cores"] >= 1


@pytest.mark.skipif(not give_memory_back(), reason="the C library has no way to give memory back")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Holes between blocks that are still in use, too, which the library keeps for itself otherwise."""
    blocks = [np.ones(2500) for _ in range(5000)]  # 100 MB of pieces too small to be mapped one by one
    full = memory_mb()
    kept = blocks[::5]
    del blocks
    give_memory_back()
    assert memory_mb() < full - 50
    assert all(block[0] == 1 for block in kept)
