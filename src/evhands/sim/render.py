"""What an image of a mesh is made of: pixels and Lambert light of the vertices, logarithms; and one image at a time.

`evhands.sim.film` draws the many images of a clip; the triangles are filled by `evhands.sim.fill`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from evhands.geometry import distort_points
from evhands.sim.appearance import Look
from evhands.sim.fill import blurred, fill, framed
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


def corners(vertices: np.ndarray, points_px: np.ndarray, faces: np.ndarray, look: Look) -> np.ndarray:
    """What `evhands.sim.fill.fill` asks of the vertices (n, v, 3), but light itself, at full gain, in the last place.

    (n, v, 4) float32: pixel x and y (not a number where a vertex is too near), inverse depth, light.
    """
    return _corners(
        np.ascontiguousarray(vertices), points_px, faces, look.albedo, look.lights, np.float32(look.ambient),
        np.float32(look.occlusion), np.float32(look.gloss),
    )  # fmt: skip


def render(vertices: np.ndarray, points_px: np.ndarray, faces: np.ndarray, look: Look, dark: float, wall: np.ndarray,
           box: Box, gain: float = 1.0) -> np.ndarray:  # fmt: skip
    """The logarithm of light (y1 - y0, x1 - x0) inside `box` of a mesh in front of a wall.

    vertices: (v, 3) float32 m in the camera frame; points_px: (v, 2) float32 their pixels; faces: (f, 3) int32;
    wall: (height, width) what `log_background` gives, before the lens. gain: factor of all light. Pixels away from
    the mesh equal `seen_background` bit for bit, so that a moving box fires no events.
    """
    mesh = corners(vertices[None], points_px[None], faces, look)[0]
    mesh[:, 3] = log_background(mesh[:, 3], dark, gain)
    canvas = framed(wall, wall.shape[1] + 2)
    touched = np.zeros((2, len(canvas)), np.int32)
    fill(mesh, faces, canvas, np.zeros_like(canvas), *touched)
    return blurred(canvas, *box)


def log_background(light: np.ndarray, dark: float, gain: float = 1.0) -> np.ndarray:
    """Logarithm of light (...) float32."""
    light = np.ascontiguousarray(light, np.float32)
    out = np.empty(light.size, np.float32)
    log_light(light.reshape(-1), np.float32(gain), np.float32(dark), np.empty_like(out), out)
    return out.reshape(light.shape)


def seen_background(wall: np.ndarray) -> np.ndarray:
    """What the sensor sees of the wall (height, width) without a hand: the same lens blur."""
    return blurred(framed(wall, wall.shape[1] + 2), 0, 0, wall.shape[1], wall.shape[0])


@njit(cache=True, nogil=True)
def log_light(light, gain, dark, work, out):  # type: ignore[no-untyped-def]
    """Natural logarithm of gain * light + dark, within 2e-7, of flat float32 arrays of one length.

    The exponent's bits, and a Chebyshev polynomial of the mantissa in [1, 2): several numbers at once, unlike `log`.
    """
    bits, mantissa = work.view(np.int32), out.view(np.int32)
    for i in range(len(light)):
        work[i] = gain * light[i] + dark
    for i in range(len(light)):
        mantissa[i] = (bits[i] & 0x7FFFFF) | 0x3F800000
    for i in range(len(light)):
        m = out[i] - np.float32(1.5)
        log = np.float32(-0.0061514709603216035) * m + np.float32(0.010243828631155338)
        log = log * m + np.float32(-0.014338342044038657)
        log = log * m + np.float32(0.025967329512610597)
        log = log * m + np.float32(-0.04940961833928127)
        log = log * m + np.float32(0.0987917516379703)
        log = log * m + np.float32(-0.2222213682268758)
        log = log * m + np.float32(0.6666661660586802)
        log = log * m + np.float32(0.40546510379299017)
        out[i] = log + np.float32((bits[i] >> 23) - 127) * np.float32(0.6931471805599453)


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


@njit(cache=True, nogil=True, error_model="numpy")
def _corners(vertices, points, faces, albedo, lights, ambient, occlusion, gloss):  # type: ignore[no-untyped-def]
    out = np.empty((len(vertices), vertices.shape[1], 4), np.float32)
    for n in range(len(vertices)):
        _light(vertices[n], faces, albedo, lights, ambient, occlusion, gloss, out[n])
        for v in range(vertices.shape[1]):
            near = vertices[n, v, 2] < NEAR_M
            for k in range(2):
                out[n, v, k] = np.nan if near else points[n, v, k]
            out[n, v, 2] = np.float32(1) / vertices[n, v, 2]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _light(vertices, faces, albedo, lights, ambient, occlusion, gloss, out):  # type: ignore[no-untyped-def]
    """The light that the vertices send to the camera, into out[:, 3]; 32 bits throughout, which is twice as fast."""
    nil, one = np.float32(0), np.float32(1)
    normals = vertex_normals(vertices, faces)
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
        out[v, 3] = light


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
