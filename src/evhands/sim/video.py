"""An ordinary video as events, so that anybody without an event camera can try things.

Frames become linear light (sRGB curve), are cross-faded linearly in time over sub-frames, and go through the
simulator's sensor. Interpolating motion instead of fading was tried on a real hand video and gained nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from evhands.sim.sensor import VIDEO_SENSOR, EventSensor, Sensor, draw_sensor
from evhands.types import Events, InputError, Size

LONGER_SIDE = 346
"""Pixels of the default output, those of a DAVIS346."""
SUBSTEP_US = 2800
"""About the time between sub-frames with `substeps="auto"`: 12 of them at 30 frames a second."""


@dataclass(frozen=True)
class VideoEvents:
    """The events of a video as a stream: decoded anew at each iteration, one chunk a frame, whatever its length."""

    path: Path
    size: Size
    sensor: Sensor
    substeps: int | Literal["auto"]
    frame_times_us: np.ndarray
    """(frames,) int64, the first at 0; events lie between the first and the last of them."""
    progress: Callable[[float], None] | None = None

    def __iter__(self) -> Iterator[Events]:
        for events, _ in self.chunks():
            yield events

    def chunks(self) -> Iterator[tuple[Events, float]]:
        """Events up to a frame (none up to the first), and the share of the video that is done."""
        for i, events in enumerate(events_of_frames(self._frames(), self.sensor, self.substeps)):
            share = min((i + 1) / len(self.frame_times_us), 1.0)
            yield events, share
            if self.progress is not None:
                self.progress(share)

    def _frames(self) -> Iterator[tuple[int, np.ndarray]]:
        times = self.frame_times_us
        with opened(self.path) as container:
            try:
                for i, frame in enumerate(container.decode(video=0)):
                    yield int(times[min(i, len(times) - 1)]), linear_light(frame, self.size)
            except av.error.FFmpegError as error:
                warnings.warn(f"{self.path} is damaged ({error}): only what comes before is used.", stacklevel=2)


def events_of_frames(
    frames: Iterable[tuple[int, np.ndarray]], sensor: Sensor, substeps: int | Literal["auto"] = "auto"
) -> Iterator[Events]:
    """What the sensor sees of frames (time in us, linear light (height, width)), endless or not: one chunk a frame.

    The first chunk is empty: events lie between two frames. Nothing fires up to a frame that is not later than the one
    before it.
    """
    eye: EventSensor | None = None
    last_us, last = 0, np.zeros(0, np.float32)
    for t_us, light in frames:
        if eye is None:
            eye = EventSensor(sensor, np.log(light + np.float32(sensor.dark)), t_us)
            yield Events.empty(sensor.size)
        elif t_us > last_us:
            _fade(eye, substeps, (last_us, last), (t_us, light))
            yield eye.take()
        else:
            yield Events.empty(sensor.size)
        last_us, last = max(t_us, last_us), light


def _fade(
    eye: EventSensor,
    substeps: int | Literal["auto"],
    before: tuple[int, np.ndarray],
    after: tuple[int, np.ndarray],
) -> None:
    (start_us, old), (end_us, new) = before, after
    steps = max(round((end_us - start_us) / SUBSTEP_US), 2) if substeps == "auto" else substeps
    times = np.unique(np.round(np.linspace(start_us, end_us, min(steps, end_us - start_us) + 1)).astype(np.int64))
    whole = (0, 0, *eye.sensor.size)
    for t_us in times[1:]:
        share = np.float32((t_us - start_us) / (end_us - start_us))
        light = old + share * (new - old)
        eye.expose(np.log(light + np.float32(eye.sensor.dark)), whole, int(t_us))


def video_to_events(
    path: Path | str,
    *,
    threshold: float = 0.15,
    substeps: int | Literal["auto"] = "auto",
    size: Size | None = None,
    progress: Callable[[float], None] | None = None,
    seed: int = 0,
) -> VideoEvents:
    """A video (any that FFmpeg reads) as a stream of events, with bounded memory.

    threshold: log contrast of an event; the pixels' own differ by 3 %, drawn from `seed`. size: (width, height) of the
    sensor; default the video's shape with a longer side of 346 (or less: never enlarged). Frame i stands at its own
    time stamp, round(i / fps * 1e6) us where the rate is constant. A file without video is an `InputError`.
    """
    path = Path(path)
    if not (threshold > 0 and (substeps == "auto" or substeps >= 1)):
        raise InputError(
            f"Found threshold {threshold} and {substeps} sub-steps. Wanted a threshold above 0 and one sub-step or "
            "more, or 'auto'."
        )
    with opened(path) as container:
        times, shown = _frame_times(container, path), _shown_size(container, path)
    size = size or small_size(shown)
    return VideoEvents(path, size, video_sensor(size, threshold, seed), substeps, times, progress)


def small_size(shown: Size) -> Size:
    """The shape of a picture with a longer side of at most 346."""
    scale = min(1.0, LONGER_SIDE / max(shown))
    return max(round(shown[0] * scale), 2), max(round(shown[1] * scale), 2)


def video_sensor(size: Size, threshold: float = 0.15, seed: int = 0) -> Sensor:
    """The sensor that looks at a video, with pixels drawn from `seed`."""
    config = replace(VIDEO_SENSOR, threshold=(threshold, threshold))
    return draw_sensor(config, size, np.random.default_rng(seed))


def opened(path: Path) -> Any:
    """A file as a container of PyAV that has a video stream."""
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} cannot be opened as a video ({error}). Wanted a video file such as .mp4, .mov, .avi or .webm; "
            "check the name, or copy the file again."
        ) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path} holds no video stream. Wanted a video file such as .mp4, .mov, .avi or .webm.")
    return container


def _frame_times(container: Any, path: Path) -> np.ndarray:
    """Microseconds of all frames by the stamps of the packets; at the nominal rate where there are none."""
    stream = container.streams.video[0]
    stamps = [packet.pts for packet in container.demux(stream) if packet.size]
    if not stamps:
        raise InputError(f"{path} holds no video frames. Wanted a complete video; copy the file again.")
    if any(stamp is None for stamp in stamps) or stream.time_base is None:
        return np.round(np.arange(len(stamps)) * 1e6 / float(stream.average_rate or 30)).astype(np.int64)
    ticks = np.sort(np.array(stamps, np.int64))
    return np.round((ticks - ticks[0]) * (float(stream.time_base) * 1e6)).astype(np.int64)


def _shown_size(container: Any, path: Path) -> Size:
    container.seek(0)
    frame = next(container.decode(video=0), None)
    if frame is None:
        raise InputError(f"{path} holds no frame that can be decoded. Wanted a complete video; copy the file again.")
    return shown_size(frame)


def shown_size(frame: Any) -> Size:
    """Width and height of a frame shown upright."""
    return (frame.height, frame.width) if _quarter_turns(frame) % 2 else (frame.width, frame.height)


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that show the frame upright (telephones store how they were held)."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def linear_light(frame: Any, size: Size) -> np.ndarray:
    """(height, width) float32 in 0..1; 16 bit, because averaging a 1280 pixel wide video down gains fine steps."""
    turns = _quarter_turns(frame)
    width, height = size[::-1] if turns % 2 else size
    grey = frame.reformat(width=width, height=height, format="gray16le", interpolation="AREA").to_ndarray()
    value = np.rot90(grey, turns).astype(np.float32) / 65535
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
