"""A sequence of the EvRealHands layout as one of our recordings: checked whole, in our terms, one HDF5 file.

Millimetres, world coordinates, MANO's root offset, mirrored left hands and the clock offset end here (by
`evhands.evrealhands_layout`). Events keep their whole-number pixels of the sensor, and the recording says how they are
undistorted (`camera`, `rectification`); those that leave the undistorted image, x against its width and y against its
height, are left out. The RGB frames, and their motion-blurred twins, are copied byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from evhands.data.cache import CacheConfig, undistorted
from evhands.data.kernels import keep_events
from evhands.events.io import EventFile, PartialRecordingWarning, RecordingWarning
from evhands.evrealhands_layout import read_sequence
from evhands.evrealhands_layout.sequence import FAST_ANNOTATIONS
from evhands.geometry import pixels_inside
from evhands.hand.model import HandModel
from evhands.recording import Recording, read_recording, write_recording
from evhands.types import Events, InputError

_VERSION = 1
_HASHED_END = 1 << 20
_MOST_PIXELS = 1 << 22
_LONGEST_US = 86_400_000_000


@dataclass(frozen=True)
class Prepared:
    """How a sequence was prepared. left_out: events that leave the undistorted image. kept: its file was there."""

    name: str
    events: int
    left_out: int
    labels: int
    frames: int
    warnings: tuple[str, ...] = ()
    kept: bool = False


def prepare_sequence(folder: Path, target: Path, *, hand: HandModel | None = None, salvage: bool = False) -> Prepared:
    """Write the sequence in `folder` to the recording `target`, unless that holds it already.

    Fast sequences get the truth of their `annotf.json` where there is one. A recording of events that is cut off or
    damaged is an `InputError`; with salvage what is sound of it is taken, and `warnings` say how much that was.
    Anything else that is wrong is an `InputError`; then `target` is as it was.
    """
    mark = _fingerprint(folder, hand, salvage)
    if (done := _already(target, mark)) is not None:
        return done
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordingWarning)
        if not salvage:
            warnings.simplefilter("error", PartialRecordingWarning)
        try:
            prepared = _prepare(folder, target, hand, salvage, mark)
        except PartialRecordingWarning as warning:
            raise InputError(
                f"{warning} Wanted a whole recording: copy the sequence again, or take what is sound with --salvage."
            ) from warning
    told = tuple(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, RecordingWarning)))
    return replace(prepared, warnings=told)


def _prepare(folder: Path, target: Path, hand: HandModel | None, salvage: bool, mark: str) -> Prepared:
    evaluation = (folder / FAST_ANNOTATIONS).exists()
    recording = read_sequence(folder, hand=hand, evaluation=evaluation, check_frames=True)
    stream = recording.stream
    assert isinstance(stream, EventFile)
    events = EventsThatStay(replace(stream, salvage=salvage), _kept_pixels(recording))
    frames = sum(len(view.frames_t_us) for view in recording.views)
    labels = 0 if recording.pose_t_us is None else len(recording.pose_t_us)

    def prepared() -> Prepared:
        return Prepared(folder.name, events.written, events.left_out, labels, frames)

    truth = {name: getattr(recording, name) for name in
             ("pose_t_us", "pose", "joints_m", "boxes_px", "joints_px", "views", "tags", "rectification")}  # fmt: skip
    meta = recording.meta | {"source": mark}
    write_recording(target, events, recording.camera, meta=lambda: meta | {"prepared": asdict(prepared())}, **truth)
    return prepared()


class EventsThatStay:
    """The events of a file whose pixels are kept; counts those that are not while it is read."""

    def __init__(self, file: EventFile, kept: np.ndarray | None) -> None:
        self.size = file.size
        self.written = self.left_out = 0
        self._file, self._kept = file, kept

    def __iter__(self) -> Iterator[Events]:
        self.written = self.left_out = 0
        first_us = None
        for events in self._file:
            if not len(events):
                continue
            first_us = int(events.t_us[0]) if first_us is None else first_us
            if int(events.t_us[-1]) - first_us > _LONGEST_US:
                raise InputError(
                    f"{self._file.path}: its clock runs for {(int(events.t_us[-1]) - first_us) / 8.64e10:.1f} days. "
                    "Wanted a day at most; look for a jump with `evhands info`."
                )
            stay = events if self._kept is None else _of_pixels(events, self._kept)
            self.written, self.left_out = self.written + len(stay), self.left_out + len(events) - len(stay)
            yield stay
        if not self.written:
            raise InputError(
                f"{self._file.path}: none of its {self.left_out} events lies in the undistorted image. Wanted a camera "
                "that sees them; look at K_old, dist and K_new of the event camera in the annotations."
            )


def _of_pixels(events: Events, kept: np.ndarray) -> Events:
    x, y, t_us, p = (np.empty_like(column) for column in (events.x, events.y, events.t_us, events.p))
    count = keep_events(events.x, events.y, events.t_us, events.p, kept, x, y, t_us, p)
    return Events(x[:count], y[:count], t_us[:count], p[:count], events.size)


def _kept_pixels(recording: Recording) -> np.ndarray | None:
    """Which pixels of the sensor (h, w) land in the undistorted image; None = all."""
    width, height = recording.camera.size
    if width * height > _MOST_PIXELS:
        raise InputError(
            f"Found a sensor of {width}x{height} pixels. Wanted at most {_MOST_PIXELS} of them; the header of the "
            "event file is damaged: copy it again."
        )
    camera, table = undistorted(recording, CacheConfig())
    return None if table is None else pixels_inside(table.reshape(-1, 2), camera.size).reshape(height, width)


def _already(target: Path, mark: str) -> Prepared | None:
    """What the file at `target` holds, if it was made of the same sequence by the same settings."""
    if not target.exists():
        return None
    try:
        recording = read_recording(target)
        if recording.meta.get("source") != mark:
            return None
        return replace(Prepared(**recording.meta["prepared"]), warnings=(), kept=True)
    except (InputError, KeyError, TypeError):
        return None


def _fingerprint(folder: Path, hand: HandModel | None, salvage: bool) -> str:
    """A checksum of the annotations, of the ends of the event file, of the names and sizes of all else, and of what
    shapes the result."""
    digest = hashlib.sha256(json.dumps([_VERSION, salvage]).encode())
    if hand is not None:
        digest.update(hand.name.encode() + hand.mean_pose.numpy().tobytes() + hand.vertices.numpy().tobytes())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
        elif path.suffix == ".aedat4":
            with open(path, "rb") as file:
                digest.update(file.read(_HASHED_END))
                file.seek(max(size - _HASHED_END, 0))
                digest.update(file.read())
    return digest.hexdigest()
