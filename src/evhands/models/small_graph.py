"""`small` as one graph of plain operators, for runtimes without torch: a window in, a posed hand and the memory out.

The graph holds what `SmallEstimator.forward` does (network, decoding, hand model) with one step in other words: ONNX
has no singular values, so the similarity transform comes from Horn's quaternion (Horn, "Closed-form solution of
absolute orientation using unit quaternions", JOSA A 1987). It sees one crop a call: batch size 1 throughout.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evhands.models.small import SmallEstimator, each
from evhands.types import Size

OUTPUTS = ("rotation", "wrist", "joints", "shape", "confidence", "joints_m", "next_state")
"""rotation (1, 3, 3), wrist (1, 3) m and joints_m (1, 21, 3) m in the virtual camera along the crop's centre; joints
(1, 15, 3) rotation vectors with the mean pose included; shape (1, 10); confidence (1,); next_state (1, n)."""

SMALL_OUTPUTS = (*OUTPUTS, "joint_confidence")
"""joint_confidence (1, 21): of every joint."""

_OPSET = 17
_ROUNDS, _SQUARINGS = 4, 5
"""The 4 x 4 matrix is raised to the power 2^20, scaled after every 2^5: eigenvalues that differ by 2e-5 come apart. The
largest eigenvalue is at most 4 after scaling, so 4^(2^5) = 2^64 stays in the range of float32 too: OpenVINO computes
in it what the graph asks for in double precision."""


class SmallGraph(nn.Module):
    """lnes (1, 2, S, S), K (1, 3, 3), state (1, n), with the flow branch voxel (1, bins, S, S) -> `SMALL_OUTPUTS`."""

    def __init__(self, estimator: SmallEstimator):
        super().__init__()
        self.estimator = estimator

    def forward(self, lnes: Tensor, K: Tensor, state: Tensor, voxel: Tensor | None = None) -> tuple[Tensor, ...]:
        output, state = self.estimator.network(lnes[None], state, None if voxel is None else voxel[None])
        output = each(output, lambda value: value[0])
        decoded = self.estimator.decode(output, K, horn_similarity)
        error = output.log_error.exp()
        return (
            decoded.rotation,
            decoded.wrist,
            decoded.joint_rotvecs,
            output.shape,
            torch.exp(-4 * error.mean(dim=-1)),
            decoded.joints,
            state,
            torch.exp(-4 * error),
        )


def horn_similarity(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The similarity transform that `evhands.models.small` takes from singular values, by products of matrices alone.

    The rotation is that of the unit quaternion q which maximises q' N q. Squaring N (shifted to be positive) again and
    again leaves q q', whose entries give the rotation without a choice of sign. In double precision: 4 x 4 is small.
    """
    source, target, weight = source.double(), target.double(), weights.double()[..., None]
    source_mean, target_mean = (weight * source).sum(-2), (weight * target).sum(-2)
    centred = source - source_mean[..., None, :]
    covariance = (weight * centred).transpose(-1, -2) @ (target - target_mean[..., None, :])  # (source, target)
    N = (covariance.flatten(-2) @ _HORN).unflatten(-1, (4, 4))
    size = torch.sqrt((N * N).sum((-1, -2), keepdim=True))
    power = N / (size + 1e-30) + _IDENTITY
    for _ in range(_ROUNDS):
        power = power / power.amax((-1, -2), keepdim=True)
        for _ in range(_SQUARINGS):
            power = power @ power
    trace = (power * _IDENTITY).sum((-1, -2))
    outer = power.flatten(-2) / trace[..., None]
    rotation = (outer @ _HORN_TO_ROTATION).unflatten(-1, (3, 3))
    scale = (N.flatten(-2) * outer).sum(-1) / (weight * centred * centred).sum((-1, -2))
    translation = target_mean - scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    return rotation.float(), translation.float(), scale.float()


def _horn_matrix() -> Tensor:
    """(9, 16): the covariance, flattened, to Horn's symmetric matrix, flattened; quaternions are (w, x, y, z)."""
    matrix = torch.zeros(3, 3, 4, 4, dtype=torch.float64)
    for i in range(3):
        signs = torch.full((4,), -1.0, dtype=torch.float64)
        signs[[0, i + 1]] = 1.0
        matrix[i, i] += torch.diag(signs)
        j, k = (i + 1) % 3, (i + 2) % 3
        for a, b, entry, sign in ((j, k, (0, i + 1), 1.0), (k, j, (0, i + 1), -1.0)):
            matrix[(a, b, *entry)] += sign
            matrix[(a, b, *entry[::-1])] += sign
        for a, b in ((i, j), (j, i)):
            matrix[a, b, i + 1, j + 1] += 1.0
            matrix[a, b, j + 1, i + 1] += 1.0
    return matrix.reshape(9, 16)


def _rotation_matrix_of_outer() -> Tensor:
    """(16, 9): q q', flattened, to the rotation matrix of the unit quaternion q, flattened.

    R maximises trace(R S) for the covariance S, and q' N q is that trace: R is the transpose of N's derivative by S.
    """
    return _horn_matrix().reshape(3, 3, 16).transpose(0, 1).reshape(9, 16).T.contiguous()


# Made once, so that they are constants of the graph.
_HORN, _HORN_TO_ROTATION, _IDENTITY = _horn_matrix(), _rotation_matrix_of_outer(), torch.eye(4, dtype=torch.float64)


def to_onnx(estimator: SmallEstimator) -> bytes:
    """The graph as an ONNX model (float32, fixed sizes), with the inputs of `SmallGraph` and `SMALL_OUTPUTS`."""
    estimator = estimator.eval()
    inputs, size = estimator.config.inputs, estimator.config.inputs.size_px
    K = torch.tensor([[[size * 1.0, 0.0, size / 2], [0.0, size * 1.0, size / 2], [0.0, 0.0, 1.0]]])
    # Noise instead of zeros: what depends on the values must not be frozen at a special case.
    examples = [torch.rand(1, 2, size, size), K, torch.rand_like(estimator.initial_state(1))]
    if estimator.config.flow:
        examples.append(torch.rand(1, inputs.voxel_bins, size, size))
    names = ["lnes", "K", "state", "voxel"][: len(examples)]
    graph = SmallGraph(estimator).eval()
    with torch.no_grad():
        graph(*examples)  # what the hand model works out once is a constant from here on
    return exported(graph, examples, names, SMALL_OUTPUTS)


def network_to_onnx(network: nn.Module, size: Size) -> bytes:
    """A network of `evhands.runtime.finding` as an ONNX model: `lnes` (1, 2, h, w) in, `answer` out; size: (w, h)."""
    return exported(network.eval(), [torch.rand(1, 2, size[1], size[0])], ["lnes"], ["answer"])


def exported(graph: nn.Module, examples: Sequence[Tensor], names: Sequence[str], outputs: Sequence[str]) -> bytes:
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of being the old one, and of constants that are meant
        torch.onnx.export(
            graph,
            tuple(examples),
            file,  # type: ignore[arg-type]
            input_names=list(names),
            output_names=list(outputs),
            opset_version=_OPSET,
            dynamo=False,
        )
    return file.getvalue()
