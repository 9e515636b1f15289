"""`evhands convert SRC DST`: an event file to another format, or an ordinary video to events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from evhands.events.io import open_events, recognise, write_events
from evhands.events.io.dialects import TimeUnit
from evhands.events.io.write import writable
from evhands.types import Events, InputError, Size

_QUIET_S = 2.0


class _Source(Protocol):
    """An event stream that says how much of it is done."""

    @property
    def size(self) -> Size: ...

    def chunks(self) -> Iterator[tuple[Events, float]]: ...


@dataclass
class _Counted:
    """A source as an event stream that counts what passes and, after two seconds, shows a progress bar."""

    source: _Source
    size: Size
    events: int = 0
    start_us: int = 0
    end_us: int = 0

    def __iter__(self) -> Iterator[Events]:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
        begun = time.monotonic()
        console = Console(stderr=True)
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=True) as bar:
            task = bar.add_task("converting", total=1.0)
            for events, fraction in self.source.chunks():
                if bar.disable and console.is_terminal and time.monotonic() - begun > _QUIET_S:
                    bar.disable = False
                    bar.start()
                bar.update(task, completed=fraction)
                if len(events):
                    self.start_us = int(events.t_us[0]) if not self.events else self.start_us
                    self.end_us = int(events.t_us[-1])
                    self.events += len(events)
                yield events


def convert(
    source: Path,
    target: Path,
    *,
    size: Size | None = None,
    time_unit: TimeUnit | None = None,
    salvage: bool = False,
    threshold: float = 0.15,
    seed: int = 0,
    topic: str | None = None,
) -> str:
    """Convert an event file to another format, or make events from an ordinary video.

    The source is recognised by its content; the name of the target chooses its format: .h5 (ours), .npz, .aedat4, .csv
    or .txt. Events keep their own times; only events are written (no frames, triggers or poses). Nothing is held in
    memory but a few chunks. A video becomes what an event camera in its place would have seen: light interpolated
    between its frames, a sensor model with a contrast threshold per pixel, at most 346 pixels wide or high.

    Args:
        source: event recording (.aedat4, .raw, .dat, .h5, .npz, .csv, ROS bag ...) or video (.mp4, .avi, .mov, .mkv).
        target: file to write; one that is there is replaced when all is written.
        size: width and height, as [640, 480]: of the sensor, for files that do not say it; of the events of a video.
        time_unit: unit of the times in text, .npz and foreign HDF5 files; default is to find out.
        salvage: write what is sound of a faulty recording: no events outside the sensor, up to a jump back in time.
        threshold: contrast of an event of a video, as a difference of log intensity.
        seed: seed of the pixels of the sensor model, for a video.
        topic: topic of a ROS bag that has several of events.

    Raises:
        InputError: the source cannot be read, the target cannot be written.
    """
    source, target = Path(source), Path(target)
    writable(target)
    if recognise(source) == "video":
        counted = _from_video(source, size, threshold, seed)
    else:
        file = open_events(source, size=size, time_unit=time_unit, salvage=salvage, topic=topic)
        counted = _Counted(file, file.size)
    if target.exists() and source.samefile(target):
        raise InputError(f"Source and target are both {source}. Wanted two names; choose another target.")
    write_events(target, counted)
    span = (counted.end_us - counted.start_us) / 1e6
    return (
        f"{target}: {counted.events} events in {span:.3f} s on {counted.size[0]}x{counted.size[1]} pixels, "
        f"{target.stat().st_size / 1e6:.2f} MB"
    )


def _from_video(path: Path, size: Size | None, threshold: float, seed: int) -> _Counted:
    # A video needs the simulator and FFmpeg, which no other conversion should wait for.
    from evhands.sim.video import video_to_events

    video = video_to_events(path, size=size, threshold=threshold, seed=seed)
    return _Counted(video, video.size)
