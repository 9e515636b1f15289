"""`evhands stream` and `evhands track` on the other end: the same poses as from the file, to the bit."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evhands.cli import main
from evhands.events.io import open_events, write_events
from evhands.jobs import stream as stream_job
from evhands.jobs import track as track_job
from evhands.live import making
from evhands.models.checkpoint import ASSETS
from evhands.recording import read_camera
from evhands.sources import SourceWarning
from evhands.sources.decoders import frame, frame_header
from evhands.track_files import Track, load_track
from evhands.types import Events
from sources.serving_threads import serving

ARRAYS = ("t_us", "orientation", "wrist", "joints", "shape", "joints_m", "boxes_px", "confidence", "status", "events")


class Replay:
    def __init__(self, events: Events) -> None:
        self.events, self.size = events, events.size

    def __iter__(self) -> Iterator[Events]:
        yield self.events


@pytest.fixture(scope="module")
def hand() -> Events:
    """0.4 s of the hand of the demo."""
    file = open_events(ASSETS / "demo.h5")
    start_us = file.start_us
    assert start_us is not None
    return file.read(start_us + 1_000_000, start_us + 1_400_000)


@pytest.fixture(scope="module")
def recording(hand: Events, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "hand.npz"
    write_events(path, Replay(hand))
    return path


@pytest.fixture(scope="module")
def tracker(hand: Events):
    camera = read_camera(ASSETS / "demo.h5")
    assert camera is not None and camera.size == hand.size
    return making.make_tracker("small", camera, "right", "cpu")


@pytest.fixture(autouse=True)
def _load_the_networks_once(monkeypatch, tracker) -> None:
    monkeypatch.setattr(making, "make_tracker", lambda *_, **__: tracker)


@pytest.fixture(scope="module")
def expected(recording: Path, tracker) -> Track:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "make_tracker", lambda *_, **__: tracker)
        return track_job.track(recording, camera=tracker.camera)


def assert_same(track: Track, expected: Track) -> None:
    for name in ARRAYS:
        assert getattr(track, name).tobytes() == getattr(expected, name).tobytes(), name


@contextmanager
def streaming(source: Path, to: str, **options) -> Iterator[list[str]]:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(stream_job.stream(str(source), to=to, **options) or ""))
    thread.start()
    yield said
    thread.join(timeout=30)
    assert not thread.is_alive()


@contextmanager
def standard_input(monkeypatch, data: bytes) -> Iterator[None]:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with os.fdopen(reading, "rb") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        yield
    thread.join(timeout=5)


@pytest.mark.parametrize("kind", ["tcp", "unix", "unix, at its own pace"])
def test_over_the_network_the_poses_are_those_of_the_file(kind, recording, expected, tracker, tmp_path) -> None:
    assert expected.tracked.all() and len(expected) > 5
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    to = f"tcp://127.0.0.1:{port}" if kind == "tcp" else f"unix:{tmp_path / 's.sock'}"
    with streaming(recording, to, live="pace" in kind) as said:
        track = track_job.track(to, camera=tracker.camera, wait=20)
    assert_same(track, expected)
    assert f"{int(len(open_events(recording).read())):,} events to {to}" in said[0]


def test_through_a_pipe_the_poses_are_those_of_the_file(recording, hand, expected, tracker, monkeypatch, capfdbinary):
    assert main(["stream", str(recording), "--to", "-"]) == 0
    printed = capfdbinary.readouterr()
    assert f"{len(hand):,} events to standard output".encode() in printed.err
    with standard_input(monkeypatch, printed.out):
        assert_same(track_job.track("-", camera=tracker.camera), expected)


def test_lines_of_text_through_a_pipe_too(hand, expected, tracker, monkeypatch) -> None:
    rows = zip(hand.t_us.tolist(), hand.x.tolist(), hand.y.tolist(), hand.p.astype(int).tolist())
    text = f"# size {hand.size[0]}x{hand.size[1]}\n" + "".join(f"{t} {x} {y} {p}\n" for t, x, y, p in rows)
    with standard_input(monkeypatch, text.encode()):
        assert_same(track_job.track("-", camera=tracker.camera), expected)


def test_a_server_that_is_killed_and_started_again_is_survived(hand, expected, tracker, tmp_path) -> None:
    half = int(np.searchsorted(hand.t_us, (hand.t_us[0] + hand.t_us[-1]) // 2))
    where = f"unix:{tmp_path / 's.sock'}"
    done: list[Track] = []
    with pytest.warns(SourceWarning, match="is back|waiting|clock"):
        with serving(where, [hand[:half]], hand.size, finish=False):
            tracking = threading.Thread(
                target=lambda: done.append(track_job.track(where, camera=tracker.camera, wait=20))
            )
            tracking.start()
        with serving(where, [hand], hand.size):  # from the beginning: its clock runs backwards
            tracking.join(timeout=60)
    (track,) = done
    assert track.events.sum() > expected.events.sum()
    before = int((expected.t_us <= hand.t_us[half - 1]).sum())
    assert before > 2 and track.joints_m[:before].tobytes() == expected.joints_m[:before].tobytes()
    assert (np.diff(track.t_us) > 0).all() and track.tracked[-1]


def test_lines_of_json_are_the_poses_and_the_report_stays_out_of_their_way(recording, expected, tmp_path, capsys):
    assert main(["track", str(recording), "--out", str(tmp_path / "out"), "--no-video", "--jsonl", "-"]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    track = load_track(tmp_path / "out" / "poses.npz")
    assert [line["t_us"] for line in lines] == track.t_us.tolist() == expected.t_us.tolist()
    for k, line in enumerate(lines):
        (told,) = line["hands"]
        np.testing.assert_allclose(told["joints_m"], track.joints_m[k], atol=6e-7)
        assert told["status"] == track.status[k]
    assert "hand found" in printed.err


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x01" * 100, b"once upon a time\n", b"1 2 3 4\n", frame_header((64, 48)), b"# size 64x48\n1 2\n"],
)
def test_malformed_standard_input_is_a_mistake_of_the_user(data: bytes, monkeypatch, tmp_path, capsys) -> None:
    with standard_input(monkeypatch, data):
        assert main(["track", "-", "--out", str(tmp_path / "out"), "--no-video"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evhands track: error: ") and ("Wanted" in line or "wanted" in line)
    assert not (tmp_path / "out" / "poses.npz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["track", "tcp://127.0.0.1:1", "--out", "out", "--wait", "0"],
        ["track", "tcp://nowhere", "--out", "out"],
        ["track", "webcam:97", "--out", "out"],
        ["track", "camera:no such camera", "--out", "out", "--wait", "0"],
        ["track", "hand.npz", "--out", "out", "--topic", "/dvs"],
        ["track", "hand.npz", "--out", "out", "--serve", "everywhere"],
        ["track", "hand.npz", "--out", "out", "--jsonl", "no/such/folder/a.jsonl"],
        ["stream", "hand.npz", "--to", "http://here"],
        ["stream", "nothing.npz"],
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(arguments, recording, monkeypatch, capsys) -> None:
    monkeypatch.chdir(recording.parent)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"evhands {arguments[0]}: error: ") and len(line) > 80


def test_a_frame_of_none_is_a_tick_that_changes_nothing(hand, expected, tracker, monkeypatch) -> None:
    parts = [hand[i : i + 5000] for i in range(0, len(hand), 5000)]
    data = frame_header(hand.size) + b"".join(frame(part) + frame(part[:0]) for part in parts)
    with standard_input(monkeypatch, data):
        assert_same(track_job.track("-", camera=tracker.camera), expected)
