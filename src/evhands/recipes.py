"""What is trained and how: a recipe is a whole `TrainConfig`; a task turns rows of shards into losses and figures."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from evhands.data.shards import Pool
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.detector import STRIDE, Detector, DetectorConfig, detector_losses
from evhands.models.small import Decoded, SmallConfig, SmallEstimator, SmallOutput
from evhands.models.small_losses import SmallLossWeights, small_losses, small_target

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run. `hours` and `steps` both bound it: the learning rate falls by whichever is nearer to its end."""

    model: SmallConfig | DetectorConfig
    weights: dict[str, float]
    steps: int = 60_000
    hours: float = 1.5
    learning_rate: float = 1.8e-3
    weight_decay: float = 0.02
    warmup_steps: int = 300
    images: int = 48
    """Images a step: lengths of sequences are drawn from `windows`, and as many clips as fill them."""
    windows: tuple[int, ...] = (2, 4, 6, 10)
    average: float = 0.998
    """Decay of the averaged weights, which are the ones that are shipped."""
    clip_norm: float = 1.0
    bf16: bool = True
    """The network's convolutions in bfloat16 while training: quicker where the processor has it (AVX512-BF16, AMX, most
    GPUs). Everything else, and validation, keeps 32 bits."""
    validate_every: int = 1000
    save_every_s: float = 120.0
    seed: int = 0
    turned_share: float = 0.3
    """Share that is kept of the clips outside the frontal range, which are harder and can wait."""
    thinning: float = 0.6
    """Largest share of the pixels of a window that augmentation empties, as a sensor with a higher threshold would."""
    noise: float = 0.01
    """Largest share of the pixels that augmentation sets at random."""


class Task(nn.Module, ABC):
    """A model with its losses: `forward` of a batch gives named per-sample losses; the loop knows no more than this."""

    model: nn.Module

    @abstractmethod
    def sample(self, pool: Pool, rng: np.random.Generator) -> Tensors:
        """An augmented training batch of about `config.images` images, all drawn by `rng`."""

    @abstractmethod
    def forward(self, batch: Tensors) -> Tensors: ...

    @abstractmethod
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """Figures of merit of `model` (in evaluation mode) over all rows of a pool."""


