"""How hands move: finger angles, wrist rotation and wrist position as smooth functions of time.

Everything is a sum of minimum-jerk moves between keyframes, so that all of it is continuous to the second derivative.
Angles are those of `evhands.hand.open_hand` (anatomical, so that limits and gestures have a meaning); the rotation goes
along geodesics. The wrist may move in two layers (a slow path and a quicker one on top) and trembles at 8-12 Hz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np

from evhands.geometry import unproject
from evhands.hand import open_hand
from evhands.hand.skeleton import FINGERS
from evhands.sim.gestures import LIBRARY
from evhands.sim.keyframes import PEAK, Track, keyframe_times, log_uniform, walk
from evhands.sim.orientation import UPRIGHT as UPRIGHT
from evhands.sim.orientation import Orientation as Orientation
from evhands.sim.orientation import along, draw_turns, steps
from evhands.sim.rotations import rotation_matrix as rotation_matrix
from evhands.sim.rotations import rotation_vector as rotation_vector
from evhands.types import Size

Style = Literal["random", "fixed", "folding"]
Speed = Literal["normal", "fast"]


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """How far, how often and how fast a hand moves; ranges are log-uniform unless said otherwise.

    The defaults are what the first weights were trained on; `SPEEDS` holds the speed classes.
    """

    style: Style = "random"
    """What the fingers do. random: poses between, of and beyond gestures, fingers together or each by itself.
    fixed: whole-hand moves from one named gesture of `evhands.sim.gestures.LIBRARY` to the next, each held for a while
    (the two gesture types of EvRealHands). folding: every finger by itself folds or stretches, and stays so for a
    while: most fingers are stretched most of the time, and a folded one makes no events until it moves again."""
    keyframe_s: tuple[float, float] = (0.15, 1.2)
    hold_share: float = 0.15
    """Share of the moves that stay where they are."""
    gesture_hold_s: tuple[float, float] = (0.2, 1.5)
    """How long a fixed gesture, or a folded or stretched finger, is held."""
    gesture_spread: float = 0.0
    """Standard deviation in rad by which an angle of a fixed gesture differs from the library's, each time it is shown;
    with 0 tips that should touch do."""
    peak_speed: tuple[float, float] = (0.05, 2.0)
    """Greatest speed of the wrist path in m/s."""
    peak_turn: tuple[float, float] = (0.5, 15.0)
    """Greatest speed of the wrist rotation in rad/s."""
    finger_speed: tuple[float, float] = (1.0, 20.0)
    """Greatest speed of a finger angle in rad/s."""
    wobble_m: tuple[float, float] = (0.001, 0.015)
    """Standard deviation of the second layer of the wrist path."""
    tremor_m: float = 0.0004
    margin: float = 0.2
    """Share of the image at each edge that keyframes of the hand's centre stay clear of."""


SPEEDS: dict[Speed, MotionConfig] = {
    "normal": MotionConfig(
        peak_speed=(0.02, 1.0),
        peak_turn=(0.5, 10.0),
        finger_speed=(0.8, 12.0),
        wobble_m=(0.0003, 0.005),
        gesture_hold_s=(0.1, 1.0),
        margin=0.1,
    ),
    "fast": MotionConfig(
        keyframe_s=(0.1, 0.5),
        hold_share=0.05,
        peak_speed=(1.0, 4.0),
        peak_turn=(10.0, 25.0),
        finger_speed=(12.0, 25.0),
        gesture_hold_s=(0.05, 0.3),
        margin=0.1,
    ),
}
"""The whole range of speeds, 0.02-4 m/s and 0.5-25 rad/s, in two: `normal` is near what people do before a sensor
(scripts/compare_leap_motion.py), `fast` the upper part. Fixed gestures: `replace(SPEEDS["normal"], style="fixed")`."""


@dataclass(frozen=True, kw_only=True)
class View:
    """From where a hand is seen."""

    K: np.ndarray
    size: Size
    orientation: Orientation
    depth_m: tuple[float, float]
    """Distance of the hand's centre from the camera (uniform)."""
    centre_m: np.ndarray
    """(3,) the hand's centre in the hand frame, from the wrist."""
    columns: tuple[float, float] = (0.0, 1.0)
    """Part of the image's width that this hand keeps to (its margins apart), for scenes with two hands."""


