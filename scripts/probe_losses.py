"""Why the losses without labels help or not: what they say of a trained network's errors on the test set.

    python scripts/probe_losses.py --testset TESTSET --cache DATA/cache RUNS/supervised-5-0 [RUNS/all-5-0 ...]

Of many items of the test set the network's poses are led to the true ones, one part of the pose at a time: the wrist
along the image, its depth, the turn of the hand, the fingers, and all of them. A loss that can teach a part must fall
on the way. Told are how often it falls at the first step (a tenth of the way) and how often it is lower at the truth:
one half is what a coin would say. Beside them stand the errors of the network, along the image and in depth, and those
of the flow branch beside no flow at all.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import roma
import torch
from rich.progress import track
from torch import Tensor

from ablation import test_items  # the script beside this one
from evhands.data.cache import cache_recordings
from evhands.data.items import Items
from evhands.hand.model import pose_hand
from evhands.hand_flow import hand_flow
from evhands.losses import smooth_loss
from evhands.models.checkpoint import read_checkpoint
from evhands.models.paper_stages import (
    StageConfig,
    event_terms,
    event_windows,
    flow_term,
    image_matrices,
    true_poses,
)
from evhands.models.small import SmallEstimator
from evhands.models.small_stages import branch_flow, pose_in_camera, run_windows
from evhands.small_recipes import small_semi_recipe
from evhands.stage_data import Sequences, training_sequences
from evhands.types import HandPose, InputError

PARTS = ("along the image", "depth", "turn", "fingers", "all")
LOSSES = ("contrast", "edge", "smooth")
STEPS = (0.0, 0.1, 1.0)


def led(predicted: HandPose, truth: HandPose, part: str, share: float) -> HandPose:
    """The predicted poses with one part led a share of the way to the true ones."""
    moved = predicted
    if part in ("along the image", "depth", "all"):
        mask = {"along the image": (1.0, 1.0, 0.0), "depth": (0.0, 0.0, 1.0), "all": (1.0, 1.0, 1.0)}[part]
        step = (truth.wrist - predicted.wrist) * share * truth.wrist.new_tensor(mask)
        moved = replace(moved, wrist=predicted.wrist + step)
    if part in ("turn", "all"):
        moved = replace(moved, orientation=between(predicted.orientation, truth.orientation, share))
    if part in ("fingers", "all"):
        moved = replace(
            moved,
            joints=between(predicted.joints, truth.joints, share),
            shape=predicted.shape + share * (truth.shape - predicted.shape),
        )
    return moved


def between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Rotation vectors a share of the way from the first to the second, on the shortest way."""
    a, b = roma.rotvec_to_rotmat(first), roma.rotvec_to_rotmat(second)
    return roma.rotmat_to_rotvec(a @ roma.rotvec_to_rotmat(share * roma.rotmat_to_rotvec(a.mT @ b)))


def short_items(whole: Items, windows: int, every: int = 2) -> Items:
    """Items of so many windows out of longer ones, one ending at every other window."""
    ends = range(windows, whole.label.shape[1] + 1, every)
    parts = []
    for e in ends:
        edges, first = (column[:, e - windows : e + 1] for column in (whole.edges_us, whole.first))
        parts.append(Items(whole.recording, whole.anchor, edges, first, whole.label[:, e - windows : e]))
    return Items.concatenate(parts, windows)


def said(hand, pose: HandPose, batch: dict[str, Tensor], config: StageConfig) -> dict[str, np.ndarray]:
    """The losses (b,) of some poses, each as something that training lowers; no pose is taken from a label."""
    K = image_matrices(batch)
    first, second = (replace(pose, **{n: getattr(pose, n)[:, s] for n in ("orientation", "wrist", "joints", "shape")})
                     for s in (slice(None, -1), slice(1, None)))  # fmt: skip
    moved = hand_flow(hand, first, second, K, config.size, config.hand_flow)
    free = torch.ones_like(batch["labelled"])
    terms = event_terms(hand, moved, event_windows(batch, config.size), K, free, {"contrast", "edge"}, config)
    return {
        "contrast": -terms["contrast"].values.mean(1).numpy(),
        "edge": torch.where(terms["edge"].counted, terms["edge"].values, torch.nan).numpy(),
        "smooth": smooth_loss(pose).numpy(),
    }


