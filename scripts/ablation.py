"""What labels, hand flow and the losses without labels are worth: `small` on the fixed test set, from one common start.

    evhands simulate TESTSET --preset testset --workers 2
    python scripts/ablation.py --testset TESTSET --data DATA --runs RUNS --workers 2
    python scripts/ablation.py --table

Stop it at any time; the same command goes on. What has been evaluated is a JSON file in --results, so that another
machine with these files alone makes the runs that are missing. The design stands in docs/ablation.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evhands.baselines import ConstantPose, fit_constant_pose
from evhands.data.cache import CachedRecording, cache_recordings
from evhands.data.dataset import BatchConfig, SequenceDataset
from evhands.data.items import Items, whole_us
from evhands.files import replacing
from evhands.metrics import mpjpe, pa_mpjpe
from evhands.models.checkpoint import code_version, read_checkpoint
from evhands.models.small import SmallEstimator, virtual_rotation
from evhands.models.small_stages import run_windows
from evhands.recording import Tags, write_recording
from evhands.run_folder import environment
from evhands.sim.config import ClipConfig
from evhands.sim.generate import simulate_clip
from evhands.sim.presets import TEST_BUCKETS, TEST_CLIPS, clip_of_testset
from evhands.sim.sensor import SENSORS
from evhands.small_recipes import (
    STAGE_INPUTS,
    SmallStageConfig,
    small_flow_recipe,
    small_semi_recipe,
    small_supervised_recipe,
)
from evhands.stage_data import training_sequences, validation_sequences
from evhands.training import TrainData, train
from evhands.types import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
WEAK = ("contrast", "edge", "smooth")
LABEL_HZ = 15.0
SOURCE_SEED, TARGET_SEED = 41, 42
HISTORY = 8
"""Windows before the first that is scored, itself included: training shows no label after fewer."""


# --- which runs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Cell:
    """A row of the table. losses: supervised; items (semi-supervised items, but the losses of labels alone), one of
    `WEAK`, or all."""

    labels: float
    losses: str
    flow: bool = True

    @property
    def name(self) -> str:
        return f"{self.losses}-{100 * self.labels:g}{'' if self.flow else '-without-flow'}"


def plan(seeds: int = 3) -> list[tuple[Cell, int]]:
    """Every run once, the first seed of every cell first: 27 with three seeds where there is a spread to be told."""
    few = [Cell(0.05, losses) for losses in ("supervised", "items", *WEAK, "all")]
    spread = [Cell(1.0, "supervised"), Cell(1.0, "supervised", flow=False), *few]
    once = [Cell(1.0, "all"), Cell(0.2, "supervised"), Cell(0.2, "all")]
    return [(cell, 0) for cell in [*spread, *once]] + [(cell, s) for s in range(1, seeds) for cell in spread]


def run_config(cell: Cell, seed: int, minutes: float) -> SmallStageConfig:
    """Of a run: the stage supervised or semi, everything else alike."""
    made = small_supervised_recipe() if cell.losses == "supervised" else small_semi_recipe()
    weak = {"supervised": (), "items": (), "all": WEAK}.get(cell.losses, (cell.losses,))
    weights = {name: value for name, value in made.weights.items() if name not in WEAK or name in weak}
    return replace(
        made, weights=weights, model=replace(made.model, flow=cell.flow, recall=0), labels=cell.labels, seed=seed,
        learning_rate=1e-3, hours=minutes / 60, processor_time=True, steps=10**6, validate_every=10**9,
        save_every_s=60.0,
    )  # fmt: skip


# --- data -----------------------------------------------------------------------------------------------------------


def source_clip(index: int) -> ClipConfig:
    """The narrow domain that the common start knows: frontal near hands of six people in even light, seen by an ideal
    sensor."""
    _, config = clip_of_testset(index % 2 * TEST_CLIPS)
    return replace(
        config, label_rate_hz=LABEL_HZ, orientation="frontal", depth_m=(0.3, 0.5), subjects=(0, 6),
        sensor=SENSORS["ideal"],
    )  # fmt: skip


def target_clip(index: int) -> ClipConfig:
    """The domain of the test set in turn (half, light, motion), of other people."""
    bucket = index % (2 * len(TEST_BUCKETS))
    return replace(clip_of_testset(bucket * TEST_CLIPS)[1], label_rate_hz=LABEL_HZ, subjects=(100, 10_000))


DOMAINS = {"source": (source_clip, SOURCE_SEED), "target": (target_clip, TARGET_SEED)}


def write_clip(job: tuple[str, int, Path]) -> None:
    """Simulate one recording of a domain into its file."""
    domain, index, path = job
    torch.set_num_threads(1)
    make, seed = DOMAINS[domain]
    clip = simulate_clip(make(index), seed, index)
    tags = Tags(
        side="right", subject=str(clip.meta["subject"]), scene="normal", fast=False, gesture="random", checked=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_recording(path, clip.events, clip.camera, clip.label_t_us, clip.pose, clip.joints_m, clip.boxes_px, tags=tags)


@dataclass(frozen=True)
class Data:
    """Where the cached recordings are."""

    source: list[Path]
    target: list[Path]
    cache: Path

    def recordings(self, domain: str) -> tuple[list[CachedRecording], list[CachedRecording]]:
        """To train on, and a few to be validated on at the end of a run."""
        found = cache_recordings(getattr(self, domain), self.cache)
        held_out = max(len(found) // 40, 1)
        return found[held_out:], found[:held_out]

    def train_data(self, domain: str, config: SmallStageConfig) -> TrainData:
        train_part, held_out = self.recordings(domain)
        card = {"domain": domain, "recordings": len(train_part), "labels": config.labels}
        return TrainData(training_sequences(train_part, config), validation_sequences(held_out, config), card)


def prepared(folder: Path, counts: dict[str, int], workers: int) -> Data:
    """Both training sets, simulated where they are not there yet."""
    paths = {d: [folder / d / f"{d}-{i:04d}.h5" for i in range(n)] for d, n in counts.items()}
    todo = [(d, i, path) for d in counts for i, path in enumerate(paths[d]) if not path.exists()]
    if todo:
        print(f"simulating {len(todo)} recordings into {folder} ...", flush=True)
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for done, _ in enumerate(pool.imap_unordered(write_clip, todo), 1):
                if done % 50 == 0:
                    print(f"  {done} of {len(todo)}", flush=True)
    return Data(paths["source"], paths["target"], folder / "cache")


# --- evaluation -----------------------------------------------------------------------------------------------------


def test_items(recordings: list[CachedRecording]) -> Items:
    """One item a recording: its windows end to end, about 1/15 s each, every edge at a label."""
    seconds = min(r.labels.t_us[-1] - r.labels.t_us[0] for r in recordings) * 1e-6
    ticks = np.arange(int(seconds * LABEL_HZ + 1e-6) + 1) * 1e6 / LABEL_HZ
    parts = []
    for number, recording in enumerate(recordings):
        t_us = recording.labels.t_us
        rows = np.abs(t_us[None] - t_us[0] - ticks[:, None]).argmin(1)
        edges = (t_us[rows] - recording.start_us).astype(np.float64)[None]
        first = recording.first_at(whole_us(edges, recording.start_us))
        whose, label = np.full(1, number, np.int32), rows[None, 1:].astype(np.int32)
        parts.append(Items(whose, np.full(1, -1, np.int32), edges, first, label))
    return Items.concatenate(parts)


@torch.no_grad()
def predicted_joints(model: SmallEstimator, recordings: list[CachedRecording]) -> tuple[np.ndarray, np.ndarray]:
    """Joints (recordings, scored windows, 21, 3) in the camera, and the true ones: crop from the truth, the memory
    carried from the beginning of each recording, the first windows not scored."""
    inputs = STAGE_INPUTS
    crop = BatchConfig(augment=None, raw_windows=0, voxel_bins=inputs.voxel_bins)
    crop = replace(crop, crop=replace(crop.crop, size_px=inputs.size_px, scale=inputs.crop_scale))
    dataset, items, found = SequenceDataset(recordings, crop), test_items(recordings), []
    for first in range(0, len(items), 8):
        batch = dataset.batch(items[first : first + 8])
        tensors = {name: torch.from_numpy(getattr(batch, name)) for name in ("lnes", "voxel", "crop_K")}
        _, decoded = run_windows(model, tensors, items.label.shape[1])
        joints = decoded.joints @ virtual_rotation(tensors["crop_K"], inputs.size_px).mT
        found.append((joints.numpy(), batch.joints_m))
    said, truth = (np.concatenate(values)[:, HISTORY - 1 :] for values in zip(*found, strict=True))
    return said, truth


def score(model: SmallEstimator, test: list[CachedRecording], constant: ConstantPose) -> dict[str, dict[str, float]]:
    """Errors in mm over 21 joints of each half of the test set, beside the constant pose."""
    said, truth = predicted_joints(model.eval(), test)
    figures = {}
    for half in ("frontal", "free"):
        chosen = np.array([r.name.startswith(half) for r in test])
        if chosen.any():
            joints, true = said[chosen].reshape(-1, 21, 3), truth[chosen].reshape(-1, 21, 3)
            rooted, shape = constant.score(true)
            figures[half] = {
                "mpjpe_mm": float(1000 * mpjpe(joints, true)["mpjpe21"].mean()),
                "pa_mpjpe_mm": float(1000 * pa_mpjpe(joints, true)["pa_mpjpe21"].mean()),
                "constant_mpjpe_mm": rooted, "constant_pa_mpjpe_mm": shape, "labels": len(true),
            }  # fmt: skip
    return figures


# --- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all runs share."""

    data: Data
    test: list[Path]
    runs: Path
    results: Path
    minutes: float
    workers: int
    start_steps: int


