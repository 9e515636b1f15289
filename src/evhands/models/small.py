"""`small`: a network for live tracking on a CPU, from one LNES image and a memory to the pose of the open hand.

Design (ours). A convolutional encoder reads the crop down to 6 x 6 cells, a ConvGRU keeps memory there, and a decoder
leads back to 24 x 24 cells, where 21 heat maps give each joint's pixel (soft-argmax) and relative depth: 2.5D joints
(Iqbal et al., ECCV 2018). Features gathered under the heat maps, and a second memory of what they have been, give the
articulation in the hand model's space of natural poses and the shape. Orientation, distance and place then follow in
closed form: the similarity transform that lays the articulated hand on the 2.5D joints. Convolutions localise well and
regression articulates well; neither has to learn the camera.

Everything is said in a virtual camera that looks along the centre of the crop, so that the same picture means
the same pose wherever in the sensor's image the crop was cut. Shapes: B batch, T windows, S crop side, J = 21.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import roma
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from evhands.geometry import crop_direction
from evhands.hand.model import HandModel, load_hand
from evhands.inputs import FILLED, InputConfig
from evhands.models.estimator import Estimator, State
from evhands.models.small_encoder import Block, conv, encoder_stages
from evhands.types import Camera, HandPose, Prediction

Similarity = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Two sets of points (b, n, 3), weights (b, n) that add up to 1 -> rotation, translation and scale of b transforms."""

PALM = (0, 5, 9, 13, 17)
"""Wrist and the first joints of the four fingers in `openpose21`: the reference of relative depth."""


@dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """Sizes of the network; `flow` adds the light flow branch, which reads a voxel grid of `voxel_bins`.

    memory: channels of the memory of places, which moves with the crop; recall: units of the memory of articulation,
    which does not (0 = none): what a still finger looks like is known from when it last moved.
    """

    inputs: InputConfig = FILLED
    hand: str = "open"
    channels: tuple[int, int, int] = (48, 80, 144)
    blocks: tuple[int, int, int] = (1, 2, 2)
    memory: int = 128
    recall: int = 0
    decoder: int = 40
    pose_components: int = 24
    flow: bool = False

    def __post_init__(self) -> None:
        if self.inputs.size_px % 16:
            raise ValueError(
                f"inputs.size_px is {self.inputs.size_px}: the encoder halves it four times, use a multiple of 16"
            )
        if self.flow and not self.inputs.voxel_bins:
            raise ValueError("flow=True reads a voxel grid: set inputs.voxel_bins (5)")


@dataclass(frozen=True)
class SmallOutput:
    """What the heads say, in the virtual camera. uv: joints in the crop, -1 to 1 from edge to edge. depth: (z - z_palm)
    / z_palm times the focal length, in half crop sides, so that all three axes have one unit. log_error: log of the
    expected error of a joint in that unit. coefficients, shape: of the hand model."""

    uv: Tensor
    depth: Tensor
    log_error: Tensor
    coefficients: Tensor
    shape: Tensor
    flow: Tensor | None = None
    heat: Tensor | None = None
    """(.., 21, h * w) logits of the heat maps."""


def each(output: SmallOutput, change: Callable[[Tensor], Tensor]) -> SmallOutput:
    """The output with every tensor changed."""
    changed: dict[str, Any] = {name: None if v is None else change(v) for name, v in vars(output).items()}
    return SmallOutput(**changed)


@dataclass(frozen=True)
class Decoded:
    """A hand laid on the 2.5D joints, in the virtual camera. joints (.., 21, 3) m; the others as in `HandPose`,
    rotation (.., 3, 3).

    canonical: the 21 joints with the wrist at zero and no global rotation.
    """

    canonical: Tensor
    rotation: Tensor
    wrist: Tensor
    joints: Tensor
    joint_rotvecs: Tensor


