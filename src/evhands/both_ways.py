"""A recording tracked in both directions of time, and one pose of both.

Events in reverse, polarities swapped, are the events of the same scene in reverse: an edge that leaves is one that
comes. So the tracker runs on them as they are. What it says late forwards it says early backwards, fingers remembered
from one side are seen from the other, and the start of a recording, where nothing is remembered yet, is the end of one:
the middle of both poses has no delay, and less noise than either. Of one hand a recording; not while it is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evhands.following import Tracker, hand_joints
from evhands.interpolation import pose_at
from evhands.rotations import composed, leading
from evhands.tracking import TrackResult
from evhands.types import Events, HandPose, InputError, Size

APART_RAD = 2.0
APART_M = 0.2
"""Poses whose orientations or wrists are further from each other are two opinions, of which one is right: the middle of
a palm and a back is neither."""
SURE_WINDOWS = 8
"""The surer of two opinions is the one with the higher confidence over so many windows before and after."""

MOST_OUTSIDE_US = 40_000
"""Before the first and behind the last pose of a direction, that pose stands so long."""


@dataclass(frozen=True)
class ReversedEvents:
    """All events in reverse, polarities swapped, as a stream that begins and ends when they do."""

    events: Events
    chunk: int = 100_000

    @property
    def size(self) -> Size:
        return self.events.size

    def __iter__(self) -> Iterator[Events]:
        mirror = mirror_us(self.events)
        for end in range(len(self.events), 0, -self.chunk):
            part = self.events[max(end - self.chunk, 0) : end]
            yield Events(part.x[::-1], part.y[::-1], mirror - part.t_us[::-1], ~part.p[::-1], part.size)

    def chunks(self) -> Iterator[tuple[Events, float]]:
        """With the share of them that has been read."""
        return with_shares(self, len(self.events))


def with_shares(parts: Iterable[Events], total: int) -> Iterator[tuple[Events, float]]:
    """Every part with the share of all events that has come with it."""
    done = 0
    for part in parts:
        done += len(part)
        yield part, done / total


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
    ids = _ids(forward)
    out = []
    for i, (first, second) in enumerate(zip(forward, there, strict=True)):
        result = first if not second.tracked else replace(second, events=first.events, id=ids[i])
        if first.tracked and second.tracked:
            share = 0.5 if not _apart(first, second) else float(sure_backward[i] > sure_forward[i])
            result = _between(tracker, first, second, share)
        out.append(result)
    return out


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
    poses = [result.pose for result in around if result.pose is not None]
    names = ("orientation", "wrist", "joints", "shape")
    values: dict[str, Any] = {name: np.stack([getattr(pose, name) for pose in poses]) for name in names}
    stacked = replace(poses[0], **values)
    return _posed(tracker, replace(nearest, t_us=t_us), pose_at(stacked, np.array([r.t_us for r in around]), t_us))


def _between(tracker: Tracker, first: TrackResult, second: TrackResult, share: float) -> TrackResult:
    """A share of the way from the first result to the second; id, events, status and box are those of the first."""
    a, b = first.pose, second.pose
    assert a is not None and b is not None
    if share in (0.0, 1.0):
        return first if share == 0 else replace(second, id=first.id, events=first.events)
    rotations = composed(_rotations(a), share * leading(_rotations(a), _rotations(b)))
    wrist, shape = (np.asarray(u) + share * (np.asarray(v) - u) for u, v in ((a.wrist, b.wrist), (a.shape, b.shape)))
    pose = replace(a, orientation=rotations[0], joints=rotations[1:], wrist=wrist, shape=shape)
    confidence = first.confidence + share * (second.confidence - first.confidence)
    joints = first.joint_confidence
    if joints is not None and second.joint_confidence is not None:
        joints = joints + share * (second.joint_confidence - joints)
    return _posed(tracker, replace(first, confidence=confidence, joint_confidence=joints), pose)


def _posed(tracker: Tracker, result: TrackResult, pose: HandPose) -> TrackResult:
    return replace(result, pose=pose, joints_m=hand_joints(tracker.hand_of(pose.side), pose))


def _apart(first: TrackResult, second: TrackResult) -> bool:
    """Whether two results are of different opinion."""
    a, b = first.pose, second.pose
    assert a is not None and b is not None
    turned = np.linalg.norm(leading(_rotations(a)[:1], _rotations(b)[:1]))
    return bool(a.side != b.side or turned > APART_RAD or np.linalg.norm(np.asarray(a.wrist) - b.wrist) > APART_M)


def _sure(results: Sequence[TrackResult]) -> np.ndarray:
    """The mean confidence about each result, zero where it is lost."""
    values = np.array([result.confidence * result.tracked for result in results])
    window = np.ones(2 * SURE_WINDOWS + 1)
    padded = np.pad(values, SURE_WINDOWS)
    return np.convolve(padded, window, "valid") / np.convolve(
        np.pad(np.ones(len(values)), SURE_WINDOWS), window, "valid"
    )


def _ids(results: Sequence[TrackResult]) -> list[int]:
    """An id for every window: of the hand in it, else of the one before it, else of the first; 1 without any hand."""
    known = [result.id for result in results if result.tracked]
    last, ids = (known[0] if known else 1), []
    for result in results:
        last = result.id if result.tracked else last
        ids.append(last)
    return ids


def _rotations(pose: HandPose) -> np.ndarray:
    return np.concatenate([np.asarray(pose.orientation, np.float64)[None], np.asarray(pose.joints, np.float64)])
