"""Laws of the metrics, and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from conftest import shared_path
from evhands import metrics
from evhands.hand.skeleton import permutation

TO_OPENPOSE = permutation("smplx_mano21", "openpose21")


def _joints(seed: int, *batch: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*batch, 21, 3)) * 0.05


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5.0))
def test_procrustes_undoes_any_similarity(seed, scale):
    rng = np.random.default_rng(seed)
    truth = _joints(seed, 3)
    moved = scale * truth @ Rotation.random(random_state=seed).as_matrix().T + rng.normal(size=3)
    np.testing.assert_allclose(metrics.procrustes_aligned(moved, truth), truth, atol=1e-12)
    assert metrics.pa_mpjpe(moved, truth)["pa_mpjpe21"].max() < 1e-12


@given(st.integers(0, 2**32 - 1))
def test_no_small_similarity_does_better_than_procrustes(seed):
    rng = np.random.default_rng(seed)
    source, truth = _joints(seed), _joints(seed + 1)
    best = metrics.procrustes_aligned(source, truth)
    centre = best.mean(0)
    other = (best - centre) @ Rotation.from_rotvec(rng.normal(size=3) * 0.02).as_matrix() * rng.normal(1, 0.02)
    other = other + centre + rng.normal(size=3) * 1e-3
    assert ((best - truth) ** 2).sum() <= ((other - truth) ** 2).sum()


def test_procrustes_does_not_reflect_and_takes_planar_and_collapsed_points():
    truth = _joints(0)
    mirrored = truth * [-1, 1, 1]
    assert metrics.pa_mpjpe(mirrored, truth)["pa_mpjpe21"] > 0.01
    flat = truth * [1, 1, 0]
    turned = flat @ Rotation.from_rotvec([0.3, 0.2, -2]).as_matrix()
    np.testing.assert_allclose(metrics.procrustes_aligned(turned, flat), flat, atol=1e-12)
    collapsed = metrics.procrustes_aligned(np.zeros((21, 3)), truth)
    np.testing.assert_allclose(collapsed, np.broadcast_to(truth.mean(0), (21, 3)), atol=1e-12)


def test_batch_equals_one_by_one_and_means_are_named():
    predicted, truth = _joints(1, 2, 3), _joints(2, 2, 3)
    for function in (metrics.mpjpe, metrics.pa_mpjpe):
        whole = function(predicted, truth)
        for index in np.ndindex(2, 3):
            for name, value in function(predicted[index], truth[index]).items():
                np.testing.assert_allclose(whole[name][index], value)
    values = metrics.mpjpe(predicted, truth)
    np.testing.assert_allclose(values["mpjpe21"], values["mpjpe20"] * 20 / 21)


def test_mpjpe_does_not_see_where_the_hand_is():
    predicted, truth = _joints(1, 4), _joints(2, 4)
    shifted = metrics.mpjpe(predicted + [1.0, 2.0, 3.0], truth)
    np.testing.assert_allclose(shifted["mpjpe21"], metrics.mpjpe(predicted, truth)["mpjpe21"])


def test_pck_is_monotone_strict_and_its_area_lies_between_its_ends():
    errors = np.array([[0.0, 0.01], [0.02, 0.2]])
    curve = metrics.pck_curve(errors)
    assert (np.diff(curve) >= 0).all()
    np.testing.assert_allclose(metrics.pck_curve(errors, np.array([0.0, 0.01, 0.0101, 1.0])), [0, 0.25, 0.5, 1])
    assert curve[0] <= metrics.pck_auc(curve) <= curve[-1]
    assert np.isnan(metrics.pck_curve(np.zeros(0))).all()


def test_palm_normalised_error_does_not_see_scale_or_place_but_the_published_one_does():
    rng = np.random.default_rng(0)
    truth = rng.uniform(50, 200, (5, 21, 2))
    predicted = truth + rng.normal(size=truth.shape)
    own = metrics.palm_errors_2d(predicted, truth)
    np.testing.assert_allclose(metrics.palm_errors_2d(predicted * 3 + 40, truth * 3 + 40), own)
    published = metrics.published_palm_errors_2d(predicted, truth)
    assert np.abs(metrics.published_palm_errors_2d(predicted + 400, truth + 400) - published).max() > 0.01


def test_published_procrustes():
    data = np.load(shared_path("fixtures/evaluation/procrustes.npz"))
    predicted, truth = (data[key][:, TO_OPENPOSE] for key in ("pred", "gt"))
    errors = {"mpjpe": metrics.joint_errors(predicted, truth), "pa": metrics.pa_joint_errors(predicted, truth)}
    for name, value in errors.items():
        np.testing.assert_allclose(value, data[f"{name}_per_joint"][:, TO_OPENPOSE], atol=1e-6)
    np.testing.assert_allclose(metrics.mpjpe(predicted, truth)["mpjpe21"], data["mpjpe_per_item_mean21"], atol=1e-6)
    np.testing.assert_allclose(metrics.pa_mpjpe(predicted, truth)["pa_mpjpe21"], data["pa_per_item_mean21"], atol=1e-6)
    # Its validation metric: the mean over valid joints, the root among them, times 21 / 20.
    valid = data["joint_valid"][:, TO_OPENPOSE, 0] > 0
    np.testing.assert_allclose(errors["mpjpe"][valid].mean() * 21 / 20, data["val_style_mpjpe"], atol=1e-6)
    # The published points are aligned to the truth seen from its root.
    rooted = truth - truth[:, :1]
    aligned = metrics.procrustes_aligned(predicted, rooted)
    np.testing.assert_allclose(aligned, data["pa_aligned"][:, TO_OPENPOSE], atol=1e-6)


@pytest.mark.parametrize("aligned", [False, True])
def test_published_2d_errors(aligned):
    data = np.load(shared_path("fixtures/evaluation/error2d.npz"))
    predicted, truth = data["kps_pred"].astype(np.float64), data["kps_gt"].astype(np.float64)
    pixels = metrics.errors_2d(predicted, truth, root_aligned=aligned)
    np.testing.assert_allclose(pixels, data[f"err_abs1_align{int(aligned)}"], atol=1e-4)
    palms = metrics.published_palm_errors_2d(predicted, truth, root_aligned=aligned)
    np.testing.assert_allclose(palms, data[f"err_abs0_align{int(aligned)}"], rtol=3e-5)


def test_published_pck_and_printed_means():
    data = np.load(shared_path("fixtures/evaluation/pck.npz"))
    for i, name in enumerate("abc"):
        curve = metrics.pck_curve(data[f"err_{name}"][:, 1:], data["thresholds"].astype(np.float64))
        np.testing.assert_allclose(curve, data[f"pck_{name}"], atol=1e-6)
        np.testing.assert_allclose(metrics.pck_auc(curve), data["auc"][i], atol=1e-6)
    lines = shared_path("fixtures/evaluation/print_mpjpes.txt").read_text().splitlines()
    printed = {line.rsplit(" is ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if "None" not in line}
    a, b = data["err_a"][:, 1:], data["err_b"][:, 1:]  # means without the root, whose exact zeros are excluded (O44)
    np.testing.assert_allclose(printed["a"], a.mean(), rtol=1e-6)
    np.testing.assert_allclose(printed["b"], b.mean(), rtol=1e-6)
    np.testing.assert_allclose(printed["last"], data["err_b"].mean(), rtol=1e-6)
    np.testing.assert_allclose(printed["MPJPE all"], np.concatenate([a, b]).mean(), rtol=1e-6)
