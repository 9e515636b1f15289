"""Poses a second of `paper` over a stream: kept history, carried state, and the published way of running.

`python benchmarks/bench_paper_live.py [THREADS]`, with onnxruntime where it is installed. Windows of 10 000 events in
the crop, one after the other; random weights (times do not depend on them). The published way is imitated: for every
pose twelve windows anew, with the representations of each made by tensor operations.
"""

from __future__ import annotations

import os
import sys

_THREADS = sys.argv[1] if __name__ == "__main__" and len(sys.argv) > 1 else "1"
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, _THREADS)

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from bench_representations import anywhere, as_tensors, naive_lnes, naive_voxel_torch
from evhands.events.representations import lnes, voxel_grid
from evhands.hand.model import load_hand
from evhands.models.cost import count
from evhands.models.paper import PaperEstimator, paper
from evhands.models.recurrent import CellState
from evhands.runtime import ExportedEstimator
from evhands.types import WindowBatch

HISTORY, EVENTS = 12, 10_000

Images = dict[str, Tensor]


@torch.no_grad()
def main(threads: int = 1, rounds: int = 7) -> None:
    """Every round takes one pose each way and one matrix product, so that all see the same load of the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        estimator = PaperEstimator(paper()).eval()
        # The published network lies in memory as it is made; ours is laid out for single windows.
        published = PaperEstimator(paper()).eval()
        published.load_state_dict(estimator.state_dict())
        _print(estimator.for_inference(), published, rounds)
    finally:
        torch.set_num_threads(before)


def _print(estimator: PaperEstimator, published: PaperEstimator, rounds: int) -> None:
    flow, window = estimator.flow, anywhere(EVENTS)
    assert flow is not None
    images = ours(window)
    matrix, source = torch.randn(1024, 1024), torch.ones(16_000_000)
    target = torch.empty_like(source)
    ways: dict[str, Callable[[], object]] = {
        "exact: kept halves, recurrence over 12": stepping(estimator.with_history("exact"), window),
        "carried: one step a window": stepping(estimator.with_history("carried"), window),
        **onnx_ways(estimator, images),
        "published way: 12 windows anew": lambda: published_way(published, window),
        "  of it representations by tensor operations": lambda: [imitated(window) for _ in range(HISTORY)],
        "LNES and voxel grid, ours": lambda: ours(window),
        "FlowNet alone": lambda: flow(images["voxel"]),
        "matrix product 1024 x 1024": lambda: matrix @ matrix,
        "copy of 64 MB": lambda: target.copy_(source),
    }
    clock, processor = measured(ways, rounds)
    print(f"  worst difference of exact from 12 windows anew, over 16 windows: {worst_difference(estimator):.1e}")
    print(f"  threads {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f}, medians of {rounds} rounds; processor:")
    print("  time of all threads, which does not count waiting for a core that others use")
    for name in ways:
        rate = f"{1e3 / clock[name]:7.2f} poses/s" if ":" in name else ""
        print(f"  {name:<46} {clock[name]:8.1f} ms, processor {processor[name]:8.1f} ms {rate}")
    _print_limit(clock, processor)


def _print_limit(clock: dict[str, float], processor: dict[str, float]) -> None:
    """What the same products would take at the speed of the matrix product: nobody can be faster in float32."""
    with torch.device("meta"):  # counted where the recurrence runs as convolutions, in training mode
        model = PaperEstimator(paper()).train()
        sequence = {"lnes": torch.zeros(1, 1, 2, 128, 128), "voxel": torch.zeros(1, 1, 5, 128, 128)}
        (_, whole), (_, flow) = count(model, sequence), count(model.flow, sequence["voxel"][0])
    product = "matrix product 1024 x 1024"
    for word, times in (("clock", clock), ("processor", processor)):
        rate = 2 * 1024**3 / times[product] / 1e6
        print(f"  by the {word}: matrix product {rate:.0f} GFLOP/s")
        for name, macs in (
            ("FlowNet alone", flow),
            ("carried: one step a window", whole),
            ("exact: kept halves, recurrence over 12", whole),
            ("onnxruntime, carried: float32", whole),
            ("onnxruntime, exact: float32", whole),
        ):
            if name not in times:
                continue
            limit = 2 * macs / rate / 1e6
            share = 100 * limit / times[name]
            print(f"    {name:<44} {macs / 1e9:.2f} GMAC, limit {limit:6.1f} ms, reached {share:3.0f} %")


def measured(ways: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of each way on the clock, and of the processor in all threads, taken in turns."""
    for way in ways.values():
        way()
    seconds = np.empty((rounds, len(ways), 2))
    for i in range(rounds):
        for k, way in enumerate(ways.values()):
            start = np.array([time.perf_counter(), time.process_time()])
            way()
            seconds[i, k] = np.array([time.perf_counter(), time.process_time()]) - start
    median = 1e3 * np.median(seconds, 0)
    return {n: float(m[0]) for n, m in zip(ways, median)}, {n: float(m[1]) for n, m in zip(ways, median)}


