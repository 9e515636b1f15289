"""`annot.json` and `annotf.json` as values: every key as it lies in the file, in the file's own units.

Lengths are millimetres in cameras and 3D joints, metres in hand parameters; all in the world frame. Times are counted
from the first event of the recording; annotation `id` stands at `delta_time + id * 1e6 / 15` microseconds. Lists of 21
joints are in `openpose21` order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float64

from evhands.evrealhands_layout.checked import Checked, Faults, read_json
from evhands.files import replacing
from evhands.geometry import DISTORTION_LENGTHS
from evhands.types import Side, Size

SIDES = ("right", "left")
SCENES = ("normal", "highlight", "flash")
GESTURES = ("fixed", "random")
FAST = "fast"
EVENT_CAMERA = "event"
MANO = "mano"
LABEL_RATE_HZ = 15
_LONGEST_US = 1e12

Scene = Literal["normal", "highlight", "flash"]
_Row = TypeVar("_Row")


@dataclass(frozen=True, kw_only=True)
class CameraInfo:
    """`camera_info[cam]` of an RGB camera: point_camera = R point_world + T_mm. `size` stands in our files only."""

    K: Float64[np.ndarray, "3 3"]
    R: Float64[np.ndarray, "3 3"]
    T_mm: Float64[np.ndarray, "3"]
    size: Size | None = None


@dataclass(frozen=True, kw_only=True)
class EventCameraInfo(CameraInfo):
    """`camera_info.event`: events go through the lens (K_old, dist) onto K_new (None: K_old), points project with K."""

    K_old: Float64[np.ndarray, "3 3"]
    dist: Float64[np.ndarray, " k"]
    K_new: Float64[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True, kw_only=True)
class HandParameters:
    """`manos[id]`: MANO's parameters in metres in the world frame; `hand_pose` without the mean pose, wrist at
    trans + root_joint."""

    rot: Float64[np.ndarray, "3"]
    hand_pose: Float64[np.ndarray, "45"]
    shape: Float64[np.ndarray, "10"]
    trans: Float64[np.ndarray, "3"]
    root_joint: Float64[np.ndarray, "3"]


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """All of an `annot.json`. Points and boxes that a file leaves empty (`[]`) are None.

    manos_flip: of left hands, those of the right hand that is their mirror image in the event camera (its x -> -x).
    joints_px: `2d_joints`, by camera and id; those of the event camera are in the distorted image, and so are boxes_px
    (`bbox.event`: x0, y0, x1, y1). frames: ids of the RGB images, None where the file does not list them.
    """

    hand_type: Side
    subject_id: str
    scene: Scene
    motion_type: str
    gesture_type: str
    annoted: bool
    delta_time: float
    event_camera: EventCameraInfo
    cameras: dict[str, CameraInfo] = field(default_factory=dict)
    manos: dict[int, HandParameters] = field(default_factory=dict)
    manos_flip: dict[int, HandParameters] = field(default_factory=dict)
    joints_mm: dict[int, Float64[np.ndarray, "21 3"]] = field(default_factory=dict)
    joints_px: dict[str, dict[int, Float64[np.ndarray, "21 2"] | None]] = field(default_factory=dict)
    boxes_px: dict[int, Float64[np.ndarray, "4"] | None] = field(default_factory=dict)
    frames: dict[str, tuple[int, ...]] | None = None
    hand_model: str = MANO

    @property
    def fast(self) -> bool:
        return self.motion_type == FAST


def read_annotations(path: Path | str) -> Annotations:
    """Read and check an `annot.json` or `annotf.json`; whatever is wrong is a `LayoutError` that names all of it.

    Keys that the layout does not know are left alone. Without `hand_model` the hands are MANO's.
    """
    root, faults = read_json(path), Faults()
    gather = faults.gather
    side = gather(lambda: root["hand_type"].text(SIDES))
    motion = gather(lambda: root["motion_type"].text())
    fast = motion == FAST
    manos = _table(root, "manos", partial(_hand, faults), faults, optional=fast)
    content = {
        "hand_type": side,
        "subject_id": gather(lambda: root["subject_id"].name()),
        "scene": gather(lambda: root["scene"].text(SCENES)),
        "motion_type": motion,
        "gesture_type": gather(lambda: root["gesture_type"].text(() if fast else GESTURES)),
        "annoted": gather(lambda: root["annoted"].flag()),
        "delta_time": gather(lambda: _delta_time(root["delta_time"])),
        "event_camera": gather(lambda: _event_camera(root["camera_info"][EVENT_CAMERA], faults)),
        "cameras": gather(lambda: _cameras(root["camera_info"], faults)),
        "manos": manos,
        "manos_flip": _table(root, "manos_flip", partial(_hand, faults), faults, optional=side != "left" or not manos),
        "joints_mm": _table(root, "3d_joints", lambda value: value.numbers(21, 3), faults, optional=fast),
        "joints_px": gather(lambda: _joints_px(root["2d_joints"], faults)),
        "boxes_px": _table(root, f"bbox.{EVENT_CAMERA}", _box, faults, optional=not fast),
        "frames": gather(lambda: _frames(root.get("frames"))),
        "hand_model": gather(lambda: MANO if (name := root.get("hand_model")) is None else name.text()),
    }
    faults.check()
    return Annotations(**content)


def _delta_time(value: Checked) -> float:
    if abs(number := value.number()) > _LONGEST_US:
        raise value.wrong("microseconds from the first event to annotation 0")
    return number


def _table(
    root: Checked, path: str, row: Callable[[Checked], _Row], faults: Faults, *, optional: bool
) -> dict[int, _Row]:
    """Rows by id; with `optional` a file may do without."""

    def found() -> Checked | None:
        table: Checked | None = root
        for key in path.split("."):
            if table is not None:
                table = table.get(key) if optional else table[key]
        return table

    table = faults.gather(found)
    rows = [] if table is None else faults.gather(table.by_id) or []
    return {i: faults.gather(partial(row, value)) for i, value in rows}


def _joints_px(value: Checked, faults: Faults) -> dict[str, dict[int, np.ndarray | None]]:
    cameras = {EVENT_CAMERA: value[EVENT_CAMERA], **dict(value.items())}
    rows = {name: faults.gather(table.by_id) or [] for name, table in cameras.items()}
    return {name: {i: faults.gather(partial(_points, row)) for i, row in table} for name, table in rows.items()}


def _cameras(value: Checked, faults: Faults) -> dict[str, CameraInfo]:
    infos = {name: _camera(below, faults) for name, below in value.items() if name != EVENT_CAMERA}
    return {name: CameraInfo(**info) for name, info in infos.items() if info is not None}


def _camera(value: Checked, faults: Faults, **more: Callable[[], Any]) -> dict[str, Any] | None:
    """The parts of a camera, `more` among them; None where any is wrong, which is noted."""
    before = len(faults.found)
    info = {
        "K": faults.gather(lambda: _matrix(value["K"])),
        "R": faults.gather(lambda: _rotation(value["R"])),
        "T_mm": faults.gather(lambda: value["T"].numbers(3)),
        "size": faults.gather(lambda: _size(value.get("size"))),
        **{name: faults.gather(read) for name, read in more.items()},
    }
    return info if len(faults.found) == before else None


def _rotation(value: Checked) -> np.ndarray:
    R = value.numbers(3, 3)
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise value.wrong("a rotation matrix (world to camera)", f"{np.round(R, 4).tolist()}")
    return R


def _size(value: Checked | None) -> Size | None:
    if value is None:
        return None
    width_height = tuple(part.whole() for part in value.elements())
    if len(width_height) != 2 or min(width_height) < 1:
        raise value.wrong("[width, height]")
    return width_height


def _event_camera(value: Checked, faults: Faults) -> EventCameraInfo | None:
    info = _camera(
        value,
        faults,
        K_old=lambda: _matrix(value["K_old"]),
        dist=lambda: _lens(value["dist"]),
        K_new=lambda: None if (K_new := value.get("K_new")) is None else _matrix(K_new),
    )
    return None if info is None else EventCameraInfo(**info)


def _lens(value: Checked) -> np.ndarray:
    dist = value.numbers(-1)
    if len(dist) not in DISTORTION_LENGTHS:
        raise value.wrong(f"one of {DISTORTION_LENGTHS} numbers in OpenCV's order", f"{len(dist)}")
    return dist


def _matrix(value: Checked) -> np.ndarray:
    K = value.numbers(3, 3)
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise value.wrong("a camera matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", f"{K.tolist()}")
    return K


def _hand(faults: Faults, value: Checked) -> HandParameters | None:
    """The parameters of a hand; None where any of them is wrong, which is noted."""
    lengths = {"rot": 3, "hand_pose": 45, "shape": 10, "trans": 3, "root_joint": 3}

    def numbers(name: str) -> np.ndarray:
        return value[name].numbers(lengths[name])

    found = {name: faults.gather(partial(numbers, name)) for name in lengths}
    return None if any(row is None for row in found.values()) else HandParameters(**found)


def _points(value: Checked) -> np.ndarray | None:
    return None if value.is_empty_list() else value.numbers(21, 2)


def _box(value: Checked) -> np.ndarray | None:
    if value.is_empty_list():
        return None
    return np.concatenate([value["tl"].numbers(2), value["br"].numbers(2)])


def _frames(value: Checked | None) -> dict[str, tuple[int, ...]] | None:
    if value is None:
        return None
    frames = {}
    for name, ids in value.items():
        frames[name] = tuple(row.identifier() for row in ids.elements())
        repeated = [i for i, count in Counter(frames[name]).items() if count > 1]
        if repeated:
            raise ids.wrong("every annotation id once", f"{', '.join(map(str, repeated[:8]))} repeated")
    return frames


def write_annotations(path: Path | str, annotations: Annotations) -> None:
    """Write an `annot.json` or `annotf.json`, replacing the file at the end."""
    a = annotations
    cameras = {EVENT_CAMERA: a.event_camera, **a.cameras}
    content = {
        "hand_model": a.hand_model,
        **{key: getattr(a, key) for key in
           ("hand_type", "subject_id", "scene", "motion_type", "gesture_type", "annoted", "delta_time")},
        "camera_info": {name: _plain_camera(info) for name, info in cameras.items()},
        "manos": _by_id(a.manos),
        **({"manos_flip": _by_id(a.manos_flip)} if a.hand_type == "left" else {}),
        "3d_joints": _by_id(a.joints_mm),
        "2d_joints": {name: _by_id(rows) for name, rows in {EVENT_CAMERA: {}, **a.joints_px}.items()},
        "bbox": {EVENT_CAMERA: {str(i): [] if box is None else {"tl": box[:2].tolist(), "br": box[2:].tolist()}
                                for i, box in a.boxes_px.items()}},
        **({} if a.frames is None else {"frames": {name: list(ids) for name, ids in a.frames.items()}}),
    }  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _plain_camera(info: CameraInfo) -> dict[str, Any]:
    content = {"T" if name == "T_mm" else name: value for name, value in vars(info).items() if value is not None}
    return {name: value.tolist() if isinstance(value, np.ndarray) else list(value) for name, value in content.items()}


def _by_id(rows: dict[int, Any]) -> dict[str, Any]:
    def plain(row: Any) -> Any:
        if isinstance(row, HandParameters):
            return {name: value.tolist() for name, value in vars(row).items()}
        return [] if row is None else row.tolist()

    return {str(i): plain(row) for i, row in rows.items()}
