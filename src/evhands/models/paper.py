"""The networks of EvHandPose (Jiang et al., TPAMI 2024): FlowNet, and a pose network over LNES and the flow.

A window becomes a voxel grid (for the FlowNet) and an LNES image; [LNES, flow] go through the encoder, a
convolutional recurrence over the windows, and a head that gives 61 numbers: hand pose 45, translation 3, shape 10,
global rotation 3.

The translation lives in the crop's *virtual camera*: the camera with the intrinsics of the real one in which the
crop's image, taken as it is, would have been seen. `PaperEstimator.to_camera` maps it to the real camera.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from evhands.geometry import virtual_move
from evhands.hand.model import HandModel
from evhands.inputs import InputConfig
from evhands.models.encoder import Encoder, EncoderConfig
from evhands.models.estimator import Estimator, State
from evhands.models.flow import FlowConfig, FlowNet
from evhands.models.recurrent import CellName, CellState, recurrent_cell, run_last, run_sequence, spans
from evhands.types import Camera, HandPose, Prediction

OUTPUTS = {"joints": 45, "translation": 3, "shape": 10, "orientation": 3}
"""The 61 outputs of the head in their order."""

History = Literal["exact", "carried", "anew"]
"""How a pose depends on the windows before its own, where they come one by one; see `PaperConfig.history`."""


@dataclass(frozen=True, kw_only=True)
class PoseNetworkConfig:
    """Sizes of the pose network; the defaults are those of the paper (35.5 M parameters)."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    cell: CellName = "gru"
    recurrent_channels: int = 512
    hidden: int = 128
    leak: float = 0.1
    translation_scale: tuple[float, float, float] = (0.3, 0.3, 0.3)
    """Metres per unit of the head's output."""
    translation_mean: tuple[float, float, float] = (0.15, 0.0, 0.5)
    """Metres in the virtual camera at output 0."""


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """The whole of the paper's network."""

    flow: FlowConfig | None = field(default_factory=FlowConfig)
    """None = without hand flow: the encoder sees the LNES image only."""
    flow_levels: int = 1
    """Scales of the flow that the encoder sees, counted from the finest: 1 in the paper."""
    pose: PoseNetworkConfig = field(default_factory=PoseNetworkConfig)
    inputs: InputConfig = field(
        default_factory=lambda: InputConfig(size_px=128, stride_us=66_667, crop_scale=2.0, voxel_bins=5)
    )
    hand_model: str = "open"
    """Name of the hand model in whose parameters the poses are."""
    flow_training: Literal["trained", "frozen", "frozen_norms_drift"] = "frozen"
    """What happens to the FlowNet in training mode: "frozen" gets no gradients and keeps its batch norms;
    "frozen_norms_drift" lets their running means drift, as the published training does."""
    history: History = "exact"
    """exact: the recurrence begins at zeros `history_windows` windows ago, as in training and in the published
    evaluation, from kept input halves of the gates. anew: the same, everything computed again from kept images.
    carried: the recurrent state goes on without end, one step a window; longer histories than any in training."""
    history_windows: int = 12


def paper() -> PaperConfig:
    """The sizes of the paper: 49.66 M parameters, 3.69 GMAC a window."""
    return PaperConfig()


class PoseNetwork(nn.Module):
    """Images of windows in order -> the 61 outputs of every window."""

    def __init__(self, config: PoseNetworkConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder, in_channels)
        self.recurrent = recurrent_cell(config.cell, config.encoder.channels[-1], config.recurrent_channels)
        self.norm = nn.BatchNorm3d(config.recurrent_channels)
        self.hidden = nn.Linear(config.recurrent_channels, config.hidden)
        self.output = nn.Linear(config.hidden, sum(OUTPUTS.values()))

    def forward(
        self, images: Float[Tensor, "b t c h w"], state: CellState | None, windows: int | None = None
    ) -> tuple[Float[Tensor, "b t 61"], CellState]:
        """windows: None carries the recurrent state on; a number begins so many windows ago, and the state is what
        `run_last` keeps of them."""
        batch, steps = images.shape[:2]
        features = self.encoder(images.flatten(0, 1)).unflatten(0, (batch, steps))
        if windows is None:
            features, state = run_sequence(self.recurrent, features, state)
        else:
            features, kept = run_last(self.recurrent, features, None if state is None else state[0], windows)
            state = (kept,)
        # The norm's statistics in training mode run over batch, time and pixels together.
        features = self.norm(features.transpose(1, 2)).transpose(1, 2)
        hidden = F.leaky_relu(self.hidden(features.mean(dim=(-2, -1))), self.config.leak)
        return self.output(hidden), state


