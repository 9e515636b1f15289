"""ROS 1 bags (.bag) and ROS 2 bags (a folder, or one .mcap or .db3 of it), read with the package rosbags.

Messages: `dvs_msgs/EventArray` (and `prophesee_event_msgs`, which is the same), and `event_camera_msgs/EventPacket` in
the encodings `mono` and `evt3`. Times are those of the events themselves. Sources: the message definitions, the pages
of ROS on serialisation, the README of event_camera_msgs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evhands.events.io import prophesee_kernels as kernels
from evhands.events.io.base import EventFile
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, warn_partial
from evhands.types import InputError, Size

_ARRAY, _PACKET = "EventArray", "EventPacket"
_PACKET_MESSAGE = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
_ARRAY_MESSAGE = "std_msgs/Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events\n"
_EVENT_MESSAGE = "uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity\n"
_ROS1_EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
_ROS2_EVENT = np.dtype(
    {"names": ["x", "y", "s", "ns", "p"], "formats": ["<u2", "<u2", "<i4", "<u4", "u1"],
     "offsets": [0, 2, 6, 10, 14], "itemsize": 16}
)  # fmt: skip
"""CDR aligns: from the second on, an event begins two bytes before a multiple of sixteen; the first at it."""
_MAX_TRIGGERS = 1 << 12

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""x, y, t_us, p."""


