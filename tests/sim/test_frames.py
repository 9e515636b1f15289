"""Colour frames: where the truth is, blurred by motion, from another place when asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.frames import FrameConfig, render_frames
from evhands.sim.motion import MotionConfig

CONFIG = ClipConfig(size=(173, 130), focal_px=165.0, duration_us=80_000, depth_m=(0.35, 0.5))
QUIET = FrameConfig(shot_noise=0.0, read_noise=0.0, exposure_us=(2000, 2000), exposure_stops=(0, 0))


def test_frames_come_at_their_rate_and_are_the_same_again() -> None:
    world = draw_world(CONFIG, 41, 0)
    first, again = (render_frames(world, FrameConfig(), 41, 0) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    assert len(first.images) == len(first.t_us) >= 2
    np.testing.assert_allclose(np.diff(first.t_us), 1e6 / 30, atol=1)


def test_a_long_exposure_smears_a_fast_hand() -> None:
    config = replace(CONFIG, motion=MotionConfig(peak_speed=(2.0, 2.0), keyframe_s=(0.15, 0.2), hold_share=0.0))
    sharpness = []
    for exposure in (1000.0, 25_000.0):
        frame = replace(QUIET, exposure_us=(exposure, exposure))
        images = [render_frames(draw_world(config, 42, i), frame, 42, i).images[0] for i in range(3)]
        sharpness.append(np.mean([np.abs(np.diff(image.astype(float), axis=1)).max(1).mean() for image in images]))
    assert sharpness[1] < 0.85 * sharpness[0]


def test_another_place_sees_the_hand_elsewhere() -> None:
    """Ten centimetres to the right, the hand moves left by f * 0.1 / z pixels and the far wall stays."""
    world = draw_world(CONFIG, 43, 1)
    T = np.eye(4)
    T[0, 3] = -0.1
    here = render_frames(world, QUIET, 43, 1).images[0].astype(float)
    there = render_frames(world, replace(QUIET, T_frame_event=T), 43, 1).images[0].astype(float)
    depth = float(np.median(world.truth(np.array([1000])).joints_m[..., 2]))
    shift = round(world.camera.K[0, 0] * 0.1 / depth)
    mask = world.mask(1000) == 0
    mask[:, : shift + 3] = False
    moved = np.roll(there, shift, axis=1)
    assert np.abs(moved - here)[mask].mean() < 0.6 * np.abs(there - here)[mask].mean()
