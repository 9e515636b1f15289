"""`evhands info FILE`: what is in an event file."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evhands.events.io import open_events
from evhands.events.io.dialects import TimeUnit
from evhands.events.io.order import TOLERANCE_US
from evhands.events.io.summary import GAP_US, PEAK_US, Summary, summarise
from evhands.types import Size


def info(
    file: Path,
    *,
    json: bool = False,
    size: Size | None = None,
    time_unit: TimeUnit | None = None,
    topic: str | None = None,
) -> Summary:
    """Print what is in an event file: sensor, duration, counts, rates, gaps, faults.

    The file is read once from end to end as it is, sound or not.

    Args:
        file: event recording (.aedat4, .raw, .dat, .h5, .npz, .csv, ROS bag ...).
        json: print one JSON object instead of a table.
        size: width and height of the sensor, for files that do not say it, as [640, 480].
        time_unit: unit of the times in text, .npz and foreign HDF5 files; default is to find out.
        topic: topic of a ROS bag that has several of events.

    Raises:
        InputError: the file is missing, of an unknown kind, or damaged beyond reading.
    """
    summary = summarise(open_events(Path(file), size=size, time_unit=time_unit, topic=topic))
    if json:
        print(json_format.dumps(as_json(summary), indent=2))
    else:
        # Not folded at 80 columns where the reader is a program: paths and warnings stay whole.
        console = Console() if sys.stdout.isatty() else Console(width=200)
        console.print(_table(summary))
        for text in summary.warnings:
            console.print(f"warning: {text}", markup=False, highlight=False)
    return summary


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON values: its fields, `duration_us`, `mean_rate_hz` and `on_share`."""
    derived = {name: getattr(summary, name) for name in ("duration_us", "mean_rate_hz", "on_share")}
    return {**asdict(summary), "path": str(summary.path), **derived}


def _table(s: Summary) -> Table:
    table = Table(title=str(s.path), title_style="bold", show_header=False, title_justify="left")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(s):
        table.add_row(name, value)
    return table


def _rows(s: Summary) -> list[tuple[str, str]]:
    details = f" ({', '.join(f'{name} {value}' for name, value in s.details.items())})" if s.details else ""
    rows = [
        ("format", s.format + details),
        ("sensor", f"{s.size[0]}x{s.size[1]}"),
        ("file size", _bytes(s.file_bytes) + (f", {s.file_bytes / s.events:.1f} bytes an event" if s.events else "")),
        ("events", f"{_number(s.events)}" + ("" if s.events else " (the recording is empty)")),
    ]
    if s.events:
        rows += [
            ("ON / OFF", f"{_number(s.on_events)} / {_number(s.events - s.on_events)} ({100 * s.on_share:.1f} % ON)"),
            ("time", f"{s.start_us} to {s.end_us} us"),
            ("duration", f"{s.duration_us / 1e6:.3f} s"),
            ("mean rate", f"{_rate(s.mean_rate_hz)}"),
            ("peak rate", f"{_rate(s.peak_rate_hz)} over {PEAK_US // 1000} ms"),
            ("gaps", _gaps(s)),
            ("time order", _order(s)),
            ("pixels", f"{_number(s.active_pixels)} of {_number(s.size[0] * s.size[1])} active, {s.hot_pixels} hot"),
        ]
    if s.outside_events:
        rows.append(("outside", f"{_number(s.outside_events)} events lie outside the sensor"))
    if s.frames:
        rows.append(("frames", _number(s.frames)))
    if s.triggers:
        rows.append(("triggers", _number(s.triggers)))
    return rows


def _gaps(s: Summary) -> str:
    if not s.gap_count:
        return f"none of {GAP_US // 1000} ms or more"
    start, length = max(s.gaps, key=lambda gap: gap[1])
    return f"{s.gap_count}, together {s.gap_total_us / 1e6:.3f} s; longest {length / 1e6:.3f} s after {start} us"


def _order(s: Summary) -> str:
    if not s.backward_count:
        return "never runs backwards"
    before, step = max(s.backward_stretches, key=lambda stretch: stretch[1])
    mend = "sorted when read" if s.backward_largest_us <= TOLERANCE_US else "too far to be sorted when read"
    return (
        f"runs backwards {s.backward_count} times ({_number(s.backward_events)} events), by up to "
        f"{s.backward_largest_us} us ({mend}); worst of those listed: {step} us after {before} us"
    )


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _bytes(value: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value} bytes"


def _rate(hz: float) -> str:
    for unit, scale in (("million", 1e6), ("thousand", 1e3)):
        if hz >= scale:
            return f"{hz / scale:.2f} {unit} events/s"
    return f"{hz:.1f} events/s"
