"""Hand-edge loss: the bright pixels of an image of warped events pull on the mesh near them.

EvHandPose (Jiang et al., TPAMI 2024, section 3.4): events come from the outline of the hand, and from where it moves.
Every bright pixel picks, among the rasterised mesh pixels near it, the one most likely to have made it: seen edge-on,
fast and close. The loss is the mean distance to those, weighted by that likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from evhands.hand_flow import HandFlow, on_surface, seen_pixels
from evhands.types import Size


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """Constants of the edge loss; `published` names what the published code does instead of the defaults."""

    share: float = 0.3
    """Of the events of a window, those nearest in time to the pose."""
    least: int = 120
    """Events that the share has at least."""
    quantile: float = 0.999
    """Pixels above it, in each polarity, are bright."""
    reach: tuple[int, int] = (-6, 6)
    """First and last offset of the neighbourhood in pixels; (-5, 6) in the published code (O33)."""
    orientation_bias: float = 0.2
    motion_bias_px: float = 4.0
    distance_bias_px2: float = 4.0
    homogeneous_border: bool = False
    """Test u z and v z instead of u and v for whether a vertex lies in the image, as the published code does (O31)."""
    corner_slots: bool = False
    """Images with fewer bright pixels than the one with most get pixel (0, 0) instead, as published (O32)."""
    whole_batch: bool = False
    """One ratio for the whole batch, without the middle ones of the poses, labelled or not, as published (O33)."""
    weights_with_gradient: bool = False
    """Let gradients run through the weights too, and not only through the distances."""

    @staticmethod
    def published() -> EdgeConfig:
        return EdgeConfig(reach=(-5, 6), homogeneous_border=True, corner_slots=True, whole_batch=True)


@dataclass(frozen=True)
class EdgeSums:
    """Sums of weight times distance (pixels) and of the weights over the bright pixels of each window."""

    weighted_px: Float[Tensor, "*b"]
    weights: Float[Tensor, "*b"]


def edge_sums(
    images: Float[Tensor, "*b 2 h w"],
    flow: HandFlow,
    faces: Int64[Tensor, "f 3"],
    K: Float[Tensor, "*#b 3 3"],
    end: Literal["last", "first"],
    config: EdgeConfig = EdgeConfig(),
) -> EdgeSums:
    """Distances of the bright pixels to the mesh at the end (images warped forward) or start (backward) of the window.

    Images are of the events nearest to that end alone, and carry no gradient here; the distances do, to the vertices.
    """
    size, batch = (images.shape[-1], images.shape[-2]), images.shape[:-3]
    at = -1 if end == "last" else 0
    index, mesh, face, corners = seen_pixels(flow.raster_of(at))
    points = flow.points[at].flatten(0, -3)
    with torch.set_grad_enabled(config.weights_with_gradient):
        importance = vertex_weights(flow, faces, K, at, size, config).flatten(0, -2)[..., None]
        seen = on_surface(importance, faces, mesh, face, corners.to(points.dtype))[:, 0]
    with torch.no_grad():
        bright = _bright_pixels(images.flatten(0, -4), config)
        place = on_surface(points, faces, mesh, face, corners.to(points.dtype))
        entries = torch.full((len(points) * size[0] * size[1],), -1, device=index.device)
        entries[index] = torch.arange(len(index), device=index.device)
        entry, kept = _best_near(bright, entries.view(-1, size[1], size[0]), seen, place, config)
    image, pixel, entry = bright[0][kept], torch.stack(bright[1:][::-1], -1)[kept], entry[kept]
    found = on_surface(points, faces, mesh[entry], face[entry], corners[entry].to(points.dtype))
    distance = ((found - pixel).square().sum(-1) + config.distance_bias_px2).sqrt()
    zeros = points.new_zeros(len(points))
    weight = seen[entry]
    return EdgeSums(
        zeros.index_add(0, image, weight * distance).view(batch), zeros.index_add(0, image, weight).view(batch)
    )


def vertex_weights(
    flow: HandFlow, faces: Tensor, K: Tensor, at: int, size: Size, config: EdgeConfig
) -> Float[Tensor, "*b v"]:
    """(0.2 + 1 - |cos(normal, viewing ray)|) (|projected motion| + 4 px) of every vertex; 0 outside the image."""
    vertices, points = flow.vertices[at], flow.points[at]
    ray = torch.nn.functional.normalize(vertices, dim=-1)
    cosine = (vertex_normals(vertices, faces) * ray).sum(-1)
    motion = (flow.points[-1] - flow.points[0]).norm(dim=-1)
    weights = (config.orientation_bias + 1 - cosine.abs()) * (motion + config.motion_bias_px)
    return torch.where(_inside(vertices, points, K, size, config) & flow.drawn, weights, 0)


def vertex_normals(vertices: Float[Tensor, "*b v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "*b v 3"]:
    """Unit normals: the normals of the faces around a vertex, weighted by their areas."""
    corners = vertices[..., faces, :]
    normals = torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    spread = normals[..., :, None, :].expand(corners.shape).flatten(-3, -2)
    total = torch.zeros_like(vertices).index_add(-2, faces.flatten(), spread)
    return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def edge_loss(
    forward: EdgeSums, backward: EdgeSums, free: Bool[Tensor, "b poses"], config: EdgeConfig = EdgeConfig()
) -> tuple[Float[Tensor, "*b"], Bool[Tensor, "*b"]]:
    """Weighted mean distance in pixels of each sequence (b, windows), forward plus backward; and which have one.

    free (b, windows + 1): poses that are predictions, since a true pose has nothing to learn. With
    `config.whole_batch` one value without dimensions.
    """
    if config.whole_batch:
        free = torch.ones_like(free)
        free[:, 1:-1] = False
    total, found = torch.zeros_like(forward.weights[:, 0]), torch.zeros_like(free[:, 0])
    for sums, chosen in ((forward, free[:, 1:]), (backward, free[:, :-1])):
        weights = torch.where(chosen, sums.weights, 0).sum(1)
        distances = torch.where(chosen, sums.weighted_px, 0).sum(1)
        if config.whole_batch:
            weights, distances = weights.sum().expand_as(weights), distances.sum().expand_as(distances)
        total = total + distances / torch.where(weights > 0, weights, 1)
        found = found | (weights > 0)
    return (total.mean(), found.all()) if config.whole_batch else (total, found)


def _inside(vertices: Tensor, points: Tensor, K: Tensor, size: Size, config: EdgeConfig) -> Tensor:
    if config.homogeneous_border:
        points = (vertices @ K.mT)[..., :2]
        return ((points >= 0) & (points < points.new_tensor(size))).all(-1)
    return ((points >= -0.5) & (points < points.new_tensor(size) - 0.5)).all(-1)


def _bright_pixels(images: Tensor, config: EdgeConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of every pixel above the quantile of its image and polarity."""
    flat = images.detach().flatten(2)
    position = config.quantile * (flat.shape[-1] - 1)
    below = int(position)
    top = flat.topk(flat.shape[-1] - below, dim=-1).values
    threshold = torch.lerp(top[..., -1], top[..., -2], position - below)
    image, _, row, column = (images > threshold[..., None, None]).nonzero(as_tuple=True)
    if config.corner_slots:
        counts = torch.bincount(image, minlength=len(images))
        slots = torch.repeat_interleave(torch.arange(len(images), device=image.device), counts.max() - counts)
        image = torch.cat([image, slots])
        row, column = (torch.cat([place, torch.zeros_like(slots)]) for place in (row, column))
    return image, row, column


def _best_near(
    bright: tuple[Tensor, Tensor, Tensor], entries: Tensor, seen: Tensor, place: Tensor, config: EdgeConfig
) -> tuple[Tensor, Tensor]:
    """For every bright pixel the mesh pixel with the largest weight / distance near it, and whether one has a weight.

    entries (b, h, w): the place of a mesh pixel in the rows of `seen` (weight) and `place` (x, y), -1 = none.
    """
    image, row, column = bright
    if not len(seen):
        return torch.zeros_like(image), torch.zeros_like(image, dtype=torch.bool)
    height, width = entries.shape[1:]
    offsets = torch.arange(config.reach[0], config.reach[1] + 1, device=row.device)
    rows, columns = row[:, None, None] + offsets[:, None], column[:, None, None] + offsets
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    near = entries[image[:, None, None], rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    valid, near = (inside & (near >= 0)).flatten(1), near.clamp(min=0).flatten(1)
    pixel = torch.stack([column, row], -1)[:, None]
    distance = ((place[near] - pixel).square().sum(-1) + config.distance_bias_px2).sqrt()
    best, choice = torch.where(valid, seen[near] / distance, 0).max(1)
    return near.gather(1, choice[:, None])[:, 0], best > 0
