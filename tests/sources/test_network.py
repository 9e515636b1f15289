"""Network streams: every event arrives, dv-processing understands us and we it, and a dead server is survived."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from event_recordings import SIZE, same, some_events
from evhands.sources import SourceWarning, open_source
from evhands.sources.lasting import LastingStream
from evhands.sources.network import open_network, parse_address
from evhands.sources.replaying import paced
from evhands.sources.serving import EventServer, packet
from evhands.types import Events, InputError
from sources.serving_threads import serving

EVENTS = some_events(50_000, start_us=1_655_000_000_000_000)
HALVES = (EVENTS[:30_000], EVENTS[30_000:])


def read(stream) -> Events:
    return Events.concatenate(list(stream), stream.size)


def address(kind: str, folder: Path) -> str:
    return "tcp://127.0.0.1:0" if kind == "tcp" else f"unix:{folder / 'events.sock'}"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_every_event_arrives_as_it_was(kind: str, tmp_path: Path) -> None:
    with serving(address(kind, tmp_path), HALVES, SIZE) as where:
        stream = open_source(where, wait_s=5)
        assert stream.size == SIZE
        assert same(read(stream), EVENTS)
    assert not list(tmp_path.iterdir())


def test_two_clients_get_the_same(tmp_path: Path) -> None:
    with EventServer(address("unix", tmp_path), SIZE) as server:
        got: list[Events] = []
        opened: list[LastingStream] = []
        threads = []
        for _ in range(2):
            opening = threading.Thread(target=lambda: opened.append(open_network(server.address, 5)))
            opening.start()
            while opening.is_alive():
                assert server.let_in() <= 2
            threads.append(threading.Thread(target=lambda stream=opened[-1]: got.append(read(stream))))
            threads[-1].start()
        server.send(EVENTS)
        server.finish()
        for thread in threads:
            thread.join(timeout=20)
    assert len(got) == 2 and all(same(events, EVENTS) for events in got)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_is_killed_and_started_again_is_survived(kind: str, tmp_path: Path) -> None:
    with (
        pytest.warns(SourceWarning) as caught,
        serving(address(kind, tmp_path), HALVES[:1], SIZE, finish=False) as where,
    ):
        stream = open_source(where, wait_s=20)
        chunks = iter(stream)
        first = _until(chunks, len(HALVES[0]))
        # It is gone now; the second one begins its clock anew, as a camera that is plugged in again does.
        for _ in range(3):
            assert len(next(chunks)) == 0
        anew = Events(HALVES[1].x, HALVES[1].y, HALVES[1].t_us - HALVES[1].t_us[0], HALVES[1].p, SIZE)
        with serving(where, [anew], SIZE):
            second = Events.concatenate(list(chunks), SIZE)
    assert same(first, HALVES[0])
    assert np.array_equal(second.x, anew.x) and np.array_equal(np.diff(second.t_us), np.diff(anew.t_us))
    assert 0 < second.t_us[0] - first.t_us[-1] < 20_000_000
    text = " ".join(str(warning.message) for warning in caught)
    assert "waiting up to 20 s" in text and "is back" in text and "its clock was set back" in text


def _until(chunks, count: int) -> Events:
    parts: list[Events] = []
    while sum(map(len, parts)) < count:
        parts.append(next(chunks))
    return Events.concatenate(parts)


def test_a_server_that_stays_away_ends_the_stream_with_what_came(tmp_path: Path) -> None:
    with (
        pytest.warns(SourceWarning, match="did not come back"),
        serving(address("unix", tmp_path), HALVES[:1], SIZE, finish=False) as where,
    ):
        stream = open_source(where, wait_s=0.3)
        assert same(read(stream), HALVES[0])


def test_another_sensor_in_its_place_is_refused(tmp_path: Path) -> None:
    with (
        pytest.warns(SourceWarning),
        serving(address("unix", tmp_path), HALVES[:1], SIZE, finish=False) as where,
    ):
        chunks = iter(open_source(where, wait_s=20))
        _until(chunks, len(HALVES[0]))
        assert len(next(chunks)) == 0
        with serving(where, [], (32, 24)), pytest.raises(InputError, match="32x24"):
            list(chunks)


def test_a_source_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    got: list[Events] = []
    where = address("unix", tmp_path)
    client = threading.Thread(target=lambda: got.append(read(open_source(where, wait_s=20))))
    client.start()
    time.sleep(0.2)
    with serving(where, HALVES, SIZE):
        client.join(timeout=20)
    assert same(got[0], EVENTS)


def connected(server: EventServer) -> LastingStream:
    """The one client of a server."""
    opened: list[LastingStream] = []
    opening = threading.Thread(target=lambda: opened.append(open_network(server.address, 5)))
    opening.start()
    while opening.is_alive():
        assert server.let_in() <= 1
    return opened[0]


def test_a_silent_server_gives_ticks(tmp_path: Path) -> None:
    with EventServer(address("unix", tmp_path), SIZE) as server:
        chunks = iter(connected(server))
        assert [len(next(chunks)) for _ in range(3)] == [0, 0, 0]
        chunks.close()


def test_a_server_of_something_else_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def talk() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(InputError, match="dv-processing network stream"):
            open_source(f"tcp://127.0.0.1:{port}", wait_s=5)
        thread.join(timeout=5)


def test_packets_that_break_off_are_a_lost_source(tmp_path: Path) -> None:
    """Half a packet is not used, and not taken for the end."""
    with EventServer(address("unix", tmp_path), SIZE) as server:
        stream = connected(server)
        server.send(EVENTS[:1000])
        server._deliver(server._clients, packet(EVENTS[1000:2000])[:900])
    stream.wait_s = 0
    with pytest.warns(SourceWarning, match="was closed"):
        assert same(read(stream), EVENTS[:1000])


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for where in (f"tcp://127.0.0.1:{port}", f"unix:{tmp_path / 'none.sock'}"):
        with pytest.raises(InputError, match="nobody answers .*--wait"):
            open_source(where, wait_s=0)


def test_addresses() -> None:
    assert parse_address("tcp://10.0.0.5:7777") == ("tcp", ("10.0.0.5", 7777))
    assert parse_address("unix:/run/a.sock") == parse_address("unix:///run/a.sock") == ("unix", "/run/a.sock")
    for wrong in ("tcp://host", "tcp://:1", "tcp://host:port", "tcp:host:1", "unix:", "tcp://host:70000"):
        with pytest.raises(InputError, match="tcp://HOST:PORT"):
            parse_address(wrong)


def test_a_socket_that_a_killed_server_left_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    where = address("unix", tmp_path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "events.sock"))
    with EventServer(where, SIZE), pytest.raises(InputError, match="Cannot serve"):
        EventServer(where, SIZE)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="Cannot serve"):
        EventServer(f"unix:{tmp_path / 'notes.txt'}", SIZE)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_paced_recording_takes_its_time_and_loses_nothing() -> None:
    events = some_events(5000, span_us=300_000)
    start = time.monotonic()
    parts = list(paced(_Once(events)))
    assert time.monotonic() - start >= 0.29
    assert same(Events.concatenate(parts), events)
    assert max(int(part.t_us[-1] - part.t_us[0]) for part in parts) <= 2000


class _Once:
    def __init__(self, events: Events) -> None:
        self.events, self.size = events, events.size

    def __iter__(self):
        yield self.events[:0]
        yield self.events


READER = """
import sys, time, dv_processing as dv
reader = dv.io.NetworkReader("127.0.0.1", int(sys.argv[1]))
total = time_sum = x_sum = 0
while reader.isRunning():
    batch = reader.getNextEventBatch()
    if batch is None:
        time.sleep(0.001)
        continue
    rows = batch.numpy()
    total += len(rows)
    time_sum += int((rows["timestamp"] % 1000).sum())
    x_sum += int(rows["x"].sum())
