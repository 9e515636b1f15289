"""What a clip shows, as functions of time: hands, forearms, things, light, background; and the truth at any time.

A world is a function of (config, seed, index) alone, so the truth of a recording can be had again at any microsecond
from the three: `evhands.sim.drawing.draw_world(config, seed, index)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evhands.boxes import sensor_pixels
from evhands.hand import open_hand
from evhands.hand.model import PosedHand, ShapedHand
from evhands.hand.raster import Raster, rasterize
from evhands.sim.appearance import Forearm, Look
from evhands.sim.config import ClipConfig
from evhands.sim.motion import Motion, rotation_vector
from evhands.sim.scenery import Backdrop, Lamp, Thing
from evhands.types import Camera, HandPose, Side

KEY_ERROR_PX = 0.03
"""How far vertices may be from where they ought to be, about."""
LONGEST_KEY_S = 0.016
FOLLOWED_US = 20_000
"""After this the pixels have followed a lamp that has changed."""
_SUBJECT_STREAM = 7_340_033
"""Keeps the random numbers of subjects apart from those of clips."""


@dataclass(frozen=True)
class Posed:
    """A RIGHT hand at n times: what the hand model makes of it, and the numbers behind it."""

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


@dataclass(frozen=True)
class Actor:
    """One hand with its forearm. Everything is told of a right hand; a left one is its mirror image in x = 0."""

    side: Side
    subject: int
    shaped: ShapedHand
    motion: Motion
    arm: Forearm
    arm_bend: np.ndarray
    """(3,) direction from the wrist to the elbow in the hand frame."""
    arm_rest: np.ndarray
    """(3,) where the forearm would point if it did not follow the hand, camera frame."""

    @property
    def mirror(self) -> np.ndarray:
        return np.array([-1 if self.side == "left" else 1, 1, 1], np.float32)

    def posed(self, t_s: np.ndarray) -> Posed:
        """The right hand at times (n,) in seconds."""
        return pose_at(self.shaped, self.motion, t_s)

    def joints(self, t_s: np.ndarray) -> np.ndarray:
        """(n, 21, 3) float32 m, camera frame, `openpose21`."""
        return self.posed(t_s).joints() * self.mirror

    def vertices(self, t_s: np.ndarray) -> np.ndarray:
        """(n, v + a, 3) float32 m of hand and forearm."""
        posed = self.posed(t_s)
        rotation, wrist = posed.rotation, posed.wrist
        along = unit(0.6 * rotation @ self.arm_bend + 0.4 * self.arm_rest)
        across = unit(_cross(along, rotation[:, :, 1]))
        frame = np.stack([along, _cross(across, along), across], -1)
        weights = self.arm.weights[:, None]
        local = self.arm.vertices.astype(np.float64)
        turns = np.concatenate([rotation, frame], -1)  # (n, 3, 6): one product for both skins
        skinned = np.concatenate([local * (1 - weights), local * weights], -1) @ np.swapaxes(turns, -1, -2)
        vertices = np.concatenate([posed.vertices(), (wrist[:, None] + skinned).astype(np.float32)], 1)
        return vertices * self.mirror if self.side == "left" else vertices

    def labelled(self, t_s: np.ndarray) -> tuple[HandPose, np.ndarray]:
        """Pose, and joints (m, 21, 3) in metres, at times (m,); numpy float32."""
        posed = self.posed(t_s)
        turned = -self.mirror if self.side == "left" else self.mirror  # a rotation vector is an axial vector
        pose = HandPose(
            side=self.side,
            orientation=rotation_vector(posed.rotation).astype(np.float32) * turned,
            wrist=posed.wrist.astype(np.float32) * self.mirror,
            joints=posed.fingers.astype(np.float32) * turned,
            shape=np.tile(subject_shape(self.subject), (len(t_s), 1)),
            hand_model=self.shaped.model.name,
        )
        return pose, posed.joints() * self.mirror


@dataclass(frozen=True)
class Truth:
    """Pose, joints and boxes of one hand at m times (camera frame, metres; pixels of the sensor, lens included)."""

    t_us: np.ndarray
    pose: HandPose
    joints_m: np.ndarray
    """(m, 21, 3) float32 in `openpose21` order."""
    joints_px: np.ndarray
    """(m, 21, 2) float32."""
    boxes_px: np.ndarray
    """(m, 4) float32: x0, y0, x1, y1 of the joints' pixels."""


