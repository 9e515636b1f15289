"""How simulated hands move: smooth, within limits, within the ranges that the configuration names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from evhands.geometry import project
from evhands.hand import open_hand
from evhands.sim.gestures import LIBRARY
from evhands.sim.keyframes import PEAK
from evhands.sim.motion import FOLDING_SHARES, SPEEDS, MotionConfig, View, draw_motion
from evhands.sim.orientation import draw_orientation
from evhands.sim.presets import HOLDING
from evhands.sim.rotations import rotation_matrix, rotation_vector
from evhands.sim.two_hands import distances, draw_two_motions

K = np.array([[330.0, 0, 172], [0, 330, 129], [0, 0, 1]])
CENTRE = np.array([-0.08, 0.0, 0.0])
KINDS = {
    "default": MotionConfig(),
    "normal": SPEEDS["normal"],
    "normal fixed": replace(SPEEDS["normal"], style="fixed"),
    "folding": replace(HOLDING, style="folding"),
    "fast": SPEEDS["fast"],
    "fast fixed": replace(SPEEDS["fast"], style="fixed", gesture_spread=0.1),
}


def _view(orientation: str = "frontal") -> View:
    return View(K=K, size=(346, 260), orientation=orientation, depth_m=(0.35, 1.0), centre_m=CENTRE)  # type: ignore[arg-type]


@given(st.integers(0, 10**6))
def test_rotations_agree_with_scipy(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((20, 3)) * 10.0 ** np.linspace(-9, 0.8, 20)[:, None]
    matrices = rotation_matrix(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(rotation_matrix(rotation_vector(matrices)), matrices, atol=1e-9)


def test_half_turns_keep_their_axis() -> None:
    axes = np.random.default_rng(0).standard_normal((50, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    back = rotation_vector(rotation_matrix(axes * np.pi))
    np.testing.assert_allclose(np.abs((back * axes).sum(1)), np.pi, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_motion_is_continuous_to_the_second_derivative(seed: int, kind: str) -> None:
    motion = draw_motion(KINDS[kind], _view(("frontal", "free")[seed]), 2.0, np.random.default_rng(seed))
    step = 1e-4
    t = np.arange(0.01, 1.99, step)
    for values in (motion.angles(t), motion.wrist(t), motion.rotation(t).reshape(len(t), 9)):
        acceleration = np.diff(values, n=2, axis=0) / step**2
        jumps = np.abs(np.diff(acceleration, axis=0))
        # A jump of the acceleration does not shrink with the step; a C2 curve's does: compare with twice the step.
        coarse = np.abs(np.diff(np.diff(values[::2], n=2, axis=0) / (2 * step) ** 2, axis=0))
        assert jumps.max() <= 0.75 * coarse.max() + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_angles_keep_their_limits(kind: str) -> None:
    t = np.linspace(0, 3, 400)
    for seed in range(6):
        motion = draw_motion(KINDS[kind], _view(), 3.0, np.random.default_rng(seed))
        assert open_hand.within_limits(motion.angles(t)).all()


@pytest.mark.parametrize("orientation", ["frontal", "free"])
@pytest.mark.parametrize(("speed", "turn"), [(0.1, 1.0), (1.0, 8.0), (4.0, 25.0)])
@pytest.mark.parametrize("style", ["random", "fixed", "folding"])
def test_speeds_stay_below_their_peaks(speed: float, turn: float, style: str, orientation: str) -> None:
    config = MotionConfig(
        style=style,  # type: ignore[arg-type]
        peak_speed=(speed, speed), peak_turn=(turn, turn), finger_speed=(5.0, 5.0), tremor_m=0.0,
    )  # fmt: skip
    t = np.linspace(0, 3, 6001)
    for seed in range(5):
        motion = draw_motion(config, _view(orientation), 3.0, np.random.default_rng(seed))
        moved = np.linalg.norm(np.diff(motion.path.at(t), axis=0), axis=1) / np.diff(t)
        rotation = motion.rotation(t)
        turned = np.linalg.norm(rotation_vector(np.swapaxes(rotation[:-1], 1, 2) @ rotation[1:]), axis=1) / np.diff(t)
        fingers = np.abs(np.diff(motion.angles(t), axis=0)) / np.diff(t)[:, None]
        assert moved.max() <= speed * 1.001
        assert turned.max() <= turn * 1.001
        assert fingers.max() <= 5.0 * 1.001


def test_folding_fingers_stay_where_they_went_each_by_itself() -> None:
    """In a hold nothing moves for as long as was asked; fingers come and go at times of their own."""
    config = replace(HOLDING, style="folding", gesture_hold_s=(0.3, 0.3), keyframe_s=(0.1, 0.2))
    t = np.arange(0, 6, 0.002)
    moving = np.zeros((5, len(t)), bool)
    for seed in range(3):
        motion = draw_motion(config, _view(), 6.0, np.random.default_rng(seed))
        rates = motion.angle_rates(t)
        for f, (indices, track) in enumerate(motion.fingers):
            moving[f] = np.abs(rates[:, indices]).max(1) > 0
            holds = np.diff(track.times)[::2]
            np.testing.assert_allclose(holds[1:], 0.3, atol=1e-9)
            assert (track.values[:-1:2] == track.values[1::2])[1:].all()
        together = np.corrcoef(moving)[np.triu_indices(5, 1)]
        assert np.abs(together).max() < 0.9


def test_folding_fingers_are_stretched_and_folded_as_often_as_said() -> None:
    bends = []
    for seed in range(60):
        motion = draw_motion(replace(HOLDING, style="folding"), _view(), 6.0, np.random.default_rng(seed))
        for indices, track in motion.fingers[1:]:
            pip = [i for i, name in enumerate(indices) if "pip" in open_hand.ANGLE_NAMES[name]]
            bends.append(track.values[::2, pip[0]])
    bend = np.degrees(np.concatenate(bends))
    stretched, folded, _ = FOLDING_SHARES
    assert abs((bend < 15).mean() - stretched) < 0.1
    assert abs((bend > 70).mean() - folded) < 0.1


def test_the_frontal_range_is_what_it_says() -> None:
    rng = np.random.default_rng(5)
    for back in (False, True):
        rotations = np.stack([draw_orientation("frontal", back, rng) for _ in range(2000)])
        normal = rotations[:, :, 1] * (-1 if back else 1)  # the back of the hand, away from the camera for the palm
        tilt = np.degrees(np.arctan2(normal[:, 0], normal[:, 2])), np.degrees(np.arctan2(normal[:, 1], normal[:, 2]))
        for angles in tilt:
            assert abs(np.std(angles) - 20) < 3
            assert abs(np.mean(angles)) < 2
        fingers = -rotations[:, :, 0]
        in_plane = np.degrees(np.arctan2(fingers[:, 0], -fingers[:, 1]))
        assert np.quantile(np.abs(in_plane), 0.9) < 38


def test_the_hand_starts_well_in_view_and_stays_near() -> None:
    t = np.linspace(0, 1, 50)
    for seed in range(20):
        motion = draw_motion(MotionConfig(), _view(), 1.0, np.random.default_rng(seed))
        centre = motion.wrist(t) + motion.rotation(t) @ CENTRE
        pixels = project(centre, K)
        assert (pixels > -20).all()
        assert (pixels < np.array([366, 280])).all()
        assert centre[:, 2].min() > 0.25


@pytest.mark.parametrize("speed", [1.0, 8.0])
def test_time_does_not_draw_hands_towards_the_mean(speed: float) -> None:
    """A slow hand takes small steps; many of them must still cover what single draws cover."""
    config = MotionConfig(finger_speed=(speed, speed), peak_turn=(speed, speed), hold_share=0.0)
    motions = [draw_motion(config, _view(), 6.0, np.random.default_rng(seed)) for seed in range(300)]
    drawn = open_hand.sample_natural_angles(np.random.default_rng(1), 2000).std(0)
    late = np.stack([motion.angles(np.array([5.9]))[0] for motion in motions]).std(0)
    assert 0.85 < (late / drawn).mean() < 1.15
    first, last = (np.stack([m.rotation(np.array([t]))[0] for m in motions]) for t in (0.0, 5.9))
    spread = [np.degrees(np.arccos(np.clip(np.abs(r[:, 2, 1]), 0, 1))).std() for r in (first, last)]
    assert 0.8 < spread[1] / spread[0] < 1.2


@pytest.mark.parametrize("back", [False, True])
def test_the_free_range_is_what_it_says(back: bool) -> None:
    """Tilts spread evenly over +-90 degrees an axis, turns over the circle; together palm and back reach every pose."""
    rng = np.random.default_rng(6)
    rotations = np.stack([draw_orientation("free", back, rng) for _ in range(4000)])
    shown = rotations[:, :, 1] * (-1 if back else 1)  # along the camera's axis where neither palm nor back is tilted
    angle = np.arccos(np.clip(shown[:, 2], -1, 1))
    tilt = np.degrees(angle[:, None] * shown[:, :2] / np.linalg.norm(shown[:, :2], axis=1, keepdims=True))
    # the turn in the image plane comes after the tilt: only the tilt's size is left of it, at most that of both axes
    assert np.linalg.norm(tilt, axis=1).max() <= 90 * np.sqrt(2) + 1e-6
    assert abs(np.mean(np.linalg.norm(tilt, axis=1) ** 2) / (2 * 90**2 / 3) - 1) < 0.05
    assert abs(np.mean(np.exp(1j * np.arctan2(shown[:, 1], shown[:, 0])))) < 0.05


def test_free_hands_reach_every_orientation() -> None:
    rng = np.random.default_rng(7)
    drawn = np.stack([draw_orientation("free", rng.random() < 0.5, rng) for _ in range(8000)])
    anywhere = Rotation.random(100, random_state=1).as_matrix()
    nearest = np.einsum("aij,bij->ab", anywhere, drawn).max(1)
    assert np.degrees(np.arccos(np.clip((nearest - 1) / 2, -1, 1))).max() < 25


@pytest.mark.parametrize("speed", [1.0, 8.0])
def test_slow_free_hands_get_as_far_round_as_fast_ones(speed: float) -> None:
    config = MotionConfig(peak_turn=(speed, speed), hold_share=0.0)
    motions = [draw_motion(config, _view("free"), 6.0, np.random.default_rng(seed)) for seed in range(120)]
    first, last = (np.stack([m.rotation(np.array([t]))[0] for m in motions]) for t in (0.0, 5.9))
    tilts = [np.degrees(np.arccos(np.clip(np.abs(r[:, 2, 1]), 0, 1))) for r in (first, last)]
    assert 0.8 < tilts[1].std() / tilts[0].std() < 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_velocities_are_the_derivatives(kind: str) -> None:
    motion = draw_motion(KINDS[kind], _view("free"), 2.0, np.random.default_rng(3))
    t, h = np.linspace(0.01, 1.99, 300), 1e-5
    for rate, values in ((motion.wrist_velocity(t), motion.wrist), (motion.angle_rates(t), motion.angles)):
        np.testing.assert_allclose(rate, (values(t + h) - values(t - h)) / (2 * h), atol=1e-4)
    turned = rotation_vector(motion.rotation(t + h) @ np.swapaxes(motion.rotation(t - h), 1, 2)) / (2 * h)
    np.testing.assert_allclose(motion.turn_rate(t), turned, atol=1e-4)
    moved = (motion.point(CENTRE, t + h) - motion.point(CENTRE, t - h)) / (2 * h)
    np.testing.assert_allclose(motion.point_velocity(CENTRE, t), moved, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("speed", ["normal", "fast"])
def test_fixed_motion_shows_the_gestures_it_names(seed: int, speed: str) -> None:
    motion = draw_motion(replace(SPEEDS[speed], style="fixed"), _view(), 4.0, np.random.default_rng(seed))  # type: ignore[index]
    track = motion.fingers[0][1]
    np.testing.assert_allclose(track.values, np.stack([LIBRARY[name] for name in motion.gestures]), atol=1e-12)
    t = np.linspace(0, 4, 500)
    names, angles, rates = motion.gesture(t), motion.angles(t), motion.angle_rates(t)
    held = np.array([name is not None for name in names])
    assert 0 < held.sum() < len(t)
    np.testing.assert_allclose(angles[held], np.stack([LIBRARY[name] for name in names if name]), atol=1e-12)
    assert np.abs(rates[held]).max() == 0
    shown = motion.tags(4.0)["gestures"]
    in_turn = list(motion.gestures[::2])
    assert shown in [in_turn[i : i + len(shown)] for i in range(len(in_turn))]
    assert all(a != b for a, b in zip(motion.gestures[1::2], motion.gestures[2::2]))


def test_random_motion_names_no_gesture() -> None:
    motion = draw_motion(MotionConfig(), _view(), 1.0, np.random.default_rng(0))
    assert motion.gesture(np.linspace(0, 1, 5)) == [None] * 5
    assert motion.tags(1.0)["style"] == "random"


def test_speed_classes_follow_each_other_and_are_reached() -> None:
    """Fast begins where normal ends; hands come near the greatest speeds, and pass none of them by more than wobble."""
    normal, fast = SPEEDS["normal"], SPEEDS["fast"]
    assert (normal.peak_speed[1], normal.peak_turn[1]) == (fast.peak_speed[0], fast.peak_turn[0])
    assert (fast.peak_speed[1], fast.peak_turn[1]) == (4.0, 25.0)
    tags = [draw_motion(fast, _view("free"), 2.0, np.random.default_rng(seed)).tags(2.0) for seed in range(40)]
    speed, turn = (np.array([tag[name] for tag in tags]) for name in ("peak_speed_m_s", "peak_turn_rad_s"))
    assert speed.max() > 3.0
    assert turn.max() > 20.0
    assert turn.max() <= 25.0
    wobble = PEAK * 6 * np.sqrt(6) * fast.wobble_m[1] / fast.keyframe_s[0]
    assert speed.max() <= 4.0 + wobble
    assert np.mean(speed > normal.peak_speed[1]) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_random_numbers_give_the_same_motion(kind: str) -> None:
    t = np.linspace(0, 1, 30)
    first, again, other = (draw_motion(KINDS[kind], _view("free"), 1.0, np.random.default_rng(s)) for s in (1, 1, 2))
    for name in ("angles", "rotation", "wrist"):
        np.testing.assert_array_equal(getattr(first, name)(t), getattr(again, name)(t))
        assert (getattr(first, name)(t) != getattr(other, name)(t)).any()


@pytest.mark.parametrize("orientation", ["frontal", "free"])
def test_two_hands_keep_apart_and_in_view(orientation: str) -> None:
    for seed in range(12):
        view = _view(orientation)
        right, left = draw_two_motions(MotionConfig(), view, 2.0, np.random.default_rng(seed), apart_m=0.15)
        apart = distances(right, left, CENTRE, 2.0)
        assert np.mean(apart < 0.15) <= 0.05
        assert np.median(apart) < 0.9  # but of one scene
        t = np.linspace(0, 2, 50)
        for centre in (right.point(CENTRE, t), left.point(CENTRE, t) * (-1, 1, 1)):
            pixels = project(centre, K)
            assert (pixels > -20).all()
            assert (pixels < np.array([366, 280])).all()


def test_either_hand_may_be_on_the_left_of_the_image() -> None:
    sides = []
    for seed in range(40):
        right, left = draw_two_motions(MotionConfig(), _view(), 1.0, np.random.default_rng(seed))
        sides.append(right.point(CENTRE, np.zeros(1))[0, 0] < -left.point(CENTRE, np.zeros(1))[0, 0])
    assert 8 < sum(sides) < 32
