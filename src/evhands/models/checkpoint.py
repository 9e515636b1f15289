"""Checkpoints of evhands: one file that rebuilds its model alone and says where its weights come from.

A file is a `torch.save`d dict of plain types and tensors: format, version, model (a name of `MODELS`), config (nested
dicts), state_dict, meta. It is read with `weights_only=True` and `strict=True`.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import typing
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evhands.files import replacing
from evhands.models.detector import Detector
from evhands.models.estimator import Estimator
from evhands.types import InputError

FORMAT = "evhands.checkpoint"
VERSION = 1
ASSETS = Path(__file__).parents[1] / "assets"

MODELS: dict[str, tuple[str, str, str]] = {
    "paper": ("evhands.models.paper", "PaperConfig", "PaperEstimator"),
    "flow": ("evhands.models.flow", "FlowConfig", "FlowNet"),
    "small": ("evhands.models.small", "SmallConfig", "SmallEstimator"),
    "detector": ("evhands.models.detector", "DetectorConfig", "Detector"),
    "recogniser": ("evhands.models.recogniser", "RecogniserConfig", "Recogniser"),
}
"""Model name -> (module, config class, model class); imported when used. A model is built as `Model(config)`."""


def code_version() -> str:
    """The version of evhands, with the commit where it runs from its repository."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True).stdout.strip()

    # Installed into an environment inside some other repository, the commit there would tell nothing of ours.
    tracked = shutil.which("git") and git("ls-files", here.name)
    return version("evhands") + (f"+{git('describe', '--always', '--dirty')}" if tracked else "")


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """Where weights come from; `figures` are the numbers measured with them, under their names."""

    data: dict[str, Any] = field(default_factory=dict)
    """Data sets and their split, in plain types."""
    code_version: str = field(default_factory=code_version)
    seed: int = 0
    command: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was saved, in evaluation mode, and where it comes from."""

    name: str
    model: nn.Module
    meta: CheckpointMeta


def save_checkpoint(path: Path | str, name: str, model: nn.Module, meta: CheckpointMeta, *, half: bool = False) -> None:
    """Write `model` (of the name in `MODELS`) to `path`; what was there before is replaced only on success.

    half stores floating-point weights in 16 bits (half the file; about three decimal digits stay), which reading turns
    back into 32. Raises InputError where the file cannot be written.
    """
    weights = {key: _stored(value, half) for key, value in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": name,
        "config": dataclasses.asdict(typing.cast(Any, model.config)),
        "state_dict": weights,
        "meta": dataclasses.asdict(meta),
    }
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OSError(None, " ".join(str(error).split())[:200]) from error


def read_checkpoint(path: Path | str, *, wanted: str | None = None) -> Checkpoint:
    """Rebuild the model of a checkpoint on the CPU; InputError for any other file, or another model than `wanted`."""
    content = _read(path)
    name = content["model"]
    if name not in MODELS or (wanted is not None and name != wanted):
        raise InputError(
            f"{path} holds a model of the kind {name!r}, wanted "
            f"{repr(wanted) if wanted else 'one of ' + ', '.join(MODELS)}. Choose another checkpoint, or the evhands "
            f"that wrote this one ({content['meta'].get('code_version') or 'version unknown'})."
        )
    module, config_name, model_name = MODELS[name]
    config_class, model_class = (getattr(import_module(module), part) for part in (config_name, model_name))
    try:
        model = model_class(from_dict(config_class, content["config"]))
        model.load_state_dict(content["state_dict"], strict=True)
        meta = from_dict(CheckpointMeta, content["meta"])
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} does not fit the model {name!r} of this evhands ({version('evhands')}): {error} "
            "Use the evhands that wrote it, or train again."
        ) from error
    return Checkpoint(name, model.eval(), meta)


def checkpoint_path(name_or_path: Path | str) -> Path:
    """The file of a model that ships with evhands by its name, or the file named; InputError where there is none."""
    shipped = ASSETS / f"{name_or_path}.pt"
    path = shipped if shipped.exists() else Path(name_or_path)
    if not path.exists():
        names = sorted(p.stem for p in ASSETS.glob("*.pt") if p.stem not in ("detector", "recogniser"))
        raise InputError(
            f"There is no model {str(name_or_path)!r}: wanted one that ships with evhands "
            f"({', '.join(names) or 'none'}) or the path of a checkpoint. Check the name."
        )
    return path


def load_model(name_or_path: Path | str) -> tuple[Estimator, Detector]:
    """(estimator, detector): a model that ships with evhands by its name, or a checkpoint file, with our detector."""
    path = checkpoint_path(name_or_path)
    found = read_checkpoint(path)
    if not isinstance(found.model, Estimator):
        raise InputError(
            f"{path} holds a {found.name!r}, which alone gives no hand poses; wanted an estimator such as 'small'. "
            "Choose the checkpoint of an estimator."
        )
    detector = read_checkpoint(ASSETS / "detector.pt", wanted="detector").model
    return found.model.for_inference(), typing.cast(Detector, detector)


def from_dict(kind: type[Any], values: dict[str, Any]) -> Any:
    """The dataclass `kind` with nested dataclasses and tuples restored; TypeError names an unknown or missing key."""
    hints = typing.get_type_hints(kind)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise TypeError(f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(hints)}.")
    return kind(**{key: _restored(hints[key], value) for key, value in values.items()})


def _restored(hint: Any, value: Any) -> Any:
    for part in (hint, *typing.get_args(hint)):  # the dataclass itself, or the one of `X | None`
        if dataclasses.is_dataclass(part) and isinstance(value, dict):
            return from_dict(typing.cast(type, part), value)
    return tuple(value) if isinstance(value, list) else value


def _stored(value: Tensor, half: bool) -> Tensor:
    # A clone, because torch.save writes the whole storage that a view belongs to.
    value = value.detach().cpu().contiguous().clone()
    return value.half() if half and value.is_floating_point() else value


def _read(path: Path | str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for a damaged or foreign file
        raise InputError(
            f"Could not read {path} as a checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Wanted a checkpoint written by evhands; check the path, and copy the file again if it is truncated."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        keys = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} is no checkpoint of evhands: found {keys}, wanted 'format': '{FORMAT}'. "
            "A published Lightning checkpoint is read by evhands.models.published.load_published."
        )
    if content["version"] != VERSION:
        raise InputError(
            f"{path} has the checkpoint version {content['version']}, wanted {VERSION}: use the evhands that wrote it, "
            f"or a newer one than {version('evhands')}."
        )
    return content
