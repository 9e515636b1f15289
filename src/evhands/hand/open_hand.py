"""Rest skeleton, joint angles, limits and natural poses of the open hand (right; the left is its mirror).

Everything here is numpy; the surface that goes with it is `assets/open_hand.npz`, built by
`scripts/build_open_hand.py`. Axes as MANO: fingers point to -x, the back of the hand to +y, the thumb side to +z.
Figures and sources: docs/open-hand.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evhands.hand.skeleton import JOINT_ORDERS

Array = np.ndarray


class FingerBones(NamedTuple):
    """Lengths of one finger between joint centres in millimetres, and where its first joint lies in the rest pose."""

    proximal: float
    middle: float
    distal: float
    """To the tip of the soft tissue."""
    root: tuple[float, float, float]
    spread_deg: float
    """Direction of the finger in the plane of the palm, positive towards the thumb."""


# Bone lengths: Buryanov & Kotiuk 2010 (means of 66 adults). The last one adds the soft tissue of the tip (about 4 mm)
# and 3 mm because the centre of the last joint lies inside the head of the bone before it.
BONES = {
    "index": FingerBones(39.8, 22.4, 22.8, (-90.0, 2.0, 26.5), 9.0),
    "middle": FingerBones(44.6, 26.3, 24.4, (-92.0, 3.5, 5.0), 2.0),
    "ring": FingerBones(41.4, 25.7, 24.3, (-85.0, 2.0, -16.0), -5.0),
    "little": FingerBones(32.7, 18.1, 22.5, (-76.0, -2.0, -35.0), -14.0),
    # thumb: metacarpal, proximal phalanx, distal phalanx with tip
    "thumb": FingerBones(46.2, 31.6, 28.5, (-22.0, -9.0, 20.0), 47.0),
}
THUMB_PALMAR_DEG = (20.0, 13.0)
"""How far the thumb's metacarpal and its phalanges point out of the plane of the palm, towards the palm side."""
THUMB_PHALANX_SPREAD_DEG = 36.0
THUMB_ROLL_DEG = 52.0
"""Turn of the thumb about its own axis: 0 has the nail facing as the other nails do, 90 sideways."""


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def _direction(spread_deg: float, palmar_deg: float = 0.0) -> Array:
    spread, palmar = np.deg2rad((spread_deg, palmar_deg))
    return np.array([-np.cos(spread) * np.cos(palmar), -np.sin(palmar), np.sin(spread) * np.cos(palmar)])


def finger_frame(finger: str, metacarpal: bool = False) -> Array:
    """Rows of a (3,3) right-handed rest frame of a finger: along it, dorsal, and the axis of flexion.

    `metacarpal` asks for the frame of the thumb's first bone, which points elsewhere than its phalanges.
    """
    if finger == "thumb":
        along = (
            _direction(BONES["thumb"].spread_deg, THUMB_PALMAR_DEG[0])
            if metacarpal
            else _direction(THUMB_PHALANX_SPREAD_DEG, THUMB_PALMAR_DEG[1])
        )
        flat = _unit(np.array([0.0, 1.0, 0.0]) - along[1] * along)
        outward = np.cross(flat, along)
        roll = np.deg2rad(THUMB_ROLL_DEG)
        dorsal = np.cos(roll) * flat + np.sin(roll) * outward
    else:
        along, dorsal = _direction(BONES[finger].spread_deg), np.array([0.0, 1.0, 0.0])
    return np.stack([along, dorsal, np.cross(dorsal, along)])


def rest_joints() -> dict[str, Array]:
    """Joint name (as in `openpose21`) -> position in metres in the rest pose, the wrist at the origin."""
    joints = {"wrist": np.zeros(3)}
    for finger, bones in BONES.items():
        place = np.array(bones.root)
        for k, length in enumerate((0.0, bones.proximal, bones.middle, bones.distal)):
            place = place + length * finger_frame(finger, metacarpal=k == 1)[0]
            joints[f"{finger}{k + 1}"] = place / 1000
    return joints


REST_JOINTS: Array = np.stack([rest_joints()[name] for name in JOINT_ORDERS["mano16"]])
"""(16,3) metres, `mano16` order."""

SHAPE_NAMES: tuple[str, ...] = (
    "size",
    "palm_breadth",
    "palm_length",
    "finger_lengths",
    "thumb_length",
    "index_to_ring",
    "little_length",
    "digit_thickness",
    "palm_thickness",
    "wrist_breadth",
)
"""What the ten shape directions of the asset change, one standard deviation a unit; figures in docs/open-hand.md."""

