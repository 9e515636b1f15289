"""Our recording on disk: events, the camera that saw them and, where known, the truth; one HDF5 file.

Beside the events (layout: `evhands.events.io.hdf5`) a file may hold
    camera/K (3, 3), camera/distortion (k,), where known camera/T_camera_world (4, 4); its size is that of the events
    poses/t_us (m,), orientation (m, 3), wrist (m, 3), joints (m, 15, 3), shape (m, 10); attributes side, hand_model
    labels_t_us (m,): instead of poses/t_us, where there is other truth than poses
    joints_m (m, 21, 3) in `openpose21` order, metres, camera frame
    joints_px (m, 21, 2): the same on the sensor, lens distortion included
    boxes_px (m, 4): x0, y0, x1, y1 around the projected joints, on the sensor
    other/poses, other/joints_m: a second hand in view, at the same times
    rectification/K_image, K_points (3, 3): see `Rectification`
    views/0, 1, ...: other cameras, with K, distortion, T_camera_world, frames_t_us (f,), frames (f,) JPEG or PNG files
    attribute `tags`: JSON of `Tags`; attribute `meta`: JSON of how it was made.
Poses are those of `evhands.types.HandPose`; their times are on the clock of the events. In joints_m, joints_px and
boxes_px a row of NaN is one that nobody annotated. Readers of events alone (`evhands.open_events`, DSEC's own) see an
ordinary event file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
from jaxtyping import Float, Int64

from evhands.events.io import recognise
from evhands.events.io.hdf5 import EventsWriter, open_hdf5
from evhands.files import hdf5_file, replacing
from evhands.geometry import default_camera, load_camera
from evhands.types import Camera, Events, EventStream, HandPose, InputError, Side, Size

_POSE_FIELDS = {"orientation": (3,), "wrist": (3,), "joints": (15, 3), "shape": (10,)}


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Whose hand a recording shows, in what light and how it moves: what data sets are split and scored by.

    gesture: fixed (from a list) or random; a data set may have other words for fast motion. checked: a person has
    looked through the truth.
    """

    side: Side
    subject: str
    scene: Literal["normal", "highlight", "flash"]
    fast: bool
    gesture: str
    checked: bool


@dataclass(frozen=True)
class Rectification:
    """How a data set undistorts where its own numbers are not one camera matrix.

    Events go through the lens of `Recording.camera` onto an image with matrix `K_image`, in which points of the camera
    frame are projected with `K_points`.
    """

    K_image: Float[np.ndarray, "3 3"]
    K_points: Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class View:
    """Another camera that watched, with its frames: the bytes of JPEG or PNG files, times on the clock of the events.

    `frames` may read from disk at each access. `camera.T_camera_world` is of the same world as the event camera's.
    """

    name: str
    camera: Camera
    frames_t_us: Int64[np.ndarray, " f"] = field(default_factory=lambda: np.zeros(0, np.int64))
    frames: Sequence[bytes] = ()


@dataclass(frozen=True)
class OtherHand:
    """The truth of a second hand in view, at the times of the first one's."""

    pose: HandPose
    joints_m: Float[np.ndarray, "m 21 3"]


@dataclass(frozen=True)
class Recording:
    """Events with their camera, and the truth at m times or None where there is none.

    `stream` reads chunk by chunk, again at each iteration; `camera` is the stated default where the file has none.
    Rows of joints_m, joints_px and boxes_px that nobody annotated are NaN.
    """

    stream: EventStream
    camera: Camera
    pose_t_us: Int64[np.ndarray, " m"] | None = None
    pose: HandPose | None = None
    joints_m: Float[np.ndarray, "m 21 3"] | None = None
    boxes_px: Float[np.ndarray, "m 4"] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    joints_px: Float[np.ndarray, "m 21 2"] | None = None
    views: tuple[View, ...] = ()
    tags: Tags | None = None
    rectification: Rectification | None = None
    other: OtherHand | None = None

    @property
    def events(self) -> Events:
        """All events at once, read anew at each call."""
        return Events.concatenate(list(self.stream), self.stream.size)


@dataclass(frozen=True)
class EventsInMemory:
    """Events as a stream of one chunk; `chunks` says what share of them has come with each."""

    events: Events

    @property
    def size(self) -> Size:
        return self.events.size

    def __iter__(self) -> Iterator[Events]:
        yield self.events

    def chunks(self) -> Iterator[tuple[Events, float]]:
        done = 0
        for part in self:
            done += len(part)
            yield part, done / max(len(self.events), 1)


