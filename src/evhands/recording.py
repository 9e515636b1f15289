"""Our recording on disk: events, the camera that saw them and, where known, the truth; one HDF5 file.

Beside the events (layout: `evhands.events.io.hdf5`) a file may hold
    camera/K (3, 3), camera/distortion (k,); its size is that of the events
    poses/t_us (m,), orientation (m, 3), wrist (m, 3), joints (m, 15, 3), shape (m, 10); attributes side, hand_model
    joints_m (m, 21, 3) in `openpose21` order, metres, camera frame
    boxes_px (m, 4): x0, y0, x1, y1 of the projected joints
    attribute `meta`: JSON of how it was made.
Poses are those of `evhands.types.HandPose`; their times are on the clock of the events. Readers of events alone
(`evhands.open_events`, DSEC's own) see an ordinary event file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from jaxtyping import Float, Int64

from evhands.events.io.hdf5 import EventsWriter, open_hdf5
from evhands.files import hdf5_file, replacing
from evhands.geometry import default_camera
from evhands.types import Camera, Events, EventStream, HandPose, InputError, Side

_POSE_FIELDS = {"orientation": (3,), "wrist": (3,), "joints": (15, 3), "shape": (10,)}


@dataclass(frozen=True)
class Recording:
    """Events with their camera, and the truth at m times or None where there is none.

    `stream` reads chunk by chunk, again at each iteration; `camera` is the stated default where the file has none.
    """

    stream: EventStream
    camera: Camera
    pose_t_us: Int64[np.ndarray, " m"] | None = None
    pose: HandPose | None = None
    joints_m: Float[np.ndarray, "m 21 3"] | None = None
    boxes_px: Float[np.ndarray, "m 4"] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def events(self) -> Events:
        """All events at once, read anew at each call."""
        return Events.concatenate(list(self.stream), self.stream.size)


def write_recording(
    path: Path | str,
    events: Events | Iterable[Events],
    camera: Camera,
    pose_t_us: Int64[np.ndarray, " m"] | None = None,
    pose: HandPose | None = None,
    joints_m: Float[np.ndarray, "m 21 3"] | None = None,
    boxes_px: Float[np.ndarray, "m 4"] | None = None,
    meta: dict[str, Any] | None = None,
) -> None:
    """Write a recording; `events` may come in chunks, in time order. A file already there is replaced at the end."""
    with replacing(path) as temporary, hdf5_file(temporary) as file:
        file.attrs["meta"] = json.dumps(meta or {})
        group = file.create_group("camera")
        group["K"], group["distortion"] = np.float64(camera.K), np.float64(camera.distortion)
        if pose is not None and pose_t_us is not None:
            _write_poses(file.create_group("poses"), pose_t_us, pose)
        for name, values in (("joints_m", joints_m), ("boxes_px", boxes_px)):
            if values is not None:
                file[name] = np.float32(values)
        writer = EventsWriter(file, camera.size)
        for part in [events] if isinstance(events, Events) else events:
            writer.append(part)


def _write_poses(group: h5py.Group, t_us: np.ndarray, pose: HandPose) -> None:
    group.attrs.update({"side": pose.side, "hand_model": pose.hand_model})
    group["t_us"] = np.int64(t_us)
    for name in _POSE_FIELDS:
        group[name] = np.float32(getattr(pose, name))


def read_recording(path: Path | str) -> Recording:
    """Open a recording: the truth is read, the events are left on disk until asked for.

    An HDF5 file of events alone gives a recording without truth. Anything else is an `InputError`.
    """
    path = Path(path)
    stream = open_hdf5(path)
    with h5py.File(path, "r") as file:
        camera = _camera(file, path, stream.size) or default_camera(stream.size)
        meta = json.loads(str(file.attrs.get("meta", "{}")))
        t_us, pose = _poses(file, path)
        count = None if t_us is None else len(t_us)
        joints_m = _optional(file, path, "joints_m", count, (21, 3))
        boxes_px = _optional(file, path, "boxes_px", count, (4,))
    return Recording(stream, camera, t_us, pose, joints_m, boxes_px, meta)


def read_camera(path: Path | str) -> Camera | None:
    """The camera that an HDF5 recording carries, or None."""
    path = Path(path)
    size = open_hdf5(path).size
    with h5py.File(path, "r") as file:
        return _camera(file, path, size)


def _camera(file: h5py.File, path: Path, size: tuple[int, int]) -> Camera | None:
    group = file.get("camera")
    if not isinstance(group, h5py.Group):
        return None
    K = _numbers(group, path, "K", (3, 3))
    return Camera(K, size, _numbers(group, path, "distortion", (-1,)))


def _poses(file: h5py.File, path: Path) -> tuple[np.ndarray | None, HandPose | None]:
    group = file.get("poses")
    if not isinstance(group, h5py.Group):
        return None, None
    t_us = _numbers(group, path, "t_us", (-1,), np.int64)
    values = {name: _numbers(group, path, name, (len(t_us), *tail), np.float32) for name, tail in _POSE_FIELDS.items()}
    side = str(group.attrs.get("side", "right"))
    if side not in ("right", "left"):
        raise InputError(
            f"{path} holds poses of a {side!r} hand. Wanted 'right' or 'left' in the attribute poses.side."
        )
    return t_us, HandPose(side=cast(Side, side), hand_model=str(group.attrs.get("hand_model", "open")), **values)


def _optional(file: h5py.File, path: Path, name: str, count: int | None, tail: tuple[int, ...]) -> np.ndarray | None:
    return _numbers(file, path, name, (-1 if count is None else count, *tail), np.float32) if name in file else None


def _numbers(
    group: h5py.Group, path: Path, name: str, shape: tuple[int, ...], kind: type[np.generic] = np.float64
) -> np.ndarray:
    """A finite array of `shape`, where -1 is any length."""
    where = f"{group.name.rstrip('/')}/{name}".lstrip("/")
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{path} has no {where}. Wanted a recording that evhands wrote; simulate or convert it again.")
    values = np.asarray(found[()])
    fits = values.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, values.shape, strict=True))
    if not fits or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise InputError(
            f"{path}: {where} holds {values.dtype} values of shape {values.shape}, perhaps not all finite. Wanted "
            f"finite numbers of shape {tuple('any' if n == -1 else n for n in shape)}; simulate the recording again."
        )
    return values.astype(kind)
