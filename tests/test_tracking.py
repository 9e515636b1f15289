"""Laws of the tracker step, with networks that know the truth: what it follows, keeps, loses and finds again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from evhands.boxes import sensor_pixels
from evhands.geometry import default_camera, project
from evhands.hand.model import load_hand
from evhands.inputs import InputConfig
from evhands.smoothing import SmoothingConfig, smooth_pose
from evhands.track_files import collect, load_track, save_track, write_csv
from evhands.tracking import (
    Tracker,
    TrackerConfig,
    TrackerState,
    hand_joints,
    step,
    track_stream,
    track_windows,
)
from evhands.types import Camera, Events, EventWindow, HandPose, Prediction

SIZE = (200, 160)
CAMERA = default_camera(SIZE)
HAND = load_hand("open")
STRIDE = 33_333


def pose_at(x_m: float, z_m: float = 0.6) -> HandPose:
    upright = np.stack([[0, 1, 0], [0, 0, 1], [1, 0, 0]], axis=1).astype(float)
    orientation = Rotation.from_matrix(upright).as_rotvec()
    return HandPose("right", orientation, np.array([x_m, 0.07, z_m]), np.zeros((15, 3)), np.zeros(10), "open")


@dataclass(frozen=True)
class Found:
    centre_px: np.ndarray
    extent_px: float
    confidence: float = 0.9


@dataclass
class Oracle:
    """Knows the pose of every window; its memory counts the windows it was asked about."""

    poses: dict[int, HandPose]
    confidence: float = 0.8
    input_config: InputConfig = InputConfig(size_px=96, window_us=66_667, stride_us=STRIDE)

    def initial_state(self, batch: int) -> int:
        return 0

    def predict(self, window, camera, crop, state, side="right"):
        assert crop.size == (96, 96) and side == "right"
        return Prediction(self.poses[window.end_us], np.float32(self.confidence)), state + 1


@dataclass
class OracleDetector:
    poses: dict[int, HandPose]
    calls: int = 0

    def detect(self, window, camera):
        self.calls += 1
        if window.end_us not in self.poses:
            return ()
        pixels = project(hand_joints(HAND, self.poses[window.end_us]), camera.K)
        low, high = pixels.min(0), pixels.max(0)
        return (Found((low + high) / 2, float((high - low).max())),)


def window(index: int, pose: HandPose | None, count: int = 300, seed: int = 0) -> EventWindow:
    """A window that ends at (index + 2) strides, its events on the joints of the pose (none = noise-free)."""
    end = (index + 2) * STRIDE
    rng = np.random.default_rng(seed + index)
    if pose is None or count == 0:
        return EventWindow(Events.empty(SIZE), end - 66_667, end)
    joints = project(hand_joints(HAND, pose), CAMERA.K)[rng.integers(0, 21, count)] + rng.normal(0, 2, (count, 2))
    xy = np.clip(np.round(joints), 0, np.array(SIZE) - 1).astype(np.uint16)
    t = np.sort(rng.integers(end - 66_667, end, count))
    return EventWindow(Events(xy[:, 0], xy[:, 1], t, rng.random(count) < 0.5, SIZE), end - 66_667, end)


def scene(xs: list[float | None], counts: list[int] | None = None, **config):
    """Windows with the hand at these places (None = not there), and a tracker that knows them."""
    counts = counts or [300] * len(xs)
    poses = {(i + 2) * STRIDE: pose_at(x) for i, x in enumerate(xs) if x is not None}
    windows = [window(i, None if x is None else pose_at(x), c) for i, (x, c) in enumerate(zip(xs, counts, strict=True))]
    detector = OracleDetector(poses)
    settings = TrackerConfig(**{"smoothing": None, **config})
    return windows, Tracker(Oracle(poses), detector, HAND, CAMERA, settings), detector


def run(windows, tracker):
    return [result for _, result in track_windows(tracker, windows)]


def test_a_moving_hand_is_detected_once_and_then_followed() -> None:
    xs = list(np.linspace(-0.08, 0.08, 12))
    windows, tracker, detector = scene(xs)
    results = run(windows, tracker)
    assert [r.status for r in results] == ["moving"] * 12 and {r.id for r in results} == {1}
    assert detector.calls == len(results), "the detector anchors every lively window"
    for x, result in zip(xs, results, strict=True):
        np.testing.assert_allclose(result.joints_m, hand_joints(HAND, pose_at(x)), atol=1e-6)


@pytest.mark.parametrize(("every", "calls"), [(1, 12), (STRIDE, 12), (2 * STRIDE, 6), (5 * STRIDE, 3)])
def test_the_detector_looks_only_so_often_while_a_hand_is_tracked(every: int, calls: int) -> None:
    """At a high rate the detector would cost more than the pose; the track is the same without its every look."""
    xs = list(np.linspace(-0.03, 0.03, 12))
    windows, tracker, detector = scene(xs, detect_every_us=every)
    results = run(windows, tracker)
    # The first window of a track and the one after it are looked at in any case.
    assert detector.calls in (calls, calls + 1)
    assert [r.status for r in results] == ["moving"] * 12 and {r.id for r in results} == {1}


def test_a_lost_hand_is_looked_for_in_every_window() -> None:
    windows, tracker, detector = scene([0.0] * 8, detect_every_us=1_000_000)
    detector.poses = {window.end_us: pose_at(0.0) for window in windows[6:]}
    assert [r.status for r in run(windows, tracker)] == ["lost"] * 6 + ["moving"] * 2
    assert detector.calls >= 7


def test_the_crop_holds_the_hand_while_it_moves() -> None:
    xs = list(0.1 * np.sin(np.linspace(0, 6, 30)))
    windows, tracker, _ = scene(xs)
    for x, result in zip(xs, run(windows, tracker), strict=True):
        pixels = project(hand_joints(HAND, pose_at(x)), CAMERA.K)
        x0, y0, x1, y1 = result.box.corners()
        assert (pixels >= (x0, y0)).all() and (pixels <= (x1, y1)).all()


def test_a_still_hand_keeps_its_pose_and_only_its_confidence_fades() -> None:
    windows, tracker, detector = scene([0.02] * 90, [300] * 10 + [0] * 60 + [300] * 20)
    results = run(windows, tracker)
    held = results[10:70]
    assert all(r.status == "holding" and r.id == 1 for r in held) and detector.calls <= len(results) - len(held)
    assert all(np.array_equal(r.joints_m, results[9].joints_m) for r in held)
    confidence = [r.confidence for r in held]
    assert all(a > b for a, b in zip(confidence, confidence[1:], strict=False)) and confidence[-1] > 0
    assert all(r.status == "moving" and r.id == 1 for r in results[70:])
    assert held[-1].joint_confidence[0] == pytest.approx(held[-1].confidence)
    assert held[-1].joint_confidence[0] < results[9].joint_confidence[0]


def test_noise_alone_does_not_count_as_a_moving_hand() -> None:
    windows, tracker, _ = scene([0.02] * 8)
    rng = np.random.default_rng(0)
    count = 1500
    noisy = []
    for w in windows:
        x, y = (rng.integers(0, s, count).astype(np.uint16) for s in SIZE)
        noise = Events(x, y, np.sort(rng.integers(w.start_us, w.end_us, count)), rng.random(count) < 0.5, SIZE)
        noisy.append(EventWindow(noise, w.start_us, w.end_us))
    results = run([*windows[:4], *noisy[4:]], tracker)
    assert [r.status for r in results] == ["moving"] * 4 + ["holding"] * 4


def test_a_hand_that_leaves_the_image_is_lost_and_found_again() -> None:
    away = list(np.linspace(0.0, 0.4, 20))
    windows, tracker, detector = scene([*away, None, None, None, 0.0, 0.0])
    tracker.detector.poses = {t: p for t, p in detector.poses.items() if abs(p.wrist[0]) < 0.2}
    results = run(windows, tracker)
    assert [r.status for r in results[-5:]] == ["lost"] * 3 + ["moving"] * 2
    assert results[-4].pose is None and results[-4].confidence == 0.0 and results[-4].side is None
    assert [r.id for r in results[-5:]] == [0, 0, 0, 2, 2], "a new track has a new id"


def test_doubt_ends_a_track_only_after_a_while() -> None:
    windows, tracker, detector = scene([0.0] * 30, patience_us=300_000)
    results = run(windows[:10], tracker)
    assert results[-1].status == "moving"
    state = TrackerState()
    for w in windows[:10]:
        _, state = step(tracker, w, state)
    doubtful = replace(tracker, estimator=Oracle(tracker.estimator.poses, confidence=0.05))
    detector.poses = {}
    statuses = []
    for w in windows[10:]:
        result, state = step(doubtful, w, state)
        statuses.append(result.status)
    first_loss = statuses.index("lost")
    assert 8 <= first_loss <= 11 and set(statuses[first_loss:]) == {"lost"}


def test_a_held_track_moves_to_where_a_hand_makes_events() -> None:
    xs = [-0.12] * 10 + [0.14] * 40
    windows, tracker, _ = scene(xs)
    results = run(windows, tracker)
    assert results[10].status == "holding" and results[10].id == 1
    assert results[-1].status == "moving" and results[-1].id == 2
    np.testing.assert_allclose(results[-1].pose.wrist[0], 0.14)


@dataclass
class Nearsighted(Oracle):
    """Is right, and sure, only where the crop shows the hand; elsewhere it sees one in the middle, and doubts it."""

    def predict(self, window, camera, crop, state, side="right"):
        truth = self.poses[window.end_us]
        pixels = project(hand_joints(HAND, truth), crop.K)
        if ((pixels >= 0) & (pixels < 96)).all(axis=1).mean() > 0.5:
            return Prediction(truth, np.float32(0.4)), state + 1
        middle = (47.5 - crop.K[0, 2]) / crop.K[0, 0] * 0.6
        return Prediction(pose_at(middle), np.float32(0.15)), state + 1


@dataclass
class Scripted:
    """Sees hands where it is told to, in every window that is told of: (x, confidence) of each."""

    told: dict[int, list[tuple[float, float]]]
    scale: float = 1.0

    def detect(self, window, camera):
        found = []
        for x, confidence in self.told.get(window.end_us, []):
            pixels = project(hand_joints(HAND, pose_at(x)), camera.K)
            low, high = pixels.min(0), pixels.max(0)
            found.append(Found((low + high) / 2, self.scale * float((high - low).max()), confidence))
        return tuple(found)


def both(first: EventWindow, second: EventWindow) -> EventWindow:
    """The events of two windows of the same time."""
    x, y, t, p = (np.concatenate([getattr(w.events, n) for w in (first, second)]) for n in ("x", "y", "t_us", "p"))
    order = np.argsort(t, kind="stable")
    return EventWindow(Events(x[order], y[order], t[order], p[order], SIZE), first.start_us, first.end_us)


def cluttered(told: list[list[tuple[float, float]]], hand: float = 0.12, thing: float = -0.12):
    """Windows with a hand and a lively thing, and a tracker whose detector says what it is told."""
    ends = [(i + 2) * STRIDE for i in range(len(told))]
    windows = [both(window(i, pose_at(hand)), window(i, pose_at(thing), seed=99)) for i in range(len(told))]
    detector = Scripted(dict(zip(ends, told, strict=True)))
    estimator = Nearsighted(dict.fromkeys(ends, pose_at(hand)))
    return windows, Tracker(estimator, detector, HAND, CAMERA, TrackerConfig(smoothing=None))


def test_a_track_in_a_wrong_place_comes_to_the_hand_within_200_ms() -> None:
    windows, tracker = cluttered([[(-0.12, 0.9)]] * 3 + [[(0.12, 0.6), (-0.12, 0.3)]] * 6)
    results = run(windows, tracker)
    at_hand = [np.allclose(r.pose.wrist[0], 0.12) for r in results]
    assert not any(at_hand[:3]) and at_hand[-1]
    assert (at_hand.index(True) - 2) * STRIDE <= 200_000 and all(at_hand[at_hand.index(True) :])


def test_no_window_alone_moves_a_track() -> None:
    """As when a lamp flashes and the detector sees a hand in the background."""
    calm, flash = [(0.12, 0.9)], [(-0.12, 0.99)]
    windows, tracker = cluttered([calm] * 4 + [flash] + [calm] * 4)
    tracker = replace(tracker, estimator=Oracle(tracker.estimator.poses))  # as sure there as here
    for result in run(windows, tracker):
        assert abs(result.box.centre_px[0] - project(hand_joints(HAND, pose_at(0.12)), CAMERA.K)[:, 0].mean()) < 15


def test_a_crop_does_not_shrink_by_itself() -> None:
    """An unsure estimator sees every hand two thirds as large as it is, as when only a finger moves."""
    windows, tracker, detector = scene([0.0] * 30)
    small = {t: pose_at(0.0, 0.9) for t in detector.poses}
    results = run(windows, replace(tracker, estimator=Oracle(small, 0.2)))
    pixels = project(hand_joints(HAND, pose_at(0.0)), CAMERA.K)
    wanted = 1.7 * float((pixels.max(0) - pixels.min(0)).max())
    assert all(r.box.side_px > 0.8 * wanted for r in results)


def test_the_surer_of_two_places_starts_the_track() -> None:
    windows, tracker = cluttered([[(-0.12, 0.5), (0.12, 0.4)]])
    np.testing.assert_allclose(run(windows, tracker)[0].pose.wrist[0], 0.12)


def test_the_step_writes_into_nothing_and_repeats_itself() -> None:
    windows, tracker, _ = scene([0.0, 0.01, 0.02, 0.03])
    _, state = step(tracker, windows[0], TrackerState())
    first, _ = step(tracker, windows[1], state)
    again, _ = step(tracker, windows[1], state)
    np.testing.assert_array_equal(first.joints_m, again.joints_m)
    np.testing.assert_array_equal(first.box.corners(), again.box.corners())


@dataclass
class Stream:
    parts: list[Events]
    size: tuple[int, int] = SIZE

    def __iter__(self):
        return iter(self.parts)


@given(st.lists(st.integers(0, 1200), max_size=8))
@settings(max_examples=10)
def test_live_chunks_and_a_whole_file_give_the_same_poses(cuts: list[int]) -> None:
    parts = [window(i, pose_at(0.005 * i), 150).events.between((i + 1) * STRIDE, (i + 2) * STRIDE) for i in range(8)]
    events = Events.concatenate(parts)

    class Blind(Oracle):
        def predict(self, window, camera, crop, state, side="right"):
            mean = (float(window.events.x.mean()) - CAMERA.K[0, 2]) * 0.6 / CAMERA.K[0, 0]
            return Prediction(pose_at(mean), np.float32(0.8)), state + 1

    class Centre:
        def detect(self, window, camera):
            return (Found(np.array([window.events.x.mean(), window.events.y.mean()]), 60.0),)

    tracker = Tracker(Blind({}), Centre(), HAND, CAMERA)
    edges = [0, *sorted(min(c, len(events)) for c in cuts), len(events)]
    chunks = [events[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    whole = [r for _, r in track_stream(tracker, Stream([events]))]
    live = [r for _, r in track_stream(tracker, Stream(chunks))]
    assert [r.t_us for r in whole] == [r.t_us for r in live] and len(whole) >= 4
    for a, b in zip(whole, live, strict=True):
        np.testing.assert_array_equal(a.joints_m, b.joints_m)


def test_no_window_is_cut_short_by_the_end_of_the_stream() -> None:
    events = Events.concatenate([window(2 * i, pose_at(0.0)).events for i in range(4)])
    poses = {int(events.t_us[0]) + 66_667 + i * STRIDE: pose_at(0.0) for i in range(20)}
    tracker = Tracker(Oracle(poses), OracleDetector(poses), HAND, CAMERA)
    windows = [w for w, _ in track_stream(tracker, Stream([events]))]
    assert windows[-1].end_us <= events.t_us[-1] + 1 < windows[-1].end_us + STRIDE


@given(st.floats(0.5, 20), st.floats(5, 200))
def test_smoothing_leaves_a_still_pose_alone_and_stays_between_old_and_new(cutoff: float, rate: float) -> None:
    config = SmoothingConfig(rotation_cutoff_hz=cutoff, position_cutoff_hz=cutoff)
    still, state = smooth_pose(pose_at(0.0), 0, None, config)
    same, state = smooth_pose(pose_at(0.0), int(1e6 / rate), state, config)
    np.testing.assert_allclose(same.wrist, still.wrist, atol=1e-9)
    np.testing.assert_allclose(same.orientation, still.orientation, atol=1e-9)
    moved, _ = smooth_pose(pose_at(0.1), int(2e6 / rate), state, config)
    assert 0 < moved.wrist[0] < 0.1


def test_smoothing_takes_the_short_way_around() -> None:
    near_pi = [replace(pose_at(0.0), orientation=np.array([0.0, 0.0, s * 3.1])) for s in (1, -1)]
    _, state = smooth_pose(near_pi[0], 0, None, SmoothingConfig())
    between, _ = smooth_pose(near_pi[1], STRIDE, state, SmoothingConfig())
    assert np.linalg.norm(between.orientation) > 3.0


def test_a_track_survives_its_file(tmp_path) -> None:
    windows, tracker, _ = scene([None, 0.0, 0.01, 0.02])
    track = collect(run(windows, tracker), tracker, "oracle", 1.0)
    save_track(track, tmp_path / "poses.npz")
    again = load_track(tmp_path / "poses.npz")
    for name in ("t_us", "joints_m", "joints_px", "orientation", "confidence", "tracked", "status", "boxes_px"):
        np.testing.assert_array_equal(getattr(again, name), getattr(track, name))
    assert not track.tracked[0] and np.isnan(track.joints_m[0]).all() and track.tracked[1:].all()
    write_csv(track, tmp_path / "poses.csv")
    rows = (tmp_path / "poses.csv").read_text().splitlines()
    assert len(rows) == 5 and rows[0].startswith("t_us,confidence,wrist_x,wrist_y") and rows[0].count(",") == 64
    np.testing.assert_allclose([float(v) for v in rows[2].split(",")[2:5]], track.joints_m[1, 0], atol=1e-6)


def test_joints_at_hits_the_poses_and_lies_between_them() -> None:
    windows, tracker, _ = scene([0.0, 0.02, 0.04])
    track = collect(run(windows, tracker), tracker, "oracle")
    np.testing.assert_allclose(track.joints_at(track.t_us), track.joints_m, atol=1e-6)
    middle = track.joints_at((track.t_us[:-1] + track.t_us[1:]) // 2)
    np.testing.assert_allclose(middle, (track.joints_m[:-1] + track.joints_m[1:]) / 2, atol=1e-5)
    ends = track.joints_at(np.array([-(10**9), 10**9]))
    np.testing.assert_allclose(ends, track.joints_m[[0, -1]], atol=1e-6)


def test_sensor_pixels_bend_with_the_lens() -> None:
    lens = Camera(CAMERA.K, SIZE, np.array([-0.3, 0.1, 0.0, 0.0]))
    joints = hand_joints(HAND, pose_at(0.1))
    straight, bent = sensor_pixels(joints, CAMERA), sensor_pixels(joints, lens)
    centre = CAMERA.K[:2, 2]
    assert (np.linalg.norm(bent - centre, axis=1) < np.linalg.norm(straight - centre, axis=1)).all()


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_is_found_where_there_are_no_events(count: int) -> None:
    windows, tracker, detector = scene([0.0] * 3, [count] * 3)
    results = run(windows, tracker)
    assert all(r.status == "lost" and not r.tracked for r in results) and detector.calls == 0
