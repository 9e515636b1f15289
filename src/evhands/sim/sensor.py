"""The event sensor: images of log light at any times in, events with interpolated microsecond stamps out.

Every pixel follows the logarithm of its light (optionally through a first-order low-pass that is slower in the dark),
and fires an ON (OFF) event each time that has risen (fallen) by its own threshold since the pixel's last reference
level. Between two images the logarithm is taken as linear in time, so every crossing has its own time (the law of
ESIM, Rebecq et al. 2018). The reference level leaks, which fires regular ON events; noise comes on top
(sensor_noise.py); all events pass one bus of limited speed. Only pixels that changed are looked at (sensor_kernels.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evhands.sim.keyframes import log_uniform
from evhands.sim.sensor_kernels import (
    Buffers,
    Law,
    Pixels,
    drift,
    expose,
    grown,
    new_buffers,
    new_pixels,
    served,
    sorted_columns,
)
from evhands.sim.sensor_noise import Noise, add_noise, delay, running_sum
from evhands.types import Events, Size

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; the ends are not part of it."""

Range = tuple[float, float]

Step = Callable[[slice, Pixels, Law, int, Buffers, int], tuple[Buffers, int]]
"""(which images, pixels, law, time before the first image in us, events so far and their number) -> events, number."""

BACKGROUND_US = 100_000
"""Leak and noise are worked out this often, each time with the light of that moment."""


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
    """Cut-off of the low-pass in bright light, log-uniform; None = infinitely fast pixels."""
    half_light: Range | None = (0.01, 0.1)
    """The light at which the cut-off is half of that, log-uniform: it is bandwidth x light / (light + half_light),
    proportional to light in the dark. None = the same at any light."""
    leak_hz: Range = (0.0, 0.1)
    """ON events a pixel fires per second because its reference level leaks."""
    leak_spread: Range = (0.1, 0.3)
    """Standard deviation of the leak from pixel to pixel, as a share of it."""
    shot_noise_hz: Range = (0.0, 0.3)
    """Noise events per pixel and second at light `sensor_noise.GREY`, mean of all pixels, both polarities together."""
    noise_falloff: Range = (0.2, 0.5)
    """That rate goes with light to the power of minus this: dark pixels are noisier."""
    noise_spread: Range = (0.5, 1.5)
    """Standard deviation of the logarithm of that rate from pixel to pixel; low thresholds fire more."""
    noise_on_share: Range = (0.3, 0.7)
    """ON share of the noise, as far as the returns below leave it free."""
    on_after_off: Range = (0.3, 0.8)
    """Probability that an ON event follows an OFF event of the noise: the pixel comes back from an excursion."""
    off_after_on: Range = (0.0, 0.4)
    """Probability that an OFF event follows an ON event of the noise."""
    on_after_off_us: Range = (2_000.0, 10_000.0)
    """Median of the time to that event, log-uniform; the times are log-normal (`sensor_noise.RETURN_SPREAD`)."""
    off_after_on_us: Range = (10_000.0, 40_000.0)
    hot_pixel_share: Range = (0.0, 2e-4)
    hot_pixel_hz: Range = (20.0, 200.0)
    """Rate of every hot pixel, log-uniform."""
    jitter_us: Range = (1.0, 50.0)
    """Events are stamped up to this much late, each by its own uniform delay."""
    readout_hz: Range | None = (4e6, 12e6)
    """Events per second that the sensor can hand over, log-uniform; None = any number. Bursts queue, and are stamped
    when they are read; an event that would wait longer than `sensor_kernels.LONGEST_WAIT_US` is lost."""
    stamp_us: int = 1
    """Stamps are multiples of this, rounded down."""
    dark: float = 0.01
    """Added to the light before the logarithm, where white paper under the main light is about 1."""


