"""What a signal must not divide: a window goes to all sinks or to none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_inside = False
_asked: Callable[[], None] | None = None


@contextmanager
def undivided() -> Iterator[None]:
    """What is asked for inside, by `at_the_end`, happens at its end. Of the main thread; not within itself."""
    global _inside, _asked
    _inside = True
    try:
        yield
    finally:
        _inside, asked, _asked = False, _asked, None
        if asked is not None:
            asked()


def at_the_end(interrupt: Callable[[], None]) -> None:
    """Interrupt at the end of what must not be divided, for signal handlers; now, where nothing must not, or where it
    was asked for already: a sink may be stuck."""
    global _asked
    if _inside and _asked is None:
        _asked = interrupt
    else:
        interrupt()
