"""What every estimator of this toolbox is: a network from the images of a crop to a hand pose, with its memory passed
in and out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evhands.inputs import InputConfig, crop_inputs, mirror_images
from evhands.stopwatch import part
from evhands.types import Camera, EventWindow, HandPose, Prediction, Side

State = Tensor | tuple[Tensor, ...] | None


class Estimator(nn.Module, ABC):
    """A network that reads the images of crops and says the pose of one hand.

    `forward` speaks in the crop's camera; `to_camera` alone maps its poses to the camera that the crop was cut from.
    """

    input_config: InputConfig

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The memory before the first window of `batch` tracks."""

    @abstractmethod
    def forward(self, inputs: dict[str, Tensor], state: State) -> tuple[Prediction, State]:
        """Poses of `b` crops in their own cameras, and the memory after them. Inputs as
        `evhands.inputs.crop_inputs`."""

    @abstractmethod
    def to_camera(self, pose: HandPose, crop: Camera, camera: Camera) -> HandPose:
        """The pose (numpy, no batch) of a crop's camera in the camera that the crop was cut from."""

    def for_inference(self) -> Estimator:
        """Whatever makes single windows quicker and changes no result, done in place."""
        return self

    @torch.no_grad()  # not inference_mode: constants that are kept from it would spoil a later training
    def predict(
        self, window: EventWindow, camera: Camera, crop: Camera, state: State, side: Side = "right"
    ) -> tuple[Prediction, State]:
        """One window of one track: numpy `Prediction` in the frame of `camera`, without a batch dimension.

        Networks here know right hands: for a left one the crop is mirrored in, the pose mirrored back.
        """
        with part("representation"):
            images = crop_inputs([window], camera, [crop], self.input_config)
            if side == "left":
                images = mirror_images(images)
            inputs = {name: torch.from_numpy(value) for name, value in images.items()}
        device = next(self.parameters()).device
        with part("network"):
            prediction, state = self({name: value.to(device) for name, value in inputs.items()}, state)
        if side == "left":
            prediction = _mirrored(prediction)
        names = ("orientation", "wrist", "joints", "shape")
        arrays = {name: getattr(prediction.pose, name)[0].cpu().numpy() for name in names}
        pose = HandPose(side, **arrays, hand_model=prediction.pose.hand_model)
        flow = None if prediction.flow is None else prediction.flow[0].cpu().numpy()
        joints = None if prediction.joint_confidence is None else prediction.joint_confidence[0].cpu().numpy()
        confidence = prediction.confidence[0].cpu().numpy()
        return Prediction(self.to_camera(pose, crop, camera), confidence, flow, joints), state


def mirror_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same crops seen in a mirror: images flipped about the vertical axis, the principal point with them."""
    K = inputs["K"].clone()
    K[:, 0, 2] = inputs["lnes"].shape[-1] - 1 - K[:, 0, 2]
    return {name: K if name == "K" else value.flip(-1) for name, value in inputs.items()}


def mirrored(pose: HandPose) -> HandPose:
    """A right hand (numpy or torch) as the left one that is its mirror image in x = 0 of the camera."""
    turn: Any = np.array((1.0, -1.0, -1.0), np.float32)  # x -> -x: rotation vectors are axial
    place: Any = np.array((-1.0, 1.0, 1.0), np.float32)
    if isinstance(pose.wrist, Tensor):
        turn, place = (torch.from_numpy(v).to(pose.wrist) for v in (turn, place))
    return HandPose(
        "left", pose.orientation * turn, pose.wrist * place, pose.joints * turn, pose.shape, pose.hand_model
    )


def _mirrored(prediction: Prediction) -> Prediction:
    flow = None
    if prediction.flow is not None:
        flow = prediction.flow.flip(-1) * prediction.flow.new_tensor((-1.0, 1.0))[:, None, None]
    return replace(prediction, pose=mirrored(prediction.pose), flow=flow)
