"""Bytes as they arrive, from a pipe or a socket, into events: every decoder takes any pieces of the stream in order.

Three kinds are told apart by their beginning:

* AEDAT 4 packets, as in a file (with the magic line) and in a socket of dv-processing (without it).
* Our own frames: the line `#!EVHANDS-EVENTS 346x260`, then frames of a little-endian uint32 n and n records of 16 bytes
  (int64 time in microseconds, uint16 x, uint16 y, uint8 polarity, 3 bytes of padding). A frame of none says that time
  goes on.
* Lines of text, `t x y p` with the time in microseconds, or in the order that a line of names gives. The size comes
  first, in a comment: `# size 346x260`.
"""

from __future__ import annotations

from typing import Protocol
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from evhands.events.io.aedat4 import MAGIC
from evhands.events.io.aedat4_packets import (
    MAX_PACKET,
    PacketError,
    StreamHeader,
    decompressor,
    event_records,
    events_of,
    parse_header,
)
from evhands.events.io.columns import pixel_column, polarity_column
from evhands.events.io.dialects import Roles, TimeUnit, roles_of
from evhands.events.io.flatbuffer import FlatbufferError
from evhands.events.io.text import line_words, parse_lines, size_in
from evhands.types import Events, InputError, Size

FRAME_MAGIC = b"#!EVHANDS-EVENTS "
RECORD = np.dtype([("t_us", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1"), ("padding", "V3")])
_MAX_FRAME_EVENTS = 16 << 20
_MAX_HEADER = 1 << 16
_WANTED = (
    "Wanted the lines `t x y p` after a comment `# size WIDTHxHEIGHT`, what `evhands stream --to -` writes, or the "
    "bytes of an .aedat4 file"
)


_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"


class MalformedError(ValueError):
    """The bytes are not what their beginning promised."""


class Decoder(Protocol):
    """Turns the bytes of one stream into events."""

    size: Size | None
    """None until enough has arrived to know it."""

    @property
    def ended(self) -> bool:
        """Whether the stream may end here: it said so, or nothing is half arrived."""

    def feed(self, data: bytes) -> list[Events]: ...


def decoder_of(head: bytes, last: bool) -> Decoder | None:
    """The decoder for a stream that begins so; None: more bytes are needed (never, if these are the last ones)."""
    for magic, kind in ((MAGIC, PacketDecoder), (FRAME_MAGIC, FrameDecoder)):
        if head.startswith(magic):
            return kind()
        if magic.startswith(head) and not last:
            return None
    if not head:
        raise MalformedError(f"is empty. {_WANTED}")
    if head[:256].translate(None, _PRINTABLE):
        raise MalformedError(f"begins with {head[:12]!r}, no known kind of event stream. {_WANTED}")
    return LineDecoder()


class PacketDecoder:
    """AEDAT 4 packets; the events of the first event stream, the rest is passed over.

    An empty packet of events is how `evhands stream` says that it has come to its end.
    """

    def __init__(self, *, magic: bool = True) -> None:
        self.size: Size | None = None
        self.ended = False
        self._magic = len(MAGIC) if magic else 0
        self._header: StreamHeader | None = None
        self._buffer = bytearray()
        self._passed = 0

    def feed(self, data: bytes) -> list[Events]:
        self._buffer += data
        result: list[Events] = []
        if self._header is None and not self._read_header():
            return result
        while (packet := self._next_packet()) is not None:
            if len(packet):
                result.append(packet)
        return result

    def _take(self, count: int) -> bytes:
        part = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._passed += count
        return part

    def _read_header(self) -> bool:
        start = self._magic + 4
        length = int.from_bytes(self._buffer[self._magic : start], "little")
        if len(self._buffer) >= start and not 8 <= length <= _MAX_HEADER:
            raise MalformedError(f"begins with {bytes(self._buffer[:12])!r}, no header of an event stream")
        if len(self._buffer) < start + length or len(self._buffer) < start:
            return False
        try:
            self._header = parse_header(self._take(start + length)[start:])
        except (FlatbufferError, ElementTree.ParseError, ValueError) as error:
            raise MalformedError(f"has a header that cannot be read ({error})") from error
        number = self._header.event_stream
        if number is None or number not in self._header.sizes:
            kinds = ", ".join(self._header.kinds.values()) or "none"
            raise MalformedError(f"carries no events with a size (its streams: {kinds})")
        self.size = self._header.sizes[number]
        return True

    def _next_packet(self) -> Events | None:
        """The next whole packet, empty where it holds no events; None where it has not all arrived."""
        assert self._header is not None and self.size is not None
        if self._passed == self._header.table_position:
            self._buffer.clear()
            self.ended = True
            return None
        if len(self._buffer) < 8:
            self.ended = self.ended and not self._buffer
            return None
        number, length = (int.from_bytes(self._buffer[i : i + 4], "little", signed=True) for i in (0, 4))
        if number not in self._header.kinds or not 0 < length <= MAX_PACKET:
            raise MalformedError(f"has no packet where one should begin (stream {number}, {length} bytes)")
        if len(self._buffer) < 8 + length:
            return None
        payload = self._take(8 + length)[8:]
        self.ended = False
        if number != self._header.event_stream:
            return Events.empty(self.size)
        try:
            records = event_records(decompressor(self._header.compression)(payload))
        except (FlatbufferError, PacketError) as error:
            raise MalformedError(f"has a damaged packet ({error})") from error
        self.ended = not len(records)
        return events_of(records, self.size)


class FrameDecoder:
    """Our own frames, see above."""

    def __init__(self) -> None:
        self.size: Size | None = None
        self._buffer = bytearray()

    @property
    def ended(self) -> bool:
        return self.size is not None and not self._buffer

    def feed(self, data: bytes) -> list[Events]:
        self._buffer += data
        if self.size is None:
            self._read_header()
        result: list[Events] = []
        while self.size is not None and len(self._buffer) >= 4:
            count = int.from_bytes(self._buffer[:4], "little")
            if count > _MAX_FRAME_EVENTS:
                raise MalformedError(f"has a frame of {count} events, more than {_MAX_FRAME_EVENTS}")
            end = 4 + count * RECORD.itemsize
            if len(self._buffer) < end:
                break
            records = np.frombuffer(bytes(self._buffer[4:end]), np.int64).reshape(-1, 2)
            result.append(events_of(records, self.size))
            del self._buffer[:end]
        return result

    def _read_header(self) -> None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline and len(line) < 256:
            return
        words = bytes(line[len(FRAME_MAGIC) :]).split(b"x")
        if len(words) != 2 or not all(w.strip().isdigit() and 0 < int(w) < 1 << 15 for w in words):
            raise MalformedError(f"begins with the line {bytes(line[:40])!r}; wanted `#!EVHANDS-EVENTS WIDTHxHEIGHT`")
        self.size, self._buffer = (int(words[0]), int(words[1])), rest


def frame(events: Events) -> bytes:
    """Events as one frame of ours."""
    records = np.zeros(len(events), RECORD)
    records["t_us"], records["x"], records["y"], records["p"] = events.t_us, events.x, events.y, events.p
    return len(events).to_bytes(4, "little") + records.tobytes()


def frame_header(size: Size) -> bytes:
    """The line before the first frame."""
    return FRAME_MAGIC + f"{size[0]}x{size[1]}\n".encode()


class LineDecoder:
    """Lines of text, see above."""

    def __init__(self) -> None:
        self.size: Size | None = None
        self._roles: Roles = Roles(t=0, x=1, y=2, p=3)
        self._unit: TimeUnit | None = None
        self._rest = b""
        self._in_header = True
        self._events = 0

    @property
    def ended(self) -> bool:
        return self.size is not None and not self._rest

    def feed(self, data: bytes) -> list[Events]:
        lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if not newline:
            if len(self._rest) > _MAX_HEADER:
                raise MalformedError(f"has a line of more than {_MAX_HEADER} bytes. {_WANTED}")
            return []
        block = lines + b"\n"
        while self._in_header and block:
            line, _, after = block.partition(b"\n")
            if not self._is_header(line.decode("utf-8", "replace").strip()):
                self._in_header = False
            else:
                block = after
        return [self._parsed(block)] if block else []

    def _is_header(self, line: str) -> bool:
        words = line_words(line)
        roles, unit = roles_of(words)
        if line.startswith("#") or not line:
            self.size = self.size or size_in(line)
        elif self.size is None and len(words) == 2 and all(word.isdecimal() for word in words):
            self.size = int(words[0]), int(words[1])
        elif not roles:
            return False
        if len(roles) == 4:
            self._roles, self._unit = roles, unit
        elif roles and not line.startswith("#"):
            raise MalformedError(f"names its columns {', '.join(words)}; wanted names for x, y, the time and p")
        return True

    def _parsed(self, block: bytes) -> Events:
        if self.size is None:
            raise MalformedError(f"does not say how large the sensor is before its first event. {_WANTED}")
        rows, _, bad = parse_lines(_bytes(block), 1 + max(self._roles.values()))
        if bad >= 0:
            line = block[bad:].split(b"\n", 1)[0].decode("utf-8", "replace")[:60]
            raise MalformedError(f"has the line {line!r} after {self._events + len(rows)} events. {_WANTED}")
        x, y, t, p = (rows[:, self._roles[role]] for role in "xytp")
        if self._unit != "s" and not (t == np.floor(t)).all():
            raise MalformedError("has times with fractions. Wanted whole microseconds, or a line of names `t_s x y p`")
        t = np.rint(t * 1e6 if self._unit == "s" else t)
        if not (np.abs(t) < 2.0**62).all():
            raise MalformedError(f"has a time too large to be one, after {self._events} events or more. {_WANTED}")
        self._events += len(rows)
        return Events(pixel_column(x), pixel_column(y), t.astype(np.int64), polarity_column(p), self.size)


def _bytes(block: bytes) -> UInt8[np.ndarray, " n"]:
    return np.frombuffer(block, np.uint8)


def refuse(name: str, error: MalformedError) -> InputError:
    """What a user is told of a stream that cannot be read."""
    return InputError(f"{name} {error}. See docs/sources.md for what can be read.")
