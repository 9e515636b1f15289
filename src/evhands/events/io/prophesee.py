"""Prophesee recordings: .raw with EVT 2.0 or EVT 3.0 words, and .dat with 2D (CD) events.

All begin with lines of text, each starting with `%`. Dialects of .raw: `% evt 3.0` or `% format
EVT3;width=..;height=..`, the size in the latter or as `% geometry 1280x720`, else known from the name of the sensor
plugin, else found by reading the file. A .dat gives `% Width`, `% Height`, and two bytes after the text: event type and
event size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from evhands.events.io import prophesee_kernels as kernels
from evhands.events.io.base import EventFile, Triggers, scan_size
from evhands.events.io.columns import CHUNK_EVENTS, RawChunk, warn_partial
from evhands.types import InputError, Size

Encoding = Literal["EVT2", "EVT3", "DAT"]

_DECODERS: dict[Encoding, tuple[Callable[..., tuple[int, int, int]], tuple[int, ...], int, int]] = {
    "EVT2": (kernels.decode_evt2, kernels.EVT2_STATE, 4, 4),
    "EVT3": (kernels.decode_evt3, kernels.EVT3_STATE, 2, 2),
    "DAT": (kernels.decode_dat, kernels.DAT_STATE, 4, 8),
}
"""Kernel, its first state, bytes per word, bytes per record (what a truncated file must be a multiple of)."""

_SENSORS: tuple[Size, ...] = ((320, 320), (640, 480), (1280, 720))
_PLUGINS = {
    "genx320": (320, 320),
    "gen3": (640, 480),
    "gen4": (1280, 720),
    "imx636": (1280, 720),
    "imx646": (1280, 720),
}
_CD_TYPES = (0x00, 0x0C)
_MAX_HEADER = 1 << 20
_BLOCK_BYTES = 4 << 20
_MAX_TRIGGERS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PropheseeFile(EventFile):
    """A .raw or .dat recording of a Prophesee sensor."""

    encoding: Encoding
    data_start: int

    def raw_chunks(self) -> Iterator[RawChunk]:
        decode, first_state, _, _ = _DECODERS[self.encoding]
        state, triggers = np.array(first_state, np.int64), np.empty((_MAX_TRIGGERS, 3), np.int64)
        columns, filled, total, fraction = _columns(), 0, 0, 0.0
        for words, fraction in self._blocks():
            used = 0
            while used < len(words):
                step, events, _ = decode(words[used:], state, *(column[filled:] for column in columns), triggers)
                used, filled = used + step, filled + events
                if len(columns[0]) - filled < kernels.ROOM:
                    yield _first(filled, columns, fraction)
                    columns, total, filled = _columns(), total + filled, 0
        if filled:
            yield _first(filled, columns, fraction)
        rest = self._data_bytes() % _DECODERS[self.encoding][3]
        if rest:
            warn_partial(
                self.path, f"it ends in the middle of a word ({rest} bytes too many)", total + filled, fraction
            )

    def triggers(self) -> Triggers:
        decode, first_state, _, _ = _DECODERS[self.encoding]
        state, rows = np.array(first_state, np.int64), np.empty((_MAX_TRIGGERS, 3), np.int64)
        scratch, parts = _columns(), [np.empty((0, 3), np.int64)]
        for words, _ in self._blocks():
            used = 0
            while used < len(words):
                step, _, found = decode(words[used:], state, *scratch, rows)
                used += step
                parts.append(rows[:found].copy())
        table = np.concatenate(parts)
        return Triggers(table[:, 0].copy(), table[:, 1].copy(), table[:, 2] != 0)

    def _data_bytes(self) -> int:
        return self.path.stat().st_size - self.data_start

    def _blocks(self) -> Iterator[tuple[np.ndarray, float]]:
        """Whole records as words, a few megabytes at a time, with the fraction of the file read."""
        _, _, word_bytes, record_bytes = _DECODERS[self.encoding]
        left = self._data_bytes() // record_bytes * record_bytes
        whole = max(left, 1)
        with open(self.path, "rb") as file:
            file.seek(self.data_start)
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                yield np.frombuffer(block, f"<u{word_bytes}"), 1 - left / whole


def open_prophesee(path: Path, *, size: Size | None = None, salvage: bool = False) -> PropheseeFile:
    """Open a .raw (EVT 2.0, EVT 3.0) or .dat recording by what its header says."""
    lines, data_start = _header(path)
    encoding = _encoding(lines, path)
    if encoding == "DAT":
        data_start = _dat_start(path, data_start)
    name = {"EVT2": "Prophesee RAW EVT 2.0", "EVT3": "Prophesee RAW EVT 3.0", "DAT": "Prophesee DAT"}[encoding]
    known = size or _size(lines)
    result = PropheseeFile(
        path=path, size=known or _SENSORS[-1], format=name, salvage=salvage, encoding=encoding, data_start=data_start
    )
    if known is not None:
        return result
    needed = scan_size(result.raw_chunks(), path, default=_SENSORS[-1])
    fitting = (s for s in _SENSORS if s[0] >= needed[0] and s[1] >= needed[1])
    return PropheseeFile(**{**vars(result), "size": next(fitting, needed)})


def _first(n: int, columns: tuple[np.ndarray, ...], read_fraction: float) -> RawChunk:
    x, y, t_us, p = (column[:n] for column in columns)
    return RawChunk(x, y, t_us, p, read_fraction)


def _header(path: Path) -> tuple[list[str], int]:
    """The lines that begin with %, without it, and the position behind them."""
    lines: list[str] = []
    with open(path, "rb") as file:
        while file.tell() < _MAX_HEADER:
            position = file.tell()
            line = file.readline(4096)
            if not line.startswith(b"%") or not line.endswith(b"\n"):
                return lines, position
            lines.append(line[1:].decode("latin-1").strip())
            if lines[-1].lower() == "end":
                return lines, file.tell()
    raise InputError(
        f"{path} begins like a Prophesee recording, but its header has no end within {_MAX_HEADER >> 20} MB. "
        "Wanted a .raw or .dat file; copy it again."
    )


def _encoding(lines: list[str], path: Path) -> Encoding:
    text = "\n".join(lines)
    found = re.search(r"^(?:evt\s+|format\s+EVT)(\d)\.?(\d?)", text, re.IGNORECASE | re.MULTILINE)
    if found is None and re.search(r"^(data file|version|width|height|date)", text, re.IGNORECASE | re.MULTILINE):
        return "DAT"
    version = f"{found[1]}.{found[2] or 0}" if found else "unknown"
    if version not in ("2.0", "3.0"):
        raise InputError(
            f"{path} is a Prophesee recording in the encoding EVT {version}. Wanted EVT 2.0, EVT 3.0 or .dat; convert "
            "it with the tools of the camera first (metavision_file_to_dat)."
        )
    return "EVT2" if version == "2.0" else "EVT3"


def _dat_start(path: Path, position: int) -> int:
    with open(path, "rb") as file:
        file.seek(position)
        kind = file.read(2)
    if len(kind) < 2 or kind[0] not in _CD_TYPES or kind[1] != 8:
        raise InputError(
            f"{path} is a .dat file whose events are of type {kind.hex() or 'nothing'}. Wanted 2D (CD) events of 8 "
            "bytes (types 00 and 0c); other kinds, such as triggers alone, hold no picture."
        )
    return position + 2


def _size(lines: list[str]) -> Size | None:
    """The sensor size a header names, directly or by the name of its sensor plugin; None if it does not."""
    text = "\n".join(lines).lower()
    geometry = re.search(r"^geometry\s+(\d+)\s*x\s*(\d+)", text, re.MULTILINE)
    width, height = (re.search(rf"(?:^|[;\s]){name}[=\s]+(\d+)", text, re.MULTILINE) for name in ("width", "height"))
    if geometry:
        named = int(geometry[1]), int(geometry[2])
    elif width and height:
        named = int(width[1]), int(height[1])
    else:
        return next((size for plugin, size in _PLUGINS.items() if plugin in text), None)
    return named if 0 < named[0] <= 1 << 14 and 0 < named[1] <= 1 << 14 else None


def _columns() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n = CHUNK_EVENTS + kernels.ROOM
    return np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.int64), np.empty(n, np.bool_)
