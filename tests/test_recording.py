"""Recordings: what is written is read back, whatever is missing is None, and bad truth is named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import evhands
from evhands.events.io import open_events
from evhands.events.io.write import write_events
from evhands.geometry import default_camera
from evhands.recording import Tags, View, read_camera, read_recording, write_recording
from evhands.types import Camera, Events, HandPose, InputError

SIZE = (34, 26)


def _events(rng: np.random.Generator, n: int) -> Events:
    return Events(
        rng.integers(0, SIZE[0], n).astype(np.uint16),
        rng.integers(0, SIZE[1], n).astype(np.uint16),
        np.sort(rng.integers(5_000_000_000, 5_000_900_000, n)),
        rng.random(n) < 0.5,
        SIZE,
    )


def _truth(rng: np.random.Generator, m: int) -> dict:
    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal((m, *shape)).astype(np.float32)

    pose = HandPose("left", values(3), values(3), values(15, 3), values(10), "open")
    t_us = np.arange(m, dtype=np.int64) * 33_333 + 5_000_000_000
    return {"pose_t_us": t_us, "pose": pose, "joints_m": values(21, 3), "boxes_px": values(4)}


def _camera() -> Camera:
    return Camera(np.array([[30.0, 0, 16], [0, 31, 12], [0, 0, 1]]), SIZE, np.array([0.1, -0.2, 1e-3, 0, 0.01]))


@pytest.mark.parametrize(("n", "m"), [(5000, 7), (0, 3), (10, 0)])
def test_what_is_written_is_read_back(tmp_path: Path, n: int, m: int) -> None:
    rng = np.random.default_rng(n + m)
    events, truth = _events(rng, n), _truth(rng, m)
    half = n // 2
    path = tmp_path / "clip.h5"
    write_recording(path, iter([events[:half], events[half:]]), _camera(), **truth, meta={"seed": 3, "scene": "plain"})
    found = read_recording(path)
    for column in ("x", "y", "t_us", "p"):
        np.testing.assert_array_equal(getattr(found.events, column), getattr(events, column))
    assert found.stream.size == SIZE
    assert found.pose is not None
    assert (found.pose.side, found.pose.hand_model) == ("left", "open")
    for name in ("orientation", "wrist", "joints", "shape"):
        np.testing.assert_array_equal(getattr(found.pose, name), getattr(truth["pose"], name))
    for name in ("pose_t_us", "joints_m", "boxes_px"):
        np.testing.assert_array_equal(getattr(found, name), truth[name])
    np.testing.assert_array_equal(found.camera.K, _camera().K)
    np.testing.assert_array_equal(found.camera.distortion, _camera().distortion)
    assert found.meta == {"seed": 3, "scene": "plain"}


def test_a_recording_is_an_event_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    events = _events(rng, 999)
    write_recording(tmp_path / "clip.h5", events, _camera(), **_truth(rng, 4))
    read = Events.concatenate(list(open_events(tmp_path / "clip.h5")))
    np.testing.assert_array_equal(read.t_us, events.t_us)


def test_events_alone_have_no_truth_and_the_default_camera(tmp_path: Path) -> None:

    path = tmp_path / "plain.h5"
    write_recording(path, _events(np.random.default_rng(2), 50), _camera())
    write_events(tmp_path / "alone.h5", open_events(path))
    found = read_recording(tmp_path / "alone.h5")
    assert (found.pose_t_us, found.pose, found.joints_m, found.boxes_px, found.meta) == (None, None, None, None, {})
    np.testing.assert_array_equal(found.camera.K, default_camera(SIZE).K)
    assert read_camera(tmp_path / "alone.h5") is None
    assert read_camera(path) is not None


def test_rows_that_nobody_annotated_are_kept_as_such(tmp_path: Path) -> None:
    """Truth without poses has times of its own; a row is whole or missing."""
    rng = np.random.default_rng(5)
    truth = _truth(rng, 4)
    joints_px = rng.standard_normal((4, 21, 2)).astype(np.float32)
    joints_px[2] = np.nan
    path = tmp_path / "clip.h5"
    write_recording(path, _events(rng, 20), _camera(), truth["pose_t_us"], joints_px=joints_px)
    found = read_recording(path)
    assert found.pose is None and found.joints_m is None
    np.testing.assert_array_equal(found.pose_t_us, truth["pose_t_us"])
    np.testing.assert_array_equal(found.joints_px, joints_px)
    joints_px[1, 3, 0] = np.nan
    write_recording(path, _events(rng, 20), _camera(), truth["pose_t_us"], joints_px=joints_px)
    with pytest.raises(InputError, match="joints_px"):
        read_recording(path)


def test_other_cameras_and_tags_come_back_and_damage_to_them_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.h5"
    pose = np.eye(4) + 0.25
    pose[3] = [0, 0, 0, 1]
    camera = Camera(_camera().K, (9, 7), np.zeros(0), pose)
    views = (View("b", camera, np.array([5, 9]), (b"one", b"")), View("a", camera))
    tags = Tags(side="left", subject="3", scene="flash", fast=True, gesture="fixed", checked=False)
    rng = np.random.default_rng(6)
    write_recording(path, _events(rng, 20), camera=Camera(camera.K, SIZE, np.zeros(0), pose), views=views, tags=tags)
    found = read_recording(path)
    assert found.tags == tags
    assert [(view.name, view.camera.size, tuple(view.frames)) for view in found.views] == [
        ("b", (9, 7), (b"one", b"")), ("a", (9, 7), ())]  # fmt: skip
    np.testing.assert_array_equal(found.views[0].frames_t_us, [5, 9])
    for seen in (found.camera, found.views[1].camera):
        np.testing.assert_array_equal(seen.T_camera_world, pose)
    with h5py.File(path, "a") as file:
        del file["views/0"].attrs["width"]
    with pytest.raises(InputError, match="views/0"):
        read_recording(path)
    with h5py.File(path, "a") as file:
        file["views/0"].attrs["width"] = 9
        file.attrs["tags"] = '{"side": "left"}'
    with pytest.raises(InputError, match="tags"):
        read_recording(path)


def test_recordings_written_before_there_were_views_load() -> None:
    found = read_recording(Path(evhands.__file__).parent / "assets" / "demo.h5")
    assert found.pose is not None and found.joints_m is not None
    assert (found.views, found.tags, found.joints_px, found.rectification) == ((), None, None, None)
    assert found.camera.T_camera_world is None


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("camera/K", np.full((3, 3), np.nan)),
        ("poses/wrist", np.zeros((4, 2))),
        ("joints_m", np.zeros((3, 21, 3))),
        ("poses/t_us", None),
    ],
)
def test_bad_truth_is_named(tmp_path: Path, name: str, bad: np.ndarray | None) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "clip.h5"
    write_recording(path, _events(rng, 20), _camera(), **_truth(rng, 4))
    with h5py.File(path, "a") as file:
        del file[name]
        if bad is not None:
            file[name] = bad
    with pytest.raises(InputError, match=name):
        read_recording(path)


def test_a_failed_write_leaves_the_old_recording(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "clip.h5"
    write_recording(path, _events(rng, 20), _camera())
    before = path.read_bytes()

    def broken():
        yield _events(rng, 5)
        raise RuntimeError("the simulator stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_recording(path, broken(), _camera())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clip.h5"]
