"""A network in one of the three stages, as the training loop sees it: what the stages of all networks share.

Items come in batches, whose parts (micro-batches) fit into memory and whose gradients are added.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evhands import losses
from evhands.data.items import Items
from evhands.hand.model import HandModel, load_hand, pose_hand
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.estimator import Estimator
from evhands.models.paper_stages import StageConfig
from evhands.processes import ALONE, Processes
from evhands.stage_data import Sequences, StageTrainConfig
from evhands.task import Task, Tensors, on_device_of
from evhands.types import HandPose, InputError

MAKERS = 8
"""Threads that cut the parts of a step from the recordings while a GPU works."""


@dataclass(frozen=True)
class Place:
    """How far training has come: `next` of the items of an epoch."""

    epoch: int = 0
    next: int = 0

    def state(self) -> dict[str, int]:
        """As plain numbers, to be saved with a run."""
        return asdict(self)


@dataclass(frozen=True)
class StageBatch:
    """Items of one step, not yet cut from the recordings, and who takes their parts."""

    pool: Sequences
    items: Items
    epoch: int
    processes: Processes = ALONE


class StageTask(Task):
    """A network in one of the stages."""

    def __init__(self, config: StageTrainConfig) -> None:
        super().__init__()
        self.config: StageTrainConfig = config
        self.best_by = "flow" if config.stage == "flow" else "mpjpe_mm"
        self.hand: HandModel = load_hand(config.hand)
        self.model = self.built()
        self.stage_config = replace(config.losses, weights=config.weights)

    @abstractmethod
    def built(self) -> Estimator:
        """The network, frozen where the stage does not teach it."""

    @abstractmethod
    def terms(self, model: Any, hand: HandModel, batch: Tensors, config: StageConfig) -> dict[str, losses.Term]:
        """The named losses of a batch."""

    @abstractmethod
    def poses(self, model: Any, batch: Tensors) -> HandPose:
        """The poses (b, 1) of the last windows in the camera."""

    def steps(self, pool: Sequences) -> int:
        return self.config.epochs * self.validate_every(pool) if self.config.steps is None else self.config.steps

    def validate_every(self, pool: Sequences) -> int:
        return self.config.validate_every or -(-len(pool) // self.config.batch)

    def sample(self, pool: Sequences, rng: np.random.Generator, lanes: Place | None) -> tuple[StageBatch, Place]:
        place = lanes or Place()
        order = pool.order(place.epoch)
        while place.next >= len(order):  # an epoch may have drawn no items at all
            place = Place(place.epoch + 1)
            order = pool.order(place.epoch)
        chosen = order[place.next : place.next + self.config.batch]
        batch = StageBatch(pool, pool.items(place.epoch)[chosen], place.epoch)
        return batch, replace(place, next=place.next + len(chosen))

    def restored(self, lanes: dict[str, int], pool: Sequences) -> Place:
        return Place(**lanes)

    def share(self, batch: StageBatch, processes: Processes) -> tuple[StageBatch, float]:
        return replace(batch, processes=processes), 1.0

    def parts(self, batch: StageBatch) -> Iterator[Tensors]:
        """Micro-batches; `count_*` says by how many values of the whole batch each loss is divided.

        They are those of a single process, dealt out; smaller ones where there would be too few for all. One that
        stands in where there are no more is divided by infinity.
        """
        labelled = torch.from_numpy(batch.items.label[:, -batch.pool.outputs :] >= 0)
        counts = {f"count_{name}": count for name, count in term_counts(labelled).items()}
        nothing = {name: torch.tensor(torch.inf) for name in counts}
        size = min(self.config.micro_batch, -(-len(batch.items) // batch.processes.count))
        dealt = list(batch.processes.dealt(list(in_parts(batch.items, size))))
        cut = [partial(batch.pool.tensors, items, batch.epoch) for items, _ in dealt]
        for tensors, (_, counted) in zip(self._made(cut), dealt, strict=True):
            yield tensors | (counts if counted else nothing)

    def _made(self, cut: Sequence[Callable[[], Tensors]]) -> Iterator[Tensors]:
        """What the calls give, in order; where a GPU would wait for it, by several threads at once."""
        if next(self.model.parameters()).device.type == "cpu":
            yield from (call() for call in cut)
            return
        with ThreadPoolExecutor(min(MAKERS, os.cpu_count() or 1)) as pool:
            yield from pool.map(lambda call: call(), cut)

    def forward(self, batch: Tensors) -> tuple[Tensors, None]:
        terms = self._terms(self.model, batch)
        counts = {name: batch[f"count_{counted_as(name)}"] for name in terms}
        return {n: losses.labelled_mean(term.values, term.counted, counts[n]) for n, term in terms.items()}, None

    def _terms(self, model: nn.Module, batch: Tensors) -> dict[str, losses.Term]:
        size = (int(batch["size"][0]), int(batch["size"][1]))
        config = replace(self.stage_config, size=size)
        return self.terms(model, self.hand.to(batch["lnes"].device), batch, config)

    def figures(self, model: nn.Module, pool: Sequences) -> dict[str, float]:
        """Over all labels alike: MPJPE and PA-MPJPE (21 joints) and the distance of the wrist, in millimetres; of the
        stage flow its loss, in the unit of the stage."""
        return self.validated(model, pool, ALONE)

    @torch.no_grad()
    def validated(self, model: nn.Module, pool: Sequences, processes: Processes) -> dict[str, float]:
        """`figures`, every process with its share of the items."""
        found: dict[str, list[np.ndarray]] = {}
        for items, counted in processes.dealt(list(in_parts(pool.items(0), self.config.micro_batch))):
            for name, values in self._errors(model, on_device_of(model, pool.tensors(items))).items():
                found.setdefault(name, []).append(values[: len(values) * counted])
        everyone = processes.gathered(found)
        return {name: float(np.concatenate([v for each in everyone for v in each[name]]).mean()) for name in found}

    def _errors(self, model: nn.Module, batch: Tensors) -> dict[str, np.ndarray]:
        if self.config.stage == "flow":
            term = self._terms(model, batch)["flow"]
            return {"flow": term.values[term.counted].double().cpu().numpy()}
        joints = pose_hand(self.hand.to(batch["K"].device), self.poses(model, batch)).joints()[:, 0].cpu().numpy()
        truth = batch["joints_m"][:, -1].cpu().numpy()
        return {
            "mpjpe_mm": 1000 * mpjpe(joints, truth)["mpjpe21"],
            "pa_mpjpe_mm": 1000 * pa_mpjpe(joints, truth)["pa_mpjpe21"],
            "wrist_mm": 1000 * np.linalg.norm(joints[:, 0] - truth[:, 0], axis=-1),
        }


def term_counts(labelled: Tensor) -> dict[str, Tensor]:
    """How many values of each loss count in a batch, from its labels (b, a) alone: what `losses.term_counts` says, but
    for sequences whose edges meet no bright pixel: they count here, with an edge loss of zero."""
    sequences, outputs = labelled.shape
    return {
        "labels": labelled.sum(),
        "flow": (labelled[:, 1:] & labelled[:, :-1]).sum(),
        "contrast": torch.tensor(sequences * (outputs - 1)),
        "edge": (~labelled).any(1).sum(),
        "smooth": torch.tensor(sequences),
    }


def counted_as(name: str) -> str:
    """Under which name of `term_counts` the values of a loss are counted."""
    return name if name in ("flow", "contrast", "edge", "smooth") else "labels"


def in_parts(items: Items, size: int) -> Iterator[Items]:
    """All items in order, `size` at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def check_hand(found: str, wanted: str) -> None:
    """InputError where a model to begin with is of another hand model than the run."""
    if found != wanted:
        raise InputError(
            f"The model to begin with is of the hand model {found!r}, wanted {wanted!r}: choose another, or set hand."
        )
