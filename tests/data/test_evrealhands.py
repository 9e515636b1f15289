"""Preparing sequences: a prepared recording trains and scores as its sequence does, and nothing faulty is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import shared_path
from event_recordings import Replay, same
from evhands import evrealhands_layout as layout
from evhands.data.cache import CacheConfig, cache_recordings
from evhands.data.evrealhands import prepare_sequence
from evhands.events.io import open_events
from evhands.geometry import undistort_points
from evhands.hand.model import load_hand
from evhands.recording import View, read_recording
from evhands.types import Camera, Events, InputError
from test_evrealhands_layout import SIZE, a_recording


@pytest.mark.parametrize("sequence", ["0", "1", "2"])
def test_a_prepared_sequence_is_the_sequence(tmp_path: Path, sequence: str) -> None:
    """The training data made of a recording is that made of the folder: events, labels, cameras."""
    folder = shared_path(f"fixtures/dataset/data/{sequence}")
    hand = load_hand(shared_path("fixtures/mano/MANO_RIGHT.pkl"))
    done = prepare_sequence(folder, tmp_path / f"{sequence}.h5", hand=hand)
    recording = read_recording(tmp_path / f"{sequence}.h5")
    direct = layout.read_sequence(folder, hand=hand, evaluation=sequence == "1")
    (a,) = cache_recordings([tmp_path / f"{sequence}.h5"], tmp_path / "cache")
    assert recording.pose_t_us is not None and recording.pose_t_us.dtype == np.int64
    np.testing.assert_array_equal(recording.pose_t_us, direct.pose_t_us)
    assert (recording.pose is None, recording.tags) == (direct.pose is None, direct.tags)
    if direct.pose is not None:
        for name in ("orientation", "wrist", "joints", "shape"):
            np.testing.assert_array_equal(getattr(recording.pose, name), getattr(direct.pose, name))
        assert recording.pose.side == direct.pose.side
    if direct.joints_m is not None:
        np.testing.assert_array_equal(recording.joints_m, direct.joints_m)
    (b,) = cache_recordings([folder], tmp_path / "cache", CacheConfig(evaluation=sequence == "1"), hand=hand)
    assert same(a.events(), b.events())
    assert (done.events, a.left_out) == (len(b.x), 0)
    assert done.left_out == b.left_out
    np.testing.assert_array_equal(a.camera.K, b.camera.K)
    for name, wanted in b.labels.arrays().items():
        np.testing.assert_array_equal(a.labels.arrays()[name], wanted, err_msg=name)


def test_rows_are_tested_against_the_height(tmp_path: Path) -> None:
    """Every event that leaves the image below goes, however wide the image is; all others stay (O1)."""
    recording = a_recording(3)
    camera = replace(recording.camera, distortion=np.array([-0.3, 0.05, 0, 0, 0]))
    x, y = (grid.ravel().astype(np.uint16) for grid in np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])))
    t_us = np.arange(len(x), dtype=np.int64) * 10
    pixels = Events(x, y, t_us, np.ones(len(x), np.bool_), SIZE)
    recording = replace(
        recording, stream=Replay(pixels, 5000), camera=camera, pose_t_us=recording.pose_t_us - recording.pose_t_us[0]
    )
    layout.write_sequence(tmp_path / "0", recording)
    done = prepare_sequence(tmp_path / "0", tmp_path / "0.h5")
    u, v = undistort_points(np.stack([x, y], -1), camera.K, camera.distortion).T
    stays = (u >= 0) & (u <= SIZE[0] - 1) & (v >= 0) & (v <= SIZE[1] - 1)
    below = (u >= 0) & (u <= SIZE[0] - 1) & (v > SIZE[1] - 1) & (v <= SIZE[0] - 1)
    assert below.sum() > 1000
    assert same(read_recording(tmp_path / "0.h5").events, pixels[stays])
    assert (done.events, done.left_out) == (stays.sum(), (~stays).sum())


def _pictures(folder: Path) -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    return tuple(layout.encoded(rng.integers(0, 255, (8, 12, 3)).astype(np.uint8), "JPEG") for _ in range(3))


def test_frames_and_their_blurred_twins_are_kept(tmp_path: Path) -> None:
    recording = a_recording(5)
    camera = Camera(np.array([[10.0, 0, 6], [0, 10, 4], [0, 0, 1]]), (12, 8), np.zeros(0), np.eye(4))
    sharp, blurred = _pictures(tmp_path), _pictures(tmp_path)[:2]
    views = (View("21320028", camera, recording.pose_t_us, sharp),
             View("21320028.blur", camera, recording.pose_t_us[1:], blurred))  # fmt: skip
    layout.write_sequence(tmp_path / "0", replace(recording, views=views))
    assert len(list((tmp_path / "0" / "image_blur" / "21320028").iterdir())) == 2
    prepare_sequence(tmp_path / "0", tmp_path / "0.h5")
    found = read_recording(tmp_path / "0.h5").views
    assert [(view.name, tuple(view.frames)) for view in found] == [(view.name, view.frames) for view in views]
    for view, wanted in zip(found, views):
        assert np.abs(view.frames_t_us - wanted.frames_t_us).max() <= 1
    image = next((tmp_path / "0" / "images" / "21320028").iterdir())
    image.unlink()
    with pytest.raises(InputError, match=r"annot\.json: frames\.21320028: wanted an image for each id"):
        prepare_sequence(tmp_path / "0", tmp_path / "1.h5")
    image.write_bytes(b"no image")
    with pytest.raises(InputError, match=image.name):
        prepare_sequence(tmp_path / "0", tmp_path / "1.h5")
    assert not (tmp_path / "1.h5").exists()


def test_what_is_there_is_kept_until_its_source_changes(tmp_path: Path) -> None:
    layout.write_sequence(tmp_path / "0", a_recording(6))
    target = tmp_path / "out" / "0.h5"
    first = prepare_sequence(tmp_path / "0", target)
    written = target.stat().st_mtime_ns
    again = prepare_sequence(tmp_path / "0", target)
    assert again == replace(first, kept=True) and not first.kept
    assert target.stat().st_mtime_ns == written
    path = tmp_path / "0" / "annot.json"
    path.write_text(path.read_text().replace('"subject_id": "7"', '"subject_id": "8"'))
    assert not prepare_sequence(tmp_path / "0", target).kept
    assert read_recording(target).tags.subject == "8"
    target.write_bytes(b"damaged")
    assert not prepare_sequence(tmp_path / "0", target).kept


def test_a_recording_that_is_cut_off_is_taken_only_when_asked(tmp_path: Path) -> None:
    recording = a_recording(6)
    rng = np.random.default_rng(0)
    n = 40_000
    events = Events(rng.integers(0, 346, n).astype(np.uint16), rng.integers(0, 260, n).astype(np.uint16),
                    recording.stream.events.t_us[0] + np.arange(n) * 20, rng.random(n) < 0.5, SIZE)  # fmt: skip
    layout.write_sequence(tmp_path / "0", replace(recording, stream=Replay(events)))
    path = tmp_path / "0" / "events.aedat4"
    path.write_bytes(path.read_bytes()[:-60_000])
    with pytest.raises(InputError, match=r"events\.aedat4: it is cut off.*--salvage"):
        prepare_sequence(tmp_path / "0", tmp_path / "0.h5")
    assert not (tmp_path / "0.h5").exists()
    done = prepare_sequence(tmp_path / "0", tmp_path / "0.h5", salvage=True)
    assert 0 < done.events < n and "cut off" in " ".join(done.warnings)
    with pytest.warns(UserWarning, match="cut off"):
        whole = open_events(path).read()
    assert done.events + done.left_out == len(whole)


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    layout.write_sequence(tmp_path / "0", a_recording(6))
    path = tmp_path / "0" / "annot.json"
    content = json.loads(path.read_text())
    del content["scene"], content["camera_info"]["event"]["K_old"]
    content["annoted"] = "yes"
    first = next(iter(content["manos"]))
    content["manos"][first] |= {"shape": [0.0] * 9, "rot": "up"}
    path.write_text(json.dumps(content))
    with pytest.raises(layout.LayoutError) as caught:
        prepare_sequence(tmp_path / "0", tmp_path / "0.h5")
    text = str(caught.value)
    for where in ("scene", "camera_info.event.K_old", "annoted", f"manos.{first}.shape", f"manos.{first}.rot"):
        assert f"{path}: {where}: wanted" in text
    assert not list(tmp_path.glob("*.h5"))


def test_an_annotation_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    layout.write_sequence(tmp_path / "0", a_recording(6))
    path = tmp_path / "0" / "annot.json"
    text = path.read_text()
    path.write_text(text.replace('"3d_joints": {"0":', '"3d_joints": {"0": [], "0":'))
    with pytest.raises(InputError, match=r"annot\.json: 3d_joints\.0: wanted this key once, found it repeated"):
        layout.read_annotations(path)


def test_a_clock_that_jumps_by_days_is_refused(tmp_path: Path) -> None:
    recording = a_recording(6)
    events = recording.stream.events
    late = replace(events, t_us=events.t_us + np.where(np.arange(len(events)) > 100, 90_000_000_000, 0))
    layout.write_sequence(tmp_path / "0", replace(recording, stream=Replay(late)))
    with pytest.raises(InputError, match="runs for 1.0 days"):
        prepare_sequence(tmp_path / "0", tmp_path / "0.h5")
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".*"))
