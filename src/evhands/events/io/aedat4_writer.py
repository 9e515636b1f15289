"""Writing .aedat4 recordings with one event stream, whole packets at a time from columns.

The flatbuffers are laid out by hand, as in the pages of `aedat4.py`; a closing table of contents is written so that
dv-processing can open the file and jump in it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import lz4.frame
import numpy as np

from evhands.events.io.aedat4 import MAGIC
from evhands.events.io.aedat4_packets import COMPRESSIONS
from evhands.types import Events, EventStream, Size

_PACKET_EVENTS = 1 << 14
_RECORD = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "<i1"), ("pad", "V3")])
_TABLE_ENTRY = np.dtype(
    [("vtable", "<i4"), ("stream", "<i4"), ("length", "<i4"), ("position", "<i8"), ("count", "<i8"), ("start", "<i8"),
     ("end", "<i8"), ("pad", "V4")]
)  # fmt: skip
_XML = """<dv version="2.0">
    <node name="outInfo" path="/outInfo/">
        <node name="0" path="/outInfo/0/">
            <attr key="compression" type="string">{compression}</attr>
            <attr key="originalModuleName" type="string">evhands</attr>
            <attr key="originalOutputName" type="string">events</attr>
            <attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
            <attr key="typeIdentifier" type="string">EVTS</attr>
            <node name="info" path="/outInfo/0/info/">
                <attr key="sizeX" type="int">{width}</attr>
                <attr key="sizeY" type="int">{height}</attr>
                <attr key="source" type="string">evhands</attr>
            </node>
        </node>
    </node>
</dv>
"""


def write_aedat4(path: Path, stream: EventStream) -> None:
    """Write an `EventStream` as .aedat4 with LZ4 packets."""
    entries: list[tuple[int, int, int, int, int]] = []
    with open(path, "wb") as file:
        file.write(MAGIC + stream_header(stream.size, 0, compression="LZ4"))
        for events in stream:
            for start in range(0, len(events), _PACKET_EVENTS):
                part = events[start : start + _PACKET_EVENTS]
                packed = lz4.frame.compress(event_packet(part), store_size=False)
                entries.append((len(packed), file.tell() + 8, len(part), int(part.t_us[0]), int(part.t_us[-1])))
                file.write(struct.pack("<ii", 0, len(packed)) + packed)
        table_position = file.tell()
        file.write(lz4.frame.compress(_contents(entries), store_size=False))
        file.seek(0)
        file.write(MAGIC + stream_header(stream.size, table_position, compression="LZ4"))


def stream_header(size: Size, table_position: int = -1, *, compression: str = "NONE") -> bytes:
    """The header, size first: compression (field 0), position of the table of contents (1; -1 = none), XML (2)."""
    text = _XML.format(width=size[0], height=size[1], compression=compression).encode()
    vtable = struct.pack("<HHHHHxx", 10, 20, 16, 8, 4)
    table = struct.pack("<iIqi", len(vtable), 16, table_position, COMPRESSIONS.index(compression))
    string = struct.pack("<I", len(text)) + text + b"\0" * (4 - len(text) % 4)
    return _size_prefixed(b"IOHE", vtable, table + string)


def event_packet(events: Events) -> bytes:
    """A table with one field, a vector of 16-byte records, which then begin at byte 32."""
    records = np.zeros(len(events), _RECORD)
    records["t"], records["x"], records["y"], records["p"] = events.t_us, events.x, events.y, events.p
    return _one_vector(b"EVTS", len(events), records.tobytes())


def _contents(entries: list[tuple[int, int, int, int, int]]) -> bytes:
    """A vector of tables, one a packet, one vtable for all: position, stream and length, count, first, last time."""
    count = len(entries)
    vtable = struct.pack("<HHHHHHH", 14, 44, 12, 4, 20, 28, 36)
    vtable_at = 32 + 4 * count
    first_table = vtable_at + len(vtable)
    first_table += (4 - first_table) % 8
    tables = np.zeros(count, _TABLE_ENTRY)
    tables_at = first_table + _TABLE_ENTRY.itemsize * np.arange(count)
    tables["vtable"] = tables_at - vtable_at
    for name, column in zip(("length", "position", "count", "start", "end"), zip(*entries, strict=True), strict=False):
        tables[name] = column
    offsets = (tables_at - (32 + 4 * np.arange(count))).astype("<u4")
    gap = bytes(first_table - vtable_at - len(vtable))
    return _one_vector(b"FTAB", count, offsets.tobytes() + vtable + gap + tables.tobytes())


def _one_vector(identifier: bytes, count: int, items: bytes) -> bytes:
    vtable = struct.pack("<HHHxx", 6, 8, 4)
    return _size_prefixed(identifier, vtable, struct.pack("<iII", len(vtable), 4, count) + items)


def _size_prefixed(identifier: bytes, vtable: bytes, table: bytes) -> bytes:
    """A size-prefixed flatbuffer whose vtable begins at byte 12 and whose root table follows it."""
    body = struct.pack("<I4s", 8 + len(vtable), identifier) + vtable + table
    return struct.pack("<I", len(body)) + body