@dataclass(frozen=True, kw_only=True)
class RosbagFile(EventFile):
    """The events of one topic of a bag."""

    topic: str

    def raw_chunks(self) -> Iterator[RawChunk]:
        parts: list[Columns] = []
        total, done, count = 0, 0, 0
        with _opened(self.path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            total = sum(c.msgcount for c in connections)
            decoder = _Decoder(reader, self.path)
            try:
                for connection, _, data in reader.messages(connections):
                    parts.append(decoder.events(bytes(data), connection.msgtype))
                    done, count = done + 1, count + len(parts[-1][0])
                    if sum(len(part[0]) for part in parts) >= CHUNK_EVENTS:
                        yield _chunk(parts, done / max(total, 1))
                        parts = []
            except InputError:
                raise
            except _damage() as error:
                warn_partial(self.path, f"damaged after {done} messages ({error})", count, done / max(total, 1))
        if parts:
            yield _chunk(parts, done / max(total, 1))


def open_rosbag(path: Path, *, size: Size | None = None, salvage: bool = False, topic: str | None = None) -> RosbagFile:
    """Open a bag; the topic of events is found by its type, and need be named only where there are several.

    Raises InputError where rosbags is missing, the bag cannot be read, or holds no such topic.
    """
    with _opened(path) as reader:
        topics = {c.topic: c for c in reader.connections if _kind(c.msgtype) and c.msgcount}
        if topic is None and len(topics) == 1:
            topic = next(iter(topics))
        if topic is None or topic not in topics:
            others = ", ".join(sorted({f"{c.topic} ({c.msgtype})" for c in reader.connections})) or "none"
            found = f"no topic {topic!r} of events" if topic else f"{len(topics)} topics of events"
            raise InputError(
                f"{path} holds {found}; its topics are {others}. Wanted one of dvs_msgs/EventArray or "
                "event_camera_msgs/EventPacket; name it with --topic."
            )
        _, _, data = next(reader.messages([topics[topic]]))
        decoder = _Decoder(reader, path)
        found_size = decoder.size(bytes(data), topics[topic].msgtype)
        decoder.events(bytes(data), topics[topic].msgtype)  # an unknown encoding is found now
    if not size and not all(found_size):
        raise InputError(
            f"{path} does not say how large the sensor is (its messages have {found_size[0]}x{found_size[1]} pixels). "
            "Wanted a bag with width and height in its messages; convert it to text and give the size there."
        )
    details = {"topic": topic, "type": topics[topic].msgtype}
    return RosbagFile(
        path=path, size=size or found_size, format="ROS bag", salvage=salvage, details=details, topic=topic
    )


def _kind(message_type: str) -> str | None:
    """Which of the two layouts a message type has."""
    package, _, name = message_type.replace("/msg/", "/").partition("/")
    known = {("dvs_msgs", _ARRAY), ("prophesee_event_msgs", _ARRAY), ("event_camera_msgs", _PACKET)}
    return name if (package, name) in known or (package, name) == ("event_array_msgs", _ARRAY) else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.highlevel.anyreader import AnyReaderError
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise InputError(
            f"{path} is a ROS bag, and the package rosbags is not there to read it ({error}). Install it with "
            "`pip install 'evhands[ros]'`."
        ) from error
    store = get_typestore(Stores.ROS2_HUMBLE)
    texts = {
        "dvs_msgs/msg/Event": _EVENT_MESSAGE,
        "dvs_msgs/msg/EventArray": _ARRAY_MESSAGE,
        "event_camera_msgs/msg/EventPacket": _PACKET_MESSAGE,
    }
    for name, text in texts.items():  # for bags that do not carry the definitions of their messages
        store.register(get_types_from_msg(text, name))
    folder = path.parent if path.name == "metadata.yaml" else path
    try:
        with AnyReader([folder], default_typestore=store) as reader:
            yield reader
    except (AnyReaderError, OSError, AssertionError) as error:
        raise InputError(
            f"{path} looks like a ROS bag but cannot be read ({error}). Wanted a closed .bag, a ROS 2 folder with its "
            "metadata.yaml, or an .mcap; copy it again, or run `rosbag reindex` on it."
        ) from error


def _damage() -> tuple[type[Exception], ...]:
    from rosbags.highlevel.anyreader import AnyReaderError
    from rosbags.rosbag1 import ReaderError as Error1
    from rosbags.rosbag2 import ReaderError as Error2

    return AnyReaderError, Error1, Error2, struct.error, ValueError, IndexError


class _Decoder:
    """Messages of one bag into columns; what EVT 3.0 carries from packet to packet is kept."""

    def __init__(self, reader: Any, path: Path) -> None:
        self._reader, self._path = reader, path
        self._state = np.array(kernels.EVT3_STATE, np.int64)

    def size(self, data: bytes, message_type: str) -> Size:
        if _kind(message_type) == _ARRAY:
            height, width, _, _ = _array_head(data, self._reader.is2)
        else:
            message = self._reader.deserialize(data, message_type)
            height, width = message.height, message.width
        return int(width), int(height)

    def events(self, data: bytes, message_type: str) -> Columns:
        if _kind(message_type) == _ARRAY:
            return _array_events(data, self._reader.is2)
        message = self._reader.deserialize(data, message_type)
        encoding = re.match(r"\w*", message.encoding)
        name = encoding[0] if encoding else ""
        if name == "mono":
            return _mono_events(message)
        if name == "evt3":
            return self._evt3_events(message.events)
        raise InputError(
            f"{self._path} holds event packets in the encoding {message.encoding!r}. Wanted mono or evt3; convert the "
            "bag with the tools of event_camera_py first."
        )

    def _evt3_events(self, data: np.ndarray) -> Columns:
        words = np.frombuffer(data.tobytes()[: len(data) // 2 * 2], "<u2")
        triggers = np.empty((_MAX_TRIGGERS, 3), np.int64)
        parts: list[Columns] = []
        used = 0
        while used < len(words):
            room = min(12 * (len(words) - used), CHUNK_EVENTS) + 2 * kernels.ROOM
            columns = (
                np.empty(room, np.uint16),
                np.empty(room, np.uint16),
                np.empty(room, np.int64),
                np.empty(room, bool),
            )
            step, count, _ = kernels.decode_evt3(words[used:], self._state, *columns, triggers)
            used += step
            x, y, t_us, p = (column[:count] for column in columns)
            parts.append((x, y, t_us, p))
        return _together(parts)


def _array_head(data: bytes, is2: bool) -> tuple[int, int, int, int]:
    """(height, width, number of events, where they begin) of an EventArray."""
    if not is2:
        (name_length,) = struct.unpack_from("<I", data, 12)
        return *struct.unpack_from("<III", data, 16 + name_length), 28 + name_length
    (name_length,) = struct.unpack_from("<I", data, 12)  # behind four bytes of encapsulation, seconds, nanoseconds
    position = 16 + name_length
    position += -position % 4
    return *struct.unpack_from("<III", data, position), position + 12


def _array_events(data: bytes, is2: bool) -> Columns:
    _, _, count, start = _array_head(data, is2)
    if not count:
        return _together([])
    if is2:
        # As if the first event lay like the others; its x and y, which do not, are put right.
        rows = np.frombuffer(data[start - 2 :] + b"\0", _ROS2_EVENT, count).copy()
        rows["x"][0], rows["y"][0] = struct.unpack_from("<HH", data, start)
    else:
        rows = np.frombuffer(data, _ROS1_EVENT, count, start)
    t_us = rows["s"].astype(np.int64) * 1_000_000 + rows["ns"].astype(np.int64) // 1000
    return rows["x"].copy(), rows["y"].copy(), t_us, rows["p"] != 0


def _mono_events(message: Any) -> Columns:
    """64-bit words: nanoseconds after time_base (32 bits), x (16), y (15), polarity (1)."""
    data = message.events.tobytes()
    words = np.frombuffer(data[: len(data) // 8 * 8], ">u8" if message.is_bigendian else "<u8").astype(np.uint64)
    t_us = (np.uint64(message.time_base) + (words & np.uint64(0xFFFFFFFF))) // np.uint64(1000)
    x, y = (words >> np.uint64(32)).astype(np.uint16), ((words >> np.uint64(48)) & np.uint64(0x7FFF)).astype(np.uint16)
    return x, y, t_us.astype(np.int64), (words >> np.uint64(63)) != 0


def _together(parts: list[Columns]) -> Columns:
    empty = np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_)
    if len(parts) == 1:
        return parts[0]
    x, y, t_us, p = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return x, y, t_us, p


def _chunk(parts: list[Columns], read_fraction: float) -> RawChunk:
    return RawChunk(*_together(parts), read_fraction)
