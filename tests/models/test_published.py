"""The published checkpoints: outputs equal the recorded ones, and every key is accounted for."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import shared_path
from evhands.geometry import virtual_move
from evhands.models.paper import PaperEstimator
from evhands.models.published import Published, from_published, load_published
from evhands.types import InputError, Prediction
from published_weights import LEARNED, recipe_weights

STEM = "infer_encoder.fusion_encoders.0.weight"


@pytest.fixture(scope="module")
def fixtures() -> Path:
    return shared_path("fixtures/network")


@pytest.fixture(scope="module")
def weights(fixtures: Path) -> dict[str, Tensor]:
    return recipe_weights(fixtures)


@pytest.fixture(scope="module")
def published(weights: dict[str, Tensor]) -> Published:
    return from_published(weights)


def test_recipe_gives_the_recorded_checksums(weights, fixtures):
    sums = json.loads((fixtures / "weights_checksums.json").read_text())["sums"]
    for name in (n for n in weights if n.startswith(LEARNED)):
        value = weights[name].double()
        np.testing.assert_allclose([value.sum(), value.abs().sum()], sums[name], rtol=1e-9, atol=1e-6)


def _item_inputs(fixtures: Path) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    items = [np.load(fixtures.parent / "dataset" / f"eval_seq{i}.npz") for i in ("0_item0", "2_item2")]
    last = {
        key: np.stack([item[key][-4:] for item in items])
        for key in ("event_encoder_repre", "flow_repre", "bbox", "annot/K")
    }
    inputs = {"lnes": torch.from_numpy(last["event_encoder_repre"]), "voxel": torch.from_numpy(last["flow_repre"])}
    return inputs, last["bbox"], last["annot/K"]


def _dense_inputs(fixtures: Path) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    voxel = rng.standard_normal((1, 4, 5, 128, 128)).astype(np.float32)
    lnes = rng.random((1, 4, 2, 128, 128)).astype(np.float32)
    item = np.load(fixtures.parent / "dataset" / "eval_seq0_item0.npz")
    inputs = {"lnes": torch.from_numpy(lnes), "voxel": torch.from_numpy(voxel)}
    return inputs, item["bbox"][None, -4:], item["annot/K"][None, -4:]


def _run(estimator: PaperEstimator, inputs: dict[str, Tensor]) -> tuple[Prediction, Tensor]:
    """The prediction, and the flows of all scales on the way (b, t, 4, 2, h, w)."""
    flows = []
    hook = estimator.flow.register_forward_hook(lambda _, __, output: flows.append(output))
    with torch.no_grad():
        prediction, _ = estimator(inputs)
    hook.remove()
    return prediction, flows[0].unflatten(0, inputs["voxel"].shape[:2])


@pytest.fixture(scope="module")
def dense(published, fixtures) -> tuple[Prediction, Tensor]:
    return _run(published.estimator, _dense_inputs(fixtures)[0])


def _compare(estimator, run, boxes, K, wanted, step: int) -> None:
    prediction, flows = run
    pose, tail = prediction.pose, (slice(None), slice(-3, None))
    virtual = (pose.wrist - estimator.wrist_offset(pose.shape))[tail].numpy()
    moves = [virtual_move(*box, k) for box, k in zip(boxes[:, -3:].reshape(-1, 3), K[:, -3:].reshape(-1, 3, 3))]
    found = {
        "preds/mano_hand_pose": (pose.joints.flatten(-2) - estimator.joints_mean)[tail],
        "preds/mano_shape": pose.shape[tail],
        "preds/mano_rot_pose": pose.orientation[tail],
        "preds/mano_trans": virtual + virtual[..., 2:] * np.reshape(moves, virtual.shape),
        "flow_pred": flows[:, -2:, ..., ::step, ::step].flatten(2, 3).movedim(2, -1),
        "flow_all_mean": flows.mean((-2, -1)).flatten(0, 1),
    }
    for key, value in found.items():
        np.testing.assert_allclose(np.asarray(value), wanted[key], rtol=0, atol=1e-5, err_msg=key)


def test_outputs_equal_the_published_ones_on_events(published, fixtures):
    inputs, boxes, K = _item_inputs(fixtures)
    run = _run(published.estimator, inputs)
    _compare(published.estimator, run, boxes, K, np.load(fixtures / "eval_b2_s4.npz"), 2)


def test_outputs_equal_the_published_ones_on_dense_inputs(published, fixtures, dense):
    _, boxes, K = _dense_inputs(fixtures)
    _compare(published.estimator, dense, boxes, K, np.load(fixtures / "eval_dense_s4.npz"), 4)


def test_one_window_a_call_equals_the_sequence(published, fixtures, dense):
    inputs, whole = _dense_inputs(fixtures)[0], dense[0]
    state = published.estimator.initial_state(1)
    for t in range(2):
        with torch.no_grad():
            step, state = published.estimator({key: value[:, t] for key, value in inputs.items()}, state)
        for part in ("orientation", "wrist", "joints", "shape"):
            torch.testing.assert_close(getattr(step.pose, part), getattr(whole.pose, part)[:, t], rtol=0, atol=2e-5)
        torch.testing.assert_close(step.flow, whole.flow[:, t], rtol=0, atol=1e-4)


def test_hand_model_is_read_from_the_layer(published, weights):
    hand = published.hand
    assert (published.stage, hand.name, hand.side) == ("full", "mano", "right")
    posedirs = weights["supervision.mano_layer.posedirs"]
    # smplx: offsets (V * 3) = pose features (135) @ posedirs, reshaped to (V, 3).
    features = torch.randn(135, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hand.pose_directions @ features, (features @ posedirs).reshape(778, 3))
    shape = torch.linspace(-1, 1, 10)
    torch.testing.assert_close(published.estimator.wrist_offset(shape), hand.with_shape(shape).joints16[0])


def test_every_missing_surplus_and_misshapen_key_is_named(weights):
    wrong = {k: v for k, v in weights.items() if "update_gate" not in k and "betas" not in k}
    wrong["extra.weight"] = torch.zeros(1)
    wrong["infer_encoder.predictors.3.bias"] = torch.zeros(64)
    with pytest.raises(InputError) as error:
        from_published(wrong)
    for part in ("update_gate.weight", "update_gate.bias", "mano_layer.betas", "extra.weight", "(64,)", "(61,)"):
        assert part in str(error.value)
    assert "3 missing" in str(error.value)
    assert "1 surplus" in str(error.value)


def test_flow_stage_gives_the_flow_model(weights, published):
    stage1 = weights | {STEM: torch.zeros(64, 10, 7, 7)}
    bare = {k: v for k, v in weights.items() if k.startswith("flow_encoder.")}
    voxel = torch.randn(1, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = published.flow(voxel)
        for given in (stage1, bare):
            found = from_published(given)
            assert (found.stage, found.estimator) == ("flow", None)
            torch.testing.assert_close(found.flow(voxel), wanted)
    with pytest.raises(InputError, match="resblocks"):
        from_published({k: v for k, v in bare.items() if "resblocks.1" not in k})


def _lightning(state_dict: dict[str, Tensor], **more: object) -> dict[str, object]:
    return {"epoch": 0, "global_step": 3, "pytorch-lightning_version": "2.6.6", "state_dict": state_dict} | more


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_files_are_read_without_running_their_code(tmp_path, weights, published):
    bare = {k: v for k, v in weights.items() if k.startswith("flow_encoder.")}
    plain, foreign = tmp_path / "plain.ckpt", tmp_path / "foreign.ckpt"
    torch.save(_lightning(bare), plain)
    torch.save(_lightning(bare, hyper_parameters=Namespace(a=1), callbacks={"x": _Bomb(), "y": Path("p")}), foreign)
    for path in (plain, foreign):
        found = load_published(path)
        torch.testing.assert_close(found.flow.state_dict(), published.flow.state_dict())


def test_wrong_files_are_told(tmp_path):
    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    torch.save(_lightning({"a": torch.zeros(1000)}), tmp_path / "other.ckpt")
    whole = (tmp_path / "other.ckpt").read_bytes()
    wrong = {
        "Could not read": [
            tmp_path / "absent.ckpt",
            written("empty.ckpt", b""),
            written("text.ckpt", b"hello"),
            written("cut.ckpt", whole[: len(whole) // 2]),
        ],
        "another model": [tmp_path / "other.ckpt"],
    }
    torch.save({"model": torch.zeros(1)}, tmp_path / "dict.ckpt")
    wrong["no Lightning checkpoint"] = [tmp_path / "dict.ckpt"]
    for message, paths in wrong.items():
        for path in paths:
            with pytest.raises(InputError, match=message):
                load_published(path)
