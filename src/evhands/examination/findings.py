"""What an examination of a recording gives: findings, each of a kind, and the figures of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    "unreadable": "a file is missing or cannot be opened",
    "schema": "a key is missing, mistyped or of the wrong length",
    "not finite": "NaN or infinity where a number should be",
    "repeated id": "an annotation id, a label time or a sequence stands more than once",
    "index": "id_seq_all.json and the sequence folders disagree",
    "truncated": "an event file is cut off or damaged",
    "time order": "times run backwards",
    "gap": "a long time without events, or one in which the hand moves",
    "outside": "events outside the sensor",
    "no events": "a recording without events, or labels at times without any",
    "missing frames": "labels or images are missing in between",
    "units": "lengths a thousand times too large or too small",
    "axes": "joints whose axes are swapped or turned round",
    "finger order": "joints whose fingers stand in another order",
    "handedness": "a hand of the other side",
    "mesh": "joints far from those of the hand mesh",
    "camera": "a camera matrix that is none of this sensor",
    "boxes": "boxes outside the image, or not about the hand",
    "clock": "the truth is earlier or later than the events",
    "alignment": "the hand mesh does not lie where the events are",
}
"""What is found, by its name."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: one of KINDS, and a sentence that says what was found where."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A recording or sequence that was looked through. What could not be told is None.

    missing_labels: of those that their spacing makes expect. offset_ms, spread_ms, agreement: see `ClockOffset`.
    residual_mm: median distance of the annotated joints from those of the hand mesh. not_examined: checks that were
    left out, and why. tile: picture (h, w, 3) uint8 of the truth over the events.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    side: str | None = None
    subject: str | None = None
    bucket: str | None = None
    size: tuple[int, int] | None = None
    events: int | None = None
    seconds: float | None = None
    rate_hz: float | None = None
    gaps: int | None = None
    labels: int | None = None
    missing_labels: int | None = None
    frames: int | None = None
    offset_ms: float | None = None
    spread_ms: float | None = None
    agreement: float | None = None
    residual_mm: float | None = None
    not_examined: tuple[str, ...] = ()
    tile: Any = field(default=None, compare=False)

    def plain(self) -> dict[str, Any]:
        """As JSON values, without the picture."""
        return {key: value for key, value in asdict(self).items() if key != "tile"}
