"""Laws of scoring: misses, intervals, groups, and files that come back as they were written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.baselines import ConstantPose
from evhands.predictions import Predictions, Seen, blank, joined, load_predictions, save_predictions
from evhands.scoring import means, results, row_values
from evhands.types import InputError

K = ((300.0, 0.0, 170.0), (0.0, 300.0, 130.0), (0.0, 0.0, 1.0))
CONSTANT = ConstantPose(*(np.random.default_rng(k).normal(0, 0.04, (21, 3)) for k in (1, 2)))


def predictions(count: int = 12, side: str = "right", seed: int = 0, bucket: str = "normal_fixed") -> Predictions:
    """A hand that is predicted a little beside the truth, 15 times a second."""
    rng = np.random.default_rng(seed)
    columns = blank(count)
    truth = rng.normal(0, 0.03, (21, 3)) + [0, 0, 0.6] + np.cumsum(rng.normal(0, 0.003, (count, 1, 3)), 0)
    given = truth + rng.normal(0, 0.01, truth.shape)
    columns["truth_m"], columns["joints_m"] = truth.astype(np.float32), given.astype(np.float32)
    for name, points in (("truth_px", truth), ("joints_px", given)):
        columns[name] = (points[..., :2] / points[..., 2:] * 300 + [170, 130]).astype(np.float32)
    columns["t_us"] = np.round(1e6 + np.arange(count) * 1e6 / 15).astype(np.int64)
    columns["window_us"] += 66_667
    columns["found"][:] = True
    columns["speed"][:] = 0.3
    seen = Seen(name=f"r{seed}", side=side, subject="1", bucket=bucket, size=(346, 260), K=K, start_us=0)
    meta = {"method": "m", "protocol": "evhands", "crop": "truth", "hand_model": "open"}
    return Predictions(meta=meta, recordings=(seen,), **columns)


def _unfound(all_rows: Predictions, row: int) -> Predictions:
    found, joints = all_rows.found.copy(), all_rows.joints_m.copy()
    found[row], joints[row] = False, np.nan
    return replace(
        all_rows, found=found, joints_m=joints, joints_px=np.where(found[:, None, None], all_rows.joints_px, np.nan)
    )


def test_a_missed_hand_scores_the_constant_pose_and_counts_as_a_miss():
    whole = predictions()
    missed = row_values(_unfound(whole, 3), CONSTANT).of
    plain = row_values(whole, CONSTANT).of
    for name in ("mpjpe21", "mpjpe20", "pa_mpjpe21", "px21"):
        others = np.arange(12) != 3
        np.testing.assert_array_equal(missed[name][others], plain[name][others])
    assert missed["mpjpe21"][3] == missed["constant_mpjpe21"][3]
    assert missed["pa_mpjpe21"][3] == missed["constant_pa_mpjpe21"][3]
    assert missed["found"].mean() == pytest.approx(11 / 12)
    assert np.isnan(missed["camera_error"][3]) and np.isnan(missed["depth_error"][3])
    assert np.isfinite(missed["px21"][3])


def test_the_constant_pose_of_a_left_hand_is_the_mirror_image():
    right = predictions(side="right")
    mirror = np.array([-1, 1, 1], np.float32)
    flipped = {name: getattr(right, name) * mirror for name in ("joints_m", "truth_m")}
    left = replace(right, recordings=(replace(right.recordings[0], side="left"),), **flipped)
    for name in ("mpjpe21", "constant_mpjpe21", "constant_pa_mpjpe21"):
        np.testing.assert_allclose(row_values(left, CONSTANT).of[name], row_values(right, CONSTANT).of[name])


def test_rows_without_truth_are_not_scored():
    whole = predictions()
    truth, pixels = whole.truth_m.copy(), whole.truth_px.copy()
    truth[5], pixels[5] = np.nan, np.nan
    content, _ = results(replace(whole, truth_m=truth, truth_px=pixels), CONSTANT)
    assert content["rows"] == 12 and content["scored"] == 11
    assert {
        figure["rows"]
        for name, figure in content["figures"]["all"].items()
        if "jitter" not in name and "acc" not in name
    } == {11}


def test_motion_of_the_truth_has_no_acceleration_error_and_its_own_jitter():
    whole = predictions()
    same = row_values(replace(whole, joints_m=whole.truth_m), CONSTANT).of
    inner = slice(1, -1)
    np.testing.assert_allclose(same["acceleration_error"][inner], 0, atol=1e-9)
    np.testing.assert_allclose(same["jitter"][inner], same["true_jitter"][inner])
    assert np.isnan(same["jitter"][[0, -1]]).all()
    # A constant acceleration a is found as a: x = a t^2 / 2.
    t = whole.t_us * 1e-6
    path = (0.5 * 3.0 * t**2)[:, None, None] * [0, 0, 1] + np.zeros((12, 21, 3))
    found = row_values(replace(whole, joints_m=path.astype(np.float32)), CONSTANT).of["jitter"][inner]
    np.testing.assert_allclose(found, 3.0, rtol=2e-3)  # float32 positions


def test_no_acceleration_reaches_over_a_gap_or_into_another_recording():
    a, b = predictions(4), predictions(4, seed=1)
    both = row_values(joined([a, b]), CONSTANT).of["jitter"]
    np.testing.assert_array_equal(np.isnan(both), [True, False, False, True] * 2)
    gap = a.t_us.copy()
    gap[2:] += 500_000
    assert np.isnan(row_values(replace(a, t_us=gap), CONSTANT).of["jitter"]).all()


def test_intervals_are_those_of_a_plain_bootstrap_over_clusters():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(8), rng.integers(3, 20, 8))
    values = {"a": rng.normal(cluster, 1.0), "b": np.where(cluster < 2, np.nan, rng.random(len(cluster)))}
    found = means(values, cluster, draws=4000, seed=1)
    for name, column in values.items():
        parts = [column[cluster == c] for c in range(8)]
        drawn = [np.nanmean(np.concatenate([parts[c] for c in rng.integers(0, 8, 8)])) for _ in range(4000)]
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        assert found[name].mean == pytest.approx(np.nanmean(column))
        assert found[name].rows == np.isfinite(column).sum()
        width = high - low
        assert abs(found[name].low - low) < 0.1 * width and abs(found[name].high - high) < 0.1 * width


def test_one_cluster_has_a_mean_and_no_interval():
    found = means({"a": np.arange(5.0)}, np.zeros(5, np.int64))["a"]
    assert found.mean == 2.0 and np.isnan(found.low) and np.isnan(found.high)


def test_a_figure_that_one_cluster_has_gets_no_interval():
    cluster = np.repeat(np.arange(4), 5)
    values = {"a": np.arange(20.0), "b": np.where(cluster == 2, np.arange(20.0), np.nan)}
    found = means(values, cluster)
    assert found["a"].low < found["a"].mean < found["a"].high
    assert found["b"].mean == 12.0 and np.isnan(found["b"].low)


def test_figures_of_groups_are_means_of_their_rows():
    parts = [predictions(5, seed=k, bucket=bucket) for k, bucket in enumerate(("normal_fixed", "fast", "normal_fixed"))]
    whole = joined(parts)
    content, values = results(whole, CONSTANT)
    rows = np.isin(whole.recording, (0, 2))
    assert content["figures"]["normal_fixed"]["mpjpe21"]["mean"] == pytest.approx(
        values.of["mpjpe21"][rows].mean(), abs=1e-5
    )
    assert list(content["figures"]) == ["all", "normal_fixed", "fast"]
    assert sum(b["rows"] for b in content["over"]["time"]) == len(whole)
    assert content["pck"]["rooted"][0] == 0.0 and content["pck"]["auc"] == pytest.approx(
        np.mean(content["pck"]["rooted"]), abs=0.01
    )


def test_files_come_back_and_others_are_told(tmp_path):
    whole = joined([predictions(5), predictions(3, side="left", seed=1)])
    save_predictions(whole, tmp_path / "p.npz")
    back = load_predictions(tmp_path / "p.npz")
    assert back.recordings == whole.recordings and back.meta == whole.meta
    np.testing.assert_array_equal(back.joints_m, whole.joints_m)
    assert results(back, CONSTANT)[0] == results(whole, CONSTANT)[0]
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:500])
    for name in ("other.npz", "cut.npz", "absent.npz"):
        with pytest.raises(InputError, match="no file of predictions"):
            load_predictions(tmp_path / name)
