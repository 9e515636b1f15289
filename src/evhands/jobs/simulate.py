"""`evhands simulate`: recordings of simulated hands with their truth, a card of what they are, and a contact sheet."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evhands import __version__
from evhands.evrealhands_layout import encoded, on_layout_clock, write_index, write_sequence
from evhands.files import replacing
from evhands.recording import OtherHand, Tags, View, read_recording, write_recording
from evhands.sim.card import write_card, write_sheet
from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.frames import FrameConfig, render_frames
from evhands.sim.generate import Clip, film
from evhands.sim.presets import FAST, TEST_COUNT, TEST_SEED, PresetName, TrainShares, clip_of, with_camera
from evhands.sim.sensor import SENSORS
from evhands.sim.testset import Fingerprint, compare, fingerprint, frozen, write_frozen
from evhands.sim.world import World
from evhands.types import Camera, InputError


def simulate(
    out: Path,
    *,
    preset: PresetName = "demo",
    seconds: float = 10.0,
    hours: float = 0.0,
    seed: int = 0,
    side: Literal["right", "left", "any", "both"] | None = None,
    camera: Literal["346x260", "240x180", "640x480", "1280x720"] | None = None,
    sensor: str | None = None,
    shares: TrainShares = TrainShares(),
    workers: int = 1,
    cluster: bool = False,
) -> None:
    """Simulate moving hands and write what an event camera sees of them, with the truth 100 times a second.

    With OUT a name that ends in .h5, one recording of that length; else a folder of recordings (each of another hand,
    light and background), which is filled up where it was left, with OUT/card.json (every setting, event statistics)
    and OUT/sheet.png (pictures). Recordings hold events, camera, poses, 21 joints, boxes and how they were made;
    recording i is a function of the preset, the seed and i alone, whatever the number of workers.

    Args:
        out: a file that ends in .h5, or a folder.
        preset: demo: a hand of a test subject that moves at ease. train: what training sees, of everything (see
            --shares). testset: the fixed test set of the project (its own seed and length; others are ignored). fast:
            fast motion. ego: a turning camera, as on a head. two-hands: both hands in view. evrealhands: the scene and
            motion types of that data set, with colour frames, also in its layout (OUT/layout).
        seconds: length of the recording, or of all recordings of the folder together.
        hours: the same in hours, used instead of the seconds where it is given.
        seed: of the series.
        side: which hand; the preset's own when left out.
        camera: size of the sensor; the preset's own when left out.
        sensor: kind of the sensor (ideal, davis346, evk4, dim, eventhands); the preset's own when left out.
        shares: what the preset train mixes, as --shares.free 0.5.
        workers: processes; one a core.
        cluster: spread the work with Ray (pip install evhands[cluster]) over this machine, or over the cluster that
            RAY_ADDRESS names; OUT must then be a folder that all its machines share.
    """
    length_s = (seconds if not hours else 3600 * hours) if preset != "testset" else 1.0
    if not length_s > 0:
        raise InputError(f"Found a length of {length_s} s. Wanted more than 0.")
    if sensor is not None and sensor not in SENSORS:
        raise InputError(f"Found --sensor {sensor!r}. Wanted one of {', '.join(SENSORS)}.")
    series = Series(preset, TEST_SEED if preset == "testset" else seed, shares, side, camera, sensor)
    if out.suffix == ".h5":
        length_us = max(round(length_s * 1e6), 1)
        events = _write(Job(series, 0, out, length_us))
        print(f"Wrote {length_us * 1e-6:g} s, {events} events, to {out}.")
        return
    _write_folder(out, series, length_s, workers, cluster)


@dataclass(frozen=True)
class Series:
    """What tells every recording of a folder, but for its number."""

    preset: PresetName
    seed: int
    shares: TrainShares
    side: Literal["right", "left", "any", "both"] | None
    camera: str | None
    sensor: str | None

    def clip(self, index: int) -> tuple[str, ClipConfig]:
        """Name and configuration of a recording."""
        name, config = clip_of(self.preset, self.seed, index, self.shares)
        config = with_camera(config, self.camera) if self.camera is not None else config
        config = replace(config, side=self.side) if self.side is not None else config
        return name, replace(config, sensor=SENSORS[self.sensor]) if self.sensor is not None else config


@dataclass(frozen=True)
class Job:
    """One recording to write; a length other than its own where `length_us` is given."""

    series: Series
    index: int
    path: Path
    length_us: int = 0


def _write_folder(out: Path, series: Series, length_s: float, workers: int, cluster: bool) -> None:
    each_s = series.clip(0)[1].duration_us * 1e-6
    count = TEST_COUNT if series.preset == "testset" else max(round(length_s / each_s), 1)
    jobs = [Job(series, i, out / f"{series.clip(i)[0]}.h5") for i in range(count)]
    out.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not job.path.exists()]
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} recordings are in {out} already and are kept.")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task("recordings", total=len(jobs), completed=len(jobs) - len(todo))
        for _ in _on_cluster(todo) if cluster else _in_processes(todo, workers):
            bar.advance(row)
    if series.preset == "evrealhands":
        write_index(out / "layout")
        print(f"EvRealHands layout: {out / 'layout'}")
    statistics = write_card(out, {job.path: series.clip(job.index)[1] for job in jobs}, asdict(series))
    sheet = write_sheet(out, [job.path for job in jobs])
    print(
        f"Wrote {len(todo)} recordings; {out} holds {len(jobs)} of {each_s:g} s, {statistics['events']} events "
        f"({statistics['events_per_second'] / 1e6:.2f} M a second, {100 * statistics['on_share']:.0f} % ON). "
        f"Card: {out / 'card.json'}  pictures: {sheet}"
    )
    if series == Series("testset", TEST_SEED, series.shares, None, None, None):
        _check_testset(out, jobs)


def _check_testset(out: Path, jobs: list[Job]) -> None:
    """Say whether the folder holds the frozen test set; OUT/testset.json holds the fingerprints found."""
    found = {}
    for job in jobs:
        mark = read_recording(job.path).meta["fingerprint"]
        found[job.path.stem] = Fingerprint(mark["events"], mark["sha256"], tuple(mark["joints_m"]))
    with replacing(out / "testset.json") as temporary:
        write_frozen(temporary, found)
    wanted = frozen()
    if not wanted:
        print("No test set is frozen in this evhands.")
        return
    exact, complaints = compare(found, wanted)
    if complaints:
        raise InputError(
            f"{out} is not the frozen test set: {'; '.join(complaints[:3])} ({len(complaints)} of {len(wanted)} "
            "differ). Figures on it cannot be compared with published ones; delete the folder and simulate it with the "
            "evhands that the figures name."
        )
    print(f"This is the frozen test set: {exact} of {len(wanted)} recordings to the bit, the others to rounding.")


def _in_processes(todo: list[Job], workers: int) -> Iterator[int]:
    if workers <= 1 or len(todo) <= 1:
        yield from map(_write, todo)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(todo))) as pool:
        yield from pool.imap_unordered(_write, todo)


def _on_cluster(todo: list[Job]) -> Iterator[int]:
    """The same function on Ray's workers, a few jobs a core ahead."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray, which is not installed: pip install evhands[cluster].") from error
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, logging_level="warning")
    try:
        remote = ray.remote(num_cpus=1)(_write)
        ahead = 3 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = [remote.remote(job) for job in todo[:ahead]]
        for job in [*todo[ahead:], *([None] * len(waiting))]:
            done, waiting = ray.wait(waiting)
            yield ray.get(done[0])
            if job is not None:
                waiting.append(remote.remote(job))
    finally:
        if started_here:
            ray.shutdown()


