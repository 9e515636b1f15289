"""The arrays of hand models, from files, without torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from evhands.hand.mano import read_mano
from evhands.types import InputError

_OPEN_HAND = Path(__file__).parent.parent / "assets" / "open_hand.npz"
_WANTED = (
    "name", "vertices", "faces", "shape_directions", "joint_regressor", "skin_weights", "mean_pose", "pose_components",
    "pose_std", "tip_vertices",
)  # fmt: skip


def read_hand(name_or_path: str | Path = "open", *, fix_left_shape: bool = True) -> dict[str, Any]:
    """The arrays, named as the fields of `evhands.hand.model.HandModel`, of the open hand ("open"), of a file of the
    same .npz layout, or of the user's MANO pickle (.pkl; see `evhands.hand.mano.read_mano`).

    Floating-point arrays are float32. Files that are no hand model give an InputError.
    """
    if name_or_path == "open":
        return dict(_open_hand())
    path = Path(name_or_path)
    return _read_npz(path) if _is_zip(path) else _singles(read_mano(path, fix_left_shape=fix_left_shape))


@cache
def _open_hand() -> dict[str, Any]:
    return _read_npz(_OPEN_HAND)


def _singles(arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(value, np.float32) if np.asarray(value).dtype.kind == "f" else value
        for name, value in arrays.items()
    }


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise InputError(
            f"Could not open the hand model {path}: {error.strerror or error}. Wanted 'open', a .npz hand or a "
            "MANO .pkl (MANO_RIGHT.pkl, from mano.is.tue.mpg.de after registration); check the path."
        ) from error


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        if missing := [name for name in _WANTED if name not in arrays]:
            raise KeyError(", ".join(missing))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"Found {path}, which is no hand model: {error}. Wanted an .npz with the arrays that "
            "evhands.hand.model.HandModel lists; give another file or 'open'."
        ) from error
    return _singles(arrays)