def contents(recordings: list[CachedRecording]) -> str:
    """How many recordings, and a checksum of their names, numbers of events and labels."""
    told = "".join(f"{r.name} {len(r.x)} {len(r.labels)}\n" for r in recordings)
    return f"{len(recordings)} recordings ({hashlib.sha256(told.encode()).hexdigest()[:8]})"


def weights_digest(model: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:8]


def make_start(setting: Setting) -> None:
    """The common start: a network without the flow branch, supervised on the source domain, then (into a checkpoint of
    its own) the branch, which says nothing to the network yet. As many steps on every machine."""
    without, branch = setting.runs / "start", setting.runs / "start-flow"
    first = small_supervised_recipe()
    first = replace(first, model=replace(first.model, flow=False, recall=0))
    second = small_flow_recipe()
    second = replace(second, model=replace(second.model, recall=0))
    for config, name, recipe, out, steps, start in (
        (first, "supervised", "small-supervised", without, setting.start_steps, None),
        (second, "flow", "small-flow", branch, max(setting.start_steps // 4, 1), without),
    ):
        if (out / "model.pt").exists():
            continue
        print(f"the common start: {name}, {steps} steps ...", flush=True)
        config = replace(config, steps=steps, validate_every=10**9, save_every_s=60.0)
        model = None if start is None else read_checkpoint(start / "model.pt", wanted="small").model
        with log_in(out):
            train(config, recipe, setting.data.train_data("source", config), out, start=model, device="cpu")
    write_result(
        setting, "start", setting.runs / "start-flow" / "model.pt", {"minutes": 0.0, "steps": setting.start_steps}
    )


@contextlib.contextmanager
def log_in(folder: Path):
    """What a run prints goes into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "out.txt", "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def run(job: tuple[Setting, Cell, int]) -> str:
    """One run to its end and into its JSON."""
    setting, cell, seed = job
    torch.set_num_threads(1)
    name = f"{cell.name}-{seed}"
    out, config = setting.runs / name, run_config(cell, seed, setting.minutes)
    recipe = f"small-{config.stage}"
    start = read_checkpoint(setting.runs / ("start-flow" if cell.flow else "start") / "model.pt", wanted="small").model
    with log_in(out):
        path = train(config, recipe, setting.data.train_data("target", config), out, start=start, device="cpu")
    told = {"cell": asdict(cell), "seed": seed, "weights": config.weights, "minutes": setting.minutes}
    write_result(setting, name, path, told)
    return name


def write_result(setting: Setting, name: str, model: Path, told: dict[str, Any]) -> None:
    """Evaluate a model, and write figures, settings and the machine at once."""
    checkpoint = read_checkpoint(model, wanted="small")
    test = cache_recordings(setting.test, setting.data.cache)
    start = read_checkpoint(setting.runs / "start" / "model.pt", wanted="small").model
    assert isinstance(checkpoint.model, SmallEstimator)
    machine = environment()
    result = {
        "figures": score(checkpoint.model, test, constant_pose(setting.data)),
        "steps": checkpoint.meta.data["step"],
        "processor_minutes": checkpoint.meta.data["seconds"] / 60,
        "machine": {**{k: machine[k] for k in ("processor", "system", "packages")}, "cores": os.cpu_count()},
        "workers": setting.workers,
        "code": code_version(),
        "start": weights_digest(start),
        "training_set": contents(cache_recordings(setting.data.target, setting.data.cache)),
        "test_set": contents(test),
        **told,
    }
    setting.results.mkdir(parents=True, exist_ok=True)
    with replacing(setting.results / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def constant_pose(data: Data) -> ConstantPose:
    """Fitted to every third label of the target domain."""
    return fit_constant_pose(np.concatenate([r.labels.joints_m[::3] for r in data.recordings("target")[0]]))


# --- the table ------------------------------------------------------------------------------------------------------


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a run -> what it wrote."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Mean and spread (standard deviation over the seeds) of every cell, in Markdown."""
    if not results:
        raise InputError("There are no results yet. Wanted JSON files of runs; run scripts/ablation.py first.")
    lines = [
        "| labels | losses | flow | runs | steps | frontal MPJPE | PA | free MPJPE | PA |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    some = next(iter(results.values()))
    constant = [_figures([some], f"constant_{name}") for name in ("mpjpe_mm", "pa_mpjpe_mm")]
    lines.append("| | best constant pose | | | | " + " | ".join(v for pair in zip(*constant) for v in pair) + " |")
    groups: dict[str, list[dict[str, Any]]] = {"start": [results["start"]] if "start" in results else []}
    for cell in sorted({cell for cell, _ in plan()}, key=lambda c: (-c.labels, not c.flow, _ORDER.index(c.losses))):
        groups[cell.name] = [r for r in results.values() if r.get("cell") == asdict(cell)]
    for name, runs in groups.items():
        if runs:
            both = [_figures(runs, figure) for figure in ("mpjpe_mm", "pa_mpjpe_mm")]
            steps = round(float(np.mean([r["steps"] for r in runs])))
            first = f"| {_told(runs[0]) if name != 'start' else ' | common start | '} | {len(runs)} | {steps} | "
            lines.append(first + " | ".join(v for pair in zip(*both) for v in pair) + " |")
    return "\n".join([*lines, "", _conditions(results)])


_ORDER = ("supervised", "items", *WEAK, "all")
_WORDS = {"items": "supervised, on semi-supervised items", "all": "all"} | {n: f"supervised + {n}" for n in WEAK}


def _told(result: dict[str, Any]) -> str:
    cell = Cell(**result["cell"])
    return f"{100 * cell.labels:g} % | {_WORDS.get(cell.losses, cell.losses)} | {'yes' if cell.flow else 'no'}"


def _figures(runs: list[dict[str, Any]], name: str) -> list[str]:
    told = []
    for half in ("frontal", "free"):
        values = [r["figures"][half][name] for r in runs if half in r["figures"]]
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        told.append(f"{np.mean(values):.1f}{spread}" if values else "")
    return told


def _conditions(results: dict[str, dict[str, Any]]) -> str:
    """On what the runs were made; more than one of a kind is told, since such runs compare badly."""

    def all_of(values: list[Any]) -> str:
        return " and ".join(dict.fromkeys(str(value) for value in values))

    runs = [r for name, r in results.items() if name != "start"] or list(results.values())
    machines = all_of([f"{r['machine']['processor']} ({r['machine']['cores']} cores, {r['workers']} runs side by side)"
                       for r in runs])  # fmt: skip
    return (
        f"Errors in mm over 21 joints; mean ± standard deviation of the seeds. {all_of([r['minutes'] for r in runs])} "
        f"minutes of processor time a run, one core of {machines}. Test set: {all_of([r['test_set'] for r in runs])}, "
        f"training set {all_of([r['training_set'] for r in runs])}; common start {all_of([r['start'] for r in runs])}; "
        f"code {all_of([r['code'] for r in runs])}."
    )


def write_table(page: Path, text: str) -> None:
    """Put the table between the markers of a page."""
    content = page.read_text(encoding="utf-8")
    if BEGIN not in content or END not in content:
        raise InputError(f"{page} lacks {BEGIN} or {END}. Wanted both, around the place of the table.")
    head, tail = content.split(BEGIN)[0], content.split(END)[1]
    with replacing(page) as temporary:
        temporary.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--testset", type=Path, help="folder of `evhands simulate --preset testset`")
    parser.add_argument("--data", type=Path, help="training sets; simulated where they are not there")
    parser.add_argument("--runs", type=Path, help="folder of the run folders")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "ablation")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "ablation.md", help="gets the table")
    parser.add_argument("--minutes", type=float, default=8.0, help="processor time of a run")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side, one core each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start-steps", type=int, default=2400, help="of the common start")
    parser.add_argument("--source", type=int, default=160, help="recordings of the source domain")
    parser.add_argument("--target", type=int, default=420, help="recordings of the target domain")
    parser.add_argument("--only", nargs="*", help="only these runs, as supervised-5-0")
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    options = parser.parse_args()
    if not options.table:
        if options.testset is None or options.data is None or options.runs is None:
            parser.error("wanted --testset, --data and --runs (or --table)")
        make_runs(options)
    text = table(read_results(options.results))
    write_table(options.page, text)
    print(text)


def make_runs(options: argparse.Namespace) -> None:
    """All runs that have no JSON yet."""
    test = sorted(options.testset.glob("*.h5"))
    if not test:
        raise InputError(f"{options.testset} holds no recordings. Wanted those of `evhands simulate --preset testset`.")
    data = prepared(options.data, {"source": options.source, "target": options.target}, options.workers)
    setting = Setting(data, test, options.runs, options.results, options.minutes, options.workers, options.start_steps)
    torch.set_num_threads(1)
    jobs = [
        (setting, cell, seed)
        for cell, seed in plan(options.seeds)
        if (not options.only or f"{cell.name}-{seed}" in options.only)
        and not (options.results / f"{cell.name}-{seed}.json").exists()
    ]
    if jobs or not (options.results / "start.json").exists():
        make_start(setting)
    print(f"{len(jobs)} runs of {options.minutes:g} minutes, {options.workers} side by side", flush=True)
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for done, name in enumerate(pool.imap_unordered(run, jobs), 1):
            print(f"{done} of {len(jobs)}: {name}", flush=True)


if __name__ == "__main__":
    main()
