"""The three training stages of the paper's network as pure functions: a batch and an estimator give named losses.

EvHandPose (Jiang et al., TPAMI 2024, section 3): `flow` teaches the FlowNet the hand flow of true poses, `supervised`
the pose network the labels, `semi` adds what events say about poses without a label: contrast, edges and smoothness.
What a stage computes follows from its weights: the supervised stage makes no hand flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evhands import losses
from evhands.edge_loss import EdgeConfig, EdgeSums, edge_loss, edge_sums
from evhands.events.warp_torch import edge_events, image_of_warped_events, thin_windows
from evhands.hand.model import HandModel, pose_hand
from evhands.hand_flow import HandFlow, HandFlowConfig, crop_flow, hand_flow
from evhands.losses import Term
from evhands.models.paper import PaperEstimator
from evhands.types import HandPose, Size, WindowBatch

Stage = Literal["flow", "supervised", "semi"]
Tensors = dict[str, Tensor]

STAGE_WEIGHTS: dict[Stage, dict[str, float]] = {
    "flow": {"flow": 10.0},
    "supervised": dict(losses.SUPERVISED_WEIGHTS),
    "semi": {**losses.SUPERVISED_WEIGHTS, "contrast": -3.0, "edge": 0.05, "smooth": 0.2},
}
"""Published weights of the terms of each stage; contrast is maximised."""

_ENDS: tuple[tuple[Literal["last", "first"], float], ...] = (("last", 1.0), ("first", 0.0))
"""Which end of a window its events are warped to, and its time: forward, backward."""
PARTS = ("orientation", "wrist", "joints", "shape")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """How the losses of the stages are computed; `published` is what the published code does."""

    size: Size = (346, 260)
    """Width and height of the image in which the events live."""
    in_crop: bool = False
    """That image is the crop of each window instead of the sensor's: fewer pixels, and no events far from the hand."""
    weights: Mapping[str, float] | None = None
    """Instead of `STAGE_WEIGHTS`; a weight of 0 computes a term without learning from it."""
    bf16: bool = False
    """Run the networks, and only them, in bfloat16."""
    most_events: int = 10_000
    """Events of a window that are warped: a random subset of more."""
    flow_unit: float = 1 / 8
    """Unit of the flow term: a share of the crop's side per window."""
    hand_flow: HandFlowConfig = field(default_factory=HandFlowConfig)
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    padded_slices: bool = False
    """Slices of windows with fewer than 120 events as published (O34, O8; see `edge_events`)."""
    smooth_over_batch: bool = False
    """One smooth loss for the whole batch, at least 1/2 (O35)."""
    model_translation: bool = False
    """Compare the hand model's translation instead of the place of the wrist."""
    published_targets: bool = False
    """Flow targets cut at whole pixels, of predicted poses too where there is no label, 0 where scale <= 0.3 (O37)."""

    @staticmethod
    def published(size: Size = (346, 260), weights: Mapping[str, float] | None = None) -> StageConfig:
        return StageConfig(
            size=size,
            weights=weights,
            hand_flow=HandFlowConfig.published(size),
            edge=EdgeConfig.published(),
            padded_slices=True,
            smooth_over_batch=True,
            model_translation=True,
            published_targets=True,
        )


def stage_losses(
    estimator: PaperEstimator,
    hand: HandModel,
    batch: Tensors,
    stage: Stage,
    config: StageConfig = StageConfig(),
    generator: torch.Generator | None = None,
) -> dict[str, Term]:
    """Named losses of a batch of b sequences of t windows, of which the last a have an output; right hands.

    batch: `lnes` (b, t, 2, s, s), `voxel` (b, t, bins, s, s), `K` (b, 3, 3) of the camera, `image_K` (b, 3, 3) that
    projects onto the image in which the events live (K where it is left out; (b, a - 1, 3, 3) where every window has an
    image of its own, its crop), `crop_K` (b, a, 3, 3),
    `labelled` (b, a), the true `orientation`, `wrist`, `joints`, `shape` (b, a, ...) as in `HandPose` (anything where
    not labelled), and the events of the last a - 1 windows of each sequence in pixels of the camera: `event_x`,
    `event_y`, `event_t`, `event_p`, `event_offsets` as in `WindowBatch`, in the order of the sequences.
    Terms: `joint`, `parameter` and its parts (b, a); `flow`, `contrast` (b, a - 1); `edge`, `smooth` (b,). Add them
    with `losses.combined` and `stage_weights`. generator draws the subset of too many events.
    """
    names = set(stage_weights(stage, config))
    outputs = batch["labelled"].shape[1]
    poses_wanted = config.published_targets or not names <= {"flow"}
    flows, predicted = None, None
    with torch.autocast(batch["lnes"].device.type, torch.bfloat16, enabled=config.bf16):
        if estimator.flow is not None:
            flows = estimator.flow_scales(batch["voxel"] if poses_wanted else batch["voxel"][:, 1 - outputs :])
        prediction = estimator.poses(batch["lnes"], flows)[0] if poses_wanted else None
    if prediction is not None:
        predicted = in_camera(estimator, _steps(prediction.pose, slice(-outputs, None)), batch["crop_K"], batch["K"])
    if flows is not None:
        assert estimator.flow is not None
        flows = flows[:, 1 - outputs :].to(batch["voxel"].dtype) * estimator.flow.config.range_px
    return prediction_losses(hand, predicted, flows, batch, names, config, generator)