def _write(job: Job) -> int:
    """Simulate one recording into its file; returns the number of its events."""
    import torch

    torch.set_num_threads(1)  # the products of one clip are too small to share
    series = job.series
    _, config = series.clip(job.index)
    if job.length_us:
        config = replace(config, duration_us=job.length_us)
    world = draw_world(config, series.seed, job.index)
    clip = film(world, series.seed, job.index)
    meta = {
        "preset": series.preset, "evhands": __version__, **clip.meta,
        "motion": world.actors[0].motion.tags(config.duration_us * 1e-6),
        "fingerprint": asdict(fingerprint(clip.events, clip.joints_m)), "statistics": _statistics(clip, config),
    }  # fmt: skip
    views = (_rgb_view(world, clip, series.seed, job.index),) if series.preset == "evrealhands" else ()
    others = [OtherHand(hand.pose, hand.joints_m) for hand in clip.hands[1:]]
    job.path.parent.mkdir(parents=True, exist_ok=True)
    write_recording(
        job.path, clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, clip.boxes_px, meta,
        views=views, tags=_tags(clip, config), other=others[0] if others else None,
    )  # fmt: skip
    if series.preset == "evrealhands" and not job.length_us:
        layout = job.path.parent / "layout" / job.path.stem
        if not layout.exists():
            write_sequence(layout, on_layout_clock(read_recording(job.path)))
    return len(clip.events)


def _tags(clip: Clip, config: ClipConfig) -> Tags:
    """What data sets are split by, in the words of EvRealHands."""
    light = config.scene.light
    return Tags(
        side=clip.pose.side,
        subject=str(clip.meta["subject"]),
        scene="normal" if light == "mains" else light,
        fast=config.motion == FAST,
        gesture=config.motion.style,
        checked=True,
    )


def _rgb_view(world: World, clip: Clip, seed: int, index: int) -> View:
    """A colour camera 6 cm to the right of the event camera, with a frame at every second label."""
    T = np.eye(4)
    T[0, 3] = -0.06
    size = (640, 480)
    focal = world.camera.K[0, 0] * size[0] / world.camera.size[0]
    K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    camera = Camera(K, size, T_camera_world=T)
    t_us = clip.label_t_us[:-1]
    frames = render_frames(world, FrameConfig(camera=camera, T_frame_event=T), seed, index, t_us)
    return View("0", camera, frames.t_us, tuple(encoded(image, "JPEG") for image in frames.images))


def _statistics(clip: Clip, config: ClipConfig) -> dict[str, float]:
    """What the card adds up: event counts, how fast the joints move in the image, how large the hand is."""
    seconds = config.duration_us * 1e-6
    moved = np.linalg.norm(np.diff(clip.joints_px, axis=0), axis=-1) * config.label_rate_hz
    width, height = config.size
    sides = np.clip(clip.boxes_px, 0, [width, height, width, height])
    area = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1]) / (width * height)
    return {
        "seconds": seconds,
        "events": len(clip.events),
        "on_events": int(clip.events.p.sum()),
        "joint_px_s": float(moved.mean()) if len(moved) else 0.0,
        "box_share": float(area.mean()) if len(area) else 0.0,
    }
