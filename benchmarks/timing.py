"""Timing shared by the benchmarks: medians, and what the machine does meanwhile with a matrix product and a copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median and fastest on the clock, median of the processor time of the calling thread.

    On a busy machine the clock counts the waiting for a core too; the processor time does not.
    """

    median_ms: float
    fastest_ms: float
    processor_ms: float


def measure(function: Callable[[], object], repeats: int = 50) -> Timing:
    """Time `repeats` calls, after one that compiles and warms up.

    Freeing a block of 30 MB first makes the C library keep freed memory, as it does in any process that has worked with
    larger arrays; otherwise it may hand the pages back after every call and the benchmark times the kernel's paging.
    """
    np.ones(30_000_000, np.uint8)
    function()
    clock, processor = np.empty(repeats), np.empty(repeats)
    for i in range(repeats):
        start, start_processor = time.perf_counter(), time.thread_time()
        function()
        clock[i], processor[i] = time.perf_counter() - start, time.thread_time() - start_processor
    return Timing(float(np.median(clock)) * 1e3, float(clock.min()) * 1e3, float(np.median(processor)) * 1e3)


def median_ms(function: Callable[[], object], repeats: int = 50) -> float:
    """The median of `measure`."""
    return measure(function, repeats).median_ms


def machine_reference() -> dict[str, Timing]:
    """Times of a 512 x 512 float32 matrix product and of a 64 MB copy on this machine, now."""
    a = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    product = np.empty_like(a)
    source = np.ones(64_000_000, np.uint8)
    target = np.empty_like(source)
    return {
        "matrix product 512 x 512 (numpy)": measure(lambda: np.matmul(a, a, out=product), 20),
        "copy of 64 MB (numpy)": measure(lambda: np.copyto(target, source), 10),
    }
