"""A webcam as events: the very events of the same frames in a file, at their own times, and honest errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from evhands.sim.video import video_to_events
from evhands.sim.webcam import LONGEST_FADE_US, WebcamEvents, open_webcam
from evhands.types import Events, InputError

SIZE = (64, 48)


def film(path: Path, frames: int = 8) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            image = np.full((*SIZE[::-1], 3), 40, np.uint8)
            image[10:30, 4 * i : 4 * i + 12] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path


def everything(stream) -> Events:
    return Events.concatenate(list(stream), stream.size)


def test_frames_as_they_come_give_the_events_of_the_file(tmp_path: Path) -> None:
    path = film(tmp_path / "bar.mkv")
    live, file = everything(open_webcam(str(path))), everything(video_to_events(path))
    assert len(live) > 500
    for column in ("x", "y", "t_us", "p"):
        np.testing.assert_array_equal(getattr(live, column), getattr(file, column))


def test_an_endless_source_gives_events_frame_by_frame() -> None:
    stream = open_webcam("lavfi:testsrc2=size=692x520:rate=30")
    assert stream.size == (346, 260)
    chunks = iter(stream)
    counts = [len(next(chunks)) for _ in range(4)]
    assert counts[0] == 0 and min(counts[1:]) > 100


@dataclass
class Taken:
    """A decoded frame with a time of its own."""

    frame: av.VideoFrame
    time: float | None

    def __getattr__(self, name: str):
        return getattr(self.frame, name)


def grey(value: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((*SIZE[::-1], 3), value, np.uint8), "rgb24")


def test_times_are_those_of_the_frames_not_of_a_rate() -> None:
    frames = [Taken(grey(v), t) for v, t in ((50, 700.0), (80, 700.010), (110, 700.110), (140, 700.115))]
    chunks = list(WebcamEvents("test", SIZE, 0.15, iter(frames)))
    edges = [0, 10_000, 110_000, 115_000]
    for events, start_us, end_us in zip(chunks[1:], edges, edges[1:], strict=False):
        assert len(events) and start_us <= events.t_us.min() and events.t_us.max() <= end_us


def test_after_a_pause_the_change_is_not_spread_over_all_of_it() -> None:
    frames = [Taken(grey(v), t) for v, t in ((50, 0.0), (60, 0.04), (200, 10.04))]
    events = everything(WebcamEvents("test", SIZE, 0.15, iter(frames)))
    late = events.t_us[events.t_us > 40_000]
    assert len(late) and late.min() >= 10_040_000 - LONGEST_FADE_US


def test_a_camera_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/dev/video97"):
        open_webcam("97")
    (tmp_path / "words.txt").write_text("no frames")
    with pytest.raises(InputError, match="words.txt"):
        open_webcam(str(tmp_path / "words.txt"))
