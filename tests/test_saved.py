"""Poses as files: they hold what the predictions say, left hands as left hands."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from PIL import Image

from evhands.hand.model import load_hand, pose_hand
from evhands.saved import animation, flow_colours, obj_text, polarity_colours, save_all
from evhands.types import HandMesh, InputError
from scored_hands import without_hand, write_scored


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    predictions = without_hand(write_scored(folder, seconds=0.7), 2)
    sources = sorted(folder.glob("*.h5"))
    count = save_all(predictions, folder / "out", ["all"], sources, load_hand())
    assert count == len([p for p in (folder / "out").rglob("*") if p.is_file()])
    return predictions, folder / "out"


def test_every_kind_is_there_for_every_hand_that_was_found(saved):
    predictions, folder = saved
    for number in (0, 1):
        rows = np.flatnonzero(predictions.recording == number)
        found = int(predictions.found[rows].sum())
        pairs = int((predictions.found[rows][1:] & predictions.found[rows][:-1]).sum())
        wanted = {"joints": found, "mesh": found, "projected": found, "joints2d": found, "events": len(rows),
                  "flow": pairs, "iwe": pairs}  # fmt: skip
        assert {kind: len(list((folder / str(number) / kind).iterdir())) for kind in wanted} == wanted
        assert (folder / str(number) / "hand.glb").exists()


def test_joints_and_meshes_are_those_of_the_predictions_and_of_their_side(saved):
    predictions, folder = saved
    for number, side in ((0, "right"), (1, "left")):
        row = int(np.flatnonzero(predictions.recording == number)[0])
        content = json.loads((folder / str(number) / "joints" / "000000.json").read_text())
        assert content["side"] == side
        np.testing.assert_allclose(content["joints"], predictions.joints_m[row], atol=1e-6)
        mesh = pose_hand(load_hand("open", side), predictions.pose(row)).mesh()
        lines = (folder / str(number) / "mesh" / "000000.obj").read_text().split("\n")
        vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
        faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int) - 1
        np.testing.assert_allclose(vertices, mesh.vertices.numpy(), atol=1e-6)
        assert _volume(vertices, faces) > 0  # outward faces, of a left hand too


def _volume(vertices, faces) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_pictures_have_the_size_of_the_image_and_show_something(saved):
    predictions, folder = saved
    for kind, suffix in (("projected", ".jpg"), ("events", ".png"), ("flow", ".png"), ("iwe", ".png")):
        with Image.open(folder / "0" / kind / f"000001{suffix}") as image:
            assert image.size == predictions.recordings[0].size
            assert np.asarray(image).std() > 1


def test_the_projected_mesh_lies_where_the_joints_are(saved):
    predictions, folder = saved
    with Image.open(folder / "1" / "projected" / "000000.jpg") as image:
        shown = np.asarray(image.convert("L")) > 40
    row = int(np.flatnonzero(predictions.recording == 1)[0])
    x, y = np.rint(predictions.joints_px[row]).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < shown.shape[1]) & (y < shown.shape[0])
    assert shown[y[inside], x[inside]].mean() > 0.9


def test_an_animation_holds_every_state_at_its_time():
    rng = np.random.default_rng(0)
    faces = np.array([[0, 1, 2]])
    meshes = [HandMesh(np.float32(rng.normal(size=(3, 3))), np.zeros((21, 3), np.float32), faces) for _ in range(4)]
    data = animation([0, 100_000, 250_000, 300_000], meshes)
    length = struct.unpack("<I", data[8:12])[0]
    assert data[:4] == b"glTF" and length == len(data)
    size = struct.unpack("<I", data[12:16])[0]
    content, binary = json.loads(data[20 : 20 + size]), data[28 + size :]

    def values(accessor: int) -> np.ndarray:
        about = content["accessors"][accessor]
        view = content["bufferViews"][about["bufferView"]]
        kind = np.uint16 if about["componentType"] == 5123 else np.float32
        return np.frombuffer(binary, kind, view["byteLength"] // kind().itemsize, view["byteOffset"])

    primitive, sampler = content["meshes"][0]["primitives"][0], content["animations"][0]["samplers"][0]
    first = values(primitive["attributes"]["POSITION"]).reshape(-1, 3)
    weights = values(sampler["output"]).reshape(4, 3)
    np.testing.assert_allclose(values(sampler["input"]), [0, 0.1, 0.25, 0.3], atol=1e-6)
    for state, mesh in zip(weights, meshes):
        moved = first + sum(w * values(t["POSITION"]).reshape(-1, 3) for w, t in zip(state, primitive["targets"]))
        np.testing.assert_allclose(moved * [1, -1, -1], mesh.vertices, atol=1e-6)
    assert content["buffers"][0]["byteLength"] == len(binary)


def test_colours_say_direction_and_polarity():
    flow = np.zeros((2, 2, 2), np.float32)
    flow[:, 0, 0], flow[:, 0, 1], flow[:, 1, 0] = (3, 0), (-3, 0), (0, 0)
    picture = flow_colours(flow)
    np.testing.assert_allclose(picture[0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(picture[0, 1], [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(picture[1, 0], [1, 1, 1], atol=1e-6)
    counts = np.zeros((2, 1, 3), np.float32)
    counts[0, 0, 0] = counts[1, 0, 1] = 2
    colours = polarity_colours(counts)
    assert colours[0, 0, 2] > colours[0, 0, 0] and colours[0, 1, 0] > colours[0, 1, 2] and colours[0, 2].max() == 0


def test_pictures_of_events_need_the_recording(tmp_path):
    predictions = write_scored(tmp_path, ("right",), 0.4)
    with pytest.raises(InputError, match="--data"):
        save_all(predictions, tmp_path / "out", ["events"], [], load_hand())
    assert save_all(predictions, tmp_path / "out", ["joints"], [], load_hand()) == len(predictions)
    assert obj_text(HandMesh(np.eye(3), np.zeros((21, 3)), np.array([[0, 1, 2]]))).endswith("f 1 2 3\n")