_IDEAL = SensorConfig(
    threshold=(0.2, 0.2),
    off_over_on=(1.0, 1.0),
    mismatch=(0.0, 0.0),
    refractory_us=(0.0, 0.0),
    bandwidth_hz=None,
    half_light=None,
    leak_hz=(0.0, 0.0),
    shot_noise_hz=(0.0, 0.0),
    hot_pixel_share=(0.0, 0.0),
    jitter_us=(0.0, 0.0),
    readout_hz=None,
    dark=0.0,
)

SENSORS: dict[str, SensorConfig] = {
    "davis346": SensorConfig(),
    "dim": SensorConfig(
        bandwidth_hz=(10.0, 100.0),
        half_light=(0.03, 0.3),
        leak_hz=(0.0, 0.05),
        shot_noise_hz=(1.0, 10.0),
        dark=0.03,
    ),
    "evk4": SensorConfig(
        threshold=(0.15, 0.4),
        mismatch=(0.02, 0.04),
        refractory_us=(100.0, 500.0),
        bandwidth_hz=(200.0, 2000.0),
        leak_hz=(0.0, 0.002),
        shot_noise_hz=(0.065, 0.077),
        noise_falloff=(0.4, 0.6),
        noise_spread=(1.5, 1.6),
        noise_on_share=(0.5, 0.5),
        on_after_off=(0.83, 0.87),
        off_after_on=(0.37, 0.43),
        on_after_off_us=(7_500.0, 9_000.0),
        off_after_on_us=(32_000.0, 38_000.0),
        hot_pixel_share=(7e-6, 1.1e-5),
        hot_pixel_hz=(50.0, 200.0),
        jitter_us=(1.0, 20.0),
        readout_hz=(5e7, 1e8),
    ),
    "ideal": _IDEAL,
    "eventhands": replace(
        _IDEAL,
        threshold=(0.465, 0.535),  # as wide as the published normal distribution N(0.5, 0.02)
        shot_noise_hz=(0.0572, 0.0572),
        noise_falloff=(0.0, 0.0),
        noise_spread=(0.0, 0.0),
        noise_on_share=(0.055 / 0.0572, 0.055 / 0.0572),
        on_after_off=(0.0, 0.0),
        off_after_on=(0.0, 0.0),
        stamp_us=1000,
        dark=1 / 255,
    ),
}
"""Preset name -> ranges. `evk4` has the noise of a real recording, `eventhands` the published numbers of that method's
simulator; docs/simulator.md says how near they come."""

VIDEO_SENSOR = replace(_IDEAL, mismatch=(0.03, 0.03), dark=0.01)
"""What looks at an ordinary video; the threshold is for the caller to choose."""


@dataclass(frozen=True)
class Sensor:
    """One drawn sensor: arrays per pixel (height, width) and the numbers that hold for all pixels."""

    on: np.ndarray
    off: np.ndarray
    refractory_us: float
    tau_us: float
    """Time constant of the low-pass in bright light; 0 = none."""
    half_light: float
    """0 = the same time constant at any light."""
    leak: np.ndarray
    """How fast the reference sinks, in log light per second; (0, 0) where it does not."""
    leak_hz: float
    noise: Noise
    jitter_us: float
    readout_hz: float
    """Infinite = no limit."""
    stamp_us: int
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
            "half_light": self.half_light,
            "leak_hz": self.leak_hz,
            "shot_noise_hz": self.noise.shot_noise_hz,
            "hot_pixels": len(self.noise.hot_pixels),
            "jitter_us": self.jitter_us,
        }


