"""Laws of our checkpoints: a file rebuilds its model alone, and other files are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evhands.models.checkpoint import CheckpointMeta, code_version, load_model, read_checkpoint, save_checkpoint
from evhands.models.detector import Detector, DetectorConfig
from evhands.models.flow import FlowConfig, FlowNet
from evhands.models.paper import PaperConfig, PaperEstimator
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.types import InputError

TINY = FlowConfig(base_channels=2, levels=2, residual_blocks=1)
META = CheckpointMeta(
    data={"train": ["a", "b"], "test": ["c"]},
    code_version="1+abc",
    seed=3,
    command="train x",
    figures={"mpjpe_mm": 30.5},
)


def _tiny_paper() -> PaperEstimator:
    config = PaperConfig(flow=TINY, flow_training="trained", hand_model="mano")
    pose = replace(config.pose, recurrent_channels=4, hidden=4, cell="lstm")
    encoder = replace(pose.encoder, channels=(4, 4), blocks=(1, 1))
    return PaperEstimator(replace(config, pose=replace(pose, encoder=encoder)))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("flow", lambda: FlowNet(TINY)),
        ("paper", _tiny_paper),
        ("small", lambda: SmallEstimator(SmallConfig(channels=(8, 8, 8), memory=8))),
        ("detector", lambda: Detector(DetectorConfig())),
    ],
)
def test_a_file_rebuilds_its_model_alone(tmp_path, name, make):
    model = make()
    save_checkpoint(tmp_path / "m.pt", name, model, META)
    found = read_checkpoint(tmp_path / "m.pt", wanted=name)
    assert found.model.config == model.config
    assert found.meta == META
    assert not found.model.training
    torch.testing.assert_close(found.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_half_precision_halves_the_file_and_keeps_three_digits(tmp_path):
    model = FlowNet(replace(TINY, base_channels=16))
    save_checkpoint(tmp_path / "full.pt", "flow", model, META)
    save_checkpoint(tmp_path / "half.pt", "flow", model, META, half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("full.pt", "half.pt")]
    assert sizes[1] < 0.6 * sizes[0]
    found = read_checkpoint(tmp_path / "half.pt").model.state_dict()
    for key, value in model.state_dict().items():
        assert found[key].dtype == value.dtype
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6)


def test_wrong_files_are_told(tmp_path):
    model = FlowNet(TINY)
    good = tmp_path / "good.pt"
    save_checkpoint(good, "flow", model, META)
    content = torch.load(good, weights_only=True)
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:-2000])
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "lightning.pt")
    changed = {
        "key": {"config": content["config"] | {"colour": 3}},
        "shape": {"config": content["config"] | {"base_channels": 3}},
        "kind": {"model": "teapot"},
        "version": {"version": 99},
        "weights": {"state_dict": {k: v for k, v in content["state_dict"].items() if "heads.0" not in k}},
    }
    for name, change in changed.items():
        torch.save(content | change, tmp_path / f"{name}.pt")
    for name, message in {
        "absent": "Could not read",
        "cut": "Could not read",
        "text": "Could not read",
        "lightning": "load_published",
        "key": "has no colour",
        "shape": "size mismatch",
        "kind": "'teapot'",
        "version": "99",
        "weights": "heads.0",
    }.items():
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / f"{name}.pt")
    with pytest.raises(InputError, match="wanted 'paper'"):
        read_checkpoint(good, wanted="paper")
    with pytest.raises(InputError, match="no model 'teapot'"):
        load_model("teapot")
    with pytest.raises(InputError, match="alone gives no hand poses"):
        load_model(good)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    model = FlowNet(TINY)
    save_checkpoint(tmp_path / "m.pt", "flow", model, META)
    before = (tmp_path / "m.pt").read_bytes()
    with pytest.raises(InputError, match="untouched"):
        save_checkpoint(tmp_path / "m.pt" / "below.pt", "flow", model, META)
    assert (tmp_path / "m.pt").read_bytes() == before


def test_code_version_starts_with_the_package_s():
    import evhands

    assert code_version().startswith(evhands.__version__)