def write_recording(
    path: Path | str,
    events: Events | Iterable[Events],
    camera: Camera,
    pose_t_us: Int64[np.ndarray, " m"] | None = None,
    pose: HandPose | None = None,
    joints_m: Float[np.ndarray, "m 21 3"] | None = None,
    boxes_px: Float[np.ndarray, "m 4"] | None = None,
    meta: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
    *,
    joints_px: Float[np.ndarray, "m 21 2"] | None = None,
    views: Sequence[View] = (),
    tags: Tags | None = None,
    rectification: Rectification | None = None,
    other: OtherHand | None = None,
) -> None:
    """Write a recording; `events` may come in chunks, in time order. A file already there is replaced at the end.

    A `meta` that is a function is called when the events have been written.
    """
    with replacing(path) as temporary, hdf5_file(temporary) as file:
        _write_camera(file.create_group("camera"), camera)
        if pose is not None and pose_t_us is not None:
            _write_poses(file.create_group("poses"), pose_t_us, pose)
        elif pose_t_us is not None:
            file["labels_t_us"] = np.int64(pose_t_us)
        for name, values in (("joints_m", joints_m), ("joints_px", joints_px), ("boxes_px", boxes_px)):
            if values is not None:
                file[name] = np.float32(values)
        if other is not None and pose_t_us is not None:
            group = file.create_group("other")
            _write_poses(group.create_group("poses"), pose_t_us, other.pose)
            group["joints_m"] = np.float32(other.joints_m)
        if tags is not None:
            file.attrs["tags"] = json.dumps(asdict(tags))
        if rectification is not None:
            group = file.create_group("rectification")
            group["K_image"], group["K_points"] = np.float64(rectification.K_image), np.float64(rectification.K_points)
        for index, view in enumerate(views):
            _write_view(file.create_group(f"views/{index}"), view)
        writer = EventsWriter(file, camera.size)
        for part in [events] if isinstance(events, Events) else events:
            writer.append(part)
        file.attrs["meta"] = json.dumps((meta() if callable(meta) else meta) or {})


def _write_camera(group: h5py.Group, camera: Camera) -> None:
    group["K"], group["distortion"] = np.float64(camera.K), np.float64(camera.distortion)
    if camera.T_camera_world is not None:
        group["T_camera_world"] = np.float64(camera.T_camera_world)


def _write_view(group: h5py.Group, view: View) -> None:
    group.attrs.update({"name": view.name, "width": view.camera.size[0], "height": view.camera.size[1]})
    _write_camera(group, view.camera)
    group["frames_t_us"] = np.int64(view.frames_t_us)
    frames = group.create_dataset("frames", (len(view.frames),), h5py.vlen_dtype(np.uint8))
    for index, frame in enumerate(view.frames):
        frames[index] = np.frombuffer(frame, np.uint8)


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
        t_us, pose = _poses(file, path)
        if t_us is None and "labels_t_us" in file:
            t_us = _numbers(file, path, "labels_t_us", (-1,), np.int64)
        count = None if t_us is None else len(t_us)
        return Recording(
            stream=stream,
            camera=_camera(file, path, stream.size) or default_camera(stream.size),
            pose_t_us=t_us,
            pose=pose,
            joints_m=_optional(file, path, "joints_m", count, (21, 3)),
            boxes_px=_optional(file, path, "boxes_px", count, (4,)),
            meta=json.loads(str(file.attrs.get("meta", "{}"))),
            joints_px=_optional(file, path, "joints_px", count, (21, 2)),
            views=tuple(_view(file, path, index) for index in range(len(file.get("views", ())))),
            tags=_tags(file, path),
            rectification=_rectification(file, path),
            other=_other(file, path, count),
        )


def read_camera(path: Path | str) -> Camera | None:
    """The camera that an HDF5 recording carries, or None."""
    path = Path(path)
    size = open_hdf5(path).size
    with h5py.File(path, "r") as file:
        return _camera(file, path, size)


def _camera(file: h5py.Group, path: Path, size: Size, name: str = "camera") -> Camera | None:
    group = file.get(name)
    if not isinstance(group, h5py.Group):
        return None
    T_camera_world = _numbers(group, path, "T_camera_world", (4, 4)) if "T_camera_world" in group else None
    K = _numbers(group, path, "K", (3, 3))
    return Camera(K, size, _numbers(group, path, "distortion", (-1,)), T_camera_world)