def draw_sensor(config: SensorConfig, size: Size, rng: np.random.Generator) -> Sensor:
    """Draw one sensor of `size` (width, height) from the ranges of `config`."""
    width, height = size
    threshold = rng.uniform(*config.threshold)
    ratio = log_uniform(rng, config.off_over_on)
    # One image of normal numbers serves three times: turned, it is as good as independent, and drawn for nothing.
    normal = rng.standard_normal((height, width), np.float32)
    spread = np.clip(1 + np.float32(rng.uniform(*config.mismatch)) * normal, 0.5, 1.5)
    on = np.float32(threshold) * spread
    leak_hz, leak_spread = rng.uniform(*config.leak_hz), np.float32(rng.uniform(*config.leak_spread))
    return Sensor(
        on=on,
        off=np.float32(threshold * ratio) * spread[::-1, ::-1],
        refractory_us=float(rng.uniform(*config.refractory_us)),
        tau_us=1e6 / (2 * math.pi * log_uniform(rng, config.bandwidth_hz)) if config.bandwidth_hz else 0.0,
        half_light=log_uniform(rng, config.half_light) if config.half_light else 0.0,
        leak=np.float32(leak_hz) * on * np.clip(1 + leak_spread * normal[::-1], 0, 2) if leak_hz else np.zeros((0, 0)),
        leak_hz=float(leak_hz),
        noise=_draw_noise(config, normal, rng),
        jitter_us=float(rng.uniform(*config.jitter_us)),
        readout_hz=log_uniform(rng, config.readout_hz) if config.readout_hz else math.inf,
        stamp_us=config.stamp_us,
        dark=config.dark,
        size=size,
    )


def _draw_noise(config: SensorConfig, normal: np.ndarray, rng: np.random.Generator) -> Noise:
    """`normal` (height, width): where it is low, so is the threshold, and noise crosses it more often."""
    hot = rng.binomial(normal.size, rng.uniform(*config.hot_pixel_share))
    spread = rng.uniform(*config.noise_spread)
    rates = np.exp(np.float32(-spread) * normal.ravel() - np.float32(spread**2 / 2))
    return Noise(
        shot_noise_hz=float(rng.uniform(*config.shot_noise_hz)),
        reach=running_sum(rates),
        falloff=float(rng.uniform(*config.noise_falloff)),
        on_share=float(rng.uniform(*config.noise_on_share)),
        on_after_off=float(rng.uniform(*config.on_after_off)),
        off_after_on=float(rng.uniform(*config.off_after_on)),
        on_after_off_us=log_uniform(rng, config.on_after_off_us),
        off_after_on_us=log_uniform(rng, config.off_after_on_us),
        hot_pixels=rng.integers(0, normal.size, hot),
        hot_pixel_hz=np.exp(rng.uniform(math.log(config.hot_pixel_hz[0]), math.log(config.hot_pixel_hz[1]), hot)),
    )


