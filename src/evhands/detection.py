"""What the networks that find hands say, in words: places in the image, and what is in a crop. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from evhands.inputs import overview_camera
from evhands.types import Camera

STRIDE = 4
"""Pixels of the small image to a cell of the detector's maps."""
PLACES = 3
LEAST = 0.05
LEAST_EVENTS = 50
"""At most so many places are given, none with a lower confidence, and none at all for a window of fewer events."""


@dataclass(frozen=True)
class Detection:
    """A hand in the image of a camera: centre and larger extent of its 21 joints in pixels, confidence 0 to 1."""

    centre_px: np.ndarray
    extent_px: float
    confidence: float


@dataclass(frozen=True)
class Recognition:
    """How likely a crop shows a right hand, a left one, nothing of the kind; they add up to 1."""

    right: float
    left: float
    nothing: float


def places_in(
    maps: Float[np.ndarray, "4 h w"], camera: Camera, count: int = PLACES, least: float = LEAST
) -> tuple[Detection, ...]:
    """The places in the undistorted image of `camera` where the hand may be, the likeliest first, each at least half an
    extent from the others; together their confidences are at most 1.

    maps: those of `evhands.models.detector.Detector.forward`. At most `count`, none below the confidence `least`.
    """
    logits = maps[0].astype(np.float64)
    most = max(float(logits.max()), 0.0)
    weight = np.exp(logits - most)
    weight /= weight.sum() + np.exp(-most)
    scale = camera.K[0, 0] / overview_camera(camera).K[0, 0]
    return tuple(
        Detection((peak.centre_px + 0.5) * scale - 0.5, peak.extent_px * scale, peak.confidence)
        for peak in peaks(weight, maps[1:], count, least)
    )


def recognition_of(logits: Float[np.ndarray, "2"]) -> Recognition:
    """What a crop shows, from the logits that a hand is there, and that it is a right one."""
    hand, right = (float(value) for value in 1 / (1 + np.exp(-logits.astype(np.float64))))
    return Recognition(hand * right, hand * (1 - right), 1 - hand)


def peaks(weight: np.ndarray, where: np.ndarray, count: int, least: float) -> Iterator[Detection]:
    """The peaks of weights (h, w) that add up to at most 1, in pixels of the small image; where (3, h, w): offset and
    log extent of every cell. A peak takes the weight of the cells within half an extent with it."""
    weight = weight.copy()
    rows, columns = np.ogrid[: weight.shape[0], : weight.shape[1]]
    for _ in range(count):
        row, column = divmod(int(weight.argmax()), weight.shape[1])
        offset_x, offset_y, log_extent = where[:, row, column].astype(float)
        extent = float(np.exp(log_extent)) * 16
        squares = (rows - row) ** 2 + (columns - column) ** 2
        near = squares <= max(extent / STRIDE / 2, 1.5) ** 2  # at least the cells around it
        confidence = float(weight[near].sum())
        if confidence < least:
            return
        centre = np.array([column + 0.5 + offset_x, row + 0.5 + offset_y]) * STRIDE - 0.5
        yield Detection(centre, extent, confidence)
        weight[near] = 0.0
