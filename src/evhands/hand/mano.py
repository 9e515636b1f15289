"""Read the user's MANO pickles without chumpy and without running anything that a pickle may ask for.

MANO (Romero et al. 2017) comes as Python-2 pickles that hold numpy arrays, a scipy matrix and chumpy nodes. The reader
here builds those as plain data and refuses every other class, so that a foreign pickle cannot execute code.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy._core import multiarray

from evhands.types import InputError, Side

TIP_VERTICES = (744, 320, 443, 554, 671)
"""Vertices of MANO that stand for the tips of thumb, index, middle, ring and little finger (the common choice)."""

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "v_template": (778, 3),
    "f": (None, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "hands_mean": (45,),
    "hands_components": (45, 45),
    "kintree_table": (2, 16),
}
"""What a MANO pickle must hold; None = any length."""


def read_mano(path: Path | str, *, fix_left_shape: bool = True) -> dict[str, Any]:
    """Read a MANO pickle into arrays named as the fields of `HandModel` (name "mano", side told from the template).

    The published left model has the shape directions of the right one without the mirroring of x. With fix_left_shape
    their x is negated when they equal those of the MANO_RIGHT.pkl beside the file; where there is none, when the first
    direction (the size of the hand) grows y and z but shrinks x or the reverse, which no size does.
    Anything that is not a whole MANO pickle gives an InputError.
    """
    path = Path(path)
    arrays = _read_checked(path)
    side = _side(arrays)
    shape_directions = arrays["shapedirs"]
    if side == "left" and fix_left_shape and _shape_is_unmirrored(path, arrays):
        shape_directions = shape_directions * np.array([-1.0, 1.0, 1.0])[:, None]
    coefficients = arrays.get("hands_coeffs")
    return {
        "name": "mano",
        "side": side,
        "vertices": arrays["v_template"],
        "faces": arrays["f"],
        "shape_directions": shape_directions,
        "pose_directions": arrays["posedirs"],
        "joint_regressor": arrays["J_regressor"],
        "skin_weights": arrays["weights"],
        "mean_pose": arrays["hands_mean"],
        "pose_components": arrays["hands_components"],
        "pose_std": np.ones(45) if coefficients is None else np.std(coefficients, axis=0),
        "tip_vertices": np.array(TIP_VERTICES),
    }


def load_restricted(path: Path | str) -> Any:
    """Unpickle plain data, numpy arrays, scipy csc matrices and chumpy nodes; every other class is an InputError.

    Python-2 strings are read as latin-1. Matrices and nodes come back as numpy arrays, at any depth of dicts and lists.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"could not be opened ({error.strerror or error})") from error
    try:
        return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    except _RefusedClassError as error:
        raise _refusal(path, f"asks for {error}, which no MANO pickle holds (it could run foreign code)") from error
    except EOFError as error:
        raise _refusal(path, f"ends too early after {len(content)} bytes") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _refusal(path, f"is no readable pickle ({type(error).__name__}: {error})") from error


class _RefusedClassError(Exception):
    pass


class _Node:
    """Stands for a chumpy node or a scipy matrix: keeps the pickled state, does nothing."""


class _Ch(_Node):
    pass


class _Select(_Node):
    pass


class _Csc(_Node):
    pass


def _encode(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, by which Python 3 writes bytes at protocol 2: latin-1 only."""
    if encoding != "latin1":
        raise _RefusedClassError(f"the codec {encoding}")
    return text.encode("latin1")


def _reconstruct_object(cls: type, base: type, state: None) -> object:
    """Stands for copy_reg._reconstructor: makes only our stand-ins."""
    if not (isinstance(cls, type) and issubclass(cls, _Node) and base is object and state is None):
        raise _RefusedClassError(f"an object of {cls}")
    return cls()


class _Unpickler(pickle.Unpickler):
    allowed: ClassVar[dict[str, Any]] = {
        "chumpy.ch.Ch": _Ch,
        "chumpy.reordering.Select": _Select,
        "scipy.sparse.csc.csc_matrix": _Csc,
        "scipy.sparse._csc.csc_matrix": _Csc,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray._reconstruct": multiarray._reconstruct,
        "numpy._core.multiarray._reconstruct": multiarray._reconstruct,
        "numpy.core.multiarray.scalar": multiarray.scalar,
        "numpy._core.multiarray.scalar": multiarray.scalar,
        "_codecs.encode": _encode,
        "copy_reg._reconstructor": _reconstruct_object,
        "copyreg._reconstructor": _reconstruct_object,
        "__builtin__.object": object,
        "builtins.object": object,
        "__builtin__.set": set,
        "builtins.set": set,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[f"{module}.{name}"]
        except KeyError:
            raise _RefusedClassError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedClassError(f"the persistent object {pid!r}")


def _plain(value: Any) -> Any:
    """Stand-ins as numpy arrays, all through dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, _Node):
        return _array(value)
    return value


def _array(node: _Node) -> np.ndarray:
    state = {key: _plain(item) for key, item in vars(node).items()}
    if isinstance(node, _Ch):
        return np.asarray(state["x"])
    if isinstance(node, _Select):
        return np.asarray(state["a"]).ravel()[state["idxs"]].reshape(state["preferred_shape"])
    dense = np.zeros(state["_shape"], state["data"].dtype)
    columns = np.repeat(np.arange(dense.shape[1]), np.diff(state["indptr"]))
    np.add.at(dense, (state["indices"], columns), state["data"])
    return dense


def _read_checked(path: Path) -> dict[str, np.ndarray]:
    content = load_restricted(path)
    if not isinstance(content, dict):
        raise _refusal(path, f"holds a {type(content).__name__}")
    missing = [key for key in _SHAPES if key not in content]
    if missing:
        raise _refusal(path, f"lacks {', '.join(missing)}")
    for key, wanted in _SHAPES.items():
        shape = np.shape(content[key])
        if len(shape) != len(wanted) or any(w is not None and w != s for w, s in zip(wanted, shape, strict=True)):
            shown = " x ".join("any" if w is None else str(w) for w in wanted)
            raise _refusal(path, f"has {key} of shape {shape} instead of {shown}")
        if np.asarray(content[key]).dtype.kind not in "fiu":
            raise _refusal(path, f"has a {key} that is not numbers")
    return {key: np.asarray(item) for key, item in content.items() if key in _SHAPES or key == "hands_coeffs"}


def _side(arrays: dict[str, np.ndarray]) -> Side:
    """Fingers point to -x in the right template, to +x in the left one."""
    joints = arrays["J_regressor"] @ arrays["v_template"]
    return "right" if joints[1:, 0].mean() < joints[0, 0] else "left"


def _shape_is_unmirrored(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    beside = path.with_name(path.name.replace("LEFT", "RIGHT").replace("left", "right"))
    if beside != path and beside.is_file():
        right = _read_checked(beside)
        return bool(np.allclose(arrays["shapedirs"][:, 0], right["shapedirs"][:, 0], atol=1e-7))
    centred = arrays["v_template"] - arrays["v_template"].mean(0)
    growth = (arrays["shapedirs"][:, :, 0] * centred).sum(0)
    return bool(growth[0] * (growth[1] + growth[2]) < 0)


def _refusal(path: Path, found: str) -> InputError:
    return InputError(
        f"{path} {found}. Wanted a MANO model pickle (MANO_RIGHT.pkl or MANO_LEFT.pkl of mano_v1_2). Download it again "
        "from mano.is.tue.mpg.de and give its path, or use the hand model 'open', which needs no file."
    )
