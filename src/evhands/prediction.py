"""Batched prediction where the crop is known: recordings to rows of `Predictions`.

Two ways: `predict_stream` carries a network's memory along whole recordings, several in step, as a tracker would with
a perfect crop; `predict_sequences` begins anew for each row and looks at twelve windows, as EvHandPose is evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from evhands.boxes import CropBox
from evhands.data.cache import CacheConfig, CachedRecording
from evhands.data.crops import CropConfig, HandPath, hand_path
from evhands.data.dataset import BatchConfig, SequenceBatch, SequenceDataset
from evhands.data.items import EvaluationConfig, Items, evaluation_items, whole_us
from evhands.data.labels import Labels
from evhands.data.published import PublishedData
from evhands.events.windows import window_at
from evhands.geometry import crop_camera
from evhands.hand.model import HandModel
from evhands.inputs import crop_inputs, filled_window
from evhands.interpolation import stacked
from evhands.models.estimator import Estimator, mirror_inputs, mirrored
from evhands.models.paper import PaperEstimator
from evhands.models.paper_stages import in_camera
from evhands.predictions import Predictions
from evhands.recording import Recording
from evhands.scenes import (
    PARTS,
    Scene,
    Wanted,
    annotated_points,
    predicted_columns,
    scheduled_ends,
    seen_of,
    truth_columns,
    window_counts,
    with_vertices,
)
from evhands.types import HandPose, InputError


@dataclass(frozen=True, kw_only=True)
class SequenceProtocol:
    """How a row of `predict_sequences` comes about: which times, which crops, how events are read.

    unlabelled: ticks of the clock without a label too, which the published code predicts to show them.
    `published()` is what the published code does with its own checkpoints, oddities included (O1, O2, O17, O20).
    """

    items: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(leave_out_last=True))
    crop: CropConfig = field(default_factory=CropConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    data: PublishedData | None = None
    unlabelled: bool = False
    batch: int = 8

    @staticmethod
    def published(unlabelled: bool = False) -> SequenceProtocol:
        return SequenceProtocol(
            unlabelled=unlabelled,
            crop=CropConfig(middle_px=64.0),
            cache=CacheConfig(undistortion_iterations=5, rows_against_width=True),
            data=PublishedData(),
        )


def published_times(recording: CachedRecording, protocol: SequenceProtocol) -> tuple[Items, Wanted]:
    """The items of one recording under the published rule (1.2 s of history), and when they end."""
    items = evaluation_items([recording], protocol.items)
    if not protocol.unlabelled:
        items = items[items.label[:, -1] >= 0]
    return items, Wanted(whole_us(items.edges_us[:, -1], recording.start_us), items.label[:, -1].astype(np.int64))


# --- along whole recordings -----------------------------------------------------------------------------------------


@dataclass
class _Run:
    """One of the recordings that `predict_stream` goes along: its windows' ends, crops and, so far, poses."""

    scene: Scene
    wanted: Wanted
    ends: np.ndarray
    boxes: np.ndarray
    poses: dict[int, HandPose] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)


def predict_stream(
    estimator: Estimator,
    hand: HandModel,
    scenes: Sequence[Scene],
    wanted: Sequence[Wanted],
    meta: dict[str, Any],
    progress: Callable[[int], None] = lambda windows: None,
) -> list[Predictions]:
    """Predictions for some recordings with the crop of the true joints; memory runs from the start of each.

    hand: of the right side. Recordings run in step, so that the network sees a batch; the result does not depend on
    which run together.
    """
    began = time.perf_counter()
    runs = [_run(estimator, scene, times) for scene, times in zip(scenes, wanted)]
    order = sorted(range(len(runs)), key=lambda i: -len(runs[i].ends))
    states: Any = estimator.initial_state(len(runs))
    for k in range(max((len(run.ends) for run in runs), default=0)):
        going = [runs[i] for i in order if k < len(runs[i].ends)]
        states = _first(states, len(going))
        states = _step(estimator, going, k, states)
        progress(len(going))
    seconds = (time.perf_counter() - began) / max(len(runs), 1)
    return [_finished(run, hand, meta, estimator.input_config.window_us, seconds) for run in runs]


