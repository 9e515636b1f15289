"""Rasterise a projected mesh: which face is seen at each pixel, where on it, and how far away (numba z-buffer).

Rules, the same in `evhands.hand.raster_torch`: a face covers the pixel centres on it, its edges included; both sides
are drawn; a face with a corner at or behind the camera is left out whole; the nearest wins, and of faces equally near
(to single precision) the one with the lowest index, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from evhands.types import Size


@dataclass(frozen=True)
class Raster:
    """What is seen at each pixel of an image; leading batch dimensions where many meshes were rasterised.

    face: index of the nearest face, -1 where there is none. barycentrics: perspective-correct weights of its corners,
    so that weights @ corner values interpolates on the surface; 0 where there is no face. depth: z in metres, inf where
    there is no face. Numpy arrays, or tensors from `evhands.hand.raster_torch`; they carry no gradient.
    """

    face: Int[Any, "*b h w"]
    barycentrics: Float[Any, "*b h w 3"]
    depth: Float[Any, "*b h w"]

    @staticmethod
    def empty(size: Size, batch: tuple[int, ...] = ()) -> Raster:
        """Uninitialised arrays for `out`; images of `size` (width, height)."""
        shape = (*batch, size[1], size[0])
        return Raster(np.empty(shape, np.int32), np.empty((*shape, 3), np.float32), np.empty(shape, np.float32))


def rasterize(
    points: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    size: Size,
    *,
    pixel_offset: float = 0.0,
    blur_px: float = 0.0,
    out: Raster | None = None,
) -> Raster:
    """Rasterise one mesh of corners [u_px, v_px, z_m] into an image of `size` (width, height).

    Pixel (x, y) is sampled at (x, y) + pixel_offset: 0 is the convention of evhands, 0.5 the one of pytorch3d. Corners
    that are not finite drop their faces. blur_px > 0 also draws a face at pixels nearer to it than that; there the
    weights are perspective-corrected, then cut at 0, then divided by their sum (pytorch3d's blur radius r in normalised
    coordinates is blur_px = sqrt(r) * min(size) / 2). `out` is written and returned, which saves allocating it.
    """
    out = Raster.empty(size) if out is None else out
    corners = np.ascontiguousarray(points, np.float64)
    triangles = np.ascontiguousarray(faces, np.int32)
    if blur_px > 0:
        _fill_blurred(corners, triangles, pixel_offset, blur_px, out.face, out.barycentrics, out.depth)
    else:
        _fill(corners, triangles, pixel_offset, out.face, out.barycentrics, out.depth)
    return out


def rasterize_batch(
    points: Float[np.ndarray, "b v 3"] | Sequence[Float[np.ndarray, "v 3"]],
    faces: Int[np.ndarray, "f 3"],
    size: Size,
    *,
    pixel_offset: float = 0.0,
    blur_px: float = 0.0,
    threads: int = 1,
    out: Raster | None = None,
) -> Raster:
    """`rasterize` of many meshes with the same faces, on a pool of threads (the kernel releases the GIL)."""
    out = Raster.empty(size, (len(points),)) if out is None else out

    def one(i: int) -> None:
        target = Raster(out.face[i], out.barycentrics[i], out.depth[i])
        rasterize(points[i], faces, size, pixel_offset=pixel_offset, blur_px=blur_px, out=target)

    if threads == 1 or len(points) < 2:
        for i in range(len(points)):
            one(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(len(points))))
    return out


@njit(cache=True, nogil=True)
def _corner_order(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Positions of the corners sorted by index: a face is computed alike however it lists its corners."""
    i, j, k = 0, 1, 2
    if a > b:
        i, j, a, b = j, i, b, a
    if b > c:
        j, k, b, c = k, j, c, b
        if a > b:
            i, j = j, i
    return i, j, k


@njit(cache=True, nogil=True)
def _first_pixel(lowest: float, offset: float) -> int:
    return int(max(np.ceil(lowest - offset), 0.0))


@njit(cache=True, nogil=True)
def _end_pixel(highest: float, offset: float, length: int) -> int:
    return int(min(np.floor(highest - offset) + 1.0, float(length)))


