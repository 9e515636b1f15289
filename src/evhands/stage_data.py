"""What a run of one of the three stages is, and what it learns from: recordings, split by subject, cut into items.

Everything that is drawn is a function of (seed, epoch), so that a run that stops goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from evhands.hand.model import load_hand
from evhands.models.paper import PaperConfig
from evhands.models.paper_stages import PARTS, Stage, StageConfig
from evhands.models.small import SmallConfig
from evhands.task import LoopConfig, Tensors
from evhands.types import InputError


@dataclass(frozen=True, kw_only=True)
class StageTrainConfig(LoopConfig):
    """A whole run of one stage; the defaults are those of the paper that all stages share."""

    stage: Stage
    model: PaperConfig | SmallConfig
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
    semi_items: float | None = None
    """Semi-supervised items for every supervised one, other ones every epoch; None = all. Where few labels are seen,
    steps would otherwise hold little else: at all labels there are about as many of one kind as of the other."""
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


def builds_on_flow(config: StageTrainConfig) -> bool:
    """Whether a run uses a flow network that an earlier stage must have trained."""
    if isinstance(config.model, SmallConfig):
        return config.model.flow and config.stage != "flow"
    return config.model.flow is not None and config.model.flow_training != "trained"


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
        if not self.dataset.config.raw_in_crop:
            return batch | {"size": torch.tensor(self.dataset.size)}
        side = self.dataset.config.crop.size_px
        return batch | {"size": torch.tensor((side, side)), "image_K": batch["crop_K"][:, 1:]}


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
    told = [r.tags for r in recordings if r.tags is not None]
    fast = sum(tags.fast and tags.subject not in config.split.test for tags in told)
    if fast and not config.split.fast and progress is not None:
        progress(
            f"{fast} fast recordings are left out: their poses are for tests (split.fast takes them nevertheless)."
        )
    train, held_out = training_sequences(parts["train"], config), validation_sequences(parts["validation"], config)
    for name, found in (("training", train), ("validation", held_out)):
        _check_labels(name, found, config)
    card = {part: [recording.folder.name for recording in chosen] for part, chosen in parts.items()}
    return train, held_out, {"recordings": card, "labels": config.labels, "split": asdict(config.split)}


def split_recordings(recordings: list[CachedRecording], split: SplitConfig) -> dict[str, list[CachedRecording]]:
    """By the subjects named; where none of those for validation is there, every tenth of the others validates."""
    everyone = split_by_subject(recordings, replace(split, fast=True))  # who validates does not hang on how hands move
    subjects = sorted({r.tags.subject for r in everyone["train"] if r.tags is not None}, key=lambda s: (len(s), s))
    if not everyone["validation"] and len(subjects) > 1:
        split = replace(split, validation=tuple(subjects[::10]))
    parts = split_by_subject(recordings, split)
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
        if config.semi_items is not None:
            wanted = min(round(config.semi_items * len(supervised)), len(semi))
            semi = semi[np.random.default_rng((config.seed, epoch, 2)).permutation(len(semi))[:wanted]]
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
        raw_windows=config.windows.outputs - 1 if {"contrast", "edge"} & set(config.weights) else 0,
        raw_in_crop=config.losses.in_crop,
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
