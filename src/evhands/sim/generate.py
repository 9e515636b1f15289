"""From a seed to a labelled clip: a world, watched by an event sensor.

A clip is a function of (config, seed, index) alone, whatever the machine has simulated before. Images are drawn only
as often as something moves or the light changes (see `evhands.sim.world.needed_times`), and only inside the box that
the hand touches where nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evhands.sim.config import TEST_SUBJECTS, ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.film import Keys, Shots, keyed, new_stage, part_of, show
from evhands.sim.render import image_boxes, log_background, render
from evhands.sim.scenery import wall_at
from evhands.sim.sensor import Box, EventSensor, Sensor, draw_sensor, union
from evhands.sim.sensor_kernels import Buffers
from evhands.sim.world import Pace, Truth, World, due_images, key_times, needed_times, pace_of, subject_shape
from evhands.types import Camera, Events, HandPose

__all__ = ["TEST_SUBJECTS", "Clip", "ClipConfig", "simulate_clip", "subject_shape", "watch"]

_POSES_AT_ONCE = 256


@dataclass(frozen=True)
class Clip:
    """A simulated recording: events from 0 us on, and the truth of each hand at the label times.

    A label is the end of a window. `pose`, `joints_m` ... are those of the first hand.
    """

    events: Events
    camera: Camera
    hands: tuple[Truth, ...]
    meta: dict[str, Any]

    @property
    def label_t_us(self) -> np.ndarray:
        """(m,) int64."""
        return self.hands[0].t_us

    @property
    def pose(self) -> HandPose:
        """numpy float32, batch (m,)."""
        return self.hands[0].pose

    @property
    def joints_m(self) -> np.ndarray:
        """(m, 21, 3) float32 in `openpose21` order, metres, camera frame."""
        return self.hands[0].joints_m

    @property
    def joints_px(self) -> np.ndarray:
        """(m, 21, 2) float32 on the sensor, lens distortion included."""
        return self.hands[0].joints_px

    @property
    def boxes_px(self) -> np.ndarray:
        """(m, 4) float32: x0, y0, x1, y1 of the joints' pixels."""
        return self.hands[0].boxes_px


def simulate_clip(config: ClipConfig, seed: int, index: int) -> Clip:
    """Simulate clip `index` of the series `seed`: always the same clip for the same (config, seed, index).

    Runs on one core; call `torch.set_num_threads(1)` in processes that do nothing else, small products gain nothing
    from more.
    """
    return film(draw_world(config, seed, index), seed, index)


def film(world: World, seed: int, index: int) -> Clip:
    """What a sensor of the world's configuration, drawn for (seed, index), sees of it."""
    config = world.config
    sensor = draw_sensor(config.sensor, config.size, np.random.default_rng((seed, index, 2)))
    pace = pace_of(world)
    if config.video_fps > 0:
        times = np.round(np.arange(0, config.duration_us, 1e6 / config.video_fps)).astype(np.int64)
    else:
        times = needed_times(world, pace)
    events = watch(world, sensor, times, np.random.default_rng((seed, index, 1)), pace).take()
    count = int(config.duration_us * 1e-6 * config.label_rate_hz + 1e-9)
    label_t_us = np.round(np.arange(1, count + 1) * 1e6 / config.label_rate_hz).astype(np.int64)
    hands = tuple(world.truth(label_t_us, k) for k in range(len(world.actors)))
    meta = {"seed": seed, "index": index, "renders": len(times), **world.tags, **sensor.summary}
    return Clip(events, world.camera, hands, meta)


