"""A world tells the same truth as its images and events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.boxes import sensor_pixels
from evhands.events.warp import contrast, image_of_warped_events
from evhands.events.windows import batch_windows
from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.generate import simulate_clip
from evhands.sim.motion import MotionConfig
from evhands.sim.scenery import SceneConfig
from evhands.sim.sensor import SENSORS
from evhands.sim.world import needed_times
from evhands.types import EventWindow

CONFIG = ClipConfig(duration_us=120_000, depth_m=(0.35, 0.6))
VARIED = [
    CONFIG,
    replace(CONFIG, side="both"),
    replace(CONFIG, distortion=0.25, side="left"),
    replace(CONFIG, orientation="wide", scene=SceneConfig(thing=1.0, jewellery=1.0)),
]


@pytest.mark.parametrize("config", VARIED)
def test_visible_joints_lie_on_the_drawn_hand(config: ClipConfig) -> None:
    hits = []
    for index in range(6):
        world = draw_world(config, 21, index)
        mask = np.pad(world.mask(60_000), 2, constant_values=-1)
        for k in range(len(world.actors)):
            seen = world.visible(60_000, k)
            pixels = np.rint(world.truth(np.array([60_000]), k).joints_px[0][seen]).astype(int)
            near = [(mask[y : y + 5, x : x + 5] == k).any() for x, y in pixels]
            hits += near
    assert len(hits) > 40
    assert np.mean(hits) > 0.97


def test_flow_is_where_the_surface_goes() -> None:
    """The hand's own vertices, where they are seen, move by the flow at their pixel."""
    world = draw_world(replace(CONFIG, motion=MotionConfig(peak_speed=(0.8, 1.0), hold_share=0.0)), 22, 1)
    flow = world.flow(40_000, 50_000)
    raster, vertices = world.raster(40_000)
    later = world.vertices(np.array([50_000]))[0]
    now_px, later_px = (sensor_pixels(v.astype(np.float64), world.camera) for v in (vertices, later))
    count = len(world.actors[0].shaped.vertices)
    x, y = np.rint(now_px[:count]).astype(int).T
    inside = (x >= 0) & (x < 346) & (y >= 0) & (y < 260)
    x, y = np.clip(x, 0, 345), np.clip(y, 0, 259)
    seen = inside & (np.abs(raster.depth[y, x] - vertices[:count, 2]) < 1e-3) & np.isfinite(flow[y, x, 0])
    error = flow[y, x][seen] - (later_px - now_px)[:count][seen]
    assert seen.sum() > 100
    assert np.median(np.linalg.norm(later_px - now_px, axis=1)) > 1.0
    assert np.quantile(np.linalg.norm(error, axis=1), 0.95) < 0.5


def test_flow_sharpens_the_events() -> None:
    """Contrast maximisation's law (Gallego et al. 2018): along the true flow, events pile up on the edges."""
    config = replace(
        CONFIG, sensor=SENSORS["ideal"], motion=MotionConfig(peak_speed=(0.5, 1.5), hold_share=0.0, tremor_m=0.0)
    )
    better, moving = 0, 0
    for index in range(14):
        clip, world = simulate_clip(config, 23, index), draw_world(config, 23, index)
        for end in (60_000, 110_000):
            start = end - 15_000
            flow = np.nan_to_num(_spread(world.flow(start, end), world.flow(end, start)))
            events = clip.events.between(start, end)
            mask = np.isfinite(_spread(world.flow(start, end), world.flow(end, start))[..., 0])
            events = events[mask[events.y, events.x]]
            if len(events) < 200 or np.abs(flow).max() < 3:
                continue
            batch = batch_windows([EventWindow(events, start, end)])
            field = np.ascontiguousarray(flow.transpose(2, 0, 1)[None], np.float32)
            warped, still = (contrast(image_of_warped_events(batch, f, 1.0))[0] for f in (field, 0 * field))
            moving += 1
            better += bool(warped > still)
    assert moving >= 10
    assert better >= 0.95 * moving


def _spread(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Flow at every pixel that the hand covers at either end: events fire where it is in between."""
    return np.where(np.isfinite(forward), forward, -backward)


def test_images_are_taken_as_often_as_things_move() -> None:
    world = draw_world(CONFIG, 24, 0)
    times = needed_times(world)
    assert times[0] == 0
    assert times[-1] == CONFIG.duration_us
    assert np.diff(times).max() <= CONFIG.step_us + 1
    pixels = sensor_pixels(world.actors[0].joints(times * 1e-6).astype(np.float64), world.camera)
    assert np.linalg.norm(np.diff(pixels, axis=0), axis=-1).max() <= 1.2 * CONFIG.step_px


def test_two_hands_have_two_truths() -> None:
    clip = simulate_clip(replace(CONFIG, side="both"), 25, 0)
    assert [hand.pose.side for hand in clip.hands] == ["right", "left"]
    assert np.abs(clip.hands[0].joints_m - clip.hands[1].joints_m).max() > 0.05


def test_truth_at_any_time_agrees_with_the_labels() -> None:
    clip, world = simulate_clip(CONFIG, 26, 2), draw_world(CONFIG, 26, 2)
    again = world.truth(clip.label_t_us)
    np.testing.assert_array_equal(again.joints_m, clip.joints_m)
    between = world.truth((clip.label_t_us[:-1] + clip.label_t_us[1:]) // 2)
    assert np.abs(between.joints_m - (clip.joints_m[:-1] + clip.joints_m[1:]) / 2).max() < 0.05
