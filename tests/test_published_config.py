"""Laws of the published YAML files: with the values of our recipes they are our recipes; nothing is passed over."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evhands.data.augment import AugmentConfig
from evhands.data.items import SplitConfig
from evhands.paper_recipes import PAPER_RECIPES
from evhands.published_config import PublishedConfig, read_published
from evhands.settings import changed
from evhands.types import InputError

SUPERVISED: dict[str, Any] = {
    "exper": {"epochs": 40, "mode": "train", "supervision": ["supervision"], "strategy": "ddp"},
    "data": {"data_dir": "set", "smplx_path": "hands", "train_subject": [0, 2, 4], "val_subject": [7],
             "eval_subject": [1, 3]},
    "preprocess": {"batch_size": 32, "num_workers": 4, "same_time_window": 66666.0, "max_window_time": 100000.0,
                   "augment": {"depth_range": [0.7, 1.3], "trans_range_x": [-0.3, 0.3], "trans_range_y": [-0.3, 0.3]},
                   "bbox": {"size": 128}},
    "method": {"flow": {"train": False, "fixed": True, "num_bins": 5}, "predictor": {"layer_dims": [128, 61]},
               "seq_model": {"seq_len": 12, "annot_len": 3, "model": "ConvGRU"},
               "optimizers": {"flow_encoder": {"lr": "1e-2"}, "infer_encoder": {"name": "Adam", "lr": "5e-4"}}},
    "loss": {"joint_3d": {"weight": 1000.0}, "mano": {"weight": 0.1}, "cm": {"weight": -3.0}},
}  # fmt: skip


def read(tmp_path: Path, *files: dict[str, Any]) -> PublishedConfig:
    paths = [tmp_path / f"{number}.yml" for number in range(len(files))]
    for path, values in zip(paths, files, strict=True):
        path.write_bytes(msgspec.yaml.encode(values))
    return read_published(paths)


def with_value(key: str, value: Any) -> dict[str, Any]:
    values = deepcopy(SUPERVISED)
    *sections, name = key.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return values


@pytest.mark.parametrize(
    ("published", "recipe", "train", "validation"),
    [
        ("train_flow", "flow", "02456789", ""),
        ("train_supervision", "supervised", "02456789", ""),
        ("supervision+semi", "semi", "02456789", ""),
        ("pretrain", "semi", "0245689", "7"),
        ("pretrain+eval", "semi", "0245689", "7"),
    ],
)
def test_published_configurations_are_our_recipes(published, recipe, train, validation, tmp_path, shared_path):
    """But for what they say otherwise: whom to train on and validate on, and evaluation one by one."""
    values = json.loads(shared_path("fixtures/network/configs.json").read_text())[published]
    told = read(tmp_path, values)
    assert (told.recipe, told.mode) == (recipe, "eval" if published == "pretrain+eval" else "train")
    ours = PAPER_RECIPES[recipe][0]()
    split = SplitConfig(train=tuple(train), validation=tuple(validation), test=("1", "3"))
    batch = 1 if told.mode == "eval" else ours.batch
    assert changed(ours, told.settings) == replace(ours, split=split, batch=batch)
    assert told.data == Path("(local)") and told.log["save_crop" if published != "pretrain" else "verbose"] is False


def test_values_arrive_where_they_belong(tmp_path):
    told = read(
        tmp_path,
        SUPERVISED,
        {
            "preprocess": {"augment": {"rotate_var": 0.1}, "bbox": {"shift_var": 0.2, "size": 64}},
            "method": {"encoder_fusion": {"channel_sizes": [1, 1, 2, 1]}, "flow": {"model_path": "flow.ckpt"}},
            "exper": {"gpus": 4},
        },
    )
    config = changed(PAPER_RECIPES["supervised"][0](), told.settings)
    assert config.augment == replace(AugmentConfig(), turn=0.1, jitter=0.2)
    assert (config.model.inputs.size_px, config.model.flow.range_px) == (64, 8.0)
    assert config.model.pose.encoder.blocks == (1, 1, 2, 1)
    assert config.learning_rate == 5e-4  # of the pose network: the FlowNet is not trained
    assert (told.start, told.devices, told.data) == (Path("flow.ckpt"), 4, Path("set"))


def test_later_files_go_over_earlier_ones_key_by_key(tmp_path):
    """The stage too: train_semi.yml is such a file."""
    semi = {
        "exper": {"supervision": ["supervision", "semi-supervision"]},
        "method": {"optimizers": {"infer_encoder": {"lr": 5e-5}}},
        "loss": {"cm": {"weight": -2.0}, "edge": {"weight": 0.05}, "smooth": {"weight": 0.2}},
    }
    told, reverse = read(tmp_path, SUPERVISED, semi), read(tmp_path, semi, SUPERVISED)
    assert (told.recipe, told.settings["learning_rate"], told.settings["weights.contrast"]) == ("semi", 5e-5, -2)
    assert told.settings["weights.joint"] == 1000 and told.settings["epochs"] == 40
    assert (reverse.recipe, reverse.settings["learning_rate"]) == ("supervised", 5e-4)


def test_keys_without_effect_are_told(tmp_path):
    told = read(tmp_path, SUPERVISED)
    assert set(told.without_effect) == {
        "preprocess.num_workers", "loss.cm.weight", "method.optimizers.flow_encoder.lr"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("method.flow.num_bin", 5, "method.flow.num_bins"),
        ("preprocess.bbox.sizes", 1, "preprocess.bbox.sizes"),
        ("exper", 3, "exper"),
        ("preprocess.repre", "voxel", "'LNES'"),
        ("data.flip", 1, "data.flip"),
        ("method.flow.usage", False, "method.flow.usage"),
        ("loss.mano.rot_weight", 11, "loss.mano.rot_weight = 11"),
        ("method.flow.train", True, "method.flow.fixed"),
        ("preprocess.augment.trans_range_x", [-0.3, 0.2], "trans_range_x"),
        ("preprocess.augment.depth_range", 0.7, "depth_range"),
        ("preprocess.batch_size", 2.5, "preprocess.batch_size"),
        ("method.predictor.layer_dims", [128, 60], "61 outputs"),
        ("method.optimizers.infer_encoder.lr", "fast", "infer_encoder.lr"),
        ("method.optimizers.infer_encoder.name", "SGD", "SGD"),
        ("exper.supervision", ["semi-supervision"], "exper.supervision"),
        ("preprocess.same_time_window", 5000, "same_time_window"),
    ],
)
def test_what_is_not_known_or_cannot_be_honoured_is_named(key, value, said, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, with_value(key, value))
    assert said in str(error.value) and key.split(".")[0] in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.yml").write_text("exper: [")
    (tmp_path / "list.yml").write_text("- 1")
    for name in ("broken.yml", "list.yml", "missing.yml"):
        with pytest.raises(InputError, match=name):
            read_published([tmp_path / name])