class PaperEstimator(Estimator):
    """Windows of a right hand -> its poses, with the recurrent state passed in and handed back.

    A checkpoint rebuilds it alone: what it needs of the hand model (the mean pose, and where the wrist lies for a
    shape) is stored in buffers, which `use_hand` fills.
    """

    joints_mean: Tensor
    wrist_rest: Tensor
    wrist_shape: Tensor

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.config = config
        self.input_config = config.inputs
        self.flow = None if config.flow is None else FlowNet(config.flow)
        self.pose = PoseNetwork(config.pose, in_channels=2 + (0 if config.flow is None else 2 * config.flow_levels))
        self.register_buffer("joints_mean", torch.zeros(45))
        self.register_buffer("wrist_rest", torch.zeros(3))
        self.register_buffer("wrist_shape", torch.zeros(3, 10))
        if self.flow is not None and config.flow_training != "trained":
            self.flow.requires_grad_(False)

    def use_hand(self, hand: HandModel) -> PaperEstimator:
        """Write the mean pose and the wrist regressor of the right hand `config.hand_model` into the buffers."""
        if (hand.name, hand.side) != (self.config.hand_model, "right"):
            raise ValueError(f"got the {hand.side} hand {hand.name!r}, wanted the right {self.config.hand_model!r}")
        regressor = hand.joint_regressor[0]
        self.joints_mean.copy_(hand.mean_pose)
        self.wrist_rest.copy_(regressor @ hand.vertices)
        self.wrist_shape.copy_(torch.einsum("v,vcs->cs", regressor, hand.shape_directions))
        return self

    def train(self, mode: bool = True) -> PaperEstimator:
        super().train(mode)
        if self.flow is not None and self.config.flow_training == "frozen":
            self.flow.eval()
        return self

    def with_history(self, history: History) -> PaperEstimator:
        """The same network, weights shared, with another `PaperConfig.history`."""
        other = copy.copy(self)
        other.config = replace(self.config, history=history)
        return other

    def for_inference(self) -> PaperEstimator:
        """Lay the weights out as convolutions of single windows want them, in place.

        It changes speed alone: of single windows to less than two thirds, but the encoder's training would be slower.
        """
        parts = [part for part in (self.flow, self.pose.encoder) if part is not None]
        for weight in (weight for part in parts for weight in part.parameters() if weight.ndim == 4):
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    @property
    def history(self) -> History:
        """In training mode always carried: there whole sequences begin at zeros, and all ways are one."""
        return "carried" if self.training else self.config.history

    def initial_state(self, batch: int) -> CellState:
        """The state before the first window: zeros, or nothing kept."""
        size = self.config.inputs.size_px
        if self.history == "anew":
            kept = {"lnes": 2} if self.flow is None else {"lnes": 2, "voxel": self.flow.config.bins}
            return tuple(self.wrist_rest.new_zeros(batch, 0, channels, size, size) for channels in kept.values())
        side = size // 2 ** (2 + len(self.config.pose.encoder.channels))
        cell = self.pose.recurrent
        if self.history == "exact":
            halves = sum(gate.out_channels for gate in cell.gate_layers)
            return (self.wrist_rest.new_zeros(batch, 0, halves, side, side),)
        return cell.initial_state(self.wrist_rest.new_zeros(batch, 1, side, side))

    def forward(self, inputs: dict[str, Tensor], state: State = None) -> tuple[Prediction, State]:
        """Poses of one window a call, or of a sequence, and the state after the last window.

        inputs: `lnes` (b, [t,] 2, h, w) and `voxel` (b, [t,] bins, h, w) of the crop. The prediction has the batch
        shape (b, [t]); its wrist lies in the crop's virtual camera; its flow is in pixels of the crop per window.
        In training mode a sequence differs from its windows one by one, because batch norms see it whole.
        The state is that of `PaperConfig.history`. Kept windows stay as they were seen, each in its own crop, as in
        the published evaluation, so that a crop may move from window to window.
        """
        assert not isinstance(state, Tensor)
        if inputs["lnes"].ndim == 4:
            prediction, state = self.forward({name: image.unsqueeze(1) for name, image in inputs.items()}, state)
            return _first_step(prediction), state
        if self.history == "anew":
            return self._anew(inputs, self.initial_state(len(inputs["lnes"])) if state is None else state)
        flows = None if self.flow is None else self.flow_scales(inputs["voxel"])
        return self.poses(inputs["lnes"], flows, state)

    def flow_scales(self, voxels: Float[Tensor, "b t bins h w"]) -> Float[Tensor, "b t levels 2 h w"]:
        """What the FlowNet says of every window at every scale, coarse to fine, in its own unit."""
        assert self.flow is not None
        return self.flow(voxels.flatten(0, 1)).unflatten(0, voxels.shape[:2])

    def poses(
        self, images: Float[Tensor, "b t 2 h w"], flows: Float[Tensor, "b t levels 2 h w"] | None, state: State = None
    ) -> tuple[Prediction, State]:
        """The second half of `forward`: poses from the LNES images and the flows of a sequence."""
        assert not isinstance(state, Tensor)
        windows = self.config.history_windows if self.history == "exact" else None
        outputs, state = self.pose(self._images(images, flows), state, windows)
        return self._prediction(outputs, flows), state

    def _anew(self, inputs: dict[str, Tensor], kept: CellState) -> tuple[Prediction, CellState]:
        """A sequence with everything of the last `history_windows` computed again for each of its windows."""
        windows, past = self.config.history_windows, kept[0].shape[1]
        new = [inputs["lnes"]] if self.flow is None else [inputs["lnes"], inputs["voxel"]]
        images = [torch.cat([old, image], dim=1) for old, image in zip(kept, new)]
        outputs, flows = [], []
        for span, count in spans(past, new[0].shape[1], windows):
            flow = None if self.flow is None else self.flow_scales(images[1][:, span])
            output, _ = self.pose(self._images(images[0][:, span], flow), None)
            outputs.append(output[:, -count:])
            flows += [] if flow is None else [flow[:, -count:]]
        prediction = self._prediction(torch.cat(outputs, dim=1), torch.cat(flows, dim=1) if flows else None)
        return prediction, tuple(image[:, max(0, image.shape[1] - windows + 1) :] for image in images)

    def _images(self, images: Tensor, flows: Tensor | None) -> Tensor:
        """What the encoder sees: LNES, and the finest scales of the flow."""
        if flows is None:
            return images
        return torch.cat([images, flows[:, :, -self.config.flow_levels :].flatten(2, 3)], dim=2)

    def _prediction(self, outputs: Float[Tensor, "b t 61"], flows: Tensor | None) -> Prediction:
        """The head's numbers, and the flow in pixels, as a prediction."""
        # Half precision, where it is asked for, is good enough for convolutions but not for metres.
        device = outputs.device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):  # meta: sizes are counted
            pose = self.decode(outputs.to(self.wrist_rest.dtype))
        flow = None
        if flows is not None:
            assert self.flow is not None
            flow = flows[:, :, -1] * self.flow.config.range_px
        return Prediction(pose, confidence=torch.ones_like(pose.wrist[..., 0]), flow=flow)

    def decode(self, outputs: Float[Tensor, "*b 61"]) -> HandPose:
        """The head's numbers as a pose; its wrist lies in the crop's virtual camera."""
        parts = dict(zip(OUTPUTS, outputs.split(list(OUTPUTS.values()), dim=-1)))
        scale = outputs.new_tensor(self.config.pose.translation_scale)
        mean = outputs.new_tensor(self.config.pose.translation_mean)
        return HandPose(
            side="right",
            orientation=parts["orientation"],
            wrist=parts["translation"] * scale + mean + self.wrist_offset(parts["shape"]),
            joints=(parts["joints"] + self.joints_mean).unflatten(-1, (15, 3)),
            shape=parts["shape"],
            hand_model=self.config.hand_model,
        )

    def wrist_offset(self, shape: Float[Tensor, "*b 10"]) -> Float[Tensor, "*b 3"]:
        """The wrist of the rest pose: a pose's wrist is MANO's translation plus this."""
        return self.wrist_rest + shape @ self.wrist_shape.T

    def to_camera(self, pose: HandPose, crop: Camera, camera: Camera) -> HandPose:
        """A pose (numpy) of the crop's virtual camera in the real camera, of which `crop` is a crop with square pixels.

        A left hand is a right hand seen in the mirrored crop, as the published code mirrors it: about the principal
        point of the real camera.
        """
        left, top = camera.K[:2, 2] - crop.K[:2, 2]
        turn = np.ones(3, np.float32)
        if pose.side == "left":
            turn[0] = -1
            left = 2 * camera.K[0, 2] - left - (crop.size[0] - 1)
        move = virtual_move(crop.K[0, 0] / camera.K[0, 0], left, top, camera.K)
        offset = self.wrist_rest.cpu().numpy() + pose.shape @ self.wrist_shape.cpu().numpy().T
        virtual = pose.wrist * turn - offset
        wrist = (virtual + virtual[..., 2:] * move + offset) * turn
        return replace(pose, wrist=wrist.astype(np.float32))


def _first_step(prediction: Prediction) -> Prediction:
    pose, flow = prediction.pose, prediction.flow
    pose = replace(
        pose,
        orientation=pose.orientation[:, 0],
        wrist=pose.wrist[:, 0],
        joints=pose.joints[:, 0],
        shape=pose.shape[:, 0],
    )
    return Prediction(pose, prediction.confidence[:, 0], None if flow is None else flow[:, 0])
