"""Stand-ins for networks: they see a hand in the middle of the image, whatever the events are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from evhands.inputs import InputConfig
from evhands.types import HandPose, Prediction

UPRIGHT = Rotation.from_matrix(np.stack([[0, 1, 0], [0, 0, 1], [1, 0, 0]], axis=1).astype(float)).as_rotvec()
"""The orientation of an open hand whose fingers point up in the image."""


@dataclass(frozen=True)
class Seen:
    """A detection."""

    centre_px: np.ndarray
    extent_px: float = 40.0
    confidence: float = 0.9


class Middle:
    """An estimator and a detector of one flat hand half a metre away in the middle of the image."""

    input_config = InputConfig()

    def initial_state(self, batch):
        return None

    def predict(self, window, camera, crop, state, side="right"):
        return Prediction(flat_hand(0.0, side), np.float32(0.7)), state

    def detect(self, window, camera):
        return (Seen(np.array(camera.size) / 2),)


def flat_hand(x_m: float, side: str = "right", z_m: float = 0.5) -> HandPose:
    """An upright open hand with its wrist at x."""
    return HandPose(side, UPRIGHT, np.array([x_m, 0.06, z_m]), np.zeros((15, 3)), np.zeros(10), "open")