@dataclass(frozen=True)
class Motion:
    """A hand's motion over a clip, for a RIGHT hand in the camera frame.

    Velocities are exact derivatives, not differences.
    """

    fingers: tuple[tuple[np.ndarray, Track], ...]
    """(indices into the angles, track of these angles) per group of angles that moves together."""
    turn: Track
    """Keyframe times of the wrist rotation; its values are unused."""
    rotations: np.ndarray
    """(k, 3, 3) rotation of the hand at the keyframes of `turn`."""
    path: Track
    wobble: Track
    """Second layer of the wrist path, in metres."""
    tremor: np.ndarray
    """(3, 3): amplitude in m, frequency in Hz and phase of x, y, z."""
    gestures: tuple[str, ...] = ()
    """Name of the gesture at each keyframe of the only track of `fingers`; empty unless the style is fixed."""
    style: Style = "random"

    def angles(self, t_s: np.ndarray) -> np.ndarray:
        """Anatomical finger angles (n, a) in radians."""
        out = np.empty((len(t_s), len(open_hand.ANGLE_NAMES)))
        for indices, track in self.fingers:
            out[:, indices] = track.at(t_s)
        return out

    def angle_rates(self, t_s: np.ndarray) -> np.ndarray:
        """Speeds of the finger angles (n, a) in rad/s."""
        out = np.empty((len(t_s), len(open_hand.ANGLE_NAMES)))
        for indices, track in self.fingers:
            out[:, indices] = track.rate(t_s)
        return out

    def rotation(self, t_s: np.ndarray) -> np.ndarray:
        """Hand-to-camera rotation matrices (n, 3, 3)."""
        k, share = self.turn.phase(t_s)
        return along(self.rotations, k, share)

    def turn_rate(self, t_s: np.ndarray) -> np.ndarray:
        """Angular velocity (n, 3) of the hand in rad/s, camera frame."""
        k, share_rate = self.turn.phase_rate(t_s)
        about = steps(self.rotations)[k] * share_rate[:, None]  # along a geodesic the axis stands still in the hand
        return (self.rotation(t_s) @ about[..., None])[..., 0]

    def wrist(self, t_s: np.ndarray) -> np.ndarray:
        """Wrist positions (n, 3) in metres in the camera frame."""
        amplitude, frequency, phase = self.tremor
        shake = amplitude * np.sin(2 * math.pi * frequency * t_s[:, None] + phase)
        return self.path.at(t_s) + self.wobble.at(t_s) + shake

    def wrist_velocity(self, t_s: np.ndarray) -> np.ndarray:
        """Velocity (n, 3) of the wrist in m/s, all layers and the tremor together."""
        amplitude, frequency, phase = self.tremor
        circular = 2 * math.pi * frequency
        shake = amplitude * circular * np.cos(circular * t_s[:, None] + phase)
        return self.path.rate(t_s) + self.wobble.rate(t_s) + shake

    def point(self, place_m: np.ndarray, t_s: np.ndarray) -> np.ndarray:
        """Where a place (3,) of the hand frame, from the wrist, is: (n, 3) metres in the camera frame."""
        return self.wrist(t_s) + self.rotation(t_s) @ place_m

    def point_velocity(self, place_m: np.ndarray, t_s: np.ndarray) -> np.ndarray:
        """Velocity (n, 3) in m/s of a place (3,) that is fixed in the hand frame."""
        return self.wrist_velocity(t_s) + np.cross(self.turn_rate(t_s), self.rotation(t_s) @ place_m)

    def gesture(self, t_s: np.ndarray) -> list[str | None]:
        """Names (n) of the fixed gestures held at times (n,); None on the way from one to the next, and if random."""
        if not self.gestures:
            return [None] * len(t_s)
        k, _ = self.fingers[0][1].phase(t_s)
        return [self.gestures[i] if self.gestures[i] == self.gestures[i + 1] else None for i in k]

    def tags(self, duration_s: float) -> dict[str, str | float | list[str]]:
        """What to write beside a clip: style, gestures held in their order, and peak speeds (sampled at 1 kHz)."""
        t_s = np.arange(0.0, duration_s, 0.001)
        held = [name for name in self.gesture(t_s) if name]
        in_order = [name for i, name in enumerate(held) if i == 0 or name != held[i - 1]]
        return {
            "style": self.style,
            "gestures": in_order,
            "peak_speed_m_s": _peak(self.wrist_velocity(t_s)),
            "peak_turn_rad_s": _peak(self.turn_rate(t_s)),
            "peak_finger_rad_s": _peak(self.angle_rates(t_s)[..., None]),
        }


