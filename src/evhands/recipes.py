"""What is trained and how: a recipe is a whole config; a task turns data into losses and figures.

Here are the recipes of `small` and of the detector, on rows of shards; those of the paper's stages are in
`paper_recipes`, those of `small` on recordings in `small_recipes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evhands.data.device_rows import DeviceRows, augmented_on_device, recropped_on_device
from evhands.data.lanes import Lanes
from evhands.data.recrop import recropped
from evhands.data.row_augment import augmented, moved
from evhands.data.shards import Pool, ShardPool, drawn
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.detector import (
    STRIDE,
    Detector,
    DetectorConfig,
    detector_losses,
    hand_in,
    image_size,
    place_weights,
)
from evhands.models.recogniser import Recogniser, RecogniserConfig, recogniser_losses
from evhands.models.small import Decoded, SmallConfig, SmallEstimator, SmallOutput
from evhands.models.small_losses import SmallLossWeights, SmallTarget, small_losses, small_target
from evhands.processes import Processes
from evhands.task import LoopConfig, Task, Tensors, on_device_of, quick_bfloat16
from evhands.types import InputError


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """A whole run of `small`, the detector or the recogniser."""

    model: SmallConfig | DetectorConfig | RecogniserConfig
    steps: int = 60_000
    hours: float = 1.5
    learning_rate: float = 1.8e-3
    weight_decay: float = 0.02
    images: int = 96
    """Images a step."""
    windows: int = 12
    """Windows of a clip that a step looks at and sends gradients through. The next step goes on in the same clips with
    the memory that this one left (truncated backpropagation through time), so that what a still finger looked like
    when it last moved must be remembered, as in tracking."""
    bf16: bool | None = None
    """The network's convolutions in bfloat16 while training; None = where the processor or GPU has it (elsewhere it is
    imitated, eight times slower than 32 bits). Everything else, and validation, keeps 32 bits."""
    thinning: float = 0.6
    """Largest share of the pixels of a window that augmentation empties, as a sensor with a higher threshold would."""
    noise: float = 0.01
    """Largest share of the pixels that augmentation sets at random."""
    zoom: float = 0.3
    shift: float = 0.06
    """Each clip is seen through a crop of another size (standard deviation of its binary logarithm) that lies
    elsewhere (in crop sides): a tracker's crops are far less sure than the jitter of the shards."""


def _autocast(config: TrainConfig, device: torch.device, training: bool) -> torch.autocast:
    """bfloat16 where a run trains in it."""
    bf16 = quick_bfloat16(device) if config.bf16 is None else config.bf16
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and training)


