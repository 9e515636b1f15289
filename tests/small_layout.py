"""A small simulated data set in the EvRealHands layout, made once a session, and faults to plant in its sequences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from event_recordings import Replay
from evhands import evrealhands_layout as layout
from evhands.events.io import open_events, write_events
from evhands.recording import Recording, Tags, View
from evhands.sim.generate import simulate_clip
from evhands.sim.presets import TrainShares, clip_of
from evhands.types import Camera, Events

SEQUENCES = {"0": ("right", False), "1": ("left", False), "2": ("right", True)}
"""Side, and whether it is a fast one."""


@lru_cache(maxsize=1)
def _recordings() -> dict[str, Recording]:
    return {name: simulated(int(name), side, fast) for name, (side, fast) in SEQUENCES.items()}


def simulated(index: int, side: str, fast: bool, subject: str | None = None) -> Recording:
    """1.6 s of a moving hand before a turned camera, with frames of another one."""
    _, config = clip_of("evrealhands", 5, 6 if fast else index, TrainShares())
    clip = simulate_clip(replace(config, duration_us=1_600_000, side=side), 5, index)
    world = np.eye(4)
    world[:3, :3] = Rotation.from_rotvec([0.3, -0.8, 0.2]).as_matrix()
    world[:3, 3] = 0.1, -0.2, 0.9
    tags = Tags(
        side=clip.pose.side, subject=subject or str(index), scene="normal", fast=fast, gesture="random", checked=True
    )
    rgb = Camera(np.array([[10.0, 0, 5.5], [0, 10, 3.5], [0, 0, 1]]), (12, 8), np.zeros(0), world)
    frame = layout.encoded(np.full((8, 12, 3), 90, np.uint8), "JPEG")
    views = (View("21320028", rgb, clip.label_t_us, (frame,) * len(clip.label_t_us)),)
    return Recording(
        Replay(clip.events), replace(clip.camera, T_camera_world=world), clip.label_t_us, clip.pose, clip.joints_m,
        clip.boxes_px, tags=tags, views=views,
    )  # fmt: skip


def write_small_layout(root: Path) -> Path:
    for name, recording in _recordings().items():
        layout.write_sequence(root / name, recording)
    layout.write_index(root)
    return root


# --- faults ---------------------------------------------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "annot.json") -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def _later(content: dict[str, Any]) -> None:
    content["delta_time"] += 30_000


def _marked_right(content: dict[str, Any]) -> None:
    content["hand_type"] = "right"


def _without_frames(content: dict[str, Any]) -> None:
    for table in (content["manos"], content["3d_joints"], content["2d_joints"]["event"], content["bbox"]["event"]):
        for i in ("9", "10"):
            del table[i]


def _millimetres(content: dict[str, Any]) -> None:
    for hand in content["manos"].values():
        hand["trans"] = [1000 * value for value in hand["trans"]]


def _changed_joints(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Any]], None]:
    def plant(content: dict[str, Any]) -> None:
        for i, joints in content["3d_joints"].items():
            content["3d_joints"][i] = change(np.array(joints)).tolist()

    return plant


def _swapped_fingers(joints: np.ndarray) -> np.ndarray:
    joints[5:9], joints[13:17] = joints[13:17].copy(), joints[5:9].copy()
    return joints


def _not_a_number(content: dict[str, Any]) -> None:
    content["3d_joints"]["7"][3][1] = float("nan")


def _boxes_outside(content: dict[str, Any]) -> None:
    for box in list(content["bbox"]["event"].values())[4:9]:
        box["tl"][0], box["br"][0] = box["tl"][0] + 400, box["br"][0] + 400


def _other_sensor(content: dict[str, Any]) -> None:
    camera = content["camera_info"]["event"]
    for name in ("K", "K_old", "K_new"):
        camera[name][0][2], camera[name][1][2] = 319.5, 239.5


def _cut_off(folder: Path) -> None:
    path = folder / "events.aedat4"
    content = path.read_bytes()
    path.write_bytes(content[: int(0.8 * len(content))])


def _backwards(folder: Path) -> None:
    path = folder / "events.aedat4"
    events = open_events(path).read()
    half = len(events) // 2
    t_us = events.t_us - np.where(np.arange(len(events)) >= half, 300_000, 0)
    write_events(path, Replay(Events(events.x, events.y, t_us, events.p, events.size), half))


def _repeated(folder: Path) -> None:
    path = folder / "annot.json"
    text = path.read_text()
    start = text.index('"5": {"rot"')
    row = text[start : text.index("}", start) + 1]
    path.write_text(text.replace(row, f"{row}, {row}", 1))


def _annotations(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda folder: edit(folder, change)


FAULTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "clock shifted by 30 ms": ("0", "clock", _annotations(_later)),
    "left marked right": ("1", "handedness", _annotations(_marked_right)),
    "frames missing": ("0", "missing frames", _annotations(_without_frames)),
    "millimetres for metres": ("0", "units", _annotations(_millimetres)),
    "a swapped axis": ("0", "axes", _annotations(_changed_joints(lambda joints: joints[:, [1, 0, 2]]))),
    "truncated aedat4": ("0", "truncated", _cut_off),
    "NaN joints": ("0", "not finite", _annotations(_not_a_number)),
    "boxes outside the image": ("0", "boxes", _annotations(_boxes_outside)),
    "two finger chains swapped": ("0", "finger order", _annotations(_changed_joints(_swapped_fingers))),
    "a repeated annotation id": ("0", "repeated id", _repeated),
    "K of another sensor size": ("0", "camera", _annotations(_other_sensor)),
    "times that run backwards": ("0", "time order", _backwards),
}
"""Name -> (sequence, kind of the finding, how to plant it in a copy of the sequence's folder)."""


def planted(root: Path, copy: Path, name: str) -> Path:
    """A copy of a sequence with one fault in it."""
    sequence, _, plant = FAULTS[name]
    shutil.copytree(root / sequence, copy / sequence)
    plant(copy / sequence)
    return copy / sequence
