"""From a seed to a labelled clip: motion -> posed hand and forearm -> images at adaptive times -> events.

A clip is a function of (config, seed, index) alone, whatever the machine has simulated before. Images are drawn only
as often as the hand moves (about 0.7 pixels a step, ESIM's rule), and only inside the box that the hand touches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evhands.geometry import project
from evhands.hand import open_hand
from evhands.hand.model import PosedHand, ShapedHand, load_hand
from evhands.sim.appearance import Forearm, Look, Surface, draw_forearm, draw_look
from evhands.sim.motion import Motion, MotionConfig, Orientation, View, draw_motion, rotation_matrix, rotation_vector
from evhands.sim.render import image_boxes, log_background, render, seen_background, vertex_normals
from evhands.sim.sensor import SENSORS, EventSensor, SensorConfig, draw_sensor, union
from evhands.types import Camera, Events, HandPose, Side, Size

TEST_SUBJECTS = (1_000_000, 1_000_008)
"""Hands that no training may show."""
_SUBJECT_STREAM = 7_340_033
"""Keeps the random numbers of subjects apart from those of clips."""
_POSES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What clips are drawn from."""

    size: Size = (346, 260)
    focal_px: float = 330.0
    focal_spread: float = 0.2
    """The focal length is drawn within this share of `focal_px`, the principal point within 3 % of the size."""
    duration_us: int = 400_000
    label_rate_hz: float = 30.0
    orientation: Orientation = "frontal"
    depth_m: tuple[float, float] = (0.35, 1.0)
    side: Side = "right"
    subjects: tuple[int, int] = (0, 10_000)
    """First and last + 1 subject number; a number always has the same hand shape. See `TEST_SUBJECTS`."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    sensor: SensorConfig = SENSORS["davis346"]
    step_px: float = 0.7
    """Images are drawn at least each time the fastest joint has moved this far."""
    step_us: float = 8000.0
    """... and at least this often."""


@dataclass(frozen=True)
class Clip:
    """A simulated recording: events from 0 us on, and the truth at the label times (camera frame, metres, pixels)."""

    events: Events
    camera: Camera
    label_t_us: np.ndarray
    """(m,) int64; a label is the end of a window."""
    pose: HandPose
    """numpy float32, batch (m,)."""
    joints_m: np.ndarray
    """(m, 21, 3) float32 in `openpose21` order."""
    joints_px: np.ndarray
    """(m, 21, 2) float32."""
    boxes_px: np.ndarray
    """(m, 4) float32: x0, y0, x1, y1 of the joints' pixels."""
    meta: dict[str, Any]


def simulate_clip(config: ClipConfig, seed: int, index: int) -> Clip:
    """Simulate clip `index` of the series `seed`: always the same clip for the same (config, seed, index).

    Runs on one core; call `torch.set_num_threads(1)` in processes that do nothing else, small products gain nothing
    from more.
    """
    rng = np.random.default_rng((seed, index))
    subject = int(rng.integers(*config.subjects))
    hand = _hand_of(subject)
    camera = _draw_camera(config, rng)
    rest = _surface(hand)
    centre = rest.vertices.mean(0) - rest.joints16[0]
    view = View(K=camera.K, size=config.size, orientation=config.orientation, depth_m=config.depth_m, centre_m=centre)
    motion = draw_motion(config.motion, view, config.duration_us * 1e-6, rng)
    scene = _draw_scene(config, rest, motion, rng)
    sensor = draw_sensor(config.sensor, config.size, rng)
    count = int(config.duration_us * 1e-6 * config.label_rate_hz + 1e-9)
    label_t_us = np.round(np.arange(1, count + 1) * 1e6 / config.label_rate_hz).astype(np.int64)
    times, truth = _times_and_truth(config, hand, motion, camera, label_t_us)
    wall = log_background(scene.look, sensor.dark)
    eye = EventSensor(sensor, seen_background(wall), 0, np.random.default_rng((seed, index, 1)))
    _watch(eye, scene, wall, hand, motion, camera, times, config.side)
    events = eye.take()
    pose, joints_m = _labelled(truth, subject_shape(subject), hand.model.name, config.side)
    joints_px = project(joints_m, camera.K.astype(np.float32))
    boxes_px = np.concatenate([joints_px.min(1), joints_px.max(1)], -1)
    meta = {
        "seed": seed, "index": index, "subject": subject, "side": config.side, "orientation": config.orientation,
        "renders": len(times), **scene.look.tags, **sensor.summary,
    }  # fmt: skip
    return Clip(events, camera, label_t_us, pose, joints_m, joints_px, boxes_px, meta)