@torch.no_grad()
def probe(model: SmallEstimator, sequences: Sequences, count: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(loss, part) -> values (items, steps), under the name "loss/part"; and the errors."""
    items = sequences.items(0)
    count = min(count, len(items))
    chosen = items[np.linspace(0, len(items) - 1, count).astype(int)]
    config = replace(small_semi_recipe().losses, size=(96, 96))
    values: dict[str, list[np.ndarray]] = {}
    errors: dict[str, list[np.ndarray]] = {}
    for start in track(range(0, count, 12), "items"):
        batch = sequences.tensors(chosen[start : start + 12])
        output, decoded = run_windows(model, batch, batch["labelled"].shape[1])
        predicted, truth = pose_in_camera(model, output, decoded, batch["crop_K"]), true_poses(batch, model.hand)
        at_start = said(model.hand, predicted, batch, config)
        for part in PARTS:
            steps = [at_start, *(said(model.hand, led(predicted, truth, part, s), batch, config) for s in STEPS[1:])]
            for name in LOSSES:
                values.setdefault(f"{name}/{part}", []).append(np.stack([step[name] for step in steps], 1))
        joints = [1000 * pose_hand(model.hand, pose).joints()[:, -1] for pose in (predicted, truth)]
        away = joints[0] - joints[1]
        away = away - away[:, :1]
        found = {
            "MPJPE": away.norm(dim=-1), "along the image": away[..., :2].norm(dim=-1), "depth": away[..., 2].abs(),
        }  # fmt: skip
        if model.network.flow is not None:
            flow = branch_flow(model, batch)
            K = image_matrices(batch)
            moved = hand_flow(model.hand, *(replace(truth, **{n: getattr(truth, n)[:, s] for n in
                              ("orientation", "wrist", "joints", "shape")}) for s in (slice(None, -1), slice(1, None))),
                              K, config.size, config.hand_flow)  # fmt: skip
            found["flow"] = flow_term(flow, moved.flow, batch, config).values
            found["no flow"] = flow_term(torch.zeros_like(flow), moved.flow, batch, config).values
        for name, each in found.items():
            errors.setdefault(name, []).append(each.mean(1).numpy())
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return joined, {name: float(np.concatenate(parts).mean()) for name, parts in errors.items()}


def table(values: dict[str, np.ndarray]) -> str:
    """A line a loss: how often it falls at the first step towards the truth / is lower there, of each part."""
    lines = [f"{'share of the items':20}" + "".join(f"{part:>18}" for part in PARTS)]
    for name in LOSSES:
        cells = []
        for part in PARTS:
            v = values[f"{name}/{part}"]
            v = v[np.isfinite(v).all(1)]
            moves = v[:, 1] != v[:, 0]
            first = np.mean(v[moves, 1] < v[moves, 0]) if moves.any() else np.nan
            cells.append(f"{100 * first:6.0f} % / {100 * np.mean(v[:, 2] < v[:, 0]):3.0f} %")
        lines.append(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("runs", type=Path, nargs="+", help="run folders or checkpoints of scripts/ablation.py")
    parser.add_argument("--testset", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--items", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recordings = cache_recordings(sorted(options.testset.glob("*.h5")), options.cache)
    if not recordings:
        raise InputError(f"{options.testset} holds no recordings. Wanted those of the preset testset.")
    for half in ("frontal", "free"):
        chosen = [r for r in recordings if r.name.startswith(half)]
        config = replace(small_semi_recipe(), augment=None)
        items = short_items(test_items(chosen), config.windows.windows)
        whole = training_sequences(chosen, config)
        sequences = replace(whole, items=lambda epoch, items=items: items)
        for run in options.runs:
            model = read_checkpoint(run / "model.pt" if run.is_dir() else run, wanted="small").model.eval()
            values, errors = probe(model, sequences, options.items)
            print(f"\n{half}, {run.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in errors.items()))
            print(table(values))


if __name__ == "__main__":
    main()
