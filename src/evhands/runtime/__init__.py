"""Exported models without torch: numpy, numba and onnxruntime only."""

from evhands.runtime.exported import ExportedEstimator, ModelFacts, PosedHand

__all__ = ["ExportedEstimator", "ModelFacts", "PosedHand"]
