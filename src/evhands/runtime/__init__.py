"""Exported models without torch: numpy, numba, and onnxruntime or OpenVINO only."""

from evhands.runtime.exported import DETECTOR, RECOGNISER, ExportedEstimator, ModelFacts, PosedHand
from evhands.runtime.finding import ExportedDetector, ExportedRecogniser

__all__ = [
    "DETECTOR", "RECOGNISER", "ExportedDetector", "ExportedEstimator", "ExportedRecogniser", "ModelFacts", "PosedHand",
]  # fmt: skip
