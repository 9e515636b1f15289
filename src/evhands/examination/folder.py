"""A whole data folder: which recordings it holds, and whether its index says the same as they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evhands.evrealhands_layout import LayoutError, read_index
from evhands.evrealhands_layout.index import INDEX, SequenceIndex
from evhands.evrealhands_layout.sequence import natural
from evhands.examination.findings import Examined, Finding
from evhands.types import InputError


def sources_of(root: Path) -> list[Path]:
    """Recordings (.h5) and sequence folders of a data folder, or the one that it is itself."""
    if root.is_file():
        return [root]
    found = sorted(path for path in root.rglob("*.h5") if _visible(path, root))
    marks = [path for kind in ("annot.json", "annotf.json", "*.aedat4") for path in root.rglob(kind)]
    layouts = sorted({path.parent for path in marks if _visible(path, root)}, key=lambda path: natural(path.name))
    if not found and not layouts:
        raise InputError(
            f"{root} holds no recording. Wanted .h5 recordings or EvRealHands sequence folders (with annot.json) in "
            "it; check the path."
        )
    return [*found, *layouts]


def _visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def examine_index(root: Path, examined: Sequence[Examined]) -> list[Finding]:
    """Whether `id_seq_all.json` lists every sequence once, under its hand, bucket and subject; none where there is no
    such file."""
    if not (root / INDEX).exists():
        return []
    try:
        index = read_index(root)
    except LayoutError as error:
        return [Finding("repeated id" if "repeated" in text else "index", text) for text in error.faults]
    except InputError as error:
        return [Finding("repeated id" if "repeated" in str(error) else "index", str(error))]
    found = _repeated(root, index)
    known = {one.name: one for one in examined}
    for name in index.sequences():
        if name not in known:
            found.append(Finding("index", f"{root / INDEX} names the sequence {name!r}, of which there is no folder."))
    for name, one in known.items():
        if one.side is None:
            continue
        for listings, wanted in ((index.hands, one.side), (index.buckets, one.bucket)):
            places = [(key, subject) for key, listing in listings.items() for subject, names in listing.items()
                      if name in names]  # fmt: skip
            if places != [(wanted, one.subject)]:
                told = " and ".join(f"{key} of subject {subject}" for key, subject in places) or "nowhere"
                text = f"{root / INDEX}: the sequence {name!r} stands under {told}; it is {wanted} of {one.subject}."
                found.append(Finding("index", text))
    return found


def _repeated(root: Path, index: SequenceIndex) -> list[Finding]:
    found = []
    for key, listing in {**index.hands, **index.buckets}.items():
        for subject, names in listing.items():
            if repeated := [name for name, count in Counter(names).items() if count > 1]:
                text = f"{root / INDEX}: {key}.{subject} names {', '.join(repeated)} more than once."
                found.append(Finding("repeated id", text))
    return found
