"""Draw a moving hand into a small box of the image: depth buffer, Lambert light, lens blur.

The renderer keeps no face index and no barycentrics (`evhands.hand.raster` gives those): light is interpolated between
the vertices while the triangles are filled, which is a third of the work, and a clip takes hundreds of images.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from evhands.sim.appearance import Look
from evhands.sim.sensor import Box
from evhands.types import Size

NEAR_M = 0.05
"""Triangles with a corner nearer than this are left out."""


def image_boxes(points_px: np.ndarray, depth_m: np.ndarray, size: Size, margin: int = 3) -> list[Box]:
    """Per image the box of pixels that its vertices (n, v, 2) can touch, inside the sensor; empty boxes have no area."""
    hidden = depth_m < NEAR_M
    low = np.where(hidden[..., None], np.inf, points_px).min(1)
    high = np.where(hidden[..., None], -np.inf, points_px).max(1)
    limit = np.array(size)
    low = np.clip(np.floor(low) - margin, 0, limit).astype(int)
    high = np.clip(np.ceil(high) + margin + 1, 0, limit).astype(int)
    high = np.where((high > low).all(1, keepdims=True), high, low)
    return [(int(a[0]), int(a[1]), int(b[0]), int(b[1])) for a, b in zip(low, high, strict=True)]


def render(vertices: np.ndarray, points_px: np.ndarray, faces: np.ndarray, look: Look, box: Box) -> np.ndarray:
    """The light (y1 - y0, x1 - x0) inside `box` of a mesh in front of the background.

    vertices: (v, 3) float32 m in the camera frame; points_px: (v, 2) float32 their pixels; faces: (f, 3) int32.
    Pixels far from the mesh equal `blurred_background` bit for bit.
    """
    shade = _shade(vertices, faces, look.albedo, look.lights, look.ambient, look.occlusion)
    return _draw(points_px, vertices, faces, shade, look.background, box[0], box[1], box[2], box[3])


def blurred_background(background: np.ndarray) -> np.ndarray:
    """The light (height, width) of a scene without a hand, through the same lens blur."""
    height, width = background.shape
    nothing = np.zeros((0, 3), np.float32)
    return _draw(nothing[:, :2], nothing, np.zeros((0, 3), np.int32), np.zeros(0, np.float32), background, 0, 0, width,
                 height)  # fmt: skip


@njit(cache=True, nogil=True)
def vertex_normals(vertices, faces):  # type: ignore[no-untyped-def]
    """Unit normals (v, 3) of a mesh, averaged over the faces by area."""
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = (vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2])
        vx, vy, vz = (vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2])
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(len(normals)):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 0:
            for k in range(3):
                normals[v, k] /= length
    return normals


@njit(cache=True, nogil=True)
def _shade(vertices, faces, albedo, lights, ambient, occlusion):  # type: ignore[no-untyped-def]
    """Light (v,) that the vertices send to the camera."""
    normals = vertex_normals(vertices, faces)
    out = np.empty(len(vertices), np.float32)
    for v in range(len(vertices)):
        light = ambient
        for k in range(len(lights)):
            cosine = normals[v, 0] * lights[k, 0] + normals[v, 1] * lights[k, 1] + normals[v, 2] * lights[k, 2]
            if cosine > 0:
                light += cosine
        distance = np.sqrt(vertices[v, 0] ** 2 + vertices[v, 1] ** 2 + vertices[v, 2] ** 2)
        facing = -(normals[v, 0] * vertices[v, 0] + normals[v, 1] * vertices[v, 1] + normals[v, 2] * vertices[v, 2])
        facing = min(max(facing / distance, 0.0), 1.0)
        out[v] = albedo[v] * light * (1 - occlusion * (1 - facing))
    return out


@njit(cache=True, nogil=True)
def _draw(points, vertices, faces, shade, background, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Fill the triangles over the background in the box grown by a pixel, then blur with (1 2 1)/4 in x and y."""
    height, width = background.shape
    gx0, gy0, gx1, gy1 = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, width), min(y1 + 1, height)
    image = background[gy0:gy1, gx0:gx1].copy()
    nearest = np.zeros(image.shape, np.float32)  # inverse depth
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if vertices[a, 2] < 0.05 or vertices[b, 2] < 0.05 or vertices[c, 2] < 0.05:
            continue
        ax, ay = points[a, 0] - gx0, points[a, 1] - gy0
        bx, by = points[b, 0] - gx0, points[b, 1] - gy0
        cx, cy = points[c, 0] - gx0, points[c, 1] - gy0
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:  # outward normals are counter-clockwise, which with y down is a negative area when facing us
            continue
        left = max(int(np.ceil(min(ax, bx, cx))), 0)
        right = min(int(np.floor(max(ax, bx, cx))) + 1, image.shape[1])
        top = max(int(np.ceil(min(ay, by, cy))), 0)
        bottom = min(int(np.floor(max(ay, by, cy))) + 1, image.shape[0])
        if left >= right or top >= bottom:
            continue
        one = np.float32(1)
        inverse = one / area
        za, zb, zc = one / vertices[a, 2], one / vertices[b, 2], one / vertices[c, 2]
        # Weights of b and c are linear in the pixel: start + x * slope_x + y * slope_y.
        wb_x, wb_y = (cy - ay) * inverse, (ax - cx) * inverse
        wc_x, wc_y = (ay - by) * inverse, (bx - ax) * inverse
        for y in range(top, bottom):
            for x in range(left, right):
                wb = (x - ax) * wb_x + (y - ay) * wb_y
                wc = (x - ax) * wc_x + (y - ay) * wc_y
                wa = one - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = wa * za + wb * zb + wc * zc
                if z > nearest[y, x]:
                    nearest[y, x] = z
                    image[y, x] = wa * shade[a] + wb * shade[b] + wc * shade[c]
    return _blur(image, x0 - gx0, y0 - gy0, x1 - x0, y1 - y0)


@njit(cache=True, nogil=True)
def _blur(image, x0, y0, width, height):  # type: ignore[no-untyped-def]
    """The middle of `image` through the kernel (1 2 1)/4 in x and y; the border pixel is repeated."""
    rows, columns = image.shape
    quarter = np.float32(0.25)
    half = np.float32(0.5)
    across = np.empty((rows, width), np.float32)
    for y in range(rows):
        for x in range(width):
            i = x + x0
            before = image[y, i - 1] if i > 0 else image[y, i]
            after = image[y, i + 1] if i + 1 < columns else image[y, i]
            across[y, x] = quarter * (before + after) + half * image[y, i]
    out = np.empty((height, width), np.float32)
    for y in range(height):
        i = y + y0
        above = i - 1 if i > 0 else i
        below = i + 1 if i + 1 < rows else i
        for x in range(width):
            out[y, x] = quarter * (across[above, x] + across[below, x]) + half * across[i, x]
    return out
