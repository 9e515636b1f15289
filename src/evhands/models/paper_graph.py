"""`paper` as one graph of plain operators, for runtimes without torch: a window in, a posed hand and the state out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evhands.hand.model import HandModel, _rotation_matrices
from evhands.models.paper import PaperEstimator
from evhands.models.recurrent import CellState
from evhands.models.small_graph import OUTPUTS, exported

PAPER_OUTPUTS = (*OUTPUTS, "wrist_offset")
"""As those of `small`, in the crop's virtual camera of the published method; wrist_offset (1, 3): the wrist of the rest
pose, which `PaperEstimator.to_camera` needs."""


class PaperGraph(nn.Module):
    """lnes (1, 2, S, S), with a FlowNet voxel (1, bins, S, S), and state (1, n) -> `PAPER_OUTPUTS`.

    The state of the history "exact" holds the input halves of the eleven windows before. Where there were fewer, they
    are zeros, which leave the recurrence at zero: that is how it begins.
    """

    def __init__(self, estimator: PaperEstimator, hand: HandModel) -> None:
        super().__init__()
        self.estimator, self.hand = estimator, hand

    def forward(self, lnes: Tensor, state: Tensor, voxel: Tensor | None = None) -> tuple[Tensor, ...]:
        inputs = {"lnes": lnes} if voxel is None else {"lnes": lnes, "voxel": voxel}
        prediction, after = self.estimator(inputs, self._parts(state))
        pose = prediction.pose
        posed = self.hand.with_shape(pose.shape).with_pose(pose.orientation, pose.joints, pose.wrist)
        rotation = _rotation_matrices(pose.orientation)
        following = torch.cat([part.flatten(1) for part in after], dim=1)
        offset = self.estimator.wrist_offset(pose.shape)
        confidence = prediction.confidence
        return rotation, pose.wrist, pose.joints, pose.shape, confidence, posed.joints(), following, offset

    def _parts(self, state: Tensor) -> CellState:
        sizes = state_sizes(self.estimator)
        flat = state.split([torch.Size(size).numel() for size in sizes], dim=1)
        return tuple(part.reshape(size) for part, size in zip(flat, sizes, strict=True))


def state_sizes(estimator: PaperEstimator) -> list[tuple[int, ...]]:
    """Sizes of the parts of the state, the windows before the first one included."""
    parts = [tuple(part.shape) for part in estimator.initial_state(1)]
    if estimator.history == "exact":
        return [(1, estimator.config.history_windows - 1, *parts[0][2:])]
    return parts


def paper_to_onnx(estimator: PaperEstimator, hand: HandModel) -> bytes:
    """The graph as an ONNX model (float32, fixed sizes) with the estimator's history, "exact" or "carried"."""
    estimator, size = estimator.eval(), estimator.config.inputs.size_px
    if estimator.history == "anew":
        raise ValueError("everything anew has no state to hand on; export the history exact, which gives the same")
    count = sum(torch.Size(part).numel() for part in state_sizes(estimator))
    examples, names = [torch.rand(1, 2, size, size), torch.rand(1, count)], ["lnes", "state"]
    if estimator.flow is not None:
        examples.append(torch.rand(1, estimator.flow.config.bins, size, size))
        names.append("voxel")
    graph = PaperGraph(estimator, hand).eval()
    with torch.no_grad():
        graph(*examples)  # what the hand model works out once is a constant from here on
    return exported(graph, examples, names, PAPER_OUTPUTS)
