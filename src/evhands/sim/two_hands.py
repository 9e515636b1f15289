"""Two hands of one scene: each with a motion of its own, apart from each other most of the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evhands.sim.motion import Motion, MotionConfig, View, draw_motion

DEPTH_SPAN_M = 0.3
"""Two hands of one person are about equally far from the camera: both within this span, drawn anew each time."""
SIDES = ((0.0, 0.55), (0.45, 1.0))
"""Parts of the image's width that the hands keep to, sharing a tenth in the middle."""
MIRROR = np.array([-1.0, 1.0, 1.0])
CLOSE_SHARE = 0.05
TRIES = 30


def draw_two_motions(
    config: MotionConfig, view: View, duration_s: float, rng: np.random.Generator, *, apart_m: float = 0.15
) -> tuple[Motion, Motion]:
    """Draw motions of a right and of a left hand whose centres are less than `apart_m` from each other for at most 5 %
    of the time.

    The left one is told of a right hand, as motions are: the left hand is its mirror image in x = 0 of the camera
    frame. Which hand is on which side of the image is a matter of chance. Of 30 tries the first that keeps apart is
    taken, or the one that does longest (near a camera with a narrow view there may be no room for two hands).
    """
    mirrored_K = view.K.copy()
    mirrored_K[0, 2] = view.size[0] - 1 - view.K[0, 2]
    best, least = None, np.inf
    for _ in range(TRIES):
        right_first = rng.random() < 0.5
        columns, other = SIDES if right_first else SIDES[::-1]
        depth_m = _shared_depth(view, apart_m, rng)
        right_view = replace(view, depth_m=depth_m, columns=columns)
        left_view = replace(view, depth_m=depth_m, columns=(1 - other[1], 1 - other[0]), K=mirrored_K)
        pair = (draw_motion(config, right_view, duration_s, rng), draw_motion(config, left_view, duration_s, rng))
        close = float((distances(*pair, view.centre_m, duration_s) < apart_m).mean())
        if close < least:
            best, least = pair, close
        if close <= CLOSE_SHARE:
            break
    assert best is not None
    return best


def distances(right: Motion, left: Motion, centre_m: np.ndarray, duration_s: float) -> np.ndarray:
    """Distance (n,) m of the two hands' centres, 100 times a second; `centre_m` as in `View`."""
    t_s = np.arange(0.0, duration_s, 0.01)
    return np.linalg.norm(right.point(centre_m, t_s) - left.point(centre_m, t_s) * MIRROR, axis=-1)


def _shared_depth(view: View, apart_m: float, rng: np.random.Generator) -> tuple[float, float]:
    """A part of the range of depths, not nearer than where two hands have room beside each other."""
    near, far = view.depth_m
    roomy = 2.5 * apart_m * view.K[0, 0] / view.size[0]
    near = min(max(near, roomy), far)
    span = min(DEPTH_SPAN_M, far - near)
    start = rng.uniform(near, far - span)
    return start, start + span