def prediction_losses(
    hand: HandModel,
    predicted: HandPose | None,
    flows: Float[Tensor, "b windows levels 2 s s"] | None,
    batch: Tensors,
    names: Set[str],
    config: StageConfig = StageConfig(),
    generator: torch.Generator | None = None,
) -> dict[str, Term]:
    """The terms `names` of `stage_losses`, from what a network said.

    predicted: poses (b, a) in the camera; None = the true ones. flows: of the last a - 1 windows at all scales, in
    pixels of the crop per window.
    """
    terms = {}
    if predicted is not None:
        terms = supervised_terms(hand, predicted, true_poses(batch, hand), batch["labelled"], config)
    return terms | shared_terms(hand, predicted, flows, batch, names, config, generator)


def shared_terms(
    hand: HandModel,
    predicted: HandPose | None,
    flows: Float[Tensor, "b windows levels 2 s s"] | None,
    batch: Tensors,
    names: Set[str],
    config: StageConfig = StageConfig(),
    generator: torch.Generator | None = None,
) -> dict[str, Term]:
    """Of `prediction_losses` those that are the same for every network: `flow`, `contrast`, `edge`, `smooth`."""
    labelled, truth = batch["labelled"], true_poses(batch, hand)
    mixed = truth if predicted is None else losses.mixed_poses(predicted, truth, labelled)
    terms: dict[str, Term] = {}
    if "smooth" in names:
        values = losses.smooth_loss(_compared(hand, mixed, config), published=config.smooth_over_batch)
        terms["smooth"] = _all(values)
    if names & {"flow", "contrast", "edge"}:
        K = image_matrices(batch)
        start, end = _steps(mixed, slice(None, -1)), _steps(mixed, slice(1, None))
        moved = hand_flow(hand, start, end, K, config.size, config.hand_flow)
        if "flow" in names:
            assert flows is not None
            terms["flow"] = flow_term(flows, moved.flow, batch, config)
        if names & {"contrast", "edge"}:
            events = thin_windows(event_windows(batch, config.size), config.most_events, generator)
            terms |= event_terms(hand, moved, events, K, ~labelled, names, config)
    return terms


def stage_weights(stage: Stage, config: StageConfig = StageConfig()) -> Mapping[str, float]:
    """The weights of the terms of a stage."""
    return STAGE_WEIGHTS[stage] if config.weights is None else config.weights


def supervised_terms(
    hand: HandModel,
    predicted: HandPose,
    truth: HandPose,
    labelled: Bool[Tensor, "b a"],
    config: StageConfig,
) -> dict[str, Term]:
    """`joint` against the joints of the true parameters, `parameter` and its parts, of every window."""
    joint = losses.joint_loss(pose_hand(hand, predicted).joints(), pose_hand(hand, truth).joints())
    compared = (_compared(hand, pose, config) for pose in (predicted, truth))
    parts = losses.parameter_losses(*compared)
    terms = {"joint": joint, "parameter": losses.weighted_sum(parts, losses.PARAMETER_WEIGHTS)}
    terms |= {f"parameter_{name}": value for name, value in parts.items()}
    return {name: Term(values, labelled) for name, values in terms.items()}


def flow_term(
    predicted: Float[Tensor, "b windows levels 2 s s"],
    truth: Float[Tensor, "b windows 2 h w"],
    batch: Tensors,
    config: StageConfig,
) -> Term:
    """Error of the predicted flow (pixels of the crop) against the hand flow seen in the crop, of windows between two
    true poses; the unit of the error is `config.flow_unit` crop sides."""
    crop_K, K = batch["crop_K"][:, 1:], image_matrices(batch)
    target = crop_flow(truth.detach(), K, crop_K, predicted.shape[-1], published=config.published_targets)
    unit_px = config.flow_unit * predicted.shape[-1]
    values = losses.flow_loss(predicted / unit_px, target / unit_px)
    if config.published_targets:
        return _all(torch.where(crop_K[..., 0, 0] / K[..., 0, 0] > 0.3, values, 0))
    return Term(values, batch["labelled"][:, :-1] & batch["labelled"][:, 1:])


