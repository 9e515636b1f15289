"""The images of a clip, drawn only where something changes: the events are those of whole images of exact meshes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.film import keyed
from evhands.sim.generate import watch
from evhands.sim.motion import SPEEDS
from evhands.sim.render import image_boxes, log_background, render
from evhands.sim.scenery import SceneConfig, wall_at
from evhands.sim.sensor import SENSORS, EventSensor, draw_sensor
from evhands.sim.world import World, key_times, needed_times, pace_of
from evhands.types import Events

QUIET = replace(SENSORS["davis346"], leak_hz=(0.0, 0.0), shot_noise_hz=(0.0, 0.0), hot_pixel_share=(0.0, 0.0))
CONFIG = ClipConfig(size=(173, 130), focal_px=165.0, duration_us=150_000, sensor=QUIET)
SCENES = {
    "still": CONFIG,
    "fast": replace(CONFIG, motion=SPEEDS["fast"]),
    "two hands through a lens": replace(CONFIG, side="both", distortion=0.2),
    "thing": replace(CONFIG, scene=SceneConfig(thing=1.0)),
    "flash": replace(CONFIG, scene=SceneConfig(light="flash")),
    "slides": replace(CONFIG, scene=SceneConfig(moving_background=1.0)),
    "turns": replace(CONFIG, scene=SceneConfig(camera_turn=1.0, light="flash")),
}


def _image_by_image(world: World, times: np.ndarray) -> Events:
    """Whole images of meshes at their own times."""
    sensor = draw_sensor(world.config.sensor, world.config.size, np.random.default_rng(0))
    whole, eye = (0, 0, *world.config.size), None
    for t_us in times:
        gain = float(world.lamp.gain(np.array([t_us * 1e-6]))[0])
        wall = log_background(world.backdrop.picture, sensor.dark, gain)
        if world.backdrop.moves:
            wall = wall_at(wall, world.backdrop.maps(np.array([t_us * 1e-6]))[0], world.config.size)
        vertices = world.vertices(np.array([t_us]))
        points, _ = image_boxes(vertices, world.camera)
        light = render(vertices[0], points[0], world.faces, world.look, sensor.dark, wall, whole, gain)
        if eye is None:
            eye = EventSensor(sensor, light, int(t_us), np.random.default_rng(1))
        else:
            eye.expose(light, whole, int(t_us))
    assert eye is not None
    return eye.take()


@pytest.mark.parametrize("name", SCENES)
def test_a_film_fires_what_whole_images_fire(name: str) -> None:
    for index in range(2):
        world = draw_world(SCENES[name], 51, index)
        times = needed_times(world)
        sensor = draw_sensor(world.config.sensor, world.config.size, np.random.default_rng(0))
        film = watch(world, sensor, times, np.random.default_rng(1)).take()
        exact = _image_by_image(world, times)
        assert len(exact) > 500
        assert abs(len(film) / len(exact) - 1) < 0.01
        assert abs(film.p.mean() - exact.p.mean()) < 0.005


@pytest.mark.parametrize("name", ["still", "fast"])
def test_vertices_move_straight_between_keys_and_are_where_they_ought_to_be(name: str) -> None:
    errors = []
    for index in range(4):
        world = draw_world(SCENES[name], 52, index)
        for keys in keyed(world, key_times(pace_of(world))):
            middle_us = (keys.t_us[1:] + keys.t_us[:-1]) / 2
            vertices = world.vertices(middle_us)
            hand = len(world.actors[0].shaped.vertices)
            straight = (keys.corners[1:, :hand, :2] + keys.corners[:-1, :hand, :2]) / 2
            exact, _ = image_boxes(vertices, world.camera)
            errors.append(np.linalg.norm(straight - exact[:, :hand], axis=-1).ravel())
    error = np.concatenate(errors)
    assert error.max() < 0.05
