"""The paper's three stages of training as recipes: `flow`, `supervised`, `semi` (EvHandPose, specification section 5).

They learn from recordings: read into the cache, split by subject, cut into items, and these in batches, whose parts
(micro-batches) fit into memory and whose gradients are added. Everything that is drawn is a function of (seed, epoch),
so that a run that stops goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evhands import losses
from evhands.data.augment import AugmentConfig
from evhands.data.cache import CachedRecording, cache_recordings, sources_in
from evhands.data.crops import CropConfig
from evhands.data.dataset import BatchConfig, SequenceBatch, SequenceDataset
from evhands.data.items import (
    EvaluationConfig,
    Items,
    SplitConfig,
    WindowConfig,
    evaluation_items,
    kept_labels,
    semi_supervised_items,
    split_by_subject,
    supervised_items,
)
from evhands.hand.model import HandModel, load_hand, pose_hand
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.paper import PaperConfig, PaperEstimator
from evhands.models.paper_stages import PARTS, STAGE_WEIGHTS, Stage, StageConfig, in_camera, stage_losses
from evhands.processes import ALONE, Processes
from evhands.recipes import LoopConfig, Task, Tensors, on_device_of
from evhands.types import InputError


@dataclass(frozen=True, kw_only=True)
class StageTrainConfig(LoopConfig):
    """A whole run of one stage; the defaults are those of the paper that all stages share."""

    stage: Stage
    model: PaperConfig
    hand: str = "open"
    """The hand model that the labels are of: open, or the path of MANO_RIGHT.pkl."""
    epochs: int
    """Where `steps` does not say how long; an epoch has the steps that the items of the first one take."""
    batch: int
    """Items a step."""
    micro_batch: int = 4
    """Items that go through the network together; its batch norms see so many."""
    labels: float = 1.0
    """Share of the annotations that training may see."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    losses: StageConfig = field(default_factory=StageConfig)
    """How they are computed; the size of the image is that of the data, the weights are `weights`."""
    optimizer: Any = "adam"
    schedule: Any = "constant"
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    average: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = 1.0
    validate_every: int | None = None
    save_every_s: float = 600.0


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


# --- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequences:
    """The items of some recordings, epoch by epoch."""

    dataset: SequenceDataset
    items: Callable[[int], Items]
    outputs: int
    seed: int = 0

    def __len__(self) -> int:
        return len(self.items(0))

    def refresh(self) -> int:
        """Recordings do not become more while a run goes on."""
        return len(self)

    def order(self, epoch: int) -> np.ndarray:
        """The items of an epoch in the order in which training sees them."""
        return np.random.default_rng((self.seed, epoch, 1)).permutation(len(self.items(epoch)))

    def tensors(self, items: Items, epoch: int = 0) -> Tensors:
        """A batch as `stage_losses` takes it, the true `joints_m` (b, a, 21, 3) and the `size` of the image."""
        batch = stage_batch(self.dataset.batch(items, seed=self.seed, epoch=epoch), self.outputs)
        return batch | {"size": torch.tensor(self.dataset.size)}


def stage_batch(batch: SequenceBatch, outputs: int) -> Tensors:
    """A batch of the data path in the terms of the stages; its last `outputs` windows have an output."""
    last = slice(-outputs, None)
    arrays: dict[str, Any] = {name: getattr(batch, name) for name in ("lnes", "voxel", "K", "image_K")}
    arrays |= {name: getattr(batch, name)[:, last] for name in (*PARTS, "crop_K", "joints_m")}
    arrays["labelled"] = batch.posed[:, last]
    arrays |= {f"event_{name}": getattr(batch.raw, name) for name in ("x", "y", "t", "p", "offsets")}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}


def stage_data(
    folders: Sequence[Path], cache: Path, config: StageTrainConfig, progress: Callable[[str], None] | None = None
) -> tuple[Sequences, Sequences, dict[str, Any]]:
    """What a stage learns from, what it is validated on, and a card of both, from folders of recordings.

    InputError names folders without recordings, recordings that cannot be read, and what has no labels to learn from.
    """
    hand = None if config.hand == "open" else load_hand(config.hand)
    sources = [source for folder in folders for source in sources_in(folder)]
    recordings = cache_recordings(sources, cache, hand=hand, progress=progress)
    parts = split_recordings(recordings, config.split)
    train, held_out = training_sequences(parts["train"], config), validation_sequences(parts["validation"], config)
    for name, found in (("training", train), ("validation", held_out)):
        _check_labels(name, found, config)
    card = {part: [recording.folder.name for recording in chosen] for part, chosen in parts.items()}
    return train, held_out, {"recordings": card, "labels": config.labels, "split": asdict(config.split)}