@dataclass(frozen=True)
class Scene:
    """What is drawn: the faces of hand and forearm together, how the forearm hangs on the hand, and its look."""

    faces: np.ndarray
    arm: Forearm
    arm_bend: np.ndarray
    """(3,) direction from the wrist to the elbow in the hand frame."""
    arm_rest: np.ndarray
    """(3,) where the forearm would point if it did not follow the hand, camera frame."""
    look: Look


def subject_shape(subject: int) -> np.ndarray:
    """The shape coefficients (10,) float32 of a subject: standard normal, cut at 2."""
    return np.random.default_rng((_SUBJECT_STREAM, subject)).standard_normal(10).clip(-2, 2).astype(np.float32)


def _hand_of(subject: int) -> ShapedHand:
    with torch.no_grad():
        return load_hand("open").with_shape(torch.from_numpy(subject_shape(subject)))


def _surface(hand: ShapedHand) -> Surface:
    model = hand.model
    joints = hand.joints16.numpy()
    vertices = hand.vertices.numpy() - joints[0]
    return Surface(vertices, model.faces.numpy().astype(np.int32), joints - joints[0], vertices[model.tip_vertices])


def _draw_camera(config: ClipConfig, rng: np.random.Generator) -> Camera:
    width, height = config.size
    focal = config.focal_px * (1 + rng.uniform(-1, 1) * config.focal_spread)
    cx, cy = (np.array([width, height]) - 1) / 2 + rng.uniform(-0.03, 0.03, 2) * config.size
    return Camera(np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]]), config.size)


def _draw_scene(config: ClipConfig, rest: Surface, motion: Motion, rng: np.random.Generator) -> Scene:
    arm = draw_forearm(rest, rng)
    normals = vertex_normals(rest.vertices, rest.faces)
    look = draw_look(rest, normals, arm, config.size, rng)
    bend = np.radians(np.clip(rng.normal(0, 13, 2), -28, 28))
    bend_direction = rotation_matrix(np.array([0.0, bend[0], bend[1]]))[:, 0]
    over_time = motion.rotation(np.linspace(0, config.duration_us * 1e-6, 9)) @ bend_direction
    faces = np.concatenate([rest.faces, arm.faces + len(rest.vertices)])
    if config.side == "left":
        faces = faces[:, ::-1]
    return Scene(np.ascontiguousarray(faces), arm, bend_direction, _unit(over_time.mean(0)), look)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


@dataclass(frozen=True)
class Posed:
    """The right hand at n times: what the hand model makes of it, and the numbers behind it."""

    hand: PosedHand
    rotation: np.ndarray
    """(n, 3, 3) hand to camera."""
    wrist: np.ndarray
    """(n, 3) m."""
    fingers: np.ndarray
    """(n, 15, 3) rotation vectors."""

    def joints(self) -> np.ndarray:
        """(n, 21, 3) float32 m, `openpose21`."""
        with torch.no_grad():
            return self.hand.joints().numpy()

    def vertices(self) -> np.ndarray:
        """(n, v, 3) float32 m."""
        with torch.no_grad():
            return self.hand.mesh().vertices.numpy()


def pose_at(hand: ShapedHand, motion: Motion, t_s: np.ndarray) -> Posed:
    """The hand at times (n,) in seconds."""
    rotation, wrist = motion.rotation(t_s), motion.wrist(t_s)
    fingers = open_hand.angles_to_joints(motion.angles(t_s))
    vectors = (rotation_vector(rotation), fingers, wrist)
    with torch.no_grad():
        posed = hand.with_pose(*(torch.from_numpy(v.astype(np.float32)) for v in vectors))
    return Posed(posed, rotation, wrist, fingers)


