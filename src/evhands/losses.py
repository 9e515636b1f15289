"""Losses of the paper (Jiang et al., TPAMI 2024, section 3): pure torch functions with one value a sample.

Weights are not applied here: `weighted_sum` adds named terms by named weights, and the recipes of training hold both.
Squared errors are summed over components, as published, not averaged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evhands.types import HandPose

PARAMETER_WEIGHTS = {"translation": 2000.0, "orientation": 10.0, "joints": 5.0, "shape": 0.25}
"""Published weights of `parameter_losses` inside the MANO term."""
SUPERVISED_WEIGHTS = {"joint": 1000.0, "parameter": 0.1}
"""Published weights of the joint term and of the weighted sum of the parameter terms."""
SMOOTH_WEIGHTS = {"translation": 1000.0, "orientation": 0.1, "joints": 1.0, "shape": 0.2}
"""Published weights of `parameter_changes` inside the smooth term."""


def joint_loss(predicted: Float[Tensor, "*b 21 3"], truth: Float[Tensor, "*b 21 3"]) -> Float[Tensor, "*b"]:
    """Squared root-aligned error in m^2, summed over the 21 joints (`openpose21`) and divided by 20."""
    difference = predicted - truth
    return (difference - difference[..., :1, :]).square().sum((-2, -1)) / 20


def parameter_losses(predicted: HandPose, truth: HandPose) -> dict[str, Float[Tensor, "*b"]]:
    """Squared errors of the hand's parameters: `translation` (m^2), `orientation`, `joints` (rad^2), `shape`.

    The translation compared is that of the wrist. To reproduce the published term, give MANO's translation as `wrist`
    in both (it lacks the shape-dependent place of the rest wrist).
    """
    return {name: (p - t).square().sum(-1) for (name, p), t in zip(_parts(predicted).items(), _parts(truth).values())}


def parameter_changes(poses: HandPose) -> dict[str, Float[Tensor, "*b"]]:
    """Mean squared change of the parameters between neighbours of a sequence (*b, t): the smooth term's four parts."""
    return {name: part.diff(dim=-2).square().mean((-2, -1)) for name, part in _parts(poses).items()}


def flow_loss(predicted: Float[Tensor, "*b levels 2 h w"], truth: Float[Tensor, "*b 2 h w"]) -> Float[Tensor, "*b"]:
    """Mean squared error of the flow over pixels, components and all predicted scales, in the network's flow unit."""
    return (predicted - truth[..., None, :, :, :]).square().mean((-4, -3, -2, -1))


def contrast(images: Float[Tensor, "*b 2 h w"]) -> Float[Tensor, "*b"]:
    """Variance of images of warped events per polarity, averaged over both: larger = sharper, so it is maximised."""
    return (images - images.mean((-2, -1), keepdim=True)).square().mean((-3, -2, -1))


def labelled_mean(values: Float[Tensor, "*b"], labelled: Bool[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Mean over the labelled windows; zero, with a gradient of zero, where none is."""
    return torch.where(labelled, values, 0).sum() / labelled.sum().clamp(min=1)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The terms times the weights of the same names, added; every weight must have its term."""
    return torch.stack([weight * terms[name] for name, weight in weights.items()]).sum(0)


def _parts(pose: HandPose) -> dict[str, Tensor]:
    return {
        "translation": pose.wrist,
        "orientation": pose.orientation,
        "joints": pose.joints.flatten(-2),
        "shape": pose.shape,
    }