# ---------------------------------------------------------------------------------------------------------------------
# Joint angles
# ---------------------------------------------------------------------------------------------------------------------

_LIMITS_DEG = {
    # Active ranges of motion, see docs/open-hand.md. Zero is the flat rest pose.
    "mcp_flexion": (-25.0, 92.0),
    "mcp_abduction": (-15.0, 15.0),
    "pip_flexion": (-4.0, 108.0),
    "dip_flexion": (-8.0, 80.0),
}
_THUMB_LIMITS_DEG = {
    "cmc_flexion": (-20.0, 48.0),
    "cmc_abduction": (-22.0, 36.0),
    "cmc_rotation": (-15.0, 48.0),
    "mcp_flexion": (-10.0, 62.0),
    "ip_flexion": (-18.0, 82.0),
}
LONG_FINGERS = ("index", "middle", "ring", "little")
ANGLE_NAMES: tuple[str, ...] = tuple(f"thumb_{a}" for a in _THUMB_LIMITS_DEG) + tuple(
    f"{f}_{a}" for f in LONG_FINGERS for a in _LIMITS_DEG
)
"""The 21 anatomical angles: flexion towards the palm is positive, abduction away from the middle finger
(of the middle finger: towards the thumb), the thumb's out of the palm, its rotation towards opposition."""

ANGLE_LIMITS: Array = np.deg2rad(
    np.array(list(_THUMB_LIMITS_DEG.values()) + [limit for _ in LONG_FINGERS for limit in _LIMITS_DEG.values()])
)
"""(21,2) lowest and highest angle in radians."""

_INDEX = {name: i for i, name in enumerate(ANGLE_NAMES)}


def _quaternion(axis: Array, angle: Array) -> Array:
    half = np.asarray(angle)[..., None] / 2
    return np.concatenate([np.cos(half), np.sin(half) * axis], axis=-1)


def _multiply(a: Array, b: Array) -> Array:
    scalar = a[..., :1] * b[..., :1] - np.sum(a[..., 1:] * b[..., 1:], axis=-1, keepdims=True)
    vector = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([scalar, vector], axis=-1)


def _rotvec(quaternion: Array) -> Array:
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    length = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, quaternion[..., :1])
    return quaternion[..., 1:] * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0)


def angles_to_joints(angles: Array) -> Array:
    """Rotation vectors (*b,15,3) of the right hand's joints in `mano16` order (wrist left out), mean pose included.

    `angles` is (*b,21) in radians in the order of `ANGLE_NAMES`. Each finger bends about the axis across its own rest
    direction, so curled fingers converge as real ones do; abduction turns inside flexion (a universal joint).
    """
    angles = np.asarray(angles, dtype=np.float64)
    joints = np.zeros((*angles.shape[:-1], 16, 3))
    order = JOINT_ORDERS["mano16"]
    for finger in LONG_FINGERS:
        _, dorsal, across = finger_frame(finger)
        sideways = dorsal if finger in ("index", "middle") else -dorsal
        bend, spread, pip, dip = (angles[..., _INDEX[f"{finger}_{name}"]] for name in _LIMITS_DEG)
        first = order.index(f"{finger}1")
        joints[..., first, :] = _rotvec(_multiply(_quaternion(across, bend), _quaternion(sideways, spread)))
        joints[..., first + 1, :] = pip[..., None] * across
        joints[..., first + 2, :] = dip[..., None] * across
    joints[..., order.index("thumb1") :, :] = _thumb_joints(angles)
    return joints[..., 1:, :]


def _thumb_joints(angles: Array) -> Array:
    flexion, abduction, rotation, mcp, ip = (angles[..., _INDEX[f"thumb_{name}"]] for name in _THUMB_LIMITS_DEG)
    along, dorsal, across = finger_frame("thumb", metacarpal=True)
    # About its dorsal axis the thumb leaves the palm; against its own axis its pad turns to face the fingers.
    base = _multiply(_quaternion(dorsal, abduction), _quaternion(across, flexion))
    joints = np.zeros((*angles.shape[:-1], 3, 3))
    joints[..., 0, :] = _rotvec(_multiply(base, _quaternion(-along, rotation)))
    bend = finger_frame("thumb")[2]
    joints[..., 1, :] = mcp[..., None] * bend
    joints[..., 2, :] = ip[..., None] * bend
    return joints


def within_limits(angles: Array, tolerance: float = 1e-6) -> Array:
    """True (*b,) where every one of the (*b,21) angles lies within its limits."""
    low, high = ANGLE_LIMITS.T
    return np.all((angles >= low - tolerance) & (angles <= high + tolerance), axis=-1)


