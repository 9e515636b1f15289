"""Draw the pictures of docs/simulator.md: kinds of scenes, and simulated beside real events.

    python scripts/draw_simulator.py [--out docs/images]

The real recordings lie in the folder that EVHANDS_SHARED names (default ../shared), under real; without them only the
first picture is drawn.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import evhands
from evhands.overlay import draw_events
from evhands.sim.config import ClipConfig
from evhands.sim.drawing import draw_world
from evhands.sim.frames import FrameConfig, render_frames
from evhands.sim.generate import film
from evhands.sim.presets import FAST, LIVELY
from evhands.sim.scenery import SceneConfig
from evhands.sim.video import video_to_events
from evhands.types import Events

T_US = 250_000
WINDOW_US = 33_000
NEAR = ClipConfig(duration_us=300_000, depth_m=(0.35, 0.5), motion=LIVELY)
SCENES: dict[str, tuple[ClipConfig, int]] = {
    "normal": (NEAR, 3),
    "fast": (replace(NEAR, motion=FAST), 4),
    "highlight": (replace(NEAR, scene=SceneConfig(light="highlight")), 8),
    "flash": (replace(NEAR, scene=SceneConfig(light="flash")), 6),
    "camera turns": (replace(NEAR, orientation="wide", scene=SceneConfig(camera_turn=1.0, thing=1.0)), 11),
    "moving background": (replace(NEAR, scene=SceneConfig(moving_background=1.0)), 9),
    "second object, watch": (replace(NEAR, scene=SceneConfig(thing=1.0, jewellery=1.0)), 10),
    "two hands": (replace(NEAR, side="both"), 5),
}


def labelled(picture: np.ndarray, text: str, width: int = 346) -> np.ndarray:
    """A picture (h, w, 3), floats of 0 to 1 or bytes, at a width, with a word in its corner."""
    if picture.dtype != np.uint8:
        picture = np.clip(255 * picture, 0, 255).astype(np.uint8)
    image = Image.fromarray(picture)
    image = image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 8 + 6.2 * len(text), 14), fill=(16, 18, 24))
    draw.text((4, 1), text, fill=(235, 235, 235))
    return np.asarray(image)


def scenes() -> np.ndarray:
    """Per kind of scene, the colour frame, the mask of what is what, and the events of 33 ms."""
    colours = np.array([[226, 88, 62], [66, 133, 244], [120, 120, 120], [240, 190, 40]], np.float32)
    tiles = []
    for name, (config, index) in SCENES.items():
        world = draw_world(config, 50, index)
        clip = film(world, 50, index)
        frame = render_frames(world, FrameConfig(exposure_us=(8000, 8000)), 50, index, np.array([T_US])).images[0]
        mask = world.mask(T_US)
        chosen = np.where(mask >= 0, mask, np.where(mask == -2, 2, 3))
        painted = np.where((mask != -1)[..., None], 0.35 * frame + 0.65 * colours[chosen], 0.5 * frame).astype(np.uint8)
        events = clip.events.between(T_US - WINDOW_US, T_US)
        shown = draw_events(events, T_US, WINDOW_US)
        tiles.append(
            np.concatenate(
                [labelled(frame, name), labelled(painted, "truth"), labelled(shown, f"{len(events)} events")], 1
            )
        )
    half = len(tiles) // 2
    return np.concatenate([np.concatenate(tiles[:half]), np.concatenate(tiles[half:])], 1)


def window_of(events: Events, t_us: int, name: str) -> np.ndarray:
    """Events of 33 ms before a time, as a picture."""
    shown = events.between(t_us - WINDOW_US, t_us)
    return labelled(draw_events(shown, t_us, WINDOW_US), f"{name}: {len(shown)} events", 430)


def beside_real(real: Path) -> np.ndarray:
    """Left real, right simulated: a swinging limb and a fast hand; a hand's video as events and a hand at ease."""
    limb = Events.concatenate(list(evhands.open_events(real / "evt3-limb" / "limb.evt3.raw")))
    video = Events.concatenate(list(video_to_events(real / "hand-video" / "human_hand_video.mp4")))
    vga = replace(NEAR, size=(640, 480), focal_px=600.0, motion=FAST, orientation="free")
    calm = replace(NEAR, size=(346, 195), duration_us=300_000)
    simulated = [film(draw_world(config, 51, i), 51, i).events for config, i in ((vga, 2), (calm, 1))]
    rows = [
        (window_of(limb, int(limb.t_us[0]) + 900_000, "real limb"), window_of(simulated[0], T_US, "simulated, fast")),
        (window_of(video, 10_000_000, "real video"), window_of(simulated[1], T_US, "simulated, normal")),
    ]
    return np.concatenate(
        [
            np.concatenate([left, np.asarray(Image.fromarray(right).resize(left.shape[1::-1]))], 1)
            for left, right in rows
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    Image.fromarray(scenes()).save(out / "simulated-scenes.jpg", quality=82)
    print(f"Wrote {out / 'simulated-scenes.jpg'}")
    real = Path(os.environ.get("EVHANDS_SHARED", "../shared")) / "real"
    if real.exists():
        Image.fromarray(beside_real(real)).quantize(64).save(out / "simulated-beside-real.png", optimize=True)
        print(f"Wrote {out / 'simulated-beside-real.png'}")


if __name__ == "__main__":
    main()
