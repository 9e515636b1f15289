"""Training samples for finding hands: pictures of the whole image with a place, and crops with what they show.

A row is one short clip with no, one or two hands. What a tracker of two hands does is imitated: one hand is looked for
in the events without those of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evhands.boxes import CropBox, joints_box, without_boxes
from evhands.data.shards import overview_box, seen_window
from evhands.geometry import crop_camera, project
from evhands.inputs import FILLED, OVERVIEW_SIZE, InputConfig, crop_inputs, filled_window, overview
from evhands.types import Camera, Events, EventWindow, Side

NOTHING, RIGHT, LEFT = 0, 1, 2
"""What a crop shows."""
NOWHERE = (-1000.0, -1000.0, 1.0)
"""The box of a hand that is not there."""


@dataclass(frozen=True, kw_only=True)
class FindingConfig:
    """How clips become rows.

    shift, zoom: standard deviations of the crop's place (in its sides) and of the binary logarithm of its size: a
    detector's boxes, and a tracker's. no_hand: share of the crops beside the hands. erase: how often the events of the
    other hand are left out; erase_own: how often those of the hand that is looked for, so that nothing is found;
    erased: the box that is left out, as a multiple of the joints' extent.
    """

    inputs: InputConfig = FILLED
    windows: int = 6
    clips_per_shard: int = 64
    overviews: int = 4
    looks: int = 8
    shift: float = 0.07
    zoom: float = 0.25
    no_hand: float = 0.4
    erase: float = 0.7
    erase_own: float = 0.12
    erased: tuple[float, float] = (1.1, 1.5)


@dataclass(frozen=True)
class HandsClip:
    """Events of a clip with the joints (m, 21, 3) of each of its hands at the label times, metres, camera frame."""

    events: Events
    camera: Camera
    label_t_us: np.ndarray
    hands: tuple[tuple[Side, np.ndarray], ...]


def finding_dtype(config: FindingConfig) -> np.dtype:
    S, (w, h) = config.inputs.size_px, OVERVIEW_SIZE
    return np.dtype(
        [
            ("overview", "u1", (config.overviews, 2, h, w)),
            ("box", "f4", (config.overviews, 3)),
            ("lnes", "u1", (config.looks, 2, S, S)),
            ("shown", "u1", (config.looks,)),
        ]
    )


def finding_row(clip: HandsClip, config: FindingConfig, rng: np.random.Generator) -> np.ndarray:
    """One clip as a row of `finding_dtype`; windows end at its last `windows` labels."""
    row = np.zeros((), finding_dtype(config))
    count = len(clip.label_t_us)
    labels = np.arange(count - config.windows, count)
    for k, label in enumerate(rng.choice(labels, config.overviews)):
        image, row["box"][k] = _overview(clip, int(label), config, rng)
        row["overview"][k] = np.ceil(image * 255)
    windows, boxes, shown = [], [], []
    for k, label in enumerate(rng.choice(labels, config.looks)):
        window, calm = seen_window(clip.events, int(clip.label_t_us[label]), config.inputs)
        hands = _hand_boxes(clip, int(label))
        if hands and k >= round(config.no_hand * config.looks):
            number = int(rng.integers(len(hands)))
            box, what = _jittered(hands[number], config, rng), RIGHT if clip.hands[number][0] == "right" else LEFT
        else:
            box, what = _beside(window, hands, config, clip.camera, rng), NOTHING
        windows.append(filled_window(window, calm, box, clip.camera, config.inputs))
        boxes.append(box)
        shown.append(what)
    crops = [crop_camera(clip.camera, box.centre_px, box.side_px, config.inputs.size_px) for box in boxes]
    row["lnes"] = np.ceil(crop_inputs(windows, clip.camera, crops, config.inputs)["lnes"] * 255)
    row["shown"] = shown
    return row


def _overview(
    clip: HandsClip, label: int, config: FindingConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (2, h, w) of the whole image, and the box (3,) of the hand that is looked for in it."""
    window, calm = seen_window(clip.events, int(clip.label_t_us[label]), config.inputs)
    factor = float(rng.uniform(*config.erased))
    erased, box = [], np.array(NOWHERE)
    hands = _hand_boxes(clip, label)
    if hands:
        number = int(rng.integers(len(hands)))
        own, others = hands[number], hands[:number] + hands[number + 1 :]
        if rng.random() < config.erase_own:
            erased = [_grown(hand, factor) for hand in hands]
        else:
            box = overview_box(project(clip.hands[number][1][label].astype(np.float64), clip.camera.K), clip.camera)
            if rng.random() < config.erase:
                erased = [_grown(o, factor) for o in others if _apart(own, _grown(o, factor))]
    recent = without_boxes(calm, erased, clip.camera)
    kept = EventWindow(recent.between(window.start_us, window.end_us), window.start_us, window.end_us)
    return overview(filled_window(kept, recent, None, clip.camera, config.inputs), clip.camera)[0], box


def _hand_boxes(clip: HandsClip, label: int) -> list[CropBox]:
    return [joints_box(joints[label].astype(np.float64), clip.camera, 1.0) for _, joints in clip.hands]


def _grown(box: CropBox, factor: float) -> CropBox:
    return CropBox(box.centre_px, box.side_px * factor)


def _apart(own: CropBox, erased: CropBox) -> bool:
    """Whether the centre of a hand, and most of it, stay where a box is left out."""
    return bool(np.abs(own.centre_px - erased.centre_px).max() > 0.5 * erased.side_px + 0.1 * own.side_px)


def _jittered(hand: CropBox, config: FindingConfig, rng: np.random.Generator) -> CropBox:
    side = max(hand.side_px * config.inputs.crop_scale * float(np.exp2(config.zoom * rng.standard_normal())), 16.0)
    shift = np.clip(config.shift * rng.standard_normal(2), -0.25, 0.25)
    return CropBox(hand.centre_px + shift * side, side)


def _beside(
    window: EventWindow, hands: list[CropBox], config: FindingConfig, camera: Camera, rng: np.random.Generator
) -> CropBox:
    """A crop about some event, of the size of a hand at some distance, that shows no hand or a small part of one."""
    width, height = camera.size
    extents = [hand.side_px for hand in hands] or [float(np.exp(rng.uniform(np.log(0.1), np.log(0.8)))) * height]
    box = CropBox(np.array([-1000.0, -1000.0]), 16.0)
    for _ in range(20):
        if len(window.events) and rng.random() < 0.8:
            i = int(rng.integers(len(window.events)))
            centre = np.array([window.events.x[i], window.events.y[i]], np.float64)
        else:
            centre = rng.uniform(0, 1, 2) * (width, height)
        extent = float(rng.choice(extents)) * float(np.exp2(0.7 * rng.standard_normal()))
        centre = centre + 0.3 * extent * rng.standard_normal(2)
        box = CropBox(centre, max(extent * config.inputs.crop_scale, 16.0))
        if all(_misses(box, hand, config) for hand in hands):
            return box
    return CropBox(np.array([-1000.0, -1000.0]), 64.0)  # an empty crop shows nothing, too


def _misses(box: CropBox, hand: CropBox, config: FindingConfig) -> bool:
    """Far beside the hand, or so much smaller that it shows a finger."""
    distance = float(np.linalg.norm(box.centre_px - hand.centre_px))
    extent = box.side_px / config.inputs.crop_scale
    return distance > 0.75 * max(hand.side_px, extent) or (extent < hand.side_px / 3.5 and distance > hand.side_px / 3)
