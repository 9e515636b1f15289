"""Several hands: one pure step from a window of events and a state to the hands in it and the next state.

Every hand has a slot, a tracker of its own (`evhands.tracking`), which looks at the events without those inside the
other hands. Two slots that have come to the same hand are one: the less sure of them, else the younger, ends. A
recogniser, where there is one, says which side a hand is (`evhands.following`); the hands of one person are of unlike
sides, so that each is a weak reason against the same side for the others. With one slot the step is that of
`evhands.tracking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evhands.boxes import CropBox, joints_box, overlap, recent_events, without_boxes
from evhands.following import Tracker
from evhands.stopwatch import part
from evhands.tracking import TrackerState, TrackResult, calmed, lost, step_seen
from evhands.types import Camera, Events, EventWindow

ERASED = 1.3
"""Side of what is left out of the events because it is another hand, over the larger extent of that hand's joints."""
CROSSING = 0.1
"""Hands whose boxes of that size overlap by more (intersection over union) keep each other's events."""
SAME_OVERLAP = 0.4
SAME_M = 0.06
"""Two tracks are of one hand where their boxes overlap by so much and their wrists are so close."""
SURER = 2.0
"""Of two tracks of one hand the one ends that is less sure by this factor, else the younger one."""


@dataclass(frozen=True)
class Slot:
    """A tracker's state, and the id of its track: 0 where it searches."""

    state: TrackerState = TrackerState()
    id: int = 0

    @property
    def hand(self) -> TrackResult | None:
        """The hand that it tracks."""
        last = self.state.last
        return last if last is not None and last.tracked else None


@dataclass(frozen=True)
class HandsState:
    """All that the next step needs; `HandsState()` has seen nothing.

    recent: the events of the last `longest_us`. begun: how many tracks there have been.
    """

    slots: tuple[Slot, ...] = ()
    recent: Events | None = None
    begun: int = 0


def step(tracker: Tracker, window: EventWindow, state: HandsState) -> tuple[HandsState, tuple[TrackResult, ...]]:
    """One window in; the hands that are tracked out, the oldest first, or a single lost one where there is none.

    Windows come in order of time and may be empty. There are at most `tracker.count` hands.
    """
    with part("slicing"):
        recent = recent_events(state.recent, window, tracker.estimator.input_config.longest_us)
        seen, calm = calmed(tracker, window, recent)
    slots, begun = list(state.slots) or [Slot()] * tracker.count, state.begun
    # Hands that are tracked go first, so that none is found anew by a slot that searches.
    for i in sorted(range(len(slots)), key=lambda i: (slots[i].hand is None, slots[i].id)):
        slots[i], begun = _slot_step(tracker, seen, calm, slots[i], [s for j, s in enumerate(slots) if j != i], begun)
    slots = _without_twins(slots, tracker.camera, window.end_us)
    found = [replace(s.hand, events=len(window.events)) for s in _by_age(slots) if s.hand is not None]
    nobody = replace(lost(window.end_us, TrackerState())[0], events=len(window.events))
    return HandsState(tuple(slots), recent, begun), tuple(found) or (nobody,)


def track_hands(
    tracker: Tracker, windows: Iterable[EventWindow], state: HandsState | None = None
) -> Iterator[tuple[EventWindow, tuple[TrackResult, ...]]]:
    """Run the step over windows, giving each window with its hands."""
    state = state or HandsState()
    for window in windows:
        state, hands = step(tracker, window, state)
        yield window, hands


def erased_box(hand: TrackResult, camera: Camera) -> CropBox:
    """What is left out of the events where others look for hands."""
    assert hand.joints_m is not None
    return joints_box(hand.joints_m, camera, ERASED)


def same_hand(a: TrackResult, b: TrackResult, camera: Camera) -> bool:
    """Whether two tracks have come to the same hand."""
    if a.joints_m is None or b.joints_m is None:
        return False
    near = np.linalg.norm(a.joints_m[0] - b.joints_m[0]) < SAME_M
    first, second = (joints_box(joints, camera, 1.0) for joints in (a.joints_m, b.joints_m))
    return bool(near and overlap(first, second) > SAME_OVERLAP)


def unlike_prior(tracker: Tracker, others: Sequence[Slot]) -> float:
    """Log odds that a hand is a right one, from the sides of the others: as strong as those are sure."""
    config, total = tracker.config.evidence, 0.0
    for slot in others:
        if slot.hand is not None and slot.state.follower is not None:
            known = slot.state.follower
            sure = min(1.0, abs(known.evidence.right) / config.bound)
            total += config.unlike * sure * (-1.0 if known.side == "right" else 1.0)
    return total


def _slot_step(
    tracker: Tracker, window: EventWindow, recent: Events, slot: Slot, others: Sequence[Slot], begun: int
) -> tuple[Slot, int]:
    """A step of one tracker in the events without the other hands; a new track gets the next id."""
    camera, state, own = tracker.camera, slot.state, slot.hand
    boxes = [erased_box(other.hand, camera) for other in others if other.hand is not None]
    if own is not None:
        boxes = [box for box in boxes if overlap(box, erased_box(own, camera)) <= CROSSING]
    if state.rival is not None and any(_at(state.rival.follower.joints_m, box, camera) for box in boxes):
        state = replace(state, rival=None)  # it has turned out to be the other hand
    seen, calm = window, recent
    if boxes:
        seen = replace(window, events=without_boxes(window.events, boxes, camera))
        calm = without_boxes(recent, boxes, camera)
    tracker = replace(tracker, right_prior=unlike_prior(tracker, others))
    _, after = step_seen(tracker, seen, calm, state)
    if after.last is None:
        return Slot(after), begun
    if after.begun == state.begun:
        return replace(slot, state=_named(after, slot.id)), begun
    return Slot(_named(after, begun + 1), begun + 1), begun + 1


def _named(state: TrackerState, id: int) -> TrackerState:
    """The state whose last hand bears the id of its slot; the events are kept once for all slots."""
    assert state.last is not None
    return replace(state, last=replace(state.last, id=id), recent=None)


def _at(joints_m: np.ndarray, box: CropBox, camera: Camera) -> bool:
    return overlap(joints_box(joints_m, camera, ERASED), box) > CROSSING


def _without_twins(slots: Sequence[Slot], camera: Camera, t_us: int) -> list[Slot]:
    """The slots, but for those that track a hand which an older or surer one tracks, too: these search again."""
    kept = list(slots)
    for i in range(len(kept)):
        for j in range(i):
            a, b = kept[i].hand, kept[j].hand
            if a is None or b is None or not same_hand(a, b, camera):
                continue
            first, second = (i, j) if kept[i].id < kept[j].id else (j, i)
            older, younger = kept[first].hand, kept[second].hand
            assert older is not None and younger is not None
            ends = first if younger.confidence > SURER * older.confidence else second
            kept[ends] = Slot(lost(t_us, kept[ends].state)[1])
    return kept


def _by_age(slots: Sequence[Slot]) -> list[Slot]:
    return sorted(slots, key=lambda slot: slot.id)
