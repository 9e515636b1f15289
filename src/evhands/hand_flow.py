"""Hand flow: the optical flow of a hand's surface between two poses, differentiable with respect to both.

Pose-to-IWE of EvHandPose (Jiang et al., TPAMI 2024, section 3.3): in-between poses, their meshes, the speeds of the
projected vertices, interpolated where a rasteriser sees the surface, averaged over the meshes that cover a pixel.
Faces and weights of the rasteriser carry no gradient; the speeds do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evhands.geometry import project
from evhands.hand.model import HandModel, PosedHand
from evhands.hand.raster import Raster, rasterize_batch
from evhands.hand.raster_torch import rasterize_torch
from evhands.types import HandPose, Size

NEAREST_M = 0.01
"""Vertices nearer to the camera plane than this are not projected, and their faces not drawn."""


@dataclass(frozen=True, kw_only=True)
class HandFlowConfig:
    """How hand flow is computed; `published` names what the published code does instead of the defaults."""

    in_between: int = 4
    """Poses from the start to the end, both included."""
    pixel_offset: float = 0.0
    """Where in its pixel the surface is sampled: 0 = pixel centres at integers, 0.5 in the published code (O33)."""
    blur_px: float = 0.0
    """Width by which silhouettes are dilated, with the weights there cut at 0 (O38)."""
    slerp_without_mean: bool = False
    """Slerp the joint angles before the mean pose is added to them, as the published code does."""
    threads: int = 0
    """Threads of the rasteriser on a CPU; 0 = as many as torch has."""

    @staticmethod
    def published(size: Size, blur_radius: float = 3e-5) -> HandFlowConfig:
        """The published behaviour in training; with blur_radius 0 in evaluation."""
        blur_px = sqrt(blur_radius) * min(size) / 2
        return HandFlowConfig(pixel_offset=0.5, blur_px=blur_px, slerp_without_mean=True)


@dataclass(frozen=True)
class HandFlow:
    """Hand flow of a batch of pairs of poses, and what it was made of (n in-between meshes, first to last).

    flow: pixels from start to end of the window, x first; 0 where no mesh covers the pixel. vertices in metres, points
    in pixels; drawn: which vertices are far enough in front of the camera; raster: seen faces of every mesh.
    """

    flow: Float[Tensor, "*b 2 h w"]
    covered: Bool[Tensor, "*b h w"]
    vertices: Float[Tensor, "n *b v 3"]
    points: Float[Tensor, "n *b v 2"]
    speeds: Float[Tensor, "n *b v 2"]
    drawn: Bool[Tensor, "*b v"]
    raster: Raster

    def raster_of(self, mesh: int) -> Raster:
        """What is seen of one of the in-between meshes (0 = start, -1 = end)."""
        return Raster(self.raster.face[mesh], self.raster.barycentrics[mesh], self.raster.depth[mesh])


def hand_flow(
    hand: HandModel,
    start: HandPose,
    end: HandPose,
    K: Float[Tensor, "*#b 3 3"],
    size: Size,
    config: HandFlowConfig = HandFlowConfig(),
) -> HandFlow:
    """Flow in pixels of the camera K (`size` = width, height, no distortion) of a hand that moves from start to end.

    Gradients run to the parameters of both poses; they are finite also for hands that reach behind the camera.
    """
    vertices = poses_between(hand, start, end, config).mesh().vertices
    drawn = (vertices[..., 2] > NEAREST_M).all(0)
    # Vertices that are not drawn project from (0, 0, 1): a finite value with a gradient of zero.
    safe = torch.where(drawn[..., None], vertices, vertices.new_tensor([0.0, 0.0, 1.0]))
    points = project(safe, K)
    speeds = vertex_speeds(points)
    depth = torch.where(drawn, vertices[..., 2], -1.0)
    raster = _rasterise(torch.cat([points, depth[..., None]], -1).detach(), hand.faces, size, config)
    flow, covered = average_speed(speeds, hand.faces, raster)
    return HandFlow(flow, covered, vertices, points, speeds, drawn, raster)


def poses_between(hand: HandModel, start: HandPose, end: HandPose, config: HandFlowConfig) -> PosedHand:
    """`config.in_between` poses (n, *b) from start to end: rotations slerped, shape and wrist linear."""
    steps = torch.linspace(0, 1, config.in_between, device=end.wrist.device, dtype=end.wrist.dtype)
    mean = torch.zeros_like(hand.mean_pose) if not config.slerp_without_mean else hand.mean_pose
    mean = torch.cat([mean.new_zeros(3), mean]).view(16, 3)
    angles = (torch.cat([pose.orientation[..., None, :], pose.joints], -2) - mean for pose in (start, end))
    turns = roma.unitquat_slerp(*(roma.rotvec_to_unitquat(a) for a in angles), steps)
    if config.slerp_without_mean:
        rotations = roma.rotvec_to_rotmat(roma.unitquat_to_rotvec(turns) + mean)
    else:
        rotations = roma.unitquat_to_rotmat(turns)
    wrist, shape = (
        torch.stack([torch.lerp(a, b, step) for step in steps])
        for a, b in ((start.wrist, end.wrist), (start.shape, end.shape))
    )
    return hand.with_shape(shape).with_rotations(rotations, wrist)


def vertex_speeds(points: Float[Tensor, "n *b v 2"]) -> Float[Tensor, "n *b v 2"]:
    """Speeds in pixels per window that bring the points of each in-between mesh to their end; the last as the one
    before it."""
    n = len(points)
    left = 1 - torch.linspace(0, 1, n, device=points.device, dtype=points.dtype)[:-1]
    speeds = (points[-1:] - points[:-1]) / left.view(-1, *[1] * (points.ndim - 1))
    return torch.cat([speeds, speeds[-1:]])


def seen_pixels(raster: Raster) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all images in one row: flat index, number of the image, face and weights of every pixel that shows a face."""
    height, width = raster.face.shape[-2:]
    flat = raster.face.flatten()
    index = (flat >= 0).nonzero()[:, 0]
    return index, index // (height * width), flat[index].long(), raster.barycentrics.reshape(-1, 3)[index]


