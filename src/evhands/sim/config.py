"""What clips are drawn from: one frozen value holds every range of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from evhands.sim.motion import MotionConfig, Orientation
from evhands.sim.scenery import SceneConfig
from evhands.sim.sensor import SENSORS, SensorConfig
from evhands.types import Size

TEST_SUBJECTS = (1_000_000, 1_000_008)
"""Hands that no training may show."""

CAMERAS: dict[str, tuple[Size, float]] = {
    "346x260": ((346, 260), 330.0),
    "240x180": ((240, 180), 230.0),
    "640x480": ((640, 480), 600.0),
    "1280x720": ((1280, 720), 1050.0),
}
"""Preset name -> (width and height, focal length in pixels)."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What clips are drawn from."""

    size: Size = (346, 260)
    focal_px: float = 330.0
    focal_spread: float = 0.2
    """The focal length is drawn within this share of `focal_px`, the principal point within 3 % of the size."""
    distortion: float = 0.0
    """Largest first radial coefficient of the lens, drawn uniform on both sides of 0."""
    duration_us: int = 400_000
    label_rate_hz: float = 30.0
    orientation: Orientation = "frontal"
    depth_m: tuple[float, float] = (0.35, 1.0)
    side: Literal["right", "left", "any", "both"] = "right"
    """any: one hand, right or left by chance. both: two hands in view."""
    empty: bool = False
    """The hand is far outside the image: what is left is light, background, things and noise."""
    subjects: tuple[int, int] = (0, 10_000)
    """First and last + 1 subject number; a number always has the same hand shape. See `TEST_SUBJECTS`."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    sensor: SensorConfig = SENSORS["davis346"]
    video_fps: float = 0.0
    """Above 0, the events are those of a video with so many frames a second, converted as `evhands.sim.video` does."""
    step_px: float = 0.5
    """Images are drawn at least each time the fastest joint has moved this far."""
    step_us: float = 8000.0
    """... and at least this often."""
