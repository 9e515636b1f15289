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
from evhands.report import pictures
from evhands.report.page import report_page
from evhands.saved import save_all
from evhands.scoring import Values, results
from evhands.types import InputError

Saved = Literal["all", "joints", "mesh", "projected", "glb", "joints2d", "events", "flow", "iwe"]
Intervals = Literal["recording", "subject"]
RESULTS, REPORT, SAVED = "results.json", "report.html", "saved"
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
    intervals: Intervals,
    report: bool,
    save: Sequence[Saved],
    sources: Sequence[Path],
    hand: HandModel | None,
    reading: HandModel | None = None,
) -> str:
    """Score, write to `out`, and return the table for a terminal.

    hand: in whose parameters the poses are, right. reading: the hand of MANO's truth, where `hand` is another.
    """
    if not len(predictions):
        raise InputError(
            "No time of these recordings can be scored: none is labelled after the history that the protocol wants. "
            "Give longer recordings, or recordings with labels."
        )
    content, values = results(predictions, constant_pose(constant), intervals)
    with replacing(out / RESULTS) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if report:
        text = report_of(predictions, content, values, sources, reading or hand)
        with replacing(out / REPORT) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if save:
        if hand is None:
            raise InputError("Found no hand model to draw. Wanted the one of the poses: give --mano MANO_RIGHT.pkl.")
        save_all(predictions, out / SAVED, save, sources, hand, reading)
    return table(content)


def report_of(
    predictions: Predictions, content: dict[str, Any], values: Values, sources: Sequence[Path], hand: HandModel | None
) -> str:
    """The page of an evaluation; pictures of events where the recordings are at hand."""
    chosen = pictures.chosen_rows(values)
    shown = shown_recordings(predictions, values)
    rows = [int(row) for group in chosen.values() for row in group]
    seen = pictures.watched(predictions, sources, hand, [*shown, *(predictions.recording[row] for row in rows)])
    figures = {
        name: [pictures.figure(predictions, values, int(row), seen) for row in group] for name, group in chosen.items()
    }
    player = pictures.player_data(predictions, values, {number: seen[number] for number in shown if number in seen})
    return report_page(content, figures, player)


def shown_recordings(predictions: Predictions, values: Values) -> list[int]:
    """The recordings of the least, middle and largest mean error."""
    error = values.of["mpjpe21"] if np.isfinite(values.of["mpjpe21"]).any() else values.of["px21"]
    there = np.isfinite(error)
    count = np.bincount(predictions.recording[there], minlength=len(predictions.recordings))
    total = np.bincount(predictions.recording[there], error[there], minlength=len(predictions.recordings))
    used = np.flatnonzero(count)
    order = used[np.argsort(total[used] / count[used], kind="stable")]
    places = (len(order) // 2, 0, len(order) - 1) if len(order) else ()
    return list(dict.fromkeys(int(order[i]) for i in places))


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
    if figure["low"] is None or figure["low"] == figure["high"]:
        return f"{text:>13}{'':9}"
    between = f" [{factor * figure['low']:.1f}, {factor * figure['high']:.1f}]"
    return f"{text + between:>22}"