class EventSensor:
    """A sensor at work: `expose` shows it light, `take` hands over the events fired so far.

    Holds the state of all pixels; it starts settled on the first image, so that nothing fires for the start itself.
    """

    def __init__(
        self, sensor: Sensor, log_light: np.ndarray, t_us: int, rng: np.random.Generator | None = None
    ) -> None:
        """`log_light` (height, width) float32: the logarithm of light plus `sensor.dark` at time `t_us`.

        Without `rng` there is no noise and no jitter, and all pixels leak in step.
        """
        self.sensor = sensor
        self._rng = rng
        self._pixels = new_pixels(sensor.size)
        reference = np.asarray(log_light, np.float32)
        if sensor.leak.size and rng is not None:  # each pixel is somewhere between two of its leak events
            reference = reference - rng.random(log_light.shape, np.float32) * sensor.on
        fields = [log_light, log_light, reference, sensor.on, sensor.off, *([sensor.leak] if sensor.leak.size else [])]
        for k, image in enumerate(fields):
            self._pixels.put(k, image)
        self._law = Law(float(sensor.refractory_us), float(sensor.tau_us), float(sensor.half_light))
        self._t_us = self._background_us = int(t_us)
        self._buffers: Buffers = new_buffers(1 << 16)
        self._count = 0
        self._delayed = 0
        self._bus_free_us = -math.inf

    @property
    def level(self) -> np.ndarray:
        """(height, width) float32: the low-passed log light of now; a copy."""
        return self._pixels.image(1)

    def expose(self, log_light: np.ndarray, box: Box, t_us: int) -> None:
        """From now to `t_us` the log light inside `box` goes to `log_light` (y1 - y0, x1 - x0); elsewhere it stays."""

        def step(_: slice, pixels: Pixels, law: Law, start_us: int, *events: Any) -> tuple[Buffers, int]:
            return expose(log_light, box, start_us, int(t_us), pixels, law, *events)

        self.advance(np.array([t_us]), step)

    def advance(self, times_us: np.ndarray, step: Step) -> None:
        """Let `step` show images of the times (n,), as many at once as leak and noise allow."""
        done = 0
        while done < len(times_us):
            due = int(np.searchsorted(times_us[done:], self._background_us + BACKGROUND_US))
            end = min(done + due + 1, len(times_us))
            self._buffers, self._count = step(
                slice(done, end), self._pixels, self._law, self._t_us, self._buffers, self._count
            )
            self._t_us, done = int(times_us[end - 1]), end
            if self._t_us - self._background_us >= BACKGROUND_US:
                self._add_background()

    def take(self) -> Events:
        """The events since the last call in time order. What is still on its way to the output comes with the next."""
        sensor = self.sensor
        self._add_background()
        if self._rng is not None and sensor.jitter_us:
            delay(self._buffers[1][self._delayed : self._count], sensor.jitter_us, self._rng)
        pixel, t_us, p = (column[: self._count] for column in self._buffers)
        due = t_us < self._t_us
        later = [column[~due] for column in (pixel, t_us, p)] if not due.all() else []
        if later:
            pixel, t_us, p = pixel[due], t_us[due], p[due]
        x, y, t_us, p = sorted_columns(pixel, t_us, p, sensor.size[0])
        if math.isfinite(sensor.readout_hz) and len(t_us):
            x, y, t_us, p, unread = self._read_out(x, y, t_us, p)
            if len(unread[0]):
                later = [np.concatenate(pair) for pair in zip(unread, later, strict=True)] if later else unread
        self._keep(later)
        if sensor.stamp_us > 1:
            t_us = t_us // sensor.stamp_us * sensor.stamp_us
        return Events(x, y, t_us, p, sensor.size)

    def _add_background(self) -> None:
        """Leak and noise since the last time."""
        start_us, end_us, sensor = self._background_us, self._t_us, self.sensor
        if end_us <= start_us:
            return
        if sensor.leak.size:
            self._buffers, self._count = drift(self._pixels, self._law, start_us, end_us, self._buffers, self._count)
        if self._rng is not None:
            self._buffers, self._count = add_noise(
                sensor.noise, self.level, start_us, end_us, self._rng, self._buffers, self._count
            )
        self._background_us = end_us

    def _read_out(
        self, x: np.ndarray, y: np.ndarray, t_us: np.ndarray, p: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Through the bus: sorted columns as they are read by now, and what waits for it (pixel, t_us, p)."""
        read_us, count, self._bus_free_us = served(t_us, 1e6 / self.sensor.readout_hz, self._bus_free_us, self._t_us)
        pixel = y[count:].astype(np.int32) * self.sensor.size[0] + x[count:]
        unread = [pixel, t_us[count:], p[count:]]
        x, y, p, read_us = (column[:count] for column in (x, y, p, read_us))
        kept = read_us >= 0
        if not kept.all():
            x, y, p, read_us = (column[kept] for column in (x, y, p, read_us))
        return x, y, read_us, p, unread

    def _keep(self, later: list[np.ndarray]) -> None:
        """Begin the buffers anew with events that are not due yet."""
        self._count = self._delayed = len(later[0]) if later else 0
        self._buffers = grown(self._buffers, self._count)
        for column, values in zip(self._buffers, later, strict=False):
            column[: self._count] = values


def union(a: Box, b: Box) -> Box:
    """The smallest box that holds both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
