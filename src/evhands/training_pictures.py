"""Pictures of a training for tensorboard, of a few items of validation that stay the same ones.

Of every model the crop's events with the true skeleton (white) and the predicted one; of the paper's stages also images
of warped events, all drawn to one scale: the better a flow, the thinner and brighter their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from evhands.data.items import supervised_items
from evhands.data.shards import Pool
from evhands.events.warp_torch import image_of_warped_events
from evhands.geometry import project
from evhands.hand.model import pose_hand
from evhands.hand_flow import crop_flow, hand_flow
from evhands.models.paper import PaperEstimator
from evhands.models.paper_stages import PARTS, image_matrices, in_camera, true_poses
from evhands.models.small import SmallEstimator, virtual_rotation
from evhands.overlay import FINGER_COLOURS, OverlayStyle, draw_event_image, draw_skeleton, with_text
from evhands.recipes import SmallTask
from evhands.stage_data import Sequences, stage_batch
from evhands.stage_task import StageTask
from evhands.task import Task, on_device_of
from evhands.types import HandPose, WindowBatch

Panel = UInt8[np.ndarray, "h w 3"]
ITEMS, WINDOWS = 4, 4
"""Items of validation (of `small` clips), and windows of a clip, that are drawn."""
PANEL_PX = 300
"""Panels are as large as whole multiples of the crop come to at most."""
_GAP_PX = 4
_WHITE = ((0.92, 0.92, 0.92),) * 5
_STYLE = OverlayStyle(bone_px=2.2, joint_px=2.6)
_TRUTH = OverlayStyle(bone_px=3.0, joint_px=2.2)


@torch.no_grad()
def pictures(task: Task, model: nn.Module, pool: Any) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """By name; none of tasks that have nothing to show. The model is in evaluation mode."""
    if isinstance(task, StageTask) and isinstance(model, PaperEstimator):
        return _of_stage(task, model, pool)
    if isinstance(task, SmallTask) and isinstance(model, SmallEstimator) and len(pool):
        return {"predictions": _of_small(task, model, pool)}
    return {}


def skeletons_panel(
    image: Float[np.ndarray, "2 s s"],
    truth: Float[np.ndarray, "21 2"],
    predicted: Float[np.ndarray, "21 2"] | None,
    text: str,
) -> Panel:
    """An image of events in a crop, and joints in pixels of that crop."""
    scale = _scale(image)
    picture = _enlarged(draw_event_image(image, _STYLE), scale)
    for joints, style, colours in ((truth, _TRUTH, _WHITE), (predicted, _STYLE, FINGER_COLOURS)):
        if joints is not None:
            draw_skeleton(picture, (joints + 0.5) * scale - 0.5, style, colours)
    return with_text(picture, text)


def sheet(rows: Sequence[Sequence[Panel]]) -> Panel:
    """Panels of one size beside and below each other; a row may have fewer than the first."""
    height, width = (size + _GAP_PX for size in rows[0][0].shape[:2])
    page = np.full((len(rows) * height - _GAP_PX, len(rows[0]) * width - _GAP_PX, 3), 40, np.uint8)
    for i, row in enumerate(rows):
        for k, panel in enumerate(row):
            page[i * height : (i + 1) * height - _GAP_PX, k * width : (k + 1) * width - _GAP_PX] = panel
    return page


# --- the stages -----------------------------------------------------------------------------------------------------


def _of_stage(task: StageTask, model: PaperEstimator, pool: Sequences) -> dict[str, Panel]:
    items = supervised_items(pool.dataset.recordings, task.config.windows)  # whose last windows have a true flow
    if not len(items):
        return {}
    cut = pool.dataset.batch(items[_spread(len(items), ITEMS)], seed=pool.seed)
    batch = stage_batch(cut, task.config.windows.outputs) | {"size": torch.tensor(pool.dataset.size)}
    batch = on_device_of(model, batch)
    prediction = model(batch)[0]
    pose = None
    if task.config.stage != "flow":
        pose = _steps(prediction.pose, slice(-task.config.windows.outputs, None))
        pose = in_camera(model, pose, batch["crop_K"], batch["K"])
    seen = batch["lnes"][:, -1].cpu().numpy()
    truth = _pixels(batch["joints_m"][:, -1], batch["crop_K"][:, -1])
    predicted = None
    if pose is not None:
        joints = pose_hand(task.hand.to(batch["K"].device), pose).joints()[:, -1]
        predicted = _pixels(joints, batch["crop_K"][:, -1])
    warped = _warped(task, batch, cut.windows, pose, None if prediction.flow is None else prediction.flow[:, -1])
    rows = []
    for i, image in enumerate(seen):
        name = pool.dataset.recordings[cut.recording[i]].name
        usual = _usual(warped["events"][i])
        panels = [skeletons_panel(image, truth[i], None if predicted is None else predicted[i], name)]
        panels += [_events_panel(images[i], usual, text) for text, images in warped.items()]
        rows.append(panels)
    return {"predictions" if predicted is not None else "truth": sheet([[row[0] for row in rows]]),
            "warped_events": sheet([row[1:] for row in rows])}  # fmt: skip


def _warped(
    task: StageTask, batch: dict[str, Tensor], windows: WindowBatch, pose: HandPose | None, flow: Tensor | None
) -> dict[str, np.ndarray]:
    """Images (b, 2, s, s) of the last window's events in the crop, by what moved them to the window's end."""
    events = _last_windows(windows, len(batch["K"]), batch["K"].device)
    none = batch["lnes"].new_zeros(len(batch["K"]), 2, *batch["lnes"].shape[-2:])
    flows = {"events": none, "warped by the true poses": _crop_flow(task, batch, true_poses(batch, task.hand))}
    if pose is not None:
        flows["warped by the predicted poses"] = _crop_flow(task, batch, pose)
    if flow is not None:
        flows["warped by the FlowNet"] = flow.to(none.dtype)
    return {name: image_of_warped_events(events, each, 1.0).cpu().numpy() for name, each in flows.items()}


def _crop_flow(task: StageTask, batch: dict[str, Tensor], pose: HandPose) -> Float[Tensor, "b 2 s s"]:
    """The hand flow of the last window, seen in its crop."""
    K, crop_K = image_matrices(batch)[:, -1], batch["crop_K"][:, -1]
    size = (int(batch["size"][0]), int(batch["size"][1]))
    start, end = (_steps(pose, at) for at in (-2, -1))
    moved = hand_flow(task.hand.to(K.device), start, end, K, size, task.stage_config.hand_flow)
    return crop_flow(moved.flow, K, crop_K, batch["lnes"].shape[-1])


def _last_windows(windows: WindowBatch, count: int, device: torch.device) -> WindowBatch:
    """The last window of each of `count` items."""
    ends = windows.offsets.reshape(-1)[1:].reshape(count, -1)[:, -1]
    starts = windows.offsets[:-1].reshape(count, -1)[:, -1]
    chosen = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends)])
    x, y, t, p = (
        torch.from_numpy(column[chosen]).to(device) for column in (windows.x, windows.y, windows.t, windows.p)
    )
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(ends - starts)])).to(device)
    return WindowBatch(x, y, t, p, offsets, windows.size)


# --- small ----------------------------------------------------------------------------------------------------------


def _of_small(task: SmallTask, model: SmallEstimator, pool: Pool) -> Panel:
    """A row for each clip, through which the memory is carried."""
    rows = pool.take(_spread(len(pool), ITEMS))
    windows = rows["lnes"].shape[1]
    batch = on_device_of(model, task.batch(rows, np.tile(np.arange(windows), (len(rows), 1))))
    _, decoded, _ = task.outputs(model, batch)
    R_camera_virtual = virtual_rotation(batch["K"], model.input_config.size_px)
    predicted = _pixels(decoded.joints @ R_camera_virtual.mT, batch["K"])
    truth = _pixels(batch["joints"], batch["K"])
    images = batch["lnes"].cpu().numpy()
    chosen = _spread(windows, WINDOWS + 1)[1:]
    return sheet(
        [
            [skeletons_panel(images[t, b], truth[t, b], predicted[t, b], f"clip {b}, window {t + 1}") for t in chosen]
            for b in range(len(rows))
        ]
    )


# --- pieces ---------------------------------------------------------------------------------------------------------


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` numbers below count, from first to last."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(int))


def _steps(pose: HandPose, steps: slice | int) -> HandPose:
    return replace(pose, **{name: getattr(pose, name)[:, steps] for name in PARTS})


def _pixels(joints: Tensor, K: Tensor) -> np.ndarray:
    return project(joints, K).cpu().numpy()


def _scale(image: np.ndarray) -> int:
    return max(1, PANEL_PX // image.shape[-1])


def _enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    return np.repeat(np.repeat(picture, scale, axis=0), scale, axis=1)


def _usual(image: np.ndarray) -> float:
    total = image.sum(0)
    return max(0.5, float(np.quantile(total[total > 0], 0.97))) if (total > 0).any() else 1.0


def _events_panel(image: np.ndarray, usual: float, text: str) -> Panel:
    return with_text(_enlarged(draw_event_image(image, _STYLE, usual), _scale(image)), text)