class SmallTask(Task):
    """`small` on sequences of windows, at the stride of the clips or at twice that."""

    model: SmallEstimator

    def __init__(self, config: TrainConfig):
        super().__init__()
        assert isinstance(config.model, SmallConfig)
        self.config = config
        self.model = SmallEstimator(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sample(self, pool: Pool, rng: np.random.Generator) -> Tensors:
        count = int(rng.choice(self.config.windows))
        rows = self._drawn(pool, max(self.config.images // count, 4), rng)
        total = rows["lnes"].shape[1]
        step = 1 + int(rng.random() < 0.5 and 2 * (count - 1) < total)
        first = rng.integers(0, total - step * (count - 1))
        return self.batch(rows, first + step * np.arange(count), rng)

    def _drawn(self, pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows at random, those of turned hands more rarely."""
        rows = pool.take(rng.integers(0, len(pool), 2 * count))
        kept = frontal(rows["orientation"][:, 0]) | (rng.random(len(rows)) < self.config.turned_share)
        order = np.argsort(~kept, kind="stable")
        return rows[order[:count]]

    def batch(self, rows: np.ndarray, chosen: np.ndarray, rng: np.random.Generator | None = None) -> Tensors:
        """Tensors (T, B, ...) of the chosen windows of some rows, augmented where a generator is given."""
        lnes = rows["lnes"][:, chosen].astype(np.float32) / 255
        if rng is not None:
            lnes = augmented(lnes, rng, self.config.thinning, self.config.noise)
        values = {name: rows[name][:, chosen] for name in ("K", "joints", "orientation", "rotvecs")} | {"lnes": lnes}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(np.swapaxes(v, 0, 1))) for name, v in values.items()}
        shape = torch.from_numpy(np.ascontiguousarray(rows["shape"]))
        return tensors | {"shape": shape.expand(len(chosen), -1, -1)}

    def outputs(self, model: SmallEstimator, batch: Tensors) -> tuple[SmallOutput, Decoded]:
        lnes = batch["lnes"]
        with torch.autocast(lnes.device.type, torch.bfloat16, enabled=self.config.bf16 and model.training):
            output, _ = model.network(lnes, model.initial_state(lnes.shape[1]))
        return output, model.decode(output, batch["K"])

    def forward(self, batch: Tensors) -> Tensors:
        output, decoded = self.outputs(self.model, batch)
        target = small_target(
            batch["joints"],
            batch["orientation"],
            batch["rotvecs"],
            batch["shape"],
            batch["K"],
            self.model.input_config.size_px,
        )
        return small_losses(output, decoded, target)

    @torch.inference_mode()
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """MPJPE and PA-MPJPE in millimetres over all windows, and of the heat maps in pixels."""
        assert isinstance(model, SmallEstimator)
        errors: dict[str, list[np.ndarray]] = {"mpjpe_mm": [], "pa_mpjpe_mm": [], "uv_px": []}
        for rows in row_batches(pool, 16):
            batch = self.batch(rows, np.arange(rows["lnes"].shape[1]))
            output, decoded = self.outputs(model, batch)
            target = small_target(
                batch["joints"],
                batch["orientation"],
                batch["rotvecs"],
                batch["shape"],
                batch["K"],
                model.input_config.size_px,
            )
            predicted, truth = decoded.joints.flatten(0, 1).numpy(), target.joints.flatten(0, 1).numpy()
            errors["mpjpe_mm"].append(1000 * mpjpe(predicted, truth)["mpjpe21"])
            errors["pa_mpjpe_mm"].append(1000 * pa_mpjpe(predicted, truth)["pa_mpjpe21"])
            uv = (output.uv - target.uv).norm(dim=-1).mean(-1) * (model.input_config.size_px / 2)
            errors["uv_px"].append(uv.flatten().numpy())
        return {name: float(np.concatenate(values).mean()) for name, values in errors.items()}


class DetectorTask(Task):
    """The detector on overview pictures, mirrored left and right at random."""

    def __init__(self, config: TrainConfig):
        super().__init__()
        assert isinstance(config.model, DetectorConfig)
        self.config = config
        self.model = Detector(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sample(self, pool: Pool, rng: np.random.Generator) -> Tensors:
        return self.batch(pool.take(rng.integers(0, len(pool), self.config.images // 2)), rng)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> Tensors:
        """Overview pictures and boxes of some rows, augmented where a generator is given."""
        image = rows["overview"].reshape(-1, *rows["overview"].shape[2:]).astype(np.float32) / 255
        box = rows["box"].reshape(-1, 3).copy()
        if rng is not None:
            image = augmented(image[:, None], rng, self.config.thinning, self.config.noise)[:, 0]
            image, box = moved(image, box, rng)
        return {"image": torch.from_numpy(np.ascontiguousarray(image)), "box": torch.from_numpy(box)}

    def forward(self, batch: Tensors) -> Tensors:
        return detector_losses(self.model(batch["image"]), batch["box"])

    @torch.inference_mode()
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """Median distance of the centre in hand extents, share within half an extent, median ratio of the extent."""
        place, ratio = [], []
        for rows in row_batches(pool, 64):
            batch = self.batch(rows)
            maps, box = model(batch["image"]), batch["box"]
            cell = maps[:, 0].flatten(1).argmax(1)
            row, column = cell // maps.shape[-1], cell % maps.shape[-1]
            here = maps[torch.arange(len(maps)), :, row, column]
            centre = (torch.stack([column, row], 1) + 0.5 + here[:, 1:3]) * STRIDE - 0.5
            place.append((centre - box[:, :2]).norm(dim=1) / box[:, 2])
            ratio.append((here[:, 3] - torch.log(box[:, 2] / 16)).abs())
        distance, log_ratio = torch.cat(place), torch.cat(ratio)
        return {
            "centre_extents": float(distance.median()),
            "found_share": float((distance < 0.5).float().mean()),
            "extent_log_ratio": float(log_ratio.median()),
        }


def frontal(orientation: np.ndarray, tilt: float = 0.9, turn: float = 0.8) -> np.ndarray:
    """Which rotation vectors (n, 3) show palm or back within `tilt` rad of the axis, fingers up within `turn` rad."""
    rotation = Rotation.from_rotvec(orientation).as_matrix()
    fingers = -rotation[:, :, 0]
    upright = np.abs(np.arctan2(fingers[:, 0], -fingers[:, 1])) < turn
    return upright & (np.abs(rotation[:, 2, 1]) > np.cos(tilt))


def augmented(images: np.ndarray, rng: np.random.Generator, thinning: float, noise: float) -> np.ndarray:
    """LNES images (B, T, 2, h, w) with some pixels emptied and some set: one strength a clip, new pixels a window."""
    strength = (len(images),) + (1,) * (images.ndim - 1)
    chance = rng.random(images.shape, dtype=np.float32)
    kept = chance >= thinning * rng.random(strength, dtype=np.float32) ** 2
    added = chance > 1 - noise * rng.random(strength, dtype=np.float32) ** 3
    return np.where(added, rng.random(images.shape, dtype=np.float32), images * kept)


def moved(images: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Overview pictures and boxes shifted by up to an eighth of the picture, and half of the batches mirrored."""
    dy, dx = rng.integers(-8, 9), rng.integers(-11, 12)
    shifted = np.zeros_like(images)
    h, w = images.shape[-2:]
    shifted[..., max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = images[
        ..., max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)
    ]
    boxes = boxes + np.array([dx, dy, 0], np.float32)
    if rng.random() < 0.5:
        shifted = shifted[..., ::-1]
        boxes[:, 0] = w - 1 - boxes[:, 0]
    return shifted, boxes


def row_batches(pool: Pool, size: int) -> Iterator[np.ndarray]:
    """All rows of a pool in order."""
    for first in range(0, len(pool), size):
        yield pool.take(np.arange(first, min(first + size, len(pool))))


def small_recipe() -> TrainConfig:
    """`small`, supervised, on simulated clips."""
    return TrainConfig(model=SmallConfig(), weights=dataclasses.asdict(SmallLossWeights()))


def detector_recipe() -> TrainConfig:
    """The detector on the overview pictures of the same clips."""
    weights = {"place": 1.0, "offset": 0.5, "extent": 1.0}
    return TrainConfig(model=DetectorConfig(), weights=weights, steps=8000, hours=0.25, images=48)


RECIPES: dict[str, tuple[Callable[[], TrainConfig], type[Task]]] = {
    "small": (small_recipe, SmallTask),
    "detector": (detector_recipe, DetectorTask),
}
"""Recipe name -> (its configuration, its task)."""
