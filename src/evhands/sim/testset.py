"""The fixed test set of the project: its fingerprints, and whether recordings are what they were frozen as.

A fingerprint is exact (SHA-256 of the events) where the same libraries run on the same kind of processor. Elsewhere
the last bits of floating point differ and move some events by a microsecond; counts and truth must still agree closely.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from evhands.types import Events

FROZEN = "testset.json"
"""Among the package's assets: name of the recording -> its fingerprint."""
COUNT_TOLERANCE = 0.01
JOINT_TOLERANCE_M = 1e-5


@dataclass(frozen=True)
class Fingerprint:
    """What tells one recording from any other."""

    events: int
    sha256: str
    """Of x, y (uint16), t_us (int64) and p (uint8), little-endian, one column after the other."""
    joints_m: tuple[float, ...]
    """The wrist and the middle finger's tip at the middle label, six numbers."""


def fingerprint(events: Events, joints_m: np.ndarray) -> Fingerprint:
    """The fingerprint of a recording's events and true joints (m, 21, 3)."""
    digest = hashlib.sha256()
    for column, kind in ((events.x, "<u2"), (events.y, "<u2"), (events.t_us, "<i8"), (events.p, "u1")):
        digest.update(np.ascontiguousarray(column.astype(kind, copy=False)).data)
    places = joints_m[len(joints_m) // 2, [0, 12]].ravel()
    return Fingerprint(len(events), digest.hexdigest(), tuple(round(float(v), 6) for v in places))


def frozen() -> dict[str, Fingerprint]:
    """The fingerprints that ship with the package; empty before the set is frozen."""
    path = files("evhands") / "assets" / FROZEN
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return {name: Fingerprint(v["events"], v["sha256"], tuple(v["joints_m"])) for name, v in content.items()}


def write_frozen(path: Path, prints: dict[str, Fingerprint]) -> None:
    """Write fingerprints as `frozen` reads them."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(value))}" for name, value in sorted(prints.items())]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compare(found: dict[str, Fingerprint], wanted: dict[str, Fingerprint]) -> tuple[int, list[str]]:
    """(recordings that are exactly the frozen ones, complaints about those that are not even close)."""
    exact, complaints = 0, [f"{name}: missing" for name in wanted if name not in found]
    for name, value in found.items():
        if name not in wanted:
            complaints.append(f"{name}: not part of the frozen set")
            continue
        difference = max(abs(a - b) for a, b in zip(value.joints_m, wanted[name].joints_m, strict=True))
        share = abs(value.events / max(wanted[name].events, 1) - 1)
        if difference > JOINT_TOLERANCE_M or share > COUNT_TOLERANCE:
            complaints.append(
                f"{name}: {value.events} events and joints {1000 * difference:.3f} mm off, "
                f"wanted {wanted[name].events} events"
            )
        exact += value.sha256 == wanted[name].sha256 and difference == 0
    return exact, complaints