def clip_angles(angles: Array) -> Array:
    """The nearest angles within the limits, each angle by itself."""
    return np.clip(angles, *ANGLE_LIMITS.T)


# ---------------------------------------------------------------------------------------------------------------------
# Gestures and natural poses
# ---------------------------------------------------------------------------------------------------------------------


def _pose(
    curls: tuple[tuple[float, float, float], ...],
    thumb: tuple[float, float, float, float, float],
    spread: tuple[float, float, float, float] = (0, 0, 0, 0),
) -> Array:
    """Angles from degrees: (mcp, pip, dip) for index, middle, ring, little; the thumb's five; four abductions."""
    degrees = list(thumb)
    for (mcp, pip, dip), abduction in zip(curls, spread, strict=True):
        degrees += [mcp, abduction, pip, dip]
    return np.deg2rad(np.array(degrees, dtype=np.float64))


_OUT, _STRAIGHT, _RELAXED = (-4, 0, 0), (0, 0, 0), (20, 30, 15)
_FIST, _HOOK = (84, 98, 62), (2, 92, 58)
_TOGETHER = (-7, 0, -4, -9)
_THUMB_OUT, _THUMB_ACROSS, _THUMB_RELAXED = (-12, 0, -6, -4, -8), (26, 10, 22, 38, 42), (8, 2, 8, 12, 14)

GESTURES: dict[str, Array] = {
    "open": _pose((_OUT,) * 4, _THUMB_OUT, (5, 0, 4, 6)),
    "flat": _pose((_STRAIGHT,) * 4, (0, -16, 0, 4, 4), _TOGETHER),
    "relaxed": _pose(((16, 24, 12), (20, 30, 15), (24, 34, 17), (26, 34, 17)), _THUMB_RELAXED, (-3, 0, -2, -4)),
    "fist": _pose((_FIST,) * 4, _THUMB_ACROSS, _TOGETHER),
    "thumb_in_fist_open": _pose((_STRAIGHT,) * 4, _THUMB_ACROSS, _TOGETHER),
    "point": _pose((_STRAIGHT, _FIST, _FIST, _FIST), _THUMB_ACROSS, (-4, 0, -4, -9)),
    "gun": _pose((_STRAIGHT, _FIST, _FIST, _FIST), _THUMB_OUT, (-4, 0, -4, -9)),
    "victory": _pose((_STRAIGHT, _STRAIGHT, _FIST, _FIST), _THUMB_ACROSS, (9, -6, -4, -9)),
    "three": _pose((_STRAIGHT, _STRAIGHT, _FIST, _FIST), _THUMB_OUT, (6, -4, -4, -9)),
    "three_fingers": _pose((_STRAIGHT, _STRAIGHT, _STRAIGHT, _FIST), _THUMB_ACROSS, (4, 0, 4, -9)),
    "four": _pose((_STRAIGHT,) * 4, _THUMB_ACROSS, (3, 0, 3, 3)),
    "little_out": _pose((_FIST, _FIST, _FIST, _STRAIGHT), _THUMB_ACROSS, (-7, 0, -4, 0)),
    "horns": _pose((_STRAIGHT, _FIST, _FIST, _STRAIGHT), _THUMB_ACROSS, (0, 0, -4, 2)),
    "call_me": _pose((_FIST, _FIST, _FIST, _STRAIGHT), _THUMB_OUT, (-7, 0, -4, 6)),
    "thumbs_up": _pose((_FIST,) * 4, (-18, -14, -10, -8, -14), _TOGETHER),
    "pinch": _pose(((50, 44, 23), (36, 40, 22), (34, 38, 20), (32, 34, 18)), (33, 10, 40, 13, 10), (-3, 0, -2, -4)),
    "pinch_middle": _pose(
        ((24, 28, 18), (58, 42, 20), (20, 26, 16), (14, 20, 12)), (39, 18, 40, 13, 8), (-4, 9, -2, -4)
    ),
    "pinch_ring": _pose(
        ((12, 16, 10), (22, 28, 17), (59, 40, 19), (26, 24, 14)), (43, 22, 34, 22, 12), (-2, 0, -14, -4)
    ),
    "pinch_little": _pose(((6, 10, 6), (10, 14, 9), (28, 30, 18), (61, 41, 22)), (45, 12, 24, 42, 18), (-2, 0, 0, -15)),
    "ok": _pose(((49, 46, 25), (14, 18, 9), (6, 10, 5), (2, 6, 3)), (32, 10, 40, 16, 9), (-4, 0, 2, 4)),
    "tripod": _pose(((53, 37, 19), (54, 39, 20), (58, 62, 36), (62, 66, 38)), (41, 10, 40, 8, -4), (-8, 9, -4, -8)),
    "grasp_cylinder": _pose(
        ((42, 52, 30), (46, 54, 32), (48, 56, 32), (50, 54, 30)), (12, 24, 22, 18, 24), (-4, 0, -3, -6)
    ),
    "grasp_sphere": _pose(((28, 36, 22), (28, 38, 22), (30, 38, 22), (32, 38, 22)), (4, 28, 18, 10, 18), (6, 0, 4, 8)),
    "claw": _pose(((-10, 62, 38), (-10, 64, 40), (-10, 64, 40), (-10, 60, 36)), (-4, 10, 4, 10, 34), (4, 0, 4, 6)),
    "hook": _pose((_HOOK,) * 4, _THUMB_RELAXED, _TOGETHER),
    "tabletop": _pose(((84, 4, 2), (86, 4, 2), (86, 4, 2), (84, 4, 2)), (14, 16, 20, 6, 6), _TOGETHER),
    "lateral_pinch": _pose(((52, 72, 34), (62, 78, 42), (66, 80, 44), (68, 78, 42)), (16, -10, 4, 18, 16), _TOGETHER),
}
"""Name -> (21,) angles of well-known poses."""