def _peak(velocity: np.ndarray) -> float:
    return round(float(np.linalg.norm(velocity, axis=-1).max()), 4)


def draw_motion(config: MotionConfig, view: View, duration_s: float, rng: np.random.Generator) -> Motion:
    """Draw a motion of `duration_s` whose hand centre stays well in view of the camera."""
    turn, rotations = _draw_turn(config, view.orientation, duration_s, rng)
    path = _draw_path(config, view, duration_s, turn, rotations, rng)
    wobble_times = keyframe_times(config.keyframe_s, duration_s, rng)
    wobble = rng.normal(0, 1, (len(wobble_times), 3)) * log_uniform(rng, config.wobble_m)
    tremor = np.stack([
        rng.uniform(0, config.tremor_m, 3), rng.uniform(8, 12, 3), rng.uniform(0, 2 * math.pi, 3)
    ])  # fmt: skip
    gestures: tuple[str, ...] = ()
    if config.style == "fixed":
        track, gestures = _draw_gestures(config, duration_s, rng)
        fingers: tuple[tuple[np.ndarray, Track], ...] = ((np.arange(len(open_hand.ANGLE_NAMES)), track),)
    elif config.style == "folding":
        fingers = _draw_folding(config, duration_s, rng)
    else:
        fingers = _draw_fingers(config, duration_s, rng)
    return Motion(fingers, turn, rotations, path, Track(wobble_times, wobble), tremor, gestures, config.style)


def _finger_groups() -> list[np.ndarray]:
    """Indices of the angles of each finger, thumb first."""
    owner = np.array([FINGERS.index(name.split("_")[0]) for name in open_hand.ANGLE_NAMES])
    return [np.flatnonzero(owner == f) for f in range(len(FINGERS))]


FOLDING_SHARES = (0.5, 0.3, 0.2)
"""How often a finger goes to where it is stretched, folded, or anywhere in its natural range."""


def _draw_folding(
    config: MotionConfig, duration_s: float, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, Track], ...]:
    """Every finger by itself: a move, a hold, a move ..., each as long as drawn or as its speed needs."""
    speed = log_uniform(rng, config.finger_speed)
    fingers = []
    for indices in _finger_groups():
        times = [-rng.random() * log_uniform(rng, config.gesture_hold_s)]
        keys = [_finger_place(indices, rng)]
        while times[-1] <= duration_s:
            goal = _finger_place(indices, rng)
            move = max(log_uniform(rng, config.keyframe_s), PEAK * float(np.abs(goal - keys[-1]).max()) / speed)
            held = times[-1] + log_uniform(rng, config.gesture_hold_s)
            times, keys = [*times, held, held + move], [*keys, keys[-1], goal]
        fingers.append((indices, Track(np.array(times), np.stack(keys))))
    return tuple(fingers)


