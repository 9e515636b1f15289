"""What is wrong with the events of a recording, told from one pass over the file as it lies on disk."""

from __future__ import annotations

import numpy as np

from evhands.events.io import EventFile
from evhands.events.io.order import TOLERANCE_US
from evhands.events.io.summary import Summary, summarise
from evhands.examination.findings import Finding
from evhands.examination.placing import Placed

LONG_GAP_US = 1_000_000
"""No event camera sees nothing, not even noise, for so long."""
_MOVED_PX = 8.0


def examine_events(file: EventFile) -> tuple[Summary, list[Finding]]:
    """The figures of an event file, and what is wrong with it."""
    summary = summarise(file)
    found = [Finding("truncated", text) for text in summary.warnings]
    if not summary.events:
        found.append(Finding("no events", f"{file.path} holds no events."))
    if summary.backward_largest_us > TOLERANCE_US:
        found.append(
            Finding(
                "time order",
                f"{file.path}: times run backwards {summary.backward_count} times, by up to "
                f"{summary.backward_largest_us * 1e-6:.3f} s.",
            )
        )
    if summary.outside_events:
        width, height = file.size
        text = f"{file.path}: {summary.outside_events} events lie outside the {width}x{height} sensor."
        found.append(Finding("outside", text))
    for start, length in summary.gaps:
        if length >= LONG_GAP_US:
            text = f"{file.path}: no event for {length * 1e-6:.2f} s after {start} us: a pause, or a jump of the clock."
            found.append(Finding("gap", text))
    return summary, found


def gaps_in_motion(summary: Summary, placed: Placed) -> list[Finding]:
    """Pauses of the events in which the truth moves."""
    found = []
    pixels = placed.pixels(placed.joints_m)
    for start, length in summary.gaps:
        rows = placed.rows_between(start, start + length)
        if length >= LONG_GAP_US or len(rows) < 2:
            continue
        moved = float(np.linalg.norm(np.diff(pixels[rows], axis=0), axis=-1).mean(-1).sum())
        if moved > _MOVED_PX:
            text = f"no event for {length * 1e-3:.0f} ms after {start} us, while the hand moves by {moved:.0f} pixels."
            found.append(Finding("gap", text))
    return found
