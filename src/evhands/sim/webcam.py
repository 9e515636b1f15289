"""A webcam as an event camera: frames without end, at the times they were taken, through the sensor of `video`."""

from __future__ import annotations

import glob
import itertools
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from evhands.sim.video import events_of_frames, linear_light, shown_size, small_size, video_sensor
from evhands.types import Events, InputError, Size

LONGEST_FADE_US = 500_000
"""After a longer pause between two frames the picture changes within so much of it: what came before is unknown."""


@dataclass
class WebcamEvents:
    """The events of a stream of frames that is being taken; can be iterated once, one chunk a frame.

    Times are those of the frames, from the first one on; a frame without one counts as taken when it arrives. Ends
    where the camera does.
    """

    name: str
    size: Size
    threshold: float
    _frames: Iterator[Any]

    def __iter__(self) -> Iterator[Events]:
        return events_of_frames(self._lights(), video_sensor(self.size, self.threshold))

    def _lights(self) -> Iterator[tuple[int, np.ndarray]]:
        first_us: int | None = None
        last_us, last = 0, np.zeros(0, np.float32)
        for frame in self._frames:
            taken_us = round((time.monotonic() if frame.time is None else frame.time) * 1e6)
            first_us = taken_us if first_us is None else first_us
            t_us, light = taken_us - first_us, linear_light(frame, self.size)
            if t_us - last_us > LONGEST_FADE_US and len(last):
                yield t_us - LONGEST_FADE_US, last
            yield t_us, light
            last_us, last = t_us, light


def open_webcam(device: str, *, threshold: float = 0.15) -> WebcamEvents:
    """A webcam (`0` or `/dev/video0`; empty = the first), a video file, or a source of FFmpeg (`lavfi:testsrc2`).

    Raises InputError where there is no such camera, or it gives no frames.
    """
    url, kind = _url(device)
    try:
        frames = _decoded(av.open(url, format=kind), url)
        head = next(frames)
    except (av.error.FFmpegError, OSError) as error:
        there = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise InputError(
            f"{url} cannot be opened as a webcam ({error}); the cameras here: {there}. Wanted webcam:0 or "
            "webcam:/dev/video0, plugged in and used by no other program."
        ) from error
    except StopIteration as error:
        raise InputError(f"{url} gives no frames. Wanted a webcam, or a video; try another.") from error
    return WebcamEvents(url, small_size(shown_size(head)), threshold, itertools.chain([head], frames))


def _url(device: str) -> tuple[str, str | None]:
    """What FFmpeg opens, and as what."""
    if device.startswith("lavfi:"):
        return device.removeprefix("lavfi:"), "lavfi"
    if not device or device.isdecimal():
        return f"/dev/video{device or 0}", "v4l2"
    return device, "v4l2" if device.startswith("/dev/") else None


def _decoded(container: Any, name: str) -> Iterator[Any]:
    with container:
        try:
            yield from container.decode(video=0)
        except av.error.FFmpegError as error:
            warnings.warn(f"{name}: the camera stopped ({error}); the stream ends here.", stacklevel=2)
