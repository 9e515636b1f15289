"""Draw docs/images/hand-video.webp: a real video of a hand, and beside it its events with the hand that is tracked.

    python scripts/draw_clip.py [--from 3] [--to 9] [--out docs/images/hand-video.webp]

The video lies in the folder that EVHANDS_SHARED names (default ../shared), under real/hand-video: human_hand_video.mp4
of dexsuite/dex-retargeting (commit 3f56141b, MIT licence). Its events are made by the simulator's sensor model and
tracked by the model that ships with evhands, as `evhands track human_hand_video.mp4 --out DIR` does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

import evhands

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, FPS = 250, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--from", dest="first_s", type=float, default=3.0)
    parser.add_argument("--to", dest="last_s", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "hand-video.webp")
    options = parser.parse_args()
    video = Path(os.environ.get("EVHANDS_SHARED", "../shared")) / "real" / "hand-video" / "human_hand_video.mp4"
    with tempfile.TemporaryDirectory() as folder:
        track = evhands.track(video, out=Path(folder), quiet=False)
        drawn, seen = frames(Path(folder) / "overlay.mp4"), frames(video)
    pictures = []
    for t_s in np.arange(options.first_s, options.last_s, 1 / FPS):
        window = int(np.argmin(np.abs(track.t_us - 1e6 * t_s)))
        frame = seen[min(round(t_s * 30), len(seen) - 1)]
        pictures.append(Image.fromarray(np.hstack([scaled(frame), scaled(drawn[min(window, len(drawn) - 1)])])))
    pictures[0].save(
        options.out, save_all=True, append_images=pictures[1:], duration=round(1000 / FPS), loop=0, quality=45, method=6
    )
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB, {len(pictures)} pictures")


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def scaled(picture: np.ndarray) -> np.ndarray:
    """To the height of the clip."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((round(width * HEIGHT / height), HEIGHT), Image.LANCZOS))


if __name__ == "__main__":
    main()