def event_terms(
    hand: HandModel,
    moved: HandFlow,
    events: WindowBatch,
    K: Float[Tensor, "b windows 3 3"],
    free: Bool[Tensor, "b a"],
    names: Set[str],
    config: StageConfig,
) -> dict[str, Term]:
    """`contrast` and `edge` of poses against the events of the windows between them; free: poses that are predicted."""
    flow, shape = moved.flow.flatten(0, 1), moved.flow.shape[:2]
    terms = {}
    if "contrast" in names:
        values = flow.new_zeros(shape)
        for end, t_ref in _ENDS:
            part = edge_events(events, end, 1.0, config.edge.least, padded=True) if config.padded_slices else events
            values = values + losses.contrast(image_of_warped_events(part, flow, t_ref)).unflatten(0, shape)
        terms["contrast"] = _all(values)
    if "edge" in names:
        forward, backward = (_edge_sums(hand, moved, events, K, end, t_ref, config) for end, t_ref in _ENDS)
        terms["edge"] = Term(*edge_loss(forward, backward, free, config.edge))
    return terms


def in_camera(
    estimator: PaperEstimator,
    pose: HandPose,
    crop_K: Float[Tensor, "b a 3 3"],
    K: Float[Tensor, "b 3 3"],
) -> HandPose:
    """Poses (b, a) of the crops' virtual cameras in the real camera, as `PaperEstimator.to_camera`, with gradients."""
    K = K[:, None]
    shift = (K[..., :2, 2] - crop_K[..., :2, 2]) / K.diagonal(dim1=-2, dim2=-1)[..., :2]
    move = torch.cat([shift, crop_K[..., :1, 0] / K[..., :1, 0] - 1], -1)
    offset = estimator.wrist_offset(pose.shape)
    virtual = pose.wrist - offset
    return replace(pose, wrist=virtual + virtual[..., 2:] * move + offset)


def true_poses(batch: Tensors, hand: HandModel) -> HandPose:
    """The poses of a batch; zeros where there is no label, so that nothing that stood there meets a gradient."""
    labelled = batch["labelled"]
    parts = {
        name: torch.where(labelled.view(*labelled.shape, *[1] * (batch[name].ndim - 2)), batch[name], 0)
        for name in PARTS
    }
    return HandPose("right", **parts, hand_model=hand.name)


def image_matrices(batch: Tensors) -> Float[Tensor, "b windows 3 3"]:
    """What projects onto the image of the events of each of the last a - 1 windows: augmentation changes it, and leaves
    the camera of the poses."""
    K = batch.get("image_K", batch["K"])
    return K if K.ndim == 4 else K[:, None].expand(-1, batch["labelled"].shape[1] - 1, -1, -1)


def event_windows(batch: Tensors, size: Size) -> WindowBatch:
    """The events of a batch."""
    x, y, t, p, offsets = (batch[f"event_{name}"] for name in ("x", "y", "t", "p", "offsets"))
    return WindowBatch(x, y, t, p, offsets, size)


@torch.no_grad()
def _edge_images(
    events: WindowBatch, flow: Tensor, end: Literal["last", "first"], t_ref: float, config: StageConfig
) -> Tensor:
    part = edge_events(events, end, config.edge.share, config.edge.least, padded=config.padded_slices)
    return image_of_warped_events(part, flow, t_ref)


def _edge_sums(
    hand: HandModel,
    moved: HandFlow,
    events: WindowBatch,
    K: Tensor,
    end: Literal["last", "first"],
    t_ref: float,
    config: StageConfig,
) -> EdgeSums:
    images = _edge_images(events, moved.flow.flatten(0, 1), end, t_ref, config)
    return edge_sums(images.unflatten(0, moved.flow.shape[:2]), moved, hand.faces, K, end, config.edge)


def _steps(pose: HandPose, steps: slice) -> HandPose:
    return replace(pose, **{name: getattr(pose, name)[:, steps] for name in PARTS})


def _compared(hand: HandModel, pose: HandPose, config: StageConfig) -> HandPose:
    """The pose with what the losses call translation as its wrist."""
    if not config.model_translation:
        return pose
    return replace(pose, wrist=pose.wrist - hand.with_shape(pose.shape).joints16[..., 0, :])


def _all(values: Tensor) -> Term:
    return Term(values, torch.ones_like(values, dtype=torch.bool))
