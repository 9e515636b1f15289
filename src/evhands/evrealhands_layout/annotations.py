"""`annot.json` and `annotf.json` as values: every key as it lies in the file, in the file's own units.

Lengths are millimetres in cameras and 3D joints, metres in hand parameters; all in the world frame. Times are counted
from the first event of the recording; annotation `id` stands at `delta_time + id * 1e6 / 15` microseconds. Lists of 21
joints are in `openpose21` order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from jaxtyping import Float64

from evhands.evrealhands_layout.checked import Checked, read_json
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
    """Read and check an `annot.json` or `annotf.json`; the first thing that is wrong is an `InputError` that names it.

    Keys that the layout does not know are left alone. Without `hand_model` the hands are MANO's.
    """
    root = read_json(path)
    side = cast(Side, root["hand_type"].text(SIDES))
    motion = root["motion_type"].text()
    fast = motion == FAST
    cameras = dict(root["camera_info"].items())
    event_camera = _event_camera(root["camera_info"][EVENT_CAMERA])
    manos = _table(root, "manos", _hand, optional=fast)
    hand_model = root.get("hand_model")
    boxes = _table(root, f"bbox.{EVENT_CAMERA}", _box, optional=not fast)
    points = {EVENT_CAMERA: root["2d_joints"][EVENT_CAMERA], **dict(root["2d_joints"].items())}
    return Annotations(
        hand_type=side,
        subject_id=root["subject_id"].name(),
        scene=cast(Scene, root["scene"].text(SCENES)),
        motion_type=motion,
        gesture_type=root["gesture_type"].text(() if fast else GESTURES),
        annoted=root["annoted"].flag(),
        delta_time=_delta_time(root["delta_time"]),
        event_camera=event_camera,
        cameras={name: CameraInfo(**_camera(value)) for name, value in cameras.items() if name != EVENT_CAMERA},
        manos=manos,
        manos_flip=_table(root, "manos_flip", _hand, optional=side == "right" or not manos),
        joints_mm=_table(root, "3d_joints", lambda value: value.numbers(21, 3), optional=fast),
        joints_px={name: {i: _points(row) for i, row in value.by_id()} for name, value in points.items()},
        boxes_px=boxes,
        frames=_frames(root.get("frames")),
        hand_model=MANO if hand_model is None else hand_model.text(),
    )


def _delta_time(value: Checked) -> float:
    if abs(number := value.number()) > _LONGEST_US:
        raise value.wrong("microseconds from the first event to annotation 0")
    return number


def _table(root: Checked, path: str, row: Callable[[Checked], _Row], *, optional: bool) -> dict[int, _Row]:
    """Rows by id; with `optional` a file may do without."""
    table = root
    for key in path.split("."):
        below = table.get(key) if optional else table[key]
        if below is None:
            return {}
        table = below
    return {i: row(value) for i, value in table.by_id()}


def _camera(value: Checked) -> dict[str, Any]:
    R = value["R"].numbers(3, 3)
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise value["R"].wrong("a rotation matrix (world to camera)", f"{np.round(R, 4).tolist()}")
    size = value.get("size")
    width_height = None if size is None else tuple(part.whole() for part in size.elements())
    if size is not None and (width_height is None or len(width_height) != 2 or min(width_height) < 1):
        raise size.wrong("[width, height]")
    return {"K": _matrix(value["K"]), "R": R, "T_mm": value["T"].numbers(3), "size": width_height}


def _event_camera(value: Checked) -> EventCameraInfo:
    dist = value["dist"].numbers(-1)
    if len(dist) not in DISTORTION_LENGTHS:
        raise value["dist"].wrong(f"one of {DISTORTION_LENGTHS} numbers in OpenCV's order", f"{len(dist)}")
    K_new = value.get("K_new")
    return EventCameraInfo(
        **_camera(value),
        K_old=_matrix(value["K_old"]),
        dist=dist,
        K_new=None if K_new is None else _matrix(K_new),
    )


def _matrix(value: Checked) -> np.ndarray:
    K = value.numbers(3, 3)
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise value.wrong("a camera matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", f"{K.tolist()}")
    return K


def _hand(value: Checked) -> HandParameters:
    lengths = {"rot": 3, "hand_pose": 45, "shape": 10, "trans": 3, "root_joint": 3}
    return HandParameters(**{name: value[name].numbers(length) for name, length in lengths.items()})


def _points(value: Checked) -> np.ndarray | None:
    return None if value.is_empty_list() else value.numbers(21, 2)


def _box(value: Checked) -> np.ndarray | None:
    if value.is_empty_list():
        return None
    return np.concatenate([value["tl"].numbers(2), value["br"].numbers(2)])


def _frames(value: Checked | None) -> dict[str, tuple[int, ...]] | None:
    if value is None:
        return None
    return {name: tuple(row.identifier() for row in ids.elements()) for name, ids in value.items()}


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
