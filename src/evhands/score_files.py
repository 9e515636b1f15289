"""What a scored file of predictions leaves on disk: results.json, report.html, the pictures asked for; and its table.

Several jobs score; this is what they share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evhands.baselines import ConstantPose
from evhands.files import replacing
from evhands.hand.model import HandModel
from evhands.predictions import Predictions
from evhands.scoring import results
from evhands.types import InputError

Saved = Literal["all", "joints", "mesh", "projected", "glb", "joints2d", "events", "flow", "iwe"]
RESULTS, REPORT = "results.json", "report.html"
_CONSTANT = Path(__file__).parent / "assets" / "constant_pose.npz"

TABLES = {
    "evhands": ("mpjpe21", "pa_mpjpe21", "mpjpe20", "pa_mpjpe20", "camera_error", "px21", "found"),
    "evhandpose": ("mpjpe21", "pa_mpjpe21", "mpjpe20", "pa_mpjpe20", "published_px21", "published_palm21"),
}
"""What the terminal shows of each protocol; results.json and the report hold all."""
HEADS = {
    "mpjpe21": "MPJPE", "pa_mpjpe21": "PA-MPJPE", "mpjpe20": "MPJPE/20", "pa_mpjpe20": "PA/20",
    "camera_error": "camera", "px21": "2D px", "found": "found %",
    "published_px21": "2D px", "published_palm21": "2D palm",
}  # fmt: skip


def score_to(
    predictions: Predictions,
    out: Path,
    *,
    constant: Path | None,
    intervals: str,
    report: bool,
    save: Sequence[Saved],
    sources: Sequence[Path],
    hand: HandModel | None,
) -> str:
    """Score, write to `out`, and return the table for a terminal."""
    if intervals not in ("recording", "subject"):
        raise InputError(f"intervals = {intervals!r}. Wanted recording or subject.")
    if not len(predictions):
        raise InputError(
            "No time of these recordings can be scored: none is labelled after the history that the protocol wants. "
            "Give longer recordings, or recordings with labels."
        )
    content, values = results(predictions, constant_pose(constant), intervals)
    with replacing(out / RESULTS) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return table(content)


def constant_pose(path: Path | None = None) -> ConstantPose:
    """The constant pose of the simulated training set, or one of a file."""
    try:
        with np.load(path or _CONSTANT, allow_pickle=False) as file:
            pose = ConstantPose(file["rooted"].astype(np.float64), file["shape"].astype(np.float64))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is no constant pose ({error}). Wanted an .npz with rooted and shape (21, 3), in metres."
        ) from error
    if pose.rooted.shape != (21, 3) or pose.shape.shape != (21, 3):
        raise InputError(f"{path} holds poses of another shape. Wanted rooted and shape, both (21, 3) in metres.")
    return pose


def table(content: dict[str, Any]) -> str:
    """The figures by bucket, for a terminal; mm unless a head says otherwise."""
    names = TABLES[content["protocol"]]
    lines = [
        f"{content['method']}, protocol {content['protocol']}, crop {content['crop']}: {content['scored']} rows of "
        f"{content['recordings']} recordings; mm, 95 % intervals by bootstrap over {content['intervals'].split()[-1]}",
        f"{'':18}{'rows':>7}" + "".join(f"{HEADS[name]:>22}" for name in names),
    ]
    for bucket, figures in content["figures"].items():
        rows = max((figure["rows"] for figure in figures.values()), default=0)
        lines.append(f"{bucket:18}{rows:>7}" + "".join(_cell(figures.get(name), name) for name in names))
    constant = content["figures"]["all"].get("constant_mpjpe21")
    if constant is not None:
        pa = content["figures"]["all"]["constant_pa_mpjpe21"]["mean"]
        lines.append(f"{'constant pose':18}{constant['rows']:>7}{constant['mean']:>13.2f}{'':9}{pa:>13.2f}")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None, name: str) -> str:
    if figure is None:
        return f"{'-':>13}{'':9}"
    factor, digits = (100, 1) if name == "found" else (1, 2)
    text = f"{factor * figure['mean']:.{digits}f}"
    if figure["low"] is None:
        return f"{text:>13}{'':9}"
    between = f" [{factor * figure['low']:.1f}, {factor * figure['high']:.1f}]"
    return f"{text + between:>22}"
