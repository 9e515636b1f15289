"""`evhands leaderboard`: the results of several methods under one protocol, in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from evhands.files import replacing
from evhands.report.compare import comparison_markdown, comparison_page, comparison_text
from evhands.types import InputError

_SAME = ("protocol", "data", "scored", "recordings", "subjects")
"""What results must share to be compared; the crop may differ and stands in the table."""


def leaderboard(
    results: list[Path],
    *,
    out: Path | None = None,
    form: Literal["text", "markdown"] = "text",
    by: str = "mpjpe21",
) -> str:
    """Compare the results of several methods.

    Results of other protocols, of other data (by its checksum) or of other rows are refused, because their figures do
    not compare.

    Args:
        results: results.json files of `evhands evaluate`, or folders that hold one.
        out: folder to write leaderboard.md and leaderboard.html to.
        form: how the table is printed.
        by: figure that the methods are ordered by.
    """
    read = [read_results(path) for path in results]
    check_same(read, results)
    bad = [str(path) for path, one in zip(results, read) if by not in one["figures"]["all"]]
    if bad:
        raise InputError(
            f"{', '.join(bad)} has no figure {by!r}. Wanted one of {', '.join(read[0]['figures']['all'])} with --by."
        )
    turned = -1 if by == "found" else 1
    read.sort(key=lambda one: turned * one["figures"]["all"][by]["mean"])
    if out is not None:
        for name, text in (("leaderboard.md", comparison_markdown(read)), ("leaderboard.html", comparison_page(read))):
            with replacing(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return comparison_markdown(read) if form == "markdown" else comparison_text(read)


def read_results(path: Path) -> dict[str, Any]:
    """A results.json; InputError for any other file."""
    file = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in ("method", "crop", "figures", "pck", *_SAME) if key not in content]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"Could not read {file} ({error}). Wanted a results.json of `evhands evaluate`.") from error
    if missing:
        raise InputError(f"{file} has no {', '.join(missing)}. Wanted a results.json of `evhands evaluate`.")
    return dict(content)


def check_same(read: list[dict[str, Any]], paths: list[Path]) -> None:
    """InputError that names what two results do not share."""
    for name in _SAME:
        values = [sorted(one[name]) if name == "subjects" else one[name] for one in read]
        for path, value in zip(paths, values):
            if value != values[0]:
                raise InputError(
                    f"{paths[0]} and {path} have another {name}: {values[0]!r} and {value!r}. Wanted results of one "
                    "protocol and the same data; evaluate one of them again."
                )
