"""Predictions without a network: recordings of hands, and their truth a little off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from evhands.hand.model import load_hand
from evhands.predictions import Predictions, joined
from evhands.scenes import PARTS, labelled_times, open_scene, predicted_columns, truth_columns, with_vertices
from evhands.types import HandPose
from hand_recordings import write_hand

META = {
    "method": "noise", "protocol": "evhands", "crop": "truth", "hand_model": "open", "data": "2 files, 0123",
    "weights": "00", "code": "0", "smooth": False,
}  # fmt: skip


def write_scored(folder: Path, sides: tuple[str, ...] = ("right", "left"), seconds: float = 1.2) -> Predictions:
    """Recordings 0.h5, 1.h5 ... in a folder, and predictions that turn each hand by about a tenth."""
    hand, parts = load_hand("open"), []
    for seed, side in enumerate(sides):
        write_hand(folder / f"{seed}.h5", seed, side=side, seconds=seconds, lens=seed == 0)
        scene = open_scene(folder / f"{seed}.h5")
        wanted, own = labelled_times(scene), hand if side == "right" else hand.mirrored()
        rng = np.random.default_rng(seed)
        values = {name: getattr(scene.labels, name)[wanted.label] for name in PARTS}
        values["orientation"] = np.float32(values["orientation"] + rng.normal(0, 0.1, (len(wanted.t_us), 3)))
        pose = HandPose(side, **values, hand_model="open")
        columns = truth_columns(scene.labels, scene.annotated_px, wanted, scene.K)
        columns |= predicted_columns(pose, own, scene.K) | {"found": np.ones(len(wanted.t_us), bool)}
        columns["window_us"] = columns["window_us"] + 66_667
        columns["events"] = columns["events"] + 1300
        columns = with_vertices(columns, scene.labels, wanted, pose, own)
        parts.append(Predictions(meta=META, recordings=(scene.seen,), **columns))
    return joined(parts)


def without_hand(predictions: Predictions, row: int) -> Predictions:
    """The same with a row in which nothing was found."""
    found = predictions.found.copy()
    found[row] = False
    gone = {
        name: np.where(found.reshape(-1, *[1] * (values.ndim - 1)), values, np.float32(np.nan))
        for name in (*PARTS, "joints_m", "joints_px")
        for values in [getattr(predictions, name)]
    }
    return replace(predictions, found=found, **gone)
