"""Weights of the published layout for tests: the recipe of the fixtures, and a hand model for its 15 keys."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evhands.hand.model import HandModel

LEARNED = ("flow_encoder.", "infer_encoder.")
PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]


def recipe_weights(fixtures: Path) -> dict[str, Tensor]:
    """All 301 keys in their order: networks by the recipe of the fixtures' README, the hand drawn at random."""
    shapes = json.loads((fixtures / "state_dict_keys.json").read_text())["ordered_keys"]
    return {
        name: torch.from_numpy(recipe_value(name, shape))
        if name.startswith(LEARNED)
        else _hand_part(name, shape, dtype)
        for name, (shape, dtype) in shapes.items()
    }


def with_hand(weights: dict[str, Tensor], hand: HandModel) -> dict[str, Tensor]:
    """The same with the layer of a hand model in the published layout."""
    layer = {
        "shapedirs": hand.shape_directions, "v_template": hand.vertices, "J_regressor": hand.joint_regressor,
        "posedirs": hand.pose_directions.reshape(-1, 135).T.contiguous(), "lbs_weights": hand.skin_weights,
        "hand_mean": hand.mean_pose, "faces_tensor": hand.faces,
        "vertex_joint_selector.extra_joints_idxs": hand.tip_vertices,
    }  # fmt: skip
    return weights | {f"supervision.mano_layer.{name}": value for name, value in layer.items()}


def recipe_value(name: str, shape: list[int]) -> np.ndarray:
    """One key of the recipe."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.array(1000)
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if leaf == "running_mean":
        return 0.05 * noise
    if leaf == "running_var":
        return np.exp(0.2 * noise)
    if len(shape) >= 2:
        return noise * np.float32(_gain(name) / np.sqrt(np.prod(shape[1:])))
    if leaf == "weight":
        return (1 + 0.1 * noise) * np.float32(0.4 if name.endswith(".bn2.weight") else 1)
    bias = 0.05 * noise
    if name.endswith("predictors.3.bias"):
        bias[45:48] = (-1.33, -0.47, 0.6)
        bias[58:61] = (-1.209, -1.209, 1.209)
    return bias


def _gain(name: str) -> float:
    if any(part in name for part in ("reset_gate", "update_gate", "out_gate", ".preds.")):
        return 1.0
    return 0.8 if name.endswith("predictors.3.weight") else float(np.sqrt(2))


def _hand_part(name: str, shape: list[int], dtype: str) -> Tensor:
    if name.endswith("parents"):
        return torch.tensor(PARENTS)
    if dtype == "int64":
        return torch.arange(int(np.prod(shape))).reshape(shape) % 778
    values = torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * 0.1
    return values / values.sum(1, keepdim=True) if name.endswith("J_regressor") else values
