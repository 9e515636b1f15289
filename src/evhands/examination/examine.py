"""One recording, or one sequence of the EvRealHands layout, looked through from its files to its truth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evhands.events.io import EventFile, open_events
from evhands.events.io.summary import Summary
from evhands.evrealhands_layout import LayoutError, read_annotations, read_sequence
from evhands.evrealhands_layout.sequence import ANNOTATIONS, FAST_ANNOTATIONS
from evhands.examination.clock import STEP_US, ClockOffset, clock_offset, events_at, moments_of_motion
from evhands.examination.event_file import examine_events, gaps_in_motion
from evhands.examination.findings import Examined, Finding
from evhands.examination.placing import Placed, matrices, pose_rows
from evhands.examination.sheet import TILE_US, moment_to_show, tile
from evhands.examination.truth import (
    examine_boxes,
    examine_cameras,
    examine_joints,
    examine_times,
    examine_units,
)
from evhands.hand.model import HandModel, load_hand, mirror_model
from evhands.recording import Recording, read_recording
from evhands.types import Events, InputError, Size

LEAST_OFFSET_MS = 8.0
_LEAST_AGREEMENT = 0.1
_SPAN_US = 100_000
_MOST_PIXELS = 1 << 22


def examine(source: Path, *, hand: HandModel | None = None) -> Examined:
    """Look through a .h5 recording or a sequence folder; `hand` is needed where the poses are MANO's.

    Whatever is wrong with the data becomes a finding; only a hand model that is wanted and not given is an error.
    """
    layout = source.is_dir()
    recording, found = _read(source, layout, hand)
    summary, more = _events(source, layout, recording)
    result = Examined(name=source.name if layout else source.stem, findings=(*found, *more), **_figures(summary))
    if recording is None or summary is None or not summary.events:
        return replace(result, not_examined=("the truth, because the files could not be read whole",))
    return _with_truth(result, recording, summary, hand)


# --- files ----------------------------------------------------------------------------------------------------------


def _read(source: Path, layout: bool, hand: HandModel | None) -> tuple[Recording | None, list[Finding]]:
    """The recording, None where it cannot be read, and what is wrong with its files."""
    found: list[Finding] = []
    if layout and not _needs(source, hand, found):
        return None, found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the event file: `examine_events` tells them
        try:
            if not layout:
                return read_recording(source), found
            evaluation = (source / FAST_ANNOTATIONS).exists()
            return read_sequence(source, hand=hand, evaluation=evaluation, check_frames=True), found
        except LayoutError as error:
            found += [Finding(_kind(text), text) for text in error.faults]
        except InputError as error:
            if "no events" not in str(error) and "times run backwards" not in str(error):
                found.append(Finding(_kind(str(error)), str(error)))
        except OSError as error:
            found.append(Finding("unreadable", f"{error.filename or source}: {error.strerror or error}."))
    return None, found


def _needs(folder: Path, hand: HandModel | None, found: list[Finding]) -> bool:
    """Whether the annotations can be read, with the hand model that is given; what is wrong with them is found."""
    for name in (ANNOTATIONS, FAST_ANNOTATIONS):
        if name == FAST_ANNOTATIONS and not (folder / name).exists():
            continue
        try:
            annotations = read_annotations(folder / name)
        except LayoutError as error:
            found += [Finding(_kind(text), text) for text in error.faults]
            continue
        except InputError as error:
            found.append(Finding(_kind(str(error)), str(error)))
            continue
        if annotations.manos or annotations.manos_flip:
            _want(annotations.hand_model, hand, folder / name)
    return not found


def _want(model: str, hand: HandModel | None, path: Path) -> None:
    if model != "open" and (hand is None or hand.name != model):
        raise InputError(
            f"{path} holds poses in parameters of the hand model '{model}', and "
            f"{'none was given' if hand is None else f'the one given is {hand.name!r}'}. Wanted its file: for 'mano' "
            "say --hand MANO_RIGHT.pkl (mano.is.tue.mpg.de, after registration)."
        )


def _kind(text: str) -> str:
    """The kind of finding that an error of reading is."""
    words = {
        "NaN": "not finite", "not all finite": "not finite", "repeated": "repeated id",
        "wanted an image": "missing frames", "Cannot read": "unreadable", ".aedat4 files": "unreadable",
        "is not JSON": "schema",
    }  # fmt: skip
    return next((kind for word, kind in words.items() if word in text), "schema")


def _events(source: Path, layout: bool, recording: Recording | None) -> tuple[Summary | None, list[Finding]]:
    files = sorted(source.glob("*.aedat4")) if layout else [source]
    try:
        if recording is not None and isinstance(recording.stream, EventFile):
            return examine_events(recording.stream)
        return examine_events(open_events(files[0])) if len(files) == 1 else (None, [])
    except (InputError, OSError) as error:
        return None, [] if recording is None and not layout else [Finding("unreadable", str(error))]


def _figures(summary: Summary | None) -> dict[str, Any]:
    if summary is None:
        return {}
    return {
        "size": summary.size, "events": summary.events, "seconds": summary.duration_us * 1e-6,
        "rate_hz": summary.mean_rate_hz, "gaps": summary.gap_count,
    }  # fmt: skip


# --- truth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """Events about the moments of motion, and those of the picture."""

    moments: np.ndarray
    events: list[Events]
    shown_us: int | None
    shown: Events


def _with_truth(result: Examined, recording: Recording, summary: Summary, hand: HandModel | None) -> Examined:
    tags = recording.tags
    fast = tags is not None and tags.fast
    placed = _placed(recording, hand, result.name)
    missing, found = examine_times(recording, sparse=fast and recording.pose is None)
    found += [Finding("no events", text) for text in _labels_without_events(recording, summary, result)]
    found += examine_cameras(recording) + examine_units(recording, placed)
    residual: float | None = None
    of_joints: list[Finding] = []
    if not any(finding.kind == "units" for finding in found):
        residual, of_joints = examine_joints(recording, placed)
    found += of_joints
    misplaced = [f.kind for f in found if f.kind in ("units", "camera", "handedness", "time order", "repeated id")]
    if not misplaced:
        found += examine_boxes(recording, placed)
        found += [] if placed is None else gaps_in_motion(summary, placed)
    usable = None if misplaced or recording.camera.size[0] * recording.camera.size[1] > _MOST_PIXELS else placed
    seen = _look(recording, summary, usable)
    offset = None if usable is None else clock_offset(usable, seen.moments, seen.events)
    skipped = _skipped(placed, misplaced, offset)
    if offset is not None:
        found += _judged(offset)
    labels = 0 if recording.pose_t_us is None else len(recording.pose_t_us)
    all_found = (*result.findings, *found)
    return replace(
        result,
        findings=all_found,
        side=None if tags is None else tags.side,
        subject=None if tags is None else tags.subject,
        bucket=None if tags is None else "fast" if fast else f"{tags.scene}_{tags.gesture}",
        labels=labels,
        missing_labels=missing,
        frames=sum(len(view.frames_t_us) for view in recording.views),
        offset_ms=None if offset is None else offset.offset_us / 1e3,
        spread_ms=None if offset is None else offset.spread_us / 1e3,
        agreement=None if offset is None else offset.agreement,
        residual_mm=residual,
        not_examined=skipped,
        tile=tile(result.name, seen.shown, seen.shown_us, placed, bool(all_found)),
    )


def _placed(recording: Recording, hand: HandModel | None, name: str) -> Placed | None:
    """The poses in order of time; None where there are none."""
    if recording.pose is None or recording.pose_t_us is None or not len(recording.pose_t_us):
        return None
    pose = recording.pose
    _want(pose.hand_model, hand, Path(name))
    model = load_hand("open", pose.side) if pose.hand_model == "open" else hand
    assert model is not None
    model = model if model.side == pose.side else mirror_model(model)
    order = np.argsort(recording.pose_t_us, kind="stable")
    return Placed(recording.pose_t_us[order], pose_rows(pose, order), model, recording.camera, *matrices(recording))


def _labels_without_events(recording: Recording, summary: Summary, result: Examined) -> list[str]:
    t_us = recording.pose_t_us
    if t_us is None or summary.start_us is None or summary.end_us is None or _cut(result):
        return []
    outside = (t_us < summary.start_us - _SPAN_US) | (t_us > summary.end_us + _SPAN_US)
    if not outside.any():
        return []
    return [f"{int(outside.sum())} of {len(t_us)} labels lie before the first event or after the last."]


def _cut(result: Examined) -> bool:
    return any(finding.kind in ("truncated", "time order") for finding in result.findings)


def _look(recording: Recording, summary: Summary, placed: Placed | None) -> _Seen:
    """The events that the other checks need, in one pass over what is sound of the file."""
    first, last = summary.start_us or 0, summary.end_us or 0
    moments = np.zeros(0, np.int64) if placed is None else moments_of_motion(placed, first, last)
    shown_us = moment_to_show(recording, moments, first, last)
    half = STEP_US // 2
    windows = [(int(t) - half, int(t) + half) for t in moments] + [(shown_us - TILE_US, shown_us)]
    stream = recording.stream
    assert isinstance(stream, EventFile)
    size: Size = stream.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            events = events_at(replace(stream, salvage=True), windows)
        except InputError:  # told by `examine_events`
            events = [Events.empty(size) for _ in windows]
    return _Seen(moments, events[:-1], shown_us, events[-1])


def _judged(offset: ClockOffset) -> list[Finding]:
    off, spread = offset.offset_us / 1e3, offset.spread_us / 1e3
    if offset.agreement < _LEAST_AGREEMENT:
        text = f"the mesh does not move where the events are (correlation {offset.agreement:.2f} at best)."
        return [Finding("alignment", text)]
    if abs(off) < LEAST_OFFSET_MS + 3 * spread:
        return []
    late = "later" if off > 0 else "earlier"
    text = f"the truth is {abs(off):.1f} ms {late} than the events (+-{spread:.1f} ms, {offset.moments} moments)."
    return [Finding("clock", text)]


def _skipped(placed: Placed | None, misplaced: list[str], offset: ClockOffset | None) -> tuple[str, ...]:
    if placed is None:
        return ("clock and mesh: there are no hand poses",)
    if misplaced:
        return (f"clock: first mend what was found ({', '.join(dict.fromkeys(misplaced))})",)
    return () if offset is not None else ("clock: the hand moves too little, or has too few labels",)
