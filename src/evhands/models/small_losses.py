"""What `small` is trained on: 2.5D joints, the articulated hand, and both together, as pure per-sample losses."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from evhands.models.small import PALM, Decoded, SmallOutput, cell_centres, virtual_rotation


@dataclass(frozen=True)
class SmallTarget:
    """The truth of a batch of crops in the terms of `SmallOutput` and `Decoded`, in the virtual camera."""

    uv: Tensor
    depth: Tensor
    joints: Tensor
    canonical: Tensor
    joint_rotvecs: Tensor
    shape: Tensor


@dataclass(frozen=True, kw_only=True)
class SmallLossWeights:
    """Weights of the named losses; distances weigh per metre, 2.5D errors per half crop side, angles per radian."""

    uv: float = 1.0
    depth: float = 0.7
    heat: float = 0.06
    canonical: float = 20.0
    joints: float = 10.0
    rotations: float = 0.15
    shape: float = 0.01
    distance: float = 0.1
    motion: float = 10.0
    log_error: float = 0.02


def small_target(
    joints_m: Tensor, orientation: Tensor, joint_rotvecs: Tensor, shape: Tensor, K: Tensor, size_px: int
) -> SmallTarget:
    """Truth in the virtual camera from joints (.., 21, 3) m and orientation (.., 3) in the camera, K of the crop."""
    R_camera_virtual = virtual_rotation(K, size_px)
    joints = joints_m @ R_camera_virtual
    pixels = joints_m[..., :2] / joints_m[..., 2:] * torch.stack([K[..., 0, 0], K[..., 1, 1]], -1)[..., None, :]
    pixels = pixels + K[..., None, :2, 2]
    uv = (pixels + 0.5) / (size_px / 2) - 1
    palm = joints[..., PALM, 2].mean(dim=-1, keepdim=True)
    depth = (joints[..., 2] - palm) / palm * (K[..., 0, 0] / (size_px / 2))[..., None]
    canonical = (joints_m - joints_m[..., :1, :]) @ roma.rotvec_to_rotmat(orientation)
    return SmallTarget(uv, depth, joints, canonical, joint_rotvecs, shape)


def small_losses(output: SmallOutput, decoded: Decoded, target: SmallTarget) -> dict[str, Tensor]:
    """Named losses, one value a sample (T, ..) of T consecutive windows: mean distances over the 21 joints,
    root-aligned where they are in 3D.

    Names are those of `SmallLossWeights`. `motion` is the error of the way that the articulated hand goes from window
    to window: without it a network that is unsure of a still finger changes its mind in every window. `log_error` is
    the negative log-likelihood of a Laplace distribution of the 2.5D error, which only teaches the expected error (the
    error itself is detached).
    """
    uv = (output.uv - target.uv).norm(dim=-1)
    depth = (output.depth - target.depth).abs()
    error = (uv + depth).detach()
    off = decoded.canonical - target.canonical
    aligned = (decoded.joints - decoded.joints[..., :1, :]) - (target.joints - target.joints[..., :1, :])
    return {
        "uv": uv.mean(-1),
        "heat": heat_loss(output.heat, target.uv),
        "depth": depth.mean(-1),
        "canonical": off.norm(dim=-1).mean(-1),
        "motion": torch.cat([torch.zeros_like(off[:1]), off.diff(dim=0)]).norm(dim=-1).mean(-1),
        "joints": aligned.norm(dim=-1).mean(-1),
        "rotations": (decoded.joint_rotvecs - target.joint_rotvecs).norm(dim=-1).mean(-1),
        "shape": (output.shape - target.shape).square().mean(-1),
        "distance": (decoded.joints[..., 0, 2] / target.joints[..., 0, 2]).clamp(min=0.05).log().abs(),
        "log_error": (error * torch.exp(-output.log_error) + output.log_error).mean(-1),
    }


def heat_loss(heat: Tensor | None, uv: Tensor, sigma_cells: float = 1.2) -> Tensor:
    """Cross-entropy (..) in nats of the heat maps against Gaussians about the true joints, above its least value.

    The soft-argmax alone is content with any map whose mean is right; this asks for one peak where the joint is.
    Joints outside the crop count with what part of their Gaussian is inside.
    """
    if heat is None:
        return torch.zeros(uv.shape[:-2], device=uv.device)
    side = round(heat.shape[-1] ** 0.5)
    distance = (uv[..., None, :] - cell_centres(side, side, uv.device)).square().sum(-1) * (side / 2) ** 2
    wanted = torch.exp(-distance / (2 * sigma_cells**2)) / (2 * torch.pi * sigma_cells**2)
    entropy = -(wanted * torch.log(wanted.clamp(min=1e-12))).sum(-1)
    return (-(wanted * heat.log_softmax(-1)).sum(-1) - entropy).mean(-1)
