"""A recording tracked in both directions of time, and one pose of both.

Events in reverse, polarities swapped, are the events of the same scene in reverse: an edge that leaves is one that
comes. So the tracker runs on them as they are. What it says late forwards it says early backwards, fingers remembered
from one side are seen from the other, and the start of a recording, where nothing is remembered yet, is the end of one:
the middle of both poses has no delay, and less noise than either. Of one hand a recording; not while it is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from evhands.following import Tracker, hand_joints
from evhands.interpolation import pose_at, stacked
from evhands.recording import EventsInMemory
from evhands.rotations import leading
from evhands.tracking import TrackResult, track_stream
from evhands.types import Events, HandPose, InputError

APART_RAD = 2.0
APART_M = 0.2
"""Poses whose orientations or wrists are further from each other are two opinions, of which one is right: the middle of
a palm and a back is neither."""
SURE_WINDOWS = 8
"""The surer of two opinions is the one with the higher confidence over so many windows before and after."""

MOST_OUTSIDE_US = 40_000
"""Before the first and behind the last pose of a direction, that pose stands so long."""


@dataclass(frozen=True)
class ReversedEvents(EventsInMemory):
    """All events in reverse, polarities swapped, as a stream that begins and ends when they do."""

    chunk: int = 100_000

    def __iter__(self) -> Iterator[Events]:
        mirror = mirror_us(self.events)
        for end in range(len(self.events), 0, -self.chunk):
            part = self.events[max(end - self.chunk, 0) : end]
            yield Events(part.x[::-1], part.y[::-1], mirror - part.t_us[::-1], ~part.p[::-1], part.size)


def mirror_us(events: Events) -> int:
    """A time and its mirror image in reversed events add up to this."""
    return int(events.t_us[0]) + int(events.t_us[-1])


def fused(
    tracker: Tracker, forward: Sequence[TrackResult], backward: Sequence[TrackResult], mirror: int
) -> list[TrackResult]:
    """The results of the windows of a recording, one each, with the poses of both directions.

    backward: the results of `ReversedEvents`, on its clock. A window that only one direction has a pose for gets that
    one; where the two are of different opinion it gets the surer's.
    """
    check_one_hand(tracker)
    behind = [replace(result, t_us=mirror - result.t_us) for result in reversed(backward)]
    times = np.array([result.t_us for result in behind])
    there = [_at(tracker, behind, times, result) for result in forward]
    sure_forward, sure_backward = _sure(forward), _sure(there)
    out = []
    for i, (first, second, id) in enumerate(zip(forward, there, _ids(forward), strict=True)):
        both = first.tracked and second.tracked
        if both and not _apart(first, second):
            out.append(_middle(tracker, first, second))
        elif second.tracked and (not both or sure_backward[i] > sure_forward[i]):
            out.append(replace(second, events=first.events, id=id))
        else:
            out.append(first)
    return out


def with_backward(tracker: Tracker, forward: Sequence[TrackResult], events: Events) -> Sequence[TrackResult]:
    """The results of all windows of a recording, `fused` with those of its events in reverse."""
    if not len(events):
        return forward
    backward = [result for _, result in track_stream(tracker, ReversedEvents(events))]
    return fused(tracker, forward, backward, mirror_us(events))


def check_one_hand(tracker: Tracker) -> None:
    """InputError where more than one hand is to be tracked."""
    if tracker.count > 1:
        raise InputError(
            "Found two hands to be tracked in both directions of time. Wanted one; choose --hands right, left or any."
        )


def _at(tracker: Tracker, results: Sequence[TrackResult], times: np.ndarray, wanted: TrackResult) -> TrackResult:
    """The result at the time of another one: between its neighbours where both are of one track, else that of the
    nearer one, as far as the next is away; lost outside all."""
    t_us = wanted.t_us
    after = int(np.searchsorted(times, t_us))
    around = [results[i] for i in (after - 1, after) if 0 <= i < len(results)]
    if len(around) < 2 and abs(around[0].t_us - t_us) > MOST_OUTSIDE_US:
        return TrackResult(t_us, "lost", 0.0, wanted.events)
    nearest = min(around, key=lambda result: abs(result.t_us - t_us))
    if not all(result.tracked for result in around) or len({(result.id, result.side) for result in around}) > 1:
        return replace(nearest, t_us=t_us)
    poses = stacked([result.pose for result in around if result.pose is not None])
    return _posed(tracker, replace(nearest, t_us=t_us), pose_at(poses, np.array([r.t_us for r in around]), t_us))


def _middle(tracker: Tracker, first: TrackResult, second: TrackResult) -> TrackResult:
    """Half of the way from the first result to the second; id, events, status and box are those of the first."""
    assert first.pose is not None and second.pose is not None
    joints = first.joint_confidence
    if joints is not None and second.joint_confidence is not None:
        joints = (joints + second.joint_confidence) / 2
    confidence = (first.confidence + second.confidence) / 2
    middle = pose_at(stacked([first.pose, second.pose]), np.array([0, 2]), 1)
    return _posed(tracker, replace(first, confidence=confidence, joint_confidence=joints), middle)


def _posed(tracker: Tracker, result: TrackResult, pose: HandPose) -> TrackResult:
    return replace(result, pose=pose, joints_m=hand_joints(tracker.hand_of(pose.side), pose))


def _apart(first: TrackResult, second: TrackResult) -> bool:
    """Whether two results are of different opinion."""
    a, b = first.pose, second.pose
    assert a is not None and b is not None
    turned = np.linalg.norm(leading(np.asarray(a.orientation)[None], np.asarray(b.orientation)[None]))
    return bool(a.side != b.side or turned > APART_RAD or np.linalg.norm(np.asarray(a.wrist) - b.wrist) > APART_M)


def _sure(results: Sequence[TrackResult]) -> np.ndarray:
    """The mean confidence about each result, of those that are lost and outside all zero."""
    values = np.array([result.confidence * result.tracked for result in results], np.float64)
    return uniform_filter1d(values, 2 * SURE_WINDOWS + 1, mode="constant")


def _ids(results: Sequence[TrackResult]) -> list[int]:
    """An id for every window: of the hand in it, else of the one before it, else of the first; 1 without any hand."""
    known = [result.id for result in results if result.tracked]
    last, ids = (known[0] if known else 1), []
    for result in results:
        last = result.id if result.tracked else last
        ids.append(last)
    return ids
