"""Laws of tracking in both directions of time: reversing twice changes nothing, delays cancel, one direction fills in
for the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from event_recordings import same, some_events
from evhands.both_ways import ReversedEvents, fused, mirror_us
from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.tracking import Tracker, TrackerConfig, TrackResult
from evhands.types import Events, HandPose, InputError
from seeing_models import Middle
from test_interpolation import matrices, steady

TRACKER = Tracker(Middle(), Middle(), load_hand("open"), default_camera((120, 90)), TrackerConfig(smoothing=None))
MIRROR = 2_000_123
TIMES = np.arange(100_000, 1_900_000, 33_333)


def results(t_us: np.ndarray, poses: HandPose, confidence: float = 0.5, id: int = 3) -> list[TrackResult]:
    names = ("orientation", "wrist", "joints", "shape")
    each = [replace(poses, **{name: getattr(poses, name)[i] for name in names}) for i in range(len(t_us))]
    return [
        TrackResult(int(t), "moving", confidence, 70, pose, np.zeros((21, 3)), None, id, np.full(21, confidence))
        for t, pose in zip(t_us, each, strict=True)
    ]


def backwards(t_us: np.ndarray, poses: HandPose, **options) -> list[TrackResult]:
    """Results whose poses are of the times `t_us` of the recording, on the clock of the reversed events."""
    return [replace(result, t_us=MIRROR - result.t_us) for result in reversed(results(t_us, poses, **options))]


def stacked(found: list[TrackResult]) -> HandPose:
    names = ("orientation", "wrist", "joints", "shape")
    return replace(found[0].pose, **{name: np.stack([getattr(r.pose, name) for r in found]) for name in names})


@given(st.integers(0, 1000), st.integers(1, 700))
def test_events_reversed_twice_are_the_events(seed, chunk):
    events = some_events(500, seed, start_us=77)
    once = Events.concatenate(list(ReversedEvents(events, chunk)))
    assert (np.diff(once.t_us) >= 0).all() and once.t_us[0] == events.t_us[0] and (once.p == ~events.p[::-1]).all()
    assert same(Events.concatenate(list(ReversedEvents(once, chunk))), events)


@given(st.integers(0, 1000), st.integers(0, 90_000), st.integers(0, 33_000))
def test_delays_of_both_directions_cancel(seed, delay_us, offset_us):
    other = TIMES + offset_us  # windows of the two directions need not end together
    forward = results(TIMES, steady(TIMES - delay_us, seed))
    found = fused(TRACKER, forward, backwards(other, steady(other + delay_us, seed)), MIRROR)[1:-1]
    truth = steady(TIMES[1:-1], seed)
    np.testing.assert_allclose(matrices(stacked(found)), matrices(truth), atol=1e-6)
    np.testing.assert_allclose(stacked(found).wrist, truth.wrist, atol=1e-6)
    joints = [TRACKER.hand.joints_of(r.pose) for r in found]
    np.testing.assert_allclose([r.joints_m for r in found], joints, atol=1e-6)
    assert [r.t_us for r in found] == TIMES[1:-1].tolist() and {r.id for r in found} == {3}


def test_where_one_direction_is_lost_the_other_stands():
    poses, lost = steady(TIMES), [TrackResult(int(t), "lost", 0.0, 5) for t in TIMES]
    forward, backward = results(TIMES, poses), backwards(TIMES, poses, id=9)
    half = len(TIMES) // 2
    found = fused(TRACKER, lost[:half] + forward[half:], backward, MIRROR)
    np.testing.assert_allclose(matrices(stacked(found)), matrices(poses), atol=1e-6)
    assert {r.id for r in found} == {3} and found[0].events == 5
    nothing = [replace(r, pose=None, joints_m=None, status="lost", id=0) for r in backward]
    assert all(a is b for a, b in zip(fused(TRACKER, forward, nothing, MIRROR), forward, strict=True))
    assert not any(r.tracked for r in fused(TRACKER, lost, nothing, MIRROR))


def test_of_two_opinions_the_surer_one_is_given_and_not_their_middle():
    poses = steady(TIMES)
    turn = Rotation.from_rotvec([0, 3.0, 0])
    turned = replace(poses, orientation=(turn * Rotation.from_rotvec(poses.orientation)).as_rotvec())
    for sure, expected in ((0.9, turned), (0.1, poses)):
        found = fused(TRACKER, results(TIMES, poses), backwards(TIMES, turned, confidence=sure), MIRROR)
        np.testing.assert_allclose(matrices(stacked(found)), matrices(expected), atol=1e-6)


def test_the_clock_of_reversed_events_is_the_mirrored_one():
    events = some_events(400, 1, start_us=5_000)
    reversed_ = Events.concatenate(list(ReversedEvents(events)))
    np.testing.assert_array_equal(mirror_us(events) - reversed_.t_us[::-1], events.t_us)


def test_two_hands_are_refused():
    with pytest.raises(InputError, match="--hands right, left or any"):
        fused(replace(TRACKER, count=2), [], [], MIRROR)
