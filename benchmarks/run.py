"""Run every benchmark: first what this machine does with a matrix product and a copy, then each `bench_*.py` here.

A benchmark is a file with a function `main()` that times our path beside the naive formulation or a library in the
same run and prints both. Limits in a table are for an idle machine: read them beside the reference lines.
Name some of them to run only those: `python benchmarks/run.py representations raster`.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def fastest_s(function: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of several runs after one to warm up: what the machine can do when nothing else disturbs it."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def machine_reference() -> None:
    """Print what this machine reaches on one thread, so that the other figures can be compared across machines."""
    n = 1024
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    product_s = fastest_s(lambda: a @ a)
    block = np.zeros(64 << 20, np.uint8)
    target = np.empty_like(block)
    copy_s = fastest_s(lambda: np.copyto(target, block))
    load = os.getloadavg()[0]
    print(f"machine: {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}")
    print(f"  matrix product {n} x {n} float32, one thread: {2 * n**3 / product_s / 1e9:7.1f} GFLOP/s")
    print(f"  copy of 64 MiB, one thread:                   {block.nbytes / copy_s / 1e9:7.1f} GB/s")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main(names: list[str]) -> int:
    benchmarks = {p.stem.removeprefix("bench_"): p for p in sorted(FOLDER.glob("bench_*.py"))}
    unknown = [name for name in names if name not in benchmarks]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(FOLDER))
    machine_reference()
    for name in names or benchmarks:
        print(f"\n== {name}", flush=True)
        spec = importlib.util.spec_from_file_location(f"bench_{name}", benchmarks[name])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
