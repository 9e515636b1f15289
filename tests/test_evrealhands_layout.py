"""The EvRealHands layout: recordings go through it and come back, its own formulas hold, and what is wrong is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from conftest import shared_path
from event_recordings import Replay, input_error_at_worst, same, some_events
from evhands import evrealhands_layout as layout
from evhands.boxes import sensor_pixels
from evhands.geometry import distort_points, project
from evhands.hand.model import load_hand, mirror_model, pose_hand
from evhands.hand.skeleton import permutation
from evhands.recording import Recording, Rectification, Tags, View, read_recording, write_recording
from evhands.sim.generate import ClipConfig, simulate_clip
from evhands.types import Camera, Events, HandPose, InputError

SIZE = (346, 260)
PERIOD_US = 1e6 / 15


def _joints(pose: HandPose, hand_name: str = "open") -> np.ndarray:
    model = replace(load_hand("open", pose.side), name=hand_name)
    with torch.no_grad():
        return pose_hand(model, pose).joints().numpy()


def _transform(rng: np.random.Generator) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.uniform(-2, 2, 3)
    return T


def a_recording(
    seed: int, *, side: str = "right", m: int = 3, lens: int = 5, offset_us: int = 41_234, fast: bool = False,
    start_us: int = 1_655_000_000_000_000, posed: bool = True,
) -> Recording:  # fmt: skip
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal((m, *shape))).astype(np.float32)

    wrist = normal(3, scale=0.1) + np.array([0, 0, 0.6], np.float32)
    pose = HandPose(side, normal(3), wrist, normal(15, 3, scale=0.3), normal(10), "open")
    joints_m = _joints(pose)
    K = np.array([[rng.uniform(250, 350), 0, 171.3], [0, rng.uniform(250, 350), 131.8], [0, 0, 1]])
    distortion = rng.uniform(-1, 1, lens) * np.array([0.2, 0.1, 1e-3, 1e-3, 0.05] + [0.01] * 9)[:lens]
    camera = Camera(K, SIZE, distortion, _transform(rng))
    steps = np.cumsum(rng.integers(1, 4, m)) - 1
    events = some_events(200, seed, SIZE, 1_000_000, start_us)
    return Recording(
        stream=Replay(events, 64),
        camera=camera,
        pose_t_us=events.t_us[0] + offset_us + np.round(steps * PERIOD_US).astype(np.int64),
        pose=pose if posed else None,
        joints_m=joints_m,
        boxes_px=np.float32(rng.uniform(0, 300, (m, 4))),
        meta={},
        tags=Tags(side=side, subject="7", scene="flash", fast=fast, gesture="random", checked=True),
    )


def _same_hands(a: HandPose, b: HandPose) -> None:
    assert (a.side, a.hand_model) == (b.side, b.hand_model)
    turns = [Rotation.from_rotvec(np.float64(pose.orientation)) for pose in (a, b)]
    assert np.rad2deg((turns[0].inv() * turns[1]).magnitude()).max() < 1e-3
    for name in ("wrist", "joints", "shape"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-6)
    assert np.abs(_joints(a, a.hand_model) - _joints(b, b.hand_model)).max() < 1e-5  # 0.01 mm


def _same_recording(found: Recording, wanted: Recording) -> None:
    assert same(Events.concatenate(list(found.stream), SIZE), Events.concatenate(list(wanted.stream), SIZE))
    assert found.pose is not None and wanted.pose is not None
    _same_hands(found.pose, wanted.pose)
    assert np.abs(found.pose_t_us - wanted.pose_t_us).max() <= 1
    assert np.abs(found.joints_m - wanted.joints_m).max() < 1e-5
    assert np.abs(found.boxes_px - wanted.boxes_px).max() < 0.01
    np.testing.assert_array_equal(found.camera.K, wanted.camera.K)
    np.testing.assert_allclose(found.camera.T_camera_world, wanted.camera.T_camera_world, atol=1e-9)
    assert (found.camera.size, found.tags) == (wanted.camera.size, wanted.tags)


# --- round trips ----------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    seed=st.integers(0, 1 << 30),
    side=st.sampled_from(["right", "left"]),
    m=st.integers(1, 4),
    lens=st.sampled_from([0, 4, 5, 8, 12, 14]),
    offset_us=st.integers(-300_000, 900_000),
    fast=st.booleans(),
)
def test_a_recording_comes_back_from_the_layout(
    tmp_path_factory, seed: int, side: str, m: int, lens: int, offset_us: int, fast: bool
) -> None:
    wanted = a_recording(seed, side=side, m=m, lens=lens, offset_us=offset_us, fast=fast)
    folder = tmp_path_factory.mktemp("set")
    layout.write_sequence(folder / "0", wanted)
    found = layout.read_sequence(folder / "0", evaluation=True)
    _same_recording(found, wanted)
    np.testing.assert_array_equal(found.camera.distortion, wanted.camera.distortion if lens else np.zeros(5))
    seen = np.isfinite(found.joints_px).all((1, 2))
    np.testing.assert_array_equal(seen, (wanted.joints_m[..., 2] > 0).all(1))
    expected = sensor_pixels(wanted.joints_m.astype(np.float64), wanted.camera)
    np.testing.assert_allclose(found.joints_px[seen], expected[seen], rtol=1e-4, atol=0.01)
    layout.write_sequence(folder / "1", found)
    again = layout.read_sequence(folder / "1", evaluation=True)
    _same_recording(again, wanted)
    np.testing.assert_array_equal(again.joints_px, found.joints_px)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_simulated_clip_comes_back_from_the_layout(tmp_path: Path, side: str) -> None:
    config = ClipConfig(duration_us=150_000, label_rate_hz=30.0, side=side, size=(86, 64), focal_px=80.0)
    clip = simulate_clip(config, 3, 1)
    tags = Tags(
        side=side, subject=str(clip.meta["subject"]), scene="normal", fast=False, gesture="random", checked=True
    )
    recording = Recording(
        Replay(clip.events), clip.camera, clip.label_t_us, clip.pose, clip.joints_m, clip.boxes_px, clip.meta, tags=tags
    )
    with pytest.raises(InputError, match="on_layout_clock"):
        layout.write_sequence(tmp_path / "0", recording)
    thinned = layout.on_layout_clock(recording)
    np.testing.assert_array_equal(thinned.pose_t_us, clip.label_t_us[::2])
    layout.write_sequence(tmp_path / "0", thinned)
    found = layout.read_sequence(tmp_path / "0")
    assert same(found.events, clip.events)
    assert found.pose_t_us is not None and np.abs(found.pose_t_us - clip.label_t_us[::2]).max() <= 1
    _same_hands(found.pose, thinned.pose)
    assert np.abs(found.joints_m - clip.joints_m[::2]).max() < 1e-5
    assert np.abs(found.joints_px - clip.joints_px[::2]).max() < 0.01
    assert np.abs(found.boxes_px - clip.boxes_px[::2]).max() < 0.01
    assert found.tags == tags
    np.testing.assert_array_equal(found.camera.T_camera_world, np.eye(4))


def _with_views(recording: Recording, rng: np.random.Generator) -> tuple[Recording, np.ndarray]:
    image = np.full((46, 53, 3), 90, np.uint8)
    image[10:30, 20:40] = [200, 40, 60]
    times = recording.pose_t_us[0] + np.round(np.array([-2, 0, 1]) * PERIOD_US).astype(np.int64)
    jpeg, png = layout.encoded(image, "JPEG"), layout.encoded(image)
    T_rgb_event = np.eye(4)
    T_rgb_event[:3, :3], T_rgb_event[0, 3] = Rotation.from_rotvec([0, 0.1, 0]).as_matrix(), 0.05
    camera = Camera(np.array([[60.0, 0, 26], [0, 60, 23], [0, 0, 1]]), (53, 46), np.zeros(0),
                    T_rgb_event @ recording.camera.T_camera_world)  # fmt: skip
    still = View("21320029", replace(camera, size=(30, 20)))
    return replace(recording, views=(View("21320028", camera, times, (jpeg, png, jpeg)), still)), image


def test_frames_and_other_cameras_come_back(tmp_path: Path) -> None:
    wanted, image = _with_views(a_recording(5), np.random.default_rng(0))
    layout.write_sequence(tmp_path / "0", wanted)
    names = sorted(path.name for path in (tmp_path / "0" / "images" / "21320028").iterdir())
    assert names == ["image0000.jpg", "image0002.jpg", "image0003.jpg"]
    found = layout.read_sequence(tmp_path / "0")
    _same_recording(found, wanted)
    for view, expected in zip(found.views, wanted.views):
        assert (view.name, view.camera.size, len(view.frames)) == (
            expected.name, expected.camera.size, len(expected.frames))  # fmt: skip
        np.testing.assert_allclose(view.camera.T_camera_world, expected.camera.T_camera_world, atol=1e-9)
        assert np.abs(view.frames_t_us - expected.frames_t_us).max(initial=0) <= 1
    assert found.views[0].frames[0] == wanted.views[0].frames[0]  # a JPEG is copied, not encoded anew
    for frame in found.views[0].frames:
        assert np.abs(layout.decoded(frame).astype(int) - image).mean() < 4
    content = json.loads((tmp_path / "0" / "annot.json").read_text())
    world = np.array(content["3d_joints"]["2"]) / 1000
    T = wanted.views[0].camera.T_camera_world
    pixels = project(world @ T[:3, :3].T + T[:3, 3], wanted.views[0].camera.K)
    if content["2d_joints"]["21320028"]["2"]:
        np.testing.assert_allclose(content["2d_joints"]["21320028"]["2"], pixels, atol=0.01)
    assert content["frames"] == {"21320028": [0, 2, 3], "21320029": []}


def test_ids_and_their_clock_survive(tmp_path: Path) -> None:
    """A sequence whose labels begin at id 20 is written with the ids it was read with."""
    layout.write_sequence(tmp_path / "0", replace(a_recording(8), meta={"first_id": 20}))
    layout.write_sequence(tmp_path / "1", layout.read_sequence(tmp_path / "0"))
    first, second = (layout.read_annotations(tmp_path / name / "annot.json") for name in "01")
    assert min(first.manos) == 20
    assert list(first.manos) == list(second.manos)
    assert abs(first.delta_time - second.delta_time) <= 1


def test_a_recording_with_everything_is_kept_on_disk(tmp_path: Path) -> None:
    wanted, _ = _with_views(a_recording(6), np.random.default_rng(0))
    missing = np.float32(np.random.default_rng(1).uniform(0, 200, (3, 21, 2)))
    missing[1] = np.nan
    matrices = Rectification(wanted.camera.K + np.diag([1, 2, 0]), wanted.camera.K + np.diag([3, 1, 0]))
    wanted = replace(wanted, joints_px=missing, rectification=matrices)
    fields = {k: v for k, v in vars(wanted).items() if k not in ("stream", "camera")}
    write_recording(tmp_path / "a.h5", iter(wanted.stream), wanted.camera, **fields)
    found = read_recording(tmp_path / "a.h5")
    _same_recording(found, wanted)
    np.testing.assert_array_equal(found.joints_px, missing)
    np.testing.assert_array_equal(found.rectification.K_points, matrices.K_points)
    np.testing.assert_array_equal(found.rectification.K_image, matrices.K_image)
    for view, expected in zip(found.views, wanted.views):
        assert (view.name, view.camera.size, tuple(view.frames)) == (
            expected.name, expected.camera.size, tuple(expected.frames))  # fmt: skip
        np.testing.assert_array_equal(view.frames_t_us, expected.frames_t_us)
    layout.write_sequence(tmp_path / "0", found)
    again = layout.read_sequence(tmp_path / "0")
    np.testing.assert_array_equal(again.rectification.K_image, matrices.K_image)
    np.testing.assert_array_equal(again.joints_px, missing)


# --- the layout's own formulas --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_published_formulas_hold_for_what_is_written(tmp_path: Path, side: str) -> None:
    """R' = R_cam R and trans' = R_cam (trans + J0) + t_cam - J0 give a right hand; of a left one its mirror image."""
    recording = a_recording(11, side=side)
    layout.write_sequence(tmp_path / "0", recording)
    content = json.loads((tmp_path / "0" / "annot.json").read_text())
    camera = content["camera_info"]["event"]
    R, t = np.array(camera["R"]), np.array(camera["T"]) / 1000
    right, mirror = load_hand("open", "right"), [-1, 1, 1] if side == "left" else [1, 1, 1]
    for row, key in enumerate(content["manos"]):
        hand = {k: np.array(v) for k, v in content["manos_flip" if side == "left" else "manos"][key].items()}
        shaped = right.with_shape(torch.tensor(hand["shape"], dtype=torch.float32))
        J0 = shaped.joints16[0].numpy()
        np.testing.assert_allclose(hand["root_joint"], J0, atol=1e-6)
        turn = (Rotation.from_matrix(R) * Rotation.from_rotvec(hand["rot"])).as_rotvec()
        trans = R @ (hand["trans"] + J0) + t - J0
        fingers = hand["hand_pose"] + right.mean_pose.numpy()
        posed = shaped.with_pose(*(torch.tensor(v, dtype=torch.float32)
                                   for v in (turn, fingers.reshape(15, 3), trans + J0)))  # fmt: skip
        np.testing.assert_allclose(posed.joints().numpy(), recording.joints_m[row] * mirror, atol=1e-5)
        np.testing.assert_allclose(
            np.array(content["3d_joints"][key]) @ R.T / 1000 + t, recording.joints_m[row], atol=1e-6
        )
    assert ("manos_flip" in content) == (side == "left")
    assert content["hand_model"] == "open"
    if side == "left":
        np.testing.assert_allclose(
            content["manos"]["0"]["root_joint"], np.array(content["manos_flip"]["0"]["root_joint"]) * mirror, atol=1e-6
        )


def test_annotations_of_fast_sequences_hold_no_truth_in_space(tmp_path: Path) -> None:
    recording = a_recording(12, fast=True)
    layout.write_sequence(tmp_path / "0", recording)
    training, evaluation = (json.loads((tmp_path / "0" / name).read_text()) for name in ("annot.json", "annotf.json"))
    assert training["manos"] == training["3d_joints"] == {}
    assert evaluation["manos"].keys() == evaluation["3d_joints"].keys() == training["bbox"]["event"].keys()
    assert training["2d_joints"] == evaluation["2d_joints"]
    found = layout.read_sequence(tmp_path / "0")
    assert found.pose is None and found.joints_m is None and found.tags.fast
    np.testing.assert_allclose(found.boxes_px, recording.boxes_px, atol=0.01)
    assert np.abs(found.pose_t_us - recording.pose_t_us).max() <= 1


def test_matrices_that_differ_serve_what_they_are_for(tmp_path: Path) -> None:
    """Events go through (K_old, dist) onto K_new, points through K: labels in the image meet the undistorted events."""
    recording = a_recording(13, m=2)
    K = recording.camera.K
    matrices = Rectification(
        K_image=K + np.diag([4.0, 3, 0]), K_points=K + np.array([[2.0, 0, 1], [0, 1, -2], [0, 0, 0]])
    )
    layout.write_sequence(tmp_path / "0", replace(recording, rectification=matrices))
    content = json.loads((tmp_path / "0" / "annot.json").read_text())["camera_info"]["event"]
    np.testing.assert_array_equal(content["K_new"], matrices.K_image)
    np.testing.assert_array_equal(content["K"], matrices.K_points)
    found = layout.read_sequence(tmp_path / "0")
    assert found.rectification is not None
    ideal = project(recording.joints_m[0].astype(np.float64), matrices.K_points)
    expected = distort_points(ideal, K, recording.camera.distortion, matrices.K_image)
    np.testing.assert_allclose(found.joints_px[0], expected, rtol=1e-4, atol=0.01)


def test_without_the_name_of_a_hand_model_a_file_is_mano(tmp_path: Path) -> None:
    recording = a_recording(14, side="left")
    mano = replace(load_hand("open"), name="mano")  # stands for the user's pickle
    wanted = replace(recording, pose=replace(recording.pose, hand_model="mano"))
    with pytest.raises(InputError, match="MANO_RIGHT"):
        layout.write_sequence(tmp_path / "0", wanted)
    layout.write_sequence(tmp_path / "0", wanted, hand=mano)
    layout.write_sequence(tmp_path / "open", recording, hand=mano)  # a MANO that is at hand is no reason to use it
    _same_recording(layout.read_sequence(tmp_path / "open", hand=mano), recording)
    _edit(tmp_path / "0" / "annot.json", "hand_model", DELETED)
    with pytest.raises(InputError, match="MANO_RIGHT"):
        layout.read_sequence(tmp_path / "0")
    for hand in (mano, mirror_model(mano)):
        _same_recording(layout.read_sequence(tmp_path / "0", hand=hand), wanted)


@pytest.mark.parametrize(("sequence", "item"), [("0", 0), ("2", 2)])
def test_reads_what_the_published_loader_reads(sequence: str, item: int) -> None:
    """Made-up sequences with what the published code makes of them: right, and left as its mirror image."""
    folder = shared_path(f"fixtures/dataset/data/{sequence}")
    published = np.load(shared_path(f"fixtures/dataset/eval_seq{sequence}_item{item}.npz"))
    mano = load_hand(shared_path("fixtures/mano/MANO_RIGHT.pkl"))
    found = layout.read_sequence(folder, hand=mano)
    assert found.pose is not None
    left = found.pose.side == "left"
    row = sorted(map(int, json.loads((folder / "annot.json").read_text())["manos"])).index(int(published["ids"][-1]))
    point, turn = (np.array([-1, 1, 1]), np.array([1, -1, -1])) if left else (1, 1)
    np.testing.assert_allclose(found.pose.orientation[row] * turn, published["annot/mano_rot_pose"][-1], atol=1e-5)
    joints = found.joints_m[row][permutation("openpose21", "smplx_mano21")] * point
    np.testing.assert_allclose(joints, published["annot/joint"][-1], atol=1e-6)
    hand = mirror_model(mano) if left else mano
    np.testing.assert_allclose(pose_hand(hand, found.pose).joints().numpy(), found.joints_m, atol=1e-5)
    since = found.pose_t_us[row] - found.stream.start_us
    assert abs(since - float(published["end_timestamps"][-1])) <= 1


@pytest.mark.parametrize("sequence", ["0", "1", "2"])
def test_what_the_layout_held_is_written_again(tmp_path: Path, sequence: str) -> None:
    """Numbers of a foreign file, its K, K_old and K_new too, survive the way through a recording."""
    folder = shared_path(f"fixtures/dataset/data/{sequence}")
    mano = load_hand(shared_path("fixtures/mano/MANO_RIGHT.pkl"))
    layout.write_sequence(tmp_path / "0", layout.read_sequence(folder, hand=mano, evaluation=True), hand=mano)
    files = ["annotf.json", "annot.json"] if sequence == "1" else ["annot.json"]
    for name in files:
        wanted, found = (layout.read_annotations(path / name) for path in (folder, tmp_path / "0"))
        assert abs(found.delta_time - wanted.delta_time) <= 1
        for key in ("K", "R", "T_mm", "K_old", "K_new", "dist"):
            np.testing.assert_allclose(getattr(found.event_camera, key), getattr(wanted.event_camera, key), atol=1e-9)
        hands = (wanted.manos_flip, found.manos_flip) if sequence == "2" else (wanted.manos, found.manos)
        assert hands[0].keys() == hands[1].keys()
        for i, hand in hands[0].items():
            for key, value in vars(hand).items():
                np.testing.assert_allclose(getattr(hands[1][i], key), value, atol=5e-6)
        assert wanted.joints_mm.keys() == found.joints_mm.keys()
        for i, joints in wanted.joints_mm.items():
            np.testing.assert_allclose(found.joints_mm[i], joints, atol=0.001)
        tables = [(wanted.boxes_px, found.boxes_px)]
        if wanted.joints_px["event"]:  # of slow sequences it lists none, and we write what follows from the pose
            tables.append((wanted.joints_px["event"], found.joints_px["event"]))
        for old, new in tables:
            assert {i for i, row in old.items() if row is not None} == {i for i, row in new.items() if row is not None}
            for i, row in old.items():
                assert row is None or np.abs(new[i] - row).max() < 0.01


def test_reads_fast_sequences_of_the_layout() -> None:
    folder = shared_path("fixtures/dataset/data/1")
    found, complete = (layout.read_sequence(folder, evaluation=flag) for flag in (False, True))
    assert found.pose is None and found.joints_m is None
    assert complete.joints_m is not None and np.isfinite(complete.joints_m).all()
    content = json.loads((folder / "annot.json").read_text())
    labelled = [i for i, rows in content["2d_joints"]["event"].items() if rows]
    assert np.isfinite(found.joints_px).all((1, 2)).sum() == len(labelled)
    assert np.isnan(found.boxes_px).any()
    assert layout.read_index(folder.parent).sequences() == ("0", "1", "2")


# --- the whole data set ---------------------------------------------------------------------------------------------


def test_the_index_lists_every_sequence_once_a_group(tmp_path: Path) -> None:
    for name, side, subject, fast in (
        ("0", "right", "1", False),
        ("2", "left", "5", False),
        ("10", "right", "5", True),
    ):
        recording = a_recording(1, side=side, m=1, fast=fast)
        layout.write_sequence(tmp_path / name, replace(recording, tags=replace(recording.tags, subject=subject)))
    index = layout.write_index(tmp_path)
    assert index == layout.read_index(tmp_path)
    assert index.hands == {"right": {"1": ("0",), "5": ("10",)}, "left": {"5": ("2",)}}
    assert index.buckets["flash_random"] == {"1": ("0",), "5": ("2",)}
    assert index.buckets["fast"] == {"5": ("10",)}
    assert sum(map(len, index.buckets.values())) == 3 and len(index.buckets) == 7
    assert index.sequences() == ("0", "2", "10")
    assert (index.sequences(test=True), index.sequences(test=False)) == (("0",), ("2", "10"))
    content = json.loads((tmp_path / "id_seq_all.json").read_text())
    del content["highlight_fixed"]
    (tmp_path / "id_seq_all.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"id_seq_all.json: highlight_fixed: wanted"):
        layout.read_index(tmp_path)
    with pytest.raises(InputError, match="no sequence"):
        layout.write_index(tmp_path / "0")


# --- what is wrong is named -----------------------------------------------------------------------------------------

DELETED: Any = object()


def _edit(path: Path, where: str, value: Any) -> None:
    content = json.loads(path.read_text())
    *above, last = where.split(".")
    target = content
    for key in above:
        target = target[key]
    if value is DELETED:
        del target[last]
    else:
        target[last] = value(target[last]) if callable(value) else value
    path.write_text(json.dumps(content))


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("written")
    layout.write_sequence(root / "slow", _with_views(a_recording(2, side="left", m=1), np.random.default_rng(0))[0])
    layout.write_sequence(root / "fast", a_recording(3, m=1, fast=True))
    return {kind: root / kind / "annot.json" for kind in ("slow", "fast")}


NUMBERS = [
    *(f"camera_info.event.{name}" for name in ("K", "R", "T", "K_old", "dist", "K_new")),
    *(f"camera_info.21320028.{name}" for name in ("K", "R", "T")),
    *(f"{table}.2.{name}" for table in ("manos", "manos_flip")
      for name in ("rot", "hand_pose", "shape", "trans", "root_joint")),
    "3d_joints.2", "2d_joints.event.2", "bbox.event.2.tl", "bbox.event.2.br",
]  # fmt: skip
WORDS = ["hand_type", "subject_id", "scene", "motion_type", "gesture_type", "annoted", "delta_time"]
TABLES = ["camera_info", "camera_info.event", "manos", "manos_flip", "3d_joints", "2d_joints", "2d_joints.event"]
OPTIONAL = ("camera_info.event.K_new", "3d_joints.2", "2d_joints.event.2")


def _refused(path: Path, tmp_path: Path, where: str, value: Any, *, wanted: str = "wanted") -> None:
    copy = tmp_path / "annot.json"
    copy.write_text(path.read_text())
    _edit(copy, where, value)
    with pytest.raises(InputError, match=rf"annot\.json: {re.escape(where)}(\.\w+)?: {wanted}"):
        layout.read_annotations(copy)


@pytest.mark.parametrize("where", [key for key in (*NUMBERS, *WORDS, *TABLES) if key not in OPTIONAL])
def test_every_missing_key_is_named(tmp_path: Path, written: dict[str, Path], where: str) -> None:
    _refused(written["slow"], tmp_path, where, DELETED)


@pytest.mark.parametrize("where", [*NUMBERS, *WORDS, *TABLES, "bbox.event", "frames.21320028", "hand_model"])
def test_every_mistyped_key_is_named(tmp_path: Path, written: dict[str, Path], where: str) -> None:
    for value in (None, [[None]], 7 if where in (*TABLES, "bbox.event") else {"x": 1}):
        _refused(written["slow"], tmp_path, where, value)


@pytest.mark.parametrize("where", NUMBERS)
def test_every_wrong_length_is_named(tmp_path: Path, written: dict[str, Path], where: str) -> None:
    _refused(written["slow"], tmp_path, where, lambda found: found[2:])


@pytest.mark.parametrize(
    ("where", "value", "wanted"),
    [
        ("hand_type", "both", "wanted 'right' or 'left', found \"both\""),
        ("scene", "dark", "wanted 'normal' or 'highlight' or 'flash'"),
        ("gesture_type", "wild", "wanted 'fixed' or 'random'"),
        ("annoted", "yes", "wanted true or false"),
        ("delta_time", float("nan"), "wanted a finite number"),
        ("manos.2.hand_pose", [0.0] * 42, "wanted 45 numbers, found 42"),
        ("manos.2.rot", [0.0, float("inf"), 1.0], "wanted 3 numbers, found NaN"),
        ("manos.2.rot", ["1", "2", "3"], "wanted 3 numbers"),
        ("manos.2.trans", [0.0, 1e300, 0.0], "wanted 3 numbers, found 1e\\+300 among them"),
        ("manos.2.shape", [True] * 10, "wanted 10 numbers"),
        ("camera_info.event.R", np.diag([1.0, 1, 2]).tolist(), "wanted a rotation matrix"),
        ("camera_info.event.R", np.diag([1.0, 1, -1]).tolist(), "wanted a rotation matrix"),
        ("camera_info.event.K", np.zeros((3, 3)).tolist(), "wanted a camera matrix"),
        ("camera_info.event.dist", [0.1] * 6, "wanted one of"),
        ("camera_info.21320028.size", [0, 4], r"wanted \[width, height\]"),
        ("delta_time", 1e300, "wanted microseconds"),
        ("frames.21320028", [0, "²"], "wanted an annotation id"),
        ("3d_joints.007", [[0, 0, 0]] * 21, "wanted an annotation id"),
        ("3d_joints.first", [[0, 0, 0]] * 21, "wanted an annotation id"),
        ("2d_joints.event.2", [[1, 2, 3]] * 21, "wanted 21 x 2 numbers, found 21 x 3"),
    ],
)
def test_every_wrong_value_is_named(
    tmp_path: Path, written: dict[str, Path], where: str, value: Any, wanted: str
) -> None:
    _refused(written["slow"], tmp_path, where, value, wanted=wanted)


def _nodes(value: Any, path: tuple = ()) -> list[tuple]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(node for key, item in below for node in _nodes(item, (*path, key)))]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("0123456789²x", max_size=12), inner, max_size=3)
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data(), value=ANYTHING)
def test_whatever_stands_in_a_file_it_is_read_or_refused(tmp_path: Path, written: dict[str, Path], data, value) -> None:
    content = json.loads(written["slow"].read_text())
    target = content
    *above, last = data.draw(st.sampled_from([node for node in _nodes(content)[1:] if len(node) < 5]))
    for key in above:
        target = target[key]
    target[last] = value
    copy = tmp_path / "annot.json"
    copy.write_text(json.dumps(content))
    with input_error_at_worst(copy):
        layout.read_annotations(copy)


def test_what_the_layout_leaves_open_may_be_left_out(tmp_path: Path, written: dict[str, Path]) -> None:
    copy = tmp_path / "annot.json"
    copy.write_text(written["slow"].read_text())
    for where in (*OPTIONAL, "frames", "hand_model", "bbox", "camera_info.21320028.size"):
        _edit(copy, where, DELETED)
    _edit(copy, "subject_id", 7)
    _edit(copy, "something_new", [1, 2])
    _edit(copy, "camera_info.event.dist", lambda dist: [dist])
    found = layout.read_annotations(copy)
    assert (found.hand_model, found.frames, found.subject_id, found.boxes_px) == ("mano", None, "7", {})
    _refused(written["fast"], tmp_path, "bbox", DELETED)


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    layout.write_sequence(tmp_path / "0", _with_views(a_recording(4), np.random.default_rng(0))[0])
    image = tmp_path / "0" / "images" / "21320028" / "image0000.jpg"
    _edit(tmp_path / "0" / "annot.json", "camera_info.21320028.size", DELETED)
    assert layout.read_sequence(tmp_path / "0").views[0].camera.size == (53, 46)
    image.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image0000\.jpg"):
        layout.read_sequence(tmp_path / "0")
    events = tmp_path / "0" / "events.aedat4"
    events.rename(tmp_path / "0" / "events.txt")
    with pytest.raises(InputError, match=r"holds 0 \.aedat4"):
        layout.read_sequence(tmp_path / "0")
    (tmp_path / "0" / "annot.json").write_text("{")
    with pytest.raises(InputError, match=r"annot\.json is not JSON"):
        layout.read_sequence(tmp_path / "0")
    with pytest.raises(InputError, match=r"Cannot read .*annot\.json"):
        layout.read_sequence(tmp_path / "absent")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    good = a_recording(4)
    times = good.pose_t_us.copy()
    times[1] += 900
    world = Camera(np.diag([50.0, 50, 1]), (8, 8))

    def view(*frames: bytes) -> Recording:
        camera = replace(world, T_camera_world=np.eye(4))
        return replace(good, views=(View("rgb", camera, good.pose_t_us[:1], frames),))

    bad = {
        "off the clock": replace(good, pose_t_us=times),
        "no tags": replace(good, tags=None),
        "poses of the other": replace(good, tags=replace(good.tags, side="left")),
        "without events": replace(good, stream=Replay(Events.empty(SIZE))),
        "named '../x'": replace(good, views=(View("../x", world),)),
        "no pose": replace(good, views=(View("rgb", world),)),
        "no readable image": view(b"nothing"),
        "4 x 6 pixels": view(layout.encoded(np.zeros((6, 4, 3), np.uint8))),
        "0 frames and 1 times": view(),
    }
    for message, recording in bad.items():
        with pytest.raises(InputError, match=message):
            layout.write_sequence(tmp_path / "set" / "0", recording)
        assert not list(tmp_path.glob("set/*")), message
    layout.write_sequence(tmp_path / "set" / "0", good)
    before = {path: path.read_bytes() for path in (tmp_path / "set" / "0").iterdir()}
    with pytest.raises(InputError, match="there already"):
        layout.write_sequence(tmp_path / "set" / "0", a_recording(5))
    assert before == {path: path.read_bytes() for path in (tmp_path / "set" / "0").iterdir()}
