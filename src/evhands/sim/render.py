"""Draw a moving hand into a small box of the image: depth buffer, Lambert light, lens blur.

The renderer keeps no face index and no barycentrics (`evhands.hand.raster` gives those): light is interpolated between
the vertices while the triangles are filled, which is a third of the work, and a clip takes hundreds of images.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from evhands.geometry import distort_points
from evhands.sim.appearance import Look
from evhands.sim.sensor import Box
from evhands.types import Camera

NEAR_M = 0.05
"""Triangles with a corner nearer than this are left out."""


def image_boxes(vertices: np.ndarray, camera: Camera, margin: int = 3) -> tuple[np.ndarray, list[Box]]:
    """Pixels (n, v, 2) float32 of the vertices (n, v, 3), and per image the box inside the sensor they can touch.

    A box without area means that nothing is in view. Lens distortion moves the vertices; triangles stay straight.
    """
    points, low, high = _project_and_bound(vertices, camera.K.astype(np.float32))
    if np.any(camera.distortion):
        points = distort_points(points.reshape(-1, 2), camera.K, camera.distortion).astype(np.float32)
        points = points.reshape(*vertices.shape[:2], 2)
        near = vertices[..., 2:] < NEAR_M
        low, high = np.where(near, np.float32(1e9), points).min(1), np.where(near, np.float32(-1e9), points).max(1)
    limit = np.array(camera.size)
    low = np.clip(np.floor(low) - margin, 0, limit).astype(int)
    high = np.clip(np.ceil(high) + margin + 1, 0, limit).astype(int)
    high = np.where((high > low).all(1, keepdims=True), high, low)
    return points, [(int(a[0]), int(a[1]), int(b[0]), int(b[1])) for a, b in zip(low, high, strict=True)]


@njit(cache=True, nogil=True)
def _project_and_bound(vertices, K):  # type: ignore[no-untyped-def]
    count, size, _ = vertices.shape
    points = np.empty((count, size, 2), np.float32)
    low = np.full((count, 2), 1e9, np.float32)
    high = np.full((count, 2), -1e9, np.float32)
    for i in range(count):
        for v in range(size):
            z = vertices[i, v, 2]
            u = K[0, 0] * vertices[i, v, 0] / z + K[0, 2]
            w = K[1, 1] * vertices[i, v, 1] / z + K[1, 2]
            points[i, v, 0], points[i, v, 1] = u, w
            if z >= NEAR_M:
                low[i, 0], low[i, 1] = min(low[i, 0], u), min(low[i, 1], w)
                high[i, 0], high[i, 1] = max(high[i, 0], u), max(high[i, 1], w)
    return points, low, high


def render(vertices: np.ndarray, points_px: np.ndarray, faces: np.ndarray, look: Look, dark: float, wall: np.ndarray,
           box: Box, gain: float = 1.0) -> np.ndarray:  # fmt: skip
    """The logarithm of light (y1 - y0, x1 - x0) inside `box` of a mesh in front of a wall.

    vertices: (v, 3) float32 m in the camera frame; points_px: (v, 2) float32 their pixels; faces: (f, 3) int32;
    wall: (height, width) what `log_background` gives, before the lens. gain: factor of all light. Pixels away from
    the mesh equal `seen_background` bit for bit, so that a moving box fires no events.
    """
    shade = _shade(
        vertices, faces, look.albedo, look.lights, look.ambient, look.occlusion, look.gloss, np.float32(gain), dark
    )
    return _draw(points_px, vertices, faces, shade, wall, *box)


def log_background(light: np.ndarray, dark: float, gain: float = 1.0) -> np.ndarray:
    """Logarithm of a background's light (h, w) float32."""
    return np.log(np.float32(gain) * light + np.float32(dark))


