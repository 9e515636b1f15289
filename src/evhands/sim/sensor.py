"""The event sensor: images of log light at any times in, events with interpolated microsecond stamps out.

Every pixel follows the logarithm of its light (optionally through a first-order low-pass), and fires an ON (OFF) event
each time that has risen (fallen) by its own threshold since the pixel's last reference level. Between two images the
logarithm is taken as linear in time, so every crossing has its own time (the law of ESIM, Rebecq et al. 2018).
Only pixels of the box that changed are looked at; noise is added over the whole sensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from evhands.types import Events, Size

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; the ends are not part of it."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SensorConfig:
    """Ranges that one sensor is drawn from (uniform unless said otherwise); low == high fixes a parameter."""

    threshold: Range = (0.12, 0.45)
    """ON threshold in units of the natural logarithm of light."""
    off_over_on: Range = (0.8, 1.25)
    """Ratio of the OFF to the ON threshold, log-uniform."""
    mismatch: Range = (0.03, 0.05)
    """Standard deviation of the thresholds from pixel to pixel, as a share of the threshold."""
    refractory_us: Range = (0.0, 1000.0)
    bandwidth_hz: Range | None = (100.0, 1000.0)
    """Cut-off of the low-pass, log-uniform; None = infinitely fast pixels."""
    shot_noise_hz: Range = (0.0, 0.3)
    """Noise events per pixel and second, both polarities together."""
    noise_on_share: Range = (0.3, 0.7)
    hot_pixel_share: Range = (0.0, 2e-4)
    hot_pixel_hz: Range = (20.0, 200.0)
    """Rate of every hot pixel, log-uniform."""
    dark: float = 0.01
    """Added to the light before the logarithm, where white paper under the main light is about 1."""


SENSORS: dict[str, SensorConfig] = {
    "ideal": SensorConfig(
        threshold=(0.2, 0.2),
        off_over_on=(1.0, 1.0),
        mismatch=(0.0, 0.0),
        refractory_us=(0.0, 0.0),
        bandwidth_hz=None,
        shot_noise_hz=(0.0, 0.0),
        hot_pixel_share=(0.0, 0.0),
        dark=0.0,
    ),
    "davis346": SensorConfig(),
}
"""Preset name -> ranges."""


@dataclass(frozen=True)
class Sensor:
    """One drawn sensor: thresholds per pixel (height, width) and the numbers that hold for all pixels."""

    on: np.ndarray
    off: np.ndarray
    refractory_us: float
    tau_us: float
    """Time constant of the low-pass; 0 = none."""
    shot_noise_hz: float
    noise_on_share: float
    hot_pixels: np.ndarray
    """Flat indices y * width + x."""
    hot_pixel_hz: np.ndarray
    dark: float
    size: Size

    @property
    def summary(self) -> dict[str, float]:
        """The drawn numbers, for the meta data of a recording."""
        return {
            "threshold_on": float(self.on.mean()),
            "threshold_off": float(self.off.mean()),
            "refractory_us": self.refractory_us,
            "tau_us": self.tau_us,
            "shot_noise_hz": self.shot_noise_hz,
            "hot_pixels": len(self.hot_pixels),
        }


def draw_sensor(config: SensorConfig, size: Size, rng: np.random.Generator) -> Sensor:
    """Draw one sensor of `size` (width, height) from the ranges of `config`."""
    width, height = size
    threshold = rng.uniform(*config.threshold)
    ratio = _log_uniform(rng, config.off_over_on)
    mismatch = rng.uniform(*config.mismatch)
    spread = np.clip(1 + np.float32(mismatch) * rng.standard_normal((height, width), np.float32), 0.5, 1.5)
    hot = rng.binomial(width * height, rng.uniform(*config.hot_pixel_share))
    return Sensor(
        on=np.float32(threshold) * spread,
        off=np.float32(threshold * ratio) * spread[::-1, ::-1],  # turned: as good as independent, and drawn for nothing
        refractory_us=float(rng.uniform(*config.refractory_us)),
        tau_us=1e6 / (2 * math.pi * _log_uniform(rng, config.bandwidth_hz)) if config.bandwidth_hz else 0.0,
        shot_noise_hz=float(rng.uniform(*config.shot_noise_hz)),
        noise_on_share=float(rng.uniform(*config.noise_on_share)),
        hot_pixels=rng.integers(0, width * height, hot),
        hot_pixel_hz=np.exp(rng.uniform(math.log(config.hot_pixel_hz[0]), math.log(config.hot_pixel_hz[1]), hot)),
        dark=config.dark,
        size=size,
    )


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))


class EventSensor:
    """A sensor at work: `expose` shows it light, `take` hands over the events fired so far.

    Holds the state of all pixels; it starts settled on the first image, so that nothing fires for the start itself.
    """

    def __init__(self, sensor: Sensor, log_light: np.ndarray, t_us: int) -> None:
        """`log_light` (height, width) float32: the logarithm of light plus `sensor.dark` at time `t_us`."""
        self.sensor = sensor
        self._target, self._level, self._reference = (np.array(log_light, np.float32) for _ in range(3))
        self._last_us = np.full(log_light.shape, -(2**62), np.int64)
        self._t_us = int(t_us)
        self._unsettled: list[tuple[int, Box]] = []
        self._buffers = _new_buffers(1 << 16)
        self._count = 0

    def settle(self, log_light: np.ndarray, box: Box) -> None:
        """As if the log light inside `box` had always been `log_light`: nothing fires."""
        inside = np.s_[box[1] : box[3], box[0] : box[2]]
        for state in (self._target, self._level, self._reference):
            state[inside] = log_light

    def expose(self, log_light: np.ndarray, box: Box, t_us: int) -> None:
        """From now to `t_us` the log light inside `box` goes to `log_light` (y1 - y0, x1 - x0); elsewhere it stays."""
        sensor = self.sensor
        region = box
        if sensor.tau_us:  # pixels that the hand has left still follow
            self._unsettled = [(t, b) for t, b in self._unsettled if t > self._t_us - 6 * sensor.tau_us]
            for _, earlier in self._unsettled:
                region = union(region, earlier)
            self._unsettled.append((t_us, box))
        self._buffers, self._count = _expose(
            log_light, box, region, self._t_us, t_us, self._target, self._level, self._reference, self._last_us,
            sensor.on, sensor.off, sensor.refractory_us, sensor.tau_us, self._buffers, self._count,
        )  # fmt: skip
        self._t_us = int(t_us)

    def take(self, noise_rng: np.random.Generator | None = None, noise_start_us: int = 0) -> Events:
        """The events since the last call in time order, with noise from `noise_start_us` to now if given an rng."""
        pixel, t_us, p = (column[: self._count] for column in self._buffers)
        if noise_rng is not None:
            noise = noise_events(self.sensor, noise_start_us, self._t_us, noise_rng)
            pixel, t_us, p = (np.concatenate(pair) for pair in zip((pixel, t_us, p), noise, strict=True))
        events = _sorted_events(pixel, t_us, p, self.sensor.size)
        self._count = 0
        return events


def union(a: Box, b: Box) -> Box:
    """The smallest box that holds both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def noise_events(
    sensor: Sensor, start_us: int, end_us: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shot noise and hot pixels in [start_us, end_us), unsorted, as (flat pixel, t_us, polarity)."""
    seconds = (end_us - start_us) * 1e-6
    width, height = sensor.size
    shots = rng.poisson(sensor.shot_noise_hz * seconds * width * height)
    hot = np.repeat(sensor.hot_pixels, rng.poisson(sensor.hot_pixel_hz * seconds))
    pixel = np.concatenate([rng.integers(0, width * height, shots), hot]).astype(np.int32)
    t_us = rng.integers(start_us, max(end_us, start_us + 1), len(pixel))
    return pixel, t_us, rng.random(len(pixel)) < sensor.noise_on_share


def _new_buffers(capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(capacity, np.int32), np.empty(capacity, np.int64), np.empty(capacity, np.bool_)


def _sorted_events(pixel: np.ndarray, t_us: np.ndarray, p: np.ndarray, size: Size) -> Events:
    if len(t_us) == 0:
        return Events.empty(size)
    start = int(t_us.min())
    span = int(t_us.max()) - start + 1
    if span > 4_000_000 + 20 * len(t_us):  # sparse and long: counting every microsecond would cost more than sorting
        order = np.argsort(t_us, kind="stable")
        x, y = pixel[order] % size[0], pixel[order] // size[0]
        return Events(x.astype(np.uint16), y.astype(np.uint16), t_us[order], p[order], size)
    x, y, t, q = _counting_sort(pixel, t_us, p, start, span, size[0])
    return Events(x, y, t, q, size)


@njit(cache=True, nogil=True)
def _counting_sort(pixel, t_us, p, start, span, width):  # type: ignore[no-untyped-def]
    position = np.zeros(span + 1, np.int32)
    for i in range(len(t_us)):
        position[t_us[i] - start + 1] += 1
    for k in range(span):
        position[k + 1] += position[k]
    x = np.empty(len(t_us), np.uint16)
    y = np.empty(len(t_us), np.uint16)
    t = np.empty(len(t_us), np.int64)
    q = np.empty(len(t_us), np.bool_)
    for i in range(len(t_us)):
        slot = t_us[i] - start
        k = position[slot]
        position[slot] = k + 1
        y[k] = pixel[i] // width
        x[k] = pixel[i] % width
        t[k] = t_us[i]
        q[k] = p[i]
    return x, y, t, q


# The two loops below run over every pixel of the box: apart, without branches, on few arrays, so that LLVM vectorises.
@njit(cache=True, nogil=True)
def _follow(goal, target, level, before, decay, lag):  # type: ignore[no-untyped-def]
    """Move a row of pixels to their goal through the low-pass, exactly for a target that moves linearly in time."""
    for i in range(len(goal)):
        old = level[i]
        shift = lag * (goal[i] - target[i])
        before[i] = old
        level[i] = goal[i] - shift + (old - target[i] + shift) * decay
        target[i] = goal[i]


@njit(cache=True, nogil=True)
def _any_reached(level, reference, on, off):  # type: ignore[no-untyped-def]
    """Whether any pixel of a row reaches a threshold."""
    count = np.int32(0)
    for i in range(len(level)):
        change = level[i] - reference[i]
        count += np.int32(change >= on[i]) | np.int32(-change >= off[i])
    return count > 0


@njit(cache=True, nogil=True)
def _crossings(level, reference, on, off, count):  # type: ignore[no-untyped-def]
    """Write how many thresholds each pixel of a row has crossed, OFF as negative numbers; returns their total."""
    total = 0
    for i in range(len(level)):
        change = level[i] - reference[i]
        count[i] = 0
        if change >= on[i]:
            count[i] = int(change / on[i])
            total += count[i]
        elif -change >= off[i]:
            count[i] = int(change / off[i])
            total -= count[i]
    return total


@njit(cache=True, nogil=True)
def _fire(count, before, level, reference, on, off, last_us, t0, t1, refractory, first, pixel_out, t_out, p_out, n):  # type: ignore[no-untyped-def]
    """Append the events of a row whose first pixel is number `first`; returns the new number of events."""
    dt = np.float64(t1 - t0)
    for i in range(len(count)):
        if count[i] == 0:
            continue
        step = on[i] if count[i] > 0 else -off[i]
        base = reference[i]
        reference[i] = base + abs(count[i]) * step
        rise = level[i] - before[i]
        if rise == 0:  # rounding left it at its threshold in an earlier step
            continue
        for k in range(1, abs(count[i]) + 1):
            share = (base + k * step - before[i]) / rise
            t = min(t0 + np.int64(min(max(share, 0.0), 1.0) * dt), t1 - 1)
            if t - last_us[i] < refractory:
                continue
            last_us[i] = t
            pixel_out[n] = first + i
            t_out[n] = t
            p_out[n] = count[i] > 0
            n += 1
    return n


@njit(cache=True, nogil=True)
def _expose(  # type: ignore[no-untyped-def]
    log_light, box, region, t0, t1, target, level, reference, last_us, on, off, refractory, tau, buffers, n
):
    width = level.shape[1]
    pixel_out, t_out, p_out = buffers
    decay = np.float32(math.exp(-(t1 - t0) / tau)) if tau > 0 else np.float32(0)
    lag = np.float32(tau / (t1 - t0))
    x0, x1 = region[0], region[2]
    before = np.empty(x1 - x0, np.float32)
    count = np.empty(x1 - x0, np.int32)
    for y in range(region[1], region[3]):
        # Outside the box pixels go on to where they were going.
        left, right = (box[0], box[2]) if box[1] <= y < box[3] else (x1, x1)
        if left < right:
            _follow(
                log_light[y - box[1]],
                target[y, left:right],
                level[y, left:right],
                before[left - x0 : right - x0],
                decay,
                lag,
            )
        if x0 < left:
            _follow(target[y, x0:left], target[y, x0:left], level[y, x0:left], before[: left - x0], decay, lag)
        if right < x1:
            _follow(target[y, right:x1], target[y, right:x1], level[y, right:x1], before[right - x0 :], decay, lag)
        row_level, row_reference, row_on, row_off = level[y, x0:x1], reference[y, x0:x1], on[y, x0:x1], off[y, x0:x1]
        if not _any_reached(row_level, row_reference, row_on, row_off):
            continue
        total = _crossings(row_level, row_reference, row_on, row_off, count)
        while n + total > len(t_out):
            pixel_out = np.concatenate((pixel_out, np.empty_like(pixel_out)))
            t_out = np.concatenate((t_out, np.empty_like(t_out)))
            p_out = np.concatenate((p_out, np.empty_like(p_out)))
        n = _fire(
            count, before, row_level, row_reference, row_on, row_off, last_us[y, x0:x1], t0, t1, refractory,
            y * width + x0, pixel_out, t_out, p_out, n,
        )  # fmt: skip
    return (pixel_out, t_out, p_out), n
