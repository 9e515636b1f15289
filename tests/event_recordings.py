"""Recordings for the tests of event files: streams in memory, and encoders of the Prophesee formats, word by word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evhands.types import Events, InputError, Size

SIZE: Size = (64, 48)
COLUMNS = ("x", "y", "t_us", "p")


class Replay:
    """Events in memory as a stream, in chunks of any length."""

    def __init__(self, events: Events, chunk: int = 1 << 20) -> None:
        self.events, self.chunk, self.size = events, chunk, events.size

    def __iter__(self):
        return (self.events[i : i + self.chunk] for i in range(0, len(self.events), self.chunk))


def some_events(n: int = 3000, seed: int = 0, size: Size = SIZE, span_us: int = 1_000_000, start_us: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        rng.integers(0, size[0], n).astype(np.uint16),
        rng.integers(0, size[1], n).astype(np.uint16),
        start_us + np.sort(rng.integers(0, span_us, n)),
        rng.random(n) < 0.5,
        size,
    )


def same(a: Events, b: Events) -> bool:
    return len(a) == len(b) and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in COLUMNS)


@contextmanager
def input_error_at_worst(path: Path) -> Iterator[None]:
    """What damage may lead to: an `InputError` that names the file, or nothing."""
    try:
        yield
    except InputError as error:
        if str(path) not in str(error):
            raise AssertionError("the message does not name the file") from error


def evt3(events: Events, triggers: list[tuple[int, int, int]] | None = None, *, vectors: bool = True) -> bytes:
    """EVT 3.0 words; neighbours of one row, time and polarity become vectors; triggers are (time, id, edge)."""
    words: list[int] = []
    now = None
    rows = [(int(t), 1, i) for i, t in enumerate(events.t_us)] + [
        (t, 0, k) for k, (t, _, _) in enumerate(triggers or [])
    ]
    rows.sort(key=lambda row: (row[0], row[2] if row[1] else -1))
    i = 0
    while i < len(rows):
        t, is_event, k = rows[i]
        if now is None or now >> 12 != t >> 12:
            # The camera repeats TIME_HIGH at least once a wrap; so does a faithful recording.
            first = t >> 12 if now is None else (now >> 12) + 1
            words += [0x8000 | (high & 0xFFF) for high in range(first, (t >> 12) + 1)]
        if now != t:
            words.append(0x6000 | (t & 0xFFF))
        now = t
        if not is_event:
            _, number, edge = (triggers or [])[k]
            words.append(0xA000 | number << 8 | edge)
            i += 1
            continue
        x, y, p = int(events.x[k]), int(events.y[k]), int(events.p[k])
        words.append(0x0000 | y)
        mask, j = 1, i + 1
        while vectors and j < len(rows) and rows[j][:2] == (t, 1) and _follows(events, k, rows[j][2], mask):
            mask |= 1 << int(events.x[rows[j][2]]) - x
            j += 1
        if j == i + 1:
            words.append(0x2000 | p << 11 | x)
        elif mask < 1 << 8:
            words += [0x3000 | p << 11 | x, 0x5000 | mask]
        else:
            words += [0x3000 | p << 11 | x, 0x4000 | mask]
        i = j
    return np.array(words, "<u2").tobytes()


def _follows(events: Events, k: int, j: int, mask: int) -> bool:
    step = int(events.x[j]) - int(events.x[k])
    return bool(events.y[j] == events.y[k] and events.p[j] == events.p[k] and mask.bit_length() <= step < 12)


def evt2(events: Events, triggers: list[tuple[int, int, int]] | None = None) -> bytes:
    """EVT 2.0 words; triggers (time, id, edge) come after the events, which no reader minds."""
    words: list[int] = []
    high = -1

    def at(t: int) -> int:
        nonlocal high
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high & 0xFFFFFFF)
        return (t & 0x3F) << 22

    for x, y, t, p in zip(*(getattr(events, c).tolist() for c in COLUMNS), strict=True):
        low = at(t)
        words.append(int(p) << 28 | low | x << 11 | y)
    for t, number, edge in triggers or []:
        low = at(t)
        words.append(0xA << 28 | low | number << 8 | edge)
    return np.array(words, "<u4").tobytes()


def dat(events: Events) -> bytes:
    """DAT records with their two bytes of type and size before them."""
    words = np.empty((len(events), 2), "<u4")
    words[:, 0] = events.t_us & 0xFFFFFFFF
    words[:, 1] = events.x.astype(np.uint32) | events.y.astype(np.uint32) << 14 | events.p.astype(np.uint32) << 28
    return b"\x0c\x08" + words.tobytes()


def header(kind: str, size: Size | None = SIZE) -> bytes:
    """The header lines of a recording of one kind: EVT2, EVT3 or DAT."""
    if kind == "DAT":
        return f"% Data file containing CD events.\n% Version 2\n% Height {size[1]}\n% Width {size[0]}\n".encode()
    geometry = f"% geometry {size[0]}x{size[1]}\n" if size else ""
    return f"% evt {kind[-1]}.0\n{geometry}% end\n".encode()
