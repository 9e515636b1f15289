"""One door for writing events: the format is chosen by the suffix of the path."""

from __future__ import annotations

import importlib
from pathlib import Path

from evhands.files import replacing
from evhands.types import EventStream, InputError

_WRITERS = {
    ".h5": ("evhands.events.io.hdf5", "write_hdf5"),
    ".hdf5": ("evhands.events.io.hdf5", "write_hdf5"),
    ".npz": ("evhands.events.io.npz", "write_npz"),
    ".aedat4": ("evhands.events.io.aedat4_writer", "write_aedat4"),
    ".csv": ("evhands.events.io.text", "write_text"),
    ".txt": ("evhands.events.io.text", "write_text"),
}


def writable(path: Path | str) -> None:
    """Raise an `InputError` if no writer knows the suffix of `path`."""
    if Path(path).suffix.lower() not in _WRITERS:
        raise InputError(f"Cannot write {path}: wanted a name that ends in one of {', '.join(_WRITERS)}.")


def write_events(path: Path | str, stream: EventStream) -> None:
    """Write a stream of events to `path` in the format of its suffix, chunk by chunk, replacing the file at the end.

    Whatever goes wrong on the way, a file already at `path` stays as it was. An empty stream gives a valid empty file.
    """
    writable(path)
    module, function = _WRITERS[Path(path).suffix.lower()]
    with replacing(path) as temporary:
        getattr(importlib.import_module(module), function)(temporary, stream)
