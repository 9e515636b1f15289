"""Compare simulated hand motion with real: python scripts/compare_leap_motion.py [--clips 100] [--out FOLDER].

The real hands were followed by a Leap Motion sensor (seven recordings, about 110 poses a second, 26 s together); they
lie in the folder that EVHANDS_SHARED names (default ../shared), under real/leap-hand-motion. Simulated hands are half
`frontal`, half `free`, at 0.3-1.2 m. Both motions go through the same functions: joints, palm place, palm normal and
hand direction 110 times a second; angles from the bones; speeds as central differences over four intervals (36 ms),
which quietens the sensor's noise. Its skeleton bends the last joint of a finger as much as the middle one, so the last
joints are left out.

Prints quantiles of each quantity and writes motion.png (distribution functions).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from evhands.files import replacing
from evhands.hand.model import ShapedHand, load_hand
from evhands.hand.open_hand import angles_to_joints
from evhands.sim.motion import SPEEDS, Motion, MotionConfig, View, draw_motion

Array = np.ndarray
FOLDER = Path(__file__).parents[1] / "docs" / "images"
K = np.array([[330.0, 0, 172.5], [0, 330, 129.5], [0, 0, 1]])
RATE_HZ = 110.0
HALF_SPAN = 2
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
PALM_M = np.array([-0.06, -0.01, 0.0])
"""Where the sensor's palm position is on our hand, about."""
SIMULATED = {
    "default": MotionConfig(),
    "normal": SPEEDS["normal"],
    "normal fixed": replace(SPEEDS["normal"], style="fixed"),
    "fast": SPEEDS["fast"],
}
SHOWN = {
    "knuckle (MCP) flexion": "degrees",
    "middle joint (PIP) flexion": "degrees",
    "abduction between neighbours": "degrees",
    "knuckle (MCP) speed": "degrees/s",
    "middle joint (PIP) speed": "degrees/s",
    "finger tip speed in the hand": "m/s",
    "finger tip speed": "m/s",
    "palm speed": "m/s",
    "palm turning": "degrees/s",
}


@dataclass(frozen=True)
class Poses:
    """A hand over time, in any fixed frame."""

    t_s: Array
    """(n,)"""
    digits: Array
    """(n, 5, 4, 3) m: thumb to little finger, from the palm to the tip."""
    palm: Array
    """(n, 3) m"""
    axes: Array
    """(n, 3, 3): columns are the direction of the hand, where the palm faces, and across."""


def real_poses(folder: Path) -> list[Poses]:
    recordings = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            t_s = data["t_us"] * 1e-6
            kept = np.concatenate([[True], np.diff(t_s) > 0.004])  # a few frames come twice within a millisecond
            direction, normal = data["hand_direction"][kept], data["palm_normal"][kept]
            digits, palm = data["joints_mm"][kept] / 1000, data["palm_position_mm"][kept] / 1000
        axes = np.stack([direction, normal, np.cross(direction, normal)], -1)
        recordings.append(Poses(t_s[kept], digits.astype(float), palm.astype(float), axes.astype(float)))
    return recordings


def simulated_poses(config: MotionConfig, clips: int, seconds: float) -> list[Poses]:
    hand = load_hand("open").with_shape(None)
    centre = np.array([-0.08, 0.0, 0.0])
    views = [
        View(K=K, size=(346, 260), orientation=name, depth_m=(0.3, 1.2), centre_m=centre)
        for name in ("frontal", "free")
    ]
    t_s = np.arange(0, seconds, 1 / RATE_HZ)
    motions = [draw_motion(config, views[k % 2], seconds, np.random.default_rng(k)) for k in range(clips)]
    return [_posed(motion, hand, t_s) for motion in motions]


def _posed(motion: Motion, hand: ShapedHand, t_s: Array) -> Poses:
    fingers = torch.from_numpy(angles_to_joints(motion.angles(t_s)).astype(np.float32))
    joints = hand.with_pose(None, fingers, torch.zeros(3)).joints().numpy().astype(float)
    rotation = motion.rotation(t_s)
    placed = motion.wrist(t_s)[:, None] + joints @ np.swapaxes(rotation, 1, 2)
    direction, normal = -rotation[:, :, 0], -rotation[:, :, 1]
    axes = np.stack([direction, normal, np.cross(direction, normal)], -1)
    return Poses(t_s, placed[:, 1:].reshape(-1, 5, 4, 3), motion.point(PALM_M, t_s), axes)


