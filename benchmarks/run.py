"""Run every benchmark: first what this machine does with a matrix product and a copy, then each `bench_*.py` here.

A benchmark is a file with a function `main()` that times our path beside the naive formulation or a library in the
same run and prints both. Limits in a table are for an idle machine: read them beside the reference lines.
Name some of them to run only those: `python benchmarks/run.py representations hand`.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import importlib
import platform
import sys
from pathlib import Path

from evhands.machine import processor_name
from timing import machine_reference

FOLDER = Path(__file__).parent


def print_machine() -> None:
    """What this machine is and reaches on one thread now, so that figures can be compared across machines."""
    load, processor = os.getloadavg()[0], processor_name() or platform.machine()
    print(f"machine: {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}")
    for name, timing in machine_reference().items():
        print(f"  {name:34} {timing.median_ms:7.2f} ms (fastest {timing.fastest_ms:.2f})")


def main(names: list[str]) -> int:
    benchmarks = [path.stem.removeprefix("bench_") for path in sorted(FOLDER.glob("bench_*.py"))]
    unknown = [name for name in names if name not in benchmarks]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    print_machine()
    for name in names or benchmarks:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"bench_{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