@njit(cache=True, nogil=True)
def _fill(
    points: np.ndarray,
    faces: np.ndarray,
    offset: float,
    face_map: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Two passes: the nearest face of each pixel by its inverse depth (linear in the image), then weights where seen.

    While the first pass runs, `depth` holds the inverse depth, 0 = nothing yet.
    """
    height, width = face_map.shape
    face_map[:] = -1
    depth[:] = 0.0
    top, bottom, left, right = height, 0, width, 0
    for f in range(len(faces)):
        i, j, k = _corner_order(faces[f, 0], faces[f, 1], faces[f, 2])
        a, b, c = faces[f, i], faces[f, j], faces[f, k]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if not (za > 0.0 and zb > 0.0 and zc > 0.0):
            continue
        ua, va, ub, vb, uc, vc = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
        if not 0.0 < abs(area) < np.inf:
            continue
        x0, x1 = _first_pixel(min(ua, ub, uc), offset), _end_pixel(max(ua, ub, uc), offset, width)
        y0, y1 = _first_pixel(min(va, vb, vc), offset), _end_pixel(max(va, vb, vc), offset, height)
        if x0 >= x1 or y0 >= y1:
            continue
        top, bottom, left, right = min(top, y0), max(bottom, y1), min(left, x0), max(right, x1)
        # Edge functions, positive inside whatever the winding; their increments per pixel to the right and down.
        sign = 1.0 if area > 0.0 else -1.0
        right_a, right_b, right_c = sign * (vb - vc), sign * (vc - va), sign * (va - vb)
        down_a, down_b, down_c = sign * (uc - ub), sign * (ua - uc), sign * (ub - ua)
        x, y = x0 + offset, y0 + offset
        row_a = right_a * (x - ub) + down_a * (y - vb)
        row_b = right_b * (x - uc) + down_b * (y - vc)
        row_c = right_c * (x - ua) + down_c * (y - va)
        per_a, per_b, per_c = 1.0 / (za * abs(area)), 1.0 / (zb * abs(area)), 1.0 / (zc * abs(area))
        for row in range(y0, y1):
            wa, wb, wc = row_a, row_b, row_c
            for column in range(x0, x1):
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    nearness = np.float32(wa * per_a + wb * per_b + wc * per_c)
                    if nearness > depth[row, column]:
                        depth[row, column] = nearness
                        face_map[row, column] = f
                wa += right_a
                wb += right_b
                wc += right_c
            row_a += down_a
            row_b += down_b
            row_c += down_c
    _weigh(points, faces, offset, face_map, barycentrics, depth, (top, bottom, left, right))


@njit(cache=True, nogil=True)
def _weigh(
    points: np.ndarray,
    faces: np.ndarray,
    offset: float,
    face_map: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
    box: tuple[int, int, int, int],
) -> None:
    """Weights and depth of the seen faces; only the box (top, bottom, left, right), ends excluded, can hold any."""
    top, bottom, left, right = box
    height = len(face_map)
    barycentrics[:] = 0.0
    for row in range(height):
        if row < top or row >= bottom:
            depth[row] = np.inf
            continue
        depth[row, :left] = np.inf
        depth[row, right:] = np.inf
        for column in range(left, right):
            f = face_map[row, column]
            if f < 0:
                depth[row, column] = np.inf
                continue
            wa, wb, wc = _perspective_weights(points, faces, f, column + offset, row + offset)
            barycentrics[row, column, 0] = wa
            barycentrics[row, column, 1] = wb
            barycentrics[row, column, 2] = wc
            depth[row, column] = wa * points[faces[f, 0], 2] + wb * points[faces[f, 1], 2] + wc * points[faces[f, 2], 2]


@njit(cache=True, nogil=True)
def _perspective_weights(
    points: np.ndarray, faces: np.ndarray, f: int, x: float, y: float
) -> tuple[float, float, float]:
    """Weights on the surface of face f that add up to 1; negative ones outside the face."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ua, va, ub, vb, uc, vc = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
    za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
    wa = ((ub - x) * (vc - y) - (uc - x) * (vb - y)) * zb * zc
    wb = ((uc - x) * (va - y) - (ua - x) * (vc - y)) * zc * za
    wc = ((ua - x) * (vb - y) - (ub - x) * (va - y)) * za * zb
    total = wa + wb + wc
    return wa / total, wb / total, wc / total


@njit(cache=True, nogil=True)
def _squared_distance(x: float, y: float, ua: float, va: float, ub: float, vb: float) -> float:
    """From (x, y) to the segment a-b, squared."""
    du, dv = ub - ua, vb - va
    length = du * du + dv * dv
    along = 0.0 if length == 0.0 else min(max(((x - ua) * du + (y - va) * dv) / length, 0.0), 1.0)
    return (x - ua - along * du) ** 2 + (y - va - along * dv) ** 2


@njit(cache=True, nogil=True)
def _fill_blurred(
    points: np.ndarray,
    faces: np.ndarray,
    offset: float,
    blur_px: float,
    face_map: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
) -> None:
    """As `_fill`, with every face widened by blur_px; plain rather than fast."""
    height, width = face_map.shape
    face_map[:] = -1
    barycentrics[:] = 0.0
    depth[:] = np.inf
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if not (za > 0.0 and zb > 0.0 and zc > 0.0):
            continue
        ua, va, ub, vb, uc, vc = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
        if not 0.0 < abs(area) < np.inf:
            continue
        sign = 1.0 if area > 0.0 else -1.0
        x0, x1 = _first_pixel(min(ua, ub, uc) - blur_px, offset), _end_pixel(max(ua, ub, uc) + blur_px, offset, width)
        y0, y1 = _first_pixel(min(va, vb, vc) - blur_px, offset), _end_pixel(max(va, vb, vc) + blur_px, offset, height)
        for row in range(y0, y1):
            for column in range(x0, x1):
                x, y = column + offset, row + offset
                # Positive inside, and not divided by their sum: beyond the horizon of a steep face it is negative.
                wa = sign * ((ub - x) * (vc - y) - (uc - x) * (vb - y)) * zb * zc
                wb = sign * ((uc - x) * (va - y) - (ua - x) * (vc - y)) * zc * za
                wc = sign * ((ua - x) * (vb - y) - (ub - x) * (va - y)) * za * zb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    near = min(
                        _squared_distance(x, y, ua, va, ub, vb),
                        _squared_distance(x, y, ub, vb, uc, vc),
                        _squared_distance(x, y, uc, vc, ua, va),
                    )
                    if near >= blur_px * blur_px:
                        continue
                    wa, wb, wc = max(wa, 0.0), max(wb, 0.0), max(wc, 0.0)
                total = wa + wb + wc
                wa, wb, wc = wa / total, wb / total, wc / total
                z = np.float32(wa * za + wb * zb + wc * zc)
                if z < depth[row, column]:
                    depth[row, column] = z
                    face_map[row, column] = f
                    barycentrics[row, column, 0] = wa
                    barycentrics[row, column, 1] = wb
                    barycentrics[row, column, 2] = wc
