"""HDF5 event recordings: our own layout, and the DSEC layout that it extends.

Our layout: root attributes `format` = "evhands", `version` = 1, `width`, `height`; group `events` with `x`, `y`
(uint16), `t` (int64, microseconds after `t_offset`), `p` (uint8, 1 = ON); at the root the int64 scalar `t_offset` (the
time of the first event) and `ms_to_idx` (uint64): entry m is the index of the first event with t >= 1000 m. Other
groups may stand beside them and are left alone. DSEC is the same without the attributes, with a uint32 `t`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from evhands.events.io.base import EventFile, scan_size
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, pixel_column, polarity_column, warn_partial
from evhands.events.io.dialects import TimeUnit, detect_time_unit, to_microseconds
from evhands.events.io.hdf5_kernels import packed_chunk
from evhands.files import hdf5_file
from evhands.types import Events, EventStream, InputError, Size

FORMAT = "evhands"
VERSION = 1
_DSEC_SIZE = (640, 480)
_NAMES = (("x", "xs"), ("y", "ys"), ("t", "ts"), ("p", "ps"))
_DATASET_CHUNK = 1 << 16
_MAX_INDEX_MS = 100_000_000
_INDEX_PIECE = 1 << 20
_WITHOUT_LZF = 0b10
"""Mask of the second filter of a chunk, behind shuffle."""
_LZF_FILTER = 32_000
_FIRST_PLUGIN_FILTER = 256
_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


class EventsWriter:
    """Appends events to an open HDF5 file in our layout; everything else in the file is left alone.

    `append` takes time-ordered events, one chunk after the other; an empty recording needs no append.
    """

    def __init__(self, file: h5py.File | h5py.Group, size: Size, *, compression: str | None = "lzf") -> None:
        file.attrs.update({"format": FORMAT, "version": VERSION, "width": size[0], "height": size[1]})
        group = file.create_group("events")
        kinds = {"x": np.uint16, "y": np.uint16, "t": np.int64, "p": np.uint8}
        self._columns = {
            name: group.create_dataset(
                name, (0,), kind, maxshape=(None,), chunks=(_DATASET_CHUNK,), shuffle=True, compression=compression
            )
            for name, kind in kinds.items()
        }
        self._index = file.create_dataset(
            "ms_to_idx", (0,), np.uint64, maxshape=(None,), chunks=(1024,), shuffle=True, compression=compression
        )
        self._offset = file.create_dataset("t_offset", data=np.int64(0))
        self._packs = compression == "lzf"
        self._tails = {name: np.empty(0, kind) for name, kind in kinds.items()}
        self.written = 0

    def append(self, events: Events) -> None:
        """Write events that are not earlier than those before them."""
        if not len(events):
            return
        if not self.written:
            self._offset[()] = events.t_us[0]
        t = events.t_us - self._offset[()]
        self._append_index(t)
        for name, values in {"x": events.x, "y": events.y, "t": t, "p": events.p.view(np.uint8)}.items():
            self._extend(name, values)
        self.written += len(events)

    def _extend(self, name: str, values: np.ndarray) -> None:
        """Append to a column: whole chunks packed here, the last part of one by the library."""
        column = self._columns[name]
        if not self._packs or name == "p":  # polarities are no runs: the library's filter packs them better
            _extend(column, values)
            return
        tail = self._tails[name]
        values = np.concatenate([tail, values]) if len(tail) else values.astype(tail.dtype, copy=False)
        start = self.written - len(tail)
        column.resize((start + len(values),))
        whole = len(values) - len(values) % _DATASET_CHUNK
        for k in range(0, whole, _DATASET_CHUNK):
            content, packed = packed_chunk(values[k : k + _DATASET_CHUNK])
            column.id.write_direct_chunk((start + k,), content, 0 if packed else _WITHOUT_LZF)
        if whole < len(values):
            column[start + whole :] = values[whole:]
        self._tails[name] = values[whole:].copy()

    def _append_index(self, t: np.ndarray) -> None:
        first_ms, last_ms = len(self._index), int(t[-1]) // 1000
        if last_ms > _MAX_INDEX_MS:
            raise InputError(
                f"The recording spans {last_ms / 3.6e6:.0f} hours. Wanted at most {_MAX_INDEX_MS / 3.6e6:.0f}, the "
                "length an index of milliseconds can hold; look for a jump in its times with `evhands info`."
            )
        for start in range(first_ms, last_ms + 1, _INDEX_PIECE):  # a jump of hours is not held in memory at once
            edges = np.arange(start, min(start + _INDEX_PIECE, last_ms + 1), dtype=np.int64) * 1000
            _extend(self._index, self.written + np.searchsorted(t, edges, side="left"))


def _extend(dataset: h5py.Dataset, values: np.ndarray) -> None:
    if len(values):
        start = len(dataset)
        dataset.resize((start + len(values),))
        dataset[start:] = values


def write_hdf5(path: Path, stream: EventStream) -> None:
    """Write an `EventStream` to a new file at `path` in our layout."""
    with hdf5_file(path) as file:
        writer = EventsWriter(file, stream.size)
        for events in stream:
            writer.append(events)


@dataclass(frozen=True, kw_only=True)
class Hdf5File(EventFile):
    """A recording in our layout or in that of DSEC."""

    time_unit: TimeUnit = "us"

    def raw_chunks(self) -> Iterator[RawChunk]:
        return self._raw_range(0, None)

    def _raw_range(self, first: int, last: int | None) -> Iterator[RawChunk]:
        with _opened(self.path) as file:
            columns = _columns(file, self.path)
            offset = _offset(file)
            count = min(len(column) for column in columns)
            last = count if last is None else min(last, count)
            for start in range(first, last, CHUNK_EVENTS):
                stop = min(start + CHUNK_EVENTS, last)
                try:
                    x, y, t, p = (column[start:stop] for column in columns)
                except _ERRORS as error:
                    warn_partial(self.path, f"damaged at event {start} ({error})", start, start / count)
                    return
                t_us = to_microseconds(t, self.time_unit, self.path) + offset
                yield RawChunk(pixel_column(x), pixel_column(y), t_us, polarity_column(p), stop / count)
            longest = max(len(column) for column in columns)
            if longest > count == last:
                warn_partial(self.path, f"its columns differ in length ({count} to {longest})", count, count / longest)

    def read(self, start_us: int | None = None, end_us: int | None = None) -> Events:
        """All events of [start_us, end_us); the index of milliseconds saves reading what lies before and after."""
        with _opened(self.path) as file:
            index = file.get("ms_to_idx")
            if not isinstance(index, h5py.Dataset) or not len(index):
                return super().read(start_us, end_us)
            offset = _offset(file)
            first, last = 0, None
            if start_us is not None and start_us > offset:
                first = int(index[min((start_us - offset) // 1000, len(index) - 1)])
            if end_us is not None:
                end_ms = max(-((offset - end_us) // 1000), 0)
                last = int(index[end_ms]) if end_ms < len(index) else None
        parts = [chunk.with_size(self.size) for chunk in self._raw_range(first, last)]
        events = Events.concatenate(parts, self.size)
        limits = np.iinfo(np.int64)
        return events.between(limits.min if start_us is None else start_us, limits.max if end_us is None else end_us)


def open_hdf5(
    path: Path, *, size: Size | None = None, time_unit: TimeUnit | None = None, salvage: bool = False
) -> Hdf5File:
    """Open an HDF5 recording; the size comes from its attributes, else 640x480 (DSEC) where that holds every event."""
    with _opened(path) as file:
        columns = _columns(file, path)
        for column in columns:
            _need_filters(column, path)
        ours = file.attrs.get("format") == FORMAT
        if ours and int(file.attrs.get("version", 0)) > VERSION:
            raise InputError(
                f"{path} has version {file.attrs['version']} of the evhands layout. Wanted at most {VERSION}: "
                "it was written by a newer evhands; update this one."
            )
        unit = time_unit or detect_time_unit(_head(columns[2], path))
        named = size or _named_size(file)
    result = Hdf5File(
        path=path,
        size=named or _DSEC_SIZE,
        format="evhands HDF5" if ours else "DSEC HDF5",
        salvage=salvage,
        time_unit=unit,
    )
    if named is not None:
        return result
    needed = scan_size(result.raw_chunks(), path, default=_DSEC_SIZE)
    fits = needed[0] <= _DSEC_SIZE[0] and needed[1] <= _DSEC_SIZE[1]
    return result if fits else Hdf5File(**{**vars(result), "size": needed})


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise InputError(f"{path} is no file. Wanted an HDF5 recording; check the name.")
    try:
        file = h5py.File(path, "r")
    except _ERRORS as error:
        raise InputError(
            f"{path} looks like HDF5 but cannot be opened ({error}). Wanted a complete file: HDF5 keeps its table of "
            "contents apart from the data, so a file cut off cannot be read; copy it again."
        ) from error
    with file:
        yield file


def _columns(file: h5py.File, path: Path) -> list[h5py.Dataset]:
    group = file.get("events")
    found = []
    for names in _NAMES:
        candidates = [group.get(name) for name in names] if isinstance(group, h5py.Group) else []
        found += [item for item in candidates if isinstance(item, h5py.Dataset) and item.ndim == 1][:1]
    if len(found) != len(_NAMES):
        raise InputError(
            f"{path} is HDF5 and holds {', '.join(sorted(file)) or 'nothing'}, but no events. Wanted one-dimensional "
            "datasets events/x, events/y, events/t and events/p (the layout of evhands and of DSEC)."
        )
    return found


def _head(column: h5py.Dataset, path: Path) -> np.ndarray:
    try:
        return column[:1000]
    except _ERRORS as error:
        raise InputError(
            f"{path}: its events cannot be read ({error}). Wanted an undamaged file; copy it again."
        ) from error


def _offset(file: h5py.File) -> int:
    value = file.get("t_offset")
    return int(value[()]) if isinstance(value, h5py.Dataset) and value.shape == () else 0


def _named_size(file: h5py.File) -> Size | None:
    for holder in (file, file["events"]):
        if "width" in holder.attrs and "height" in holder.attrs:
            return int(holder.attrs["width"]), int(holder.attrs["height"])
        resolution = holder.attrs.get("sensor_resolution")
        if resolution is not None and np.size(resolution) == 2:
            height, width = (int(value) for value in resolution)
            return width, height
    return None


def _need_filters(column: h5py.Dataset, path: Path) -> None:
    """Load hdf5plugin if the column is compressed with a filter that h5py does not bring along (DSEC: blosc)."""
    plist = column.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    foreign = [code for code in codes if code >= _FIRST_PLUGIN_FILTER and code != _LZF_FILTER]
    if not foreign:
        return
    try:
        importlib.import_module("hdf5plugin")
    except ImportError as error:
        raise InputError(
            f"{path} is compressed with HDF5 filter {foreign[0]} (blosc or alike, as DSEC is), which plain HDF5 cannot "
            'read. Wanted the package hdf5plugin: install it with `pip install "evhands[dsec]"`.'
        ) from error
