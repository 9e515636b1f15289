"""Where the published data path departs from ours, kept for fixtures and published checkpoints alone.

O-numbers are those of the list of the published implementation's oddities (`docs/data.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from evhands.data.augment import AugmentConfig, Draw


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """Each is what the published code does. rest_wrist: MANO's J0 (3,), by which its translation and the wrist differ.

    lnes_without_last: LNES lacks the last event in the crop of every window (O2). raw_squares: crops of fast sequences
    from squares that are undistorted in part (O20). unlabelled_depth_m: the depth by which windows without a label are
    shifted (O12: the camera's own T_z). Its augmentation moves MANO's depth and the joints' by different amounts (O14),
    and items whose last window has no label not at all (O13).
    """

    lnes_without_last: bool = True
    raw_squares: bool = True
    unlabelled_depth_m: float = 1.0
    rest_wrist: tuple[float, float, float] = (0.0, 0.0, 0.0)


def published_moves(
    drawn: Draw, K: Float64[np.ndarray, "3 3"], labels: dict[str, Any], published: PublishedData, config: AugmentConfig
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Maps of pixels (t, 2, 3), the scale of the image, and the moved wrists (t, 3) and joints (t, 21, 3).

    `labels` are turned already. The ratio of depths is the last window's; each window shifts by its own depth.
    """
    wrist, rest = labels["wrist"].copy(), np.array(published.rest_wrist)
    depth = wrist[:, 2] - rest[2]
    ratio = np.clip(depth[-1] + drawn.depth_m, *config.depth_range_m) / depth[-1]
    depth = np.where(np.isfinite(depth), depth, published.unlabelled_depth_m) * ratio
    c, s = np.cos(drawn.turn) / ratio, np.sin(drawn.turn) / ratio
    matrix = np.array([[c, -s], [s, c]])
    offset = K[:2, 2] - matrix @ K[:2, 2] + np.diag(K)[:2] * drawn.shift_m / depth[:, None]
    moves = np.concatenate([np.broadcast_to(matrix, (len(depth), 2, 2)), offset[..., None]], -1)
    shift = np.array([*drawn.shift_m, 0.0])
    wrist = (wrist - rest) * [1, 1, ratio] + rest + shift
    return moves, 1 / ratio, wrist, labels["joints_m"] * [1, 1, ratio] + shift
