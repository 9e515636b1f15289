"""A hand that moves from one pose to another, and the events that its surface or its outline would make."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import roma
import torch

from conftest import shared_path
from evhands.geometry import project
from evhands.hand.model import HandModel, load_hand
from evhands.hand_flow import HandFlowConfig, hand_flow, on_surface, poses_between, seen_pixels
from evhands.types import HandPose, WindowBatch

SIZE = (346, 260)
K = torch.tensor([[290.0, 0, 172], [0, 290, 130], [0, 0, 1]])
HAND = load_hand()


def a_pose(
    wrist: tuple[float, float, float], turn: tuple[float, float, float] = (0, 0, 0), bend: float = 0.2
) -> HandPose:
    """An open hand across the view, about 0.55 m away; a batch of one."""
    across = roma.rotvec_to_rotmat(torch.tensor([1.4, 0.0, 0.0]))
    orientation = roma.rotmat_to_rotvec(roma.rotvec_to_rotmat(torch.tensor(turn, dtype=torch.float32)) @ across)
    joints = HAND.mean_pose.view(15, 3) + torch.tensor([0, 0, bend])
    return HandPose("right", orientation[None], torch.tensor([wrist]), joints[None], torch.zeros(1, 10), "open")


START = a_pose((0.06, 0.0, 0.55))
END = a_pose((0.075, 0.01, 0.56), (0, 0, 0.15), 0.3)


def moved(pose: HandPose, by: torch.Tensor) -> HandPose:
    return replace(pose, wrist=pose.wrist + by)


def surface_events(start: HandPose, end: HandPose, count: int = 120, steps: int = 40) -> WindowBatch:
    """Events of `count` marks on the surface that move with it."""
    generator = torch.Generator().manual_seed(0)
    index, _, face, weights = seen_pixels(hand_flow(HAND, start, end, K, SIZE).raster_of(0))
    chosen = torch.randint(len(index), (count,), generator=generator)
    meshes = poses_between(HAND, start, end, HandFlowConfig(in_between=steps)).mesh().vertices[:, 0]
    each = torch.arange(steps).repeat_interleave(count)
    pick = chosen.repeat(steps)
    xy = on_surface(project(meshes, K), HAND.faces, each, face[pick], weights[pick])
    p = (torch.rand(count, generator=generator) < 0.5).repeat(steps)
    return WindowBatch(xy[:, 0], xy[:, 1], each / (steps - 1), p, torch.tensor([0, len(each)]), SIZE)


def outline_events(start: HandPose, end: HandPose, steps: int = 30) -> WindowBatch:
    """Events on the outline of the hand while it moves."""
    covered = hand_flow(HAND, start, end, K, SIZE, HandFlowConfig(in_between=steps)).raster.face[:, 0] >= 0
    inner = covered & covered.roll(1, 1) & covered.roll(-1, 1) & covered.roll(1, 2) & covered.roll(-1, 2)
    step, y, x = (covered & ~inner).nonzero(as_tuple=True)
    kept = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < 0.3
    step, y, x = step[kept], y[kept], x[kept]
    return WindowBatch(x.float(), y.float(), step / (steps - 1), x % 2 == 0, torch.tensor([0, len(x)]), SIZE)


# --- the published inputs of the losses, in our terms ---------------------------------------------------------------


@cache
def mano() -> HandModel:
    return load_hand(shared_path("fixtures/mano/MANO_RIGHT.pkl"))


@cache
def supervision(name: str) -> dict[str, np.ndarray]:
    path: Path = shared_path(f"fixtures/supervision/{name}.npz")
    return dict(np.load(path))


def published_pose(source: dict[str, np.ndarray], prefix: str, steps: slice = slice(None)) -> HandPose:
    """MANO parameters of a file as a `HandPose`: wrist instead of translation, the mean pose added."""
    hand = mano()
    rot, trans, joints, shape = (
        torch.from_numpy(source[f"{prefix}mano_{name}"][:, steps])
        for name in ("rot_pose", "trans", "hand_pose", "shape")
    )
    wrist = trans + hand.with_shape(shape).joints16[..., 0, :]
    return HandPose("right", rot, wrist, (joints + hand.mean_pose).unflatten(-1, (15, 3)), shape, "mano")


def published_events() -> WindowBatch:
    """The four windows of the published inputs."""
    inputs = supervision("inputs")
    rows, counts = inputs["events_last2"].reshape(4, -1, 4), inputs["Num_events"][:, 1:].reshape(4)
    events = torch.from_numpy(np.concatenate([r[:n] for r, n in zip(rows, counts)]))
    offsets = torch.from_numpy(np.cumsum([0, *counts]))
    x, y, p, t = events.T.contiguous()
    return WindowBatch(x, y, t, p > 0, offsets, SIZE)
