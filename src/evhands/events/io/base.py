"""What every event file has in common: raw chunks as they lie on disk, and time-ordered events made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from evhands.events.io.columns import OUTSIDE_PIXEL, RawChunk
from evhands.events.io.order import in_order
from evhands.types import Events, InputError, Size


@dataclass(frozen=True)
class Frame:
    """One intensity image of a hybrid camera (APS): height x width x channels (1 grey, 3 BGR, 4 BGRA).

    `t_us` is the time the file gives the frame; iniVation cameras give the middle of the exposure.
    """

    t_us: int
    image: UInt8[np.ndarray, "h w c"]
    exposure_us: int = 0


@dataclass(frozen=True)
class Triggers:
    """External-trigger and special signals: times, a number each (Prophesee: channel id; aedat4: type), and the edge.

    `rising` is True for rising edges, which aedat4 names in the type (1 and 4 rising, 2 and 5 falling; see
    `aedat4.py`).
    """

    t_us: Int64[np.ndarray, " n"]
    kind: Int64[np.ndarray, " n"]
    rising: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.t_us)

    @staticmethod
    def concatenate(parts: list[Triggers]) -> Triggers:
        empty = Triggers(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))
        columns = zip(*((part.t_us, part.kind, part.rising) for part in [empty, *parts]), strict=True)
        return Triggers(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, kw_only=True)
class EventFile(ABC):
    """An event recording on disk: an `EventStream` that can be iterated again and again.

    Iterating yields `Events` in time order, about a million at a time, with the file's own absolute times, and needs
    memory for a few chunks only. Times that run backwards by up to 10 ms are sorted (with a
    `RecordingWarning`); a longer jump back, or a coordinate outside the sensor, raises `InputError` after everything
    before it has been yielded. With `salvage` both become warnings: reading ends at the jump, events outside are
    dropped. A recording that is cut off yields what is whole, then warns and says how much that was. A recording
    without events yields nothing.
    """

    path: Path
    size: Size
    format: str
    salvage: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def raw_chunks(self) -> Iterator[RawChunk]:
        """The events as they lie in the file, unsorted and unchecked, in chunks of about `CHUNK_EVENTS`."""

    def chunks(self) -> Iterator[tuple[Events, float]]:
        """Time-ordered events with the fraction of the file read so far (for progress bars)."""
        return in_order(self.raw_chunks(), self.size, self.path, salvage=self.salvage)

    def __iter__(self) -> Iterator[Events]:
        return (events for events, _ in self.chunks())

    def read(self, start_us: int | None = None, end_us: int | None = None) -> Events:
        """All events of [start_us, end_us) in memory at once; None = from the start, to the end."""
        parts = []
        for events in self:
            if end_us is not None and len(events) and events.t_us[0] >= end_us:
                break
            first = 0 if start_us is None else int(np.searchsorted(events.t_us, start_us))
            last = len(events) if end_us is None else int(np.searchsorted(events.t_us, end_us))
            if last > first:
                parts.append(events[first:last])
        return Events.concatenate(parts, self.size)

    @property
    def start_us(self) -> int | None:
        """The time of the first event (reads one chunk); None for a recording without events."""
        for events in self:
            if len(events):
                return int(events.t_us[0])
        return None

    def frames(self) -> Iterator[Frame]:
        """The intensity images of the recording, read one at a time; none in most formats."""
        return iter(())

    def triggers(self) -> Triggers:
        """All trigger signals of the recording; none in most formats."""
        return Triggers.concatenate([])


def scan_size(chunks: Iterator[RawChunk], path: Path, default: Size | None = None) -> Size:
    """The smallest sensor that holds every event: (max x + 1, max y + 1), found by reading the whole file.

    With no events it is `default`, or an `InputError` where there is none.
    """
    width = height = 0
    for chunk in chunks:
        if len(chunk):
            width = max(width, int(chunk.x.max(where=chunk.x != OUTSIDE_PIXEL, initial=0)) + 1)
            height = max(height, int(chunk.y.max(where=chunk.y != OUTSIDE_PIXEL, initial=0)) + 1)
    if not width and default is not None:
        return default
    if not width:
        raise InputError(
            f"{path} holds no events and does not say how large its sensor is. Wanted a recording with events, "
            "or give the sensor size (width and height in pixels)."
        )
    return width, height
