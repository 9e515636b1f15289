"""The packets of AEDAT 4, as they lie in files and as they pass through a socket.

In a socket the size-prefixed header comes without the magic line, and there is no closing table; the rest is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

import lz4.frame
import numpy as np
import zstandard
from jaxtyping import Bool, Int64, UInt16
from numba import njit

from evhands.events.io.flatbuffer import FlatbufferError, Table
from evhands.types import Events, Size

COMPRESSIONS = ("NONE", "LZ4", "LZ4_HIGH", "ZSTD", "ZSTD_HIGH")
MAX_PACKET = 256 << 20
_EVENT_BYTES = 16


class PacketError(ValueError):
    """A packet cannot be decompressed or is not what its stream promises."""


@dataclass(frozen=True)
class StreamHeader:
    """What the header says: the compression, and per stream number its kind (EVTS, FRME, IMUS, TRIG ...) and size."""

    compression: int
    table_position: int
    kinds: dict[int, str]
    sizes: dict[int, Size]

    @property
    def event_stream(self) -> int | None:
        """The number of the first stream of events."""
        return next((number for number, kind in self.kinds.items() if kind == "EVTS"), None)


def parse_header(data: bytes) -> StreamHeader:
    """Read a header without its size prefix; `FlatbufferError`, `ParseError` or `ValueError` where it is none."""
    header = Table.root(data, b"IOHE")
    compression = header.scalar(0, "i")
    if not 0 <= compression < len(COMPRESSIONS):
        raise FlatbufferError(f"unknown compression {compression}")
    return StreamHeader(compression, header.scalar(1, "q", -1), *_describe(header.text(2)))


def event_records(payload: bytes) -> Int64[np.ndarray, "n 2"]:
    """The 16-byte records of a decompressed packet of events, two words each, without a copy."""
    start, count = Table.root(payload, b"EVTS", 4).vector(0, _EVENT_BYTES)
    return np.frombuffer(payload, np.uint8, count * _EVENT_BYTES, start).view(np.int64).reshape(count, 2)


def events_of(records: Int64[np.ndarray, "n 2"], size: Size) -> Events:
    """Records as columns."""
    columns = empty_columns(len(records))
    unpack_events(records, 0, *columns)
    return Events(*columns, size)


def _describe(xml: str) -> tuple[dict[int, str], dict[int, Size]]:
    """Per stream number its kind (EVTS, FRME, IMUS, TRIG ...) and, where given, its size."""
    streams, sizes = {}, {}
    root = ElementTree.fromstring(xml)
    for node in root.iterfind("./node[@name='outInfo']/node"):
        number = int(node.get("name", ""))
        streams[number] = node.findtext("./attr[@key='typeIdentifier']", "")
        width, height = (int(node.findtext(f"./node/attr[@key='size{axis}']", "0")) for axis in "XY")
        if 0 < width < 1 << 15 and 0 < height < 1 << 15:
            sizes[number] = (width, height)
    return streams, sizes


def decompressor(compression: int) -> Callable[[bytes], bytes]:
    """A function that unpacks one packet, never to more than `MAX_PACKET` bytes."""
    if COMPRESSIONS[compression] == "NONE":
        return lambda packed: packed
    if COMPRESSIONS[compression].startswith("LZ4"):
        return _unpack_lz4
    return _unpack_zstd


def _unpack_lz4(packed: bytes) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    # LZ4 grows data at most 255-fold; a limit costs time, because the decoder then allocates all of it.
    limit = MAX_PACKET if 255 * len(packed) > MAX_PACKET else -1
    try:
        data = decoder.decompress(packed, limit)
    except (RuntimeError, ValueError, MemoryError, EOFError) as error:
        raise PacketError(str(error)) from error
    if not decoder.eof:
        raise PacketError("an LZ4 frame without an end")
    return bytes(data)


def _unpack_zstd(packed: bytes) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_PACKET)
    try:
        size = zstandard.frame_content_size(packed)
        if 0 <= size <= MAX_PACKET:
            return decoder.decompress(packed)
        parts, left = [], MAX_PACKET
        with decoder.stream_reader(packed) as reader:
            while left > 0 and (part := reader.read(min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
    except (zstandard.ZstdError, MemoryError) as error:
        raise PacketError(str(error)) from error
    return b"".join(parts)


def empty_columns(
    n: int,
) -> tuple[UInt16[np.ndarray, " n"], UInt16[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    return np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.int64), np.empty(n, np.bool_)


@njit(cache=True, nogil=True)
def unpack_events(
    words: Int64[np.ndarray, "m 2"],
    start: int,
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    t_us: Int64[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
) -> None:
    """Spread the 16-byte records (int64 time, int16 x, int16 y, bool, padding) over columns from `start` on."""
    for i in range(len(words)):
        rest = words[i, 1]
        t_us[start + i] = words[i, 0]
        x[start + i] = rest & 0xFFFF
        y[start + i] = (rest >> 16) & 0xFFFF
        p[start + i] = (rest >> 32) & 0xFF != 0
