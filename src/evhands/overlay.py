"""The picture of a track: events, the shaded hand mesh over them, the skeleton, a side view and a line of text.

Everything is drawn into float32 RGB images of values 0 to 1 with numba and the package's own rasteriser; Pillow sets
the text and PyAV writes the video. Lens distortion is applied to what is drawn, so that it lies on the events as they
came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from numba import njit
from PIL import Image, ImageDraw, ImageFont

from evhands.geometry import distort_points, project
from evhands.hand.raster import rasterize
from evhands.hand.skeleton import OPENPOSE21_BONES
from evhands.types import Camera, Events, Size

RGB = tuple[float, float, float]
Picture = Float32[np.ndarray, "h w 3"]

FINGER_COLOURS: tuple[RGB, ...] = (
    (1.00, 0.44, 0.38),  # thumb
    (1.00, 0.78, 0.28),  # index
    (0.45, 0.88, 0.48),  # middle
    (0.33, 0.76, 1.00),  # ring
    (0.76, 0.56, 1.00),  # little
)


@dataclass(frozen=True, kw_only=True)
class OverlayStyle:
    """Colours and sizes; lengths in pixels of a finished picture 700 pixels wide.

    scale: whole-number magnification of the sensor; 0 chooses one so that the longer side is about 700 pixels or more.
    mesh_opacity: of the parts that face the camera; the rim is denser. supersampling: of the mesh, for smooth edges.
    side_view: draw the hand as seen from its side into the corner, which shows the depth that the picture hides.
    """

    scale: int = 0
    background: RGB = (0.055, 0.066, 0.090)
    on_colour: RGB = (0.36, 0.68, 1.00)
    off_colour: RGB = (0.96, 0.32, 0.36)
    mesh_colour: RGB = (0.98, 0.88, 0.79)
    mesh_opacity: float = 0.55
    bone_px: float = 3.0
    joint_px: float = 3.4
    supersampling: int = 2
    side_view: bool = True

    def magnification(self, size: Size) -> int:
        return self.scale or max(1, min(4, round(700 / max(size))))


class Hand(Protocol):
    """What is drawn of a hand: see `evhands.types.HandMesh`."""

    @property
    def vertices(self) -> Any: ...
    @property
    def joints(self) -> Any: ...
    @property
    def faces(self) -> Any: ...


def draw_events(events: Events, end_us: int, length_us: int, style: OverlayStyle = OverlayStyle()) -> Picture:
    """Events on the dark background at the sensor's size: ON blue, OFF red, newer and denser ones brighter.

    Times are relative to a window of `length_us` that ends at `end_us`; without events it is the plain background.
    """
    width, height = events.size
    age = np.clip((end_us - events.t_us) / length_us, 0.0, 1.0)
    # Old events fade, so that a fast hand has an edge and no smear; a slow one has too few to hide any.
    least = np.clip(0.5 - 25.0 * len(events) / (width * height), 0.04, 0.5)
    weight = least + (1.0 - least) * (1.0 - age) ** 3
    pixel = events.y.astype(np.int64) * width + events.x
    on, off = (np.bincount(pixel[events.p == p], weight[events.p == p], width * height) for p in (True, False))
    return draw_event_image(np.stack([on, off]).reshape(2, height, width), style)


def draw_event_image(
    image: Float[np.ndarray, "2 h w"], style: OverlayStyle = OverlayStyle(), usual: float | None = None
) -> Picture:
    """An image of events, channel 0 = ON, 1 = OFF, on the dark background: larger values brighter, ON blue, OFF red.

    usual: the sum of both at which a pixel is about as bright as it gets; None = what a tenth of the pixels that are
    not empty exceed.
    """
    height, width = image.shape[1:]
    on, off = image.reshape(2, -1)
    total = off + on
    seen = total > 0
    if not seen.any():
        return np.full((height, width, 3), style.background, np.float32)
    # A fast hand gives tens of events a pixel, a slow one a single one: both shall be seen, neither as a blot.
    usual = max(0.5, np.quantile(total[seen], 0.9)) if usual is None else usual
    strength = np.minimum(1.15 * (1.0 - np.exp(-1.2 * total / usual)), 1.0)
    blend = (on / np.where(seen, total, 1.0))[:, None]
    colour = blend * np.array(style.on_colour) + (1.0 - blend) * np.array(style.off_colour)
    background = np.array(style.background)
    picture = (background + strength[:, None] * (colour - background)).astype(np.float32)
    return picture.reshape(height, width, 3)


def draw_overlay(
    events: Events,
    end_us: int,
    length_us: int,
    camera: Camera,
    hand: Hand | None,
    style: OverlayStyle = OverlayStyle(),
    text: str = "",
    confidence: float | None = None,
    others: Sequence[Hand] = (),
    names: Sequence[str] = (),
) -> UInt8[np.ndarray, "h w 3"]:
    """One finished frame: events, hand (metres, camera frame; None = no hand), text and a bar of the confidence.

    others: further hands, drawn without a side view. names: what stands beside the wrists of hand and others.
    """
    scale = style.magnification(camera.size)
    thickness = max(1.0, scale * max(camera.size) / 700)
    style = replace(style, bone_px=style.bone_px * thickness, joint_px=style.joint_px * thickness)
    picture = np.repeat(np.repeat(draw_events(events, end_us, length_us, style), scale, axis=0), scale, axis=1)
    hands = [] if hand is None else [hand, *others]
    for one in sorted(hands, key=lambda h: -float(np.asarray(h.joints)[:, 2].mean())):  # near hands over far ones
        joints, vertices = np.asarray(one.joints), np.asarray(one.vertices)
        _draw_mesh(picture, _to_picture(vertices, camera, scale), vertices, np.asarray(one.faces), style)
        draw_skeleton(picture, _to_picture(joints, camera, scale), style)
    if hand is not None and style.side_view:
        _draw_side_view(picture, np.asarray(hand.vertices), np.asarray(hand.faces), np.asarray(hand.joints), style)
    wrists = [_to_picture(np.asarray(one.joints)[:1], camera, scale)[0, :2] for one in hands]
    return with_text(picture, text, confidence, tuple(zip(names, wrists, strict=False)))


def draw_mesh(picture: Picture, hand: Hand, K: Float[np.ndarray, "3 3"], style: OverlayStyle = OverlayStyle()) -> None:
    """Draw the shaded surface of a hand into a picture as the pinhole camera K sees it."""
    vertices = np.asarray(hand.vertices)
    placed = np.concatenate([project(vertices.astype(np.float64), K), vertices[:, 2:]], axis=-1)
    _draw_mesh(picture, placed, vertices, np.asarray(hand.faces), style)


def draw_skeleton(
    picture: Picture,
    joints: Float[np.ndarray, "21 k"],
    style: OverlayStyle = OverlayStyle(),
    colours: Sequence[RGB] = FINGER_COLOURS,
) -> None:
    """Draw 21 joints (u, v[, depth]) into the picture, far bones first, fingers in their colours, edges smooth."""
    depth = joints[:, 2] if joints.shape[1] > 2 else np.zeros(21)
    order = sorted(OPENPOSE21_BONES, key=lambda bone: -(depth[bone[0]] + depth[bone[1]]))
    dark = (0.03, 0.03, 0.05)
    for parent, child in order:
        _draw_capsule(picture, joints[parent, :2], joints[child, :2], style.bone_px / 2 + 1.2, dark, 0.55)
    for parent, child in order:
        colour = colours[(child - 1) // 4]
        _draw_capsule(picture, joints[parent, :2], joints[child, :2], style.bone_px / 2, colour, 0.95)
    for joint in np.argsort(-depth):
        colour = (1.0, 1.0, 1.0) if joint == 0 else colours[(joint - 1) // 4]
        point = joints[joint, :2]
        _draw_capsule(picture, point, point, style.joint_px + 1.0, dark, 0.8)
        _draw_capsule(picture, point, point, style.joint_px, colour, 1.0)
        _draw_capsule(picture, point, point, style.joint_px * 0.45, (1.0, 1.0, 1.0), 0.85)


@contextmanager
def video_writer(path: Path | str, rate_hz: float) -> Iterator[Any]:
    """Give a function that appends uint8 RGB frames of one size to an H.264 video; odd sizes are padded by a pixel."""
    import av

    container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    stream: Any = None

    def write(frame: UInt8[np.ndarray, "h w 3"]) -> None:
        nonlocal stream
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if stream is None:
            stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
            stream.height, stream.width = frame.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "20", "preset": "veryfast"}
            stream.thread_count = 1
        for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
            container.mux(packet)

    try:
        yield write
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
    finally:
        container.close()


# --- the hand -------------------------------------------------------------------------------------------------------


def _to_picture(points: Float[np.ndarray, "n 3"], camera: Camera, scale: int) -> Float[np.ndarray, "n 3"]:
    """u, v in the magnified picture, and depth, of points in the camera frame."""
    pixels = project(points, camera.K)
    if np.any(camera.distortion):
        pixels = distort_points(pixels, camera.K, camera.distortion)
    return np.concatenate([(pixels + 0.5) * scale - 0.5, points[:, 2:]], axis=-1)


def _draw_mesh(
    picture: Picture,
    placed: Float[np.ndarray, "v 3"],
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    style: OverlayStyle,
) -> None:
    """Blend the shaded mesh into the picture; `placed` is where its vertices are (u, v, depth)."""
    if not np.isfinite(placed).all() or placed[:, 2].min() <= 0:
        return
    height, width = picture.shape[:2]
    x0, y0 = np.maximum(np.floor(placed[:, :2].min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(placed[:, :2].max(axis=0)).astype(int) + 2, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    n = style.supersampling
    local = placed.copy()
    local[:, :2] = (placed[:, :2] - (x0, y0) + 0.5) * n - 0.5
    raster = rasterize(local.astype(np.float32), faces, (int(x1 - x0) * n, int(y1 - y0) * n))
    shades = _vertex_shades(vertices, faces, style)
    _blend(picture[y0:y1, x0:x1], raster.face, raster.barycentrics, faces.astype(np.int32), shades, n)


@njit(cache=True, nogil=True)
def _blend(picture, face, barycentrics, faces, shades, n):  # type: ignore[no-untyped-def]
    """Average n x n samples of the mesh into each pixel and lay them over it.

    The shades carry their opacity, so that an edge is smooth and has no dark fringe.
    """
    height, width = picture.shape[:2]
    share = np.float32(1.0 / (n * n))
    colour = np.empty(4, np.float32)
    for y in range(height):
        for x in range(width):
            colour[:] = 0
            for i in range(n * y, n * y + n):
                for j in range(n * x, n * x + n):
                    seen = face[i, j]
                    if seen < 0:
                        continue
                    for k in range(3):
                        weight = barycentrics[i, j, k] * share
                        vertex = faces[seen, k]
                        for c in range(4):
                            colour[c] += weight * shades[vertex, c]
            if colour[3] > 0:
                for c in range(3):
                    picture[y, x, c] = picture[y, x, c] * (1 - colour[3]) + colour[c]


def _vertex_shades(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], style: OverlayStyle
) -> Float32[np.ndarray, "v 4"]:
    """Colour times opacity, and opacity, of every vertex: soft light from above the camera, a dense rim."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.repeat(face_normals, 3, axis=0)
    normals = np.stack([np.bincount(faces.ravel(), flat[:, c], len(vertices)) for c in range(3)], axis=1)
    normals = normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
    view = -vertices / (np.linalg.norm(vertices, axis=1, keepdims=True) + 1e-12)
    light = np.array([-0.35, -0.65, -0.67])
    facing = np.abs(np.sum(normals * view, axis=1))
    diffuse = np.clip(normals @ light, 0.0, 1.0)
    rim = (1.0 - facing) ** 3
    brightness = 0.40 + 0.78 * diffuse + 0.30 * rim
    opacity = style.mesh_opacity + (1.0 - style.mesh_opacity) * 0.7 * rim
    colour = np.clip(np.array(style.mesh_colour) * brightness[:, None], 0.0, 1.0)
    return np.concatenate([colour * opacity[:, None], opacity[:, None]], axis=1).astype(np.float32)


