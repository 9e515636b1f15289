"""Hands as lines of JSON and over a WebSocket: whole, in order, the newest first, and never in the tracker's way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect

from conftest import REPOSITORY
from evhands.boxes import CropBox
from evhands.geometry import default_camera
from evhands.hand.skeleton import JOINT_ORDERS
from evhands.sinks import JsonLines, WebSocketServer, hands_message, hello_message, parse_address
from evhands.tracking import TrackResult
from evhands.types import Events, EventWindow, HandPose, InputError

SIZE = (64, 48)
CAMERA = default_camera(SIZE)


def hand(t_us: int, side: str = "right") -> TrackResult:
    rng = np.random.default_rng(t_us)
    pose = HandPose(
        side, *(rng.normal(size=shape).astype(np.float32) for shape in ((3,), (3,), (15, 3), (10,))), "open"
    )
    joints = rng.normal(size=(21, 3)).astype(np.float32)
    return TrackResult(t_us, "moving", 0.75, 10, pose, joints, CropBox(np.array([30.0, 20.0]), 16.0))


def window(t_us: int) -> EventWindow:
    return EventWindow(Events.empty(SIZE), t_us - 50_000, t_us)


def test_a_message_holds_what_the_tracker_said() -> None:
    one, other = hand(100_000), hand(100_000, "left")
    nobody = TrackResult(100_000, "lost", 0.0, 3)
    message = json.loads(json.dumps(hands_message(100_000, [one, nobody, other])))
    assert message["t_us"] == 100_000 and [h["side"] for h in message["hands"]] == ["right", "left"]
    told = message["hands"][0]
    assert (told["status"], told["confidence"], told["box_px"]) == ("moving", 0.75, [22.0, 12.0, 38.0, 28.0])
    np.testing.assert_allclose(told["joints_m"], one.joints_m, atol=6e-7)
    for name in ("orientation", "wrist", "joints", "shape"):
        np.testing.assert_allclose(told["pose"][name], getattr(one.pose, name), atol=6e-7)
    assert told["pose"]["model"] == "open"
    assert hands_message(5, [nobody]) == {"t_us": 5, "hands": []}


def test_every_line_is_there_as_soon_as_it_is_known_and_whole_after_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "hands.jsonl"
    path.write_text("of an earlier track\n")
    with pytest.raises(KeyboardInterrupt), JsonLines(str(path)) as sink:
        assert path.read_text() == "of an earlier track\n"
        for k in range(1, 4):
            sink(window(1000 * k), [hand(1000 * k)])
            assert [json.loads(line)["t_us"] for line in path.read_text().splitlines()] == [
                1000 * i for i in range(1, k + 1)
            ]
        raise KeyboardInterrupt
    assert len(path.read_text().splitlines()) == 3
    with pytest.raises(InputError, match="no folder"), JsonLines(str(tmp_path / "none" / "a.jsonl")):
        pass


def test_lines_go_on_where_their_reader_has_left() -> None:
    code = """
import sys, warnings
from evhands.sinks import JsonLines
from evhands.types import Events, EventWindow
with JsonLines("-") as sink:
    for k in range(20_000):
        sink(EventWindow(Events.empty((64, 48)), 0, k), [])
print("done", file=sys.stderr)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline()) == {"t_us": 0, "hands": []}
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=20) == 0
    assert said.count("Nobody reads") == 1 and said.rstrip().endswith("done")


def serving() -> WebSocketServer:
    return WebSocketServer("0", hello_message(CAMERA, "small"))


def test_every_client_is_greeted_and_gets_the_newest_window() -> None:
    with serving() as sink:
        with connect(sink.address) as one, connect(sink.address) as other:
            for client in (one, other):
                hello = json.loads(client.recv(timeout=10))
                assert hello["hello"] == "evhands" and hello["model"] == "small"
                assert hello["joint_names"] == list(JOINT_ORDERS["openpose21"])
                assert hello["camera"]["size"] == list(SIZE)
                np.testing.assert_array_equal(hello["camera"]["K"], CAMERA.K)
            for k in range(1, 6):
                sink(window(1000 * k), [hand(1000 * k)])
                for client in (one, other):
                    assert json.loads(client.recv(timeout=10)) == hands_message(1000 * k, [hand(1000 * k)])
        with connect(sink.address) as late:
            late.recv(timeout=10)
            assert json.loads(late.recv(timeout=10))["t_us"] == 5000


def test_a_slow_client_misses_windows_and_gets_the_last() -> None:
    """20 000 windows are more than any buffer on the way to it holds."""
    count, result = 20_000, hand(1)
    with serving() as sink, connect(sink.address, max_queue=1) as client:
        client.recv(timeout=10)
        for k in range(count):
            sink(window(k + 1), [result])
            if k % 1000 == 0:
                time.sleep(0.01)  # lets the thread of the server have its turn
        seen = [json.loads(client.recv(timeout=10))["t_us"]]
        while seen[-1] < count:
            seen.append(json.loads(client.recv(timeout=10))["t_us"])
    assert seen == sorted(set(seen)) and len(seen) < count


def test_on_leaving_clients_have_the_newest_window_and_the_port_is_free() -> None:
    got: list[str] = []
    with pytest.raises(KeyboardInterrupt), serving() as sink:
        address = sink.address
        client = connect(address)
        client.recv(timeout=10)
        reader = threading.Thread(target=lambda: got.extend(client))
        reader.start()
        for k in range(1, 200):
            sink(window(k), [hand(k)])
        raise KeyboardInterrupt
    reader.join(timeout=10)
    client.close()
    assert json.loads(got[-1])["t_us"] == 199
    with WebSocketServer(address.removeprefix("ws://"), {}) as again:
        assert again.address == address


def test_the_client_of_the_docs_prints_every_hand() -> None:
    page = (REPOSITORY / "docs" / "sources.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "8765" in block)
    with serving() as sink:
        command = [sys.executable, "-c", code.replace("ws://127.0.0.1:8765", sink.address)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        result = hand(7)
        assert client.stdout is not None and result.joints_m is not None
        while not sink._waiting:
            time.sleep(0.01)
        sink(window(7), [result])
        words = client.stdout.readline().split(maxsplit=2)
    assert words[:2] == ["7", "right"]
    tip = JOINT_ORDERS["openpose21"].index("index4")
    np.testing.assert_allclose(json.loads(words[2]), result.joints_m[tip], atol=6e-7)
    assert client.wait(timeout=20) == 0
    client.stdout.close()


def test_clients_that_come_and_go_are_no_matter() -> None:
    with serving() as sink:
        for k in range(20):
            with connect(sink.address) as client:
                sink(window(k + 1), [])
                client.recv(timeout=10)
        sink(window(100), [])


def test_an_address_that_cannot_be_served_is_refused() -> None:
    assert parse_address("8765") == ("127.0.0.1", 8765)
    assert parse_address("0.0.0.0:8765") == ("0.0.0.0", 8765)
    for wrong in ("", "port", "host:", "1:99999"):
        with pytest.raises(InputError, match="HOST:PORT"):
            parse_address(wrong)
    with serving() as sink:
        port = sink.address.rsplit(":", 1)[1]
        with pytest.raises(InputError, match="Cannot serve"), WebSocketServer(port, {}):
            pass
