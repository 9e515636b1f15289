"""The three stages of training for `small`: `small-flow`, `small-supervised`, `small-semi`, on recordings.

Items and validation are those of the paper's stages (`stage_data`, `stage_task`); the losses of poses are those of
`small`, and what events say is computed in the crops of the windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from evhands import losses
from evhands.data.augment import AugmentConfig
from evhands.data.items import EvaluationConfig, WindowConfig
from evhands.hand.model import HandModel
from evhands.inputs import InputConfig
from evhands.models.paper_stages import StageConfig
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.models.small_stages import SMALL_STAGE_WEIGHTS, pose_in_camera, run_windows, small_stage_losses
from evhands.recipes import SmallTask
from evhands.stage_data import StageTrainConfig
from evhands.stage_task import StageTask, check_hand
from evhands.task import Task, Tensors, quick_bfloat16
from evhands.types import HandPose, InputError

STAGE_INPUTS = InputConfig(stride_us=66_667, voxel_bins=5)
"""Windows end to end that are not begun earlier: hand flow is that of the window and no longer."""
STAGE_AUGMENT = AugmentConfig(noise=0.0)
"""Without noise on every pixel, which no sensor makes."""


@dataclass(frozen=True, kw_only=True)
class SmallStageConfig(StageTrainConfig):
    """A whole run of one stage of `small`."""

    model: SmallConfig = field(default_factory=lambda: SmallConfig(inputs=STAGE_INPUTS, recall=256, flow=True))
    epochs: int = 20
    batch: int = 12
    micro_batch: int = 12
    windows: WindowConfig = field(default_factory=lambda: WindowConfig(windows=8))
    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(windows=8, history_us=8 * 66_667))
    augment: AugmentConfig | None = STAGE_AUGMENT
    losses: StageConfig = field(default_factory=lambda: StageConfig(in_crop=True, most_events=4000))
    bf16: bool | None = None
    """The network's convolutions in bfloat16 while training; None = where the processor or GPU has it."""
    optimizer: Any = "adamw"
    schedule: Any = "cosine"
    weight_decay: float = 0.02
    warmup_steps: int = 100
    average: float = 0.998
    clip_norm: float | None = 1.0
    clip_value: float | None = None


def small_flow_recipe() -> SmallStageConfig:
    """The light flow branch learns the hand flow of true poses; nothing else changes."""
    return SmallStageConfig(stage="flow", weights=dict(SMALL_STAGE_WEIGHTS["flow"]), learning_rate=2e-3)


def small_supervised_recipe() -> SmallStageConfig:
    """The network learns the labels; features and flow of the branch are frozen, its way into the encoder is not."""
    return SmallStageConfig(stage="supervised", weights=dict(SMALL_STAGE_WEIGHTS["supervised"]), learning_rate=1e-3)


def small_semi_recipe() -> SmallStageConfig:
    """... and what events say, as many semi-supervised items as supervised ones."""
    return SmallStageConfig(
        stage="semi",
        weights=dict(SMALL_STAGE_WEIGHTS["semi"]),
        learning_rate=5e-4,
        windows=WindowConfig(windows=8, unlabelled=True),
        semi_items=1.0,
    )


class SmallStageTask(StageTask):
    """`small` in one of the stages."""

    config: SmallStageConfig
    model: SmallEstimator
    model_name = "small"
    added = (*SmallTask.added, "network.flow.")

    def built(self) -> SmallEstimator:
        config = replace(self.config.model, hand=self.config.hand)
        if self.config.stage == "flow" and not config.flow:
            raise InputError("The stage flow trains the flow branch. Wanted model.flow to be true; correct it.")
        model = SmallEstimator(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.requires_grad_(self.config.stage != "flow")
        if model.network.flow is not None:
            model.network.flow.requires_grad_(self.config.stage == "flow")
            model.network.flow.out.requires_grad_(self.config.stage != "flow")
        return model

    def train(self, mode: bool = True) -> SmallStageTask:
        """Batch norms of what is frozen keep what they know."""
        super().train(mode)
        branch = self.model.network.flow
        if self.config.stage == "flow":
            self.model.eval()
        if branch is not None:
            branch.train(mode and self.config.stage == "flow")
        return self

    def begin_with(self, start: nn.Module) -> None:
        assert isinstance(start, SmallEstimator)
        check_hand(start.config.hand, self.model.config.hand)
        super().begin_with(start)

    def terms(self, model: Any, hand: HandModel, batch: Tensors, config: StageConfig) -> dict[str, losses.Term]:
        bf16 = quick_bfloat16(batch["lnes"].device) if self.config.bf16 is None else self.config.bf16
        config = replace(config, bf16=bf16 and model.training)
        return small_stage_losses(model, hand, batch, self.config.stage, config)

    def poses(self, model: Any, batch: Tensors) -> HandPose:
        return pose_in_camera(model, *run_windows(model, batch, 1), batch["crop_K"][:, -1:])


SMALL_STAGE_RECIPES: dict[str, tuple[Callable[[], Any], type[Task]]] = {
    "small-flow": (small_flow_recipe, SmallStageTask),
    "small-supervised": (small_supervised_recipe, SmallStageTask),
    "small-semi": (small_semi_recipe, SmallStageTask),
}
"""Recipe name -> (its configuration, its task)."""