def _draw_side_view(
    picture: Picture,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    joints: Float[np.ndarray, "21 3"],
    style: OverlayStyle,
) -> None:
    """The hand turned by 90 degrees about the vertical, in the upper right corner; the camera is to its left."""
    side = int(0.27 * min(picture.shape[:2]))
    margin = max(6, side // 16)
    inset = picture[margin : margin + side, -margin - side : -margin]
    inset *= 0.25
    inset += 0.75 * np.array(style.background, np.float32) * 1.6
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centre, distance = (low + high) / 2, 2.0
    scale = distance * 0.86 * side / max(0.2, float((high - low)[1:].max()))
    turn = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

    def place(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = (points - centre) @ turn.T + (0.0, 0.0, distance)
        uv = turned[:, :2] * scale / turned[:, 2:] + side / 2
        return np.concatenate([uv, turned[:, 2:]], axis=1), turned

    placed, turned = place(vertices)
    _draw_mesh(inset, placed, turned, faces, replace(style, mesh_opacity=0.8))
    draw_skeleton(inset, place(joints)[0], replace(style, bone_px=0.55 * style.bone_px, joint_px=0.45 * style.joint_px))
    _draw_frame(inset, (0.42, 0.46, 0.54))


def _draw_frame(picture: Picture, colour: RGB) -> None:
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        edge[:] = colour


def _draw_capsule(picture: Picture, start: Any, end: Any, radius: float, colour: RGB, opacity: float) -> None:
    """A thick line with round ends (a disc where start == end), smooth by its distance field."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    red, green, blue = colour
    _fill_capsule(picture, a[0], a[1], b[0], b[1], float(radius), red, green, blue, float(opacity))


@njit(cache=True, nogil=True)
def _fill_capsule(picture, ax, ay, bx, by, radius, red, green, blue, opacity):  # type: ignore[no-untyped-def]
    height, width = picture.shape[:2]
    x0, x1 = max(0, int(min(ax, bx) - radius - 1)), min(width, int(max(ax, bx) + radius + 2))
    y0, y1 = max(0, int(min(ay, by) - radius - 1)), min(height, int(max(ay, by) + radius + 2))
    dx, dy = bx - ax, by - ay
    squared = max(dx * dx + dy * dy, 1e-9)
    for y in range(y0, y1):
        for x in range(x0, x1):
            share = min(1.0, max(0.0, ((x - ax) * dx + (y - ay) * dy) / squared))
            distance = np.hypot(x - ax - share * dx, y - ay - share * dy)
            cover = np.float32(opacity * min(1.0, max(0.0, radius + 0.5 - distance)))
            if cover > 0:
                picture[y, x, 0] += cover * (np.float32(red) - picture[y, x, 0])
                picture[y, x, 1] += cover * (np.float32(green) - picture[y, x, 1])
                picture[y, x, 2] += cover * (np.float32(blue) - picture[y, x, 2])


# --- text -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def with_text(
    picture: Picture, text: str, confidence: float | None = None, labels: Sequence[tuple[str, Any]] = ()
) -> UInt8[np.ndarray, "h w 3"]:
    """The finished picture, with a line of text in its corner, a bar of the confidence and labels below points (2,)."""
    frame = Image.fromarray((np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
    size = max(11, min(20, frame.height // 32))
    x, y = size // 2 + 2, size // 2
    draw = ImageDraw.Draw(frame)
    if text:
        draw.text((x, y), text, fill=(226, 230, 238), font=_font(size), stroke_width=2, stroke_fill=(14, 17, 23))
    for label, point in labels:
        if np.isfinite(point).all():
            place = tuple(np.clip(point + (0, size), 0, (frame.width - 1, frame.height - 1)).tolist())
            draw.text(place, label, (226, 230, 238), _font(size), "mt", stroke_width=2, stroke_fill=(14, 17, 23))
    if confidence is not None:
        top, length = y + int(1.6 * size), 7 * size
        red, green = int(230 - 140 * confidence), int(90 + 130 * confidence)
        draw.rectangle((x, top, x + length, top + size // 3), fill=(44, 49, 60))
        draw.rectangle((x, top, x + int(length * np.clip(confidence, 0, 1)), top + size // 3), fill=(red, green, 100))
    return np.asarray(frame)