def on_surface(
    values: Float[Tensor, "m v c"], faces: Tensor, mesh: Tensor, face: Tensor, weights: Float[Tensor, "k 3"]
) -> Float[Tensor, "k c"]:
    """Values of vertices at k places of surfaces, each given by its mesh, face and weights of the corners."""
    index = mesh[:, None] * values.shape[1] + faces[face]
    corners = values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)
    return (weights[..., None] * corners).sum(1)


def average_speed(speeds: Tensor, faces: Tensor, raster: Raster) -> tuple[Tensor, Tensor]:
    """Mean over the meshes that cover a pixel: (*b, 2, h, w) and where there is one (*b, h, w)."""
    shape = raster.face.shape[1:]
    index, mesh, face, weights = seen_pixels(raster)
    values = on_surface(speeds.flatten(0, -3), faces, mesh, face, weights.to(speeds.dtype))
    pixel = index % raster.face[0].numel()
    count = torch.bincount(pixel, minlength=raster.face[0].numel())
    flow = speeds.new_zeros(len(count), 2).index_add(0, pixel, values / count[pixel][:, None])
    return flow.view(*shape, 2).movedim(-1, -3), (count > 0).view(shape)


def _rasterise(points: Tensor, faces: Tensor, size: Size, config: HandFlowConfig) -> Raster:
    offset, blur_px = config.pixel_offset, config.blur_px
    if points.device.type != "cpu":
        return rasterize_torch(points, faces, size, pixel_offset=offset, blur_px=blur_px)
    meshes, triangles = points.flatten(0, -3).double().numpy(), faces.numpy().astype(np.int32)
    threads = config.threads or torch.get_num_threads()
    found = rasterize_batch(meshes, triangles, size, pixel_offset=offset, blur_px=blur_px, threads=threads)
    batch = points.shape[:-2]
    return Raster(*(torch.from_numpy(a).unflatten(0, batch) for a in (found.face, found.barycentrics, found.depth)))


def crop_flow(
    flow: Float[Tensor, "*b 2 h w"],
    K: Float[Tensor, "*#b 3 3"],
    crop_K: Float[Tensor, "*b 3 3"],
    side_px: int,
    *,
    published: bool = False,
) -> Float[Tensor, "*b 2 s s"]:
    """Flow of the camera K seen in square crops of it, in pixels of the crop: what a FlowNet should say.

    Read bilinearly where each pixel of the crop lies in the image; 0 outside. published=True cuts the crop from the
    image resized to whole pixels with aligned corners, at a place cut to whole pixels (O37).
    """
    scale = crop_K[..., 0, 0] / K[..., 0, 0]
    pixels = torch.arange(side_px, device=flow.device, dtype=flow.dtype)
    places = []
    for axis, length in ((1, flow.shape[-2]), (0, flow.shape[-1])):
        centre, crop_centre = K[..., axis, 2], crop_K[..., axis, 2]
        if published:
            resized = (length * scale).trunc()
            place = pixels + (centre * scale - crop_centre).trunc()[..., None]
            inside = (place >= 0) & (place < resized[..., None])
            step = torch.full_like(resized, length - 1) / (resized - 1).clamp(min=1)
            place = place * step[..., None]
        else:
            place = (pixels - crop_centre[..., None]) / scale[..., None] + centre[..., None]
            inside = (place > -1) & (place < length)
        places.append((torch.where(inside, place, 0), inside))
    (rows, rows_inside), (columns, columns_inside) = places
    inside = rows_inside[..., :, None] & columns_inside[..., None, :]
    return torch.where(inside[..., None, :, :], _bilinear(flow, rows, columns), 0) * scale[..., None, None, None]


def _bilinear(flow: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Values at the grid rows (*b, s) x columns (*b, s), zeros beyond the border."""
    height, width = flow.shape[-2:]
    padded = torch.nn.functional.pad(flow, (1, 1, 1, 1)).flatten(-2)
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[..., :, None], (columns - left)[..., None, :]
    first = ((top + 1)[..., :, None] * (width + 2) + (left + 1)[..., None, :]).long()

    def tap(dy: int, dx: int) -> Tensor:
        index = (first + dy * (width + 2) + dx).flatten(-2)[..., None, :].expand(*flow.shape[:-2], -1)
        return padded.gather(-1, index).unflatten(-1, first.shape[-2:])

    down, right = down[..., None, :, :], right[..., None, :, :]
    upper = tap(0, 0) * (1 - right) + tap(0, 1) * right
    return upper * (1 - down) + (tap(1, 0) * (1 - right) + tap(1, 1) * right) * down