def watch(
    world: World, sensor: Sensor, times: np.ndarray, rng: np.random.Generator, pace: Pace | None = None
) -> EventSensor:
    """Show a world to a sensor at times (n,) us, the first of which settles it; returns the sensor with its events.

    rng: of the sensor's noise; pace: of the world, where it is known.
    """
    walls, gains = _Walls(world, sensor.dark), world.lamp.gain(times * 1e-6)
    vertices = world.vertices(times[:1])
    pixels, boxes = image_boxes(vertices, world.camera)
    wall, _ = walls.at(0, times[0], gains[0])
    shown = render(
        vertices[0], pixels[0], world.faces, world.look, sensor.dark, wall, (0, 0, *world.camera.size), gains[0]
    )
    eye = EventSensor(sensor, shown, int(times[0]), rng)
    if world.config.video_fps > 0:
        _watch_video(world, eye, times, gains, walls, shown, boxes[0])
        return eye
    stage = new_stage(world, wall, sensor.dark, int(times[0]), gains[0], boxes[0])
    pace = pace or pace_of(world)
    due, key_s, done = due_images(world, pace, times, gains), key_times(pace), 1
    for keys in keyed(world, key_s):
        end = len(times) if keys.t_us[-1] >= key_s[-1] * 1e6 else int(np.searchsorted(times, keys.t_us[-1]))
        end = max(end, done)
        maps = world.backdrop.maps(times[done - 1 : end] * 1e-6) if world.backdrop.moves else np.zeros((0, 3, 3))
        shots = Shots(times[done:end], gains[done - 1 : end].astype(np.float32), maps, due[done:end])

        def step(images: slice, *state: Any, keys: Keys = keys, shots: Shots = shots) -> tuple[Buffers, int]:
            return show(keys, part_of(shots, images), sensor.dark, stage, *state)

        eye.advance(shots.t_us, step)
        done = end
    return eye


def _watch_video(
    world: World, eye: EventSensor, times: np.ndarray, gains: np.ndarray, walls: _Walls, shown: np.ndarray,
    previous: Box,
) -> None:  # fmt: skip
    """Show the frames of a video after the first, which was `shown` and had its mesh within the box `previous`."""
    whole: Box = (0, 0, *world.camera.size)
    for start in range(1, len(times), _POSES_AT_ONCE):
        t_us = times[start : start + _POSES_AT_ONCE]
        vertices = world.vertices(t_us)
        pixels, boxes = image_boxes(vertices, world.camera)
        for i in range(len(t_us)):
            gain = gains[start + i]
            wall, changed = walls.at(start + i, t_us[i], gain)
            box = whole if changed else union(boxes[i], previous)
            light = render(vertices[i], pixels[i], world.faces, world.look, eye.sensor.dark, wall, box, gain)
            shown = _fade(eye, shown, light, box, (int(times[start + i - 1]), int(t_us[i])))
            previous = boxes[i]


def _fade(eye: EventSensor, shown: np.ndarray, light: np.ndarray, box: Box, span_us: tuple[int, int]) -> np.ndarray:
    """Cross-fade linear light from one video frame to the next inside a box, as `evhands.sim.video` does.

    shown: logarithm of light (height, width) of the frame before; returns that of the new one.
    """
    inside = np.s_[box[1] : box[3], box[0] : box[2]]
    before, after = np.exp(shown[inside]), np.exp(light)
    for t_us in np.linspace(*span_us, 13)[1:]:
        share = np.float32((t_us - span_us[0]) / (span_us[1] - span_us[0]))
        eye.expose(np.log(before + share * (after - before)), box, round(t_us))
    new = shown.copy()
    new[inside] = light
    return new


class _Walls:
    """The logarithm of the background's light as the images ask for it, drawn anew only where it has changed."""

    def __init__(self, world: World, dark: float) -> None:
        self._world, self._dark = world, dark
        self._gain = float("nan")
        self._picture = self._wall = np.zeros((0, 0), np.float32)

    def at(self, count: int, t_us: int, gain: float) -> tuple[np.ndarray, bool]:
        """(height, width) at a time, where the lamp's gain is known, and whether it differs from that of the image
        before (not for the first)."""
        world = self._world
        relit = gain != self._gain
        if relit:
            self._picture, self._gain = log_background(world.backdrop.picture, self._dark, gain), gain
        if world.backdrop.moves:
            self._wall = wall_at(self._picture, world.backdrop.maps(np.array([t_us * 1e-6]))[0], world.camera.size)
        elif relit:
            self._wall = self._picture
        return self._wall, count > 0 and (relit or world.backdrop.moves)
