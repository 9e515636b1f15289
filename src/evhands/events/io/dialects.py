"""What foreign tables of events call their columns, in which order they put them, and in which unit they count time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, Shaped

from evhands.types import InputError

TimeUnit = Literal["s", "us"]
Roles = dict[str, int]
"""Column number per role: x, y, t, p."""

_NAMES = {
    "x": {"x", "xs", "col", "column"},
    "y": {"y", "ys", "row"},
    "t": {"t", "ts", "time", "times", "timestamp", "timestamps"},
    "p": {"p", "ps", "pol", "polarity", "polarities", "on"},
}
_UNITS: dict[str, TimeUnit] = {"us": "us", "µs": "us", "usec": "us", "s": "s", "sec": "s", "seconds": "s"}
_LARGEST_PIXEL = 4095


def role_of(name: str) -> tuple[str | None, TimeUnit | None]:
    """The role (x, y, t, p) that a column name stands for and the unit it names: `t_us`, `Time [s]`, `polarity` ..."""
    words = re.findall(r"[a-zµ]+", name.lower())
    if not words:
        return None, None
    role = next((role for role, names in _NAMES.items() if words[0] in names), None)
    unit = _UNITS.get(words[1]) if len(words) == 2 else None
    return (role, unit) if len(words) == 1 or (role == "t" and unit) else (None, None)


def roles_of(names: Sequence[str]) -> tuple[Roles, TimeUnit | None]:
    """Column numbers of named columns (the first of each role counts) and the unit of time if its name gives one."""
    roles: Roles = {}
    time_unit: TimeUnit | None = None
    for column, name in enumerate(names):
        role, unit = role_of(name)
        if role is not None and role not in roles:
            roles[role] = column
            time_unit = unit if role == "t" else time_unit
    return roles, time_unit


def detect_roles(sample: Float[np.ndarray, "n k"], path: Path) -> Roles:
    """Find out which of the first four unnamed columns is which from sample values.

    Polarity is the last column with nothing but -1, 0 and 1. Time is the column with fractions, else the one with
    values too large for a pixel, else the one that never decreases, else the first. x and y are the rest in order.
    """
    columns = sample[:, :4].T
    flags = [c for c in range(len(columns)) if np.isin(columns[c], (-1, 0, 1)).all()]
    if len(columns) < 4 or not flags:
        raise InputError(
            f"{path}: {len(columns)} columns, and none of the first four has nothing but 0 and 1 (or -1 and 1). "
            "Wanted x, y, a time and a polarity in any order, or a header that names them."
        )
    rest = [c for c in range(4) if c != flags[-1]]

    def likeness(c: int) -> tuple[bool, bool, bool, int]:
        values = columns[c]
        return (
            bool((values != np.floor(values)).any()),
            bool(values.max() > _LARGEST_PIXEL),
            bool((np.diff(values) >= 0).all()),
            -c,
        )

    time = max(rest, key=likeness)
    x, y = (c for c in rest if c != time)
    return {"x": x, "y": y, "t": time, "p": flags[-1]}


def detect_time_unit(sample: Shaped[np.ndarray, " n"]) -> TimeUnit:
    """Guess the unit of a time column from its first values: seconds if any has a fraction, else microseconds."""
    if sample.dtype.kind != "f":
        return "us"
    finite = sample[np.isfinite(sample)]
    return "s" if bool((finite != np.floor(finite)).any()) else "us"


def to_microseconds(values: Shaped[np.ndarray, " n"], unit: TimeUnit, path: Path) -> Int64[np.ndarray, " n"]:
    """Times as int64 microseconds, rounded to the nearest; NaN or more than 146 000 years is an `InputError`."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64) * (1_000_000 if unit == "s" else 1)
    scaled = np.asarray(values, np.float64) * (1e6 if unit == "s" else 1.0)
    if not (np.abs(scaled) < 2.0**62).all():
        raise InputError(
            f"{path} has a time that is not a number, or too large to be one in microseconds. Wanted finite times; "
            "remove those rows."
        )
    return np.rint(scaled).astype(np.int64)
