"""Recordings as they are predicted and scored: events with a camera, labels, the times wanted, the columns of truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from evhands.data.labels import Labels, labels_of
from evhands.evrealhands_layout import read_sequence
from evhands.geometry import pixels_inside, project, undistortion_map
from evhands.hand.model import HandModel, pose_hand
from evhands.metrics import vertex_errors
from evhands.predictions import Seen, blank, bucket_of
from evhands.recording import Recording, read_recording
from evhands.types import Camera, Events, HandPose

FIRST_US = 100_000
"""The protocol `evhands` scores every labelled time from so long after the first event on."""
PARTS = ("orientation", "wrist", "joints", "shape")


@dataclass(frozen=True)
class Scene:
    """A recording as it is predicted and scored. camera: of the events; labels: in the image that K projects into.

    annotated_px: points that a person marked on the sensor, one row a label, NaN where nobody did.
    """

    seen: Seen
    events: Events
    camera: Camera
    labels: Labels
    annotated_px: Float[np.ndarray, "m 21 2"]

    @property
    def K(self) -> np.ndarray:
        return np.array(self.seen.K)


def open_scene(source: Path, hand: HandModel | None = None) -> Scene:
    """Read a recording (.h5, or an EvRealHands sequence folder, with the truth of its evaluation) with all events."""
    recording = read_sequence(source, hand=hand, evaluation=True) if source.is_dir() else read_recording(source)
    events, camera = _pinhole_where_needed(recording)
    labels = labels_of(recording)
    K = recording.camera.K if recording.rectification is None else recording.rectification.K_points
    start_us = int(events.t_us[0]) if len(events) else 0
    seen = seen_of(source.stem if source.is_file() else source.name, recording, labels, K, start_us)
    return Scene(seen, events, camera, labels, annotated_points(recording))


def seen_of(name: str, recording: Recording, labels: Labels, K: np.ndarray, start_us: int) -> Seen:
    """What a file of predictions remembers of a recording."""
    tags = recording.tags
    return Seen(
        name=name,
        side=labels.side,
        subject="" if tags is None else tags.subject,
        bucket=bucket_of(tags),
        size=recording.camera.size,
        K=tuple(tuple(float(v) for v in row) for row in np.asarray(K)),
        start_us=start_us,
    )


def annotated_points(recording: Recording) -> np.ndarray:
    """(m, 21, 2) on the sensor, in the order of time; only of fast motion, where a person marked them."""
    count = 0 if recording.pose_t_us is None else len(recording.pose_t_us)
    if recording.joints_px is None or recording.tags is None or not recording.tags.fast or recording.pose_t_us is None:
        return np.full((count, 21, 2), np.nan, np.float32)
    return recording.joints_px[np.argsort(recording.pose_t_us, kind="stable")].astype(np.float32)


def _pinhole_where_needed(recording: Recording) -> tuple[Events, Camera]:
    """Events and their camera. Where a data set undistorts onto another image than its own lens would, which no
    `Camera` says, the events are moved there, to the nearest pixel."""
    both, lens, events = recording.rectification, recording.camera, recording.events
    if both is None or np.array_equal(both.K_image, both.K_points):
        return events, replace(lens, T_camera_world=None)
    table = undistortion_map(lens, both.K_image)
    moved = table[events.y, events.x]
    kept = pixels_inside(moved, lens.size)
    x, y = (np.rint(moved[kept, k]).astype(np.uint16) for k in (0, 1))
    return Events(x, y, events.t_us[kept], events.p[kept], events.size), Camera(both.K_points, lens.size)


# --- which rows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """Times (n,) at which a pose is wanted, and the row of the label there (-1: none)."""

    t_us: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]


def labelled_times(scene: Scene) -> Wanted:
    """Every labelled time from 100 ms after the first event on (protocol `evhands`)."""
    rows = np.flatnonzero(scene.labels.located & (scene.labels.t_us >= scene.seen.start_us + FIRST_US))
    return Wanted(scene.labels.t_us[rows], rows)


def scheduled_ends(
    wanted_us: Int64[np.ndarray, " n"], start_us: int, stride_us: int, window_us: int
) -> Int64[np.ndarray, " k"]:
    """When windows end so that one ends at each wanted time, and between them about every stride.

    Before the first wanted time one ends every stride, from one window after the start of the recording on.
    """
    if not len(wanted_us):
        return np.zeros(0, np.int64)
    before = np.arange(wanted_us[0], start_us + min(window_us, FIRST_US) - 1, -stride_us)[::-1]
    parts = [before]
    for a, b in zip(wanted_us[:-1], wanted_us[1:]):
        steps = max(round((int(b) - int(a)) / stride_us), 1)
        parts.append(a + np.round((b - a) * np.arange(1, steps + 1) / steps).astype(np.int64))
    return np.unique(np.concatenate(parts).astype(np.int64))


# --- columns --------------------------------------------------------------------------------------------------------


def truth_columns(labels: Labels, annotated_px: np.ndarray, wanted: Wanted, K: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `Predictions` that the labels alone decide."""
    columns = blank(len(wanted.t_us))
    have = wanted.label >= 0
    rows = wanted.label[have]
    projected = project(labels.joints_m.astype(np.float64), K)
    marked = np.isfinite(annotated_px[:, 0, 0]) | ~np.isfinite(projected[:, 0, 0])
    columns["t_us"] = wanted.t_us
    columns["truth_m"][have] = labels.joints_m[rows]
    columns["truth_px"][have] = np.where(marked[:, None, None], labels.joints_px, projected)[rows]
    columns["annotated_px"][have] = annotated_px[rows]
    columns["speed"][have] = _speeds(labels)[rows]
    return columns


