"""`evhands score`: figures, report and pictures from a file of predictions, without a network."""

from __future__ import annotations

from pathlib import Path

from evhands.data.cache import sources_in
from evhands.hand.model import HandModel, load_hand
from evhands.predictions import load_predictions
from evhands.score_files import Intervals, Saved, score_to
from evhands.types import InputError


def score(
    file: Path,
    *,
    out: Path | None = None,
    data: list[Path] | None = None,
    mano: Path | None = None,
    constant: Path | None = None,
    intervals: Intervals = "recording",
    save: list[Saved] | None = None,
    report: bool = True,
) -> str:
    """Score a file of predictions again.

    Writes results.json and report.html beside the file, or to OUT. Pictures with events need the recordings.

    Args:
        file: predictions.npz of `evhands evaluate`.
        out: folder to write to; that of FILE when left out.
        data: the recordings that were predicted, or folders of them; without them the report shows no events.
        mano: MANO_RIGHT.pkl, to draw hands whose parameters are MANO's.
        constant: .npz of another constant pose (rooted, shape), which hands that are not found score.
        intervals: recording or subject: what the bootstrap of the confidence intervals draws.
        save: all, or any of joints, mesh, projected, glb, joints2d, events, flow, iwe; several times if need be.
        report: write report.html.
    """
    predictions = load_predictions(file)
    return score_to(
        predictions,
        out or file.parent,
        constant=constant,
        intervals=intervals,
        report=report,
        save=save or (),
        sources=[source for folder in data or () for source in sources_in(folder)],
        hand=_hand(str(predictions.meta["hand_model"]), mano, bool(save)),
    )


def _hand(name: str, mano: Path | None, needed: bool) -> HandModel | None:
    if name == "open":
        return load_hand("open")
    if mano is None and needed:
        raise InputError(f"The poses are of the hand model '{name}'. Wanted its file: give --mano MANO_RIGHT.pkl.")
    return None if mano is None else load_hand(mano)
