"""Background noise of the event sensor: shot noise in runs of alternating polarity, hot pixels, late stamps.

What a real sensor fires in a still scene is no Poisson process: noise of the light pushes a pixel over one threshold,
and when the excursion ends the pixel comes back over the other. So a shot begins a run OFF, ON, OFF, ... that goes on
with a probability of its own for each polarity; most pixels never fire and few fire often, because the rate depends
steeply on a pixel's threshold, and it falls with light. The runs return to where they began, so the reference levels
of the pixels are left as they are. Numbers: measured at a real recording by scripts/compare_noise.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from evhands.sim.sensor_kernels import Buffers, grown

GREY = 0.2
"""The light that noise rates are given for, where white paper under the main light is about 1."""
RETURN_LEAST_US = 300.0
"""A run goes on at the earliest after this."""
RETURN_SPREAD = 2.1
"""Standard deviation of the logarithm of the times within a run."""
_LIGHTS = (0.01, 4.0)
"""Darker and brighter than this the rate stays as it is."""


@dataclass(frozen=True)
class Noise:
    """The drawn numbers of one sensor's noise; see `SensorConfig` for what they mean."""

    shot_noise_hz: float
    reach: np.ndarray
    """(height * width,) float64: running sum of the pixels' rates at equal light, in units of `shot_noise_hz`."""
    falloff: float
    on_share: float
    on_after_off: float
    off_after_on: float
    on_after_off_us: float
    off_after_on_us: float
    hot_pixels: np.ndarray
    """Flat indices y * width + x."""
    hot_pixel_hz: np.ndarray

    @property
    def first_on_share(self) -> float:
        """Share of runs that begin with ON, such that all events have `on_share` as far as that is possible."""
        a, b, share = self.on_after_off, self.off_after_on, self.on_share
        return min(max((share * (1 + a) - a) / max(1 - a - share * (b - a), 1e-9), 0.0), 1.0)

    @property
    def events_per_run(self) -> float:
        """Mean length of a run."""
        a, b, first = self.on_after_off, self.off_after_on, self.first_on_share
        return ((1 - first) * (1 + a) + first * (1 + b)) / (1 - a * b)


def add_noise(
    noise: Noise, log_light: np.ndarray, start_us: int, end_us: int, rng: np.random.Generator,
    buffers: Buffers, count: int,
) -> tuple[Buffers, int]:  # fmt: skip
    """Append the noise that begins in [start_us, end_us) under `log_light` (height, width); runs may end later."""
    seconds = (end_us - start_us) * 1e-6
    if noise.shot_noise_hz > 0:
        limits = math.log(_LIGHTS[0]), math.log(_LIGHTS[1])
        darkest = min(max(float(log_light.min()), limits[0]), limits[1])
        shots = noise.shot_noise_hz / noise.events_per_run * seconds  # runs of a pixel that sees grey
        buffers, count = _runs(
            noise.reach, shots * math.exp(-noise.falloff * (darkest - math.log(GREY))), log_light.ravel(), darkest,
            limits[1], noise.falloff, start_us, end_us - start_us, noise.first_on_share,
            (noise.on_after_off, noise.off_after_on), (noise.on_after_off_us, noise.off_after_on_us),
            rng, buffers, count,
        )  # fmt: skip
    if len(noise.hot_pixels):
        pixel = np.repeat(noise.hot_pixels, rng.poisson(noise.hot_pixel_hz * seconds))
        buffers = grown(buffers, count + len(pixel))
        new = slice(count, count + len(pixel))
        buffers[0][new] = pixel
        buffers[1][new] = rng.integers(start_us, end_us, len(pixel))
        buffers[2][new] = rng.random(len(pixel)) < noise.on_share
        count += len(pixel)
    return buffers, count


@njit(cache=True, nogil=True)
def running_sum(values):  # type: ignore[no-untyped-def]
    """The sums up to each value and with it, float64; four times as fast as numpy."""
    sums = np.empty(len(values), np.float64)
    total = 0.0
    for i in range(len(values)):
        total += values[i]
        sums[i] = total
    return sums


@njit(cache=True, nogil=True)
def _runs(  # type: ignore[no-untyped-def]
    reach, shots, log_light, darkest, brightest, falloff, start_us, span_us, first_on, chance, median_us, rng,
    buffers, n,
):  # fmt: skip
    """Begin runs at uniform times; `chance` and `median_us` are those after OFF and after ON.

    Drawn as if all pixels were as dark as the darkest (`shots` runs each), by exponential steps along `reach`, then
    thinned by their light: so only the pixels drawn have to be looked at.
    """
    pixel_out, t_out, p_out = buffers
    pixel, place = 0, 0.0
    while True:
        place += rng.standard_exponential() / shots
        while pixel + 16 < len(reach) and reach[pixel + 15] <= place:
            pixel += 16
        while pixel < len(reach) and reach[pixel] <= place:
            pixel += 1
        if pixel == len(reach):
            break
        if rng.standard_exponential() < falloff * (min(log_light[pixel], brightest) - darkest):
            continue
        t = start_us + rng.random() * span_us
        on = rng.random() < first_on
        while True:
            if n == len(t_out):
                pixel_out, t_out, p_out = grown((pixel_out, t_out, p_out), n + 1)
            pixel_out[n] = pixel
            t_out[n] = np.int64(t)
            p_out[n] = on
            n += 1
            after = 1 if on else 0
            if rng.random() >= chance[after]:
                break
            t += RETURN_LEAST_US + median_us[after] * math.exp(RETURN_SPREAD * rng.standard_normal())
            on = not on
    return (pixel_out, t_out, p_out), n


@njit(cache=True, nogil=True)
def delay(t_us, most_us, rng):  # type: ignore[no-untyped-def]
    """Move each time later by a uniform number of up to `most_us`, in place."""
    state = np.uint64(rng.random() * 2**53)  # a linear congruential generator is good enough here, and faster
    scale = (most_us + 1) / 2**32
    for i in range(len(t_us)):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        t_us[i] += np.int64((state >> np.uint64(32)) * scale)