def _speeds(labels: Labels) -> np.ndarray:
    """(m,) mean speed of the joints, by the neighbours before and after where they lie within 0.2 s of each other."""
    speed = np.full(len(labels), np.nan)
    if len(labels) > 2:
        span = labels.t_us[2:] - labels.t_us[:-2]
        way = np.linalg.norm(labels.joints_m[2:] - labels.joints_m[:-2], axis=-1).mean(-1)
        speed[1:-1] = np.where(span <= 200_000, way / (span * 1e-6), np.nan)
        speed[0], speed[-1] = speed[1], speed[-2]
    return speed


def with_vertices(
    columns: dict[str, np.ndarray], labels: Labels, wanted: Wanted, pose: HandPose, hand: HandModel
) -> dict[str, np.ndarray]:
    """The columns with vertex errors, where prediction and truth are parameters of one hand model."""
    errors = {name: np.full(len(wanted.t_us), np.nan, np.float32) for name in ("mpvpe", "pa_mpvpe")}
    rows = np.flatnonzero((wanted.label >= 0) & columns["found"])
    rows = rows[labels.posed[wanted.label[rows]]]
    if labels.hand_model == hand.name and len(rows):
        for part in np.array_split(rows, -(-len(rows) // 128)):
            said, true = (
                _mesh(hand, replace(pose, **{name: getattr(whose, name)[rows] for name in PARTS}))
                for whose, rows in ((pose, part), (labels, wanted.label[part]))
            )
            found = vertex_errors(said[0], true[0], (said[1], true[1]))
            for name, values in found.items():
                errors[name][part] = values
    return columns | {"vertex_errors": errors["mpvpe"], "pa_vertex_errors": errors["pa_mpvpe"]}


def _mesh(hand: HandModel, pose: HandPose) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and wrists."""
    with torch.no_grad():
        mesh = pose_hand(hand, pose).mesh()
    return mesh.vertices.numpy().astype(np.float64), mesh.joints[:, 0].numpy().astype(np.float64)


def predicted_columns(pose: HandPose, hand: HandModel, K: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that n predicted poses in the camera's frame decide; `hand` is of the side of the pose."""
    with torch.no_grad():
        joints_m = pose_hand(hand, pose).joints().numpy()
    return {
        **{name: np.float32(getattr(pose, name)) for name in PARTS},
        "joints_m": joints_m,
        "joints_px": project(joints_m.astype(np.float64), K).astype(np.float32),
    }


def window_counts(events: Events, ends_us: np.ndarray, window_us: int) -> np.ndarray:
    """Events in each window that ends so."""
    first, last = (np.searchsorted(events.t_us, edge, side="left") for edge in (ends_us - window_us, ends_us))
    return (last - first).astype(np.int64)
