"""The keys of the published YAML files: what each means here (O-numbers: oddities of that code, see `docs/data.md`).

A later version of those files may bring more keys; they are refused until they stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

Values = dict[str, Any]


class Refused(Exception):
    """A published value that cannot be honoured."""


def _to(*names: str, kind: Callable[[Any], Any]) -> Callable[[Any], Values]:
    return lambda value: {name: kind(value) for name in names}


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isfinite(number := float(value)):  # YAML reads 5e-4 as text
        raise ValueError("wanted a number")
    return number


def _whole(value: Any) -> int:
    if _real(value) != int(number := _real(value)):
        raise ValueError("wanted a whole number")
    return int(number)


def _numbers(count: int, kind: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"wanted {count} numbers")
        return tuple(kind(each) for each in value)

    return read


def _subjects(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("wanted a list of subjects")
    return tuple(str(each) for each in value)


def _cell(value: Any) -> str:
    cells = {"ConvGRU": "gru", "ConvLSTM": "lstm"}
    if value not in cells:
        raise ValueError(f"wanted one of {', '.join(cells)}")
    return cells[value]


def _crop(value: Any) -> Values:
    side = _whole(value)
    return {"model.inputs.size_px": side, "model.flow.range_px": side / 8}


def _encoder_width(value: Any) -> Values:
    channels = tuple(_whole(value) * factor for factor in (1, 2, 4, 8))
    return {"model.pose.encoder.channels": channels, "model.pose.recurrent_channels": channels[-1]}


def _head(value: Any) -> Values:
    hidden, outputs = _numbers(2, _whole)(value)
    if outputs != 61:
        raise ValueError("wanted 61 outputs")
    return {"model.pose.hidden": hidden}


def _reach(value: Any) -> tuple[int, int]:
    half = _whole(value) // 2
    return -half, half


MAPPED: dict[str, Callable[[Any], Values]] = {
    "exper.epochs": _to("epochs", kind=_whole),
    "data.train_subject": _to("split.train", kind=_subjects),
    "data.val_subject": _to("split.validation", kind=_subjects),
    "data.eval_subject": _to("split.test", kind=_subjects),
    "preprocess.batch_size": _to("batch", kind=_whole),
    "preprocess.annot_use_rate": _to("labels", kind=_real),
    "preprocess.num_events": _to("losses.most_events", kind=_whole),
    "preprocess.window_time_var": _to("windows.spread_us", kind=_real),
    "preprocess.min_window_time": _to("windows.shortest_us", kind=_real),
    "preprocess.test_fps": _to("evaluation.rate_hz", kind=_real),
    "preprocess.test_fps_fast": _to("evaluation.fast_rate_hz", kind=_real),
    "preprocess.same_time_window_fast": _to("evaluation.fast_window_us", kind=_whole),
    "preprocess.augment.depth_range": _to("augment.depth_range_m", kind=_numbers(2, _real)),
    "preprocess.augment.scale_var": _to("augment.depth_m", kind=_real),
    "preprocess.augment.rotate_var": _to("augment.turn", kind=_real),
    "preprocess.augment.trans_var": _to("augment.shift_m", kind=_real),
    "preprocess.augment.gaussian_sigma": _to("augment.noise", kind=_real),
    "preprocess.augment.salt_pepper": _to("augment.salt", kind=_real),
    "preprocess.bbox.joints_to_bbox_rate": _to("model.inputs.crop_scale", kind=_real),
    "preprocess.bbox.size": _crop,
    "preprocess.bbox.shift_var": _to("augment.jitter", kind=_real),
    "method.flow.num_bins": _to("model.flow.bins", "model.inputs.voxel_bins", kind=_whole),
    "method.flow.base_num_channels": _to("model.flow.base_channels", kind=_whole),
    "method.flow.kernel_size": _to("model.flow.kernel_size", kind=_whole),
    "method.flow.num_encoders": _to("model.flow.levels", kind=_whole),
    "method.flow.num_residual_blocks": _to("model.flow.residual_blocks", kind=_whole),
    "method.event_encoder.base_num_channels": _encoder_width,
    "method.encoder_fusion.channel_sizes": _to("model.pose.encoder.blocks", kind=_numbers(4, _whole)),
    "method.seq_model.model": _to("model.pose.cell", kind=_cell),
    "method.seq_model.annot_len": _to("windows.outputs", kind=_whole),
    "method.predictor.mean": _to("model.pose.translation_mean", kind=_numbers(3, _real)),
    "method.predictor.scale": _to("model.pose.translation_scale", kind=_numbers(3, _real)),
    "method.predictor.layer_dims": _head,
    "loss.cm.N_inter": _to("losses.hand_flow.in_between", kind=_whole),
    "loss.edge.factor": _to("losses.edge.share", kind=_real),
    "loss.edge.motion_bias": _to("losses.edge.motion_bias_px", kind=_real),
    "loss.edge.orient_bias": _to("losses.edge.orientation_bias", kind=_real),
    "loss.edge.iwe_percentage": _to("losses.edge.quantile", kind=lambda value: round(1 - _real(value), 12)),
    "loss.edge.search_window": _to("losses.edge.reach", kind=_reach),
    "loss.edge.dist_bias": _to("losses.edge.distance_bias_px2", kind=_real),
}
"""Published key -> settings of a stage, by their dotted names."""

FIXED: dict[str, Sequence[Any]] = {
    "exper.mode": ("train", "eval"),
    "exper.debug": (False,),
    "exper.early_stop": (False,),
    "exper.strategy": ("ddp",),
    "data.dataset": ("EvHand",),
    "data.fps": (15,),
    "data.hand_type": ("right",),
    "data.flip": (True,),
    "data.gesture_type": ("all",),
    "data.mano_key": ("manos",),
    "preprocess.repre": ("LNES",),
    "preprocess.interpolate": (True,),
    "preprocess.time_window_method": ("same_time",),
    "preprocess.window_stride": (1,),
    "preprocess.activity_filter": (False,),
    "preprocess.test_window_augmentation": (False,),
    "preprocess.augment.gaussian_mean": (0,),
    "preprocess.bbox.usage": (True,),
    "preprocess.bbox.resize": (True,),
    "method.name": ("EvHands",),
    "method.block": ("BasicBlock",),
    "method.supervision_type": ("all_loss",),
    "method.loop_supervision": (1,),
    "method.flow.usage": (True,),
    "method.flow.last_for_output": (True,),
    "method.event_encoder.usage": (True,),
    "method.event_encoder.num_bins": (1,),
    "method.event_encoder.channel_sizes": ([],),
    "method.event_encoder.residual_norm": ("BN",),
    "method.encoder_fusion.residual_norm": ("BN",),
    "method.seq_model.num_layers": (1,),
    "loss.mano.trans_weight": (2000,),
    "loss.mano.rot_weight": (10,),
    "loss.mano.hand_pose_weight": (5,),
    "loss.mano.shape_weight": (0.25,),
    "loss.smooth.margin": (0.5,),
    "loss.smooth.soften": (True,),
    "loss.smooth.soften_rate": (1,),
    "loss.smooth.trans_weight": (1000,),
    "loss.smooth.rot_weight": (0.1,),
    "loss.smooth.hand_pose_weight": (1,),
    "loss.smooth.shape_weight": (0.2,),
    "loss.edge.motion": (True,),
    "loss.edge.orient": (True,),
    "loss.supervision.weight": (0, 1, 2),
}
"""Published key -> the values that it may have: what is done here, whether it says so or not."""

_SIZE = "the size of the image is that of the recordings"
_FOLDER = "the folder of the run is given on the command line"
_SPEED = "unused with time_window_method same_time"
_SHOWN = "what is shown and saved is up to the commands evaluate and report"
_FILTER = "the activity filter is off"
_KALMAN = "the published evaluation does not filter either (O42)"

UNUSED: dict[str, str] = {
    "exper.output_dir": _FOLDER,
    "exper.exper_name": _FOLDER,
    "exper.patience": "no run ends early; best.pt is the best by validation",
    "data.width": _SIZE,
    "data.height": _SIZE,
    "preprocess.width": _SIZE,
    "preprocess.height": _SIZE,
    "preprocess.num_workers": "batches are made in the process that trains",
    "preprocess.update_period": "semi-supervised items are drawn anew every epoch (O28)",
    "preprocess.acquire_aps": "frames are not read where nobody looks at them (O21)",
    "preprocess.activity_filter_delta_t": _FILTER,
    "preprocess.activity_filter_N_thre": _FILTER,
    "preprocess.hand_motion_per_window": _SPEED,
    "preprocess.default_hand_speed": _SPEED,
    "preprocess.speed_update_pre": _SPEED,
    "preprocess.window_size_var": _SPEED,
    "loss.basic.blur_radius": "silhouettes are not dilated (O38); losses.hand_flow.blur_px would",
    "loss.supervision.weight": "no loss is known to bear it; the terms have weights of their own",
    **{f"method.kalman_filter.{name}": _KALMAN for name in ("usage", "var", "R_coef", "seq_len", "min_std", "sigma")},
    **{
        f"log.{name}": _SHOWN
        for name in (
            "aligned_mesh", "gt_show", "imshow", "inter_debug", "render_background", "save_crop", "save_eci",
            "save_fast", "save_flow", "save_images", "save_result", "show_mesh", "verbose",
        )
    },
}  # fmt: skip
"""Published key -> why it changes nothing here."""
