"""Latency of one window of 10 000 events through the exported `small`: `python benchmarks/bench_runtime.py`.

From the events of a window to the hand in the sensor's camera (crop, image, network, decoding, hand model), with
onnxruntime on one and two threads, in float32 and int8, beside torch and beside a matrix product of the same number of
multiplications. What is timed takes turns, so that other work on the machine disturbs all alike.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from evhands.geometry import crop_camera, default_camera
from evhands.inputs import crop_inputs
from evhands.jobs.export import facts_of, quantise, write_model
from evhands.models.checkpoint import load_model
from evhands.models.cost import count
from evhands.models.small_graph import to_onnx
from evhands.runtime import ExportedEstimator
from evhands.types import Events, EventWindow

EVENTS, REPEATS = 10_000, 100
CAMERA = default_camera((346, 260))
CROP = crop_camera(CAMERA, np.array([180.0, 130.0]), 140.0, 96)


def main() -> None:
    """Print p50, p99 and the fastest of each on the clock, and the median of the processor time of the process."""
    estimator, _ = load_model("small")
    window, before = some_window(0), torch.get_num_threads()
    _, macs = count(estimator.network, torch.zeros(1, 1, 2, 96, 96), estimator.initial_state(1))
    images = crop_inputs([window], CAMERA, [CROP], estimator.input_config)
    calls: dict[str, Callable[[], object]] = {
        "crop and image alone": lambda: crop_inputs([window], CAMERA, [CROP], estimator.input_config)
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, path in exported(estimator, Path(folder)).items():
            for threads in (1, 2):
                file = ExportedEstimator(path, threads)
                state = file.initial_state(1)
                word = f"onnxruntime {name}, {threads} thread{'s' * (threads > 1)}"
                calls[word] = lambda file=file, state=state: file.look(window, CAMERA, CROP, state)
                if threads == 1:
                    calls[f"  its graph alone, {name}"] = lambda file=file, state=state: file.run(images, state)
    calls["torch, 1 thread"] = lambda: estimator.predict(window, CAMERA, CROP, estimator.initial_state(1))
    a, b = (np.random.default_rng(0).random((256, n), np.float32).T.copy() for n in (256, 256))
    products = max(1, round(macs / 256**3))
    calls[f"{products} matrix products of 256^3 (numpy)"] = lambda: [a @ b for _ in range(products)]
    print(
        f"one window of {EVENTS} events; small: {macs / 1e6:.0f} million multiplications; load {os.getloadavg()[0]:.1f}"
    )
    print(f"  {'':<44} {'p50':>7} {'p99':>7} {'fastest':>8} {'processor':>9}  ms")
    torch.set_num_threads(1)
    print_rows(turns(calls))
    torch.set_num_threads(2)  # few and by itself: on a busy machine its threads wait for each other for a second
    print_rows(turns({"torch, 2 threads": calls["torch, 1 thread"]}, 10))
    torch.set_num_threads(before)


def print_rows(times: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for name, (clock, processor) in times.items():
        p50, p99 = np.percentile(clock, (50, 99))
        print(f"  {name:<44} {p50:7.2f} {p99:7.2f} {clock.min():8.2f} {np.median(processor):9.2f}", flush=True)


def some_window(seed: int) -> EventWindow:
    rng = np.random.default_rng(seed)
    xy = rng.normal((180, 130), 35, (EVENTS, 2)).clip(0, (345, 259)).astype(np.uint16)
    t_us = np.sort(rng.integers(0, 66_667, EVENTS))
    return EventWindow(Events(xy[:, 0].copy(), xy[:, 1].copy(), t_us, rng.random(EVENTS) < 0.5, CAMERA.size), 0, 66_667)


def exported(estimator, folder: Path) -> dict[str, Path]:
    """The shipped weights in float32, and in int8 with ranges from a few windows: good enough for a time."""
    paths = {"float32": folder / "float32.onnx", "int8": folder / "int8.onnx"}
    write_model(paths["float32"], to_onnx(estimator), facts_of(estimator))
    state = ExportedEstimator(paths["float32"]).initial_state(1)
    windows = (crop_inputs([some_window(k)], CAMERA, [CROP], estimator.input_config) for k in range(5))
    quantise(paths["float32"], paths["int8"], [{**images, "state": state} for images in windows])
    write_model(paths["int8"], paths["int8"].read_bytes(), facts_of(estimator, "int8"))
    return paths


def turns(calls: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Milliseconds on the clock and of the process for each call, after five that warm up."""
    times = {name: np.empty((2, repeats)) for name in calls}
    for k in range(-5, repeats):
        for name, call in calls.items():
            start, start_processor = time.perf_counter(), time.process_time()
            call()
            if k >= 0:
                times[name][:, k] = time.perf_counter() - start, time.process_time() - start_processor
    return {name: (1000 * clock, 1000 * processor) for name, (clock, processor) in times.items()}


if __name__ == "__main__":
    main()
