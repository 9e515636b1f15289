"""Rows of a file of predictions as pictures: events of the window under the skeletons of truth and prediction."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evhands.events.windows import window_at
from evhands.geometry import pixels_inside, undistortion_map
from evhands.hand.model import HandModel
from evhands.overlay import OverlayStyle, draw_events
from evhands.predictions import Predictions
from evhands.report.charts import skeleton
from evhands.scenes import Scene, open_scene
from evhands.scoring import Values
from evhands.types import Camera, Events

SHOWN = 90
"""Rows of a recording that the player shows."""
_STYLE = OverlayStyle()
_WIDEST = 640


@dataclass(frozen=True)
class Watched:
    """A recording of a file of predictions with its events in the undistorted image."""

    number: int
    events: Events


def watched(
    predictions: Predictions, sources: Sequence[Path], hand: HandModel | None, numbers: Sequence[int]
) -> dict[int, Watched]:
    """The events of some of a file's recordings, by their number, found by name; without the recording no entry."""
    by_name = {source.stem if source.is_file() else source.name: source for source in sources}
    found = {}
    for number in dict.fromkeys(int(n) for n in numbers):
        source = by_name.get(predictions.recordings[number].name)
        if source is not None:
            scene = open_scene(source, hand)
            found[number] = Watched(number, _undistorted(scene))
    return found


def _undistorted(scene: Scene) -> Events:
    camera: Camera = scene.camera
    if not np.any(camera.distortion):
        return scene.events
    events = scene.events
    moved = undistortion_map(camera)[events.y, events.x]
    kept = pixels_inside(moved, camera.size)
    x, y = (np.rint(moved[kept, k]).astype(np.uint16) for k in (0, 1))
    return Events(x, y, events.t_us[kept], events.p[kept], events.size)


def event_picture(recording: Watched, t_us: int, window_us: int) -> str:
    """The events of a window as a data URI (WebP)."""
    window = window_at(recording.events, t_us, window_us)
    picture = draw_events(window.events, t_us, window_us, _STYLE)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, round(image.height * _WIDEST / image.width)), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def chosen_rows(values: Values, count: int = 3) -> dict[str, np.ndarray]:
    """Rows of the best, middle and worst errors (2D where there is none in space), far apart in each group."""
    error = values.of["mpjpe21"]
    error = error if np.isfinite(error).any() else values.of["px21"]
    order = np.argsort(error, kind="stable")[: int(np.isfinite(error).sum())]
    middle = len(order) // 2
    near = order[np.argsort(np.abs(np.arange(len(order)) - middle), kind="stable")]
    return {name: _apart(rows, count) for name, rows in (("best", order), ("median", near), ("worst", order[::-1]))}


def _apart(rows: np.ndarray, count: int, least: int = 8) -> np.ndarray:
    """The first rows of a list that are not neighbours of one another."""
    taken: list[int] = []
    for row in rows:
        if all(abs(int(row) - other) >= least for other in taken):
            taken.append(int(row))
        if len(taken) == count:
            break
    return np.array(taken, np.int64)


def figure(predictions: Predictions, values: Values, row: int, recordings: dict[int, Watched]) -> str:
    """One row as a figure: events, truth and prediction, and its error."""
    seen = predictions.recordings[predictions.recording[row]]
    width, height = seen.size
    number = int(predictions.recording[row])
    picture = ""
    if number in recordings:
        uri = event_picture(recordings[number], int(predictions.t_us[row]), int(predictions.window_us[row]))
        picture = f'<image href="{uri}" width="{width}" height="{height}"/>'
    lines = skeleton(predictions.truth_px[row], "truth")
    if predictions.found[row]:
        lines += skeleton(predictions.joints_px[row], "said")
    since = (int(predictions.t_us[row]) - seen.start_us) / 1e6
    told = f"{_told(values, row)} &middot; {seen.name} &middot; {since:.2f} s"
    return (
        f'<figure><svg class="frame" viewBox="-0.5 -0.5 {width} {height}">{picture}{lines}</svg>'
        f"<figcaption>{told}</figcaption></figure>"
    )


def _told(values: Values, row: int) -> str:
    error = values.of["mpjpe21"][row]
    return f"{error:.1f} mm" if np.isfinite(error) else f"{values.of['px21'][row]:.1f} px"


def player_data(predictions: Predictions, values: Values, recordings: dict[int, Watched]) -> list[dict[str, Any]]:
    """What the player shows: of each watched recording its first rows, with pictures and points."""
    shown, spatial = [], bool(np.isfinite(values.of["mpjpe21"]).any())
    for number, recording in recordings.items():
        rows = np.flatnonzero(predictions.recording == number)[:SHOWN]
        seen = predictions.recordings[number]
        frames = [_frame(predictions, values, int(row), recording, seen.start_us) for row in rows]
        about = {"name": seen.name, "width": seen.size[0], "height": seen.size[1], "unit": "mm" if spatial else "px"}
        shown.append(about | {"frames": frames})
    return shown


def _frame(predictions: Predictions, values: Values, row: int, recording: Watched, start_us: int) -> dict[str, Any]:
    def points(name: str) -> list[float] | None:
        found = getattr(predictions, name)[row]
        return np.round(found, 1).ravel().tolist() if np.isfinite(found).all() else None

    def number(name: str) -> float | None:
        value = float(values.of[name][row])
        return round(value, 2) if np.isfinite(value) else None

    t_us = int(predictions.t_us[row])
    return {
        "picture": event_picture(recording, t_us, int(predictions.window_us[row])),
        "t": round((t_us - start_us) / 1e6, 3),
        "truth": points("truth_px"),
        "said": points("joints_px") if predictions.found[row] else None,
        "error": number("mpjpe21") if number("mpjpe21") is not None else number("px21"),
    }
