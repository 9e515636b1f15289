"""Ordinary colour frames of a world: true motion blur, exposure, noise, over-exposure; from the event camera's place or
from another.

A frame is the mean of linear light over its exposure, of at least 8 images and of one at least every 2 pixels of motion
of the hands, then noise (shot and read), the sensor's clipping, and the sRGB curve (IEC 61966-2-1). Colours are tints
per vertex over the simulator's colourless light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evhands.boxes import sensor_pixels
from evhands.hand.raster import rasterize
from evhands.sim.render import image_boxes, log_background, render
from evhands.sim.scenery import wall_at
from evhands.sim.world import World
from evhands.types import Camera

DARK = 1e-3
"""Added before the logarithm and taken off after it."""


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """A colour camera. `T_frame_event` maps the event camera's frame into its own; None = one lens for both, as in a
    DAVIS. `camera` None = that of the events."""

    fps: float = 30.0
    exposure_us: tuple[float, float] = (2000.0, 25_000.0)
    """Log-uniform, drawn once a clip."""
    exposure_stops: tuple[float, float] = (-0.7, 0.5)
    """How far the exposure is from the right one, in powers of two; scenes of type highlight get 0.4 more."""
    shot_noise: float = 0.01
    """Standard deviation at white, where white is 1; it falls with the root of the light."""
    read_noise: float = 0.004
    camera: Camera | None = None
    T_frame_event: np.ndarray | None = None


@dataclass(frozen=True)
class Frames:
    """n frames: the middle of their exposures, how long these were, uint8 images, and the camera that took them."""

    t_us: np.ndarray
    exposure_us: float
    images: np.ndarray
    """(n, h, w, 3) uint8, sRGB."""
    camera: Camera
    T_frame_event: np.ndarray


def render_frames(world: World, config: FrameConfig, seed: int, index: int, t_us: np.ndarray | None = None) -> Frames:
    """All frames whose exposure lies within the clip; the same ones for the same (world, config, seed, index).

    t_us: the middles of the exposures (n,) int64, where the rate of the configuration is not wanted.
    """
    rng = np.random.default_rng((seed, index, 3))
    exposure = float(np.exp(rng.uniform(*np.log(config.exposure_us))))
    exposure = min(exposure, 0.9e6 / config.fps)
    stops = rng.uniform(*config.exposure_stops) + (0.4 if world.lamp.kind == "highlight" else 0.0)
    tints, behind = _tints(world, rng)
    if t_us is None:
        count = math.floor((world.config.duration_us - exposure) * 1e-6 * config.fps) + 1
        t_us = np.round((np.arange(max(count, 0)) * 1e6 / config.fps) + exposure / 2).astype(np.int64)
    camera = config.camera or world.camera
    T = np.eye(4) if config.T_frame_event is None else np.asarray(config.T_frame_event, np.float64)
    view = _View(world, camera, T, tints, behind)
    white = float(np.quantile(world.backdrop.picture, 0.9)) * 0.5 + 0.25
    images = np.empty((len(t_us), camera.size[1], camera.size[0], 3), np.uint8)
    for k, middle in enumerate(t_us):
        light = view.exposed(middle - exposure / 2, middle + exposure / 2) * (2.0**stops / white * 0.7)
        spread = np.sqrt(config.shot_noise**2 * np.maximum(light, 0) + config.read_noise**2)
        noisy = light + spread * rng.standard_normal(light.shape, np.float32)
        images[k] = np.rint(255 * _srgb(np.clip(noisy, 0, 1)))
    return Frames(t_us, exposure, images, camera, T)


def _srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _tints(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (v, 3) of the vertices and (3,) of the wall, of about unit luminance."""
    skin = np.array([1.3, 0.93, 0.75]) ** rng.uniform(0.7, 1.2)
    tints = []
    for actor in world.actors:
        hand = len(actor.shaped.vertices)
        arm = world.look.albedo[hand : hand + len(actor.arm.vertices)]
        bare = np.abs(arm / np.median(world.look.albedo[:hand]) - 1) < 0.45
        cloth = np.exp(rng.normal(0, 0.3, 3))
        tints += [np.tile(skin, (hand, 1)), np.where(bare[:, None], skin, cloth / cloth.mean())]
    for thing in world.things:
        colour = np.exp(rng.normal(0, 0.5, 3))
        tints.append(np.tile(colour / colour.mean(), (len(thing.vertices), 1)))
    wall = np.exp(rng.normal(0, 0.12, 3))
    return np.concatenate(tints).astype(np.float32), (wall / wall.mean()).astype(np.float32)


@dataclass(frozen=True)
class _View:
    """A world seen by a camera in another place. The wall is far away: only the camera's turn moves it."""

    world: World
    camera: Camera
    T_frame_event: np.ndarray
    tints: np.ndarray
    behind: np.ndarray

    def exposed(self, start_us: float, end_us: float) -> np.ndarray:
        """Mean linear light (h, w, 3) float32 from start to end."""
        travel = np.diff(
            sensor_pixels(self.world.actors[0].joints(np.array([start_us, end_us]) * 1e-6), self.camera), axis=0
        )
        steps = max(8, math.ceil(float(np.linalg.norm(travel, axis=-1).max()) / 2))
        times = start_us + (np.arange(steps) + 0.5) * (end_us - start_us) / steps
        total = np.zeros((self.camera.size[1], self.camera.size[0], 3), np.float32)
        for t_us in times:
            total += self.at(t_us)
        return total / np.float32(steps)

    def at(self, t_us: float) -> np.ndarray:
        """Linear light (h, w, 3) at one time."""
        world, time = self.world, np.array([t_us])
        gain = float(world.lamp.gain(time * 1e-6)[0])
        vertices = world.vertices(time) @ self.T_frame_event[:3, :3].T.astype(np.float32)
        vertices = (vertices + self.T_frame_event[:3, 3].astype(np.float32)).astype(np.float32)
        points, _ = image_boxes(vertices, self.camera)
        turn = world.camera.K @ self.T_frame_event[:3, :3].T @ np.linalg.inv(self.camera.K)
        picture = log_background(world.backdrop.picture, DARK, gain)
        wall = wall_at(picture, world.backdrop.maps(time * 1e-6)[0] @ turn, self.camera.size)
        whole = (0, 0, *self.camera.size)
        light = np.exp(render(vertices[0], points[0], world.faces, world.look, DARK, wall, whole, gain)) - np.float32(
            DARK
        )
        corners = np.concatenate([points[0], vertices[0, :, 2:]], 1)
        corners[vertices[0, :, 2] < 0.05] = np.nan
        seen = rasterize(corners, world.faces, self.camera.size)
        colour = np.broadcast_to(self.behind, (*light.shape, 3)).copy()
        there = seen.face >= 0
        colour[there] = (seen.barycentrics[there][..., None] * self.tints[world.faces[seen.face[there]]]).sum(1)
        return light[..., None] * colour