class _ConvGRU(nn.Module):
    """Memory of every cell: gates from the input (1 x 1) and from the state's neighbourhood (depthwise 3 x 3, then
    1 x 1).

    h' = (1 - z) h + z n as in the paper's ConvGRU, at a twentieth of its cost.
    """

    def __init__(self, inputs: int, memory: int):
        super().__init__()
        self.memory = memory
        self.from_input = nn.Conv2d(inputs, 3 * memory, 1)
        self.spread = nn.Conv2d(memory, memory, 3, padding=1, groups=memory, bias=False)
        self.from_state = nn.Conv2d(memory, 3 * memory, 1, bias=False)

    def forward(self, x_TBCHW: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        T, B = x_TBCHW.shape[:2]
        gates = self.from_input(x_TBCHW.flatten(0, 1)).unflatten(0, (T, B))
        outputs = []
        for t in range(T):
            z_x, r_x, n_x = gates[t].chunk(3, dim=1)
            z_h, r_h, n_h = self.from_state(state + self.spread(state)).chunk(3, dim=1)
            z = torch.sigmoid(z_x + z_h)
            n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
            state = (1 - z) * state + z * n
            outputs.append(state)
        return torch.stack(outputs), state


class _FlowBranch(nn.Module):
    """Light flow: voxel grid -> features at a quarter of the resolution -> flow there, in crop pixels a window."""

    def __init__(self, bins: int, channels: int):
        super().__init__()
        self.features = nn.Sequential(conv(bins, 16, 5, 2), conv(16, 24, 3, 2), conv(24, 24))
        self.flow = nn.Conv2d(24, 2, 1)
        self.out = nn.Conv2d(26, channels, 1)
        nn.init.zeros_(self.out.weight)  # a network that gets the branch says at first what it said without it
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, voxel: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(voxel)
        flow = torch.tanh(self.flow(features))
        return flow * (voxel.shape[-1] / 8), self.out(torch.cat([features, flow], dim=1))


class _Recall(nn.Module):
    """Adds to features what a GRU remembers of them; at first nothing, so that weights without it can go on with it."""

    def __init__(self, features: int, units: int):
        super().__init__()
        self.units = units
        self.memory = nn.GRU(features, units)
        self.out = nn.Linear(units, features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_TBC: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        remembered, state = self.memory(x_TBC, state[None].contiguous())
        return x_TBC + self.out(remembered), state[0]


class SmallNetwork(nn.Module):
    """The convolutional part of `small`: images and memory in, `SmallOutput` and memory out."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        c1, c2, c3 = config.channels
        self.config = config
        self.stem, self.stage1, self.stage2, self.stage3 = encoder_stages(config.channels, config.blocks)
        self.flow = _FlowBranch(config.inputs.voxel_bins, c1) if config.flow else None
        self.memory = _ConvGRU(c3, config.memory)
        d = config.decoder
        self.up3 = conv(config.memory + c3, c2, 1)
        self.skip2 = conv(2 * c2, c2, 1)
        self.up2 = nn.Sequential(Block(c2), conv(c2, d, 1))
        self.skip1 = conv(d + c1, d, 1)
        self.up1 = Block(d)
        self.maps = nn.Conv2d(d, 42, 1)
        self.gather = nn.Linear(d + 3, 32)
        hidden = 21 * 32 + config.memory + c3
        self.trunk = nn.Sequential(nn.Linear(hidden, 320), nn.ReLU(), nn.Linear(320, 256), nn.ReLU())
        self.recall = _Recall(256, config.recall) if config.recall else None
        self.head = nn.Linear(256, config.pose_components + 10 + 21)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, lnes_TBCHW: Tensor, state: Tensor, voxel_TBCHW: Tensor | None = None, last: int | None = None
    ) -> tuple[SmallOutput, Tensor]:
        """Images (T, B, 2, S, S) of T consecutive windows -> outputs with leading (T, B), or of the `last` windows
        alone (the others fill the memory, without the decoder's work)."""
        T, B = lnes_TBCHW.shape[:2]
        x = lnes_TBCHW.flatten(0, 1).to(memory_format=torch.channels_last)
        f1 = self.stem(x)
        flow = None
        if self.flow is not None and voxel_TBCHW is not None:
            flow, extra = self.flow(voxel_TBCHW.flatten(0, 1).to(memory_format=torch.channels_last))
            f1 = f1 + extra
        f1 = self.stage1(f1)
        f2 = self.stage2(f1)
        f3 = self.stage3(f2)
        places, recalled = self.parts_of(state)
        memory, places = self.memory(f3.unflatten(0, (T, B)), places)
        if last is not None and self.recall is None:  # else what the decoder says must be remembered
            T = last
            memory, f1, f2, f3 = memory[-T:], f1[-T * B :], f2[-T * B :], f3[-T * B :]
            flow = None if flow is None else flow[-T * B :]
        m3 = torch.cat([memory.flatten(0, 1), f3], dim=1)
        u2 = self.up2(self.skip2(torch.cat([_twice(self.up3(m3)), f2], dim=1)))
        u1 = self.up1(self.skip1(torch.cat([_twice(u2), f1], dim=1)))
        with torch.autocast(u1.device.type, enabled=False):  # the mean over a heat map needs more digits than bf16 has
            uv, z, heat, local = self._joints(u1.float())
            features = self.trunk(torch.cat([local.flatten(1), m3.float().mean(dim=(2, 3))], dim=1))
            if self.recall is not None:
                features, recalled = self.recall(features.unflatten(0, (T, B)), recalled.float())
                features = features.flatten(0, 1)
            values = self.head(features)
        n = self.config.pose_components
        output = SmallOutput(uv, z, values[:, n + 10 :], values[:, :n], values[:, n : n + 10], flow, heat)
        state = torch.cat([places.flatten(1).float(), recalled], dim=1)
        output = each(output, lambda value: value.unflatten(0, (T, B)))
        return output if last is None else each(output, lambda value: value[-last:]), state

    def parts_of(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The memory (B, n) of places (B, memory, cells, cells) and of articulation (B, recall)."""
        cells = self.config.inputs.size_px // 16
        count = self.config.memory * cells * cells
        return state[:, :count].unflatten(1, (self.config.memory, cells, cells)), state[:, count:]

    def _joints(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions, depths, heat maps and gathered features of the 21 joints of N images."""
        N, _, H, W = features.shape
        heat, depth = self.maps(features).flatten(2).chunk(2, dim=1)
        weight = heat.softmax(dim=2)
        cells = cell_centres(H, W, features.device)
        uv = weight @ cells
        z = (weight * depth).sum(dim=2)
        local = weight @ features.flatten(2).transpose(1, 2)
        local = F.relu(self.gather(torch.cat([local, uv - uv[:, PALM].mean(1, keepdim=True), z[..., None]], dim=2)))
        return uv, z, heat, local


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """(h * w, 2) centres of the cells of a crop, -1 to 1 from edge to edge."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    return torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(-1, 2)


def crop_rays(uv: Tensor, K: Tensor, size_px: int) -> Tensor:
    """Viewing rays (.., J, 3) with z = 1 of crop positions uv (-1 to 1), in the virtual camera along the crop's centre.

    K (.., 3, 3) of the crop; the virtual camera is `virtual_rotation(K, size_px)` away from the crop's.
    """
    pixels = (uv + 1) * (size_px / 2) - 0.5
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, :]
    xy = (pixels - K[..., None, :2, 2]) / focal
    rays = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
    turned = rays @ virtual_rotation(K, size_px)  # row vectors: this applies the transpose
    return turned / turned[..., 2:]


def virtual_rotation(K: Tensor, size_px: int) -> Tensor:
    """R_camera_virtual (.., 3, 3): the smallest rotation of the optical axis onto the ray through the crop's centre."""
    centre = (size_px - 1) / 2
    x, y = (centre - K[..., 0, 2]) / K[..., 0, 0], (centre - K[..., 1, 2]) / K[..., 1, 1]
    norm = torch.sqrt(x * x + y * y + 1)
    a, b, c = x / norm, y / norm, 1 / norm
    k = 1 / (1 + c)
    rows = [1 - a * a * k, -a * b * k, a, -a * b * k, 1 - b * b * k, b, -a, -b, c]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


class SmallEstimator(Estimator):
    """`SmallNetwork` and the closed-form decoding into the pose of a hand model."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        self.config = config
        self.input_config = config.inputs
        self.network = SmallNetwork(config)
        self.hand: HandModel = load_hand(config.hand)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SmallEstimator:
        """What moves the weights to a device or into another type takes the hand along."""
        super()._apply(fn, recurse)
        weight = next(self.network.parameters())
        self.hand = self.hand.to(weight.device, weight.dtype)
        return self

    def initial_state(self, batch: int) -> Tensor:
        cells = self.config.inputs.size_px // 16
        weight = self.network.memory.from_state.weight
        return weight.new_zeros(batch, self.config.memory * cells * cells + self.config.recall)

    def forward(self, inputs: dict[str, Tensor], state: State) -> tuple[Prediction, State]:
        assert isinstance(state, Tensor)
        voxel = inputs["voxel"][None] if self.config.flow else None
        output, state = self.network(inputs["lnes"][None], state, voxel)
        output = each(output, lambda value: value[0])
        decoded = self.decode(output, inputs["K"])
        pose = HandPose(
            "right",
            roma.rotmat_to_rotvec(decoded.rotation),
            decoded.wrist,
            decoded.joint_rotvecs,
            output.shape,
            self.hand.name,
        )
        error = output.log_error.exp()
        confidence = torch.exp(-4 * error.mean(dim=-1))
        flow = (
            None if output.flow is None else F.interpolate(output.flow, size=inputs["lnes"].shape[-2:], mode="bilinear")
        )
        return Prediction(pose, confidence, flow, torch.exp(-4 * error)), state

    def decode(self, output: SmallOutput, K: Tensor, similarity: Similarity | None = None) -> Decoded:
        """Lay the articulated hand on the 2.5D joints: the weighted similarity transform between them, in closed form.

        The 2.5D joints over the palm's distance z are the true joints divided by z, so the scale of the transform is
        1 / z. Any leading batch dimensions; gradients flow through both sides. similarity: another way to solve it.
        """
        size = self.config.inputs.size_px
        rotvecs = self.joint_rotvecs(output.coefficients)
        zero = torch.zeros_like(rotvecs[..., 0, :])
        canonical = self.hand.with_shape(output.shape).with_pose(zero, rotvecs, zero).joints()
        rays = crop_rays(output.uv, K, size)
        half_side = size / 2 / K[..., 0, 0]
        target = rays * (1 + output.depth * half_side[..., None])[..., None]
        lead = target.shape[:-2]
        weights = torch.exp(-2 * output.log_error.detach()).clamp(max=1e4)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        rotation, offset, scale = (similarity or _similarity)(
            canonical.reshape(-1, 21, 3), target.reshape(-1, 21, 3), weights.reshape(-1, 21)
        )
        rotation, offset = rotation.reshape(*lead, 3, 3), offset.reshape(*lead, 3)
        distance = 1 / scale.reshape(lead).clamp(min=0.05)
        wrist = offset * distance[..., None]
        joints = canonical @ rotation.transpose(-1, -2) + wrist[..., None, :]
        return Decoded(canonical, rotation, wrist, joints, rotvecs)

    def joint_rotvecs(self, coefficients: Tensor) -> Tensor:
        """Rotation vectors (.., 15, 3) of coefficients in standard deviations of the hand's principal components."""
        n = self.config.pose_components
        basis = self.hand.pose_components[:n] * self.hand.pose_std[:n, None]
        return (self.hand.mean_pose + coefficients @ basis.to(coefficients)).unflatten(-1, (15, 3))

    def to_camera(self, pose: HandPose, crop: Camera, camera: Camera) -> HandPose:
        """Turn a pose of the virtual camera into the sensor's: both stand in one place, only the direction differs."""
        turn = crop_direction(crop)
        orientation = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose.orientation)).as_rotvec()
        return HandPose(
            pose.side,
            orientation.astype(np.float32),
            (turn @ pose.wrist).astype(np.float32),
            pose.joints,
            pose.shape,
            pose.hand_model,
        )


def _similarity(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted similarity (R, t, s) with target = s R source + t in the least-squares sense (Umeyama 1991)."""
    rotation, translation, scale = roma.rigid_points_registration(source, target, weights=weights, compute_scaling=True)
    return rotation, translation, scale