class SmallTask(Task):
    """`small` on sequences of windows, at the stride of the clips or at twice that."""

    model: SmallEstimator
    model_name = "small"
    best_by = "mpjpe_mm"
    added = ("network.recall.",)

    def __init__(self, config: TrainConfig):
        super().__init__()
        assert isinstance(config.model, SmallConfig)
        self.config = config
        self.model = SmallEstimator(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sample(self, pool: Pool, rng: np.random.Generator, lanes: Lanes | None) -> tuple[Tensors, Lanes]:
        lanes = self._advanced(pool, rng, lanes)
        chosen = lanes.next[:, None] + lanes.stride[:, None] * np.arange(self.config.windows)
        if isinstance(pool, DeviceRows):
            batch = self._device_batch(pool, lanes, chosen, rng)
        else:
            batch = self.batch(lanes.rows, chosen, rng, lanes.crops)
        batch["memory"] = lanes.memory
        return batch, dataclasses.replace(lanes, next=chosen[:, -1] + lanes.stride)

    def placed(self, pool: Any, device: torch.device) -> Any:
        return DeviceRows(pool, device) if device.type == "cuda" and isinstance(pool, ShardPool) else pool

    def share(self, batch: Tensors, processes: Processes) -> tuple[Tensors, float]:
        memory, rest = batch["memory"], {name: value for name, value in batch.items() if name != "memory"}
        own = processes.share(len(memory))
        shared = {name: value[:, own] for name, value in rest.items()} | {"memory": memory[own]}
        return shared, (own.stop - own.start) / len(memory)

    def restored(self, lanes: Tensors, pool: Pool) -> Lanes:
        return Lanes.of(lanes, pool.take(np.array([0])).dtype)

    def _advanced(self, pool: Pool, rng: np.random.Generator, lanes: Lanes | None) -> Lanes:
        """The lanes of the next step: a clip without enough windows left gives way to one drawn anew.

        At first the lanes begin anywhere in their clips, so that they do not end together.
        """
        length = self.config.windows
        if lanes is None:
            count = max(self.config.images // length, 2)
            rows, stride = pool.take(rng.integers(0, len(pool), count)), _strides(rng, count)
            last = _clip_windows(pool, rows) - stride * (length - 1)
            return Lanes(rows, rng.integers(0, last), stride, self.model.initial_state(count), self._crops(rng, count))
        ended = np.flatnonzero(lanes.next + lanes.stride * (length - 1) >= _clip_windows(pool, lanes.rows))
        rows, next_, stride, memory = lanes.rows.copy(), lanes.next.copy(), lanes.stride.copy(), lanes.memory.clone()
        crops = lanes.crops.copy()
        if len(ended):
            rows[ended] = pool.take(rng.integers(0, len(pool), len(ended)))
            next_[ended], stride[ended], memory[ended] = 0, _strides(rng, len(ended)), 0.0
            crops[ended] = self._crops(rng, len(ended))
        return Lanes(rows, next_, stride, memory, crops)

    def _crops(self, rng: np.random.Generator, count: int) -> np.ndarray:
        size = np.exp2(self.config.zoom * rng.standard_normal((count, 1)))
        return np.hstack([size, self.config.shift * rng.standard_normal((count, 2))])

    def batch(
        self, rows: np.ndarray, chosen: np.ndarray, rng: np.random.Generator | None = None,
        crops: np.ndarray | None = None,
    ) -> Tensors:  # fmt: skip
        """Tensors (T, B, ...) of the windows `chosen` (B, T) of some rows, augmented where a generator is given and
        seen through other crops (B, 3) where these are."""
        lane = np.arange(len(rows))[:, None]
        lnes, K = rows["lnes"][lane, chosen], rows["K"][lane, chosen]
        if crops is not None:
            lnes, K = recropped(lnes, K, crops)
        lnes = lnes.astype(np.float32) / 255
        if rng is not None:
            lnes = augmented(lnes, rng, self.config.thinning, self.config.noise)
        values = {name: rows[name][lane, chosen] for name in ("joints", "orientation", "rotvecs")}
        values |= {"K": K, "lnes": lnes}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(np.swapaxes(v, 0, 1))) for name, v in values.items()}
        shape = torch.from_numpy(np.ascontiguousarray(rows["shape"]))
        return tensors | {"shape": shape.expand(chosen.shape[1], -1, -1)}

    def _device_batch(self, pool: DeviceRows, lanes: Lanes, chosen: np.ndarray, rng: np.random.Generator) -> Tensors:
        """As `batch`, of rows that are on a GPU; all is done there."""
        values = pool.windows_of(lanes.rows, chosen)
        shape = values.pop("shape")
        lnes, values["K"] = recropped_on_device(values["lnes"], values["K"], lanes.crops)
        generator = torch.Generator(lnes.device).manual_seed(int(rng.integers(2**62)))
        values["lnes"] = augmented_on_device(lnes.float() / 255, generator, self.config.thinning, self.config.noise)
        tensors = {name: value.transpose(0, 1).contiguous() for name, value in values.items()}
        return tensors | {"shape": shape.expand(chosen.shape[1], -1, -1)}

    def outputs(self, model: SmallEstimator, batch: Tensors) -> tuple[SmallOutput, Decoded, Tensor]:
        """What the network says, the hand laid on it, and the memory it leaves."""
        lnes = batch["lnes"]
        memory = batch["memory"] if "memory" in batch else model.initial_state(lnes.shape[1])
        with _autocast(self.config, lnes.device, model.training):
            output, memory = model.network(lnes, memory)
        return output, model.decode(output, batch["K"]), memory.detach()

    def forward(self, batch: Tensors) -> tuple[Tensors, Tensor]:
        output, decoded, memory = self.outputs(self.model, batch)
        return small_losses(output, decoded, self._target(self.model, batch)), memory

    def _target(self, model: SmallEstimator, batch: Tensors) -> SmallTarget:
        return small_target(
            batch["joints"], batch["orientation"], batch["rotvecs"], batch["shape"], batch["K"],
            model.input_config.size_px,
        )  # fmt: skip

    @torch.no_grad()
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """MPJPE and PA-MPJPE in millimetres over all windows of all clips, memory carried through each, of hands in
        the frontal range and of turned ones; and the error of the heat maps in pixels of the crop."""
        assert isinstance(model, SmallEstimator)
        errors: dict[str, list[np.ndarray]] = {"mpjpe_mm": [], "pa_mpjpe_mm": [], "uv_px": []}
        turned = []
        together = 4 if next(model.parameters()).device.type == "cpu" else 16
        for rows in row_batches(pool, together):
            windows = rows["lnes"].shape[1]
            batch = on_device_of(model, self.batch(rows, np.tile(np.arange(windows), (len(rows), 1))))
            output, decoded, _ = self.outputs(model, batch)
            target = self._target(model, batch)
            predicted, truth = (each.joints.flatten(0, 1).cpu().numpy() for each in (decoded, target))
            errors["mpjpe_mm"].append(1000 * mpjpe(predicted, truth)["mpjpe21"])
            errors["pa_mpjpe_mm"].append(1000 * pa_mpjpe(predicted, truth)["pa_mpjpe21"])
            uv = (output.uv - target.uv).norm(dim=-1).mean(-1) * (model.input_config.size_px / 2)
            errors["uv_px"].append(uv.flatten().cpu().numpy())
            turned.append(np.tile(rows["turned"] > 0, windows))
        return _by_range({name: np.concatenate(values) for name, values in errors.items()}, np.concatenate(turned))


