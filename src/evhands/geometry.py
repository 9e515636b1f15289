"""Cameras and pixels: projection, OpenCV distortion, and the cameras that crops, resizes, mirrors and turns make.

Frames and pixels as in `evhands.types`: camera x right, y down, z forward; pixel centres at integers, so an image
covers [-0.5, w - 0.5] x [-0.5, h - 0.5]. numpy only; `project` and `unproject` take torch tensors as well.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Shaped

from evhands.types import Camera, InputError, Size

DISTORTION_LENGTHS = (0, 4, 5, 8, 12, 14)


def project(points: Float[Any, "*b 3"], K: Float[Any, "*k 3 3"]) -> Float[Any, "*b 2"]:
    """Pixels of points in the camera frame (metres), without distortion.

    Works on numpy arrays and torch tensors of one dtype alike. A batch of K (*k, 3, 3) goes with points (*k, n, 3).
    Points at or behind the camera plane give what the division gives: mask them by their z.
    """
    centre = K[:2, 2] if K.ndim == 2 else K[..., None, :2, 2]
    return (points[..., :2] / points[..., 2:]) @ K[..., :2, :2].mT + centre


def unproject(pixels: Float[Any, "*b 2"], depth: Float[Any, "*b"], K: Float[Any, "3 3"]) -> Float[Any, "*b 3"]:
    """The points (metres, camera frame) at a depth z (metres) behind undistorted pixels; numpy or torch."""
    inverse = K.inverse() if hasattr(K, "inverse") else np.linalg.inv(K)
    return (pixels @ inverse[:, :2].T + inverse[:, 2]) * depth[..., None]


# --- distortion: the OpenCV model -----------------------------------------------------------------------------------


def _coefficients(distortion: Float[np.ndarray, " k"]) -> Float64[np.ndarray, "14"]:
    """k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y, the missing ones zero."""
    if len(distortion) not in DISTORTION_LENGTHS:
        raise InputError(
            f"The camera has {len(distortion)} distortion coefficients; wanted {DISTORTION_LENGTHS} in OpenCV's order "
            "(k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tau_x tau_y]]]]). Fill the missing ones with zeros."
        )
    padded = np.zeros(14)
    padded[: len(distortion)] = distortion
    return padded


def _tilt(tau_x: float, tau_y: float) -> Float64[np.ndarray, "3 3"]:
    """The homography of a sensor turned against its lens (coefficients 13 and 14)."""
    cx, sx, cy, sy = np.cos(tau_x), np.sin(tau_x), np.cos(tau_y), np.sin(tau_y)
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    onto_plane = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]])
    return onto_plane @ turn


def _through(homography: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, v, w = homography @ np.stack([x, y, np.ones_like(x)])
    return u / w, v / w


def _lens(x: np.ndarray, y: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radial factor and the tangential + thin-prism shift at normalised (x, y)."""
    r2 = x * x + y * y
    radial = (1 + ((k[4] * r2 + k[1]) * r2 + k[0]) * r2) / (1 + ((k[7] * r2 + k[6]) * r2 + k[5]) * r2)
    dx = 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x) + k[8] * r2 + k[9] * r2 * r2
    dy = k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y + k[10] * r2 + k[11] * r2 * r2
    return radial, dx, dy


def distort_points(
    pixels: Shaped[np.ndarray, "n 2"],
    K: Float[np.ndarray, "3 3"],
    distortion: Float[np.ndarray, " k"],
    K_new: Float[np.ndarray, "3 3"] | None = None,
) -> Float64[np.ndarray, "n 2"]:
    """Pixels of the real (distorted) image where the undistorted image with matrix K_new (default K) has `pixels`."""
    k = _coefficients(distortion)
    from_K = K if K_new is None else K_new
    x = (pixels[:, 0].astype(np.float64) - from_K[0, 2]) / from_K[0, 0]
    y = (pixels[:, 1].astype(np.float64) - from_K[1, 2]) / from_K[1, 1]
    radial, dx, dy = _lens(x, y, k)
    x, y = x * radial + dx, y * radial + dy
    if k[12] or k[13]:
        x, y = _through(_tilt(k[12], k[13]), x, y)
    return np.stack([x * K[0, 0] + K[0, 2], y * K[1, 1] + K[1, 2]], -1)


