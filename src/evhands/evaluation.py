"""What predicts a data set: methods from their checkpoints, hands tracked from events alone, recordings in groups.

Several jobs predict data sets; this is what they share.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from evhands.both_ways import with_backward
from evhands.data.cache import CachedRecording, cache_recordings
from evhands.events.windows import window_at
from evhands.evrealhands_layout import TEST_SUBJECTS, read_sequence
from evhands.hand.model import HandModel, load_hand
from evhands.interpolation import stacked
from evhands.models.checkpoint import ASSETS, checkpoint_path, load_model, read_checkpoint
from evhands.models.estimator import Estimator
from evhands.models.paper import PaperEstimator
from evhands.models.published import load_published
from evhands.prediction import SequenceProtocol, predict_sequences, predict_stream, published_times
from evhands.predictions import Predictions, Protocol
from evhands.recording import Recording, read_recording
from evhands.scenes import (
    PARTS,
    Scene,
    Wanted,
    labelled_times,
    open_scene,
    predicted_columns,
    scheduled_ends,
    truth_columns,
    window_counts,
    with_vertices,
)
from evhands.tracking import PoseEstimator, Tracker, TrackerConfig, TrackResult, track_windows
from evhands.types import InputError

Crop = Literal["truth", "detected"]
RUN_CHECKPOINTS = ("best.pt", "model.pt")
"""What a run folder's checkpoint is, the first that is there."""


@dataclass(frozen=True)
class Method:
    """A network with the right hand in whose parameters it speaks; `file` is where its weights come from.

    published: whether it is a checkpoint of the published code, which reads events in the published way.
    """

    name: str
    estimator: Estimator
    hand: HandModel
    detector: torch.nn.Module
    file: Path
    published: bool

    def weights(self) -> str:
        """SHA-256 of the checkpoint."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def open_method(checkpoint: Path | str, mano: Path | None = None, device: str = "cpu") -> Method:
    """A method from a model that ships with evhands, a checkpoint, a run folder, or a published .ckpt file.

    mano: the MANO file, where a checkpoint of ours speaks in MANO's parameters; a published one carries the model.
    """
    path = run_checkpoint(Path(checkpoint)) if Path(checkpoint).is_dir() else checkpoint_path(checkpoint)
    if path.suffix == ".ckpt":
        method = _published_method(path)
    else:
        estimator, detector = load_model(path)
        named = estimator.config.hand_model if isinstance(estimator, PaperEstimator) else cast(Any, estimator).hand.name
        method = Method(path.stem, estimator, _hand_named(str(named), mano), detector, path, False)
    try:
        target = torch.device(device)
        return replace(method, estimator=method.estimator.to(target), detector=method.detector.to(target))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"The device {device!r} cannot be used here ({str(error).splitlines()[0]}). Wanted cpu, or a device that "
            "torch has, such as cuda; leave the option out for the CPU."
        ) from error


def run_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run folder: the best by validation, else the one at its end."""
    for name in RUN_CHECKPOINTS:
        if (folder / name).exists():
            return folder / name
    raise InputError(
        f"{folder} holds neither {' nor '.join(RUN_CHECKPOINTS)}. Wanted the folder of a training run, or a "
        "checkpoint; train further, or name the file."
    )


def _published_method(path: Path) -> Method:
    found = load_published(path)
    if found.estimator is None or found.hand is None:
        raise InputError(
            f"{path} is of the flow stage, which trains no hand poses. Wanted a checkpoint of a later stage."
        )
    detector = read_checkpoint(ASSETS / "detector.pt", wanted="detector").model
    return Method(path.stem, found.estimator.for_inference(), found.hand, detector, path, True)


def _hand_named(name: str, mano: Path | None) -> HandModel:
    if name == "open":
        return load_hand("open")
    if mano is None:
        raise InputError(
            f"The checkpoint speaks in parameters of the hand model '{name}', which evhands may not pass on. Wanted "
            "its file: give --mano MANO_RIGHT.pkl."
        )
    return load_hand(mano)


# --- which recordings -----------------------------------------------------------------------------------------------


def read_source(source: Path, hand: HandModel | None, *, evaluation: bool = True) -> Recording:
    """A recording, or a sequence folder with its evaluation truth."""
    if source.is_dir():
        return read_sequence(source, hand=hand, evaluation=evaluation)
    return read_recording(source)


def of_subjects(
    sources: Sequence[Path], hand: HandModel | None, subjects: Sequence[str] | None
) -> tuple[list[Path], list[str]]:
    """The recordings of some subjects, and these subjects. None: the test subjects, where the data shows any of them;
    else all, as with ("all",)."""
    shown = {}
    for source in sources:
        tags = read_source(source, hand).tags
        shown[source] = "" if tags is None else tags.subject
    found = sorted(set(shown.values()), key=lambda s: (len(s), s))
    wanted = list(subjects) if subjects is not None else [s for s in TEST_SUBJECTS if s in found] or ["all"]
    if wanted == ["all"]:
        return list(sources), found
    chosen = [source for source, subject in shown.items() if subject in wanted]
    if not chosen:
        raise InputError(
            f"Found recordings of the subjects {', '.join(found)}, none of {', '.join(wanted)}. Wanted some of these; "
            "name others with --subjects, or all of them with --subjects all."
        )
    return chosen, wanted