def _times_and_truth(
    config: ClipConfig, hand: ShapedHand, motion: Motion, camera: Camera, label_t_us: np.ndarray
) -> tuple[np.ndarray, tuple[Posed, np.ndarray, int]]:
    """When to draw (us, int64, from 0 to the end, dense where joints move fast); poses on a grid and at the labels."""
    grid_s = np.linspace(0, config.duration_us * 1e-6, max(int(config.duration_us / 4000), 1) + 1)
    n = len(grid_s)
    posed = pose_at(hand, motion, np.concatenate([grid_s, label_t_us * 1e-6]))
    joints = posed.joints()
    forearm = posed.wrist[:n] + 0.06 * posed.rotation[:n, :, 0]
    pixels = project(np.concatenate([joints[:n], forearm[:, None]], 1).astype(np.float64), camera.K)
    moved = np.linalg.norm(np.diff(pixels, axis=0), axis=-1).max(1)
    steps = np.maximum(moved * 1.15 / config.step_px, np.diff(grid_s) * 1e6 / config.step_us)
    phase = np.concatenate([[0.0], np.cumsum(steps)])
    t_us = np.interp(np.linspace(0, phase[-1], int(np.ceil(phase[-1])) + 1), phase, grid_s * 1e6)
    return np.unique(np.round(t_us).astype(np.int64)), (posed, joints, n)


def _watch(
    eye: EventSensor, scene: Scene, wall: np.ndarray, hand: ShapedHand, motion: Motion, camera: Camera,
    times: np.ndarray, side: Side,
) -> None:  # fmt: skip
    """Show the moving hand to the sensor."""
    previous = None
    for start in range(0, len(times), _POSES_AT_ONCE):
        t_us = times[start : start + _POSES_AT_ONCE]
        vertices = scene_vertices(scene, hand, motion, t_us * 1e-6, side)
        pixels, boxes = image_boxes(vertices, camera.K, camera.size)
        for i in range(len(t_us)):
            box = boxes[i] if previous is None else union(boxes[i], previous)
            light = render(vertices[i], pixels[i], scene.faces, scene.look, eye.sensor.dark, wall, box)
            if previous is None:
                eye.settle(light, box)
            else:
                eye.expose(light, box, int(t_us[i]))
            previous = boxes[i]


def scene_vertices(scene: Scene, hand: ShapedHand, motion: Motion, t_s: np.ndarray, side: Side) -> np.ndarray:
    """Vertices (n, v, 3) float32 of hand and forearm in the camera frame."""
    posed = pose_at(hand, motion, t_s)
    rotation, wrist = posed.rotation, posed.wrist
    along = _unit(0.6 * rotation @ scene.arm_bend + 0.4 * scene.arm_rest)
    across = _unit(_cross(along, rotation[:, :, 1]))
    frame = np.stack([along, _cross(across, along), across], -1)
    weights = scene.arm.weights[:, None]
    local = scene.arm.vertices.astype(np.float64)
    turns = np.concatenate([rotation, frame], -1)  # (n, 3, 6): one product for both skins
    skinned = np.concatenate([local * (1 - weights), local * weights], -1) @ np.swapaxes(turns, -1, -2)
    vertices = np.concatenate([posed.vertices(), (wrist[:, None] + skinned).astype(np.float32)], 1)
    return vertices * np.array([-1, 1, 1], np.float32) if side == "left" else vertices


def _labelled(
    truth: tuple[Posed, np.ndarray, int], shape: np.ndarray, hand_model: str, side: Side
) -> tuple[HandPose, np.ndarray]:
    """Pose and joints (m, 21, 3) at the labels; a left hand is the mirror image in x = 0, in the mirrored model."""
    posed, joints, first = truth
    mirror = np.array([-1, 1, 1] if side == "left" else [1, 1, 1], np.float32)
    turned = -mirror if side == "left" else mirror  # a rotation vector is an axial vector
    pose = HandPose(
        side=side,
        orientation=rotation_vector(posed.rotation[first:]).astype(np.float32) * turned,
        wrist=posed.wrist[first:].astype(np.float32) * mirror,
        joints=posed.fingers[first:].astype(np.float32) * turned,
        shape=np.tile(shape, (len(joints) - first, 1)),
        hand_model=hand_model,
    )
    return pose, joints[first:] * mirror