def quantities(poses: Poses) -> dict[str, Array]:
    """Samples of everything in `SHOWN`, flat."""
    local = np.einsum("nfkc,ncd->nfkd", poses.digits - poses.palm[:, None, None], poses.axes)
    bones = np.diff(local, axis=2)
    bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
    first, second = bones[:, 1:, 0], bones[:, 1:, 1]
    mcp = np.arctan2(first[..., 1], np.hypot(first[..., 0], first[..., 2]) * np.sign(first[..., 0]))
    pip = np.arccos(np.clip((first * second).sum(-1), -1, 1))
    sideways = np.arctan2(first[..., 2], first[..., 0])
    spread = np.abs(np.diff(sideways, axis=1))
    straight = (np.abs(mcp[:, 1:]) < np.deg2rad(50)) & (np.abs(mcp[:, :-1]) < np.deg2rad(50))  # else it means little
    return {
        "knuckle (MCP) flexion": np.degrees(mcp),
        "middle joint (PIP) flexion": np.degrees(pip),
        "abduction between neighbours": np.degrees(spread[straight]),
        "knuckle (MCP) speed": np.degrees(_speed(poses.t_s, mcp[..., None])),
        "middle joint (PIP) speed": np.degrees(_speed(poses.t_s, pip[..., None])),
        "finger tip speed in the hand": _speed(poses.t_s, local[:, :, 3]),
        "finger tip speed": _speed(poses.t_s, poses.digits[:, :, 3]),
        "palm speed": _speed(poses.t_s, poses.palm),
        "palm turning": np.degrees(_turning(poses)),
    }


def _speed(t_s: Array, values: Array) -> Array:
    """Length of the central difference (n - 4, ...) of values (n, ..., d), where no frames are missing."""
    apart = t_s[2 * HALF_SPAN :] - t_s[: -2 * HALF_SPAN]
    moved = np.linalg.norm(values[2 * HALF_SPAN :] - values[: -2 * HALF_SPAN], axis=-1)
    return moved[apart < 0.045] / apart[apart < 0.045].reshape(-1, *[1] * (moved.ndim - 1))


def _turning(poses: Poses) -> Array:
    apart = poses.t_s[2 * HALF_SPAN :] - poses.t_s[: -2 * HALF_SPAN]
    trace = np.einsum("nij,nij->n", poses.axes[2 * HALF_SPAN :], poses.axes[: -2 * HALF_SPAN])
    return (np.arccos(np.clip((trace - 1) / 2, -1, 1)) / apart)[apart < 0.045]


def gathered(recordings: list[Poses]) -> dict[str, Array]:
    parts = [quantities(poses) for poses in recordings]
    return {name: np.concatenate([part[name].ravel() for part in parts]) for name in SHOWN}


def table(all_of: dict[str, dict[str, Array]]) -> str:
    """Quantiles, as a table in Markdown."""
    lines = ["| | | " + " | ".join(f"{100 * q:.0f} %" for q in QUANTILES) + " |", "|---" * (len(QUANTILES) + 2) + "|"]
    for name, unit in SHOWN.items():
        for k, (source, values) in enumerate(all_of.items()):
            digits = 2 if unit == "m/s" else 0
            cells = [f"{value:.{digits}f}" for value in np.quantile(values[name], QUANTILES)]
            lines.append(f"| {name + ', ' + unit if k == 0 else ''} | {source} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(all_of: dict[str, dict[str, Array]], path: Path) -> None:
    colours = {"real": "black", "default": "0.65", "normal": "tab:blue", "normal fixed": "tab:green", "fast": "tab:red"}
    figure, panels = plt.subplots(3, 3, figsize=(11, 8.2), layout="constrained")
    for panel, (name, unit) in zip(panels.flat, SHOWN.items()):
        for source, values in all_of.items():
            shares = np.linspace(0, 1, 400)[1:-1]
            wide = 2.2 if source == "real" else 1.3
            panel.plot(np.quantile(values[name], shares), shares, color=colours[source], lw=wide, label=source)
        if "/s" in unit:
            panel.set_xscale("log")
            panel.set_xlim((0.003, 6) if unit == "m/s" else (1, 2000))
        panel.set(xlabel=f"{name}, {unit}", ylim=(0, 1))
        panel.grid(alpha=0.25)
    panels[0, 0].set_ylabel("share of samples below")
    panels[0, 0].legend(frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100, help="simulated clips of each kind, 4 s each")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of motion.png")
    options = parser.parse_args()
    shared = Path(os.environ.get("EVHANDS_SHARED", Path(__file__).parents[2] / "shared"))
    recordings = real_poses(shared / "real" / "leap-hand-motion")
    if not recordings:
        raise SystemExit(f"found no recordings in {shared}/real/leap-hand-motion (set EVHANDS_SHARED)")
    all_of = {"real": gathered(recordings)}
    for name, config in SIMULATED.items():
        all_of[name] = gathered(simulated_poses(config, options.clips, 4.0))
    print(table(all_of))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(all_of, options.out / "motion.png")
    print(options.out / "motion.png")


if __name__ == "__main__":
    main()