# --- predicting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a data set is predicted. unlabelled: under the protocol evhandpose also ticks of its clock without a label.

    sequence: how its rows come about; None chooses by the method (see `SequenceProtocol`).
    """

    protocol: Protocol = "evhands"
    crop: Crop = "detected"
    smooth: bool = False
    both_ways: bool = False
    unlabelled: bool = False
    sequence: SequenceProtocol | None = None

    def of(self, method: Method) -> SequenceProtocol:
        """How a row of the published protocol comes about for a method."""
        if self.sequence is not None:
            return self.sequence
        if method.published:
            return SequenceProtocol.published(self.unlabelled)
        return SequenceProtocol(unlabelled=self.unlabelled)


def predict_group(
    method: Method,
    sources: Sequence[Path],
    cache: Path,
    hand: HandModel | None,
    config: PredictConfig,
    meta: dict[str, Any],
    progress: Callable[[int], None] = lambda windows: None,
) -> list[Predictions]:
    """The predictions of some recordings, one value each.

    hand: of MANO's truth. Under the protocol evhandpose networks of the paper begin anew for every row and see the
    true crop; any other network is carried along the recording and asked at the same times.
    """
    sequence = config.of(method)
    if config.protocol == "evhandpose":
        cached = [_as_published(one) for one in cache_recordings(sources, cache, sequence.cache, hand=hand)]
        if config.crop == "truth" and isinstance(method.estimator, PaperEstimator):
            return [
                predict_sequences(
                    method.estimator, method.hand, one, read_source(source, hand), sequence, meta, progress
                )
                for source, one in zip(sources, cached)
            ]
        scenes = [_published_scene(source, one, hand) for source, one in zip(sources, cached)]
        wanted = [published_times(one, sequence)[1] for one in cached]
    else:
        scenes = [open_scene(source, hand) for source in sources]
        wanted = [labelled_times(scene) for scene in scenes]
    if config.crop == "truth":
        return predict_stream(method.estimator, method.hand, scenes, wanted, meta, progress)
    return [predict_tracked(method, scene, times, config, meta, progress) for scene, times in zip(scenes, wanted)]


def _as_published(cached: CachedRecording) -> CachedRecording:
    """The labels that the published protocol knows of a fast sequence: marked points and boxes, also where a prepared
    recording holds the truth in space as well."""
    marked = np.isfinite(cached.labels.joints_px).any()
    if cached.tags is None or not cached.tags.fast or not marked:
        return cached
    return replace(cached, labels=cached.labels.of_marks_alone())


def _published_scene(source: Path, cached: CachedRecording, hand: HandModel | None) -> Scene:
    """A scene with the labels that the published protocol knows: those of `annot.json` alone."""
    scene = open_scene(source, hand)
    at = np.searchsorted(scene.labels.t_us, cached.labels.t_us).clip(0, max(len(scene.labels) - 1, 0))
    same = scene.labels.t_us[at] == cached.labels.t_us
    marked = np.where(same[:, None, None], scene.annotated_px[at], np.float32(np.nan))
    return replace(scene, labels=cached.labels, annotated_px=marked)


def predict_tracked(
    method: Method,
    scene: Scene,
    wanted: Wanted,
    config: PredictConfig,
    meta: dict[str, Any],
    progress: Callable[[int], None] = lambda windows: None,
) -> Predictions:
    """Predictions of one recording whose hand is found and followed in its events alone, by the tracker's own step."""
    began = time.perf_counter()
    inputs = method.estimator.input_config
    side = scene.seen.side
    hand = (method.hand if method.hand.side == side else method.hand.mirrored()).to("cpu")
    tracker_config = TrackerConfig() if config.smooth else TrackerConfig(smoothing=None)
    tracker = Tracker(
        cast(PoseEstimator, method.estimator), cast(Any, method.detector), hand, scene.camera, tracker_config
    )
    ends = scheduled_ends(wanted.t_us, scene.seen.start_us, inputs.stride_us, inputs.window_us)
    row_at = {int(t): i for i, t in enumerate(wanted.t_us)}
    windows = (window_at(scene.events, int(end), inputs.window_us) for end in ends)
    tracked = []
    for _, result in track_windows(tracker, windows):
        progress(1)
        tracked.append(result)
    given = with_backward(tracker, tracked, scene.events) if config.both_ways else tracked
    results = {row_at[result.t_us]: result for result in given if result.t_us in row_at}
    columns = truth_columns(scene.labels, scene.annotated_px, wanted, scene.K)
    columns["window_us"] += inputs.window_us
    columns["events"] = window_counts(scene.events, wanted.t_us, inputs.window_us)
    columns |= _tracked_columns(results, len(wanted.t_us), hand, scene, columns)
    if columns["found"].any():
        pose = cast(Any, replace(_first_pose(results), **{n: columns[n] for n in PARTS}))
        columns = with_vertices(columns, scene.labels, wanted, pose, hand)
    return Predictions(meta=meta, recordings=(scene.seen,), seconds=time.perf_counter() - began, **columns)


def _first_pose(results: dict[int, TrackResult]) -> Any:
    return next(result.pose for result in results.values() if result.pose is not None)


def _tracked_columns(
    results: dict[int, TrackResult], count: int, hand: HandModel, scene: Scene, columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    rows = [i for i in range(count) if results[i].pose is not None]
    filled = {name: columns[name].copy() for name in (*PARTS, "joints_m", "joints_px", "boxes_px", "found")}
    filled["confidence"] = np.array([results[i].confidence for i in range(count)], np.float32)
    if rows:
        pose = stacked([cast(Any, results[i].pose) for i in rows])
        for name, values in predicted_columns(pose, hand, scene.K).items():
            filled[name][rows] = values
        filled["boxes_px"][rows] = [cast(Any, results[i].box).corners() for i in rows]
        filled["found"][rows] = True
    return filled
