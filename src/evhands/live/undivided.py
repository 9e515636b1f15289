"""What a signal must not divide: a window goes to all sinks or to none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_inside = _asked = False


@contextmanager
def undivided() -> Iterator[None]:
    """An interruption asked for inside happens at its end. Of the main thread; not within itself."""
    global _inside, _asked
    _inside = True
    try:
        yield
    finally:
        _inside = False
        if _asked:
            _asked = False
            raise KeyboardInterrupt


def interrupt() -> None:
    """KeyboardInterrupt, now or at the end of what must not be divided; for signal handlers."""
    global _asked
    if not _inside:
        raise KeyboardInterrupt
    _asked = True