def undistort_points(
    pixels: Shaped[np.ndarray, "n 2"],
    K: Float[np.ndarray, "3 3"],
    distortion: Float[np.ndarray, " k"],
    K_new: Float[np.ndarray, "3 3"] | None = None,
    iterations: int | None = None,
) -> Float64[np.ndarray, "n 2"]:
    """Pixels of the undistorted image with matrix K_new (default K) of pixels of the real image.

    iterations: 5 is what OpenCV's point undistortion computes (up to 0.3 px off inside an ordinary image); None solves
    to convergence, and gives NaN where the lens model has no solution on its innermost branch (far outside the image).
    """
    k = _coefficients(distortion)
    x0 = (pixels[:, 0].astype(np.float64) - K[0, 2]) / K[0, 0]
    y0 = (pixels[:, 1].astype(np.float64) - K[1, 2]) / K[1, 1]
    with np.errstate(all="ignore"):
        if k[12] or k[13]:
            x1, y1 = _through(np.linalg.inv(_tilt(k[12], k[13])), x0, y0)
        else:
            x1, y1 = x0, y0
        if iterations is None:
            x, y = _newton(x1, y1, k)
        else:
            x, y = _fixed_point(x1, y1, x0, y0, k, iterations)
    to_K = K if K_new is None else K_new
    return np.stack([x * to_K[0, 0] + to_K[0, 2], y * to_K[1, 1] + to_K[1, 2]], -1)


