"""The paper's three stages of training as recipes: `flow`, `supervised`, `semi` (EvHandPose, specification 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from evhands import losses
from evhands.data.items import WindowConfig
from evhands.hand.model import HandModel
from evhands.models.paper import PaperConfig, PaperEstimator
from evhands.models.paper_stages import PARTS, STAGE_WEIGHTS, StageConfig, in_camera, stage_losses
from evhands.stage_data import StageTrainConfig
from evhands.stage_task import StageTask, check_hand
from evhands.task import Task, Tensors
from evhands.types import HandPose


def flow_recipe() -> StageTrainConfig:
    """The FlowNet learns the hand flow of true poses."""
    model = PaperConfig(flow_training="trained")
    weights = dict(STAGE_WEIGHTS["flow"])
    return StageTrainConfig(stage="flow", model=model, weights=weights, epochs=20, batch=16, learning_rate=5e-4)


def supervised_recipe() -> StageTrainConfig:
    """The pose network learns the labels; the FlowNet is frozen, its batch norms too."""
    weights = dict(STAGE_WEIGHTS["supervised"])
    model = PaperConfig()
    return StageTrainConfig(stage="supervised", model=model, weights=weights, epochs=40, batch=32, learning_rate=5e-4)


def semi_recipe() -> StageTrainConfig:
    """... and what events say: of windows between labels, and of annotations whose label is withheld."""
    windows, weights = WindowConfig(unlabelled=True), dict(STAGE_WEIGHTS["semi"])
    return StageTrainConfig(
        stage="semi", model=PaperConfig(), weights=weights, epochs=40, batch=32, learning_rate=5e-5, windows=windows
    )


class PaperTask(StageTask):
    """`paper` in one of its stages."""

    model: PaperEstimator
    model_name = "paper"

    def built(self) -> PaperEstimator:
        assert isinstance(self.config.model, PaperConfig)
        model = PaperEstimator(replace(self.config.model, hand_model=self.hand.name)).use_hand(self.hand)
        if self.config.stage == "flow":
            model.pose.requires_grad_(False)
        return model

    def begin_with(self, start: nn.Module) -> None:
        assert isinstance(start, PaperEstimator)
        check_hand(start.config.hand_model, self.model.config.hand_model)
        super().begin_with(start)

    def terms(self, model: Any, hand: HandModel, batch: Tensors, config: StageConfig) -> dict[str, losses.Term]:
        return stage_losses(model, hand, batch, self.config.stage, config)

    def poses(self, model: Any, batch: Tensors) -> HandPose:
        pose = model(batch)[0].pose
        last = replace(pose, **{name: getattr(pose, name)[:, -1:] for name in PARTS})
        return in_camera(model, last, batch["crop_K"], batch["K"])


PAPER_RECIPES: dict[str, tuple[Callable[[], Any], type[Task]]] = {
    "flow": (flow_recipe, PaperTask),
    "supervised": (supervised_recipe, PaperTask),
    "semi": (semi_recipe, PaperTask),
}
"""Recipe name -> (its configuration, its task)."""
