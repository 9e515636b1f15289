"""The networks that find hands and tell their sides, as an exported file carries them: no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evhands.detection import LEAST_EVENTS, Detection, Recognition, places_in, recognition_of
from evhands.evidence import RECOGNISER_SIZE
from evhands.inputs import InputConfig, crop_inputs, overview
from evhands.runtime.sessions import Engine, open_session
from evhands.types import Camera, EventWindow

IMAGE, ANSWER = "lnes", "answer"
"""Names of input and output of both networks."""


class ExportedDetector:
    """A `HandDetector`. model: an ONNX file of `evhands.models.detector.Detector`, or its bytes."""

    def __init__(self, model: Path | bytes, threads: int = 1, engine: Engine = "onnx"):
        self._session = open_session(model, threads, engine)

    def maps(self, image: np.ndarray) -> np.ndarray:
        """(1, 2, 64, 88) LNES -> (1, 4, 16, 22), as `Detector.forward`."""
        return self._session.run([ANSWER], {IMAGE: image})[0]

    def detect(self, window: EventWindow, camera: Camera) -> tuple[Detection, ...]:
        """The places where a hand may be, the likeliest first."""
        if len(window.events) < LEAST_EVENTS:
            return ()
        return places_in(self.maps(overview(window, camera))[0], camera)


class ExportedRecogniser:
    """A `HandRecogniser`. model: an ONNX file of `evhands.models.recogniser.Recogniser`, or its bytes."""

    def __init__(self, model: Path | bytes, threads: int = 1, engine: Engine = "onnx"):
        self._session = open_session(model, threads, engine)
        self._config = InputConfig(size_px=RECOGNISER_SIZE)

    def recognise(self, window: EventWindow, camera: Camera, crop: Camera) -> Recognition:
        """What a crop of `RECOGNISER_SIZE` pixels shows."""
        image = crop_inputs([window], camera, [crop], self._config)["lnes"]
        return recognition_of(self._session.run([ANSWER], {IMAGE: image})[0][0])