@dataclass(frozen=True)
class World:
    """A drawn scene. Faces are those of all hands, forearms and things; `owner` tells whose each is."""

    config: ClipConfig
    camera: Camera
    actors: tuple[Actor, ...]
    things: tuple[Thing, ...]
    faces: np.ndarray
    """(f, 3) int32."""
    owner: np.ndarray
    """(f,) int8: k for the hand of actor k, -2 for a forearm, -3 for a thing."""
    look: Look
    backdrop: Backdrop
    lamp: Lamp
    tags: dict[str, Any]

    def vertices(self, t_us: np.ndarray) -> np.ndarray:
        """(n, v, 3) float32 m of everything, in the camera frame, at times (n,)."""
        t_s = np.asarray(t_us) * 1e-6
        parts = [a.vertices(t_s) for a in self.actors] + [thing.at(t_s) for thing in self.things]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)

    def truth(self, t_us: np.ndarray, actor: int = 0) -> Truth:
        """The truth of one hand at any times (m,)."""
        t_us = np.asarray(t_us, np.int64)
        pose, joints_m = self.actors[actor].labelled(t_us * 1e-6)
        joints_px = sensor_pixels(joints_m, self.camera).astype(np.float32)
        boxes_px = np.concatenate([joints_px.min(1), joints_px.max(1)], -1)
        return Truth(t_us, pose, joints_m, joints_px, boxes_px)

    def raster(self, t_us: int) -> tuple[Raster, np.ndarray]:
        """What is seen at each pixel at one time, and the vertices (v, 3) m behind it."""
        vertices = self.vertices(np.array([t_us]))[0]
        points = np.concatenate([sensor_pixels(vertices.astype(np.float64), self.camera), vertices[:, 2:]], 1)
        points[vertices[:, 2] < 0.05] = np.nan
        return rasterize(points.astype(np.float32), self.faces, self.camera.size), vertices

    def mask(self, t_us: int) -> np.ndarray:
        """(height, width) int8: k where the hand of actor k is seen, -1 background, -2 forearm, -3 thing."""
        face = self.raster(t_us)[0].face
        return np.where(face >= 0, self.owner[np.maximum(face, 0)], np.int8(-1))

    def flow(self, t_us: int, until_us: int) -> np.ndarray:
        """(height, width, 2) float32: where the hand's surface seen at `t_us` goes by `until_us`, in pixels; NaN off
        the hands."""
        raster, _ = self.raster(t_us)
        later = self.vertices(np.array([until_us]))[0]
        out = np.full((*raster.face.shape, 2), np.nan, np.float32)
        seen = raster.face >= 0
        seen[seen] = self.owner[raster.face[seen]] >= 0
        corners = later[self.faces[raster.face[seen]]]
        points = (raster.barycentrics[seen][:, :, None] * corners).sum(1).astype(np.float64)
        rows, columns = np.nonzero(seen)
        out[seen] = sensor_pixels(points, self.camera) - np.stack([columns, rows], 1)
        return out

    def visible(self, t_us: int, actor: int = 0) -> np.ndarray:
        """(21,) bool: joints in the image with nothing more than 2 cm before them (a joint lies inside a finger)."""
        raster, _ = self.raster(t_us)
        truth = self.truth(np.array([t_us]), actor)
        pixels = np.rint(truth.joints_px[0]).astype(int)
        inside = (pixels >= 0).all(1) & (pixels < self.camera.size).all(1)
        x, y = np.clip(pixels, 0, np.array(self.camera.size) - 1).T
        return inside & (raster.depth[y, x] > truth.joints_m[0, :, 2] - 0.02)


def subject_shape(subject: int) -> np.ndarray:
    """The shape coefficients (10,) float32 of a subject: standard normal, cut at 2."""
    return np.random.default_rng((_SUBJECT_STREAM, subject)).standard_normal(10).clip(-2, 2).astype(np.float32)


def pose_at(hand: ShapedHand, motion: Motion, t_s: np.ndarray) -> Posed:
    """A right hand at times (n,) in seconds."""
    rotation, wrist = motion.rotation(t_s), motion.wrist(t_s)
    fingers = open_hand.angles_to_joints(motion.angles(t_s))
    vectors = (rotation_vector(rotation), fingers, wrist)
    with torch.no_grad():
        posed = hand.with_pose(*(torch.from_numpy(v.astype(np.float32)) for v in vectors))
    return Posed(posed, rotation, wrist, fingers)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