def _by_range(errors: dict[str, np.ndarray], turned: np.ndarray) -> dict[str, float]:
    """Means of all errors, those of the frontal range under the plain name, NaN where there is none."""
    return {
        f"{prefix}{name}": float(values[chosen].mean()) if chosen.any() else float("nan")
        for prefix, chosen in (("", ~turned), ("free_", turned))
        for name, values in errors.items()
    }


def _clip_windows(pool: Pool, rows: np.ndarray) -> int:
    """Windows of the clips of a pool, of which some rows are given."""
    return pool.windows if isinstance(pool, DeviceRows) else int(rows["lnes"].shape[1])


def _strides(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(1, 3, count)


class DetectorTask(Task):
    """The detector on overview pictures, mirrored left and right at random; some of them without a hand."""

    model_name = "detector"
    best_by = "missed"
    fields = ("overview", "box")

    def __init__(self, config: TrainConfig):
        super().__init__()
        assert isinstance(config.model, DetectorConfig)
        self.config = config
        self.model = Detector(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sample(self, pool: Pool, rng: np.random.Generator, lanes: Lanes | None) -> tuple[Tensors, None]:
        return self.batch(drawn(pool, rng, max(self.config.images // 4, 1)), rng), None

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> Tensors:
        """Overview pictures and boxes of some rows, augmented where a generator is given."""
        image = rows["overview"].reshape(-1, *rows["overview"].shape[2:]).astype(np.float32) / 255
        box = rows["box"].reshape(-1, 3).copy()
        if rng is not None:
            image = augmented(image[:, None], rng, self.config.thinning, self.config.noise)[:, 0]
            image, box = moved(image, box, rng)
            swapped = rng.random(len(image)) < 0.5  # a hand is lighter or darker than what is behind it
            image[swapped] = image[swapped, ::-1]
        return {"image": torch.from_numpy(np.ascontiguousarray(image)), "box": torch.from_numpy(box)}

    def forward(self, batch: Tensors) -> tuple[Tensors, None]:
        image = batch["image"]
        with _autocast(self.config, image.device, self.model.training):
            maps = self.model(image.contiguous(memory_format=torch.channels_last))
        return detector_losses(maps.float(), batch["box"]), None

    @torch.no_grad()
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """missed: share of the hands whose likeliest place is more than half an extent off. false_alarms: share of
        the pictures without a hand where one is likelier than not. Of the hands, the median distance of the centre in
        extents, and the median error of the logarithm of the extent."""
        place, ratio, sure, shown = [], [], [], []
        for rows in row_batches(pool, 64):
            batch = self.batch(rows)
            maps, box = model(on_device_of(model, batch)["image"]).cpu(), batch["box"]
            cell = maps[:, 0].flatten(1).argmax(1)
            row, column = cell // maps.shape[-1], cell % maps.shape[-1]
            sure.append(place_weights(maps)[:, :-1].sum(1))
            shown.append(hand_in(box, image_size(maps)))
            here = maps[torch.arange(len(maps)), :, row, column]
            centre = (torch.stack([column, row], 1) + 0.5 + here[:, 1:3]) * STRIDE - 0.5
            place.append((centre - box[:, :2]).norm(dim=1) / box[:, 2])
            ratio.append((here[:, 3] - torch.log(box[:, 2] / 16)).abs())
        hand, alarm = torch.cat(shown), (torch.cat(sure) > 0.5).float()
        distance, log_ratio = torch.cat(place)[hand], torch.cat(ratio)[hand]
        return {
            "missed": float((distance > 0.5).float().mean()),
            "false_alarms": float(alarm[~hand].mean()),
            "centre_extents": float(distance.median()),
            "extent_log_ratio": float(log_ratio.median()),
        }


class RecogniserTask(Task):
    """The recogniser on crops, mirrored left and right at random."""

    model: Recogniser
    model_name = "recogniser"
    best_by = "wrong"
    fields = ("lnes", "shown")

    def __init__(self, config: TrainConfig):
        super().__init__()
        assert isinstance(config.model, RecogniserConfig)
        self.config = config
        self.model = Recogniser(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def begin_with(self, start: nn.Module) -> None:
        """Take all weights of a recogniser, or the encoder of `small`."""
        if not isinstance(start, SmallEstimator):
            return super().begin_with(start)
        try:
            self.model.take_encoder(start.network)
        except RuntimeError as error:
            raise InputError(
                f"The encoder to begin with does not fit: {' '.join(str(error).split())[:300]} Wanted one with the "
                "channels and blocks of this run; choose another, or set those."
            ) from error

    def sample(self, pool: Pool, rng: np.random.Generator, lanes: Lanes | None) -> tuple[Tensors, None]:
        looks = pool.take(np.array([0]))["shown"].shape[1]
        return self.batch(drawn(pool, rng, max(self.config.images // looks, 1)), rng), None

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> Tensors:
        """Crops and what they show, of some rows, augmented where a generator is given."""
        image = rows["lnes"].reshape(-1, *rows["lnes"].shape[2:]).astype(np.float32) / 255
        shown = rows["shown"].reshape(-1).copy()
        if rng is not None:
            image = augmented(image[:, None], rng, self.config.thinning, self.config.noise)[:, 0]
            mirrored, swapped = rng.random((2, len(image))) < 0.5
            image[mirrored] = image[mirrored][..., ::-1]
            shown[mirrored] = np.array([0, 2, 1])[shown[mirrored]]
            image[swapped] = image[swapped, ::-1]  # a hand is lighter or darker than what is behind it
        return {"image": torch.from_numpy(np.ascontiguousarray(image)), "shown": torch.from_numpy(shown)}

    def forward(self, batch: Tensors) -> tuple[Tensors, None]:
        image = batch["image"]
        with _autocast(self.config, image.device, self.model.training):
            logits = self.model(image.contiguous(memory_format=torch.channels_last))
        return recogniser_losses(logits.float(), batch["shown"]), None

    @torch.no_grad()
    def figures(self, model: nn.Module, pool: Pool) -> dict[str, float]:
        """Shares of single crops: hands not taken for one, false alarms of the others, hands of the wrong side; wrong
        is the mean of the three."""
        logits, shown = [], []
        for rows in row_batches(pool, 32):
            batch = self.batch(rows)
            logits.append(model(on_device_of(model, batch)["image"]).cpu())
            shown.append(batch["shown"])
        said, what = torch.cat(logits) > 0, torch.cat(shown)
        hand = what > 0
        shares = {
            "missed": 1 - float(said[hand, 0].float().mean()),
            "false_alarms": float(said[~hand, 0].float().mean()),
            "wrong_side": float((said[hand, 1] != (what[hand] == 1)).float().mean()),
        }
        return shares | {"wrong": sum(shares.values()) / 3}


def row_batches(pool: Pool, size: int) -> Iterator[np.ndarray]:
    """All rows of a pool in order."""
    for first in range(0, len(pool), size):
        yield pool.take(np.arange(first, min(first + size, len(pool))))


def small_recipe() -> TrainConfig:
    """`small`, supervised, on simulated clips."""
    return TrainConfig(model=SmallConfig(recall=256), weights=dataclasses.asdict(SmallLossWeights()))


def detector_recipe() -> TrainConfig:
    """The detector on the overview pictures of the same clips."""
    weights = {"place": 1.0, "offset": 0.5, "extent": 1.0}
    return TrainConfig(model=DetectorConfig(), weights=weights, steps=8000, hours=0.25, images=48)


def recogniser_recipe() -> TrainConfig:
    """The recogniser on the crops of `evhands prepare --kind finding`."""
    weights = {"hand": 1.0, "side": 1.0}
    return TrainConfig(model=RecogniserConfig(), weights=weights, steps=20000, hours=0.5, images=48)


RECIPES: dict[str, tuple[Callable[[], Any], type[Task]]] = {
    "small": (small_recipe, SmallTask),
    "detector": (detector_recipe, DetectorTask),
    "recogniser": (recogniser_recipe, RecogniserTask),
}
"""Recipe name -> (its configuration, its task)."""
