"""The laws of the event sensor."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evhands.sim.sensor import SENSORS, EventSensor, Sensor, SensorConfig, draw_sensor
from evhands.types import Events

SIZE = (40, 30)
WHOLE = (0, 0, *SIZE)
IDEAL = SENSORS["ideal"]


def _sensor(config: SensorConfig = IDEAL, seed: int = 0) -> Sensor:
    return draw_sensor(config, SIZE, np.random.default_rng(seed))


def _flat(value: float) -> np.ndarray:
    return np.full(SIZE[::-1], value, np.float32)


def _watched(sensor: Sensor, images: list[np.ndarray], times: list[int]) -> Events:
    eye = EventSensor(sensor, images[0], times[0])
    for image, t_us in zip(images[1:], times[1:], strict=True):
        eye.expose(image, WHOLE, t_us)
    return eye.take()


def test_a_static_scene_fires_nothing() -> None:
    image = np.random.default_rng(0).standard_normal(SIZE[::-1]).astype(np.float32)
    assert len(_watched(_sensor(), [image] * 4, [0, 1000, 5000, 9000])) == 0


@settings(max_examples=25)
@given(start=st.floats(0.01, 1.0), ratio=st.floats(0.05, 20.0), threshold=st.floats(0.1, 0.5), steps=st.integers(1, 7))
def test_a_ramp_fires_at_equal_steps_of_log_light(start: float, ratio: float, threshold: float, steps: int) -> None:
    crossings = abs(math.log(ratio)) / threshold
    if abs(crossings - round(crossings)) < 1e-3:
        return  # whether float32 just reaches the last threshold is not the law
    sensor = _sensor(replace(IDEAL, threshold=(threshold, threshold)))
    times = np.unique(np.round(np.linspace(0, 1_000_000, steps + 1)).astype(int)).tolist()
    images = [_flat(math.log(start) + math.log(ratio) * t / 1e6) for t in times]
    events = _watched(sensor, images, times)
    count = math.floor(crossings)
    assert len(events) == count * SIZE[0] * SIZE[1]
    assert (events.p == (ratio > 1)).all()
    expected = np.repeat(np.arange(1, count + 1) / crossings * 1e6, SIZE[0] * SIZE[1])
    np.testing.assert_allclose(events.t_us, expected, atol=25)
    pixels = events.y.astype(int) * SIZE[0] + events.x
    assert (np.bincount(pixels, minlength=SIZE[0] * SIZE[1]) == count).all()


def _moving_pattern(phases: np.ndarray) -> list[np.ndarray]:
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return [np.float32(1.5 * np.sin((x + 0.4 * y - s) / 3.0) + np.cos((x - y + 2 * s) / 5.0)) for s in phases]


def test_doubling_the_threshold_halves_the_counts() -> None:
    a, b = (_sensor(replace(IDEAL, threshold=(c, c))) for c in (0.05, 0.1))
    images, times = _moving_pattern(np.linspace(0, 1, 3)), [0, 5000, 10000]
    counts = []
    for sensor in (a, b):
        events = _watched(sensor, images[::2], times[::2])
        counts.append(np.bincount(events.y.astype(int) * SIZE[0] + events.x, minlength=SIZE[0] * SIZE[1]))
    assert counts[0].sum() > 5000
    assert ((counts[0] // 2) == counts[1]).all()


def test_reversed_time_swaps_the_polarities() -> None:
    # There and back: what brightens on the way there darkens on the way back, at the mirrored time.
    there = _moving_pattern(np.array([0.0, 1.0]))
    forward = _watched(_sensor(), there, [0, 10_000])
    backward = _watched(_sensor(), there[::-1], [0, 10_000])
    assert int(forward.p.sum()) == int((~backward.p).sum()) > 500
    assert int((~forward.p).sum()) == int(backward.p.sum()) > 500


def test_ten_times_finer_images_change_the_count_by_less_than_two_percent() -> None:
    counts = []
    for steps in (30, 300):
        phases = np.linspace(0, 21, steps + 1)  # 0.7 pixels a step, as the simulator draws
        counts.append(
            len(_watched(_sensor(), _moving_pattern(phases), (np.arange(steps + 1) * 3000 // (steps // 30)).tolist()))
        )
    assert counts[1] > 20_000
    assert abs(counts[0] / counts[1] - 1) < 0.02


def test_boxes_are_the_same_as_the_whole_image() -> None:
    config = replace(SENSORS["davis346"], shot_noise_hz=(0.0, 0.0), hot_pixel_share=(0.0, 0.0))
    rng = np.random.default_rng(1)
    image = rng.standard_normal(SIZE[::-1]).astype(np.float32)
    whole, boxed = (EventSensor(_sensor(config), image, 0) for _ in range(2))
    for k in range(1, 9):
        image = image.copy()
        x0, y0 = 3 * k, 2 * k
        box = (x0, y0, x0 + 9, y0 + 11)
        inside = np.s_[box[1] : box[3], box[0] : box[2]]
        image[inside] += rng.standard_normal((11, 9)).astype(np.float32)
        whole.expose(image, WHOLE, 700 * k)
        boxed.expose(np.ascontiguousarray(image[inside]), box, 700 * k)
    a, b = whole.take(), boxed.take()
    assert abs(len(a) - len(b)) <= 0.01 * len(a)  # a box stops following after six time constants
    assert len(a) > 500


def test_the_low_pass_does_not_depend_on_the_steps_and_settles() -> None:
    config = replace(IDEAL, bandwidth_hz=(200.0, 200.0), threshold=(0.1, 0.1))
    images = [_flat(v) for v in np.linspace(0, 1.05, 11)]
    slow = EventSensor(_sensor(config), images[0], 0)
    for k, image in enumerate(images[1:], 1):
        slow.expose(image, WHOLE, 100 * k)
    fast = EventSensor(_sensor(config), images[0], 0)
    fast.expose(images[-1], WHOLE, 1000)
    np.testing.assert_allclose(slow._level, fast._level, atol=1e-5)
    tau = fast.sensor.tau_us
    lag = 1.05 * tau / 1000 * (1 - math.exp(-1000 / tau))
    np.testing.assert_allclose(fast._level, 1.05 - lag, atol=1e-5)
    fast.expose(images[-1], WHOLE, 100_000)
    np.testing.assert_allclose(fast._level, 1.05, atol=1e-5)
    assert len(fast.take()) == 10 * SIZE[0] * SIZE[1]


def test_a_pixel_rests_for_its_refractory_period() -> None:
    config = replace(IDEAL, refractory_us=(700.0, 700.0), threshold=(0.1, 0.1))
    images = _moving_pattern(np.linspace(0, 21, 31))
    events = _watched(_sensor(config), images, list(range(0, 31 * 1000, 1000)))
    free = _watched(_sensor(replace(config, refractory_us=(0.0, 0.0))), images, list(range(0, 31 * 1000, 1000)))
    pixels = events.y.astype(int) * SIZE[0] + events.x
    order = np.lexsort((events.t_us, pixels))
    gaps, same = np.diff(events.t_us[order]), np.diff(pixels[order]) == 0
    assert gaps[same].min() >= 700
    assert 0 < len(events) < len(free)


def test_events_come_in_time_order_and_within_their_step() -> None:
    eye = EventSensor(_sensor(), _flat(0.0), 1000)
    eye.expose(_flat(1.0), WHOLE, 3000)
    first = eye.take()
    eye.expose(_flat(2.0), WHOLE, 4000)
    second = eye.take()
    for events, start, end in ((first, 1000, 3000), (second, 3000, 4000)):
        assert (np.diff(events.t_us) >= 0).all()
        assert start <= events.t_us[0] <= events.t_us[-1] < end


def test_noise_rates_are_those_of_the_sensor() -> None:
    config = replace(IDEAL, shot_noise_hz=(2.0, 2.0), noise_on_share=(0.3, 0.3), hot_pixel_share=(0.01, 0.01),
                     hot_pixel_hz=(100.0, 100.0))  # fmt: skip
    sensor = _sensor(config)
    eye = EventSensor(sensor, _flat(0.0), 0)
    eye.expose(_flat(0.0), WHOLE, 10_000_000)
    events = eye.take(np.random.default_rng(3), 0)
    hot = np.isin(events.y.astype(int) * SIZE[0] + events.x, sensor.hot_pixels)
    cold_pixels = SIZE[0] * SIZE[1] - len(np.unique(sensor.hot_pixels))
    for found, expected in (
        (np.count_nonzero(~hot), 2.0 * 10 * cold_pixels),
        (np.count_nonzero(hot), len(sensor.hot_pixels) * (100 + 2) * 10),
        (np.count_nonzero(events.p), 0.3 * len(events)),
    ):
        assert abs(found - expected) < 3 * math.sqrt(expected)
    assert len(sensor.hot_pixels) > 0


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_presets_draw_within_their_ranges(name: str) -> None:
    config = SENSORS[name]
    for seed in range(10):
        sensor = _sensor(config, seed)
        assert config.threshold[0] * 0.97 <= sensor.on.mean() <= config.threshold[1] * 1.03
        assert config.off_over_on[0] * 0.97 <= sensor.off.mean() / sensor.on.mean() <= config.off_over_on[1] * 1.03
        assert sensor.on.min() > 0
        assert sensor.off.min() > 0
