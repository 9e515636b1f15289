"""Laws of several hands, with networks that know the truth: ids, sides, crossing hands, twins, how a track ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from evhands.boxes import CropBox, inside, without_boxes
from evhands.evidence import Evidence, EvidenceConfig
from evhands.geometry import project
from evhands.hands import HandsState, Slot, same_hand, step, track_hands, unlike_prior
from evhands.models.estimator import mirrored
from evhands.track_files import collect, draw_hands, load_track, save_track, summarise, write_csv
from evhands.tracking import Tracker, TrackerConfig, TrackerState, hand_joints, track_windows
from evhands.types import EventWindow, HandPose, Prediction
from test_tracking import CAMERA, HAND, SIZE, STRIDE, Found, Oracle, both, pose_at, scene, window

LEFT = HAND.mirrored()
Truth = dict[int, list[HandPose]]


def left_at(x_m: float, z_m: float = 0.6) -> HandPose:
    return mirrored(pose_at(-x_m, z_m))


def joints(pose: HandPose) -> np.ndarray:
    return hand_joints(HAND if pose.side == "right" else LEFT, pose)


def box_of(pose: HandPose) -> tuple[np.ndarray, float]:
    pixels = project(joints(pose), CAMERA.K)
    low, high = pixels.min(0), pixels.max(0)
    return (low + high) / 2, float((high - low).max())


def nearest(poses: list[HandPose], centre_px: np.ndarray) -> HandPose | None:
    """The hand at a place, if one is there."""
    far = [np.linalg.norm(box_of(p)[0] - centre_px) for p in poses]
    return poses[int(np.argmin(far))] if far and min(far) < 25 else None


@dataclass(frozen=True)
class Seen:
    right: float
    left: float
    nothing: float


@dataclass
class Networks:
    """Estimator, detector and recogniser that know all hands: the estimator gives the hand at the crop, told the side
    that it is asked for; the detector sees only hands with events; the recogniser is right unless told what to say."""

    truth: Truth
    said: Seen | None = None
    looks: int = 0
    memories: tuple[str, ...] = ()
    input_config = Oracle.input_config

    def initial_state(self, batch: int) -> int:
        return 0

    def predict(self, window, camera, crop, state, side="right"):
        pose = nearest(self.truth[window.end_us], self._centre(crop))
        self.memories += (f"{side}{state}",)
        if pose is None:
            return Prediction(pose_at(0.0) if side == "right" else left_at(0.0), np.float32(0.02)), state + 1
        return Prediction(pose if pose.side == side else mirrored_in_place(pose), np.float32(0.8)), state + 1

    def detect(self, window, camera):
        seen = []
        for pose in self.truth[window.end_us]:
            centre, extent = box_of(pose)
            if inside(window.events, CropBox(centre, extent), camera).sum() > 60:
                seen.append((centre, extent))
        return tuple(Found(centre, extent, 0.9 / len(seen)) for centre, extent in seen)

    def recognise(self, window, camera, crop):
        assert crop.size == (96, 96)
        self.looks += 1
        pose = nearest(self.truth[window.end_us], self._centre(crop))
        if self.said is not None:
            return self.said
        if pose is None:
            return Seen(0.02, 0.03, 0.95)
        return Seen(0.9, 0.05, 0.05) if pose.side == "right" else Seen(0.05, 0.9, 0.05)

    @staticmethod
    def _centre(crop) -> np.ndarray:
        scale = CAMERA.K[0, 0] / crop.K[0, 0]
        return CAMERA.K[:2, 2] + (47.5 - crop.K[:2, 2]) * scale


def mirrored_in_place(pose: HandPose) -> HandPose:
    """A hand of the other side with the same wrist."""
    if pose.side == "right":
        return left_at(float(pose.wrist[0]), float(pose.wrist[2]))
    return pose_at(float(pose.wrist[0]), float(pose.wrist[2]))


def many(poses_of: list[list[HandPose]], count: int = 2, said: Seen | None = None, sides: bool = True, **config):
    """Windows with these hands, and a tracker that knows them."""
    truth = {(i + 2) * STRIDE: poses for i, poses in enumerate(poses_of)}
    windows = []
    for i, poses in enumerate(poses_of):
        made = window(i, None)
        for k, pose in enumerate(poses):
            made = both(made, hand_window(i, pose, seed=100 * k))
        windows.append(made)
    networks = Networks(truth, said)
    tracker = Tracker(
        networks, networks, HAND, CAMERA, TrackerConfig(**{"smoothing": None, "flashes": None, **config}),
        networks if sides else None, LEFT if sides else None, count,
    )  # fmt: skip
    return windows, tracker, networks


def hand_window(index: int, pose: HandPose, seed: int) -> EventWindow:
    """As `window`, of a hand of either side."""
    if pose.side == "right":
        return window(index, pose, seed=seed)
    own = window(index, replace(mirrored(pose), side="right"), seed=seed)
    flipped = (2 * CAMERA.K[0, 2] - own.events.x.astype(float)).round().clip(0, SIZE[0] - 1).astype(np.uint16)
    return replace(own, events=replace(own.events, x=flipped))


def run(windows, tracker):
    return [hands for _, hands in track_hands(tracker, windows)]


def test_without_boxes_keeps_what_lies_outside_in_its_order() -> None:
    events = window(0, pose_at(0.0), 500).events
    boxes = [CropBox(np.array([100.0, 80.0]), 30.0), CropBox(np.array([70.0, 90.0]), 20.0)]
    kept = without_boxes(events, boxes, CAMERA)
    outside = ~(inside(events, boxes[0], CAMERA) | inside(events, boxes[1], CAMERA))
    np.testing.assert_array_equal(kept.t_us, events.t_us[outside])
    assert without_boxes(events, [], CAMERA) is events
    again = without_boxes(without_boxes(events, boxes[:1], CAMERA), boxes[1:], CAMERA)
    np.testing.assert_array_equal(again.x, kept.x)


def test_one_slot_is_the_tracker_of_one_hand() -> None:
    windows, tracker, _ = scene([None, -0.05, -0.03, 0.0, 0.02, None, 0.05], [300, 300, 300, 0, 300, 0, 300])
    alone = [result for _, result in track_windows(tracker, windows)]
    for result, (hand,) in zip(alone, run(windows, tracker), strict=True):
        assert (hand.t_us, hand.status, hand.id, hand.events) == (result.t_us, result.status, result.id, result.events)
        assert hand.confidence == result.confidence
        if result.joints_m is not None:
            np.testing.assert_array_equal(hand.joints_m, result.joints_m)


def test_two_hands_are_found_with_their_sides_and_keep_their_ids() -> None:
    poses = [[pose_at(-0.12 + 0.002 * i), left_at(0.12 - 0.001 * i)] for i in range(20)]
    windows, tracker, networks = many(poses)
    results = run(windows, tracker)
    assert all(len(hands) == 2 for hands in results)
    sides = {hand.id: hand.side for hand in results[0]}
    assert sorted(sides) == [1, 2] and sorted(sides.values()) == ["left", "right"]
    for truth, hands in zip(poses, results, strict=True):
        assert {hand.id: hand.side for hand in hands} == sides
        for hand in hands:
            pose = truth[0] if hand.side == "right" else truth[1]
            np.testing.assert_allclose(hand.joints_m, joints(pose), atol=1e-6)
    assert networks.looks < 2 * len(windows), "what is sure is not looked at in every window"


def test_a_hand_that_leaves_and_comes_back_has_a_new_id_and_the_other_keeps_its_own() -> None:
    stays = pose_at(-0.12)
    goes = [left_at(0.1 + 0.05 * i) for i in range(8)]
    windows, tracker, _ = many([[stays, p] for p in goes] + [[stays]] * 6 + [[stays, left_at(0.1)]] * 4)
    results = run(windows, tracker)
    kept = {hand.id for hands in results for hand in hands if hand.side == "right"}
    gone = [hand.id for hands in results for hand in hands if hand.side == "left"]
    assert len(kept) == 1 and gone == sorted(gone) and gone[-1] > gone[0]
    assert len(results[12]) == 1 and len(results[-1]) == 2


def test_two_people_may_show_two_right_hands() -> None:
    windows, tracker, _ = many([[pose_at(-0.12), pose_at(0.12)]] * 12)
    assert [hand.side for hand in run(windows, tracker)[-1]] == ["right", "right"]


def test_with_no_evidence_the_hands_are_of_unlike_sides_once_one_is_sure() -> None:
    follower = track_one(pose_at(0.0))
    sure = Slot(replace(follower, follower=replace(follower.follower, evidence=Evidence(6.0, 6.0))), 1)
    unsure = replace(sure, state=replace(sure.state, follower=replace(follower.follower, evidence=Evidence())))
    _, tracker, _ = many([[]])
    assert unlike_prior(tracker, [sure]) == -tracker.config.evidence.unlike
    assert unlike_prior(tracker, [unsure]) == 0.0 == unlike_prior(tracker, [Slot()])
    left = replace(sure, state=replace(sure.state, follower=replace(sure.state.follower, side="left")))
    assert unlike_prior(tracker, [left]) == tracker.config.evidence.unlike


def track_one(pose: HandPose) -> TrackerState:
    windows, tracker, _ = many([[pose]], count=1)
    state, _ = step(tracker, windows[0], HandsState())
    return state.slots[0].state


def test_crossing_hands_do_not_vanish() -> None:
    """One passes in front of the other."""
    xs = np.linspace(-0.1, 0.1, 40)
    poses = [[pose_at(x, 0.5), left_at(-x, 0.75)] for x in xs]
    windows, tracker, _ = many(poses)
    results = run(windows, tracker)
    assert all(hands[0].tracked for hands in results)
    assert len(results[0]) == 2 and len(results[-1]) == 2
    assert {hand.side for hand in results[-1]} == {"left", "right"}


def test_two_tracks_of_one_hand_become_one() -> None:
    windows, tracker, _ = many([[pose_at(0.0)]] * 3)
    state, (hand,) = step(tracker, windows[0], HandsState())
    slot = next(s for s in state.slots if s.hand is not None)
    twin = Slot(replace(slot.state, last=replace(slot.state.last, id=7)), 7)
    state, hands = step(tracker, windows[1], replace(state, slots=(twin, slot), begun=7))
    assert [h.id for h in hands] == [hand.id], "the older one stays"
    assert same_hand(hand, replace(hand, id=9), CAMERA)
    away = replace(hand, joints_m=hand.joints_m + (0, 0, 0.1))
    assert not same_hand(hand, away, CAMERA), "one hand behind the other is another hand"


def test_a_place_without_a_hand_starts_no_track() -> None:
    windows, tracker, networks = many([[pose_at(0.0)]] * 5, said=Seen(0.1, 0.1, 0.8))
    assert all(hands[0].status == "lost" for hands in run(windows, tracker)) and networks.memories == ()
    believes = replace(tracker, recogniser=None)
    assert all(hands[0].status == "moving" for hands in run(windows, believes))


def test_a_track_ends_when_nothing_is_seen_for_long_enough_not_in_one_window() -> None:
    windows, tracker, networks = many([[pose_at(0.0)]] * 40, count=1)
    state, statuses = HandsState(), []
    for i, w in enumerate(windows):
        networks.said = Seen(0.02, 0.02, 0.96) if i == 10 or i >= 20 else None
        state, (hand,) = step(tracker, w, state)
        statuses.append(hand.status)
    lost = statuses.index("lost")
    assert 22 <= lost <= 36 and set(statuses[lost:]) == {"lost"}


def test_a_wrong_side_is_put_right_once_and_the_memory_begins_anew() -> None:
    windows, tracker, networks = many([[pose_at(0.0)]] * 40, count=1)
    state, sides = HandsState(), []
    for i, w in enumerate(windows):
        networks.said = Seen(0.3, 0.65, 0.05) if i < 3 else None
        state, (hand,) = step(tracker, w, state)
        sides.append(hand.side)
        assert hand.id == 1
    change = sides.index("right")
    assert 3 < change < 12 and set(sides[:change]) == {"left"} and set(sides[change:]) == {"right"}
    asked = [m for m in networks.memories if m.startswith("right")]
    assert asked[0] == "right0" and asked[1] == "right1"


def test_a_side_is_not_changed_by_what_is_unsure() -> None:
    windows, tracker, networks = many([[pose_at(0.0)]] * 60, count=1)
    state, sides, rng = HandsState(), [], np.random.default_rng(0)
    for i, w in enumerate(windows):
        tilt = rng.normal(0, 0.25) if i else 0.2
        networks.said = Seen(0.45 * (1 + np.tanh(tilt)), 0.45 * (1 - np.tanh(tilt)), 0.1)
        state, (hand,) = step(tracker, w, state)
        sides.append(hand.side)
    assert sum(a != b for a, b in zip(sides, sides[1:], strict=False)) <= 1


@pytest.mark.parametrize("right", [0.999, 0.001])
def test_evidence_is_bounded_and_a_window_says_no_more_than_its_share(right: float) -> None:
    config, known = EvidenceConfig(), Evidence()
    seen = Seen(right * 0.99, (1 - right) * 0.99, 0.01)
    once = known.with_look(seen, config)
    assert once.hand == config.most_gain and abs(once.right) == config.most_gain
    for _ in range(50):
        known = known.with_look(seen, config)
    assert known.hand == config.bound and abs(known.right) == config.bound
    assert np.sign(known.right) == np.sign(right - 0.5)
    mirrored_look = Evidence().with_look(Seen(seen.left, seen.right, seen.nothing), config)
    assert mirrored_look.right == pytest.approx(-once.right)


def test_the_step_writes_into_nothing_and_repeats_itself() -> None:
    windows, tracker, _ = many([[pose_at(-0.12), left_at(0.12)]] * 4)
    state = HandsState()
    for w in windows[:3]:
        state, _ = step(tracker, w, state)
    _, first = step(tracker, windows[3], state)
    _, again = step(tracker, windows[3], state)
    for a, b in zip(first, again, strict=True):
        assert (a.id, a.side, a.confidence) == (b.id, b.side, b.confidence)
        np.testing.assert_array_equal(a.joints_m, b.joints_m)


def two_tracked():
    windows, tracker, _ = many([[], [], *[[pose_at(-0.12 + 0.002 * i), left_at(0.12)] for i in range(8)]])
    return windows, tracker, run(windows, tracker)


def test_a_track_of_several_hands_survives_its_file_and_falls_into_hands(tmp_path) -> None:
    _, tracker, results = two_tracked()
    track = collect([hand for hands in results for hand in hands], tracker, "known", 1.0)
    save_track(track, tmp_path / "poses.npz")
    again = load_track(tmp_path / "poses.npz")
    for name in ("t_us", "id", "sides", "joints_m", "joint_confidence", "status", "tracked"):
        np.testing.assert_array_equal(getattr(again, name), getattr(track, name))
    assert (len(track), track.windows, track.ids, track.side) == (18, 10, (1, 2), "both")
    for id in track.ids:
        hand = again.hand(id)
        assert len(hand) == 8 and hand.pose.side == hand.side and (hand.id == id).all()
        wanted = joints(pose_at(-0.12 + 0.002 * 7) if hand.side == "right" else left_at(0.12))
        np.testing.assert_allclose(hand.joints_m[-1], wanted, atol=1e-6)
    assert {again.hand(id).side for id in again.ids} == {"left", "right"}
    with pytest.raises(ValueError, match="both sides"):
        _ = track.pose
    told = summarise(track)
    assert told["windows"] == 10 and told["tracked_share"] == 0.8
    assert [(h["id"], h["windows"]) for h in told["hands"]] == [(1, 8), (2, 8)]


def test_a_hand_of_a_track_has_a_pose_at_any_time() -> None:
    _, tracker, results = two_tracked()
    track = collect([hand for hands in results for hand in hands], tracker, "known")
    hand = next(track.hand(id) for id in track.ids if track.hand(id).side == "right")
    halfway = (int(hand.t_us[2]) + int(hand.t_us[3])) // 2
    np.testing.assert_allclose(hand.pose_at(halfway).wrist[0], -0.12 + 0.002 * 2.5, atol=1e-6)
    np.testing.assert_allclose(hand.pose_at(int(hand.t_us[-1]) + STRIDE).wrist[0], -0.12 + 0.002 * 8, atol=1e-6)
    assert collect([], tracker, "known").pose_at(0) is None


def test_the_csv_names_hands_only_where_a_window_has_several(tmp_path) -> None:
    _, tracker, results = two_tracked()
    write_csv(collect([hand for hands in results for hand in hands], tracker, "known"), tmp_path / "several.csv")
    rows = [row.split(",") for row in (tmp_path / "several.csv").read_text().splitlines()]
    assert rows[0][:4] == ["t_us", "id", "side", "confidence"] and len(rows) == 19
    assert rows[1][1:3] == ["0", ""] and {tuple(row[1:3]) for row in rows[3:]} == {("1", "right"), ("2", "left")}
    write_csv(collect([hands[0] for hands in results], tracker, "known"), tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text().startswith("t_us,confidence,wrist_x")


def test_the_picture_shows_both_hands() -> None:
    windows, tracker, results = two_tracked()
    both_drawn = draw_hands(windows[-1], results[-1], tracker).astype(int)
    alone = [draw_hands(windows[-1], results[-1][k : k + 1], tracker).astype(int) for k in (0, 1)]
    scale = both_drawn.shape[0] // SIZE[1]
    for shown, hidden, hand in zip(alone, reversed(alone), results[-1], strict=True):
        u, v = (scale * project(hand.joints_m, CAMERA.K)[9]).round().astype(int)
        place = np.s_[v - 3 : v + 4, u - 3 : u + 4]
        assert np.abs(both_drawn[place] - shown[place]).mean() < 3 < np.abs(both_drawn[place] - hidden[place]).mean()
