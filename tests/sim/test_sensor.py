"""The laws of the event sensor."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_path
from evhands.events.io import open_events
from evhands.sim.sensor import SENSORS, EventSensor, Sensor, SensorConfig, draw_sensor
from evhands.sim.sensor_kernels import LONGEST_WAIT_US
from evhands.sim.sensor_noise import GREY
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
    np.testing.assert_allclose(slow.level, fast.level, atol=1e-5)
    tau = fast.sensor.tau_us
    lag = 1.05 * tau / 1000 * (1 - math.exp(-1000 / tau))
    np.testing.assert_allclose(fast.level, 1.05 - lag, atol=1e-5)
    fast.expose(images[-1], WHOLE, 100_000)
    np.testing.assert_allclose(fast.level, 1.05, atol=1e-5)
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


NOISY = replace(
    IDEAL, shot_noise_hz=(2.0, 2.0), noise_falloff=(0.0, 0.0), noise_spread=(0.0, 0.0), noise_on_share=(0.3, 0.3),
    on_after_off=(0.0, 0.0), off_after_on=(0.0, 0.0),
)  # fmt: skip
RETURNING = replace(
    NOISY, noise_on_share=(0.5, 0.5), on_after_off=(0.8, 0.8), off_after_on=(0.4, 0.4), on_after_off_us=(2e3, 2e3),
    off_after_on_us=(1e4, 1e4),
)  # fmt: skip
GREY_LIGHT = math.log(GREY)


def _in_the_still(sensor: Sensor, seconds: float, log_light: np.ndarray | None = None, seed: int | None = 3) -> Events:
    light = _flat(GREY_LIGHT) if log_light is None else log_light
    eye = EventSensor(sensor, light, 0, None if seed is None else np.random.default_rng(seed))
    for t_us in range(40_000, int(seconds * 1e6) + 1, 40_000):
        eye.expose(light, WHOLE, t_us)
    return eye.take()


def _counts(events: Events) -> np.ndarray:
    return np.bincount(events.y.astype(int) * SIZE[0] + events.x, minlength=SIZE[0] * SIZE[1])


def _successive(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaps between successive events of a pixel, and their polarities."""
    pixels = events.y.astype(int) * SIZE[0] + events.x
    order = np.lexsort((events.t_us, pixels))
    same = np.diff(pixels[order]) == 0
    return np.diff(events.t_us[order])[same], events.p[order][:-1][same], events.p[order][1:][same]


def test_noise_rates_are_those_of_the_sensor() -> None:
    sensor = _sensor(replace(NOISY, hot_pixel_share=(0.01, 0.01), hot_pixel_hz=(100.0, 100.0)))
    events = _in_the_still(sensor, 10)
    hot = np.isin(events.y.astype(int) * SIZE[0] + events.x, sensor.noise.hot_pixels)
    cold_pixels = SIZE[0] * SIZE[1] - len(np.unique(sensor.noise.hot_pixels))
    for found, expected in (
        (np.count_nonzero(~hot), 2.0 * 10 * cold_pixels),
        (np.count_nonzero(hot), len(sensor.noise.hot_pixels) * (100 + 2) * 10),
        (np.count_nonzero(events.p), 0.3 * len(events)),
    ):
        assert abs(found - expected) < 3 * math.sqrt(expected)
    assert len(sensor.noise.hot_pixels) > 0
    assert (_counts(events) > 0).mean() > 0.99


def test_noise_that_returns_has_the_same_rate_and_alternates() -> None:
    sensor = _sensor(replace(RETURNING, shot_noise_hz=(0.5, 0.5)))
    events = _in_the_still(sensor, 80)
    runs = 0.5 * 80 * SIZE[0] * SIZE[1] / sensor.noise.events_per_run
    assert abs(len(events) / sensor.noise.events_per_run - runs) < 3 * math.sqrt(2 * runs)  # runs vary in length
    assert abs(events.p.mean() - 0.5) < 0.02
    gaps, before, after = _successive(events)
    assert (before != after)[gaps < 20_000].mean() > 0.9
    assert np.median(gaps[~before & after]) < np.median(gaps[before & ~after])


