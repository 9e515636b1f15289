"""Network streams of dv-processing, over TCP or a UNIX socket: AEDAT 4 packets without the magic line."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from evhands.sources.decoders import MalformedError, PacketDecoder
from evhands.sources.lasting import TICK_S, LastingStream, SourceLostError
from evhands.types import Events, InputError, Size

Address = tuple[Literal["tcp"], tuple[str, int]] | tuple[Literal["unix"], str]
_CONNECT_S = 2.0
_RECEIVE_BYTES = 1 << 20


def parse_address(spec: str) -> Address:
    """`tcp://HOST:PORT` or `unix:PATH` (`unix://PATH` too)."""
    if spec.startswith("unix:") and spec != "unix:":
        return "unix", spec.removeprefix("unix:").removeprefix("//")
    try:
        parts = urlsplit(spec)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None and parts.path in ("", "/"):
            return "tcp", (parts.hostname, parts.port)
    except ValueError:  # a port that is no number
        pass
    raise InputError(f"Found {spec!r} as the address of a stream. Wanted tcp://HOST:PORT or unix:/PATH; write it so.")


def open_network(spec: str, wait_s: float) -> LastingStream:
    """A network stream, waited for up to `wait_s` at the start and each time it is lost."""
    address = parse_address(spec)
    hint = "Wanted a stream as `evhands stream` or the DV software serves it; start it, or wait longer with --wait."
    return LastingStream.open(spec, lambda: SocketConnection(spec, address), wait_s, hint)


class SocketConnection:
    """One connection to a server; the header has been read. `SourceLostError` where nobody answers."""

    def __init__(self, spec: str, address: Address) -> None:
        self._spec = spec
        self._decoder = PacketDecoder(magic=False)
        try:
            if address[0] == "tcp":
                self._socket = socket.create_connection(address[1], timeout=_CONNECT_S)
            else:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(_CONNECT_S)
                self._socket.connect(address[1])
        except OSError as error:
            raise SourceLostError(f"nobody answers ({error.strerror or error})") from error
        try:
            self._first = self._header()
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    @property
    def size(self) -> Size:
        assert self._decoder.size is not None
        return self._decoder.size

    def _header(self) -> list[Events]:
        """Read on until the header is there; the events that came with it."""
        try:
            while (data := self._socket.recv(_RECEIVE_BYTES)) != b"":
                events = self._decoder.feed(data)
                if self._decoder.size is not None:
                    return events
        except OSError as error:
            raise SourceLostError(f"answers, but sends nothing ({error.strerror or error})") from error
        except MalformedError as error:
            raise InputError(
                f"{self._spec} {error}. Wanted a dv-processing network stream of events; look at what serves there."
            ) from error
        raise SourceLostError("the connection was closed before anything was sent")

    def chunks(self) -> Iterator[Events]:
        yield from self._first
        while True:
            data = self._received()
            if data is None:
                yield Events.empty(self.size)
                continue
            if not data and self._decoder.ended:
                return
            if not data:
                raise SourceLostError("the connection was closed")
            try:
                yield Events.concatenate(self._decoder.feed(data), self.size)
            except MalformedError as error:
                raise SourceLostError(f"it {error}") from error

    def _received(self) -> bytes | None:
        """What has come, nothing where the server has closed, None where it is silent."""
        if not select.select([self._socket], [], [], TICK_S)[0]:
            return None
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SourceLostError(f"the connection broke ({error.strerror or error})") from error

    def close(self) -> None:
        self._socket.close()
