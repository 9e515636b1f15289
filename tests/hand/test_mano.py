"""The MANO reader: published figures, chumpy pickles without chumpy, and refusal of everything else."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import shared_path
from evhands.hand.mano import load_restricted, read_mano
from evhands.hand.model import HandModel, load_hand
from evhands.hand.skeleton import permutation
from evhands.types import InputError

TO_SMPLX = permutation("openpose21", "smplx_mano21")


def made_up_mano(seed: int = 0) -> dict[str, Any]:
    """Arrays of the shapes of MANO; a right hand, in that its fingers point to -x."""
    rng = np.random.default_rng(seed)
    vertices = rng.normal(size=(778, 3)) * 0.03
    vertices[:16, 0] = np.r_[0.1, np.full(15, -0.1)]
    return {
        "v_template": vertices,
        "f": rng.integers(0, 778, (1538, 3)).astype(np.uint32),
        "shapedirs": 0.01 * vertices[:, :, None] * rng.random(10) + rng.normal(size=(778, 3, 10)) * 1e-5,
        "posedirs": np.broadcast_to(rng.normal(size=135) * 1e-3, (778, 3, 135)).astype(np.float32),
        "J_regressor": scipy.sparse.csc_matrix(np.eye(16, 778)),
        "weights": np.full((778, 16), 1 / 16),
        "hands_mean": rng.normal(size=45),
        "hands_components": np.eye(45),
        "hands_coeffs": rng.normal(size=(100, 45)),
        "kintree_table": np.zeros((2, 16), np.uint32),
        "bs_style": "lbs",
    }


def save(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes that pickle as those of chumpy do."""
    made = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        made[name] = type(name, (), {"__module__": module})
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        setattr(sys.modules[module], name, made[name])
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    return types.SimpleNamespace(**made)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_nodes_and_sparse_matrices_come_back_as_arrays(tmp_path: Path, chumpy: Any, protocol: int) -> None:
    content = made_up_mano()
    expected = {key: np.asarray(v.todense() if key == "J_regressor" else v) for key, v in content.items()}
    inner, select, plain = chumpy.Ch(), chumpy.Select(), chumpy.Ch()
    inner.__dict__ = {"x": np.concatenate([content["shapedirs"], np.zeros((778, 3, 5))], 2), "_dirty_vars": set()}
    kept = np.arange(778 * 3 * 15).reshape(778, 3, 15)[:, :, :10].ravel()
    select.__dict__ = {"a": inner, "idxs": kept, "preferred_shape": (778, 3, 10)}
    plain.__dict__ = {"x": content["weights"]}
    path = save(tmp_path / "MANO_RIGHT.pkl", content | {"shapedirs": select, "weights": plain}, protocol)
    found = load_restricted(path)
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        _Runs(os.mkdir, "owned"),
        _Runs(eval, "open('owned', 'w')"),
        _Runs(getattr, "text", "upper"),
        _Runs(np.fromfile, "/etc/passwd"),
        np.random.default_rng(0),
        Path("x"),
    ],
    ids=lambda e: getattr(e, "call", [type(e)])[0].__name__,
)
def test_a_pickle_that_asks_for_anything_else_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "MANO_RIGHT.pkl", made_up_mano() | {"extra": evil})
    with pytest.raises(InputError, match="asks for"):
        read_mano(path)
    assert not (tmp_path / "owned").exists()


def test_a_codec_other_than_latin1_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"c_codecs\nencode\n(Vtext\nVrot13\ntR.")
    with pytest.raises(InputError, match="codec"):
        load_restricted(tmp_path / "x.pkl")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = save(tmp_path_factory.mktemp("mano") / "whole.pkl", made_up_mano())
    return path, path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(share=st.floats(0, 0.9999))
def test_a_truncated_pickle_is_refused(content: tuple[Path, bytes], share: float) -> None:
    path, whole = content
    cut = path.with_name("cut.pkl")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="Wanted a MANO"):
        read_mano(cut)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_other_bytes_are_refused(content: tuple[Path, bytes], junk: bytes) -> None:
    path = content[0].with_name("junk.pkl")
    path.write_bytes(junk)
    with pytest.raises(InputError):
        read_mano(path)


