"""Columns of events as they lie on disk, and the warning for what could not be read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt16

from evhands.types import Events, Size

CHUNK_EVENTS = 1 << 20
"""Events per chunk: about 13 MB of columns."""

OUTSIDE_PIXEL = 65_535
"""What a reader stores for a coordinate that no uint16 pixel can hold: outside every sensor."""


class RecordingWarning(UserWarning):
    """A recording could be read only in part, or had to be mended: the message says how much."""


class PartialRecordingWarning(RecordingWarning):
    """Only a part of a recording could be read."""


@dataclass(frozen=True)
class RawChunk:
    """Events as they lie in the file: perhaps not in time order, perhaps outside the sensor.

    `read_fraction` is how much of the file has been read at the end of this chunk, 0 to 1.
    """

    x: UInt16[np.ndarray, " n"]
    y: UInt16[np.ndarray, " n"]
    t_us: Int64[np.ndarray, " n"]
    p: Bool[np.ndarray, " n"]
    read_fraction: float

    def __len__(self) -> int:
        return len(self.t_us)

    def with_size(self, size: Size) -> Events:
        return Events(self.x, self.y, self.t_us, self.p, size)


def pixel_column(values: Shaped[np.ndarray, " n"]) -> UInt16[np.ndarray, " n"]:
    """A coordinate column as uint16; what does not fit becomes `OUTSIDE_PIXEL` instead of wrapping around."""
    if values.dtype == np.uint16:
        return np.ascontiguousarray(values)
    fits = (values >= 0) & (values < OUTSIDE_PIXEL)
    if fits.all():
        return values.astype(np.uint16)
    return np.where(fits, values, OUTSIDE_PIXEL).astype(np.uint16)


def polarity_column(values: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """A polarity column as bool: positive = ON, so that 1/0, 1/-1 and True/False all mean the same."""
    return values > 0


def warn_partial(path: Path, what: str, read_events: int, read_fraction: float) -> None:
    """Warn that only a part of a recording could be read."""
    warnings.warn(
        f"{path}: {what}. Read {read_events} events, from the first {100 * read_fraction:.1f} % of the file; "
        "the rest is left out.",
        PartialRecordingWarning,
        stacklevel=3,
    )
