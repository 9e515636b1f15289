"""Where the time of a step goes: parts of it name themselves, and whoever wants to know listens.

Costs a microsecond a part where nobody listens. Parts may not lie within each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

Part = Literal["slicing", "detector", "representation", "network", "hand", "smoothing"]
PARTS: tuple[Part, ...] = ("slicing", "detector", "representation", "network", "hand", "smoothing")
_listener: dict[str, float] | None = None


class part:
    """`with part("network"):` adds what happens inside to the listener's seconds."""

    __slots__ = ("name", "start")

    def __init__(self, name: Part) -> None:
        self.name = name

    def __enter__(self) -> None:
        if _listener is not None:
            self.start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _listener is not None:
            _listener[self.name] += time.perf_counter() - self.start


@contextmanager
def listening() -> Iterator[dict[str, float]]:
    """Seconds of every part inside, added up as they pass; of this process, one listener at a time."""
    global _listener
    _listener = dict.fromkeys(PARTS, 0.0)
    try:
        yield _listener
    finally:
        _listener = None


@contextmanager
def unheard() -> Iterator[None]:
    """What passes inside is not added to the listener's seconds."""
    global _listener
    before, _listener = _listener, None
    try:
        yield
    finally:
        _listener = before
