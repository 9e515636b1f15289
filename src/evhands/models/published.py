"""Weights of the published EvHandPose: its Lightning checkpoints read into our networks, every key accounted for.

A file holds 301 keys: 48 of the FlowNet, 238 of the pose network, and 15 of the hand model (MANO itself, as buffers).
A checkpoint of the flow stage differs in one shape: its (untrained) pose network sees all four flow scales.
"""

from __future__ import annotations

import pickle
import re
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from evhands.hand.model import HandModel
from evhands.hand.skeleton import MANO16_PARENTS
from evhands.models.flow import FlowNet
from evhands.models.paper import PaperEstimator, paper
from evhands.types import InputError

Weights = dict[str, Tensor]

_RENAMES = (
    (r"^flow\.(encoders|decoders|heads)\.(\d+)\.", r"flow_encoder.multires_unet.\1.\2.conv2d."),
    (r"^flow\.residuals\.", "flow_encoder.multires_unet.resblocks."),
    (r"\.multires_unet\.heads\.", ".multires_unet.preds."),
    (r"^pose\.encoder\.stem\.", "infer_encoder.fusion_encoders.0."),
    (r"^pose\.encoder\.stem_norm\.", "infer_encoder.fusion_encoders.1."),
    # The stages follow convolution, norm, ReLU and pooling of the stem in one nn.Sequential.
    (r"^pose\.encoder\.stages\.(\d)\.", lambda m: f"infer_encoder.fusion_encoders.{int(m[1]) + 4}."),
    (r"\.norm([12])\.", r".bn\1."),
    (r"\.skip\.", ".downsample."),
    (r"^pose\.recurrent\.(reset|update)\.", r"infer_encoder.sequence_encoders.0.encoder.ConvGRUCell.\1_gate."),
    (r"^pose\.recurrent\.candidate\.", "infer_encoder.sequence_encoders.0.encoder.ConvGRUCell.out_gate."),
    (r"^pose\.norm\.", "infer_encoder.sequence_encoders.1."),
    (r"^pose\.hidden\.", "infer_encoder.predictors.1."),
    (r"^pose\.output\.", "infer_encoder.predictors.3."),
)
"""Our parameter names to the published ones, applied in order."""

_HAND = "supervision.mano_layer."
_HAND_SHAPES: dict[str, tuple[int, ...]] = {
    # Inputs of the layer for a batch of one, stored as parameters that never train; they carry nothing.
    _HAND + "betas": (1, 10),
    _HAND + "global_orient": (1, 3),
    _HAND + "body_pose": (1, 3),
    _HAND + "transl": (1, 3),
    _HAND + "hand_pose": (1, 45),
    # The hand model.
    _HAND + "shapedirs": (778, 3, 10),
    _HAND + "faces_tensor": (1538, 3),
    _HAND + "v_template": (778, 3),
    _HAND + "J_regressor": (16, 778),
    _HAND + "posedirs": (135, 2334),
    _HAND + "parents": (16,),
    _HAND + "lbs_weights": (778, 16),
    _HAND + "hand_mean": (45,),
    _HAND + "pose_mean": (48,),
    _HAND + "vertex_joint_selector.extra_joints_idxs": (5,),
}


@dataclass(frozen=True)
class Published:
    """What a published checkpoint holds; a file of the flow stage has no estimator, a bare FlowNet no hand."""

    stage: Literal["flow", "full"]
    flow: FlowNet
    estimator: PaperEstimator | None
    hand: HandModel | None


