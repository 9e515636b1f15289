"""The YAML files of the published code, read and mapped key by key on the settings of this package.

Which keys there are is told by the configurations in the shared fixtures, and what they mean by the specification of
the method; the published code was not read. Every key is either mapped, or may have one value alone (what this package
does), or has no effect here. Any other key or value is an error that names it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from evhands.published_keys import FIXED, MAPPED, UNUSED, Refused
from evhands.types import InputError

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """What some published files say, merged.

    recipe: flow, supervised or semi. mode: train or eval. settings: of that recipe, by dotted name (see
    `settings.changed`). data, hand, start: folder of the data set, path of MANO_RIGHT.pkl, checkpoint to begin with;
    None where the files leave them open. devices: processes. log: what is to be shown and saved, by the published
    names. values: all of it, by dotted key. without_effect: keys that change nothing here, and why.
    """

    recipe: str
    mode: str
    settings: Values
    data: Path | None
    hand: Path | None
    start: Path | None
    devices: int | None
    log: Values
    values: Values
    without_effect: Mapping[str, str]


def read_published(paths: Sequence[Path]) -> PublishedConfig:
    """The published files, a later one over an earlier one as `--config_merge` does.

    InputError names a file that is no YAML, a key that is not known, and a value that cannot be honoured.
    """
    values: Values = {}
    for path in paths:
        values |= _known(_flat(_read(path)), path)
    return published_config(values)


def published_config(values: Values) -> PublishedConfig:
    """The meaning of merged values by dotted key."""
    try:
        for key, allowed in FIXED.items():
            _check_fixed(key, values.get(key, allowed[0]), allowed)
        recipe = _recipe(values)
        settings: Values = {}
        for key, value in values.items():
            if key in MAPPED:
                settings |= _mapped(key, value, recipe)
        settings |= _of_stage(values, recipe)
        return PublishedConfig(
            recipe=recipe,
            mode=values.get("exper.mode", "train"),
            settings=settings,
            data=_path(values, "exper.data_dir") or _path(values, "data.data_dir"),
            hand=_hand(values),
            start=_start(values),
            devices=_devices(values),
            log={key.removeprefix("log."): value for key, value in values.items() if key.startswith("log.")},
            values=values,
            without_effect={key: why for key in values if (why := _why_unused(key, values, recipe)) is not None},
        )
    except Refused as refused:
        raise InputError(str(refused)) from refused


# --- files ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Values:
    try:
        values = msgspec.yaml.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Wanted a published YAML file; check the path.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}. Wanted one; correct it.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}. Wanted sections such as data and method; correct it.")
    return values


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Values:
    found: Values = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= _flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def _known(values: Values, path: Path) -> Values:
    known = [*MAPPED, *FIXED, *UNUSED, *_ELSEWHERE]
    unknown = [key for key in values if key not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.8)
        guess = f" Is {near[0]} meant?" if near else ""
        raise InputError(
            f"{path}: no meaning is known of {', '.join(unknown)}.{guess} Wanted keys of the published files; correct "
            "it, or take it out."
        )
    return values


# --- meaning --------------------------------------------------------------------------------------------------------

_ELSEWHERE = (
    "data.data_dir", "exper.data_dir", "data.smplx_path", "exper.supervision", "exper.gpus",
    "method.model_path", "method.flow.model_path", "method.flow.train", "method.flow.fixed",
    "method.optimizers.flow_encoder.name", "method.optimizers.flow_encoder.lr",
    "method.optimizers.flow_encoder.weight_decay", "method.optimizers.infer_encoder.name",
    "method.optimizers.infer_encoder.lr", "method.optimizers.infer_encoder.weight_decay",
    "loss.joint_3d.weight", "loss.mano.weight", "loss.cm.weight", "loss.edge.weight", "loss.smooth.weight",
    "loss.flow.weight", "preprocess.augment.trans_range_x", "preprocess.augment.trans_range_y",
    "preprocess.max_window_time", "method.seq_model.seq_len", "preprocess.same_time_window",
)  # fmt: skip
"""Keys whose meaning depends on others; read below."""

_WEIGHTS = {
    "joint": "loss.joint_3d.weight", "parameter": "loss.mano.weight", "contrast": "loss.cm.weight",
    "edge": "loss.edge.weight", "smooth": "loss.smooth.weight", "flow": "loss.flow.weight",
}  # fmt: skip
_TERMS = {
    "flow": ("flow",),
    "supervised": ("joint", "parameter"),
    "semi": ("joint", "parameter", "contrast", "edge", "smooth"),
}


def _check_fixed(key: str, value: Any, allowed: Sequence[Any]) -> None:
    if not any(type(value) is type(one) and value == one or _same_number(value, one) for one in allowed):
        wanted = " or ".join(repr(one) for one in allowed)
        raise Refused(f"{key} = {value!r} cannot be honoured here. Wanted {wanted}; correct it.")


def _same_number(value: Any, other: Any) -> bool:
    numbers = [each for each in (value, other) if isinstance(each, (int, float)) and not isinstance(each, bool)]
    return len(numbers) == 2 and value == other


def _mapped(key: str, value: Any, recipe: str) -> Values:
    try:
        return MAPPED[key](value)
    except (TypeError, ValueError, IndexError) as error:
        raise Refused(f"{key} = {value!r}: {error}. Wanted such a value as the published files have.") from error


def _recipe(values: Values) -> str:
    """The stage: semi where semi-supervised items are asked for, flow where the FlowNet is to be trained."""
    kinds = values.get("exper.supervision", ["supervision"])
    if not isinstance(kinds, list) or "supervision" not in kinds or set(kinds) - {"supervision", "semi-supervision"}:
        raise Refused(f"exper.supervision = {kinds!r}. Wanted [supervision], with semi-supervision beside it or not.")
    semi, flow = "semi-supervision" in kinds, values.get("method.flow.train", False)
    fixed = values.get("method.flow.fixed", not flow)
    if type(flow) is not bool or fixed is flow:
        raise Refused(
            f"method.flow.train = {flow!r} and method.flow.fixed = {fixed!r} cannot be honoured. Wanted true and "
            "false (the stage flow), or false and true (the others)."
        )
    if flow and semi:
        raise Refused(f"method.flow.train = {flow!r} with exper.supervision = {kinds!r}. Wanted one stage at a time.")
    if flow and (other := [_WEIGHTS[n] for n in ("joint", "parameter") if values.get(_WEIGHTS[n], 0)]):
        raise Refused(f"{', '.join(other)} with method.flow.train: the stage flow learns flow alone. Wanted 0.")
    return "flow" if flow else "semi" if semi else "supervised"


def _of_stage(values: Values, recipe: str) -> Values:
    """Settings that depend on the stage or on several keys."""
    found: Values = {f"weights.{term}": _number(values, _WEIGHTS[term]) for term in _TERMS[recipe]}
    optimizer = f"method.optimizers.{'flow' if recipe == 'flow' else 'infer'}_encoder"
    found["learning_rate"] = _number(values, f"{optimizer}.lr")
    found["weight_decay"] = _number(values, f"{optimizer}.weight_decay")
    name = values.get(f"{optimizer}.name")
    if name not in (None, "Adam", "AdamW"):
        raise Refused(f"{optimizer}.name = {name!r} cannot be honoured here. Wanted Adam or AdamW.")
    found["optimizer"] = name and name.lower()
    x, y = (values.get(f"preprocess.augment.trans_range_{axis}") for axis in "xy")
    if x != y or x is not None and (not isinstance(x, list) or len(x) != 2 or x[0] != -x[1]):
        raise Refused(f"preprocess.augment.trans_range_x = {x!r}, trans_range_y = {y!r}. Wanted [-a, a] in both.")
    found["augment.shift_range_m"] = x and float(x[1])
    windows, longest = values.get("method.seq_model.seq_len"), _number(values, "preprocess.max_window_time")
    found |= {"windows.windows": windows, "evaluation.windows": windows, "windows.longest_us": longest}
    found["evaluation.history_us"] = windows and longest and int(windows * longest)
    window = _number(values, "preprocess.same_time_window")
    if recipe != "flow" and window is not None and abs(window - 1e6 / 15) > 1 and values.get("exper.mode") != "eval":
        raise Refused(
            f"preprocess.same_time_window = {window!r} cannot be honoured in training, whose labels are 1/15 s apart. "
            "Wanted 66666."
        )
    found["evaluation.window_us"] = window and int(window)
    return {name: value for name, value in found.items() if value is not None}


def _number(values: Values, key: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    try:  # YAML reads 5e-4 as text
        return float(value)
    except (TypeError, ValueError) as error:
        raise Refused(f"{key} = {value!r}. Wanted a number.") from error


def _path(values: Values, key: str) -> Path | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise Refused(f"{key} = {value!r}. Wanted a path.")
    return Path(value) if value else None


def _hand(values: Values) -> Path | None:
    """smplx_path is MANO_RIGHT.pkl, or a folder that holds it, as smplx takes it."""
    path = _path(values, "data.smplx_path")
    places = [] if path is None else [path / "MANO_RIGHT.pkl", path / "mano" / "MANO_RIGHT.pkl"]
    return next((place for place in places if place.exists()), path)


def _start(values: Values) -> Path | None:
    whole, flow = _path(values, "method.model_path"), _path(values, "method.flow.model_path")
    if whole and flow and whole != flow:
        raise Refused(
            f"method.model_path = {whole} and method.flow.model_path = {flow}. Wanted one checkpoint to begin with; "
            "one of a later stage holds the FlowNet too."
        )
    return whole or flow


def _devices(values: Values) -> int | None:
    gpus = values.get("exper.gpus")
    if gpus is not None and (type(gpus) is not int or gpus < 0):
        raise Refused(f"exper.gpus = {gpus!r}. Wanted how many; 0 and 1 both mean one process.")
    return gpus if gpus and gpus > 1 else None


def _why_unused(key: str, values: Values, recipe: str) -> str | None:
    terms = {_WEIGHTS[term] for term in _TERMS[recipe]}
    if key in _WEIGHTS.values() and key not in terms:
        return f"no loss of the stage {recipe}"
    other = "infer" if recipe == "flow" else "flow"
    if key.startswith(f"method.optimizers.{other}_encoder."):
        return f"not trained in the stage {recipe}"
    return UNUSED.get(key)