def _run(estimator: Estimator, scene: Scene, wanted: Wanted) -> _Run:
    inputs = estimator.input_config
    ends = scheduled_ends(wanted.t_us, scene.seen.start_us, inputs.stride_us, inputs.window_us)
    config = CropConfig(size_px=inputs.size_px, scale=inputs.crop_scale)
    path = hand_path(scene.labels, scene.K, config)
    if path is None:
        raise InputError(
            f"{scene.seen.name} has no labels that say where its hand is. Wanted joints or boxes; use --crop detected, "
            "or take it out."
        )
    return _Run(scene, wanted, ends, _boxes(path, ends, scene.seen.size))


def _boxes(path: HandPath, ends: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(k, 3) centre and side of the crops at the ends of windows."""
    outline = path.outline((ends - path.t0_us).astype(np.float64))
    low, high = outline.min(1), outline.max(1)
    side = np.clip(path.margin * (high - low).max(-1), 16.0, 3.0 * max(size))
    centre = np.clip((low + high) / 2, -max(size), 2 * max(size))  # a spline over a long gap may swing out
    return np.concatenate([centre, side[:, None]], -1)


@torch.no_grad()
def _step(estimator: Estimator, going: list[_Run], k: int, states: Any) -> Any:
    """One window of each recording that is not at its end; the states after it."""
    config = estimator.input_config
    parts, crops = [], []
    for run in going:
        x, y, side = run.boxes[k]
        crop = crop_camera(run.scene.camera, np.array([x, y]), float(side), config.size_px)
        window = window_at(run.scene.events, int(run.ends[k]), config.window_us)
        window = filled_window(window, run.scene.events, CropBox(np.array([x, y]), side), run.scene.camera, config)
        images = crop_inputs([window], run.scene.camera, [crop], config)
        parts.append(mirror_inputs(_tensors(images)) if run.scene.seen.side == "left" else _tensors(images))
        crops.append(crop)
    device = next(estimator.parameters()).device
    inputs = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
    prediction, states = estimator(inputs, states)
    for i, run in enumerate(going):
        if run.ends[k] in run.wanted.t_us:
            one = HandPose("right", **{n: getattr(prediction.pose, n)[i : i + 1] for n in PARTS})
            one = mirrored(one) if run.scene.seen.side == "left" else one
            values = {name: getattr(one, name)[0].cpu().numpy() for name in PARTS}
            pose = HandPose(run.scene.seen.side, **values, hand_model=prediction.pose.hand_model)
            run.poses[int(run.ends[k])] = estimator.to_camera(pose, crops[i], run.scene.camera)
            run.confidence[int(run.ends[k])] = float(prediction.confidence[i])
    return states


def _finished(run: _Run, hand: HandModel, meta: dict[str, Any], window_us: int, seconds: float) -> Predictions:
    scene, wanted, count = run.scene, run.wanted, len(run.wanted.t_us)
    columns = truth_columns(scene.labels, scene.annotated_px, wanted, scene.K)
    columns["window_us"] += window_us
    columns["events"] = window_counts(scene.events, wanted.t_us, window_us)
    columns["found"][:] = True
    if count:
        poses = [run.poses[int(t)] for t in wanted.t_us]
        pose = stacked(poses)
        own = hand if hand.side == pose.side else hand.mirrored()
        columns |= predicted_columns(pose, own, scene.K)
        columns["confidence"] = np.array([run.confidence[int(t)] for t in wanted.t_us], np.float32)
        x, y, side = run.boxes[np.searchsorted(run.ends, wanted.t_us)].T
        columns["boxes_px"] = np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], -1).astype(np.float32)
        columns = with_vertices(columns, scene.labels, wanted, pose, own)
    return Predictions(meta=meta, recordings=(scene.seen,), seconds=seconds, **columns)


def _tensors(images: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in images.items()}


def _first(state: Any, count: int) -> Any:
    """The memory of the first `count` tracks."""
    if isinstance(state, tuple):
        return tuple(value[:count] for value in state)
    return None if state is None else state[:count]


# --- twelve windows for each row --------------------------------------------------------------------------------------


def predict_sequences(
    estimator: PaperEstimator,
    hand: HandModel,
    cached: CachedRecording,
    recording: Recording,
    protocol: SequenceProtocol,
    meta: dict[str, Any],
    progress: Callable[[int], None] = lambda windows: None,
) -> Predictions:
    """Predictions for one recording as the published evaluation makes them; also at times without a label.

    hand: of the right side, in whose parameters the estimator speaks. recording: the same, for points that a person
    marked on the sensor.
    """
    began = time.perf_counter()
    dataset = SequenceDataset([cached], _batch_config(estimator, protocol))
    items, wanted = published_times(cached, protocol)
    K = np.asarray(cached.camera.K, np.float64)
    parts, counts = [], np.zeros(0, np.int64)
    for first in range(0, len(items), protocol.batch):
        batch = dataset.batch(items[first : first + protocol.batch])
        parts.append((_last_poses(estimator, batch), batch.boxes_px[:, -1]))
        counts = np.concatenate([counts, batch.events_in_image[:, -1]])
        progress(len(batch.crop))
    columns = truth_columns(cached.labels, _marked_at(recording, cached.labels), wanted, K)
    columns["window_us"] = np.ceil(items.edges_us[:, -1] - items.edges_us[:, -2]).astype(np.int64)
    columns["events"], columns["found"] = counts, np.ones(len(items), np.bool_)
    if parts:
        pose = _joined([pose for pose, _ in parts], cached.labels.side)
        own = hand if hand.side == pose.side else hand.mirrored()
        columns |= predicted_columns(pose, own, K)
        columns["confidence"] = np.ones(len(items), np.float32)
        columns["boxes_px"] = _unmirrored(np.concatenate([boxes for _, boxes in parts]), cached.labels.side, K)
        columns = with_vertices(columns, cached.labels, wanted, pose, own)
    seen = seen_of(cached.name, recording, cached.labels, K, cached.start_us)
    return Predictions(meta=meta, recordings=(seen,), seconds=time.perf_counter() - began, **columns)


def _batch_config(estimator: PaperEstimator, protocol: SequenceProtocol) -> BatchConfig:
    inputs = estimator.input_config
    crop = replace(protocol.crop, size_px=inputs.size_px, scale=inputs.crop_scale)
    return BatchConfig(crop=crop, voxel_bins=inputs.voxel_bins, raw_windows=1, published=protocol.data)


@torch.no_grad()
def _last_poses(estimator: PaperEstimator, batch: SequenceBatch) -> HandPose:
    """Right hands (b) at the ends of the last windows, in the camera's frame (mirrored where the batch is)."""
    device = next(estimator.parameters()).device
    images = {"lnes": batch.lnes, "voxel": batch.voxel}
    inputs = {name: torch.from_numpy(image).to(device) for name, image in images.items() if image is not None}
    prediction, _ = estimator(inputs)
    last = {name: getattr(prediction.pose, name)[:, -1:] for name in PARTS}
    pose = HandPose("right", **last, hand_model=prediction.pose.hand_model)
    crop_K, K = (torch.from_numpy(value).to(device) for value in (batch.crop_K[:, -1:], batch.K))
    placed = in_camera(estimator, pose, crop_K, K)
    return replace(placed, **{name: getattr(placed, name)[:, 0].cpu().numpy() for name in PARTS})


def _joined(poses: list[HandPose], side: str) -> HandPose:
    values = {name: np.concatenate([getattr(pose, name) for pose in poses]) for name in PARTS}
    pose = HandPose("right", **values, hand_model=poses[0].hand_model)
    return mirrored(pose) if side == "left" else pose


def _unmirrored(boxes: np.ndarray, side: str, K: np.ndarray) -> np.ndarray:
    if side == "left":
        boxes = np.stack([2 * K[0, 2] - boxes[:, 2], boxes[:, 1], 2 * K[0, 2] - boxes[:, 0], boxes[:, 3]], -1)
    return boxes.astype(np.float32)


def _marked_at(recording: Recording, labels: Labels) -> np.ndarray:
    """The marked points at the times of the labels, whichever file they come from."""
    marked = np.full((len(labels), 21, 2), np.nan, np.float32)
    if recording.pose_t_us is not None and len(recording.pose_t_us):
        times, points = np.sort(recording.pose_t_us), annotated_points(recording)
        at = np.searchsorted(times, labels.t_us).clip(0, len(times) - 1)
        same = times[at] == labels.t_us
        marked[same] = points[at[same]]
    return marked
