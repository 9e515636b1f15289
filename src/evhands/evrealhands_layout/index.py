"""`id_seq_all.json`: which sequences a data set folder holds, by hand, light and motion, and by subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evhands.evrealhands_layout.annotations import FAST, GESTURES, SCENES, SIDES, read_annotations
from evhands.evrealhands_layout.checked import Checked, read_json
from evhands.evrealhands_layout.sequence import ANNOTATIONS, natural
from evhands.files import replacing
from evhands.types import InputError

INDEX = "id_seq_all.json"
BUCKETS = (*(f"{scene}_{gesture}" for scene in SCENES for gesture in GESTURES), FAST)
"""The groups that results are given for."""
TEST_SUBJECTS = ("1", "3")
"""The subjects that the data set holds out for tests; all others are for training."""

Listing = dict[str, tuple[str, ...]]
"""Sequences by subject."""


@dataclass(frozen=True, kw_only=True)
class SequenceIndex:
    """Sequences by subject, of each hand and of each bucket; a sequence stands in both."""

    hands: dict[str, Listing]
    buckets: dict[str, Listing]

    def sequences(self, *, test: bool | None = None) -> tuple[str, ...]:
        """All sequences; with `test` only those of the test subjects (True) or of the others (False)."""
        listed = (
            name
            for listing in (*self.hands.values(), *self.buckets.values())
            for subject, names in listing.items()
            if test is None or (subject in TEST_SUBJECTS) == test
            for name in names
        )
        return tuple(sorted(set(listed), key=natural))


def read_index(root: Path | str) -> SequenceIndex:
    """Read `id_seq_all.json` of a data set folder; what is missing or mistyped is an `InputError` that names it."""
    file = read_json(Path(root) / INDEX)
    return SequenceIndex(
        hands={side: _listing(file[side]) for side in SIDES}, buckets={name: _listing(file[name]) for name in BUCKETS}
    )


def _listing(value: Checked) -> Listing:
    return {subject: tuple(row.name() for row in names.elements()) for subject, names in value.items()}


def write_index(root: Path | str) -> SequenceIndex:
    """Collect the sequence folders under `root` into its `id_seq_all.json`, replacing the one there."""
    root = Path(root)
    hands: dict[str, dict[str, list[str]]] = {side: {} for side in SIDES}
    buckets: dict[str, dict[str, list[str]]] = {name: {} for name in BUCKETS}
    folders = [path.parent for path in root.glob(f"*/{ANNOTATIONS}") if not path.parent.name.startswith(".")]
    if not folders:
        raise InputError(f"{root} holds no sequence folder with an {ANNOTATIONS}. Write sequences there first.")
    for folder in sorted(folders, key=lambda path: natural(path.name)):
        a = read_annotations(folder / ANNOTATIONS)
        bucket = FAST if a.fast else f"{a.scene}_{a.gesture_type}"
        for listing in (hands[a.hand_type], buckets[bucket]):
            listing.setdefault(a.subject_id, []).append(folder.name)
    with replacing(root / INDEX) as temporary:
        temporary.write_text(json.dumps(hands | buckets), encoding="utf-8")
    return read_index(root)