def split_recordings(recordings: list[CachedRecording], split: SplitConfig) -> dict[str, list[CachedRecording]]:
    """By the subjects named; where none of those for validation is there, every tenth of the others validates."""
    parts = split_by_subject(recordings, split)
    subjects = sorted({r.tags.subject for r in parts["train"] if r.tags is not None}, key=lambda s: (len(s), s))
    if not parts["validation"] and len(subjects) > 1:
        parts = split_by_subject(recordings, replace(split, validation=tuple(subjects[::10])))
    if not parts["train"] or not parts["validation"]:
        found = sorted({r.tags.subject for r in recordings if r.tags is not None})
        raise InputError(
            f"Found recordings of the subjects {', '.join(found)}, {len(parts['train'])} to train on and "
            f"{len(parts['validation'])} to validate on. Wanted some of both, from different subjects: give more "
            "recordings, or set split.validation and split.test."
        )
    return parts


def training_sequences(recordings: list[CachedRecording], config: StageTrainConfig) -> Sequences:
    """Supervised items; in the stage semi mixed with semi-supervised ones, which every epoch draws anew."""
    kept = kept_labels(recordings, config.labels, config.seed)
    supervised = supervised_items(recordings, config.windows, kept)

    @lru_cache(maxsize=2)
    def items(epoch: int) -> Items:
        if config.stage != "semi":
            return supervised
        semi = semi_supervised_items(recordings, config.windows, seed=config.seed, epoch=epoch, kept=kept)
        return Items.concatenate([supervised, semi], config.windows.windows)

    dataset = SequenceDataset(recordings, _batches(config, config.augment))
    return Sequences(dataset, items, config.windows.outputs, config.seed)


def validation_sequences(recordings: list[CachedRecording], config: StageTrainConfig) -> Sequences:
    """All of validation, not augmented: windows that end at a label, as evaluation cuts them; of the stage flow the
    supervised items."""
    if config.stage == "flow":
        chosen, outputs = supervised_items(recordings, config.windows), config.windows.outputs
    else:
        every, outputs = evaluation_items(recordings, config.evaluation), 1
        chosen = every[_in_space(recordings, every)]
    dataset = SequenceDataset(recordings, _batches(config, None))
    return Sequences(dataset, lambda epoch: chosen, outputs, config.seed)


def _in_space(recordings: list[CachedRecording], items: Items) -> np.ndarray:
    """Which items end at a label with joints in space."""
    known = [np.append(np.isfinite(r.labels.joints_m).all((1, 2)), False) for r in recordings]
    return np.array([known[r][row] for r, row in zip(items.recording, items.label[:, -1])], bool)


def _batches(config: StageTrainConfig, augment: AugmentConfig | None) -> BatchConfig:
    inputs = config.model.inputs
    return BatchConfig(
        crop=CropConfig(size_px=inputs.size_px, scale=inputs.crop_scale),
        augment=augment,
        voxel_bins=inputs.voxel_bins,
        raw_windows=config.windows.outputs - 1,
        most_events=config.losses.most_events,
    )


def _check_labels(name: str, found: Sequences, config: StageTrainConfig) -> None:
    hand, names = _hand_name(config), ", ".join(recording.name for recording in found.dataset.recordings[:8])
    if not np.any(found.items(0).label >= 0):
        raise InputError(
            f"Found no labelled item for {name} in {len(found.dataset.recordings)} recordings ({names}). Wanted "
            f"labels of a hand model {config.windows.window_us / 1000:.1f} ms apart after a history of "
            f"{config.windows.windows} windows: give longer recordings labelled so, a larger share of labels, or set "
            "windows.window_us."
        )
    if found.dataset.hand_model != hand:
        raise InputError(
            f"The recordings for {name} ({names}) are labelled with the hand model {found.dataset.hand_model!r}, the "
            f"run has {hand!r}. Wanted one: set hand to open, or to the path of MANO_RIGHT.pkl."
        )


def _hand_name(config: StageTrainConfig) -> str:
    return "open" if config.hand == "open" else load_hand(config.hand).name