def published_name(name: str) -> str:
    """The published name of one of our parameters of a `PaperEstimator`."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_published(path: Path | str) -> Published:
    """Read a published Lightning checkpoint: the full model, or the FlowNet of a flow-stage file.

    Raises InputError for files that are no checkpoint and for checkpoints of another model, naming each missing,
    surplus and misshapen key. Nothing in the file is executed.
    """
    return from_published(read_lightning(path), str(path))


def from_published(weights: Weights, source: str = "the checkpoint") -> Published:
    """The same from a state dict in the published layout."""
    if weights and all(name.startswith("flow_encoder.") for name in weights):
        return Published("flow", _flow(weights, source), None, None)
    stem = weights.get(published_name("pose.encoder.stem.weight"))
    flow_stage = stem is not None and stem.ndim == 4 and stem.shape[1] == 2 + 2 * 4
    config = replace(paper(), hand_model="mano", flow_levels=4 if flow_stage else 1)
    with torch.device("meta"):  # a skeleton: the weights come from the file
        estimator = PaperEstimator(config)
    names = {published_name(ours): ours for ours in estimator.state_dict() if ours.startswith(("flow.", "pose."))}
    own = estimator.state_dict()
    _check(weights, {theirs: tuple(own[ours].shape) for theirs, ours in names.items()} | _HAND_SHAPES, source)
    hand = _hand(weights, source)
    if flow_stage:
        # That stage trains the FlowNet alone: the rest of its weights are the random ones it began with.
        return Published("flow", _flow(weights, source), None, hand)
    estimator = estimator.to_empty(device="cpu")
    estimator.load_state_dict({ours: weights[theirs] for theirs, ours in names.items()}, strict=False)
    assert estimator.flow is not None
    return Published("full", estimator.flow, estimator.use_hand(hand).eval(), hand)


def read_lightning(path: Path | str) -> Weights:
    """The state dict of a Lightning checkpoint, without running anything that its pickle asks for."""
    try:
        content = _load(path)
    except Exception as error:  # torch.load and pickle raise a dozen kinds for a damaged or foreign file
        raise InputError(
            f"Could not read {path} as a checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Wanted a Lightning checkpoint (.ckpt) of EvHandPose; check the path, and download the file again if it is "
            "truncated."
        ) from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        found = f"the entries {sorted(map(str, content))[:8]}" if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} is no Lightning checkpoint: found {found}, wanted an entry 'state_dict' of tensors. "
            "Give a .ckpt file of EvHandPose; checkpoints of evhands itself are opened by their own loader."
        )
    return dict(weights)


def _flow(weights: Weights, source: str) -> FlowNet:
    """The FlowNet of a file; its keys must all be there."""
    config = paper().flow
    assert config is not None
    flow = FlowNet(config)
    own = flow.state_dict()
    names = {published_name(f"flow.{ours}"): ours for ours in own}
    given = {name: value for name, value in weights.items() if name.startswith("flow_encoder.")}
    _check(given, {theirs: tuple(own[ours].shape) for theirs, ours in names.items()}, source)
    flow.load_state_dict({ours: weights[theirs] for theirs, ours in names.items()})
    return flow.eval()


def _check(weights: Weights, wanted: dict[str, tuple[int, ...]], source: str) -> None:
    """Every key there, no other, each of its shape; else one InputError that names them all."""
    both = weights.keys() & wanted.keys()
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {wanted[name]}"
        for name in wanted
        if name in both and tuple(weights[name].shape) != wanted[name]
    ]
    problems = {
        "missing": [name for name in wanted if name not in both],
        "surplus": [name for name in weights if name not in both],
        "of another shape": shapes,
    }
    told = [f"{len(names)} {problem}: {', '.join(names)}" for problem, names in problems.items() if names]
    if told:
        raise InputError(
            f"{source} holds the weights of another model: of {len(wanted)} wanted keys, {'; '.join(told)}. Wanted "
            "the published EvHandPose (FlowNet and ConvGRU, sizes of the paper); choose the checkpoint of that model."
        )


def _hand(weights: Weights, source: str) -> HandModel:
    """The right MANO hand that the layer `supervision.mano_layer` carries."""
    part = {name.removeprefix(_HAND): value for name, value in weights.items() if name.startswith(_HAND)}
    if tuple(part["parents"][1:].tolist()) != MANO16_PARENTS[1:]:
        raise InputError(
            f"The hand model in {source} has the parents {part['parents'].tolist()}, wanted those of MANO, "
            f"{list(MANO16_PARENTS)}: this is a checkpoint of another skeleton and cannot be used."
        )
    return HandModel(
        name="mano",
        side="right",
        vertices=part["v_template"].float(),
        faces=part["faces_tensor"].long(),
        shape_directions=part["shapedirs"].float(),
        pose_directions=part["posedirs"].float().T.reshape(778, 3, 135).contiguous(),
        joint_regressor=part["J_regressor"].float(),
        skin_weights=part["lbs_weights"].float(),
        mean_pose=part["hand_mean"].float(),
        # A layer without PCA carries no components: the joint angles themselves.
        pose_components=torch.eye(45),
        pose_std=torch.ones(45),
        tip_vertices=part["vertex_joint_selector.extra_joints_idxs"].long(),
    )


def _load(path: Path | str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Lightning pickles hyper-parameters and callbacks too, of classes that weights_only refuses.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted_pickle())


_TENSOR_PARTS = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
"""What a pickled tensor is made of, beside the storages, which torch.load resolves itself."""


class _Ignored:
    """Stands for any object of a class that is not needed: takes every argument and state and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _TENSOR_PARTS else _Ignored


def _restricted_pickle() -> types.ModuleType:
    """A stand-in for the pickle module that builds tensors and puts `_Ignored` for everything else."""
    module = types.ModuleType("restricted_pickle")
    module.Unpickler = _RestrictedUnpickler  # type: ignore[attr-defined]
    module.load = lambda file, **options: _RestrictedUnpickler(file, **options).load()  # type: ignore[attr-defined]
    module.UnpicklingError = pickle.UnpicklingError  # type: ignore[attr-defined]
    return module
