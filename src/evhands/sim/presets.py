"""What `evhands simulate` can be asked for: every preset gives, for the number of a clip, its name and setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evhands.sim.config import CAMERAS, TEST_SUBJECTS, ClipConfig
from evhands.sim.motion import SPEEDS, MotionConfig, Orientation
from evhands.sim.scenery import LightType, SceneConfig
from evhands.sim.sensor import SENSORS, VIDEO_SENSOR
from evhands.types import InputError

PresetName = Literal["demo", "train", "testset", "fast", "ego", "two-hands", "evrealhands"]

LABEL_HZ = 100.0
"""Truth of recordings."""


@dataclass(frozen=True, kw_only=True)
class TrainShares:
    """What the preset `train` mixes: chances of a clip, drawn apart from each other."""

    free: float = 0.35
    """Orientations up to 90 degrees an axis, any turn; the others are frontal."""
    fast: float = 0.25
    fixed: float = 0.25
    """Moves between named gestures."""
    fingers: float = 0.1
    """The hand nearly stands still while fingers move."""
    holding: float = 0.0
    """It nearly stands still, and fingers move and then stay for a while: what is to be seen must be remembered."""
    far: float = 0.25
    """The hand is 0.3 to 1.2 m away; the others are within 0.5 m, where they fill more of the image."""
    video: float = 0.0
    """The events are those of an ordinary video, as `evhands convert` makes them."""
    empty: float = 0.0
    """No hand is in view: for the detector."""
    highlight: float = 0.1
    flash: float = 0.08
    mains: float = 0.02
    moving_background: float = 0.08
    camera_turn: float = 0.07
    thing: float = 0.15
    jewellery: float = 0.1

    def __post_init__(self) -> None:
        for names in ("fast fingers holding", "highlight flash mains", "moving_background camera_turn", *vars(self)):
            shares = {name: getattr(self, name) for name in names.split()}
            if min(shares.values()) < 0 or sum(shares.values()) > 1:
                found = " and ".join(f"{name} {value}" for name, value in shares.items())
                raise InputError(f"Found the shares {found}. Wanted none below 0, and no more than 1 together.")


SLOW = MotionConfig(peak_speed=(0.003, 0.08), peak_turn=(0.02, 0.8), hold_share=0.4, wobble_m=(0.0002, 0.003))
"""Little but the fingers moves."""
HOLDING = replace(
    SLOW, keyframe_s=(0.1, 0.6), gesture_hold_s=(0.2, 1.5), gesture_spread=0.1, hold_share=0.3, finger_speed=(2.0, 20.0)
)
"""Fingers that stay where they went."""
LIVELY = MotionConfig(
    keyframe_s=(0.15, 0.8), hold_share=0.1, peak_speed=(0.3, 3.0), peak_turn=(1.0, 20.0), finger_speed=(2.0, 25.0)
)
"""The usual motion of training: nobody needs to learn much from hands that hardly move."""
FAST = SPEEDS["fast"]
EMPTY_THING = 0.6
"""Least share of the clips without a hand that show another moving object."""
HOLDING_FIXED = 0.4
"""Share of the hands with holding fingers that show named gestures; in the others every finger moves by itself."""
TEST_BUCKETS: tuple[tuple[str, LightType, str], ...] = (
    ("normal_fixed", "normal", "fixed"),
    ("normal_random", "normal", "random"),
    ("highlight_fixed", "highlight", "fixed"),
    ("highlight_random", "highlight", "random"),
    ("flash_fixed", "flash", "fixed"),
    ("flash_random", "flash", "random"),
    ("fast", "normal", "fast"),
)
"""(name, scene type, motion) as EvRealHands has them (TPAMI 2024, section 5)."""
TEST_HALVES: tuple[Orientation, ...] = ("frontal", "free")
TEST_CLIPS = 12
"""Clips of each bucket in each half."""
TEST_SEED = 20_260_101


def motion_of(style: str) -> MotionConfig:
    """The motion of a bucket: fixed, random or fast."""
    return FAST if style == "fast" else replace(SPEEDS["normal"], style="fixed" if style == "fixed" else "random")


def train_clip(rng: np.random.Generator, shares: TrainShares) -> ClipConfig:
    """One clip of `train`, drawn by `rng`."""
    style = rng.random()
    motion = LIVELY
    for kind, share in ((FAST, shares.fast), (SLOW, shares.fingers), (HOLDING, shares.holding)):
        style -= share
        if style < 0:
            motion = kind
            break
    if motion is HOLDING:
        motion = replace(HOLDING, style="fixed" if rng.random() < HOLDING_FIXED else "folding")
    elif motion is not FAST and rng.random() < shares.fixed:
        motion = replace(motion, style="fixed")
    scene = SceneConfig(
        light=_light(rng.random(), shares),
        moving_background=shares.moving_background,
        camera_turn=shares.camera_turn,
        thing=shares.thing,
        jewellery=shares.jewellery,
        gloss=(0.0, 0.12),
    )
    orientation: Orientation = "free" if rng.random() < shares.free else "frontal"
    depth_m = (0.3, 1.2) if rng.random() < shares.far else (0.3, 0.5)
    video = shares.video > 0 and rng.random() < shares.video
    empty = shares.empty > 0 and rng.random() < shares.empty
    if empty:  # nothing but noise is soon learnt
        scene = replace(scene, thing=max(scene.thing, EMPTY_THING))
    return ClipConfig(
        duration_us=1_000_000,
        label_rate_hz=LABEL_HZ,
        depth_m=depth_m,
        orientation=orientation,
        side="any",
        empty=empty,
        motion=motion,
        scene=scene,
        sensor=replace(VIDEO_SENSOR, threshold=(0.13, 0.3)) if video else SENSORS["davis346"],
        video_fps=30.0 if video else 0.0,
        step_px=1.0,
    )


def _light(draw: float, shares: TrainShares) -> LightType:
    for name in ("highlight", "flash", "mains"):
        draw -= getattr(shares, name)
        if draw < 0:
            return name  # type: ignore[return-value]
    return "normal"


def clip_of_testset(index: int) -> tuple[str, ClipConfig]:
    """Name and configuration of clip `index` of the fixed test set: halves, then buckets, then clips in turn."""
    half, rest = divmod(index, len(TEST_BUCKETS) * TEST_CLIPS)
    bucket, clip = divmod(rest, TEST_CLIPS)
    name, light, style = TEST_BUCKETS[bucket]
    config = ClipConfig(
        duration_us=2_000_000,
        label_rate_hz=LABEL_HZ,
        depth_m=(0.3, 1.2),
        orientation=TEST_HALVES[half],
        subjects=TEST_SUBJECTS,
        motion=motion_of(style),
        scene=SceneConfig(light=light),
    )
    return f"{TEST_HALVES[half]}-{name}-{clip:02d}", config


TEST_COUNT = len(TEST_HALVES) * len(TEST_BUCKETS) * TEST_CLIPS

DEMO = ClipConfig(  # a hand of a test subject that moves as people do before a camera, near enough to be seen well
    duration_us=4_000_000,
    label_rate_hz=LABEL_HZ,
    depth_m=(0.4, 0.6),
    subjects=TEST_SUBJECTS,
    motion=MotionConfig(keyframe_s=(0.3, 1.2), peak_speed=(0.3, 0.6), peak_turn=(1.5, 4.0), finger_speed=(6.0, 12.0)),
)
_ONE_SECOND = ClipConfig(duration_us=1_000_000, label_rate_hz=LABEL_HZ, side="any")
_EGO = replace(
    _ONE_SECOND, orientation="wide", depth_m=(0.3, 0.6), scene=SceneConfig(camera_turn=1.0, thing=0.3, gloss=(0, 0.1))
)


def clip_of(preset: PresetName, seed: int, index: int, shares: TrainShares) -> tuple[str, ClipConfig]:
    """(name of the recording, its configuration) for clip `index` of a series; the same for the same arguments."""
    rng = np.random.default_rng((seed, index, 9))
    if preset == "testset":
        return clip_of_testset(index)
    if preset == "evrealhands":
        name, light, style = TEST_BUCKETS[index % len(TEST_BUCKETS)]
        config = replace(
            _ONE_SECOND, duration_us=4_000_000, label_rate_hz=15.0, orientation="wide", motion=motion_of(style)
        )
        return f"{index:04d}-{name}", replace(config, scene=SceneConfig(light=light))
    simple: dict[str, Callable[[], ClipConfig]] = {
        "demo": lambda: DEMO,
        "train": lambda: train_clip(rng, shares),
        "fast": lambda: replace(_ONE_SECOND, motion=FAST),
        "ego": lambda: _EGO,
        "two-hands": lambda: replace(_ONE_SECOND, side="both", depth_m=(0.35, 0.8)),
    }
    return f"{preset}-{seed}-{index:06d}", simple[preset]()


def with_camera(config: ClipConfig, camera: str) -> ClipConfig:
    """The same clip through another camera of `CAMERAS`."""
    size, focal = CAMERAS[camera]
    return replace(config, size=size, focal_px=focal)