# --- the task -------------------------------------------------------------------------------------------------------


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
    """`paper` in one of its stages that teach poses."""

    model: PaperEstimator
    model_name = "paper"
    best_by = "mpjpe_mm"

    def __init__(self, config: StageTrainConfig) -> None:
        super().__init__()
        self.config: StageTrainConfig = config
        self.hand: HandModel = load_hand(config.hand)
        self.model = PaperEstimator(replace(config.model, hand_model=self.hand.name)).use_hand(self.hand)
        if config.stage == "flow":
            self.model.pose.requires_grad_(False)
        self.stage_config = replace(config.losses, weights=config.weights)

    def steps(self, pool: Sequences) -> int:
        return self.config.epochs * self.validate_every(pool) if self.config.steps is None else self.config.steps

    def validate_every(self, pool: Sequences) -> int:
        return self.config.validate_every or -(-len(pool) // self.config.batch)

    def begin_with(self, start: nn.Module) -> None:
        assert isinstance(start, PaperEstimator)
        if start.config.hand_model != self.model.config.hand_model:
            raise InputError(
                f"The model to begin with is of the hand model {start.config.hand_model!r}, wanted "
                f"{self.model.config.hand_model!r}: choose another, or set hand."
            )
        super().begin_with(start)

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
        for items, counted in batch.processes.dealt(list(in_parts(batch.items, size))):
            yield batch.pool.tensors(items, batch.epoch) | (counts if counted else nothing)

    def forward(self, batch: Tensors) -> tuple[Tensors, None]:
        terms = self._terms(self.model, batch)
        counts = {name: batch[f"count_{name.partition('_')[0]}"] for name in terms}
        return {n: losses.labelled_mean(term.values, term.counted, counts[n]) for n, term in terms.items()}, None

    def _terms(self, model: PaperEstimator, batch: Tensors) -> dict[str, losses.Term]:
        size = (int(batch["size"][0]), int(batch["size"][1]))
        config = replace(self.stage_config, size=size)
        return stage_losses(model, self.hand.to(batch["lnes"].device), batch, self.config.stage, config)

    def figures(self, model: nn.Module, pool: Sequences) -> dict[str, float]:
        """Over all labels alike: MPJPE and PA-MPJPE (21 joints) and the distance of the wrist, in millimetres; of the
        stage flow its loss, in the unit of the stage."""
        return self.validated(model, pool, ALONE)

    @torch.no_grad()
    def validated(self, model: nn.Module, pool: Sequences, processes: Processes) -> dict[str, float]:
        """`figures`, every process with its share of the items."""
        assert isinstance(model, PaperEstimator)
        found: dict[str, list[np.ndarray]] = {}
        for items, counted in processes.dealt(list(in_parts(pool.items(0), self.config.micro_batch))):
            for name, values in self._errors(model, on_device_of(model, pool.tensors(items))).items():
                found.setdefault(name, []).append(values[: len(values) * counted])
        everyone = processes.gathered(found)
        return {name: float(np.concatenate([v for each in everyone for v in each[name]]).mean()) for name in found}

    def _errors(self, model: PaperEstimator, batch: Tensors) -> dict[str, np.ndarray]:
        if self.config.stage == "flow":
            term = self._terms(model, batch)["flow"]
            return {"flow": term.values[term.counted].double().cpu().numpy()}
        pose = model(batch)[0].pose
        pose = replace(pose, **{name: getattr(pose, name)[:, -1:] for name in PARTS})
        pose = in_camera(model, pose, batch["crop_K"], batch["K"])
        joints = pose_hand(self.hand.to(batch["K"].device), pose).joints()[:, 0].cpu().numpy()
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
    labels = labelled.sum()
    return {
        "joint": labels,
        "parameter": labels,
        "flow": (labelled[:, 1:] & labelled[:, :-1]).sum(),
        "contrast": torch.tensor(sequences * (outputs - 1)),
        "edge": (~labelled).any(1).sum(),
        "smooth": torch.tensor(sequences),
    }


def in_parts(items: Items, size: int) -> Iterator[Items]:
    """All items in order, `size` at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


class FlowTask(StageTask):
    """`paper` in its first stage, whose pose network nobody trains."""

    best_by = "flow"


PAPER_RECIPES: dict[str, tuple[Callable[[], Any], type[Task]]] = {
    "flow": (flow_recipe, FlowTask),
    "supervised": (supervised_recipe, StageTask),
    "semi": (semi_recipe, StageTask),
}
"""Recipe name -> (its configuration, its task)."""