def _finger_place(indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Angles of one finger: stretched or folded as in a few gestures, a little different each time, or any natural."""
    kind = rng.choice(3, p=FOLDING_SHARES)
    if kind == 2:
        return open_hand.sample_natural_angles(rng, 1)[0, indices]
    names = (("five", "stop", "letter_b"), ("ten", "letter_e", "letter_a"))[kind]
    angles = LIBRARY[names[rng.integers(len(names))]] + rng.normal(0, 0.1, len(open_hand.ANGLE_NAMES))
    return open_hand.clip_angles(angles)[indices]


def _draw_fingers(
    config: MotionConfig, duration_s: float, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, Track], ...]:
    """Whole-hand keyframes, or (in 40 % of the clips) every finger with times of its own."""
    groups = _finger_groups() if rng.random() < 0.4 else [np.arange(len(open_hand.ANGLE_NAMES))]
    speed = log_uniform(rng, config.finger_speed)
    fingers = []
    for indices in groups:
        times = keyframe_times(config.keyframe_s, duration_s, rng)
        keys = open_hand.sample_natural_angles(rng, len(times))[:, indices]
        for k in range(1, len(times)):
            reach = 0.0 if rng.random() < config.hold_share else speed * (times[k] - times[k - 1]) / PEAK
            within = partial(_within, open_hand.ANGLE_LIMITS[indices])
            keys[k] = walk(keys[k - 1], keys[k], _mean_angles()[indices], reach, _largest_change, within)
        fingers.append((indices, Track(times, keys)))
    return tuple(fingers)


def _largest_change(old: np.ndarray, new: np.ndarray) -> float:
    return float(np.abs(new - old).max())


def _within(limits: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.clip(angles, *limits.T)


def _draw_gestures(config: MotionConfig, duration_s: float, rng: np.random.Generator) -> tuple[Track, tuple[str, ...]]:
    """Gestures one after the other, and the name at each keyframe: the same name at both ends of a hold.

    A move takes as long as drawn, or longer where the angle that has farthest to go would be too fast.
    """
    names = list(LIBRARY)
    speed = log_uniform(rng, config.finger_speed)
    shown = [names[rng.integers(len(names))]]
    keys = [_shown_angles(config, shown[0], rng)]
    first_hold = log_uniform(rng, config.gesture_hold_s)
    times = [-rng.random() * (first_hold + log_uniform(rng, config.keyframe_s))]
    hold = first_hold
    while True:
        times, keys, shown = [*times, times[-1] + hold], [*keys, keys[-1]], [*shown, shown[-1]]
        if times[-1] > duration_s:
            return Track(np.array(times), np.stack(keys)), tuple(shown)
        others = [name for name in names if name != shown[-1]]
        shown.append(others[rng.integers(len(others))])
        keys.append(_shown_angles(config, shown[-1], rng))
        needed = PEAK * float(np.abs(keys[-1] - keys[-2]).max()) / speed
        times.append(times[-1] + max(log_uniform(rng, config.keyframe_s), needed))
        hold = log_uniform(rng, config.gesture_hold_s)


def _shown_angles(config: MotionConfig, name: str, rng: np.random.Generator) -> np.ndarray:
    noise = config.gesture_spread * rng.standard_normal(len(open_hand.ANGLE_NAMES))
    return open_hand.clip_angles(LIBRARY[name] + noise)


@lru_cache(maxsize=1)
def _mean_angles() -> np.ndarray:
    return open_hand.sample_natural_angles(np.random.default_rng(0), 4096).mean(0)


def _draw_turn(
    config: MotionConfig, orientation: Orientation, duration_s: float, rng: np.random.Generator
) -> tuple[Track, np.ndarray]:
    times = keyframe_times(config.keyframe_s, duration_s, rng)
    reach = log_uniform(rng, config.peak_turn) * np.diff(times) / PEAK
    reach[rng.random(len(reach)) < config.hold_share] = 0.0
    return Track(times, np.zeros((len(times), 0))), draw_turns(orientation, reach, rng)


def _draw_path(
    config: MotionConfig, view: View, duration_s: float, turn: Track, rotations: np.ndarray, rng: np.random.Generator
) -> Track:
    times = keyframe_times(config.keyframe_s, duration_s, rng)
    k, share = turn.phase(times)
    at_keys = along(rotations, k, share)
    speed = log_uniform(rng, config.peak_speed)
    wrists = [_point_in_view(config, view, rng) - at_keys[0] @ view.centre_m]
    for i in range(1, len(times)):
        step = _point_in_view(config, view, rng) - at_keys[i] @ view.centre_m - wrists[-1]
        reach = 0.0 if rng.random() < config.hold_share else speed * (times[i] - times[i - 1]) / PEAK
        wrists.append(wrists[-1] + step * min(1.0, reach / max(float(np.linalg.norm(step)), 1e-9)))
    return Track(times, np.stack(wrists))


def _point_in_view(config: MotionConfig, view: View, rng: np.random.Generator) -> np.ndarray:
    """A place of the hand's centre: any pixel away from the margins at any allowed depth."""
    depth = rng.uniform(*view.depth_m)
    left, right = max(config.margin, view.columns[0]), min(1 - config.margin, view.columns[1])
    pixel = np.array(view.size) * rng.uniform((left, config.margin), (right, 1 - config.margin))
    return unproject(pixel, np.array(depth), view.K)