def seen_background(wall: np.ndarray) -> np.ndarray:
    """What the sensor sees of the wall (height, width) without a hand: the same lens blur."""
    points, vertices, faces = np.zeros((0, 2), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    return _draw(points, vertices, faces, np.zeros(0, np.float32), wall, 0, 0, wall.shape[1], wall.shape[0])


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
def _shade(vertices, faces, albedo, lights, ambient, occlusion, gloss, gain, dark):  # type: ignore[no-untyped-def]
    """Logarithm of the light (v,) that the vertices send to the camera; 32 bits throughout, which is twice as fast."""
    nil, one = np.float32(0), np.float32(1)
    ambient, occlusion, gloss, dark = np.float32(ambient), np.float32(occlusion), np.float32(gloss), np.float32(dark)
    normals = vertex_normals(vertices, faces)
    out = np.empty(len(vertices), np.float32)
    for v in range(len(vertices)):
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        nearness = one / np.sqrt(x * x + y * y + z * z)
        facing = min(max(-(nx * x + ny * y + nz * z) * nearness, nil), one)
        light = ambient
        for k in range(len(lights)):
            light += max(nx * lights[k, 0] + ny * lights[k, 1] + nz * lights[k, 2], nil)
        light *= albedo[v] * (one - occlusion * (one - facing * facing))
        if gloss > nil and facing > nil:
            light += gloss * _specular(nx, ny, nz, -x * nearness, -y * nearness, -z * nearness, lights)
        out[v] = np.log(gain * light + dark)
    return out


@njit(cache=True, nogil=True)
def _specular(nx, ny, nz, ex, ey, ez, lights):  # type: ignore[no-untyped-def]
    """Blinn's specular light: the half vector between light and eye against the normal, to the power of 16."""
    total = np.float32(0)
    for k in range(len(lights)):
        lx, ly, lz = lights[k, 0], lights[k, 1], lights[k, 2]
        strength = np.sqrt(lx * lx + ly * ly + lz * lz)
        hx, hy, hz = lx / strength + ex, ly / strength + ey, lz / strength + ez
        cosine = nx * hx + ny * hy + nz * hz
        if cosine > np.float32(0):
            power = cosine * cosine / (hx * hx + hy * hy + hz * hz)
            power *= power
            power *= power
            total += strength * power * power
    return total


@njit(cache=True, nogil=True)
def _draw(points, vertices, faces, shade, background, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Fill the triangles over the background in the box grown by a pixel, then blur with (1 2 1)/4 in x and y."""
    gx0, gy0 = x0 - 1, y0 - 1
    image = _padded(background, gx0, gy0, x1 + 1, y1 + 1)
    width = image.shape[1]
    pixels = image.reshape(-1)
    nearest = np.zeros(image.size, np.float32)  # inverse depth
    one, nil, nearest_allowed = np.float32(1), np.float32(0), np.float32(1 / NEAR_M)
    inverse_depth = np.empty(len(vertices), np.float32)
    for v in range(len(vertices)):  # behind the camera counts as too near
        inverse_depth[v] = one / max(vertices[v, 2], np.float32(1e-6))
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= nil:  # outward normals are counter-clockwise, which with y down is a negative area when facing us
            continue
        left, right = _pixels(min(ax, bx, cx), max(ax, bx, cx), gx0, x1 + 1)
        top, bottom = _pixels(min(ay, by, cy), max(ay, by, cy), gy0, y1 + 1)
        if left >= right or top >= bottom:
            continue
        za, zb, zc = inverse_depth[a], inverse_depth[b], inverse_depth[c]
        if za > nearest_allowed or zb > nearest_allowed or zc > nearest_allowed:
            continue
        inverse = one / area
        # The weights of b and c are linear in the pixel; z and light are linear in the weights.
        wb_x, wb_y = (cy - ay) * inverse, (ax - cx) * inverse
        wc_x, wc_y = (ay - by) * inverse, (bx - ax) * inverse
        zb, zc = zb - za, zc - za
        sa = shade[a]
        sb, sc = shade[b] - sa, shade[c] - sa
        # Sensor pixels, not those of the box: the same numbers whatever the box, so that a still edge stays still.
        for y in range(top, bottom):
            dy = np.float32(y) - ay
            wb_row, wc_row = dy * wb_y, dy * wc_y
            first = (y - gy0) * width - gx0
            x = left
            while x < right:
                dx = np.float32(x) - ax
                wb = wb_row + dx * wb_x
                wc = wc_row + dx * wc_x
                if min(wb, wc, one - wb - wc) >= nil:
                    break
                x += 1
            while x < right:
                dx = np.float32(x) - ax
                wb = wb_row + dx * wb_x
                wc = wc_row + dx * wc_x
                if min(wb, wc, one - wb - wc) < nil:
                    break
                z = za + wb * zb + wc * zc
                k = first + x
                if z > nearest[k]:
                    nearest[k] = z
                    pixels[k] = sa + wb * sb + wc * sc
                x += 1
    return _blur(image)


@njit(cache=True, nogil=True)
def _pixels(low, high, first, end):  # type: ignore[no-untyped-def]
    """The pixel centres from low to high within [first, end), as a half-open range; rounding by hand is quick."""
    start = int(low)
    if start < low:
        start += 1
    return max(start, first), min(int(high) + 1, end)


@njit(cache=True, nogil=True)
def _padded(image, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """A copy of image[y0:y1, x0:x1], with its border repeated where that reaches a pixel outside."""
    height, width = image.shape
    out = np.empty((y1 - y0, x1 - x0), np.float32)
    for i in range(y1 - y0):
        row = image[min(max(y0 + i, 0), height - 1)]
        first, last = max(x0, 0), min(x1, width)
        out[i, first - x0 : last - x0] = row[first:last]
        if first > x0:
            out[i, 0] = row[0]
        if last < x1:
            out[i, -1] = row[width - 1]
    return out


@njit(cache=True, nogil=True)
def _blur(image):  # type: ignore[no-untyped-def]
    """(1 2 1)/4 in x and y of (h + 2, w + 2): the inner (h, w)."""
    rows, width = image.shape[0], image.shape[1] - 2
    quarter, half = np.float32(0.25), np.float32(0.5)
    down = np.empty(width + 2, np.float32)
    out = np.empty((rows - 2, width), np.float32)
    for y in range(rows - 2):
        above, here, below = image[y], image[y + 1], image[y + 2]
        for x in range(width + 2):
            down[x] = quarter * (above[x] + below[x]) + half * here[x]
        result = out[y]
        for x in range(width):
            result[x] = quarter * (down[x] + down[x + 2]) + half * down[x + 1]
    return out