@dataclass(frozen=True)
class Pace:
    """How fast things move in the image, on a grid of about 4 ms."""

    grid_s: np.ndarray
    """(n + 1,)."""
    moved_px: np.ndarray
    """(n,) by the fastest point of hands, things and background from one time to the next."""
    slid_px: np.ndarray
    """(n,) by that of the background."""
    bent_px: np.ndarray
    """(n,) by how much a point of hands and things moves differently from the step before, at most."""


def pace_of(world: World) -> Pace:
    """The pace of hands, forearms, things and background."""
    config = world.config
    grid_s = np.linspace(0, config.duration_us * 1e-6, max(config.duration_us // 4000, 1) + 1)
    moved, bent = np.zeros(len(grid_s) - 1), np.zeros(len(grid_s) - 1)
    for actor in () if config.empty else world.actors:
        posed = actor.posed(grid_s)
        forearm = posed.wrist + 0.06 * posed.rotation[:, :, 0]
        points = np.concatenate([posed.joints().astype(np.float64), forearm[:, None]], 1)
        moved, bent = _fastest(points, world.camera, moved, bent)
    for thing in world.things:
        moved, bent = _fastest(thing.at(grid_s)[:, ::5].astype(np.float64), world.camera, moved, bent)
    slid = np.zeros(len(moved))
    if world.backdrop.moves:
        slid = world.backdrop.speed_px_s(grid_s) * np.diff(grid_s)
    return Pace(grid_s, np.maximum(moved, slid), slid, bent)


def needed_times(world: World, pace: Pace | None = None) -> np.ndarray:
    """When to draw (us, int64, from 0 to the end, dense where things move fast).

    ESIM's rule (Rebecq et al. 2018): the next image when the fastest point has moved `step_px`.
    """
    config, pace = world.config, pace or pace_of(world)
    steps = _steps(config, pace, pace.moved_px)
    lamp = world.lamp.times(config.duration_us * 1e-6) * 1e6
    return np.unique(np.round(np.concatenate([_spaced(pace.grid_s, steps) * 1e6, lamp])).astype(np.int64))


def due_images(world: World, pace: Pace, t_us: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the images at times (n,) a background that moves is due in: one a step of its own, and all
    from before a change of the lamp until pixels have followed."""
    phase = np.concatenate([[0.0], np.cumsum(_steps(world.config, pace, pace.slid_px))])
    step = np.floor(np.interp(t_us * 1e-6, pace.grid_s, phase))
    changes = np.diff(gains) != 0
    due = np.ones(len(t_us), bool)
    due[1:] = (np.diff(step) > 0) | changes
    due[:-1] |= changes
    relit_us = np.concatenate([[-math.inf], t_us[1:][changes]])
    return due | (t_us - relit_us[np.searchsorted(relit_us, t_us, side="right") - 1] < FOLLOWED_US)


def _steps(config: ClipConfig, pace: Pace, moved_px: np.ndarray) -> np.ndarray:
    """How many images each part of the grid asks for."""
    return np.maximum(moved_px * 1.15 / config.step_px, np.diff(pace.grid_s) * 1e6 / config.step_us)


def key_times(pace: Pace, error_px: float = KEY_ERROR_PX) -> np.ndarray:
    """When meshes are worked out (s, from the first to the last time of the pace): between two of these times every
    vertex moves straight through the image, and is then at most about `error_px` from where it ought to be.

    A path of acceleration a lies up to a h^2 / 8 beside its chord over a time h.
    """
    step_s = np.diff(pace.grid_s)
    apart_s = np.clip(step_s * np.sqrt(8 * error_px / np.maximum(pace.bent_px, 1e-9)), 1e-3, LONGEST_KEY_S)
    return _spaced(pace.grid_s, step_s / apart_s)


def _spaced(grid_s: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Times from the first to the last of the grid, by at least so many steps (n,) within each of its parts."""
    phase = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(np.linspace(0, phase[-1], math.ceil(phase[-1]) + 1), phase, grid_s)


def _fastest(points: np.ndarray, camera: Camera, moved: np.ndarray, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(moved, bent) of a `Pace`, of the points (n, k, 3) too."""
    pixels = points[..., :2] / np.maximum(points[..., 2:], 0.05) * camera.K[0, 0]
    steps = np.diff(pixels, axis=0)
    moved = np.maximum(moved, np.linalg.norm(steps, axis=-1).max(1))
    turns = np.linalg.norm(np.diff(steps, axis=0), axis=-1).max(1, initial=0)
    if len(turns):
        ends = np.concatenate([turns[:1], turns, turns[-1:]])
        bent = np.maximum(bent, np.maximum(ends[1:], ends[:-1]))
    return moved, bent
