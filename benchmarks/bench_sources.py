"""Events in pieces and hands as messages: `python benchmarks/bench_sources.py`.

Million events a second of processor time through each decoder of a stream, beside dv-processing making Python
objects; then what a window costs the tracker in each sink.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dv_processing as dv
import numpy as np

from evhands.boxes import CropBox
from evhands.events.io.aedat4_writer import stream_header
from evhands.events.io.text import write_text
from evhands.sinks import JsonLines, WebSocketServer
from evhands.sources.continuity import Clock, continued
from evhands.sources.decoders import FrameDecoder, LineDecoder, PacketDecoder, frame, frame_header
from evhands.sources.serving import packet
from evhands.tracking import TrackResult
from evhands.types import Events, EventWindow, HandPose
from timing import measure

COUNT, PIECE, SIZE = 200_000, 1 << 16, (346, 260)


def main() -> None:
    """Print both tables."""
    events = some_events()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        print(f"{COUNT:,} events in pieces of {PIECE // 1024} kB       Mev/s (processor)")
        for name, call in decoders(events, Path(folder)).items():
            print(f"  {name:44} {COUNT / measure(call, 10).processor_ms / 1e3:7.1f}")
        print("one window with one hand                            us (processor of the tracker's thread)")
        for name, call in sinks(Path(folder), stack).items():
            print(f"  {name:44} {measure(call, 200).processor_ms * 1e3:7.0f}")


def some_events() -> Events:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, n, COUNT).astype(np.uint16) for n in SIZE)
    return Events(x, y, np.sort(rng.integers(0, 1_000_000, COUNT)), rng.random(COUNT) < 0.5, SIZE)


class Once:
    """Events in memory as a stream."""

    def __init__(self, events: Events) -> None:
        self.events, self.size = events, events.size

    def __iter__(self):
        yield self.events


def decoders(events: Events, folder: Path) -> dict[str, Callable[[], object]]:
    parts = [events[i : i + 10_000] for i in range(0, COUNT, 10_000)]
    packets = stream_header(SIZE) + b"".join(map(packet, parts))
    frames = frame_header(SIZE) + b"".join(map(frame, parts))
    write_text(folder / "events.csv", Once(events))
    text = (folder / "events.csv").read_bytes()
    store = dv.EventStore()
    for t, x, y, p in zip(events.t_us[:20_000], events.x, events.y, events.p):
        store.push_back(int(t), int(x), int(y), bool(p))
    return {
        "packets of a network stream": lambda: feed(PacketDecoder(magic=False), packets),
        "frames of a pipe": lambda: feed(FrameDecoder(), frames),
        "lines of text": lambda: feed(LineDecoder(), text),
        "check of order and pixels (continuity)": lambda: [continued(Clock(), part) for part in parts],
        "naive: dv-processing, one object an event": lambda: objects(store),
    }


def objects(store: dv.EventStore) -> list[tuple[int, int, int, bool]]:
    """As many events as the others, from a store of a tenth of them."""
    return [(e.timestamp(), e.x(), e.y(), e.polarity()) for _ in range(COUNT // store.size()) for e in store]


def feed(decoder: PacketDecoder | FrameDecoder | LineDecoder, data: bytes) -> None:
    for start in range(0, len(data), PIECE):
        decoder.feed(data[start : start + PIECE])


def sinks(folder: Path, stack: ExitStack) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    pose = HandPose("right", *(rng.normal(size=s).astype(np.float32) for s in ((3,), (3,), (15, 3), (10,))), "open")
    hand = TrackResult(0, "moving", 0.5, 10, pose, rng.normal(size=(21, 3)), CropBox(np.array([9.0, 9.0]), 9.0))
    window = EventWindow(Events.empty(SIZE), 0, 50_000)
    lines = stack.enter_context(JsonLines(str(folder / "hands.jsonl")))
    server = stack.enter_context(WebSocketServer("0", {}))
    return {"a line in a file": lambda: lines(window, [hand]), "the WebSocket": lambda: server(window, [hand])}


if __name__ == "__main__":
    main()
