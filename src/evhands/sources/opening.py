"""One door to every source of events, told apart by how it is written."""

from __future__ import annotations

import sys
from pathlib import Path

from evhands.events.io import open_events, recognise
from evhands.types import EventStream, InputError

WAIT_S = 10.0
_LIVE = ("tcp:", "unix:", "camera:", "webcam:")


def file_of(source: Path | str) -> Path | None:
    """The file or folder that a source names; None for pipes, network streams and cameras."""
    text = str(source)
    if text == "-" or text.startswith(_LIVE):
        return None
    return Path(text.removeprefix("ros:"))


def open_source(
    source: Path | str, *, salvage: bool = False, topic: str | None = None, wait_s: float | None = None
) -> EventStream:
    """The events of a source.

    Args:
        source: an event file of any known format, a ROS bag (also as ros:FILE) or a video; `-` for standard input;
            tcp://HOST:PORT or unix:/PATH for a network stream of dv-processing; camera: or camera:NAME for an iniVation
            camera; webcam: or webcam:0 for a webcam, seen as an event camera would.
        salvage: read on over times that run backwards and events outside the sensor of a file.
        topic: topic of a ROS bag that has several of events.
        wait_s: how long to wait for a network stream or a camera, at the start and each time it is lost; None = 10.

    Files can be iterated again and again; the others once, yielding empty `Events` as ticks while nothing happens.
    Raises InputError where the source cannot be opened.
    """
    text = str(source)
    if wait_s is not None and wait_s < 0:
        raise InputError(f"Found a wait of {wait_s} s. Wanted 0 or more.")
    wait_s = WAIT_S if wait_s is None else wait_s
    kind, _, rest = text.partition(":")
    if topic is not None and ((path := file_of(source)) is None or recognise(path) != "rosbag"):
        raise InputError(f"{text} has no topics. Wanted a ROS bag together with --topic; leave --topic out.")
    # Each kind needs libraries of its own, which no other should wait for.
    if text == "-":
        from evhands.sources.pipe import open_pipe

        return open_pipe(sys.stdin.fileno())
    if kind in ("tcp", "unix"):
        from evhands.sources.network import open_network

        return open_network(text, wait_s)
    if kind == "camera":
        from evhands.sources.camera import open_camera

        return open_camera(rest, wait_s)
    if kind == "webcam":
        from evhands.sim.webcam import open_webcam

        return open_webcam(rest)
    path = Path(text.removeprefix("ros:"))
    if recognise(path) == "video":
        from evhands.sim.video import video_to_events

        return video_to_events(path)
    return open_events(path, salvage=salvage, topic=topic)