def onnx_ways(estimator: PaperEstimator, images: Images) -> dict[str, Callable[[], object]]:
    """The same graphs by onnxruntime, in float32 and with convolutions in int8; none where it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return {}
    from evhands.jobs.export import facts_of, graph_of, quantise, write_model

    hand = load_hand("open")
    arrays = {name: value.numpy() for name, value in images.items()}
    ways: dict[str, Callable[[], object]] = {}
    with TemporaryDirectory() as folder:
        for history in ("exact", "carried"):
            model, path = estimator.with_history(history), Path(folder) / f"{history}.onnx"
            write_model(path, graph_of(model, hand), facts_of(model))
            ways[f"onnxruntime, {history}: float32"] = one_run(ExportedEstimator(path, torch.get_num_threads()), arrays)
        quantise(path, Path(folder) / "int8.onnx", [{**arrays, "state": ExportedEstimator(path).initial_state(1)}])
        write_model(path, (Path(folder) / "int8.onnx").read_bytes(), facts_of(model, "int8"))
        ways["onnxruntime, carried: int8"] = one_run(ExportedEstimator(path, torch.get_num_threads()), arrays)
    return ways


def one_run(file: ExportedEstimator, arrays: dict[str, np.ndarray]) -> Callable[[], object]:
    state = [file.initial_state(1)]

    def step() -> object:
        values, state[0] = file.run(arrays, state[0])
        return values

    return step


def stepping(estimator: PaperEstimator, window: WindowBatch) -> Callable[[], object]:
    """One window a call, from the twelfth on."""
    state = estimator.initial_state(1)
    for _ in range(HISTORY):
        _, state = estimator(ours(window), state)
    states: list[CellState] = [state]

    def step() -> object:
        prediction, states[0] = estimator(ours(window), states[0])
        return prediction

    return step


def worst_difference(estimator: PaperEstimator) -> float:
    """Radians and metres between the poses of kept halves and of everything anew, one window a call."""
    exact, anew = estimator.with_history("exact"), estimator.with_history("anew")
    states, worst = (exact.initial_state(1), anew.initial_state(1)), 0.0
    for seed in range(16):
        images = ours(anywhere(EVENTS if seed % 5 else 0, seed))
        (one, first), (other, second) = exact(images, states[0]), anew(images, states[1])
        states = (first, second)
        for part in ("orientation", "wrist", "joints", "shape"):
            worst = max(worst, float((getattr(one.pose, part) - getattr(other.pose, part)).abs().max()))
    return worst


def published_way(estimator: PaperEstimator, window: WindowBatch) -> object:
    """Representations of twelve windows one by one, then all twelve through the network."""
    windows = [imitated(window) for _ in range(HISTORY)]
    sequence = {name: torch.cat([w[name] for w in windows])[None] for name in windows[0]}
    return estimator.with_history("anew")(sequence)[0]


def ours(window: WindowBatch) -> Images:
    return {"lnes": torch.from_numpy(lnes(window)), "voxel": torch.from_numpy(voxel_grid(window, 5))}


def imitated(window: WindowBatch) -> Images:
    """The tensor code that one would write first."""
    tensors = as_tensors(window)
    grid = naive_voxel_torch(tensors)[: 5 * 128 * 128].view(1, 5, 128, 128)
    return {"lnes": naive_lnes(tensors)[None], "voxel": grid}


if __name__ == "__main__":
    main(int(_THREADS))
