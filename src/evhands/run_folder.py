"""What a folder of a training run says of itself: settings, environment, code, data, and a row for each validation."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evhands.files import replacing
from evhands.machine import processor_name
from evhands.models.checkpoint import code_version
from evhands.types import InputError

_PACKAGES = ("evhands", "torch", "numpy", "numba", "lightning")


def describe_run(
    out: Path, recipe: str, config: Any, data: Mapping[str, Any], command: str, processes: int = 1
) -> None:
    """Write config.json, environment.json, data.json and, where the code differs from its commit, code.diff.

    InputError where the folder holds a run of another recipe.
    """
    if (there := out / "config.json").exists() and (other := json.loads(there.read_text()).get("recipe")) != recipe:
        raise InputError(f"{out} holds a run of the recipe {other!r}, wanted {recipe!r}: choose another folder.")
    _write(out / "config.json", {"recipe": recipe, **dataclasses.asdict(config)})
    told = {"command": command, "processes": processes, "code": code_version()}
    _write(out / "environment.json", told | environment())
    _write(out / "data.json", data)
    if difference := _git("diff", "HEAD"):
        with replacing(out / "code.diff") as temporary:
            temporary.write_text(difference, encoding="utf-8")


def environment() -> dict[str, Any]:
    """Python, packages and the machine."""
    return {
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def checksum(paths: list[Path]) -> str:
    """How many files there are, and a checksum of their names, sizes and first and last 64 KiB."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest.update(f"{path.name} {size} ".encode() + file.read(1 << 16))
            file.seek(max(size - (1 << 16), 0))
            digest.update(file.read())
    return f"{len(paths)} files, {digest.hexdigest()[:16]}"


def append_row(out: Path, values: Mapping[str, float]) -> None:
    """A row of log.csv."""
    path = out / "log.csv"
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(values)
        writer.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in values.values()])


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _git(*words: str) -> str:
    """What git says of the repository that this code runs from; nothing where it is installed elsewhere."""
    if "+" not in code_version() or not shutil.which("git"):
        return ""
    command = ["git", *words]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout
