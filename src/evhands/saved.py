"""Every predicted pose as files that people and other tools read: joints, meshes, pictures; left hands as left hands.

    DIR/RECORDING/joints/000012.json      21 joints, metres, camera frame, and their names
    DIR/RECORDING/mesh/000012.obj         the surface
    DIR/RECORDING/hand.glb                the surface of all rows as one animation
    DIR/RECORDING/projected/000012.jpg    the surface as the camera would see it, over black
    DIR/RECORDING/joints2d/000012.json    21 joints in pixels of the undistorted image
    DIR/RECORDING/events/000012.png       events of the window, bilinear counts, ON blue, OFF red
    DIR/RECORDING/flow/000012.png         flow of the hand from the pose before to this one, as colours
    DIR/RECORDING/iwe/000012.png          events moved along that flow to the end of the window
Numbers are rows of the recording in predictions.npz. A row without a hand has events alone; one without a pose shortly
before it has no flow.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evhands.events.representations import event_image
from evhands.events.warp import image_of_warped_events
from evhands.events.windows import batch_windows, window_at
from evhands.files import replacing
from evhands.hand.model import HandModel, pose_hand
from evhands.hand.skeleton import JOINT_ORDERS
from evhands.hand_flow import HandFlowConfig, hand_flow
from evhands.overlay import OverlayStyle, draw_mesh
from evhands.predictions import Predictions
from evhands.report.pictures import Watched, watched
from evhands.types import Events, HandMesh, HandPose, InputError, WindowBatch

KINDS = ("joints", "mesh", "glb", "projected", "joints2d", "events", "flow", "iwe")
PUBLISHED_LOG = {
    "save_result": ("joints", "mesh", "projected", "joints2d"),
    "save_images": ("projected",),
    "save_eci": ("events",),
    "save_flow": ("flow", "iwe"),
}
"""What the published `log` options save, in our kinds."""
WITH_EVENTS = ("events", "iwe")
_GAP = 1.6
"""Of the window's length: a pose further back is not the one before."""


@dataclass(frozen=True)
class _Row:
    """A row of one recording as the writers need it."""

    predictions: Predictions
    row: int
    mesh: HandMesh | None
    before: HandPose | None
    hand: HandModel
    events: Events | None

    @property
    def size(self) -> tuple[int, int]:
        return self.predictions.recordings[self.predictions.recording[self.row]].size

    @property
    def K(self) -> np.ndarray:
        return np.array(self.predictions.recordings[self.predictions.recording[self.row]].K)

    @property
    def window(self) -> WindowBatch:
        assert self.events is not None
        t_us, length = (int(getattr(self.predictions, name)[self.row]) for name in ("t_us", "window_us"))
        return batch_windows([window_at(self.events, t_us, length)])


def save_all(
    predictions: Predictions,
    folder: Path,
    kinds: Sequence[str],
    sources: Sequence[Path],
    hand: HandModel,
    reading: HandModel | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the files of these kinds ("all" = every one) of all rows; returns how many files there are.

    hand: right, of the parameters of the poses. sources: the recordings, for pictures of events.
    """
    wanted = [kind for kind in KINDS if kind in kinds or "all" in kinds]
    numbers = range(len(predictions.recordings))
    count = 0
    for number in numbers:
        seen = watched(predictions, sources, reading or hand, [number]) if set(wanted) & set(WITH_EVENTS) else {}
        if set(wanted) & set(WITH_EVENTS) and number not in seen:
            raise InputError(
                f"The recording {predictions.recordings[number].name!r} is not at hand. Wanted it for pictures of its "
                "events; give its folder with --data, or save other kinds."
            )
        count += _save_recording(predictions, number, folder, wanted, seen.get(number), hand, progress)
    return count


def _save_recording(
    predictions: Predictions, number: int, folder: Path, wanted: Sequence[str], seen: Watched | None,
    hand: HandModel, progress: Callable[[int], None],
) -> int:  # fmt: skip
    about = predictions.recordings[number]
    own = hand if hand.side == about.side else hand.mirrored()
    rows = np.flatnonzero(predictions.recording == number)
    target, count, meshes = folder / about.name, 0, []
    for index, row in enumerate(rows):
        mesh = _mesh(own, predictions.pose(int(row))) if predictions.found[row] else None
        one = _Row(predictions, int(row), mesh, _before(predictions, rows, index), own, seen.events if seen else None)
        meshes.append((int(predictions.t_us[row]), mesh))
        for kind in wanted:
            made = _WRITERS[kind](one) if kind in _WRITERS else None
            if made is not None:
                suffix, content = made
                with replacing(target / kind / f"{index:06d}{suffix}") as temporary:
                    temporary.write_bytes(content)
                count += 1
        progress(1)
    there = [(t, mesh) for t, mesh in meshes if mesh is not None]
    if "glb" in wanted and there:
        with replacing(target / "hand.glb") as temporary:
            temporary.write_bytes(animation([t for t, _ in there], [mesh for _, mesh in there]))
        count += 1
    return count


def _mesh(hand: HandModel, pose: HandPose) -> HandMesh:
    with torch.no_grad():
        mesh = pose_hand(hand, pose).mesh()
    return HandMesh(mesh.vertices.numpy(), mesh.joints.numpy(), mesh.faces.numpy())


def _before(predictions: Predictions, rows: np.ndarray, index: int) -> HandPose | None:
    """The pose of the row before, where it is about one window back."""
    if index == 0 or not predictions.found[rows[index - 1]]:
        return None
    gap = predictions.t_us[rows[index]] - predictions.t_us[rows[index - 1]]
    return predictions.pose(int(rows[index - 1])) if gap <= _GAP * predictions.window_us[rows[index]] else None


# --- files of one row -------------------------------------------------------------------------------------------------


def _joints(row: _Row) -> tuple[str, bytes] | None:
    return _points(row, "joints_m", "metres, camera frame")


def _joints2d(row: _Row) -> tuple[str, bytes] | None:
    return _points(row, "joints_px", "pixels of the undistorted image")


def _points(row: _Row, name: str, unit: str) -> tuple[str, bytes] | None:
    if row.mesh is None:
        return None
    about = row.predictions.recordings[row.predictions.recording[row.row]]
    content = {
        "t_us": int(row.predictions.t_us[row.row]), "side": about.side, "unit": unit,
        "names": JOINT_ORDERS["openpose21"],
        "joints": np.round(getattr(row.predictions, name)[row.row].astype(np.float64), 7).tolist(),
    }  # fmt: skip
    return ".json", json.dumps(content).encode()


def _obj(row: _Row) -> tuple[str, bytes] | None:
    return None if row.mesh is None else (".obj", obj_text(row.mesh).encode())


def obj_text(mesh: HandMesh) -> str:
    """A mesh as Wavefront OBJ: metres, x right, y down, z forward; faces counter-clockwise seen from outside."""
    vertices = "\n".join("v {:.6f} {:.6f} {:.6f}".format(*v) for v in mesh.vertices)
    faces = "\n".join("f {} {} {}".format(*(f + 1)) for f in mesh.faces)
    return f"{vertices}\n{faces}\n"


def _projected(row: _Row) -> tuple[str, bytes] | None:
    if row.mesh is None:
        return None
    width, height = row.size
    picture = np.zeros((height, width, 3), np.float32)
    draw_mesh(picture, row.mesh, row.K, replace(OverlayStyle(), mesh_opacity=1.0))
    return ".jpg", _encoded(picture, "JPEG")


def _events(row: _Row) -> tuple[str, bytes] | None:
    return ".png", _encoded(polarity_colours(event_image(row.window)[0]), "PNG")


def _flow_of(row: _Row) -> np.ndarray | None:
    """(2, h, w) pixels from the start to the end of the window."""
    if row.mesh is None or row.before is None:
        return None
    end = row.predictions.pose(row.row)
    start, last = (_batch(pose) for pose in (row.before, end))
    K = torch.from_numpy(row.K).float()[None]
    with torch.no_grad():
        found = hand_flow(row.hand, start, last, K, row.size, HandFlowConfig(threads=1))
    return found.flow[0].numpy()


def _batch(pose: HandPose) -> HandPose:
    parts: dict[str, Any] = {
        name: torch.as_tensor(np.asarray(getattr(pose, name)), dtype=torch.float32)[None]
        for name in ("orientation", "wrist", "joints", "shape")
    }
    return replace(pose, **parts)


def _flow(row: _Row) -> tuple[str, bytes] | None:
    flow = _flow_of(row)
    return None if flow is None else (".png", _encoded(flow_colours(flow), "PNG"))


def _iwe(row: _Row) -> tuple[str, bytes] | None:
    flow = _flow_of(row)
    if flow is None:
        return None
    return ".png", _encoded(polarity_colours(image_of_warped_events(row.window, flow[None], 1.0)[0]), "PNG")


_WRITERS: dict[str, Callable[[_Row], tuple[str, bytes] | None]] = {
    "joints": _joints, "mesh": _obj, "projected": _projected, "joints2d": _joints2d, "events": _events,
    "flow": _flow, "iwe": _iwe,
}  # fmt: skip


def polarity_colours(counts: np.ndarray, style: OverlayStyle = OverlayStyle()) -> np.ndarray:
    """(h, w, 3) of counts (2, h, w): ON and OFF in their colours over black, full at the 99th percentile."""
    total = counts.sum(0)
    full = float(np.quantile(total[total > 0], 0.99)) if (total > 0).any() else 1.0
    on, off = (np.clip(c / full, 0, 1)[..., None] * np.array(colour) for c, colour in zip(counts, _colours(style)))
    return np.clip(on + off, 0, 1).astype(np.float32)


def _colours(style: OverlayStyle) -> tuple[Any, Any]:
    return style.on_colour, style.off_colour


def flow_colours(flow: np.ndarray) -> np.ndarray:
    """(h, w, 3) of flow (2, h, w): hue = direction, saturation = length over the largest; white where nothing moves."""
    length = np.hypot(*flow)
    hue = (np.arctan2(flow[1], flow[0]) / (2 * np.pi)) % 1.0
    share = length / max(float(length.max()), 1e-9)
    ramps = np.stack([np.abs((6 * hue + k) % 6 - 3) - 1 for k in (0, 4, 2)], -1).clip(0, 1)
    return (1 - share[..., None] * (1 - ramps)).astype(np.float32)


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


# --- an animation -----------------------------------------------------------------------------------------------------


def animation(t_us: Sequence[int], meshes: Sequence[HandMesh]) -> bytes:
    """A binary glTF 2.0 of a mesh that moves from one state to the next, linearly between their times.

    Each state is a morph target: its distance from the first one. glTF's axes: x right, y up, z towards the viewer.
    """
    turn = np.array([1, -1, -1], np.float32)
    states = [np.float32(mesh.vertices) * turn for mesh in meshes]
    times = (np.array(t_us, np.float64) - t_us[0]).astype(np.float32) / 1e6
    buffers: list[tuple[np.ndarray, int | None]] = [
        (meshes[0].faces.astype(np.uint16).ravel(), 34963), (states[0], 34962),
        *((state - states[0], 34962) for state in states[1:]), (times.astype(np.float32), None),
        (np.eye(len(states), dtype=np.float32)[:, 1:].ravel(), None),
    ]  # fmt: skip
    views, accessors, binary = [], [], b""
    for values, target in buffers:
        data = values.tobytes()
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)}
        views.append(view if target is None else view | {"target": target})
        accessors.append(_accessor(values, len(views) - 1))
        binary += data + b"\0" * (-len(data) % 4)
    targets = [{"POSITION": 2 + k} for k in range(len(states) - 1)]
    primitive = {"attributes": {"POSITION": 1}, "indices": 0} | ({"targets": targets} if targets else {})
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "evhands"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "hand"}], "meshes": [{"primitives": [primitive]}],
        "accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(binary)}],
    }  # fmt: skip
    if targets:
        sampler = {"input": len(accessors) - 2, "output": len(accessors) - 1, "interpolation": "LINEAR"}
        channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
        content |= {"animations": [{"samplers": [sampler], "channels": [channel]}]}
    else:
        content["accessors"], content["bufferViews"] = accessors[:2], views[:2]
    return _glb(content, binary)


def _accessor(values: np.ndarray, view: int) -> dict[str, Any]:
    whole = values.dtype == np.uint16
    shape = {"componentType": 5123 if whole else 5126, "count": len(values), "bufferView": view}
    if values.ndim == 2:
        bounds = {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return shape | {"type": "VEC3"} | bounds
    return shape | {"type": "SCALAR", "min": [values.min().item()], "max": [values.max().item()]}


def _glb(content: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = b"".join(
        struct.pack("<I4s", len(data), kind) + data for data, kind in ((text, b"JSON"), (binary, b"BIN\0"))
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
