"""Serving events to others as dv-processing does, over TCP or a UNIX socket."""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import time
import warnings
from contextlib import suppress
from types import TracebackType

from evhands.events.io.aedat4_writer import event_packet, stream_header
from evhands.sources.lasting import SourceWarning
from evhands.sources.network import parse_address
from evhands.types import Events, InputError, Size

_PACKET_EVENTS = 1 << 14
_STALLED_S = 10.0
"""A client that takes nothing for so long is dropped."""
_GRACE_S = 0.5
"""Readers of dv-processing stop as soon as the connection closes, whatever they have not read yet."""


class EventServer:
    """A server of one event stream: every client gets what is sent from the moment it comes.

    The slowest client sets the pace, so that none misses an event. A context manager; `InputError` where the address
    cannot be served.
    """

    def __init__(self, spec: str, size: Size) -> None:
        self.size = size
        kind, where = parse_address(spec)
        self._path = where if isinstance(where, str) else None
        self._clients: list[socket.socket] = []
        try:
            if kind == "tcp":
                self._listener = socket.create_server(where, backlog=16)
            else:
                _remove_dead(str(where))
                self._listener = socket.socket(socket.AF_UNIX)
                self._listener.bind(str(where))
                self._listener.listen(16)
        except OSError as error:
            raise InputError(
                f"Cannot serve at {spec} ({error.strerror or error}). Wanted a free address of this machine; choose "
                "another port or path."
            ) from error
        host = self._listener.getsockname()
        self.address = f"unix:{where}" if kind == "unix" else f"tcp://{host[0]}:{host[1]}"
        self._listener.setblocking(False)

    def __enter__(self) -> EventServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._close_clients()
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def let_in(self) -> int:
        """Let those in who came meanwhile; how many clients there are now."""
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return len(self._clients)
            client.settimeout(_STALLED_S)
            self._clients.append(client)
            self._deliver([client], stream_header(self.size))

    def wait(self) -> None:
        """Until there is a client."""
        while not self.let_in():
            select.select([self._listener], [], [], 0.2)

    def send(self, events: Events) -> None:
        """To all clients there are now; to none if there is none."""
        if self.let_in():
            for start in range(0, len(events), _PACKET_EVENTS):
                self._deliver(self._clients, packet(events[start : start + _PACKET_EVENTS]))

    def finish(self) -> None:
        """Tell the clients that the stream has come to its end; without it they wait for the server to come back."""
        self._deliver(self._clients, packet(Events.empty(self.size)))
        if self._clients:
            time.sleep(_GRACE_S)
        self._close_clients()

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _deliver(self, clients: list[socket.socket], data: bytes) -> None:
        for client in list(clients):
            try:
                client.sendall(data)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    warnings.warn(f"A client took nothing for {_STALLED_S:g} s: dropped.", SourceWarning, stacklevel=2)
                client.close()
                self._clients.remove(client)


def packet(events: Events) -> bytes:
    """Events (up to some ten thousand; none = the end) as one packet of the protocol."""
    body = event_packet(events)
    return struct.pack("<ii", 0, len(body)) + body


def _remove_dead(path: str) -> None:
    """Remove the socket that a killed server has left; one that still answers, or a file, stays: binding will fail."""
    if not (os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
