"""One door to every event file: the format is recognised by content, never by the name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from evhands.events.io.base import EventFile
from evhands.events.io.dialects import TimeUnit
from evhands.types import InputError, Size

_READERS = {
    "aedat4": ("evhands.events.io.aedat4", "open_aedat4"),
    "prophesee": ("evhands.events.io.prophesee", "open_prophesee"),
    "hdf5": ("evhands.events.io.hdf5", "open_hdf5"),
    "npz": ("evhands.events.io.npz", "open_npz"),
    "text": ("evhands.events.io.text", "open_text"),
    "rosbag": ("evhands.events.io.rosbag", "open_rosbag"),
}
"""Module and function per kind, imported only when such a file is met."""

_WITH_TIME_UNIT = ("hdf5", "npz", "text")
_HINTS = {
    "video": "is a video. Wanted events: make them with `evhands convert VIDEO events.h5` first",
    "aedat-old": "is an AEDAT recording of an old version. Wanted AEDAT 4.0: convert it in iniVation's DV software",
    "image": "is a picture. Wanted an event recording",
    "empty": "is empty (0 bytes). Wanted an event recording; record or copy it again",
}
_WANTED = (
    ".aedat4, Prophesee .raw (EVT 2.0 or 3.0) or .dat, HDF5 (evhands or DSEC layout), .npz, a ROS bag, "
    "or text with one event a line"
)
_HEAD_BYTES = 4096


def recognise(path: Path | str) -> str:
    """What kind of file this is by its first bytes; a folder may be a ROS 2 bag.

    One of aedat4, prophesee, hdf5, npz, text, rosbag (those `open_events` reads), video, aedat-old, image, empty,
    unknown. A file that is missing or cannot be read is an `InputError`.
    """
    path = Path(path)
    if (path / "metadata.yaml").is_file():
        return "rosbag"
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read ({error.strerror})"
        raise InputError(f"{path} {what}. Wanted an event recording: {_WANTED}; check the name.") from error
    return _kind(head)


def _kind(head: bytes) -> str:
    beginnings = {
        b"#!AER-DAT4.0\r\n": "aedat4",
        b"#!AER-DAT": "aedat-old",
        b"#ROSBAG": "rosbag",
        b"\x89MCAP0\r\n": "rosbag",
        b"SQLite format 3\0": "rosbag",
        b"\x89HDF\r\n\x1a\n": "hdf5",
        b"PK\x03\x04": "npz",
        b"PK\x05\x06": "npz",
        b"%": "prophesee",
        b"\x1aE\xdf\xa3": "video",
        b"\x89PNG": "image",
        b"\xff\xd8\xff": "image",
    }
    if not head:
        return "empty"
    for beginning, kind in beginnings.items():
        if head.startswith(beginning):
            return kind
    if head[4:8] == b"ftyp" or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return "video"
    printable = bytes(range(32, 127)) + b"\t\r\n"
    text = head.decode("utf-8", "ignore").encode("ascii", "ignore")
    return "text" if len(text) > 0.9 * len(head) and not text.translate(None, printable) else "unknown"


def open_events(
    path: Path | str,
    *,
    size: Size | None = None,
    time_unit: TimeUnit | None = None,
    salvage: bool = False,
    topic: str | None = None,
) -> EventFile:
    """Open an event recording of any known format, recognised by its content.

    `size` (width, height) and `time_unit` ("s" or "us") say what a file does not, and win over what it says; most files
    need neither. `salvage`: read what is sound of a recording with faults, see `EventFile`. `topic`: of a ROS bag with
    several topics of events. Opening reads the header only, unless the sensor size is found nowhere but in the events.
    Raises `InputError` where the file is missing, of an unknown kind, or damaged beyond reading; a recording without
    events opens and yields nothing.
    """
    path = Path(path)
    kind = recognise(path)
    if kind not in _READERS:
        hint = _HINTS.get(kind, f"is not an event recording of a known kind. Wanted {_WANTED}")
        raise InputError(f"{path} {hint}.")
    module, function = _READERS[kind]
    options: dict[str, Any] = {"size": size, "salvage": salvage}
    if kind in _WITH_TIME_UNIT:
        options["time_unit"] = time_unit
    if kind == "rosbag":
        options["topic"] = topic
    try:
        file: EventFile = getattr(importlib.import_module(module), function)(path, **options)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). Wanted {_WANTED}.") from error
    return file