@pytest.mark.parametrize("missing", ["v_template", "posedirs", "hands_mean", "kintree_table"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    content = made_up_mano()
    del content[missing]
    with pytest.raises(InputError, match=f"lacks {missing}"):
        read_mano(save(tmp_path / "MANO_RIGHT.pkl", content))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "holds a list"),
        (made_up_mano() | {"v_template": np.zeros((6890, 3))}, r"v_template of shape \(6890, 3\) instead of 778 x 3"),
        (made_up_mano() | {"hands_mean": np.array(["a"] * 45)}, "not numbers"),
    ],
    ids=["list", "body", "text"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        read_mano(save(tmp_path / "MANO_RIGHT.pkl", content))


def left_with_shape_of_right(right: dict[str, Any]) -> dict[str, Any]:
    """What the published left pickle does: the template is mirrored, the shape directions are not."""
    return right | {"v_template": right["v_template"] * [-1, 1, 1]}


@pytest.mark.parametrize("right_beside", [True, False])
def test_unmirrored_shape_directions_of_the_left_hand_are_mended(tmp_path: Path, right_beside: bool) -> None:
    right = made_up_mano()
    if right_beside:
        save(tmp_path / "MANO_RIGHT.pkl", right)
    path = save(tmp_path / "MANO_LEFT.pkl", left_with_shape_of_right(right))
    mended, raw = read_mano(path), read_mano(path, fix_left_shape=False)
    assert mended["side"] == raw["side"] == "left"
    np.testing.assert_array_equal(raw["shape_directions"], right["shapedirs"])
    np.testing.assert_array_equal(mended["shape_directions"], right["shapedirs"] * np.array([-1, 1, 1])[:, None])


@pytest.mark.parametrize("right_beside", [True, False])
def test_shape_directions_that_are_right_stay(tmp_path: Path, right_beside: bool) -> None:
    right = made_up_mano()
    if right_beside:
        save(tmp_path / "MANO_RIGHT.pkl", right)
    whole = left_with_shape_of_right(right) | {"shapedirs": right["shapedirs"] * np.array([-1, 1, 1])[:, None]}
    found = read_mano(save(tmp_path / "MANO_LEFT.pkl", whole))
    np.testing.assert_array_equal(found["shape_directions"], whole["shapedirs"])


def test_a_right_pickle_asked_for_as_left_is_mirrored(tmp_path: Path) -> None:
    path = save(tmp_path / "MANO_RIGHT.pkl", made_up_mano())
    right, left = load_hand(path), load_hand(path, side="left")
    assert (right.side, left.side, left.name) == ("right", "left", "mano")
    torch.testing.assert_close(left.vertices, right.mirrored().vertices, rtol=0, atol=0)


# The published figures.


def fixture_hand(key: str, **options: Any) -> HandModel:
    side = "left" if key.startswith("left") else "right"
    path = shared_path(f"fixtures/mano/MANO_{side.upper()}.pkl")
    return load_hand(path, side=side, fix_left_shape=key != "left_raw", **options)


def inputs(published: Any) -> dict[str, torch.Tensor]:
    names = ("global_orient", "hand_pose", "betas", "transl")
    return {name: torch.from_numpy(published[f"inp/{name}"]).requires_grad_() for name in names}


@pytest.mark.parametrize("key", ["right", "left_raw", "left_fixed"])
def test_vertices_joints_and_gradients_equal_the_published_ones(key: str) -> None:
    published = np.load(shared_path("fixtures/mano/mano.npz"))
    model, given_ = fixture_hand(key), inputs(published)
    shaped = model.with_shape(given_["betas"])
    full = torch.cat([given_["global_orient"], given_["hand_pose"] + model.mean_pose], 1)
    np.testing.assert_allclose(full.detach(), published[f"{key}/full_pose"], atol=1e-6)
    wrist = given_["transl"] + shaped.joints16[:, 0]
    mesh = shaped.with_pose(full[:, :3], full[:, 3:].unflatten(1, (15, 3)), wrist).mesh()
    joints = mesh.joints[:, TO_SMPLX]
    np.testing.assert_allclose(mesh.vertices.detach(), published[f"{key}/vertices"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(joints.detach(), published[f"{key}/joints"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(shaped.joints16[:, 0].detach(), published[f"{key}/root_joint"], atol=1e-6, rtol=0)
    weights = [torch.from_numpy(published[f"grad_weight_{name}"]) for name in ("vertices", "joints")]
    ((mesh.vertices * weights[0]).sum() + (joints * weights[1]).sum()).backward()
    for name, value in given_.items():
        np.testing.assert_allclose(value.grad, published[f"{key}/grad/{name}"], atol=5e-6, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("key", ["right_pca6", "right_pca45", "right_flat"])
def test_pose_components_and_the_flat_hand_equal_the_published_ones(key: str) -> None:
    published = np.load(shared_path("fixtures/mano/mano.npz"))
    model = fixture_hand(key, flat_hand_mean=key == "right_flat")
    given_ = inputs(published)
    # The published layer leaves components aside when it is asked for all 45 of them.
    by_components = key == "right_pca6"
    angles = given_["hand_pose"]
    joints = (
        model.joints_from_components(angles[:, :6])
        if by_components
        else (angles + model.mean_pose).unflatten(1, (15, 3))
    )
    np.testing.assert_allclose(joints.flatten(1).detach(), published[f"{key}/full_pose"][:, 3:], atol=1e-6)
    shaped = model.with_shape(given_["betas"])
    mesh = shaped.with_pose(given_["global_orient"], joints, given_["transl"] + shaped.joints16[:, 0]).mesh()
    np.testing.assert_allclose(mesh.joints[:, TO_SMPLX].detach(), published[f"{key}/joints"], atol=1e-6, rtol=0)
    if f"{key}/vertices" in published:
        np.testing.assert_allclose(mesh.vertices[:3].detach(), published[f"{key}/vertices"], atol=1e-6, rtol=0)


def test_a_left_pickle_without_the_right_one_is_mended_too(tmp_path: Path) -> None:
    shutil.copy(shared_path("fixtures/mano/MANO_LEFT.pkl"), tmp_path / "left.pkl")
    alone = load_hand(tmp_path / "left.pkl", side="left")
    torch.testing.assert_close(alone.shape_directions, fixture_hand("left_fixed").shape_directions, rtol=0, atol=0)


def test_rotations_equal_the_published_ones() -> None:
    published = np.load(shared_path("fixtures/mano/mano.npz"))
    found = roma.rotvec_to_rotmat(torch.from_numpy(published["rodrigues_in"]))
    # The published formula divides by |v + 1e-8|, which shows in the seventh digit.
    np.testing.assert_allclose(found, published["rodrigues_out"], atol=1e-6)
