"""Pictures of the truth over the events: a tile of each recording, and all of them on one contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from evhands.examination.placing import Placed
from evhands.geometry import default_camera
from evhands.overlay import OverlayStyle, draw_overlay
from evhands.recording import Recording
from evhands.types import Events, HandMesh

TILE_US = 30_000
"""Length of the window of a tile; it ends at a label."""
TILE_WIDTH = 346
COLUMNS = 5
MOST_TILES = 60
_WRONG, _RIGHT = (226, 74, 51), (70, 80, 96)


def moment_to_show(recording: Recording, moments: np.ndarray, first_us: int, last_us: int) -> int:
    """The time of the label that a tile shows: one of motion, else the middle one; without labels the middle."""
    if len(moments):
        return int(moments[len(moments) // 2])
    t_us = recording.pose_t_us
    if t_us is None or not len(t_us):
        return (first_us + last_us) // 2
    inside = np.sort(t_us[(t_us >= first_us) & (t_us <= last_us)])
    return int(inside[len(inside) // 2]) if len(inside) else (first_us + last_us) // 2


def tile(
    name: str, events: Events, t_us: int | None, placed: Placed | None, wrong: bool
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Events of a window that ends at t_us, the hand of the nearest label over them, and a red frame if wrong."""
    width, height = events.size
    if t_us is None or width * height > 1 << 22:
        return None
    hand, camera = None, None
    if placed is not None:
        row = np.array([int(np.abs(placed.t_us - t_us).argmin())])
        vertices, joints = placed.vertices(row)[0], placed.joints_m[row[0]]
        # Through the lens onto the sensor: K_image takes what K_points projects.
        turn = np.linalg.inv(placed.K_image) @ placed.K_points
        hand = HandMesh(vertices @ turn.T, joints @ turn.T, np.asarray(placed.faces, np.int64))
        camera = placed.camera
        if not np.isfinite(joints).all() or joints[:, 2].min() <= 0.01:
            hand = None
    style = OverlayStyle(scale=1, side_view=False, bone_px=2.0, joint_px=2.4)
    picture = draw_overlay(events, t_us, TILE_US, camera or default_camera(events.size), hand, style, name)
    image = Image.fromarray(picture).resize((TILE_WIDTH, round(TILE_WIDTH * height / width)))
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=_WRONG if wrong else _RIGHT,
                                    width=4 if wrong else 1)  # fmt: skip
    return np.asarray(image)


def contact_sheet(tiles: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """All tiles (at most MOST_TILES, evenly chosen) in rows of five, with a legend."""
    chosen = [tiles[k] for k in np.unique(np.linspace(0, len(tiles) - 1, MOST_TILES).astype(int))]
    columns = min(COLUMNS, len(chosen))
    height = max(picture.shape[0] for picture in chosen)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0))) for p in chosen]
    padded += [np.zeros_like(padded[0])] * (-len(padded) % columns)
    lines = [np.concatenate(padded[k : k + columns], 1) for k in range(0, len(padded), columns)]
    legend = Image.new("RGB", (lines[0].shape[1], 24), (14, 17, 23))
    text = f"{len(chosen)} of {len(tiles)}: events of {TILE_US // 1000} ms, the labelled hand over them; red: faulty"
    ImageDraw.Draw(legend).text((6, 4), text, fill=(226, 230, 238), font=ImageFont.load_default(13))
    return np.concatenate([np.asarray(legend), *lines])
