"""The surface of the open hand as an implicit function: negative inside, about the distance in millimetres outside.

Fingers, thumb, palm and forearm are tubes whose breadth and depth change along them; webs are rounded triangles;
all are joined by smooth minima. Figures: docs/open-hand.md. Used by `build_open_hand.py` only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from evhands.hand.open_hand import BONES, LONG_FINGERS, finger_frame, rest_joints

Array = np.ndarray
JOINTS_MM = {name: place * 1000 for name, place in rest_joints().items()}
WRIST_BREADTH, WRIST_DEPTH = 58.0, 39.5
FOREARM_MM = 42.0
"""How far the stump reaches beyond the wrist."""


class Tube(NamedTuple):
    """Half breadths and half depths (dorsal, palmar) at stations along a straight axis; ellipsoids close both ends."""

    origin: Array
    frame: Array
    """Rows: along, dorsal, sideways."""
    stations: Array
    plus: Array
    """Half breadth on the + side of the sideways axis, (stations,)."""
    minus: Array
    dorsal: Array
    palmar: Array
    caps: tuple[float, float]
    """Lengths of the end ellipsoids at the first and the last station, which lie at their outermost points."""
    exponent: float = 2.0

    def __call__(self, points: Array) -> Array:
        along, up, side = ((points - self.origin) @ self.frame.T).T
        first, last = self.stations[0] + self.caps[0], self.stations[-1] - self.caps[1]
        inner = np.clip(along, first, last)
        end = np.minimum(along - first, 0) / self.caps[0] + np.maximum(along - last, 0) / self.caps[1]
        radii = [PchipInterpolator(self.stations, values)(inner) for values in self[3:7]]
        breadth = np.where(side > 0, radii[0], radii[1])
        depth = np.where(up > 0, radii[2], radii[3])
        n = self.exponent
        across = (np.abs(side / breadth) ** n + np.abs(up / depth) ** n) ** (2 / n)
        q = np.sqrt(across + end**2) + 1e-9
        radius = np.sqrt(side**2 + up**2 + (along - inner) ** 2)
        return np.where(q > 0.05, radius * (1 - 1 / np.maximum(q, 0.05)), -np.minimum(breadth, depth) * (1 - q))


def smooth_min(a: Array, b: Array, radius: float) -> Array:
    """The smaller of two distances with a fillet of about that radius (polynomial)."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - h * h * h * radius / 6


def capsule(points: Array, start: Array, end: Array, radii: tuple[float, float]) -> Array:
    """Distance to a tapered rod."""
    axis = end - start
    t = np.clip((points - start) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - start - t[:, None] * axis, axis=1) - (radii[0] + t * (radii[1] - radii[0]))


def triangle(points: Array, corners: tuple[Array, Array, Array], thickness: float) -> Array:
    """Distance to a triangle of that half thickness."""
    a, b, c = corners
    normal = np.cross(b - a, c - a)
    normal = normal / np.linalg.norm(normal)
    edges = [capsule(points, p, q, (0.0, 0.0)) for p, q in ((a, b), (b, c), (c, a))]
    inside = np.ones(len(points), dtype=bool)
    for p, q in ((a, b), (b, c), (c, a)):
        inside &= (points - p) @ np.cross(normal, q - p) >= 0
    return np.where(inside, np.abs((points - a) @ normal), np.minimum.reduce(edges)) - thickness


class Section(NamedTuple):
    """Breadths and depths of one digit in millimetres."""

    breadth: tuple[float, float, float]
    """At its base (first phalanx of the thumb: its head), at PIP (thumb: IP), at DIP (thumb: middle of the nail)."""
    depth: tuple[float, float, float]


# Breadth and depth at PIP and DIP near the mean of men and women in Garrett 1971 and Greiner 1991, in steps of 0.5 mm.
SECTIONS = {
    "index": Section((20.0, 19.5, 17.0), (21.0, 17.5, 14.0)),
    "middle": Section((20.0, 19.5, 17.0), (21.5, 18.0, 14.5)),
    "ring": Section((19.0, 18.5, 16.0), (20.0, 17.0, 13.5)),
    "little": Section((17.5, 16.5, 14.5), (18.0, 15.0, 12.5)),
    "thumb": Section((21.5, 21.0, 20.5), (20.5, 19.0, 15.5)),
}


def finger_tube(finger: str) -> Tube:
    """The free part of a digit from inside the palm to the tip: knuckles, waists, a flatter nail."""
    frame, bones, ((b0, b1, b2), (d0, d1, d2)) = finger_frame(finger), BONES[finger], SECTIONS[finger]
    if finger == "thumb":
        ip, tip = bones.middle, bones.middle + bones.distal
        stations = [-14, 0, 0.5 * ip, ip, ip + 0.45 * bones.distal, tip - 6, tip]
        half = np.array([b0, b0 - 0.2, b1 - 1.6, b1, b2, b2 - 2.2, b2 - 4]) / 2
        depth = np.array([d0 + 1, d0 + 0.5, d1 - 0.4, d1, d2, d2 - 2.4, d2 - 4])
        share = np.array([0.5, 0.5, 0.46, 0.5, 0.40, 0.34, 0.34])
        up, down = share * depth, (1 - share) * depth
        return Tube(JOINTS_MM["thumb2"], frame, np.array(stations), half, half, up, down, (9, 9.0), 2.2)
    pip, dip, tip = np.cumsum(bones[:3])
    stations = [-12, 0, 0.5 * pip, pip, 0.5 * (pip + dip), dip, dip + 0.45 * bones.distal, tip - 5, tip]
    half = np.array([b0 - 1, b0, b0 - 0.9, b1, b1 - 1.6, b2 + 0.3, b2 - 0.2, b2 - 1.7, b2 - 3]) / 2
    depth = np.array([d0 - 1, d0 + 0.5, d0 - 1.8, d1, d1 - 1.6, d2, d2 - 0.4, d2 - 2.2, d2 - 3.5])
    share = np.array([0.52, 0.5, 0.46, 0.5, 0.45, 0.47, 0.40, 0.36, 0.36])
    up, down = share * depth, (1 - share) * depth
    return Tube(JOINTS_MM[f"{finger}1"], frame, np.array(stations), half, half, up, down, (8, 8.0), 2.2)


