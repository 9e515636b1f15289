"""The three training stages for `small`: its own losses of poses, and the paper's of flow, contrast, edges, smoothness.

The counterpart of `paper_stages`, whose terms are used as they are: `flow` teaches the light branch the hand flow of
true poses, `supervised` the network the labels, `semi` adds what events say about poses without a label.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import roma
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from evhands.hand.model import HandModel, pose_hand
from evhands.losses import Term
from evhands.models.paper_stages import Stage, StageConfig, Tensors, shared_terms, true_poses
from evhands.models.small import Decoded, SmallEstimator, SmallOutput, each, virtual_rotation
from evhands.models.small_losses import SmallLossWeights, small_losses, small_target
from evhands.types import HandPose

SMALL_STAGE_WEIGHTS: dict[Stage, dict[str, float]] = {
    "flow": {"flow": 10.0},
    "supervised": asdict(SmallLossWeights()),
    "semi": {**asdict(SmallLossWeights()), "contrast": -1.0, "edge": 0.025, "smooth": 0.2},
}
"""Weights of the terms of each stage.

Those of contrast, edge and smooth are such that each pulls with about a sixth of the gradient of the losses of labels:
with the shipped network these had a norm of 1.7, contrast 0.23, edge 11, smooth 1.2 (`bench_small_stages.py`).
"""


def small_stage_losses(
    estimator: SmallEstimator,
    hand: HandModel,
    batch: Tensors,
    stage: Stage,
    config: StageConfig,
    generator: torch.Generator | None = None,
) -> dict[str, Term]:
    """Named losses of a batch as `paper_stages.stage_losses` takes it (without the parts of the parameters' loss).

    Terms: those of `small_losses` (b, a), of labelled windows; `flow`, `contrast` (b, a - 1); `edge`, `smooth` (b,).
    """
    names = set(SMALL_STAGE_WEIGHTS[stage] if config.weights is None else config.weights)
    outputs = batch["labelled"].shape[1]
    if names <= {"flow"}:
        return shared_terms(hand, None, branch_flow(estimator, batch, config.bf16), batch, names, config, generator)
    output, decoded = run_windows(estimator, batch, outputs, config.bf16)
    terms = _label_terms(hand, output, decoded, batch)
    if names <= set(terms):
        return terms
    flows = None if output.flow is None else _whole_crop(output.flow[:, 1:], batch["lnes"].shape[-1])
    predicted = pose_in_camera(estimator, output, decoded, batch["crop_K"])
    return terms | shared_terms(hand, predicted, flows, batch, names - set(terms), config, generator)


def run_windows(
    estimator: SmallEstimator, batch: Tensors, last: int, bf16: bool = False
) -> tuple[SmallOutput, Decoded]:
    """What the network says of the last windows (b, last) of sequences `lnes` (b, t, 2, s, s), `voxel`, with an empty
    memory before each; `crop_K` (b, last, 3, 3)."""
    lnes, voxel = batch["lnes"].transpose(0, 1), None
    if estimator.config.flow:
        voxel = batch["voxel"].transpose(0, 1)
    with torch.autocast(lnes.device.type, torch.bfloat16, enabled=bf16):
        output, _ = estimator.network(lnes, estimator.initial_state(lnes.shape[1]), voxel, last)
    output = each(output, lambda value: value.transpose(0, 1).float())
    return output, estimator.decode(output, batch["crop_K"])


def branch_flow(estimator: SmallEstimator, batch: Tensors, bf16: bool = False) -> Float[Tensor, "b windows 1 2 s s"]:
    """Flow that the light branch alone says of the last a - 1 windows, in pixels of the crop."""
    voxel = batch["voxel"][:, 1 - batch["labelled"].shape[1] :]
    assert estimator.network.flow is not None
    with torch.autocast(voxel.device.type, torch.bfloat16, enabled=bf16):
        flow, _ = estimator.network.flow(voxel.flatten(0, 1).to(memory_format=torch.channels_last))
    return _whole_crop(flow.float().unflatten(0, voxel.shape[:2]), voxel.shape[-1])


def pose_in_camera(
    estimator: SmallEstimator, output: SmallOutput, decoded: Decoded, crop_K: Float[Tensor, "*b 3 3"]
) -> HandPose:
    """Poses of the virtual cameras along the crops in the camera that `crop_K` projects into the crops, with
    gradients."""
    turn = virtual_rotation(crop_K, estimator.input_config.size_px)
    return HandPose(
        "right",
        roma.rotmat_to_rotvec(turn @ decoded.rotation),
        (turn @ decoded.wrist[..., None])[..., 0],
        decoded.joint_rotvecs,
        output.shape,
        estimator.hand.name,
    )


def _label_terms(hand: HandModel, output: SmallOutput, decoded: Decoded, batch: Tensors) -> dict[str, Term]:
    """The losses of `small_losses` of windows with a label; `motion` of those behind another one with a label."""
    labelled = batch["labelled"]
    truth = true_poses(batch, hand)
    away = truth.wrist.new_tensor([0.0, 0.0, 0.5])  # where there is no label: anything that can be projected
    truth = replace(truth, wrist=torch.where(labelled[..., None], truth.wrist, away))
    target = small_target(
        pose_hand(hand, truth).joints(), truth.orientation, truth.joints, truth.shape, batch["crop_K"],
        batch["lnes"].shape[-1],
    )  # fmt: skip
    values = small_losses(each(output, _windows_first), _each_field(decoded), _each_field(target))
    terms = {name: Term(_windows_first(value), labelled) for name, value in values.items()}
    both = labelled.clone()
    both[:, 1:] &= labelled[:, :-1]
    return terms | {"motion": Term(torch.where(both, terms["motion"].values, 0), labelled)}


def _windows_first(value: Tensor) -> Tensor:
    return value.transpose(0, 1)


def _each_field(value: Any) -> Any:
    return replace(value, **{name: _windows_first(field) for name, field in vars(value).items()})


def _whole_crop(flow: Float[Tensor, "b windows 2 q q"], side_px: int) -> Float[Tensor, "b windows 1 2 s s"]:
    """Flow at the resolution of the crop, as `SmallEstimator` says it."""
    whole = F.interpolate(flow.flatten(0, 1), size=(side_px, side_px), mode="bilinear")
    return whole.unflatten(0, flow.shape[:2])[:, :, None]
