"""What is wrong with the labels of a recording: their times, lengths, axes, fingers, side, boxes and cameras."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from evhands.evrealhands_layout.convert import BLURRED
from evhands.examination.findings import Finding
from evhands.examination.placing import Placed, matrices, sensor_pixels
from evhands.recording import Recording
from evhands.types import Size

FINGERS = ("thumb", "index", "middle", "ring", "little")
_CHAINS = np.arange(1, 21).reshape(5, 4)
_PALM_M = (0.04, 0.16)
_DEPTH_M = (0.05, 6.0)
_FARTHEST_M = 20.0
_CLOSE_MM = 12.0
_FINGER_MM = 25.0
_BETTER = 0.4
"""Another reading explains the joints if it leaves this share of their distance from the mesh."""
_CURL = 0.15
SENSORS: tuple[Size, ...] = ((346, 260), (240, 180), (128, 128), (304, 240), (640, 480), (1280, 720), (1064, 920))


# --- times ----------------------------------------------------------------------------------------------------------


def examine_times(recording: Recording, *, sparse: bool) -> tuple[int, list[Finding]]:
    """(how many labels are missing in between, findings). sparse: labels need not be evenly spaced."""
    found, missing = [], 0
    t_us = recording.pose_t_us
    if t_us is not None and len(t_us) > 1:
        found += _order("labels", t_us)
        missing = len(_holes(t_us))
        if missing and not sparse:
            found.append(_missing("labels", t_us))
    for view in recording.views:
        found += _order(f"frames of the camera {view.name}", view.frames_t_us)
        if len(view.frames_t_us) > 1 and not view.name.endswith(BLURRED) and len(_holes(view.frames_t_us)):
            found.append(_missing(f"frames of the camera {view.name}", view.frames_t_us))
    return missing, found


def _order(what: str, t_us: np.ndarray) -> list[Finding]:
    steps = np.diff(t_us)
    found = []
    if (steps < 0).any():
        k = int(np.argmin(steps))
        found.append(Finding("time order", f"times of {what} run backwards by {-steps[k]} us after {t_us[k]} us."))
    if (steps == 0).any():
        at = np.unique(t_us[1:][steps == 0])
        found.append(Finding("repeated id", f"{what}: the time {at[0]} us stands more than once ({len(at)} such)."))
    return found


def _holes(t_us: np.ndarray) -> np.ndarray:
    """Times at which something should be, by the usual spacing."""
    steps = np.diff(t_us)
    period = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if not period:
        return np.zeros(0)
    counts = np.round(steps / period).astype(int)
    return np.concatenate([t + period * np.arange(1, n) for t, n in zip(t_us, counts)] or [np.zeros(0)])


def _missing(what: str, t_us: np.ndarray) -> Finding:
    holes = _holes(t_us)
    told = ", ".join(f"{(t - t_us[0]) * 1e-6:.3f}" for t in holes[:6])
    return Finding(
        "missing frames",
        f"{len(holes)} {what} are missing, by their spacing: {told}{' ...' if len(holes) > 6 else ''} s after the "
        "first.",
    )


# --- lengths --------------------------------------------------------------------------------------------------------


def examine_units(recording: Recording, placed: Placed | None) -> list[Finding]:
    """Hands of a thousand times the size of a hand, or as far away."""
    joints = _finite(recording.joints_m)
    if len(joints):
        palm = float(np.median(np.linalg.norm(joints[:, 9] - joints[:, 0], axis=-1)))
        if (told := _thousand(palm, _PALM_M)) is not None:
            return [Finding("units", f"the annotated joints are {told}: the palm is {palm:.3g} m long.")]
        if not _PALM_M[0] <= palm <= _PALM_M[1]:
            return [Finding("units", f"the palm of the annotated joints is {palm:.3g} m long, which no hand's is.")]
    if placed is not None:
        far = float(np.median(np.linalg.norm(placed.pose.wrist, axis=-1)))
        if far > _FARTHEST_M:
            text = _thousand(far, (0.02, _FARTHEST_M)) or "too far away"
            return [Finding("units", f"the wrists of the poses are {text}: they are {far:.4g} m from the camera.")]
    depths = joints[:, 0, 2] if len(joints) else np.zeros(0) if placed is None else placed.pose.wrist[:, 2]
    pose = recording.camera.T_camera_world
    if len(depths) and not _DEPTH_M[0] <= (depth := float(np.median(depths))) <= _DEPTH_M[1]:
        for factor in (1000.0, 0.001):
            if pose is not None and _DEPTH_M[0] <= depth + (factor - 1) * float(pose[2, 3]) <= _DEPTH_M[1]:
                text = f"T of the event camera is {factor:g} times what brings the hand before it"
                return [Finding("units", f"{text} (now at a depth of {depth:.3g} m).")]
        return [Finding("camera", f"the hand lies at a depth of {depth:.3g} m, behind the camera or far from it.")]
    return []


def _thousand(length: float, wanted: tuple[float, float]) -> str | None:
    if wanted[0] <= length / 1000 <= wanted[1]:
        return "1000 times too large (millimetres for metres)"
    if wanted[0] <= length * 1000 <= wanted[1]:
        return "1000 times too small (metres for millimetres)"
    return None


def _finite(joints: np.ndarray | None) -> np.ndarray:
    if joints is None:
        return np.zeros((0, 21, 3))
    return np.asarray(joints[np.isfinite(joints).all((1, 2))], np.float64)


# --- joints, mesh and side ------------------------------------------------------------------------------------------


def curl(joints: np.ndarray) -> float:
    """-1 to 1: which hand's fingers bend so; near 1 a right hand, near -1 a left one, near 0 neither.

    The joints of a finger bend one way only, about an axis that runs across the palm.
    """
    across = joints[:, 5] - joints[:, 17]
    bends = np.zeros(len(joints))
    size = np.zeros(len(joints))
    for chain in _CHAINS[1:]:
        bones = np.diff(joints[:, chain], axis=1)
        turn = np.cross(bones[:, 0], bones[:, 1]) + np.cross(bones[:, 1], bones[:, 2])
        bends += (turn * across).sum(-1)
        size += np.linalg.norm(turn, axis=-1) * np.linalg.norm(across, axis=-1)
    return float(bends.sum() / max(size.sum(), 1e-12))


def examine_joints(recording: Recording, placed: Placed | None) -> tuple[float | None, list[Finding]]:
    """(median distance of annotated joints from those of the mesh in mm, what is wrong between the two)."""
    side = placed.pose.side if placed is not None else None if recording.tags is None else recording.tags.side
    known = recording.joints_m is not None and np.isfinite(recording.joints_m).all((1, 2))
    joints = _finite(recording.joints_m)
    if placed is None or not len(joints):
        return None, _side_alone(joints if placed is None else placed.joints_m, side)
    mesh = placed.joints_m[known]
    apart = 1000 * np.linalg.norm(joints - mesh, axis=-1)
    residual = float(np.median(apart.mean(1)))
    worst = max(float(np.median(apart[:, chain].mean(1))) for chain in _CHAINS)
    if residual <= _CLOSE_MM and worst <= _FINGER_MM:
        return residual, _side_alone(joints, side)
    for explain in (_reordered, _turned):
        if (finding := explain(recording, joints, mesh, residual)) is not None:
            return residual, [finding]
    if other := _side_alone(joints, side) or _side_alone(mesh, side):
        return residual, other
    text = f"the annotated joints are {residual:.0f} mm off those of the hand mesh (worst finger: {worst:.0f} mm)."
    return residual, [Finding("mesh", text)]


def _side_alone(joints: np.ndarray, side: str | None) -> list[Finding]:
    """Whether the fingers bend as those of the side do."""
    if not len(joints) or side is None:
        return []
    found = curl(joints) * (1 if side == "right" else -1)
    if found > -_CURL:
        return []
    other = "left" if side == "right" else "right"
    text = f"marked as a {side} hand, but its fingers bend as those of a {other} one (curl {found:.2f} of 1)."
    return [Finding("handedness", text)]


def _reordered(recording: Recording, joints: np.ndarray, mesh: np.ndarray, residual: float) -> Finding | None:
    """Fingers in another order."""
    apart = np.linalg.norm(joints[:, _CHAINS][:, :, None] - mesh[:, _CHAINS][:, None], axis=-1)
    table = np.median(apart, axis=(0, 3))
    best = min(permutations(range(5)), key=lambda order: table[range(5), order].mean())
    left = 1000 * table[range(5), best].mean()
    if best == tuple(range(5)) or left > _BETTER * 1000 * table.diagonal().mean() or left > 2 * _CLOSE_MM:
        return None
    moved = [f"{FINGERS[a]} stands where the mesh has the {FINGERS[b]}" for a, b in enumerate(best) if a != b]
    text = f"fingers of the annotated joints in another order: the {', the '.join(moved)} ({residual:.0f} mm off)."
    return Finding("finger order", text)


def _turned(recording: Recording, joints: np.ndarray, mesh: np.ndarray, residual: float) -> Finding | None:
    """Axes swapped or turned round, in the frame of the camera or of the world."""
    T = recording.camera.T_camera_world
    frames = {"camera": np.eye(4)} | ({} if T is None or np.allclose(T, np.eye(4)) else {"world": np.asarray(T)})
    best = (np.inf, "", "")
    for frame, T_camera_frame in frames.items():
        R, t = T_camera_frame[:3, :3], T_camera_frame[:3, 3]
        given, wanted = (joints - t) @ R, (mesh - t) @ R
        for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
            apart = float(np.median(np.linalg.norm(given[..., order] * signs - wanted, axis=-1))) * 1000
            name = ", ".join(f"{'-' if s < 0 else ''}{'xyz'[o]}" for o, s in zip(order, signs))
            best = min(best, (apart, name, frame))
    if best[1] == "x, y, z" or best[0] > _BETTER * residual or best[0] > 2 * _CLOSE_MM:
        return None
    return Finding(
        "axes",
        f"the annotated joints lie on the mesh when their axes are read as ({best[1]}) in the frame of the {best[2]} "
        f"({residual:.0f} mm off as they are, {best[0]:.0f} mm then).",
    )


# --- boxes and cameras ----------------------------------------------------------------------------------------------


def examine_boxes(recording: Recording, placed: Placed | None) -> list[Finding]:
    """Boxes that are empty, outside the image, or not about the hand."""
    boxes = recording.boxes_px
    if boxes is None:
        return []
    width, height = recording.camera.size
    rows = np.isfinite(boxes).all(1)
    low, high = boxes[:, :2], boxes[:, 2:]
    centre = (low + high) / 2
    inside = ((centre >= -0.5) & (centre <= (width - 0.5, height - 0.5))).all(1)
    empty = rows & ((high - low) <= 0).any(1)
    points = _joints_px(recording, placed)
    with np.errstate(all="ignore"):
        hand = points.mean(1)
    seen = np.isfinite(hand).all(1) & ((hand >= 0) & (hand <= (width - 1, height - 1))).all(1)
    unknown = ~np.isfinite(hand).all(1)
    outside = rows & ~empty & ~inside & (seen | unknown)
    margin = 0.5 * (high - low)
    off = rows & ~empty & ~outside & seen & ~((hand >= low - margin) & (hand <= high + margin)).all(1)
    told = {"are empty": empty, f"lie outside the {width}x{height} image": outside, "are not about the hand": off}
    return [
        Finding("boxes", f"{which.sum()} of {rows.sum()} boxes {what}, the first {np.round(boxes[which][0])}.")
        for what, which in told.items()
        if which.any()
    ]


def _joints_px(recording: Recording, placed: Placed | None) -> np.ndarray:
    """(m, 21, 2): the joints on the sensor by any truth there is, NaN where there is none."""
    if recording.joints_px is not None:
        return np.asarray(recording.joints_px, np.float64)
    joints = recording.joints_m if recording.joints_m is not None else None if placed is None else placed.joints_m
    count = 0 if recording.pose_t_us is None else len(recording.pose_t_us)
    if joints is None:
        return np.full((count, 21, 2), np.nan)
    return sensor_pixels(joints, recording.camera, *matrices(recording))


def examine_cameras(recording: Recording) -> list[Finding]:
    """Camera matrices whose centre or focal length are none of their image."""
    K_image, K_points = matrices(recording)
    named = {"K_old": recording.camera.K, "K_new": K_image, "K": K_points}
    if recording.rectification is None:
        named = {"K": recording.camera.K}
    size = recording.camera.size
    found = [_camera(f"{name} of the event camera", K, size) for name, K in named.items()]
    found += [_camera(f"K of the camera {view.name}", view.camera.K, view.camera.size) for view in recording.views]
    return [finding for finding in found if finding is not None]


def _camera(what: str, K: np.ndarray, size: Size) -> Finding | None:
    centre, extent = np.array([K[0, 2], K[1, 2]]), np.array(size, float)
    off = np.abs(centre / extent - 0.5)
    focal = K[0, 0] / max(size)
    if off.max() <= 0.12 and 0.3 <= focal <= 5 and 0.8 <= K[0, 0] / K[1, 1] <= 1.25:
        return None
    likely = [f"{w}x{h}" for w, h in SENSORS if np.abs(centre / (w, h) - 0.5).max() < 0.03 and (w, h) != size]
    hint = f"; it would suit a sensor of {' or '.join(likely)}" if likely else ""
    return Finding(
        "camera",
        f"{what} has its centre at ({centre[0]:.0f}, {centre[1]:.0f}) and a focal length of {K[0, 0]:.0f} pixels, the "
        f"image has {size[0]}x{size[1]}{hint}.",
    )
