"""Events in .npz archives of NumPy, read and written column by column in bounded memory.

Ours: `x`, `y` (uint16), `t_us` (int64), `p` (bool), `size` (width, height). Also understood: `t`, `ts`, `timestamp(s)`,
`time` for the times (seconds where they have fractions, else microseconds), `xs`, `ys`, `ps`, `pol`, `polarity`, `on`;
or one array (`events`, `arr_0`, or the only one there): N x 4 with the columns in an order found from the values, or
structured with fields of those names. The size: `size`, `resolution` or `sensor_size` (width, height), or `width` and
`height`, else (max x + 1, max y + 1).
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from evhands.events.io.base import EventFile, scan_size
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, pixel_column, polarity_column, warn_partial
from evhands.events.io.dialects import Roles, TimeUnit, detect_roles, detect_time_unit, roles_of, to_microseconds
from evhands.types import EventStream, InputError, Size

_DAMAGE = (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError)
_SAMPLE = 10_000
_SIZE_NAMES = ("size", "resolution", "sensor_size")


@dataclass(frozen=True)
class _Column:
    """Where one column lies: an array of the archive, and there a field (structured) or a column number (N x 4)."""

    member: str
    part: int | str | None = None

    def blocks(self, archive: zipfile.ZipFile, rows: int) -> Iterator[np.ndarray]:
        """The column, `rows` values at a time."""
        with archive.open(self.member) as file:
            shape, fortran, dtype = _array_header(file)
            left, width = shape[0], shape[1] if len(shape) == 2 else 1
            if fortran and isinstance(self.part, int):
                file.seek(self.part * left * dtype.itemsize, 1)
                width = 1
            while left:
                count = min(rows, left)
                data = file.read(count * width * dtype.itemsize)
                if len(data) < count * width * dtype.itemsize:
                    raise EOFError(f"{self.member} ends early")
                values = np.frombuffer(data, dtype)
                if isinstance(self.part, str):
                    values = values[self.part]
                elif width > 1:
                    values = values.reshape(count, width)[:, self.part]
                left -= count
                yield values


@dataclass(frozen=True, kw_only=True)
class NpzFile(EventFile):
    """Events in an .npz archive."""

    columns: dict[str, _Column]
    count: int
    time_unit: TimeUnit

    def raw_chunks(self) -> Iterator[RawChunk]:
        done = 0
        try:
            with zipfile.ZipFile(self.path) as archive:
                readers = [self.columns[role].blocks(archive, CHUNK_EVENTS) for role in "xytp"]
                for x, y, t, p in zip(*readers, strict=True):
                    t_us = to_microseconds(t, self.time_unit, self.path)
                    done += len(t)
                    yield RawChunk(pixel_column(x), pixel_column(y), t_us, polarity_column(p), done / self.count)
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            warn_partial(self.path, f"it is damaged ({error})", done, done / self.count)


def open_npz(
    path: Path, *, size: Size | None = None, time_unit: TimeUnit | None = None, salvage: bool = False
) -> NpzFile:
    """Open an .npz archive with events in any of the dialects above."""
    try:
        with zipfile.ZipFile(path) as archive:
            columns, count, named_unit = _find_columns(archive, path)
            times = next(columns["t"].blocks(archive, _SAMPLE), np.empty(0, np.int64))
            named = size or _named_size(archive)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} looks like an .npz archive but cannot be read ({error}). Wanted a whole archive: its table of "
            "contents stands at its end, so a file cut off cannot be read; copy it again."
        ) from error
    result = NpzFile(
        path=path,
        size=named or (1, 1),
        format="npz",
        salvage=salvage,
        columns=columns,
        count=count,
        time_unit=time_unit or named_unit or detect_time_unit(times),
    )
    if named is not None:
        return result
    return NpzFile(**{**vars(result), "size": scan_size(result.raw_chunks(), path)})


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    return shape, fortran and len(shape) > 1, dtype


def _find_columns(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, _Column], int, TimeUnit | None]:
    """The four columns, their length, and the unit of time where a name gives it."""
    members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
    names = list(members)
    roles, unit = roles_of(names)
    if len(roles) == 4:
        columns = {role: _Column(members[names[i]]) for role, i in roles.items()}
    else:
        table = next((n for n in ("events", "arr_0") if n in members), names[0] if len(names) == 1 else None)
        if table is None:
            raise InputError(
                f"{path} holds the arrays {', '.join(names) or 'none'}. Wanted x, y, t_us (or t, ts) and p (or pol), "
                "or one array `events` of N x 4; rename or save them so."
            )
        columns, unit = _table_columns(archive, members[table], path)
    lengths = set()
    for column in columns.values():
        with archive.open(column.member) as file:
            shape, _, _ = _array_header(file)
        lengths.add(shape[0] if len(shape) == 1 + isinstance(column.part, int) else -1)
    if len(lengths) > 1 or lengths == {-1}:
        raise InputError(f"{path}: its columns differ in length or shape. Wanted x, y, t and p of one length each.")
    return columns, lengths.pop(), unit


def _table_columns(archive: zipfile.ZipFile, member: str, path: Path) -> tuple[dict[str, _Column], TimeUnit | None]:
    with archive.open(member) as file:
        shape, _, dtype = _array_header(file)
    if dtype.names:
        roles, unit = roles_of(dtype.names)
        if len(roles) == 4:
            return {role: _Column(member, dtype.names[i]) for role, i in roles.items()}, unit
    if dtype.names or len(shape) != 2 or shape[1] < 4:
        raise InputError(
            f"{path}: its array {member.removesuffix('.npy')} has shape {shape} and fields {dtype.names or 'none'}. "
            "Wanted N x 4 (x, y, t, p in any order), or fields of those names."
        )
    readers = [_Column(member, c).blocks(archive, _SAMPLE) for c in range(4)]
    sample = np.array([next(reader, np.empty(0)) for reader in readers], np.float64).T
    roles = detect_roles(sample, path) if len(sample) else Roles(x=0, y=1, t=2, p=3)
    return {role: _Column(member, c) for role, c in roles.items()}, None


def _named_size(archive: zipfile.ZipFile) -> Size | None:
    def numbers(name: str) -> list[int]:
        if f"{name}.npy" not in archive.namelist():
            return []
        with archive.open(f"{name}.npy") as file:
            return [int(value) for value in np.atleast_1d(np.lib.format.read_array(file, allow_pickle=False)).ravel()]

    candidates = [numbers(name) for name in _SIZE_NAMES] + [numbers("width") + numbers("height")]
    return next(((pair[0], pair[1]) for pair in candidates if len(pair) == 2 and min(pair) > 0), None)


def write_npz(path: Path, stream: EventStream) -> None:
    """Write an `EventStream` as x, y, t_us, p and size; the columns wait in temporary files beside `path`."""
    kinds = {"x": np.uint16, "y": np.uint16, "t_us": np.int64, "p": np.bool_}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".evhands-") as folder:
        files = {name: (Path(folder) / name).open("w+b") for name in kinds}
        try:
            count = 0
            for events in stream:
                count += len(events)
                for name, file in files.items():
                    file.write(np.ascontiguousarray(getattr(events, name)).data)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for name, file in files.items():
                    file.seek(0)
                    _write_member(archive, name, (count,), np.dtype(kinds[name]), file)
                with archive.open("size.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(stream.size, np.int64))
        finally:
            for file in files.values():
                file.close()


def _write_member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], data: IO[bytes]
) -> None:
    header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(data, member, 1 << 20)