def _view(file: h5py.File, path: Path, index: int) -> View:
    group = file.get(f"views/{index}")
    attributes = {} if group is None else dict(group.attrs)
    if not {"name", "width", "height"} <= attributes.keys() or "frames" not in group:
        raise InputError(
            f"{path}: views/{index} has no frames, name, width and height. Wanted a recording that evhands wrote; "
            "convert it again."
        )
    camera = _camera(file, path, (int(attributes["width"]), int(attributes["height"])), f"views/{index}")
    frames = StoredFrames(path, index, len(group["frames"]))
    t_us = _numbers(group, path, "frames_t_us", (len(frames),), np.int64)
    return View(str(attributes["name"]), cast(Camera, camera), t_us, frames)


class StoredFrames(Sequence[bytes]):
    """The frames of one view of a recording, read at each access."""

    def __init__(self, path: Path, view: int, count: int) -> None:
        self._path, self._view, self._count = path, view, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._count)))
        with h5py.File(self._path, "r") as file:
            return bytes(file[f"views/{self._view}/frames"][range(self._count)[index]])


def _tags(file: h5py.File, path: Path) -> Tags | None:
    if "tags" not in file.attrs:
        return None
    try:
        return Tags(**json.loads(str(file.attrs["tags"])))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the attribute tags is damaged ({error}). Convert the recording again.") from error


def _rectification(file: h5py.File, path: Path) -> Rectification | None:
    group = file.get("rectification")
    if group is None:
        return None
    return Rectification(_numbers(group, path, "K_image", (3, 3)), _numbers(group, path, "K_points", (3, 3)))


def _other(file: h5py.File, path: Path, count: int | None) -> OtherHand | None:
    group = file.get("other")
    if not isinstance(group, h5py.Group):
        return None
    _, pose = _poses(group, path)
    joints_m = _optional(group, path, "joints_m", count, (21, 3))
    return OtherHand(pose, joints_m) if pose is not None and joints_m is not None else None


def _poses(file: h5py.Group, path: Path) -> tuple[np.ndarray | None, HandPose | None]:
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


def _optional(file: h5py.Group, path: Path, name: str, count: int | None, tail: tuple[int, ...]) -> np.ndarray | None:
    """Truth of which a row may be missing."""
    if name not in file:
        return None
    return _numbers(file, path, name, (-1 if count is None else count, *tail), np.float32, rows_missing=True)


def _numbers(
    group: h5py.Group, path: Path, name: str, shape: tuple[int, ...], kind: type[np.generic] = np.float64,
    *, rows_missing: bool = False,
) -> np.ndarray:  # fmt: skip
    """A finite array of `shape`, where -1 is any length; with rows_missing whole rows may be NaN."""
    where = f"{group.name.rstrip('/')}/{name}".lstrip("/")
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{path} has no {where}. Wanted a recording that evhands wrote; simulate or convert it again.")
    values = np.asarray(found[()])
    fits = values.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, values.shape, strict=True))
    if not fits or values.dtype.kind not in "iuf" or not _sound(values, rows_missing):
        raise InputError(
            f"{path}: {where} holds {values.dtype} values of shape {values.shape}, perhaps not all finite. Wanted "
            f"finite numbers of shape {tuple('any' if n == -1 else n for n in shape)}; simulate the recording again."
        )
    return values.astype(kind)


def _sound(values: np.ndarray, rows_missing: bool) -> bool:
    if not rows_missing:
        return bool(np.isfinite(values).all())
    of_row = tuple(range(1, values.ndim))
    return bool((np.isfinite(values).all(of_row) | np.isnan(values).all(of_row)).all())


def find_camera(camera: Camera | Path | str | None, size: Size, path: Path | None) -> tuple[Camera, str]:
    """The camera that was given, else the one in the recording, else the default of its size; and which it is."""
    if isinstance(camera, Camera):
        return camera, "given"
    if camera is not None:
        return load_camera(camera, size), str(camera)
    recorded = read_camera(path) if path is not None and recognise(path) == "hdf5" else None
    if recorded is not None:
        return recorded, "from the recording"
    return default_camera(size), "default, no calibration given"
