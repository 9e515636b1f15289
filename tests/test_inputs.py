"""Laws of the one preprocessing path."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.geometry import crop_camera, default_camera, project, resize_camera
from evhands.inputs import InputConfig, crop_around, crop_inputs, crop_windows, overview, overview_camera
from evhands.types import Camera, Events, EventWindow

SIZE = (346, 260)


def window(n: int = 400, seed: int = 0) -> EventWindow:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(1_000_000, 1_066_667, n))
    events = Events(
        rng.integers(0, SIZE[0], n).astype(np.uint16),
        rng.integers(0, SIZE[1], n).astype(np.uint16),
        t,
        rng.random(n) < 0.5,
        SIZE,
    )
    return EventWindow(events, 1_000_000, 1_066_667)


def test_a_crop_is_a_camera():
    """What a crop's camera projects is where the crop's events lie."""
    camera = default_camera(SIZE)
    point = np.array([[0.03, -0.02, 0.5]])
    x, y = np.round(project(point, camera.K)[0]).astype(int)
    crop = crop_camera(camera, np.array([180.0, 120.0]), 120.0, 96)
    event = Events(np.array([x], np.uint16), np.array([y], np.uint16), np.array([5]), np.array([True]), SIZE)
    batch = crop_windows([EventWindow(event, 0, 10)], camera, [crop])
    np.testing.assert_allclose([batch.x[0], batch.y[0]], project(point, crop.K)[0], atol=0.5 * 96 / 120 + 1e-5)


def test_events_outside_the_crop_are_dropped_and_only_they():
    camera = default_camera(SIZE)
    crop = crop_camera(camera, np.array([100.0, 90.0]), 64.0, 64)
    w = window()
    inside = (w.events.x >= 68.5) & (w.events.x <= 131.5) & (w.events.y >= 58.5) & (w.events.y <= 121.5)
    assert len(crop_windows([w], camera, [crop]).x) == inside.sum() > 0


def test_windows_do_not_see_each_other():
    camera, config = default_camera(SIZE), InputConfig()
    crops = [crop_camera(camera, np.array([x, 130.0]), 150.0, 96) for x in (90.0, 200.0)]
    windows = [window(seed=1), window(seed=2)]
    both = crop_inputs(windows, camera, crops, config)
    for i in range(2):
        alone = crop_inputs(windows[i : i + 1], camera, crops[i : i + 1], config)
        np.testing.assert_array_equal(both["lnes"][i], alone["lnes"][0])


def test_an_empty_window_gives_zeros_of_every_image():
    camera, config = default_camera(SIZE), InputConfig(voxel_bins=5)
    empty = EventWindow(Events.empty(SIZE), 0, 66_667)
    inputs = crop_inputs([empty], camera, [crop_camera(camera, np.array([100.0, 100.0]), 90.0, 96)], config)
    assert not inputs["lnes"].any() and not inputs["voxel"].any()


def test_times_do_not_depend_on_the_clock():
    """A recording that starts a week later gives the same images."""
    camera, config, w = default_camera(SIZE), InputConfig(), window()
    later = 7 * 86_400 * 1_000_000
    moved = Events(w.events.x, w.events.y, w.events.t_us + later, w.events.p, SIZE)
    crop = [crop_camera(camera, np.array([170.0, 130.0]), 200.0, 96)]
    a = crop_inputs([w], camera, crop, config)["lnes"]
    b = crop_inputs([EventWindow(moved, w.start_us + later, w.end_us + later)], camera, crop, config)["lnes"]
    np.testing.assert_array_equal(a, b)


def test_distorted_events_land_where_the_undistorted_camera_projects():
    K = np.array([[300.0, 0, 172.5], [0, 300.0, 129.5], [0, 0, 1]])
    distorted = Camera(K, SIZE, np.array([-0.3, 0.1, 0.001, -0.001, 0.0]))
    from evhands.geometry import distort_points

    straight = np.array([[80.0, 60.0]])
    x, y = np.round(distort_points(straight, K, distorted.distortion)[0]).astype(int)
    event = Events(np.array([x], np.uint16), np.array([y], np.uint16), np.array([5]), np.array([True]), SIZE)
    crop = crop_camera(Camera(K, SIZE), straight[0], 60.0, 60)
    batch = crop_windows([EventWindow(event, 0, 10)], distorted, [crop])
    np.testing.assert_allclose([batch.x[0], batch.y[0]], [29.5, 29.5], atol=1.0)


@pytest.mark.parametrize("size", [(346, 260), (640, 480), (1280, 720), (240, 180)])
def test_the_overview_shows_the_whole_image_in_its_proportions(size):
    camera = default_camera(size)
    small = overview_camera(camera)
    corner = (np.array(size) - 0.5) * small.K[0, 0] / camera.K[0, 0]
    assert (corner <= np.array(small.size) + 0.5).all()
    whole = resize_camera(camera, size)
    np.testing.assert_allclose(small.K[0, 0] / whole.K[0, 0], small.K[1, 1] / whole.K[1, 1], rtol=0.02)


def test_overview_keeps_every_lively_place():
    w = window()
    image = overview(w, default_camera(SIZE))[0]
    assert image.shape == (2, 64, 88) and image.max() <= 1 and (image > 0).sum() > 300


def test_a_crop_around_joints_holds_them():
    points = np.random.default_rng(3).uniform(100, 180, (21, 2))
    crop = crop_around(points, default_camera(SIZE), InputConfig())
    scale = crop.K[0, 0] / default_camera(SIZE).K[0, 0]
    side = 96 / scale
    assert side == pytest.approx(1.7 * np.ptp(points, axis=0).max())
