"""Losses of the paper (Jiang et al., TPAMI 2024, section 3): pure torch functions with one value a sample.

Weights are not applied here: `combined` adds named terms by named weights, and the recipes of training hold both.
Squared errors are summed over components, as published, not averaged (O36).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

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
SMOOTH_MARGIN = 0.5
"""Value of the weighted changes up to which a motion costs nothing."""


class Term(NamedTuple):
    """A loss: one value for every sample or window, and which of them count in its mean."""

    values: Float[Tensor, "*b"]
    counted: Bool[Tensor, "*b"]


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


def continuous_turns(rotvecs: Float[Tensor, "*b t 3"]) -> Float[Tensor, "*b t 3"]:
    """The same turns, each about whichever of the two opposite axes gives the rotation vector nearer to the one before:
    past half a turn the shorter one jumps by a whole turn."""
    steps = [rotvecs[..., 0, :]]
    for turn in rotvecs.unbind(-2)[1:]:
        other = turn - 2 * torch.pi * turn / turn.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        with torch.no_grad():
            nearer = (other - steps[-1]).norm(dim=-1) < (turn - steps[-1]).norm(dim=-1)
        steps.append(torch.where(nearer[..., None], other, turn))
    return torch.stack(steps, -2)


def smooth_loss(
    poses: HandPose, *, margin: float = SMOOTH_MARGIN, soft: bool = True, published: bool = False
) -> Float[Tensor, "*b"]:
    """Cost of the changes in each sequence (*b, t): sigmoid(relu(L - margin)) - 1/2, or relu(L - margin) if not soft.

    L is the weighted sum of `parameter_changes`, orientations unwound by `continuous_turns`. A motion within the margin
    costs nothing and has no gradient.
    published=True gives one value for the whole batch, from the mean of L over it, without the subtraction: at least
    1/2, or max(L, margin) if not soft (O35).
    """
    if not published:
        poses = replace(poses, orientation=continuous_turns(poses.orientation))
    changes = weighted_sum(parameter_changes(poses), SMOOTH_WEIGHTS)
    excess = ((changes.mean() if published else changes) - margin).relu()
    floor = 0.0 if published else 0.5
    return excess.sigmoid() - floor if soft else excess + margin * published


def mixed_poses(predicted: HandPose, truth: HandPose, labelled: Bool[Tensor, "*b"]) -> HandPose:
    """The true pose where there is a label, the predicted one elsewhere."""

    def mixed(name: str) -> Tensor:
        a, b = getattr(truth, name), getattr(predicted, name)
        return torch.where(labelled.view(*labelled.shape, *[1] * (b.ndim - labelled.ndim)), a, b)

    return replace(
        predicted,
        orientation=mixed("orientation"),
        wrist=mixed("wrist"),
        joints=mixed("joints"),
        shape=mixed("shape"),
    )


def flow_loss(predicted: Float[Tensor, "*b levels 2 h w"], truth: Float[Tensor, "*b 2 h w"]) -> Float[Tensor, "*b"]:
    """Mean squared error of the flow over pixels, components and all predicted scales, in the network's flow unit."""
    return (predicted - truth[..., None, :, :, :]).square().mean((-4, -3, -2, -1))


def contrast(images: Float[Tensor, "*b 2 h w"]) -> Float[Tensor, "*b"]:
    """Variance of images of warped events per polarity, averaged over both: larger = sharper, so it is maximised."""
    return (images - images.mean((-2, -1), keepdim=True)).square().mean((-3, -2, -1))


def labelled_mean(
    values: Float[Tensor, "*b"], labelled: Bool[Tensor, "*b"], labels: float | Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean over the labelled windows; zero, with a gradient of zero, where none is.

    labels: the number to divide by instead of that of this batch. With the number of labels of a larger batch the
    parts of it add up to the whole, and so do their gradients.
    """
    count = labelled.sum() if labels is None else torch.as_tensor(labels, device=values.device)
    return torch.where(labelled, values, 0).sum() / count.clamp(min=1)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The terms times the weights of the same names, added; every weight must have its term."""
    return torch.stack([weight * terms[name] for name, weight in weights.items()]).sum(0)


def combined(
    terms: Mapping[str, Term], weights: Mapping[str, float], counts: Mapping[str, float | Tensor] | None = None
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum of the means of the terms, and those means by name (of all terms, weighted or not).

    counts: by how many values each term is divided, where this batch is a part of a larger one (accumulation, several
    processes): the numbers of `term_counts` added over all parts; divided by the number of processes where their
    gradients are averaged and not added.
    """
    means = {
        name: labelled_mean(term.values, term.counted, None if counts is None else counts[name])
        for name, term in terms.items()
    }
    return weighted_sum(means, weights), means


def term_counts(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """How many values of each term count."""
    return {name: term.counted.sum() for name, term in terms.items()}


def _parts(pose: HandPose) -> dict[str, Tensor]:
    return {
        "translation": pose.wrist,
        "orientation": pose.orientation,
        "joints": pose.joints.flatten(-2),
        "shape": pose.shape,
    }
