"""Events in text files, one a line: .csv and .txt of many dialects.

Separators are commas, semicolons, blanks or tabs. A line of names says which column is which (`t_us,x,y,p`); without
one it is found from the values (t x y p, x y t p, ...). Times with fractions are seconds, whole ones microseconds,
unless the name gives the unit. Lines that begin with # are comments; one with two numbers joined by `x` or after the
word `size` gives the sensor size, and so does a first line of two whole numbers; else it is (max x + 1, max y + 1).
Ours: a comment with the size, then `t_us,x,y,p`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8, UInt16
from numba import njit

from evhands.events.io.base import EventFile, scan_size
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, pixel_column, polarity_column, warn_partial
from evhands.events.io.dialects import Roles, TimeUnit, detect_roles, detect_time_unit, roles_of, to_microseconds
from evhands.types import EventStream, InputError, Size

_BLOCK_BYTES = 4 << 20
_HEAD_BYTES = 256 << 10
_ROW_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class TextFile(EventFile):
    """Events in a text file."""

    roles: Roles
    time_unit: TimeUnit
    data_start: int

    def raw_chunks(self) -> Iterator[RawChunk]:
        total = max(self.path.stat().st_size, 1)
        done = 0
        parts: list[np.ndarray] = []
        for rows, position in _rows(self.path, self.data_start, 1 + max(self.roles.values())):
            parts.append(rows)
            done += len(rows)
            if sum(map(len, parts)) >= CHUNK_EVENTS:
                yield self._chunk(np.concatenate(parts), position / total)
                parts = []
        if parts:
            yield self._chunk(np.concatenate(parts), 1.0)

    def _chunk(self, rows: np.ndarray, fraction: float) -> RawChunk:
        x, y, t, p = (rows[:, self.roles[role]] for role in "xytp")
        t_us = to_microseconds(t, self.time_unit, self.path)
        return RawChunk(pixel_column(x), pixel_column(y), t_us, polarity_column(p), fraction)


def open_text(
    path: Path, *, size: Size | None = None, time_unit: TimeUnit | None = None, salvage: bool = False
) -> TextFile:
    """Open a text file with events in any of the dialects above."""
    names, named_size, data_start = _header(path)
    roles, named_unit = roles_of(names)
    if names and len(roles) < 4:
        raise InputError(
            f"{path}: its columns are named {', '.join(names)}. Wanted names for x, y, the time (t, t_us, timestamp) "
            "and the polarity (p, polarity)."
        )
    sample = _sample(path, data_start, 1 + max(roles.values(), default=3))
    if not roles:
        roles = detect_roles(sample, path) if len(sample) else Roles(t=0, x=1, y=2, p=3)
    result = TextFile(
        path=path,
        size=size or named_size or (1, 1),
        format="text",
        salvage=salvage,
        roles=roles,
        data_start=data_start,
        time_unit=time_unit or named_unit or detect_time_unit(sample[:, roles["t"]]),
        details={"columns": " ".join(sorted(roles, key=roles.__getitem__))},
    )
    if size or named_size:
        return result
    return TextFile(**{**vars(result), "size": scan_size(result.raw_chunks(), path)})


def _header(path: Path) -> tuple[list[str], Size | None, int]:
    """(column names or none, size or None, position of the first row)."""
    size: Size | None = None
    with open(path, "rb") as file:
        while file.tell() < _HEAD_BYTES:
            position = file.tell()
            line = file.readline(_HEAD_BYTES).decode("utf-8", "replace").strip().removeprefix("\ufeff")
            words = line_words(line)
            if file.tell() == position:
                break
            if line.startswith("#") or not line:
                size = size or size_in(line)
                if len(roles_of(words)[0]) == 4:
                    return words, size, file.tell()
            elif size is None and len(words) == 2 and all(word.isdecimal() for word in words):
                size = int(words[0]), int(words[1])
            elif re.match(r"[-+.\d]", words[0]):
                return [], size, position
            else:
                return words, size, file.tell()
    return [], size, position


def line_words(line: str) -> list[str]:
    """The fields of a line; where commas or semicolons part them, blanks belong to names (`time [s]`)."""
    fields = line.lstrip("# ").rstrip(",;")
    return [word.strip() for word in re.split(r"[,;]" if re.search(r"[,;]", fields) else r"\s+", fields)]


def size_in(comment: str) -> Size | None:
    found = re.search(r"(?:size\D*|\b)(\d{1,5})\s*x\s*(\d{1,5})|size\D*(\d{1,5})\D+(\d{1,5})", comment, re.IGNORECASE)
    pair = [int(text) for text in found.groups() if text] if found else []
    return (pair[0], pair[1]) if len(pair) == 2 and min(pair) > 0 else None


def _sample(path: Path, start: int, columns: int) -> Float[np.ndarray, "n k"]:
    """The first rows; a row cut off by the end of the sample is left out."""
    with open(path, "rb") as file:
        file.seek(start)
        head = file.read(_HEAD_BYTES)
    head = head[: head.rfind(b"\n") + 1] or head + b"\n"
    rows, _, bad = parse_lines(np.frombuffer(head, np.uint8), columns)
    if bad >= 0 and not len(rows):
        line = head[bad:].split(b"\n", 1)[0].decode("utf-8", "replace")[:80]
        raise InputError(
            f"{path} is text, but its first row {line!r} is not an event. Wanted lines of x, y, a time and a polarity "
            "(numbers separated by commas or blanks), with or without a line of names."
        )
    return rows


def _rows(path: Path, start: int, columns: int) -> Iterator[tuple[Float[np.ndarray, "n k"], int]]:
    """Blocks of rows, each with the position behind it; a broken last line is left out with a warning."""
    rest, position, done = b"", start, 0
    total = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK_BYTES):
            data = rest + block
            position += len(block)
            last = position >= total
            whole = data if last and data.endswith(b"\n") else data + b"\n" if last else data[: data.rfind(b"\n") + 1]
            rows, used, bad = parse_lines(np.frombuffer(whole, np.uint8), columns)
            done += len(rows)
            yield rows, position
            if bad >= 0 and last and whole.find(b"\n", bad) == len(whole) - 1 and not data.endswith(b"\n"):
                warn_partial(path, "it is cut off in the middle of a line", done, 1.0)
            elif bad >= 0:
                line = whole[bad:].split(b"\n", 1)[0].decode("utf-8", "replace")[:80]
                raise InputError(
                    f"{path}: after {done} events comes the line {line!r}. Wanted at least {columns} numbers in every "
                    "line; remove or mend it."
                )
            rest = data[used:]


def parse_lines(data: UInt8[np.ndarray, " b"], columns: int) -> tuple[Float[np.ndarray, "n k"], int, int]:
    """(rows, bytes used, where the first bad line begins or -1)."""
    out = np.empty((int(np.count_nonzero(data == 10)), columns))
    count, used, bad = _parse_rows(data, out)
    return out[:count], used, bad


@njit(cache=True, nogil=True)
def _parse_rows(data: UInt8[np.ndarray, " b"], out: Float[np.ndarray, "n k"]) -> tuple[int, int, int]:
    """Read lines of at least k numbers: (rows, bytes used, start of the first bad line or -1). Comments are skipped."""
    size, columns = len(data), out.shape[1]
    i = rows = 0
    while i < size:
        start = i
        column = 0
        while i < size and column < columns:
            byte = data[i]
            if byte == 32 or byte == 9 or byte == 13 or byte == 44 or byte == 59:  # blank, tab, CR, comma, semicolon
                i += 1
                continue
            if byte == 10 or byte == 35:  # end of line, #
                break
            sign, mantissa, digits, scale = 1.0, np.int64(0), 0, 0
            if byte == 45 or byte == 43:
                sign = -1.0 if byte == 45 else 1.0
                i += 1
            after_point = False
            while i < size:
                byte = data[i]
                if 48 <= byte <= 57:
                    if digits < 18:
                        mantissa = mantissa * 10 + (byte - 48)
                        scale -= int(after_point)
                    else:
                        scale += int(not after_point)
                    digits += 1
                elif byte == 46 and not after_point:
                    after_point = True
                else:
                    break
                i += 1
            if digits and i < size and (data[i] == 101 or data[i] == 69):  # e, E
                i += 1
                negative = i < size and data[i] == 45
                i += int(i < size and (data[i] == 45 or data[i] == 43))
                power = 0
                while i < size and 48 <= data[i] <= 57:
                    power = min(power * 10 + (data[i] - 48), 400)
                    i += 1
                scale += -power if negative else power
            ended = i < size and (data[i] <= 32 or data[i] == 44 or data[i] == 59)
            if not digits or not ended:
                return rows, start, start
            value = sign * mantissa
            out[rows, column] = value / 10.0 ** (-scale) if scale < 0 else value * 10.0**scale
            column += 1
        if 0 < column < columns:
            return rows, start, start
        while i < size and data[i] != 10:
            i += 1
        i += 1
        rows += int(column == columns)
    return rows, size, -1


def write_text(path: Path, stream: EventStream) -> None:
    """Write an `EventStream` as a comment with the size, the line `t_us,x,y,p`, and one line per event."""
    with open(path, "wb") as file:
        file.write(f"# events, size {stream.size[0]}x{stream.size[1]}\nt_us,x,y,p\n".encode())
        for events in stream:
            buffer = np.empty(len(events) * _ROW_BYTES, np.uint8)
            used = _format_rows(events.t_us, events.x, events.y, events.p, buffer)
            file.write(buffer[:used].data)


@njit(cache=True, nogil=True)
def _put(buffer: UInt8[np.ndarray, " b"], position: int, value: int, end: int) -> int:
    """Write a whole number and the byte `end`; the position behind them."""
    if value < 0:
        buffer[position] = 45
        position += 1
        value = -value
    digits = 1
    power = 10
    while digits < 19 and value >= power:
        digits += 1
        power *= 10
    for k in range(digits - 1, -1, -1):
        buffer[position + k] = 48 + value % 10
        value //= 10
    buffer[position + digits] = end
    return position + digits + 1


@njit(cache=True, nogil=True)
def _format_rows(
    t_us: Int64[np.ndarray, " n"],
    x: UInt16[np.ndarray, " n"],
    y: UInt16[np.ndarray, " n"],
    p: Bool[np.ndarray, " n"],
    buffer: UInt8[np.ndarray, " b"],
) -> int:
    position = 0
    for i in range(len(t_us)):
        position = _put(buffer, position, int(t_us[i]), 44)
        position = _put(buffer, position, int(x[i]), 44)
        position = _put(buffer, position, int(y[i]), 44)
        position = _put(buffer, position, int(p[i]), 10)
    return position
