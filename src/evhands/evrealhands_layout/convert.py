"""Between the layout's own terms and those of this house, both ways; pure.

World and millimetres become the event camera's frame and metres; MANO's `trans`, which leaves out the rest wrist,
becomes the wrist; hand angles get the mean pose; mirrored left hands become left hands; times from the first event
become times on the clock of the events.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from evhands.evrealhands_layout.annotations import (
    EVENT_CAMERA,
    FAST,
    LABEL_RATE_HZ,
    MANO,
    Annotations,
    CameraInfo,
    EventCameraInfo,
    HandParameters,
)
from evhands.geometry import distort_points, project
from evhands.hand.model import HandModel, load_hand, mirror_model, pose_hand
from evhands.recording import Recording, Rectification, Tags, View
from evhands.types import Camera, HandPose, InputError, Side, Size

PERIOD_US = 1e6 / LABEL_RATE_HZ
BLURRED = ".blur"
"""Ending of the names of views that hold motion-blurred twins of another view's frames."""
_MIRROR_POINT = np.array([-1.0, 1.0, 1.0])
_MIRROR_ROTVEC = np.array([1.0, -1.0, -1.0])


def _f64(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


def _f32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def hand_named(name: str, side: Side, given: HandModel | None) -> HandModel:
    """The hand model of that name and side: the open hand is at hand, any other must be given (of either side)."""
    if name == "open" and (given is None or given.name != name):
        return load_hand("open", side)
    if given is None or given.name != name:
        found = "no hand model was given" if given is None else f"the hand model given is '{given.name}'"
        raise InputError(
            f"The poses are in parameters of the hand model '{name}', and {found}. Wanted that model, whose mean pose "
            "is part of every pose: for 'mano' give MANO_RIGHT.pkl (mano.is.tue.mpg.de, after registration)."
        )
    return given if given.side == side else mirror_model(given)


# --- cameras --------------------------------------------------------------------------------------------------------


def extrinsics(info: CameraInfo) -> np.ndarray:
    """T_camera_world (4, 4) in metres."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = info.R, info.T_mm / 1000
    return T


def event_camera(info: EventCameraInfo, size: Size) -> tuple[Camera, Rectification | None]:
    """The sensor with its lens; and the matrices of the undistorted image, None where they are the camera's own."""
    rectification = Rectification(K_image=info.K_old if info.K_new is None else info.K_new, K_points=info.K)
    own = np.array_equal(rectification.K_image, info.K_old) and np.array_equal(info.K, info.K_old)
    return Camera(info.K_old, size, info.dist, extrinsics(info)), None if own else rectification


def event_camera_info(camera: Camera, rectification: Rectification | None) -> EventCameraInfo:
    """The inverse of `event_camera`; a camera without a pose is the world."""
    matrices = rectification or Rectification(K_image=camera.K, K_points=camera.K)
    distortion = camera.distortion if len(camera.distortion) else np.zeros(5)
    return EventCameraInfo(
        **_info(camera) | {"K": _f64(matrices.K_points)},
        K_old=_f64(camera.K),
        dist=_f64(distortion),
        K_new=_f64(matrices.K_image),
    )


def rgb_camera_info(view: View) -> CameraInfo:
    """The layout's terms for another camera; it knows pinhole cameras only, and where they stand."""
    if np.any(view.camera.distortion) or view.camera.T_camera_world is None:
        found = "no pose" if view.camera.T_camera_world is None else "lens distortion"
        raise InputError(
            f"The camera '{view.name}' has {found}. The EvRealHands layout holds undistorted RGB images of cameras "
            "with a pose (T_camera_world): undistort its frames, or calibrate it."
        )
    return CameraInfo(**_info(view.camera), size=view.camera.size)


def _info(camera: Camera) -> dict[str, Any]:
    T = np.eye(4) if camera.T_camera_world is None else _f64(camera.T_camera_world)
    return {"K": _f64(camera.K), "R": T[:3, :3], "T_mm": T[:3, 3] * 1000}


def sensor_points(joints_m: np.ndarray, info: EventCameraInfo) -> np.ndarray:
    """Where points (..., 3) of the event camera's frame lie in its distorted image."""
    K_image = info.K_old if info.K_new is None else info.K_new
    flat = project(joints_m.reshape(-1, 3).astype(np.float64), info.K)
    return distort_points(flat, info.K_old, info.dist, K_image).reshape(*joints_m.shape[:-1], 2)


# --- poses ----------------------------------------------------------------------------------------------------------


def camera_pose(rows: list[HandParameters], side: Side, info: EventCameraInfo, hand: HandModel) -> HandPose:
    """Poses (n) in the event camera's frame; of a left hand `rows` are its mirrored ones. `hand` is of that side."""
    rot, fingers, shape, trans, root = (
        np.stack([getattr(row, name) for row in rows])
        for name in ("rot", "hand_pose", "shape", "trans", "root_joint")
    )  # fmt: skip
    orientation = (Rotation.from_matrix(info.R) * Rotation.from_rotvec(rot)).as_rotvec()
    wrist = (trans + root) @ info.R.T + info.T_mm / 1000
    mirror, turn = (_MIRROR_POINT, _MIRROR_ROTVEC) if side == "left" else (1, 1)
    mean = hand.mean_pose.numpy().reshape(15, 3).astype(np.float64)
    return HandPose(
        side=side,
        orientation=_f32(orientation * turn),
        wrist=_f32(wrist * mirror),
        joints=_f32(fingers.reshape(-1, 15, 3) * turn + mean),
        shape=_f32(shape),
        hand_model=hand.name,
    )


def hand_parameters(pose: HandPose, info: EventCameraInfo, hand: HandModel) -> list[HandParameters]:
    """The inverse of `camera_pose` for the hand as it is: `pose` and `hand` are of one side, which stays."""
    shape = torch.as_tensor(_f32(pose.shape))
    with torch.no_grad():
        root = hand.with_shape(shape).joints16[:, 0].numpy().astype(np.float64)
    rot = (Rotation.from_matrix(info.R).inv() * Rotation.from_rotvec(_f64(pose.orientation))).as_rotvec()
    trans = (_f64(pose.wrist) - info.T_mm / 1000) @ info.R - root
    fingers = _f64(pose.joints).reshape(-1, 45) - hand.mean_pose.numpy().astype(np.float64)
    return [
        HandParameters(rot=rot[i], hand_pose=fingers[i], shape=_f64(pose.shape[i]), trans=trans[i],
                       root_joint=root[i])
        for i in range(len(rot))
    ]  # fmt: skip


def mirrored_pose(pose: HandPose) -> HandPose:
    """The hand of the other side that is this one's mirror image in x = 0 of the camera."""
    return replace(
        pose,
        side="left" if pose.side == "right" else "right",
        orientation=pose.orientation * _MIRROR_ROTVEC,
        wrist=pose.wrist * _MIRROR_POINT,
        joints=pose.joints * _MIRROR_ROTVEC,
    )


# --- times ----------------------------------------------------------------------------------------------------------


def times_us(ids: list[int], delta_time: float, start_us: int) -> np.ndarray:
    """Times (n,) int64 of annotation ids on the clock of the events, whose first stands at start_us."""
    return start_us + np.round(delta_time + np.array(ids, np.float64) * PERIOD_US).astype(np.int64)


def ids_of(t_us: np.ndarray, start_us: int, first_id: int = 0) -> tuple[list[int], float]:
    """Ids of times (n,) and their delta_time; the earliest gets `first_id`. Other times are an `InputError`."""
    if not len(t_us):
        return [], 0.0
    since = t_us - t_us.min()
    steps = np.round(since / PERIOD_US)
    off = since - steps * PERIOD_US
    middle = (off.max() + off.min()) / 2
    wrong = np.abs(off - middle) > 1
    if wrong.any():
        raise InputError(
            f"Found a label or frame at {t_us[wrong][0]} us, {abs((off - middle)[wrong][0]):.0f} us off the clock of "
            f"the EvRealHands layout. Wanted times that lie multiples of 1/{LABEL_RATE_HZ} s apart; simulate with that "
            "label rate, or thin the labels with `on_layout_clock`."
        )
    delta_time = float(t_us.min() - start_us + middle - first_id * PERIOD_US)
    return [first_id + int(step) for step in steps], delta_time


def on_layout_clock(recording: Recording) -> Recording:
    """The recording with only those labels and frames that lie on the layout's clock, which begins at the first of
    the labels. Labels at 30 a second lose every second one."""
    if recording.pose_t_us is None or not len(recording.pose_t_us):
        return recording
    first = recording.pose_t_us.min()

    def kept(t_us: np.ndarray) -> np.ndarray:
        since = t_us - first
        return np.abs(since - np.round(since / PERIOD_US) * PERIOD_US) <= 0.75

    rows = kept(recording.pose_t_us)
    tables = ("pose_t_us", "joints_m", "joints_px", "boxes_px")
    thinned: dict[str, Any] = {
        name: None if (old := getattr(recording, name)) is None else old[rows] for name in tables
    }
    pose = recording.pose
    if pose is not None:
        names = ("orientation", "wrist", "joints", "shape")
        pose = replace(pose, **{name: getattr(pose, name)[rows] for name in names})
    views = tuple(_thinned(view, kept(view.frames_t_us)) for view in recording.views)
    return replace(recording, pose=pose, views=views, **thinned)


def _thinned(view: View, rows: np.ndarray) -> View:
    frames = tuple(view.frames[int(i)] for i in np.flatnonzero(rows))
    return replace(view, frames_t_us=view.frames_t_us[rows], frames=frames)


# --- whole sequences ------------------------------------------------------------------------------------------------


def tags_of(a: Annotations) -> Tags:
    return Tags(side=a.hand_type, subject=a.subject_id, scene=a.scene, fast=a.fast, gesture=a.gesture_type,
                checked=a.annoted)  # fmt: skip


def truth(a: Annotations, start_us: int, hand: HandModel | None) -> dict[str, Any]:
    """The labels of a sequence as fields of a `Recording`.

    Where there are hand poses, one label a pose; else one label for every id with joints or a box. What a label lacks
    is a row of NaN, what all lack is None.
    """
    hands = _posed(a)
    points = a.joints_px.get(EVENT_CAMERA, {})
    ids = sorted(hands or _annotated(a))
    if not ids:
        return {}
    joints = {i: (row @ a.event_camera.R.T + a.event_camera.T_mm) / 1000 for i, row in a.joints_mm.items()}
    pose = None
    if hands:
        model = hand_named(a.hand_model, a.hand_type, hand)
        pose = camera_pose([hands[i] for i in ids], a.hand_type, a.event_camera, model)
    return {
        "pose_t_us": times_us(ids, a.delta_time, start_us),
        "pose": pose,
        "joints_m": _rows(ids, joints, (21, 3)),
        "joints_px": _rows(ids, points, (21, 2)),
        "boxes_px": _rows(ids, a.boxes_px, (4,)),
    }


def unposed_ids(a: Annotations) -> list[int]:
    """Ids with joints or a box but no hand pose, in a sequence that has poses."""
    hands = _posed(a)
    return sorted(_annotated(a) - hands.keys()) if hands else []


def _posed(a: Annotations) -> dict[int, HandParameters]:
    return a.manos_flip if a.hand_type == "left" else a.manos


def _annotated(a: Annotations) -> set[int]:
    tables = (a.joints_mm, a.joints_px.get(EVENT_CAMERA, {}), a.boxes_px)
    return {i for table in tables for i, row in table.items() if row is not None}


def _rows(ids: list[int], table: dict[int, Any], shape: tuple[int, ...]) -> np.ndarray | None:
    missing = np.full(shape, np.nan)
    rows = [table.get(i) for i in ids]
    if all(row is None for row in rows):
        return None
    return _f32([missing if row is None else row for row in rows])


def annotations_of(recording: Recording, tags: Tags, start_us: int, hand: HandModel | None) -> Annotations:
    """All that a recording knows, in the layout's terms; joints in space and image that it lacks follow its pose."""
    labels = np.zeros(0, np.int64) if recording.pose_t_us is None else recording.pose_t_us
    times = np.concatenate([labels, *(view.frames_t_us for view in recording.views)])
    all_ids, delta_time = ids_of(times, start_us, int(recording.meta.get("first_id", 0)))
    ids, after = all_ids[: len(labels)], all_ids[len(labels) :]
    if len(set(ids)) < len(ids):
        raise InputError(
            f"Found two labels within {PERIOD_US / 2:.0f} us. Wanted one time a label; remove one of them."
        )
    info = event_camera_info(recording.camera, recording.rectification)
    hands, joints_m, model = _hands(recording, info, hand)
    views = {view.name: rgb_camera_info(view) for view in recording.views if not view.name.endswith(BLURRED)}
    listed = {}
    for view in recording.views:
        own, after = tuple(after[: len(view.frames_t_us)]), after[len(view.frames_t_us) :]
        if view.name in views:
            listed[view.name] = own
    world_mm = None if joints_m is None else (joints_m * 1000 - info.T_mm) @ info.R
    joints_px: dict[str, np.ndarray | None] = {EVENT_CAMERA: recording.joints_px}
    if joints_m is not None and recording.joints_px is None:
        joints_px[EVENT_CAMERA] = _in_front(sensor_points(joints_m, info), joints_m)
    for name, camera in views.items():
        if world_mm is not None:
            joints = (world_mm @ camera.R.T + camera.T_mm) / 1000
            joints_px[name] = _in_front(project(joints, camera.K), joints)
    return Annotations(
        hand_type=tags.side, subject_id=tags.subject, scene=tags.scene, motion_type=FAST if tags.fast else "normal",
        gesture_type=tags.gesture, annoted=tags.checked, delta_time=delta_time, event_camera=info, cameras=views,
        manos=dict(zip(ids, hands[0])), manos_flip=dict(zip(ids, hands[1])),
        joints_mm={i: row for i, row in _table(ids, world_mm).items() if row is not None},
        joints_px={name: _table(ids, rows) for name, rows in joints_px.items()},
        boxes_px=_table(ids, recording.boxes_px), frames=listed or None, hand_model=model,
    )  # fmt: skip


def _hands(
    recording: Recording, info: EventCameraInfo, hand: HandModel | None
) -> tuple[tuple[list[HandParameters], list[HandParameters]], np.ndarray | None, str]:
    """(hands, of left ones their mirrored right ones), joints (m, 21, 3), name of the hand model."""
    pose = recording.pose
    joints_m = None if recording.joints_m is None else _f64(recording.joints_m)
    if pose is None:
        return ([], []), joints_m, MANO
    model = hand_named(pose.hand_model, pose.side, hand)
    if joints_m is None:
        with torch.no_grad():
            joints_m = pose_hand(model, pose).joints().numpy().astype(np.float64)
    hands = hand_parameters(pose, info, model)
    flipped = hand_parameters(mirrored_pose(pose), info, mirror_model(model)) if pose.side == "left" else []
    return (hands, flipped), joints_m, model.name


def _in_front(pixels: np.ndarray, joints_m: np.ndarray) -> np.ndarray:
    """Pixels (m, 21, 2), NaN where a hand is not wholly before the camera."""
    before = np.all(joints_m[..., 2:] > 0, axis=1, keepdims=True)
    return np.where(before, pixels, np.nan)


def _table(ids: list[int], rows: np.ndarray | None) -> dict[int, np.ndarray | None]:
    """Rows by id, None for those of NaN."""
    if rows is None:
        return {}
    return {i: _f64(row) if np.isfinite(row).all() else None for i, row in zip(ids, rows)}
