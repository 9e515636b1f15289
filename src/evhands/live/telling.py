"""What a live track tells on the terminal, and how it is ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from evhands.live.loop import LiveReport
from evhands.live.undivided import at_the_end
from evhands.track_files import file_names
from evhands.tracking import TrackResult
from evhands.types import EventWindow


@contextmanager
def ending_well() -> Iterator[None]:
    """SIGTERM ends a track as Ctrl-C does, and a second of either does not stop the files from being written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt() -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    def end(number: int, frame: object) -> None:
        at_the_end(interrupt)

    try:
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StatusLine:
    """A sink: one line on the terminal, four times a second. A context manager."""

    def __init__(self, told: LiveReport) -> None:
        self._told = told
        self._console = Console(stderr=True)
        self._status = Live("", console=self._console, auto_refresh=False, transient=True)
        self._next_s, self._windows, self._last_s = 0.0, 0, time.monotonic()

    def __enter__(self) -> StatusLine:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._status.stop()

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        now_s = time.monotonic()
        if not self._console.is_terminal or now_s < self._next_s:
            return
        told = self._told
        rate = (told.windows - self._windows) / max(now_s - self._last_s, 1e-9)
        self._next_s, self._windows, self._last_s = now_s + 0.25, told.windows, now_s
        seen = ", ".join(f"{hand.status} {hand.confidence:.2f}" for hand in hands if hand.tracked) or "lost"
        millions = len(window.events) / max(window.end_us - window.start_us, 1)
        self._status.update(
            f"{told.windows:>8} windows  {rate:5.0f}/s  {seen:<14}  {millions:5.2f} M events/s  latency p50 "
            f"{1000 * told.latency.at(0.5):.1f} ms p99 {1000 * told.latency.at(0.99):.1f} ms  dropped {told.dropped}",
            refresh=True,
        )


def report_live(told: LiveReport, out: Path | None, video: bool) -> str:
    """The figures of a live track, for a terminal."""
    facts = told.told()
    latency = ", ".join(f"{name} {value:.1f}" for name, value in facts["latency_ms"].items())
    lines = [
        ("source", f"{told.events:,} events in {told.seconds:.1f} s"
                   + (" (ended by hand)" if told.interrupted else "")),
        ("windows", f"{told.windows}, {told.dropped} dropped, {told.windows / max(told.seconds, 1e-9):.0f} a second"),
        ("hand found", f"{100 * facts['tracked_share']:.1f} % of them ({100 * facts['holding_share']:.1f} % kept while"
                       " still)"),
        ("confidence", f"{facts['mean_confidence']:.2f} on average"),
        ("latency", f"{latency} ms from the last event of a window to its pose"),
        ("processor", f"{100 * facts['processor_share']:.0f} % of a core"),
    ]  # fmt: skip
    for name, count in (("late", told.late), ("lost", told.lost), ("left out", told.thinned)):
        if count:
            lines.append((name, f"{count:,} events"))
    if out is not None:
        lines.append(("files", "  ".join(str(out / name) for name in file_names(video))))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)
