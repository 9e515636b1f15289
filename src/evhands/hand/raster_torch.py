"""The rasteriser in pure torch, for meshes that already live on a GPU: the same result as `evhands.hand.raster`.

Every face is expanded to the pixels of its bounding box; nearness and face index are packed into one integer whose
minimum per pixel names the nearest face, the lowest index first, whatever order the device works in.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from evhands.hand.raster import Raster
from evhands.types import Size

_NOTHING = torch.iinfo(torch.int64).max
_INFINITY_BITS = 0x7F800000  # the bits of positive float32 values grow with the value, up to these


@torch.no_grad()
def rasterize_torch(
    points: Float[Tensor, "*b v 3"],
    faces: Int[Tensor, "f 3"],
    size: Size,
    *,
    pixel_offset: float = 0.0,
    blur_px: float = 0.0,
) -> Raster:
    """`evhands.hand.raster.rasterize` of any batch, as tensors on the device of `points`, without gradients.

    The device must know float64. Face indices come as int32.
    """
    width, height = size
    corners = points.double().reshape(-1, *points.shape[-2:])
    faces = faces.long()
    mesh, face, x, y = _candidates(corners, faces, size, pixel_offset, blur_px)
    # Corners sorted by index: a face is computed alike however it lists them.
    triangles = corners[mesh[:, None], faces.sort(-1).values[face]]
    if blur_px > 0:
        order, kept = _blurred_order(triangles, x + pixel_offset, y + pixel_offset, blur_px)
    else:
        order, kept = _order(triangles, x + pixel_offset, y + pixel_offset)
    pixel = ((mesh * height + y) * width + x)[kept]
    key = torch.full((len(corners) * height * width,), _NOTHING, device=points.device)
    key.scatter_reduce_(0, pixel, (order[kept].long() << 32) | face[kept], "amin")
    raster = _resolve(key, corners, faces, size, pixel_offset, blur_px > 0)
    shape = (*points.shape[:-2], height, width)
    return Raster(raster.face.view(shape), raster.barycentrics.view(*shape, 3), raster.depth.view(shape))


def _candidates(
    corners: Tensor, faces: Tensor, size: Size, offset: float, margin: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mesh, face, x and y of every pixel in the bounding box of every face that can be drawn."""
    triangles = corners[:, faces]  # (b, f, corner, coordinate)
    u, v, z = triangles.unbind(-1)
    area = ((u[..., 1] - u[..., 0]) * (v[..., 2] - v[..., 0]) - (u[..., 2] - u[..., 0]) * (v[..., 1] - v[..., 0])).abs()
    drawn = (z > 0).all(-1) & (area > 0) & (area < torch.inf)
    mesh, face = drawn.nonzero(as_tuple=True)
    limits = torch.tensor(size, dtype=corners.dtype, device=corners.device)
    flat = triangles[mesh, face][..., :2]
    first = (flat.amin(1) - margin - offset).ceil().clamp(min=0).minimum(limits).long()
    end = ((flat.amax(1) + margin - offset).floor() + 1).clamp(min=0).minimum(limits).long()
    across, down = (end - first).clamp(min=0).unbind(-1)
    count = across * down
    box = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    place = torch.arange(len(box), device=count.device) - (count.cumsum(0) - count)[box]
    return mesh[box], face[box], first[box, 0] + place % across[box], first[box, 1] + place // across[box]


def _areas(triangles: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Twice the signed areas (n, 3) that the pixel makes with the edge opposite to each corner."""
    du, dv = triangles[..., 0] - x[:, None], triangles[..., 1] - y[:, None]
    return du.roll(-1, 1) * dv.roll(-2, 1) - du.roll(-2, 1) * dv.roll(-1, 1)


def _surface_weights(triangles: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Perspective-correct weights (n, 3), positive inside the face, before the division by their sum."""
    z, areas = triangles[..., 2], _areas(triangles, x, y)
    return areas * areas.sum(1, keepdim=True).sign() * z.roll(-1, 1) * z.roll(-2, 1)


def _divided(weights: Tensor, clip: bool) -> Tensor:
    """Weights that add up to 1, cut at 0 before if wished: beyond the horizon of a steep face the sum is negative."""
    weights = weights.clamp(min=0) if clip else weights
    return weights / weights.sum(1, keepdim=True)


def _order(triangles: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (int32) that grow with the distance, and which candidates cover their pixel."""
    areas = _areas(triangles, x, y)
    total = areas.sum(1, keepdim=True)
    nearness = (areas / total / triangles[..., 2]).sum(1).float()
    return _INFINITY_BITS - nearness.view(torch.int32), (areas * total.sign() >= 0).all(1)


def _blurred_order(triangles: Tensor, x: Tensor, y: Tensor, blur_px: float) -> tuple[Tensor, Tensor]:
    """As `_order`, also covering pixels nearer than blur_px, at the depth of the clipped weights."""
    weights = _surface_weights(triangles, x, y)
    depth = (_divided(weights, clip=True) * triangles[..., 2]).sum(1).float()
    return depth.view(torch.int32), (weights >= 0).all(1) | (_squared_distance(triangles[..., :2], x, y) < blur_px**2)


def _squared_distance(triangles: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """From the pixels to the nearest point of the outline, squared."""
    offset = torch.stack([x, y], -1)[:, None] - triangles
    edge = triangles.roll(-1, 1) - triangles
    length = edge.square().sum(-1)
    along = ((offset * edge).sum(-1) / length.where(length > 0, 1.0)).clamp(0, 1)
    return (offset - along[..., None] * edge).square().sum(-1).amin(1)


def _resolve(key: Tensor, corners: Tensor, faces: Tensor, size: Size, offset: float, clip: bool) -> Raster:
    """The faces that the keys name, with their weights and depths; all pixels of all images in one row."""
    seen = (key != _NOTHING).nonzero()[:, 0]
    found = key[seen] & 0x7FFFFFFF
    mesh, place = seen // (size[0] * size[1]), seen % (size[0] * size[1])
    triangles = corners[mesh[:, None], faces[found]]
    weights = _divided(_surface_weights(triangles, place % size[0] + offset, place // size[0] + offset), clip)
    face = torch.full_like(key, -1, dtype=torch.int32)
    face[seen] = found.int()
    depth = torch.full_like(key, torch.inf, dtype=torch.float32)
    depth[seen] = (weights * triangles[..., 2]).sum(1).float()
    barycentrics = torch.zeros(len(key), 3, device=key.device)
    barycentrics[seen] = weights.float()
    return Raster(face, barycentrics, depth)