def palm_tube() -> Tube:
    """Forearm stump, wrist and the slab of the palm as one tube along -x."""
    frame = np.array([[-1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    w, d = WRIST_BREADTH / 2, WRIST_DEPTH / 2
    table = np.array(
        [
            # along, + side (thumb), - side (little finger), dorsal, palmar
            [-FOREARM_MM, w + 1.5, w + 1.5, d + 0.5, d + 1.5],
            [-24, w + 0.8, w + 0.8, d - 0.5, d + 1],
            [-8, w - 0.6, w - 0.4, d - 1.5, d],
            [4, w - 1.0, w + 0.6, d - 3.0, d - 0.5],
            [18, w - 1.0, w + 4.8, d - 4.5, d - 2],
            [40, w + 0.5, w + 10.0, d - 6.2, d - 4.5],
            [62, 32.5, 41.0, d - 7.0, d - 4.8],
            [82, 34.0, 39.5, d - 8.0, d - 4.8],
            [98, 33.0, 34, d - 10.5, d - 7],
        ]
    )
    return Tube(np.zeros(3), frame, table[:, 0], *table[:, 1:].T, caps=(9, 15), exponent=2.5)


def palm_distance(points: Array) -> Array:
    """Palm, wrist, metacarpals, thenar and hypothenar eminences, without digits."""
    value = palm_tube()(points)
    carpus = {"index": (-26, 1, 9), "middle": (-26, 2, 2), "ring": (-25, 1, -6), "little": (-24, -1, -13)}
    for finger in LONG_FINGERS:
        radius = SECTIONS[finger].breadth[0] / 2
        head = JOINTS_MM[f"{finger}1"] + (0, -0.8, 0)
        value = smooth_min(value, capsule(points, np.array(carpus[finger], float), head, (8.5, radius + 0.6)), 9)
    hypothenar = capsule(points, np.array([-14.0, -6.5, -16]), np.array([-50.0, -8.5, -26]), (11, 11.5))
    return smooth_min(value, hypothenar, 22)


def thumb_distance(points: Array) -> Array:
    """The thumb with its metacarpal and the thenar eminence."""
    base, knuckle = JOINTS_MM["thumb1"], JOINTS_MM["thumb2"]
    along, dorsal, across = finger_frame("thumb", metacarpal=True)
    bone = capsule(points, base - 0.5 * dorsal, knuckle - 0.3 * dorsal, (12.0, 10.2))
    heel, belly = base + 6 * along - 6.5 * dorsal - 6 * across, base + 29 * along - 5.5 * dorsal - 3 * across
    ball = capsule(points, heel, belly, (14, 11.5))
    value = smooth_min(bone, ball, 12)
    return smooth_min(value, finger_tube("thumb")(points), 9)


def webs(points: Array) -> Array:
    """Skin between the fingers, reaching about 40 % of the first phalanx."""
    value = np.full(len(points), 1e3)
    for a, b in zip(LONG_FINGERS[:-1], LONG_FINGERS[1:], strict=True):
        roots = [JOINTS_MM[f"{f}1"] + (0, -3.5, 0) for f in (a, b)]
        ends = [r + 0.36 * BONES[f].proximal * finger_frame(f)[0] for r, f in zip(roots, (a, b), strict=True)]
        value = np.minimum(value, triangle(points, (roots[0], roots[1], ends[0]), 5.0))
        value = np.minimum(value, triangle(points, (roots[1], ends[1], ends[0]), 5.0))
    return value


def thumb_web(points: Array) -> Array:
    """Skin and muscle between thumb and index finger."""
    base, knuckle, index = JOINTS_MM["thumb1"], JOINTS_MM["thumb2"], JOINTS_MM["index1"]
    near = 0.3 * base + 0.7 * index + (0, -5, 0)
    return triangle(points, (base + (0, -1, -6), 0.22 * base + 0.78 * knuckle, near), 5.5)


def hand_distance(points: Array) -> Array:
    """Signed distance-like value (n,) in millimetres of points (n,3) in millimetres to the rest surface."""
    body = smooth_min(palm_distance(points), thumb_distance(points), 13)
    body = smooth_min(body, thumb_web(points), 12)
    fingers = np.minimum.reduce([finger_tube(f)(points) for f in LONG_FINGERS])
    body = smooth_min(body, fingers, 7)
    return smooth_min(body, webs(points), 6)


def gradient(points: Array, step: float = 0.05) -> Array:
    """Central differences (n,3) of `hand_distance`."""
    shifts = step * np.eye(3)
    return np.stack([(hand_distance(points + s) - hand_distance(points - s)) / (2 * step) for s in shifts], axis=1)


def project(points: Array, rounds: int = 6) -> Array:
    """Points moved along the gradient onto the surface."""
    for _ in range(rounds):
        slope = gradient(points)
        step = hand_distance(points) / np.maximum((slope**2).sum(1), 0.05)
        points = points - np.clip(step, -2, 2)[:, None] * slope
    return points
