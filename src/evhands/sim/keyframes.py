"""Minimum-jerk moves between keyframes, and how keyframes are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PEAK = 1.875
"""Peak speed of a minimum-jerk move over its mean speed."""


@dataclass(frozen=True)
class Track:
    """Minimum-jerk moves between keyframes: `times` (k,) s ascending, `values` (k, d). Still before and after."""

    times: np.ndarray
    values: np.ndarray

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Values (n, d) at times (n,)."""
        k, share = self.phase(t_s)
        return self.values[k] + share[:, None] * (self.values[k + 1] - self.values[k])

    def rate(self, t_s: np.ndarray) -> np.ndarray:
        """Exact first derivative (n, d) in units a second."""
        k, share_rate = self.phase_rate(t_s)
        return share_rate[:, None] * (self.values[k + 1] - self.values[k])

    def phase(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keyframe before each time, and the share of the move done (no speed or acceleration at its ends)."""
        k, s = self._move(t_s)
        return k, s * s * s * (10 + s * (6 * s - 15))

    def phase_rate(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keyframe before each time, and how fast the share of the move grows, in 1/s."""
        k, s = self._move(t_s)
        return k, 30 * (s * (1 - s)) ** 2 / (self.times[k + 1] - self.times[k])

    def _move(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k = np.clip(np.searchsorted(self.times, t_s, side="right") - 1, 0, len(self.times) - 2)
        return k, np.clip((t_s - self.times[k]) / (self.times[k + 1] - self.times[k]), 0.0, 1.0)


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A number whose logarithm is uniform between those of the bounds."""
    return float(np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))


def keyframe_times(interval_s: tuple[float, float], duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Times that cover [0, duration], the intervals log-uniform, the first move already under way at 0."""
    first = log_uniform(rng, interval_s)
    times = [-first * rng.random()]
    times.append(times[0] + first)
    while times[-1] <= duration_s:
        times.append(times[-1] + log_uniform(rng, interval_s))
    return np.array(times)


def walk(
    old: np.ndarray,
    fresh: np.ndarray,
    centre: np.ndarray | float,
    reach: float,
    distance: Callable[[np.ndarray, np.ndarray], float],
    limited: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """A step from old towards a fresh draw, no longer than `reach`, that keeps the spread of the draws.

    Plain steps of a part of the way would draw everything towards the mean: slow hands would never open or close. So
    the mixture of both is scaled away from the centre to the variance that each of them has.
    """
    share = min(1.0, reach / max(distance(old, fresh), 1e-9))
    new, far = old, 0.0
    for _ in range(4):  # the scaled step is longer than the plain one: look for the share that just reaches
        new = limited(centre + ((1 - share) * (old - centre) + share * (fresh - centre)) / math.hypot(1 - share, share))
        far = distance(old, new)
        if far <= reach:
            break
        share *= 0.98 * reach / max(far, 1e-9)
    return old + (new - old) * min(1.0, reach / max(far, 1e-9))
