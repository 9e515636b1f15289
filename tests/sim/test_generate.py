"""Clips: the same from the same seed, true to the hand model, and worth learning from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.geometry import project
from evhands.hand.model import load_hand, pose_hand
from evhands.sim.generate import TEST_SUBJECTS, Clip, ClipConfig, simulate_clip, subject_shape
from evhands.sim.motion import MotionConfig
from evhands.sim.sensor import SENSORS

CONFIG = ClipConfig(size=(173, 130), focal_px=165.0, duration_us=130_000)
IDEAL = replace(CONFIG, sensor=SENSORS["ideal"])


def _same(a: Clip, b: Clip) -> bool:
    columns = all(np.array_equal(getattr(a.events, c), getattr(b.events, c)) for c in ("x", "y", "t_us", "p"))
    return columns and np.array_equal(a.joints_m, b.joints_m) and a.meta == b.meta


def test_a_clip_is_a_function_of_seed_and_index() -> None:
    first = simulate_clip(CONFIG, 3, 5)
    other = simulate_clip(CONFIG, 3, 6)
    assert _same(first, simulate_clip(CONFIG, 3, 5))
    assert not _same(first, other)
    assert not _same(first, simulate_clip(CONFIG, 4, 5))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("index", range(3))
def test_the_truth_is_that_of_the_hand_model(side, index: int) -> None:
    clip = simulate_clip(replace(CONFIG, side=side), 0, index)
    assert clip.pose.side == side
    joints = pose_hand(load_hand("open", side), clip.pose).joints().numpy()
    np.testing.assert_allclose(joints, clip.joints_m, atol=2e-6)
    np.testing.assert_allclose(clip.joints_px, project(clip.joints_m.astype(np.float64), clip.camera.K), atol=1e-2)
    np.testing.assert_allclose(clip.boxes_px[:, :2], clip.joints_px.min(1))
    np.testing.assert_allclose(clip.boxes_px[:, 2:], clip.joints_px.max(1))
    np.testing.assert_allclose(clip.joints_m[:, 0], clip.pose.wrist, atol=1e-6)


def test_left_hands_are_mirrored_right_ones() -> None:
    right, left = (simulate_clip(replace(CONFIG, side=side), 1, 2) for side in ("right", "left"))
    np.testing.assert_allclose(left.joints_m, right.joints_m * [-1, 1, 1], atol=1e-6)


def test_labels_end_windows_and_events_fill_the_clip() -> None:
    clip = simulate_clip(CONFIG, 2, 0)
    assert clip.label_t_us.tolist() == [33333, 66667, 100000]
    assert clip.events.size == CONFIG.size == clip.camera.size
    assert (np.diff(clip.events.t_us) >= 0).all()
    assert clip.events.t_us[0] >= 0
    assert clip.events.t_us[-1] < CONFIG.duration_us
    assert clip.events.x.max() < CONFIG.size[0]
    assert clip.events.y.max() < CONFIG.size[1]


def test_events_lie_around_the_hand() -> None:
    """A forearm apart, what fires without noise is near the projected joints."""
    found = []
    for index in range(6):
        clip = simulate_clip(replace(IDEAL, motion=MotionConfig(peak_speed=(0.5, 1.0))), 7, index)
        for k, t_us in enumerate(clip.label_t_us):
            window = clip.events.between(int(t_us) - 5000, int(t_us))
            above = window[window.y < clip.joints_px[k, 0, 1]]  # in the frontal range the forearm is below the wrist
            pixels = np.stack([above.x, above.y], 1).astype(float)[:, None]
            bones = np.concatenate(
                [clip.joints_px[k], clip.joints_px[k, [5, 9, 13, 17]] * 0.5 + clip.joints_px[k, :1] * 0.5]
            )
            palm_px = np.linalg.norm(clip.joints_px[k, 9] - clip.joints_px[k, 0])
            if len(above):
                found.append((np.linalg.norm(pixels - bones, axis=-1).min(1) < 0.6 * palm_px + 3).mean())
    assert np.mean(found) > 0.97


def test_most_windows_hold_events_and_none_drowns() -> None:
    counts = []
    for index in range(24):
        clip = simulate_clip(replace(ClipConfig(), duration_us=70_000), 11, index)
        counts.append(len(clip.events.between(0, 66_667)))
    assert np.quantile(counts, 0.1) > 200
    assert 1000 < np.median(counts) < 10_000
    assert max(counts) < 100_000


def test_finer_steps_change_little() -> None:
    """Ten times as many images change the number of events by less than 2 %."""
    davis = replace(SENSORS["davis346"], leak_hz=(0.0, 0.0), shot_noise_hz=(0.0, 0.0), hot_pixel_share=(0.0, 0.0))
    for sensor, step_px in ((davis, 0.5), (SENSORS["ideal"], 0.2)):
        counts = np.zeros(2)
        for index in range(5):
            for k, factor in enumerate((1, 10)):
                config = ClipConfig(
                    sensor=sensor, step_px=step_px / factor, step_us=8000 * step_px / factor, duration_us=60_000
                )
                counts[k] += len(simulate_clip(config, 13, index).events)
        assert counts[1] > 20_000
        assert abs(counts[0] / counts[1] - 1) < 0.02


def test_subjects_have_one_shape_each() -> None:
    np.testing.assert_array_equal(subject_shape(5), subject_shape(5))
    assert np.abs(subject_shape(5) - subject_shape(6)).max() > 0.1
    shapes = np.stack([subject_shape(k) for k in range(500)])
    assert np.abs(shapes).max() <= 2
    assert abs(shapes.std() - 0.96) < 0.02  # a standard normal cut at 2
    clip = simulate_clip(replace(CONFIG, subjects=TEST_SUBJECTS), 0, 0)
    assert TEST_SUBJECTS[0] <= clip.meta["subject"] < TEST_SUBJECTS[1]
    np.testing.assert_array_equal(clip.pose.shape[0], subject_shape(clip.meta["subject"]))