def sample_natural_angles(rng: np.random.Generator, n: int) -> Array:
    """(n,21) natural poses, all within `ANGLE_LIMITS`: from fully open to fully closed for every finger by itself.

    A third are gestures, a third lie between two gestures (finger by finger or as a whole), a third curl every finger
    independently; all with the couplings of real hands (DIP about 2/3 of PIP, ring pulled by its neighbours) and noise.
    """
    table = np.stack(list(GESTURES.values()))
    first, second = table[rng.integers(len(table), size=(2, n))]
    whole = rng.uniform(size=(n, 1))
    per_finger = np.repeat(rng.uniform(size=(n, 5)), (5, 4, 4, 4, 4), axis=1)
    between = np.where(rng.uniform(size=(n, 1)) < 0.5, whole, per_finger)
    mixed = first + between * (second - first)
    kind = rng.uniform(size=(n, 1))
    angles = np.where(kind < 0.3, first, np.where(kind < 0.62, mixed, _independent_curls(rng, n)))
    noise = np.deg2rad(5.0) * rng.standard_normal((n, len(ANGLE_NAMES)))
    return clip_angles(angles + noise * rng.uniform(0.2, 1.4, size=(n, 1)))


def _independent_curls(rng: np.random.Generator, n: int) -> Array:
    """Every finger curled by itself: U-shaped amounts (open and closed are the common states), coupled joints."""
    angles = np.zeros((n, len(ANGLE_NAMES)))
    curl = rng.beta(0.7, 0.8, size=(n, 4))
    pull = rng.uniform(0, 0.35, size=(n, 1))
    coupled = curl.copy()
    coupled[:, 2] = (1 - pull[:, 0]) * curl[:, 2] + pull[:, 0] * curl[:, (1, 3)].mean(1)
    coupled[:, 3] = (1 - pull[:, 0]) * curl[:, 3] + pull[:, 0] * curl[:, 2]
    common_spread = rng.uniform(-0.5, 0.5, size=n)
    for k, finger in enumerate(LONG_FINGERS):
        amount, (low, high) = coupled[:, k], np.deg2rad((-8, 90))
        mcp = np.clip(amount + rng.normal(0, 0.22, n), 0, 1)
        pip = np.clip(amount + rng.normal(0, 0.16, n), 0, 1) * np.deg2rad(106)
        angles[:, _INDEX[f"{finger}_mcp_flexion"]] = low + mcp * (high - low)
        angles[:, _INDEX[f"{finger}_pip_flexion"]] = pip
        angles[:, _INDEX[f"{finger}_dip_flexion"]] = pip * np.clip(rng.normal(0.66, 0.12, n), 0.2, 0.95)
        freedom = np.deg2rad(14) * (1 - 0.7 * amount)
        side = 0.2 if finger == "middle" else 1.0
        spread = side * common_spread + rng.uniform(-0.5, 0.5, n)
        angles[:, _INDEX[f"{finger}_mcp_abduction"]] = freedom * spread - np.deg2rad(4) * amount * side
    low, high = ANGLE_LIMITS[:5].T
    oppose = rng.beta(0.8, 0.9, size=n)
    base = (1 - oppose[:, None]) * np.deg2rad(_THUMB_OUT) + oppose[:, None] * np.deg2rad((30, 18, 28, 34, 40))
    angles[:, :5] = base + rng.normal(0, 0.14, (n, 5)) * (high - low)
    return angles
