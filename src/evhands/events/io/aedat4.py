"""iniVation .aedat4 recordings, read packet by packet so that damaged and truncated files give what is whole in them.

A file is a magic line, a size-prefixed flatbuffer header (compression, position of the closing table, XML that
describes the streams), then packets: stream number (int32), byte count (int32), a size-prefixed flatbuffer compressed
as an LZ4 or Zstandard frame of its own. The closing table of contents is needed for random access only and not read
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from evhands.events.io.aedat4_packets import (
    COMPRESSIONS,
    MAX_PACKET,
    PacketError,
    StreamHeader,
    decompressor,
    empty_columns,
    event_records,
    parse_header,
    unpack_events,
)
from evhands.events.io.base import EventFile, Frame, Triggers, scan_size
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, warn_partial
from evhands.events.io.flatbuffer import FlatbufferError, Table
from evhands.types import InputError, Size

MAGIC = b"#!AER-DAT4.0\r\n"
_CHANNELS = {0: 1, 16: 3, 24: 4}
_DAMAGE = (PacketError, FlatbufferError)


@dataclass
class _Walk:
    """How one walk over the packets went: filled in while it runs."""

    read_fraction: float = 0.0
    ending: str | None = None
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Aedat4File(EventFile):
    """An .aedat4 recording: the events of its first event stream, its first frame stream, its triggers."""

    streams: dict[int, str]
    event_stream: int
    compression: int
    packets_start: int
    table_position: int

    def raw_chunks(self) -> Iterator[RawChunk]:
        walk = _Walk()
        chunk = empty_columns(CHUNK_EVENTS)
        filled = total = 0
        for payload in self._payloads(self.event_stream, walk):
            try:
                words = event_records(payload)
            except FlatbufferError as error:
                walk.damaged.append(str(error))
                continue
            taken = 0
            while taken < len(words):
                part = words[taken : taken + CHUNK_EVENTS - filled]
                unpack_events(part, filled, *chunk)
                taken, filled = taken + len(part), filled + len(part)
                if filled == CHUNK_EVENTS:
                    yield RawChunk(*chunk, walk.read_fraction)
                    chunk, total, filled = empty_columns(CHUNK_EVENTS), total + filled, 0
        if filled:
            x, y, t_us, p = (column[:filled] for column in chunk)
            yield RawChunk(x, y, t_us, p, walk.read_fraction)
        self._warn(walk, total + filled)

    def frames(self) -> Iterator[Frame]:
        walk = _Walk()
        for payload in self._payloads(self._first("FRME"), walk):
            try:
                yield _frame(Table.root(payload, b"FRME", 4), payload)
            except FlatbufferError as error:
                walk.damaged.append(str(error))

    def triggers(self) -> Triggers:
        parts = []
        for payload in self._payloads(self._first("TRIG"), _Walk()):
            try:
                parts.append(_trigger_packet(Table.root(payload, b"TRIG", 4)))
            except FlatbufferError:
                continue
        return Triggers.concatenate(parts)

    def _first(self, kind: str) -> int | None:
        return next((number for number, name in self.streams.items() if name == kind), None)

    def _payloads(self, stream: int | None, walk: _Walk) -> Iterator[bytes]:
        """The decompressed packets of one stream; damage is noted in `walk`."""
        if stream is None:
            return
        decompress = decompressor(self.compression)
        total = self.path.stat().st_size
        with open(self.path, "rb") as file:
            file.seek(self.packets_start)
            while (header := self._packet_header(file, total, walk)) is not None:
                number, length = header
                if number != stream:
                    file.seek(length, 1)
                else:
                    packed = file.read(length)
                    walk.read_fraction = file.tell() / total
                    try:
                        yield decompress(packed)
                    except PacketError as error:
                        walk.damaged.append(str(error))

    def _packet_header(self, file: BinaryIO, total: int, walk: _Walk) -> tuple[int, int] | None:
        """(stream, byte count) of the packet that begins here; None at the end, with the reason if it came early."""
        position = file.tell()
        if position == self.table_position:
            walk.read_fraction = 1.0
            return None
        header = file.read(8)
        if not header:
            walk.ending = "it was never closed (cut off, or the recorder was stopped)"
            return None
        number, length = (int.from_bytes(header[i : i + 4], "little", signed=True) for i in (0, 4))
        if len(header) < 8 or (number in self.streams and length > 0 and position + 8 + length > total):
            walk.ending = "it is cut off in the middle of a packet"
            return None
        if number not in self.streams or not 0 < length <= MAX_PACKET:
            walk.ending = f"it is damaged at byte {position} of {total}"
            return None
        return number, length

    def _warn(self, walk: _Walk, read_events: int) -> None:
        if walk.damaged:
            walk.ending = (
                f"{walk.ending or 'it is damaged'}; {len(walk.damaged)} packets were skipped ({walk.damaged[0]})"
            )
        if walk.ending is not None:
            warn_partial(self.path, walk.ending, read_events, walk.read_fraction)


def open_aedat4(path: Path, *, size: Size | None = None, salvage: bool = False) -> Aedat4File:
    """Open an .aedat4 recording; its header must be whole, everything behind it may be damaged."""
    try:
        header, packets_start = _read_header(path)
    except (FlatbufferError, ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} begins like an .aedat4 recording, but its header is cut off or damaged ({error}). Wanted a file "
            "with a whole header; copy it again from where it was recorded."
        ) from error
    streams, number = header.kinds, header.event_stream
    if number is None:
        kinds = ", ".join(streams.values()) or "none"
        raise InputError(
            f"{path} is an .aedat4 file without an event stream (its streams: {kinds}). Wanted one with events."
        )
    result = Aedat4File(
        path=path,
        size=size or header.sizes.get(number, (0, 0)),
        format="aedat4",
        salvage=salvage,
        details={"compression": COMPRESSIONS[header.compression], "streams": ", ".join(streams.values())},
        streams=streams,
        event_stream=number,
        compression=header.compression,
        packets_start=packets_start,
        table_position=header.table_position,
    )
    if all(result.size):
        return result
    return Aedat4File(**{**vars(result), "size": scan_size(result.raw_chunks(), path)})


def _read_header(path: Path) -> tuple[StreamHeader, int]:
    """(header, position of the first packet)."""
    with open(path, "rb") as file:
        file.seek(len(MAGIC))
        length = int.from_bytes(file.read(4), "little")
        data = file.read(min(length, MAX_PACKET))
    if not length or len(data) < length:
        raise FlatbufferError(f"{len(data)} of {length} bytes")
    return parse_header(data), len(MAGIC) + 4 + length


def _frame(table: Table, payload: bytes) -> Frame:
    """Fields of Frame.fbs: 0 time, 3/4 exposure begin and end, 5 format, 6/7 size, 10 pixels, 11 exposure."""
    width, height = table.scalar(6, "h"), table.scalar(7, "h")
    start, length = table.vector(10, 1)
    channels = _CHANNELS.get(table.scalar(5, "b"), 0)
    if not length or length != width * height * channels:
        raise FlatbufferError(f"a frame of {length} bytes for {width}x{height}x{channels}")
    image = np.frombuffer(payload, np.uint8, length, start).reshape(height, width, channels)
    begin, end = table.scalar(3, "q"), table.scalar(4, "q")
    return Frame(table.scalar(0, "q"), image, table.scalar(11, "q") or max(end - begin, 0))


def _trigger_packet(packet: Table) -> Triggers:
    """Trigger types: 0 reset, 1/2/3 signal rising/falling/pulse, 4/5 generator rising/falling, 6-9 frames and
    exposures."""
    items: list[Any] = [(item.scalar(0, "q"), item.scalar(1, "b")) for item in packet.tables(0)]
    table = np.array(items, np.int64).reshape(-1, 2)
    return Triggers(table[:, 0], table[:, 1], np.isin(table[:, 1], (1, 4)))
