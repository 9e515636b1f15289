"""Hand model and rasteriser on one thread, beside their naive formulations: `python benchmarks/bench_hand.py`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from dataclasses import replace

import numpy as np
import torch

from evhands.hand.model import HandModel, PosedHand, load_hand
from evhands.hand.raster import Raster, rasterize
from evhands.hand.raster_torch import rasterize_torch
from evhands.hand.skeleton import MANO16_PARENTS
from evhands.types import Size
from timing import Timing, machine_reference, measure

HANDS = 64
SIZE: Size = (346, 260)


def main() -> None:
    """Print a table: times on the clock, and of the processor, which a busy machine disturbs less."""
    torch.set_num_threads(1)
    model = load_hand("open")
    print(f"open hand: {len(model.vertices)} vertices, {len(model.faces)} faces; one thread; ms a call")
    print(f"  {'':<52} {'median':>9} {'fastest':>9} {'processor':>9}")
    _hand_model(model)
    _rasteriser(model)
    for name, value in machine_reference().items():
        _row(name, value)


def _row(name: str, times: Timing, note: str = "") -> None:
    print(f"  {name:<52} {times.median_ms:9.3f} {times.fastest_ms:9.3f} {times.processor_ms:9.3f}  {note}")


@torch.no_grad()
def _hand_model(model: HandModel) -> None:
    g = torch.Generator().manual_seed(0)
    shape, orientation, joints, wrist = (torch.randn(HANDS, *s, generator=g) for s in ((10,), (3,), (15, 3), (3,)))

    def posed(hand: HandModel) -> PosedHand:
        return hand.with_shape(shape).with_pose(orientation, joints * 0.3, wrist)

    bent = torch.randn(len(model.vertices), 3, 135, generator=g) * 1e-4
    mano_like = replace(model, pose_directions=bent)
    turns = posed(model).rotations.numpy()
    naive = measure(
        lambda: [naive_forward(model, shape[i].numpy(), turns[i], wrist[i].numpy()) for i in range(HANDS)], 5
    )
    fast = measure(lambda: posed(model).mesh())
    _row(
        f"mesh and joints of {HANDS} hands",
        fast,
        f"limit 8 ms; {naive.processor_ms / fast.processor_ms:.0f}x the naive one",
    )
    _row("  with pose directions, as MANO has them", measure(lambda: posed(mano_like).mesh()), "limit 8 ms")
    _row("  joints alone", measure(lambda: posed(model).joints()))
    _row("  naive: hand by hand, joint by joint (numpy)", naive)


def naive_forward(model: HandModel, shape: np.ndarray, turns: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """One hand, a 4x4 motion per joint and a loop over joints."""
    rest = model.vertices.numpy() + model.shape_directions.numpy() @ shape
    places = model.joint_regressor.numpy() @ rest
    motions: list[np.ndarray] = []
    posed = np.zeros_like(rest)
    for k, parent in enumerate(MANO16_PARENTS):
        about = np.eye(4, dtype=np.float32)
        about[:3, :3], about[:3, 3] = turns[k], places[k] - turns[k] @ places[k]
        motions.append(about if parent < 0 else motions[parent] @ about)
        carried = rest @ motions[k][:3, :3].T + motions[k][:3, 3]
        posed += model.skin_weights.numpy()[:, k : k + 1] * carried
    return posed - places[0] + wrist


def _rasteriser(model: HandModel) -> None:
    points, faces = _projected(model), model.faces.numpy().astype(np.int32)
    out = Raster.empty(SIZE)
    fast = measure(lambda: rasterize(points, faces, SIZE, out=out), 200)
    naive = measure(lambda: naive_raster(points, faces, SIZE), 3)
    tensors = torch.from_numpy(points), torch.from_numpy(faces)
    other = measure(lambda: rasterize_torch(*tensors, SIZE), 10)
    same = np.mean(naive_raster(points, faces, SIZE) == out.face)
    covered = np.mean(out.face >= 0)
    note = f"limit 0.6 ms; {naive.processor_ms / fast.processor_ms:.0f}x the naive one; {same:.2%} of the pixels equal"
    _row(f"rasteriser {SIZE[0]} x {SIZE[1]}, hand on {covered:.1%} of it", fast, note)
    _row("  allocating its output", measure(lambda: rasterize(points, faces, SIZE), 200))
    _row("  with a blur of 0.7 px", measure(lambda: rasterize(points, faces, SIZE, blur_px=0.7, out=out), 50))
    _row("  torch path on the CPU", other)
    _row("  naive: face by face, boxes in numpy, depth only", naive)


def _projected(model: HandModel) -> np.ndarray:
    """The flat hand, palm to the camera, 0.55 m away: about 5 % of the image."""
    x, y, z = model.vertices.numpy().astype(np.float64).T
    z_camera = y + 0.55
    return np.stack([172 + 290 * (z - z.mean()) / z_camera, 130 + 290 * (x - x.mean()) / z_camera, z_camera], 1)


def naive_raster(points: np.ndarray, faces: np.ndarray, size: Size) -> np.ndarray:
    """Face by face, each bounding box as arrays; the index of the nearest face."""
    nearest = np.zeros((size[1], size[0]))
    seen = np.full(nearest.shape, -1)
    for f, face in enumerate(faces):
        corners = points[face]
        low = np.clip(np.ceil(corners[:, :2].min(0)), 0, size).astype(int)
        high = np.clip(np.floor(corners[:, :2].max(0)) + 1, 0, size).astype(int)
        if (low >= high).any():
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        (ua, va), (ub, vb), (uc, vc) = corners[:, :2]
        wa = (ub - x) * (vc - y) - (uc - x) * (vb - y)
        wb = (uc - x) * (va - y) - (ua - x) * (vc - y)
        wc = (ua - x) * (vb - y) - (ub - x) * (va - y)
        total = wa + wb + wc
        if not total.all():
            continue
        near = (wa / corners[0, 2] + wb / corners[1, 2] + wc / corners[2, 2]) / total
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        wins = (wa * total >= 0) & (wb * total >= 0) & (wc * total >= 0) & (near > nearest[box])
        nearest[box][wins] = near[wins]
        seen[box][wins] = f
    return seen


if __name__ == "__main__":
    main()