def test_dark_pixels_are_noisier() -> None:
    light = _flat(math.log(0.8))
    light[:, : SIZE[0] // 2] = math.log(0.05)
    events = _in_the_still(_sensor(replace(NOISY, noise_falloff=(0.5, 0.5))), 20, light)
    dark, bright = np.count_nonzero(events.x < SIZE[0] // 2), np.count_nonzero(events.x >= SIZE[0] // 2)
    for found, expected in ((dark, 4.0), (bright, 1.0)):  # at 1/4 and 4 times grey
        assert abs(found - expected * 20 * SIZE[0] * SIZE[1] / 2) < 3 * math.sqrt(found)


def test_uneven_pixels_keep_the_mean_and_low_thresholds_fire_more() -> None:
    config = replace(NOISY, noise_spread=(1.0, 1.0), mismatch=(0.03, 0.03), shot_noise_hz=(20.0, 20.0))
    sensor = draw_sensor(config, SIZE, np.random.default_rng(1))
    counts = _counts(_in_the_still(sensor, 20))
    pixels = SIZE[0] * SIZE[1]
    assert abs(counts.mean() / 400 - 1) < 3 * math.sqrt((math.e - 1) / pixels)
    assert abs(np.log(counts).std() - 1) < 0.1
    assert np.corrcoef(np.log(counts), sensor.on.ravel())[0, 1] < -0.9


@pytest.mark.parametrize("seed", [None, 3])
def test_leaks_are_regular_on_events_at_their_rate(seed: int | None) -> None:
    config = replace(IDEAL, leak_hz=(3.0, 3.0), leak_spread=(0.2, 0.2), mismatch=(0.03, 0.03))
    events = _in_the_still(_sensor(config), 20, seed=seed)
    assert events.p.all()
    pixels = SIZE[0] * SIZE[1]
    # Without a generator all pixels begin a whole step away from their first event: half an event less each.
    expected = (3.0 * 20 - (0.5 if seed is None else 0)) * pixels
    assert abs(len(events) - expected) < 3 * 0.2 * 3.0 * 20 * math.sqrt(pixels)
    gaps, _, _ = _successive(events)
    assert abs(1e6 / gaps.mean() / 3.0 - 1) < 0.1
    pixel = (events.y == 5) & (events.x == 7)
    own = np.diff(events.t_us[pixel])
    assert np.ptp(own) < 0.01 * own.mean()


def test_what_leaked_away_adds_to_what_brightens() -> None:
    sensor = _sensor(replace(IDEAL, leak_hz=(1.0, 1.0), leak_spread=(0.0, 0.0)))
    eye = EventSensor(sensor, _flat(0.0), 0)
    eye.expose(_flat(0.0), WHOLE, 600_000)  # the reference has sunk by 0.6 of a threshold of 0.2
    eye.expose(_flat(0.0), WHOLE, 650_000)
    eye.expose(_flat(0.1), WHOLE, 651_000)
    assert len(eye.take()) == SIZE[0] * SIZE[1]


def test_pixels_follow_more_slowly_in_the_dark() -> None:
    config = replace(IDEAL, bandwidth_hz=(200.0, 200.0), half_light=(0.1, 0.1), threshold=(9.0, 9.0))
    sensor = _sensor(config)
    reached = []
    for light in (1.0, 0.1, 0.01):
        eye = EventSensor(sensor, _flat(math.log(light) - 0.5), 0)
        eye.expose(_flat(math.log(light)), WHOLE, 1)
        missing = math.log(light) - eye.level
        eye.expose(_flat(math.log(light)), WHOLE, 801)
        share = (math.log(light) - eye.level) / missing
        np.testing.assert_allclose(share, math.exp(-800 / sensor.tau_us * light / (light + 0.1)), rtol=5e-3)
        reached.append(1 - share.mean())
    assert reached[0] > reached[1] > reached[2]


def test_the_bus_reads_no_more_than_it_can() -> None:
    config = replace(IDEAL, readout_hz=(1e5, 1e5))
    images = [_flat(v) for v in (0.0, 0.0, 1.05, 1.05, 1.05)]  # 6 000 events
    times = [0, 1000, 6000, 10_000, 20_000]
    free = _watched(_sensor(), images, times)
    limited = _watched(_sensor(config), images, times)
    assert 400 < len(limited) < 800  # five bursts, of each what is read within the longest wait
    assert len(free) == 5 * SIZE[0] * SIZE[1]
    for span_us in (1000, 3000):
        in_span = np.searchsorted(limited.t_us, limited.t_us + span_us) - np.arange(len(limited))
        assert in_span.max() <= span_us * 0.1 + 1
    assert (np.diff(limited.t_us) >= 0).all()
    assert limited.t_us[-1] <= free.t_us[-1] + LONGEST_WAIT_US + 10


def test_a_bus_with_room_loses_nothing_and_pieces_are_the_whole() -> None:
    wide = replace(IDEAL, readout_hz=(1e9, 1e9))
    images, times = _moving_pattern(np.linspace(0, 14, 21)), list(range(0, 21 * 1000, 1000))
    assert len(_watched(_sensor(wide), images, times)) == len(_watched(_sensor(), images, times))
    narrow = _sensor(replace(IDEAL, readout_hz=(5e5, 5e5)))
    whole = _watched(narrow, images, times)
    eye = EventSensor(narrow, images[0], 0)
    parts = []
    for image, t_us in zip(images[1:], times[1:], strict=True):
        eye.expose(image, WHOLE, t_us)
        parts.append(eye.take())
    pieces = Events.concatenate(parts)
    assert len(whole) == len(pieces)
    np.testing.assert_array_equal(whole.t_us, pieces.t_us)


def test_late_stamps_keep_time_order_and_lose_nothing() -> None:
    late = _sensor(replace(IDEAL, jitter_us=(50.0, 50.0)))
    images, times = _moving_pattern(np.linspace(0, 14, 21)), list(range(0, 21 * 1000, 1000))
    free = _watched(_sensor(), images, times)
    eye = EventSensor(late, images[0], 0, np.random.default_rng(0))
    parts = []
    for image, t_us in zip([*images[1:], images[-1]], [*times[1:], times[-1] + 100], strict=True):
        eye.expose(image, WHOLE, t_us)
        parts.append(eye.take())
        assert parts[-1].t_us.max(initial=0) < t_us
    events = Events.concatenate(parts)
    assert (np.diff(events.t_us) >= 0).all()
    assert (_counts(events) == _counts(free)).all()
    shift = events.t_us - free.t_us  # of sorted times
    assert 0 <= shift.min() <= shift.max() <= 50
    assert 24 < shift.mean() < 26


def test_stamps_are_as_coarse_as_the_clock() -> None:
    images, times = _moving_pattern(np.linspace(0, 14, 21)), list(range(0, 21 * 1000, 1000))
    fine, coarse = (_watched(_sensor(replace(IDEAL, stamp_us=s)), images, times) for s in (1, 500))
    np.testing.assert_array_equal(coarse.t_us, fine.t_us // 500 * 500)


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_the_same_generator_gives_the_same_events(name: str) -> None:
    images, times = _moving_pattern(np.linspace(0, 14, 21)), list(range(0, 21 * 10_000, 10_000))
    found = []
    for _ in range(2):
        eye = EventSensor(_sensor(SENSORS[name]), images[0], 0, np.random.default_rng(5))
        for image, t_us in zip(images[1:], times[1:], strict=True):
            eye.expose(image, WHOLE, t_us)
        found.append(eye.take())
    for column in ("x", "y", "t_us", "p"):
        np.testing.assert_array_equal(getattr(found[0], column), getattr(found[1], column))
    assert len(found[0]) > 500


def test_the_noise_of_evk4_is_that_of_the_real_recording() -> None:
    real = Events.concatenate(list(open_events(shared_path("real/noise-evk4/noise.evt3.raw"))))
    rng = np.random.default_rng(0)
    light = np.full(real.size[::-1], GREY_LIGHT, np.float32)
    eye = EventSensor(draw_sensor(SENSORS["evk4"], real.size, rng), light, 0, rng)
    end_us = 1_000_000 + int(real.t_us[-1] - real.t_us[0])
    for t_us in (*range(100_000, end_us, 100_000), end_us):
        eye.expose(light[:1, :1], (0, 0, 1, 1), t_us)
    ours = eye.take().between(1_000_000, end_us)
    assert 0.8 < len(ours) / len(real) < 1.25
    assert abs(ours.p.mean() - real.p.mean()) < 0.03
    counts = [np.bincount(e.y.astype(int) * e.size[0] + e.x, minlength=light.size) for e in (ours, real)]
    for low, high in ((1, 2), (3, 5), (6, 19)):
        a, b = (np.count_nonzero((c >= low) & (c <= high)) for c in counts)
        assert 0.7 < a / b < 1.4


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_presets_draw_within_their_ranges(name: str) -> None:
    config = SENSORS[name]
    for seed in range(10):
        sensor = _sensor(config, seed)
        assert config.threshold[0] * 0.97 <= sensor.on.mean() <= config.threshold[1] * 1.03
        assert config.off_over_on[0] * 0.97 <= sensor.off.mean() / sensor.on.mean() <= config.off_over_on[1] * 1.03
        assert sensor.on.min() > 0
        assert sensor.off.min() > 0
