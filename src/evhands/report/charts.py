"""Drawings as SVG text: lines with axes, errors on a drawn hand, skeletons. Colours are classes of the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np

from evhands.hand.skeleton import JOINT_ORDERS, OPENPOSE21_BONES


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a chart: points (x, y), y None where there is nothing; `kind` is its class in the style."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    kind: str
    dots: bool = False


WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44


def line_chart(
    lines: Sequence[Line], x_title: str, y_title: str, *, x_names: Sequence[str] | None = None, top: float | None = None
) -> str:
    """Curves over a common x, y from zero on; x_names put words at x = 0, 1, 2 ... instead of numbers."""
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y) if y is not None and isfinite(y)]
    if not points:
        return '<p class="nothing">nothing to show</p>'
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    if x_names is not None:
        x0, x1 = -0.4, len(x_names) - 0.6
    ticks = _ticks(top if top is not None else max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x0) / ((x1 - x0) or 1)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / ticks[-1] * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)}">']
    for tick in ticks:
        (_, y) = at(x0, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    named = list(enumerate(x_names)) if x_names is not None else [(t, f"{t:g}") for t in _ticks(x1) if t >= x0]
    for value, name in named:
        x, y = at(value, 0)
        if x <= WIDTH - RIGHT + 1:
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{escape(str(name))}</text>'
            )
    parts += [_curve(line, at) for line in lines]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 7}" text-anchor="middle">{escape(x_title)}</text>')
    turned = f'transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="axis" {turned} text-anchor="middle">{escape(y_title)}</text></svg>')
    legend = "".join(f'<span class="key {line.kind}">{escape(line.name)}</span>' for line in lines)
    return "".join(parts) + f'<p class="legend">{legend}</p>'


def _curve(line: Line, at) -> str:  # type: ignore[no-untyped-def]
    placed = [at(x, y) for x, y in zip(line.x, line.y) if y is not None and isfinite(y)]
    if not placed:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    dots = "".join(f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>' for x, y in placed)
    return f'<path class="curve {line.kind}" d="{path}"/>' + (dots if line.dots else "")


def _ticks(top: float) -> list[float]:
    """0 to at least `top` in four to seven steps of 1, 2 or 5 times a power of ten."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** floor(log10(top / 4))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if top / (f * power) <= 6)
    return [round(k * step, 10) for k in range(ceil(top / step - 1e-9) + 1)]


_FLAT_HAND = np.array(
    [
        (0, 0), (-27, -22), (-50, -44), (-68, -66), (-83, -86), (-25, -92), (-32, -130), (-36, -156), (-39, -178),
        (0, -97), (0, -141), (0, -171), (0, -195), (22, -91), (26, -130), (29, -157), (31, -179), (41, -78), (50, -107),
        (56, -126), (61, -144),
    ],
    np.float64,
)  # fmt: skip
"""A drawn right hand, palm away: 21 joints in `openpose21` order, y down."""


def hand_chart(errors_mm: Sequence[float | None]) -> str:
    """A drawn hand with a disc at each joint, as large and as red as its error, and the number beside it."""
    known = [e for e in errors_mm if e is not None]
    if not known:
        return '<p class="nothing">nothing to show</p>'
    worst = max(max(known), 1e-9)
    points = _FLAT_HAND * 1.55
    parts = ['<svg class="chart hand" viewBox="-190 -335 380 375" role="img" aria-label="errors by joint">']
    for a, b in OPENPOSE21_BONES:
        (x1, y1), (x2, y2) = points[a], points[b]
        parts.append(f'<line class="bone" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>')
    for name, (x, y), error in zip(JOINT_ORDERS["openpose21"], points, errors_mm):
        if error is None:
            continue
        share = error / worst
        colour = f"hsl({200 - 200 * share:.0f} 75% 52%)"
        dx, anchor = (-12, "end") if name.startswith("thumb") else (12, "start")
        parts.append(
            f"<g><title>{name}: {error:.1f} mm</title>"
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{4 + 6 * share:.1f}" style="fill:{colour}"/>'
            f'<text class="number" x="{x + dx:.0f}" y="{y + 4:.0f}" text-anchor="{anchor}">{error:.0f}</text></g>'
        )
    return "".join(parts) + "</svg>"


def skeleton(points_px: np.ndarray, kind: str) -> str:
    """The bones and joints (21, 2) of a hand as lines of one path; nothing where a joint is missing."""
    if not np.isfinite(points_px).all():
        return ""
    bones = "".join(
        f"M{points_px[a, 0]:.1f} {points_px[a, 1]:.1f}L{points_px[b, 0]:.1f} {points_px[b, 1]:.1f}"
        for a, b in OPENPOSE21_BONES
    )
    return f'<path class="skeleton {kind}" d="{bones}"/>'
