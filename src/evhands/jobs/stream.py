"""`evhands stream SOURCE --to ADDRESS`: any source of events, served to others or written to standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from evhands.sources import open_source
from evhands.sources.decoders import frame, frame_header
from evhands.sources.replaying import paced
from evhands.sources.serving import EventServer
from evhands.types import Events


def stream(
    source: str,
    *,
    to: str = "tcp://127.0.0.1:7777",
    live: bool = False,
    topic: str | None = None,
    wait: float | None = None,
    salvage: bool = False,
) -> str | None:
    """Serve the events of a source to other programs and machines.

    An address gets a server of the protocol of dv-processing, which `evhands track` and the DV software read. It waits
    for the first client and sends it everything; who comes later gets what is sent from then on. The slowest client
    sets the pace, so that none misses an event. After the last event the server says so and ends.

    Args:
        source: event file, video, ROS bag, - (standard input), tcp://HOST:PORT, unix:/PATH, camera: or webcam:.
        to: tcp://HOST:PORT (port 0 = a free one; host 0.0.0.0 = open to other machines), unix:/PATH, or - for standard
            output.
        live: send a recording at its own pace, not as fast as possible.
        topic: topic of a ROS bag that has several of events.
        wait: seconds to wait for a network stream or camera, at the start and each time it is lost; default 10.
        salvage: read on over times that run backwards and events outside the sensor.

    Raises:
        InputError: the source cannot be read, the address cannot be served.
    """
    events = open_source(source, salvage=salvage, topic=topic, wait_s=wait)
    parts = paced(events) if live else iter(events)
    if to == "-":
        out = sys.stdout.buffer
        out.write(frame_header(events.size))

        def write(part: Events) -> None:
            out.write(frame(part))
            out.flush()

        print(_sent(parts, write, "standard output"), file=sys.stderr)
        return None
    with EventServer(to, events.size) as server:
        print(f"serving {source} at {server.address}, waiting for a client ...", file=sys.stderr, flush=True)
        server.wait()
        text = _sent(parts, server.send, server.address)
        server.finish()
    return text


def _sent(parts: Iterable[Events], send: Callable[[Events], None], where: str) -> str:
    """Send all parts, and say how many and how fast."""
    count, start = 0, time.monotonic()
    for part in parts:
        send(part)
        count += len(part)
    seconds = time.monotonic() - start
    return f"{count:,} events to {where} in {seconds:.2f} s ({count / max(seconds, 1e-9) / 1e6:.2f} million a second)"