print(*reader.getEventResolution(), total, time_sum, x_sum)
"""
WRITER = """
import os, sys, time, dv_processing as dv
stream = dv.io.Stream.EventStream(0, "events", "camera", (64, 48))
stream.setCompression(getattr(dv.CompressionType, sys.argv[2]))
writer = dv.io.NetworkWriter(sys.argv[1], stream)
while not writer.getClientCount():
    time.sleep(0.01)
events = dv.EventStore()
for k in range(5000):
    events.push_back(1000 + 3 * k, k % 64, k % 48, k % 3 == 0)
writer.writeEvents(events)
while writer.getQueuedPacketCount():
    time.sleep(0.01)
time.sleep(0.3)
os._exit(0)  # the library's own end of a writer waits for ever
"""


def test_dv_processing_reads_what_we_serve() -> None:
    # In a process of its own: its reader holds the interpreter while it waits for the server.
    with EventServer("tcp://127.0.0.1:0", SIZE) as server:
        port = server.address.rsplit(":", 1)[1]
        with subprocess.Popen([sys.executable, "-c", READER, port], stdout=subprocess.PIPE, text=True) as reader:
            server.wait()
            server.send(EVENTS)
            server.finish()
            out, _ = reader.communicate(timeout=20)
    assert out.split() == [str(v) for v in (*SIZE, len(EVENTS), int((EVENTS.t_us % 1000).sum()), int(EVENTS.x.sum()))]


@pytest.mark.parametrize("compression", ["NONE", "LZ4", "ZSTD"])
def test_we_read_what_dv_processing_serves(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "dv.sock"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), compression]) as writer:
        stream = open_network(f"unix:{path}", 20)
        stream.wait_s = 0  # dv-processing does not say that it has ended
        with pytest.warns(SourceWarning, match="did not come back"):
            events = read(stream)
        assert writer.wait(timeout=20) == 0
    k = np.arange(5000)
    assert stream.size == SIZE
    assert same(events, Events((k % 64).astype(np.uint16), (k % 48).astype(np.uint16), 1000 + 3 * k, k % 3 == 0, SIZE))
