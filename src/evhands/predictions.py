"""What a method said of some recordings, beside the truth: the file between predicting and scoring (.npz).

One row a time that is scored (or shown); rows of all recordings stand one behind the other, in the order of time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from evhands.files import replacing
from evhands.recording import Tags
from evhands.types import HandPose, InputError, Side, Size

Protocol = Literal["evhandpose", "evhands"]
FORMAT = "evhands.predictions"
VERSION = 1
UNTAGGED = "untagged"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A recording that was predicted. start_us: its first event. K: what projects into its undistorted image."""

    name: str
    side: Side
    subject: str
    bucket: str
    size: Size
    K: tuple[tuple[float, ...], ...]
    start_us: int


def bucket_of(tags: Tags | None) -> str:
    """The group that results are given for: fast, else light and kind of gesture."""
    if tags is None:
        return UNTAGGED
    return "fast" if tags.fast else f"{tags.scene}_{tags.gesture}"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """n rows of several recordings; what a row lacks is NaN.

    recording: number in `recordings`. t_us: end of the row's window, on the clock of its recording. window_us: its
    length. found: whether the method gave a pose. events: in the window, on the whole sensor. joints_m, truth_m:
    `openpose21`, metres, camera frame, left hands left. joints_px, truth_px: pixels of the undistorted image.
    annotated_px: as a person marked them on the sensor. speed: of the true joints, m/s, mean over 21. orientation,
    wrist, joints, shape: as in `HandPose`, parameters of `meta["hand_model"]`. vertex_errors: mean distance (m) of
    predicted from true vertices of one hand model, wrists laid on each other; pa_vertex_errors: after the best
    similarity transform. boxes_px: x0, y0, x1, y1 of the crop.
    """

    meta: dict[str, Any]
    recordings: tuple[Seen, ...]
    recording: Int32[np.ndarray, " n"]
    t_us: Int64[np.ndarray, " n"]
    window_us: Int64[np.ndarray, " n"]
    found: Bool[np.ndarray, " n"]
    confidence: Float32[np.ndarray, " n"]
    events: Int64[np.ndarray, " n"]
    speed: Float32[np.ndarray, " n"]
    joints_m: Float32[np.ndarray, "n 21 3"]
    truth_m: Float32[np.ndarray, "n 21 3"]
    joints_px: Float32[np.ndarray, "n 21 2"]
    truth_px: Float32[np.ndarray, "n 21 2"]
    annotated_px: Float32[np.ndarray, "n 21 2"]
    orientation: Float32[np.ndarray, "n 3"]
    wrist: Float32[np.ndarray, "n 3"]
    joints: Float32[np.ndarray, "n 15 3"]
    shape: Float32[np.ndarray, "n 10"]
    vertex_errors: Float32[np.ndarray, " n"]
    pa_vertex_errors: Float32[np.ndarray, " n"]
    boxes_px: Float32[np.ndarray, "n 4"]
    seconds: float = field(default=0.0)
    """How long predicting took, with cutting windows and crops, without reading files."""

    def __len__(self) -> int:
        return len(self.t_us)

    def rows(self, index: np.ndarray | slice) -> Predictions:
        """The rows that a mask, an index or a slice selects, of the same list of recordings."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    def pose(self, row: int) -> HandPose:
        """The pose of a row with `found`."""
        values = {name: getattr(self, name)[row] for name in ("orientation", "wrist", "joints", "shape")}
        side = self.recordings[self.recording[row]].side
        return HandPose(side, **values, hand_model=str(self.meta["hand_model"]))


_WORDS = ("meta", "recordings", "seconds")
COLUMNS = {f.name: f.type for f in fields(Predictions) if f.name not in _WORDS}
_TAILS: dict[str, tuple[int, ...]] = {
    "joints_m": (21, 3), "truth_m": (21, 3), "joints_px": (21, 2), "truth_px": (21, 2), "annotated_px": (21, 2),
    "orientation": (3,), "wrist": (3,), "joints": (15, 3), "shape": (10,), "boxes_px": (4,),
}  # fmt: skip
_KINDS: dict[str, Any] = {
    "recording": np.int32, "t_us": np.int64, "window_us": np.int64, "found": np.bool_, "events": np.int64,
}  # fmt: skip


def blank(count: int) -> dict[str, np.ndarray]:
    """The columns of rows of which nothing is known: NaN, zeros and False."""
    return {
        name: np.zeros(count, _KINDS[name])
        if name in _KINDS
        else np.full((count, *_TAILS.get(name, ())), np.nan, np.float32)
        for name in COLUMNS
    }


def joined(parts: Sequence[Predictions]) -> Predictions:
    """All rows of one method's predictions for several lists of recordings; `meta` is the first one's."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    first = np.cumsum([0, *(len(part.recordings) for part in parts)])
    columns["recording"] = np.concatenate([part.recording + at for part, at in zip(parts, first)]).astype(np.int32)
    recordings = tuple(seen for part in parts for seen in part.recordings)
    return Predictions(
        meta=parts[0].meta, recordings=recordings, seconds=sum(part.seconds for part in parts), **columns
    )


def save_predictions(predictions: Predictions, path: Path | str) -> None:
    """Write a file that `load_predictions` reads; what was there before is replaced on success."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "meta": predictions.meta,
        "recordings": [asdict(seen) for seen in predictions.recordings],
        "seconds": predictions.seconds,
    }
    columns = {name: getattr(predictions, name) for name in COLUMNS}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **columns)


def load_predictions(path: Path | str) -> Predictions:
    """Read a file of predictions; InputError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            columns = {name: file[name] for name in COLUMNS}
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']}")
        recordings = tuple(_seen(values) for values in about["recordings"])
        rows = len(columns["t_us"])
        wrong = [name for name, values in columns.items() if values.shape != (rows, *_TAILS.get(name, ()))]
        if wrong:
            raise ValueError(f"shape of {', '.join(wrong)}")
        return Predictions(meta=about["meta"], recordings=recordings, seconds=float(about["seconds"]), **columns)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is no file of predictions ({error}). Wanted the predictions.npz that `evhands evaluate` writes; "
            "evaluate again."
        ) from error


def _seen(values: dict[str, Any]) -> Seen:
    size = cast(Size, tuple(values.pop("size")))
    K = tuple(tuple(map(float, row)) for row in values.pop("K"))
    return Seen(size=size, K=K, **values)
