"""Laws of the augmentation: events, joints, poses and cameras move alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evhands.data.augment import NO_AUGMENTATION, AugmentConfig, Draw, draw, lnes_noise, move_of, moved_within
from evhands.geometry import project
from evhands.hand.model import load_hand, pose_hand
from evhands.types import HandPose

K = np.array([[288.9, 0, 172.2], [0, 288.7, 131.3], [0, 0, 1]])
CONFIG = AugmentConfig()


def _a_hand(seed: int) -> tuple[HandPose, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrist = rng.uniform([-0.2, -0.2, 0.5], [0.2, 0.2, 1.4])
    values = (rng.uniform(-2, 2, 3), wrist, rng.normal(0, 0.3, (15, 3)), rng.normal(0, 1, 10))
    pose = HandPose("right", *(v.astype(np.float32) for v in values), "open")
    return pose, _joints(pose)


def _joints(pose: HandPose) -> np.ndarray:
    with torch.no_grad():
        return pose_hand(load_hand("open"), pose).joints().numpy().astype(np.float64)


@given(seed=st.integers(0, 10_000))
def test_projected_joints_lie_on_the_moved_pixels(seed):
    """Of the hand model at the moved parameters too: joints and parameters say the same (unlike O14)."""
    pose, joints = _a_hand(seed)
    drawn = draw(CONFIG, 12, np.random.default_rng(seed))
    move = move_of(drawn, K, pose.wrist, CONFIG)
    moved = move.pixels(project(joints, K))
    np.testing.assert_allclose(project(move.points(joints), move.image_K), moved, atol=1e-6)
    turned = HandPose(
        "right", move.rotvecs(pose.orientation).astype(np.float32), move.points(pose.wrist).astype(np.float32),
        pose.joints, pose.shape, "open",
    )  # fmt: skip
    np.testing.assert_allclose(_joints(turned), move.points(joints), atol=2e-6)
    np.testing.assert_allclose(project(_joints(turned), move.image_K), moved, atol=1e-3)


@given(seed=st.integers(0, 10_000))
def test_the_wrist_goes_where_the_draw_says(seed):
    """Larger by z / z_new, and to the pixel of a wrist that is moved by the draw in space."""
    pose, _ = _a_hand(seed)
    drawn = draw(CONFIG, 12, np.random.default_rng(seed))
    move = move_of(drawn, K, pose.wrist, CONFIG)
    turned = move.points(pose.wrist)
    new_z = moved_within(turned[2], drawn.depth_m, 0.7, 1.3)
    new = [moved_within(a, d, -0.3, 0.3) for a, d in zip(turned[:2], drawn.shift_m)]
    np.testing.assert_allclose(project(turned, move.image_K), project(np.array([*new, new_z]), K), atol=1e-6)
    np.testing.assert_allclose(move.image_K[0, 0] / K[0, 0], turned[2] / new_z, atol=1e-9)
    assert abs(new_z - turned[2]) <= 0.1 + 1e-12 and np.abs(np.array(new) - turned[:2]).max() <= 0.1 + 1e-12


def test_a_hand_moved_rigidly_in_space_would_miss_its_events():
    """Why the camera moves instead: the events move by one map, a hand in space does not."""
    worst = []
    for seed in range(60):
        pose, joints = _a_hand(seed)
        drawn = draw(CONFIG, 12, np.random.default_rng(seed))
        move = move_of(drawn, K, pose.wrist, CONFIG)
        turned = move.points(joints)
        new_z = moved_within(turned[0, 2], drawn.depth_m, 0.7, 1.3)
        new = [moved_within(a, d, -0.3, 0.3) for a, d in zip(turned[0, :2], drawn.shift_m)]
        rigid = project(turned - turned[0] + [*new, new_z], K)
        worst.append(np.linalg.norm(rigid - move.pixels(project(joints, K)), axis=-1).max())
    print(f"worst joint {np.median(worst):.1f} px off (median)")
    assert 2 < np.median(worst) < 4


@given(value=st.floats(-2, 2), step=st.floats(-0.5, 0.5))
def test_a_hand_beyond_the_range_goes_no_further(value, step):
    moved = moved_within(value, step, -0.3, 0.3)
    assert min(-0.3, value) <= moved <= max(0.3, value)
    assert abs(moved - value) <= abs(step) + 1e-12


def test_without_augmentation_nothing_moves():
    pose, joints = _a_hand(0)
    drawn = draw(NO_AUGMENTATION, 12, np.random.default_rng(0))
    move = move_of(drawn, K, pose.wrist, NO_AUGMENTATION)
    np.testing.assert_array_equal(move.image_K, K)
    np.testing.assert_allclose(move.matrix, np.eye(2), atol=1e-15)
    np.testing.assert_allclose(move.offset, 0, atol=1e-12)
    np.testing.assert_array_equal(move.points(joints), joints)
    assert not drawn.jitter.any()


def test_draws_fill_their_ranges():
    drawn = [draw(CONFIG, 12, np.random.default_rng(i)) for i in range(500)]
    for values, half in (
        ([d.depth_m for d in drawn], 0.1),
        ([d.turn for d in drawn], 0.3),
        ([d.shift_m for d in drawn], 0.1),
        ([d.jitter for d in drawn], 0.15),
    ):
        values = np.array(values)
        assert 0.98 * half < values.max() <= half and -half <= values.min() < -0.98 * half
        assert abs(values.mean()) < 0.1 * half
    assert np.ptp(drawn[0].jitter, axis=0).min() > 0.05  # each window its own
    still = draw(AugmentConfig(jitter_per_window=False), 12, np.random.default_rng(0))
    assert not np.ptp(still.jitter, axis=0).any() and still.jitter.any()


def test_a_turn_is_about_the_axis_of_the_camera():
    """A quarter turn takes x to y, and a point on the axis stays."""
    move = move_of(Draw(0.0, np.pi / 2, np.zeros(2), np.zeros((1, 2))), K, None, CONFIG)
    np.testing.assert_allclose(move.points(np.array([0.1, 0, 1])), [0, 0.1, 1], atol=1e-12)
    np.testing.assert_allclose(move.pixels(K[:2, 2]), K[:2, 2], atol=1e-9)
    np.testing.assert_array_equal(move.image_K, K)


@pytest.mark.parametrize("shape", [(12, 2, 128, 128), (24, 2, 160, 160)])
def test_noise_has_its_spread_and_its_salt(shape):
    """Also where the images hold more pixels than the pool."""
    rng = np.random.default_rng(0)
    images = rng.random(shape, np.float32)
    added = lnes_noise(images, CONFIG, np.random.default_rng(1)) - images
    salted = added > 0.6
    assert abs(salted.mean() - 0.001) < 2e-4
    assert abs(added[salted].mean() - 1) < 0.02
    assert abs(added[~salted].std() - 0.05) < 5e-4 and abs(added[~salted].mean()) < 5e-4
    again = lnes_noise(images, CONFIG, np.random.default_rng(1)) - images
    other = lnes_noise(images, CONFIG, np.random.default_rng(2)) - images
    np.testing.assert_array_equal(added, again)
    assert abs(np.corrcoef(added.ravel(), other.ravel())[0, 1]) < 0.02
