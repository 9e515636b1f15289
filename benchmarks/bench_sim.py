"""The simulator's `train` preset, events and truth written, beside drawing the whole image every millisecond.

`python benchmarks/bench_sim.py`: simulated seconds a second on one core and on two, and where the time goes.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from evhands.jobs.simulate import Job, Series, _write, simulate
from evhands.recording import read_recording
from evhands.sim import film as film_room
from evhands.sim import generate
from evhands.sim.drawing import draw_world
from evhands.sim.generate import film
from evhands.sim.presets import TrainShares
from evhands.sim.render import image_boxes, log_background, render
from evhands.sim.scenery import wall_at
from evhands.sim.sensor import EventSensor, draw_sensor
from evhands.sim.world import World
from timing import machine_reference

CLIPS = 32
TWO_CLIPS = 160
"""Of the two processes together: so many that their start is not what is measured."""
NAIVE_CLIPS = (0, 1, 2)
PARTS: dict[str, tuple[object, str]] = {
    "times of the images": (generate, "needed_times"),
    "truth": (World, "truth"),
    "meshes": (World, "vertices"),
    "light of the meshes": (film_room, "corners"),
    "drawing, background, events": (generate, "show"),
    "leak and noise": (EventSensor, "_add_background"),
    "sorting and readout": (EventSensor, "take"),
}
SERIES = Series("train", 0, TrainShares(), None, None, None)


def main() -> None:
    """Print simulated seconds a second, and where the time goes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(SERIES, i, Path(folder) / f"{i}.h5") for i in range(CLIPS)]
        _write(jobs[0])
        cost = [_seconds(lambda job=job: _write(job)) for job in jobs]
        _describe([job.path for job in jobs])
        clock, processor = np.sum(cost, axis=0)
        speeds = f"{CLIPS / clock:6.2f} simulated s a second, {CLIPS / processor:6.2f} of the processor"
        print(f"  one process   {speeds}; limit 4.5")
        print(f"    median of the recordings {1 / np.median([c for c, _ in cost]):6.2f}, {_memory_mb():.0f} MB")
        _profile()
        start, whole = (_two_processes(Path(folder) / f"two{n}", n) for n in (2, TWO_CLIPS))
        print(f"  two processes {TWO_CLIPS / whole:6.2f} simulated s a second, {TWO_CLIPS} recordings; limit 8")
        rest = (TWO_CLIPS - 2) / (whole - start)
        print(f"    their start, with two recordings, takes {start:.1f} s; {rest:.2f} a second without it")
    _naive(np.array(cost))
    for name, timing in machine_reference().items():
        print(f"  {name} {timing.median_ms:.2f} ms, {timing.processor_ms:.2f} ms of the processor")


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds by the clock, of the processor)."""
    start, start_processor = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - start, time.thread_time() - start_processor


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _describe(paths: list[Path]) -> None:
    """The preset is worth measuring only where something happens: print how much."""
    rows = [read_recording(path).meta for path in paths]
    statistics = [row["statistics"] for row in rows]
    area = [(draw_world(SERIES.clip(i)[1], SERIES.seed, i).mask(500_000) == 0).mean() for i in range(0, len(paths), 4)]
    speed = np.mean([s["joint_px_s"] for s in statistics])
    rate = np.mean([s["events"] / s["seconds"] for s in statistics]) / 1e6
    print(
        f"{len(paths)} recordings of 1 s, 346x260, davis346, truth at 100 Hz, one thread: joints move "
        f"{speed:.0f} px/s, the hand covers {100 * np.mean(area):.1f} % of the image, {rate:.2f} Mev and "
        f"{np.mean([row['renders'] for row in rows]):.0f} images a simulated second"
    )


def _profile() -> None:
    spent = dict.fromkeys(PARTS, 0.0)
    with ExitStack() as stack:
        for name, (owner, function) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, function, _timed(getattr(owner, function), spent, name)))
        start = time.thread_time()
        for i in range(CLIPS):
            film(draw_world(SERIES.clip(i)[1], 0, i), 0, i)
        total = time.thread_time() - start
    for name, value in [*spent.items(), ("the rest", total - sum(spent.values()))]:
        print(f"    {name:<30} {100 * value / total:5.1f} %   {1e3 * value / CLIPS:7.2f} ms a simulated second")


def _timed(function: Callable[..., object], spent: dict[str, float], name: str) -> Callable[..., object]:
    def timed(*arguments: object) -> object:
        start = time.thread_time()
        result = function(*arguments)
        spent[name] += time.thread_time() - start
        return result

    return timed


def _two_processes(folder: Path, clips: int) -> float:
    """Seconds by the clock of the command itself, start of the processes and card included."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return _seconds(lambda: simulate(folder, preset="train", seconds=clips, workers=2))[0]


def _naive(ours: np.ndarray) -> None:
    """An image every millisecond, all of it, as a simulator does that knows nothing of the motion."""
    cost = [_seconds(lambda i=i: _every_millisecond(draw_world(SERIES.clip(i)[1], 0, i), i))[1] for i in NAIVE_CLIPS]
    mine = ours[list(NAIVE_CLIPS), 1].sum()
    print(f"  every millisecond, whole image {len(cost) / sum(cost):6.2f} simulated s a processor second")
    print(f"  gain on the same recordings {sum(cost) / mine:.1f} x")


def _every_millisecond(world: World, index: int) -> None:
    """The events of whole images a millisecond apart."""
    sensor = draw_sensor(world.config.sensor, world.config.size, np.random.default_rng((0, index, 2)))
    whole = (0, 0, *world.config.size)
    eye = None
    for t_us in range(0, world.config.duration_us + 1, 1000):
        gain = float(world.lamp.gain(np.array([t_us * 1e-6]))[0])
        wall = log_background(world.backdrop.picture, sensor.dark, gain)
        if world.backdrop.moves:
            wall = wall_at(wall, world.backdrop.maps(np.array([t_us * 1e-6]))[0], world.config.size)
        vertices = world.vertices(np.array([t_us]))
        points, _ = image_boxes(vertices, world.camera)
        light = render(vertices[0], points[0], world.faces, world.look, sensor.dark, wall, whole, gain)
        if eye is None:
            eye = EventSensor(sensor, light, t_us, np.random.default_rng((0, index, 1)))
        else:
            eye.expose(light, whole, t_us)
    assert eye is not None
    eye.take()


if __name__ == "__main__":
    main()
