"""Servers in threads and other processes, for the tests of network streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from evhands.sources.serving import EventServer
from evhands.types import Events, Size


@contextmanager
def serving(spec: str, parts: Sequence[Events], size: Size, *, finish: bool = True) -> Iterator[str]:
    """A server that sends `parts` to its first client; without `finish` it dies instead of ending."""
    server = EventServer(spec, size)

    def work() -> None:
        with server:
            server.wait()
            for part in parts:
                server.send(part)
            if finish:
                server.finish()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield server.address
    thread.join(timeout=20)
    assert not thread.is_alive()
