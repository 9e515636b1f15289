"""Lamps, backgrounds and things do what they are called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.generate import simulate_clip, watch
from evhands.sim.motion import MotionConfig
from evhands.sim.scenery import SOLIDS, Backdrop, Lamp, SceneConfig, wall_at
from evhands.sim.sensor import SENSORS, draw_sensor

STILL = MotionConfig(
    keyframe_s=(2.0, 3.0), hold_share=1.0, peak_speed=(1e-6, 2e-6), peak_turn=(1e-6, 2e-6), finger_speed=(1e-6, 2e-6),
    wobble_m=(1e-9, 2e-9), tremor_m=0.0,
)  # fmt: skip
IDEAL = ClipConfig(size=(173, 130), focal_px=165.0, duration_us=250_000, sensor=SENSORS["ideal"])


def test_a_static_scene_without_noise_is_silent() -> None:
    for index in range(3):
        assert len(simulate_clip(replace(IDEAL, motion=STILL), 31, index).events) == 0


@pytest.mark.parametrize("scene", [SceneConfig(moving_background=1.0, background_px_s=(200, 300)),
                                   SceneConfig(camera_turn=1.0, camera_turn_rad_s=(1.0, 1.5))])  # fmt: skip
def test_a_moving_background_fires_away_from_the_hand(scene: SceneConfig) -> None:
    total = 0
    for index in range(4):
        config = replace(IDEAL, motion=STILL, scene=scene)
        events = simulate_clip(config, 32, index).events
        mask = draw_world(config, 32, index).mask(100_000)
        total += int((mask[events.y, events.x] == -1).sum())
    assert total > 500


@pytest.mark.parametrize("hz", [3.0, 20.0])
def test_a_flash_fires_twice_a_period_all_over_the_image(hz: float) -> None:
    world = draw_world(replace(IDEAL, duration_us=1_000_000, motion=STILL, scene=SceneConfig(light="flash")), 33, 0)
    world = replace(world, lamp=Lamp("flash", hz, 0.5, 0.25))
    times = np.unique(np.round(np.concatenate([[0, 1], 1e6 * world.lamp.times(1.0), [1_000_000]])).astype(np.int64))
    sensor = draw_sensor(SENSORS["ideal"], world.camera.size, np.random.default_rng(0))
    events = watch(world, sensor, times, np.random.default_rng(0)).take()
    edges = np.arange(round(2 * hz)) * 5e5 / hz + 2.5e5 / hz
    after = events.t_us - edges[np.maximum(np.searchsorted(edges, events.t_us + 2, side="right") - 1, 0)]
    assert (after < 1100).mean() > 0.98
    assert np.bincount(np.searchsorted(edges, events.t_us + 2, side="right"))[1:].min() > 0.9 * 173 * 130
    fired = np.zeros(world.camera.size[::-1], bool)
    fired[events.y, events.x] = True
    assert fired.mean() > 0.95


def test_mains_light_has_its_period() -> None:
    lamp = Lamp("mains", 100.0, 0.3, 0.4)
    t = np.linspace(0, 0.1, 2001)
    np.testing.assert_allclose(lamp.gain(t), lamp.gain(t + 0.01), atol=1e-9)
    assert lamp.gain(t).max() == pytest.approx(1.0, abs=1e-3)
    assert lamp.gain(t).min() == pytest.approx(0.7, abs=1e-3)
    assert np.diff(lamp.times(0.1)).max() < 1.01e-3


def test_a_still_backdrop_is_its_picture() -> None:
    picture = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    backdrop = Backdrop(picture, np.eye(3), (60, 40))
    np.testing.assert_allclose(wall_at(picture, backdrop.maps(np.zeros(1))[0], (60, 40)), picture, atol=1e-6)


@pytest.mark.parametrize("name", SOLIDS)
def test_things_are_closed_and_face_outwards(name: str) -> None:
    vertices, faces = SOLIDS[name]()
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert {tuple(e) for e in edges} == {tuple(e[::-1]) for e in edges}
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    assert np.einsum("fi,fi->f", a, np.cross(b, c)).sum() > 0
