"""Videos as events: nothing from a still one, the right polarity from a brightening one, and honest errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from evhands.sim.video import video_to_events
from evhands.types import Events, InputError

SIZE = (64, 48)


def _video(path: Path, image: Callable[[int], np.ndarray], frames: int, rate: int = 25) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)  # without loss
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.repeat(image(i)[..., None], 3, -1).astype(np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _all(stream) -> Events:
    return Events.concatenate(list(stream), stream.size)


def test_a_still_video_fires_nothing(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, SIZE[::-1])
    stream = video_to_events(_video(tmp_path / "still.mkv", lambda i: picture, 5))
    assert stream.size == SIZE
    assert stream.frame_times_us.tolist() == [0, 40000, 80000, 120000, 160000]
    assert len(_all(stream)) == 0


@pytest.mark.parametrize("substeps", [1, 4, "auto"])
def test_brightening_gives_on_events_at_log_steps(tmp_path: Path, substeps) -> None:
    path = _video(tmp_path / "ramp.mkv", lambda i: np.full(SIZE[::-1], 60 + 15 * i), 9)
    stream = video_to_events(path, threshold=0.25, substeps=substeps)
    events = _all(stream)
    assert events.p.all()
    assert (np.diff(events.t_us) >= 0).all()
    light = [((v / 255 + 0.055) / 1.055) ** 2.4 + 0.01 for v in (60, 60 + 15 * 8)]
    per_pixel = len(events) / (SIZE[0] * SIZE[1])
    assert abs(per_pixel - np.log(light[1] / light[0]) / 0.25) < 1
    again = _all(stream)
    np.testing.assert_array_equal(again.t_us, events.t_us)


def test_the_number_of_substeps_changes_little(tmp_path: Path) -> None:
    x = np.arange(SIZE[0])
    path = _video(tmp_path / "bar.mkv", lambda i: 40 + 160 * np.tile(np.abs(x - 5 - 4 * i) < 6, (SIZE[1], 1)), 12)
    counts = [len(_all(video_to_events(path, substeps=n))) for n in (12, 120)]
    assert counts[1] > 5000
    assert abs(counts[0] / counts[1] - 1) < 0.02


def test_size_and_progress(tmp_path: Path) -> None:
    path = _video(tmp_path / "bar.mkv", lambda i: np.full(SIZE[::-1], 20 * i), 6)
    shares: list[float] = []
    stream = video_to_events(path, size=(32, 24), progress=shares.append)
    events = _all(stream)
    assert events.size == stream.size == (32, 24)
    assert events.x.max() == 31
    assert events.y.max() == 23
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("content", [b"", b"no video at all, only text\n" * 30])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="film.mp4"):
        video_to_events(path)
    with pytest.raises(InputError, match="missing"):
        video_to_events(tmp_path / "missing.mp4")


def test_a_real_hand_video(shared_path) -> None:
    stream = video_to_events(shared_path("real/hand-video/human_hand_video.mp4"))
    assert stream.size == (346, 195)
    np.testing.assert_array_equal(stream.frame_times_us, np.round(np.arange(621) * 1e6 / 30).astype(np.int64))
    chunks = stream.chunks()
    events = Events.concatenate([next(chunks)[0] for _ in range(30)])
    assert (np.diff(events.t_us) >= 0).all()
    assert events.t_us[-1] < stream.frame_times_us[30]