def _fixed_point(
    x1: np.ndarray, y1: np.ndarray, x0: np.ndarray, y0: np.ndarray, k: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's iteration; like OpenCV it gives the undisturbed point back where the radial factor turns negative."""
    x, y = x1.copy(), y1.copy()
    folded = np.zeros(x.shape, bool)
    for _ in range(iterations):
        radial, dx, dy = _lens(x, y, k)
        folded |= 1 / radial < 0
        x, y = (x1 - dx) / radial, (y1 - dy) / radial
    return np.where(folded, x0, x), np.where(folded, y0, y)


def _newton(x1: np.ndarray, y1: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve lens(x, y) = (x1, y1), walking out from the centre so that the innermost branch is found."""
    x, y = np.zeros_like(x1), np.zeros_like(y1)
    h = 1e-6
    sound = np.isfinite(x1) & np.isfinite(y1)

    def lens(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radial, dx, dy = _lens(a, b, k)
        return a * radial + dx, b * radial + dy

    for step in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, *([1.0] * 8)):
        ex, ey = lens(x, y)
        (ax, ay), (bx, by) = lens(x + h, y), lens(x - h, y)
        (cx, cy), (dx, dy) = lens(x, y + h), lens(x, y - h)
        xx, yx, xy, yy = (ax - bx) / (2 * h), (ay - by) / (2 * h), (cx - dx) / (2 * h), (cy - dy) / (2 * h)
        determinant = xx * yy - xy * yx
        sound &= determinant > 0
        rx, ry = x1 * step - ex, y1 * step - ey
        x, y = x + (yy * rx - xy * ry) / determinant, y + (xx * ry - yx * rx) / determinant
    ex, ey = lens(x, y)
    sound &= np.hypot(ex - x1, ey - y1) < 1e-9 * (1 + np.hypot(x1, y1))
    return np.where(sound, x, np.nan), np.where(sound, y, np.nan)


def undistortion_map(
    camera: Camera, K_new: Float[np.ndarray, "3 3"] | None = None, iterations: int | None = None
) -> Float32[np.ndarray, "h w 2"]:
    """For every pixel of the sensor its (x, y) in the undistorted image: a lookup table for events.

    NaN where the lens model has no solution; such events fall outside every image and are dropped by `batch_windows`.
    """
    width, height = camera.size
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    undistorted = undistort_points(grid, camera.K, camera.distortion, K_new, iterations)
    return undistorted.astype(np.float32).reshape(height, width, 2)


def pixels_inside(
    pixels: Shaped[np.ndarray, "n 2"], size: Size, *, rows_against_width: bool = False
) -> Bool[np.ndarray, " n"]:
    """Which pixels lie in [0, w-1] x [0, h-1]; NaN is outside.

    rows_against_width keeps the published EvHandPose oddity: y is tested against the width too (O1).
    """
    width, height = size
    rows = width if rows_against_width else height
    x, y = pixels[:, 0], pixels[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= rows - 1)


# --- cameras made from cameras --------------------------------------------------------------------------------------


def undistorted_camera(camera: Camera, K_new: Float[np.ndarray, "3 3"] | None = None) -> Camera:
    """The pinhole camera that events live in after `undistortion_map(camera, K_new)`."""
    return replace(camera, K=camera.K if K_new is None else K_new, distortion=np.zeros(0))


def _affine_camera(camera: Camera, scale: np.ndarray, offset: np.ndarray, size: Size) -> Camera:
    K = camera.K.astype(np.float64).copy()
    K[:2] *= scale[:, None]
    K[:2, 2] += offset
    return replace(camera, K=K, size=size)


def crop_camera(camera: Camera, centre_px: Shaped[np.ndarray, "2"], side_px: float, size_px: int) -> Camera:
    """The camera of a square crop with its middle at pixel `centre_px` and side `side_px`, resized to size_px square.

    The crop covers [centre - side/2, centre + side/2] in pixel coordinates (pixel u covers [u - 0.5, u + 0.5]), so
    u' = (u - centre) * size / side + (size - 1) / 2: the centre lands in the middle of the crop. It may reach over the
    border of the image. Distortion must have been removed before, and is dropped.
    """
    scale = np.full(2, size_px / side_px)
    offset = (size_px - 1) / 2 - np.asarray(centre_px, np.float64) * scale
    return replace(_affine_camera(camera, scale, offset, (size_px, size_px)), distortion=np.zeros(0))


def resize_camera(camera: Camera, size: Size) -> Camera:
    """The camera of the whole image resized to `size`, edges onto edges (distortion is in rays and stays)."""
    scale = np.array(size) / np.array(camera.size)
    return _affine_camera(camera, scale, (scale - 1) / 2, size)


def mirror_camera(camera: Camera) -> Camera:
    """The camera that sees the mirrored world (x -> -x in its own frame) as the mirrored image (u -> w - 1 - u).

    Where the camera has a pose, it becomes that of the mirrored camera in the world mirrored alike (x -> -x).
    """
    K = camera.K.astype(np.float64).copy()
    K[0, 2] = camera.size[0] - 1 - K[0, 2]
    K[0, 1] = -K[0, 1]
    distortion = camera.distortion.copy()
    for index in (3, 8, 9, 13):  # p2, s1, s2 and tau_y shift along x
        if index < len(distortion):
            distortion[index] = -distortion[index]
    flip = np.diag([-1.0, 1, 1, 1])
    pose = None if camera.T_camera_world is None else flip @ camera.T_camera_world @ flip
    return Camera(K, camera.size, distortion, pose)


def rotate_camera_in_plane(camera: Camera, angle: float) -> Camera:
    """The camera turned about its optical axis so that its image turns by `angle` (radians, x towards y).

    Points in the new camera frame are R_z(angle) times those in the old one, and pixels of the two are related by
    K R_z K^-1. The pose becomes R_z T (the old camera counts as the world where it had none). Distortion is dropped.
    """
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose = turn if camera.T_camera_world is None else turn @ camera.T_camera_world
    return Camera(camera.K, camera.size, np.zeros(0), pose)


def affine_between(source: Camera, target: Camera) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]:
    """(scale, offset) with target pixel = source pixel * scale + offset; both cameras have one pose, no distortion."""
    scale = np.array([target.K[0, 0] / source.K[0, 0], target.K[1, 1] / source.K[1, 1]], np.float64)
    return scale, target.K[:2, 2] - source.K[:2, 2] * scale


def ray_rotation(direction: Float[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """The smallest rotation that turns the optical axis (0, 0, 1) onto `direction` (any length but zero).

    Straight backwards, where no rotation is smallest, it is the half turn about x.
    """
    d = np.asarray(direction, np.float64)
    d = d / np.linalg.norm(d, axis=-1, keepdims=True)
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    behind = 1 + z < 1e-12
    f = 1 / np.where(behind, 1.0, 1 + z)
    rotation = np.stack([1 - x * x * f, -x * y * f, x, -x * y * f, 1 - y * y * f, y, -x, -y, z], -1)
    rotation = rotation.reshape(*d.shape[:-1], 3, 3)
    return np.where(behind[..., None, None], np.diag([1.0, -1, -1]), rotation)


def crop_direction(crop: Camera) -> Float64[np.ndarray, "3 3"]:
    """R_camera_virtual: the smallest rotation of the optical axis onto the ray through the centre of a crop's image."""
    (fx, _, cx), (_, fy, cy), _ = crop.K.tolist()
    x, y = ((crop.size[0] - 1) / 2 - cx) / fx, ((crop.size[1] - 1) / 2 - cy) / fy
    # `ray_rotation` of one ray that does not go backwards, in plain numbers: it is asked for in every window.
    z = 1 / (x * x + y * y + 1) ** 0.5
    x, y, f = x * z, y * z, 1 / (1 + z)
    return np.array([[1 - x * x * f, -x * y * f, x], [-x * y * f, 1 - y * y * f, y], [-x, -y, z]])


def virtual_move(
    scale: float | np.floating, left: float | np.floating, top: float | np.floating, K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3"]:
    """m in t = t' + z' m, from a translation t' = (x', y', z') in a crop's virtual camera to the real camera K.

    The crop is u' = (u - cx) scale + cx - left, v' likewise with cy and top; so x = x' + z' left / fx,
    y = y' + z' top / fy, z = z' scale.
    """
    return np.array([left / K[0, 0], top / K[1, 1], scale - 1])


# --- where a camera comes from --------------------------------------------------------------------------------------


def default_camera(size: Size) -> Camera:
    """The camera assumed when there is no calibration: f = 0.95 max(w, h) (55 degrees), centred, no distortion."""
    width, height = size
    focal = 0.95 * max(width, height)
    return Camera(np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]), size)


def load_camera(path: Path | str, size: Size | None = None) -> Camera:
    """Read a calibration {"K": 3x3, "distortion": [0, 4, 5, 8, 12 or 14 numbers], "size": [w, h]} from JSON.

    `size` is that of the recording: taken where the file gives none, and the file must agree with it where it does.
    Raises InputError for a missing file, broken JSON, wrong shapes, NaN, and another size.
    """
    wanted = 'Wanted {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "distortion": [k1, k2, p1, p2, k3], "size": [w, h]}'
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f"Cannot read the calibration {path}: {error.strerror}. {wanted} as JSON.") from error
    except ValueError as error:
        raise InputError(f"The calibration {path} is not JSON ({error}). {wanted}; correct the file.") from error
    if not isinstance(content, dict) or "K" not in content:
        raise InputError(f'The calibration {path} has no "K". {wanted}; add the camera matrix.')
    K = _numbers(content["K"], f'"K" in {path}', wanted)
    distortion = _numbers(content.get("distortion") or [], f'"distortion" in {path}', wanted).reshape(-1)
    if K.shape != (3, 3) or K[0, 0] <= 0 or K[1, 1] <= 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise InputError(f'"K" in {path} is {K.tolist()}, not a camera matrix. {wanted}; correct the matrix.')
    _coefficients(distortion)
    return Camera(K, _camera_size(content.get("size"), size, path), distortion)


def _numbers(value: Any, name: str, wanted: str) -> Float64[np.ndarray, "..."]:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a rectangle of numbers ({error}). {wanted}; correct the file.") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity: {array.tolist()}. {wanted}; calibrate again.")
    return array


def _camera_size(found: Any, size: Size | None, path: Path | str) -> Size:
    if found is None:
        if size is None:
            raise InputError(f'The calibration {path} gives no "size". Wanted "size": [width, height]; add it.')
        return size
    try:
        width, height = (int(v) for v in found)
    except (TypeError, ValueError) as error:
        raise InputError(f'"size" in {path} is {found!r}. Wanted "size": [width, height]; correct it.') from error
    if width <= 0 or height <= 0 or (size is not None and (width, height) != tuple(size)):
        of_recording = "" if size is None else f" and the recording is {size[0]}x{size[1]}"
        raise InputError(
            f"The calibration {path} is for {width}x{height} pixels{of_recording}. Wanted the same sensor size; give "
            "the calibration of this camera."
        )
    return (width, height)
