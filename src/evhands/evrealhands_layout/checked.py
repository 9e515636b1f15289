"""JSON values that know where they stand, so that whatever is wrong in a file is named with file and key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evhands.types import InputError

_ID = re.compile(r"0|[1-9][0-9]{0,8}")
_TOLD = 12
_LARGEST = 1e15
"""No length, pixel or coefficient is larger; float32, which recordings hold, is not left by it."""
_Value = TypeVar("_Value")


class LayoutError(InputError):
    """All that is wrong in one file of the layout; `faults` are the single sentences."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        told = "\n".join(self.faults[:_TOLD])
        more = f"\n... and {len(self.faults) - _TOLD} more." if len(self.faults) > _TOLD else ""
        super().__init__(told + more)


@dataclass(frozen=True)
class Faults:
    """What is wrong in a file, gathered while it is read, so that one reading names all of it."""

    found: list[str] = field(default_factory=list)

    def gather(self, read: Callable[[], _Value]) -> Any:
        """What `read` gives; None where that is an `InputError`, which is noted."""
        try:
            return read()
        except InputError as error:
            if str(error) not in self.found:
                self.found.append(str(error))
            return None

    def check(self) -> None:
        """Raise a `LayoutError` if anything was noted."""
        if self.found:
            raise LayoutError(self.found)


@dataclass(frozen=True)
class Checked:
    """A JSON value, the file it is from and its path in that file, for example `manos.3.hand_pose`."""

    file: Path
    path: str
    found: Any

    def wrong(self, wanted: str, found: str | None = None) -> InputError:
        """The error that says what stands here and what should."""
        where = f"{self.file}: {self.path}" if self.path else f"{self.file}"
        return InputError(
            f"{where}: wanted {wanted}, found {found or described(self.found)}. Correct the file, or copy it again "
            "from where it came."
        )

    def get(self, key: str) -> Checked | None:
        """The value of a key, or None where there is no such key."""
        if not isinstance(self.found, dict):
            raise self.wrong("an object")
        self._once((key,))
        return self._below(key, self.found[key]) if key in self.found else None

    def __getitem__(self, key: str) -> Checked:
        value = self.get(key)
        if value is None:
            raise self._below(key, None).wrong("a value", "no such key")
        return value

    def items(self) -> Iterator[tuple[str, Checked]]:
        """Keys and values of an object, in the order of the file."""
        if not isinstance(self.found, dict):
            raise self.wrong("an object")
        self._once(tuple(self.found))
        return ((key, self._below(key, value)) for key, value in self.found.items())

    def _once(self, keys: tuple[str, ...]) -> None:
        repeated = self.found.repeated if isinstance(self.found, _Repeating) else ()
        for key in keys:
            if key in repeated:
                raise self._below(key, None).wrong("this key once", "it repeated")

    def by_id(self) -> list[tuple[int, Checked]]:
        """Keys and values of an object whose keys are annotation ids (whole numbers), in ascending order."""
        rows = [(value._id_of(key, "as the key"), value) for key, value in self.items()]
        return sorted(rows, key=lambda row: row[0])

    def elements(self) -> list[Checked]:
        """The values of a list."""
        if not isinstance(self.found, list):
            raise self.wrong("a list")
        return [self._below(str(i), value) for i, value in enumerate(self.found)]

    def text(self, choices: Sequence[str] = ()) -> str:
        if not isinstance(self.found, str) or (choices and self.found not in choices):
            raise self.wrong(" or ".join(map(repr, choices)) or "text")
        return self.found

    def name(self) -> str:
        """A word or a whole number, which some files write for the same thing."""
        if isinstance(self.found, bool) or not isinstance(self.found, str | int) or self.found == "":
            raise self.wrong("a word or a whole number")
        return str(self.found)

    def identifier(self) -> int:
        """An annotation id, as a whole number or as text."""
        return self._id_of(self.name(), "")

    def _id_of(self, text: str, where: str) -> int:
        if not _ID.fullmatch(text):
            raise self.wrong(f"an annotation id (a whole number) {where}".strip(), repr(text))
        return int(text)

    def flag(self) -> bool:
        if not isinstance(self.found, bool):
            raise self.wrong("true or false")
        return self.found

    def number(self) -> float:
        value = _array([self.found])
        if value is None or not np.isfinite(value).all() or np.ndim(value) != 1:
            raise self.wrong("a finite number")
        return float(value[0])

    def whole(self) -> int:
        if isinstance(self.found, bool) or not isinstance(self.found, int):
            raise self.wrong("a whole number")
        return self.found

    def is_empty_list(self) -> bool:
        return isinstance(self.found, list) and not self.found

    def numbers(self, *shape: int) -> np.ndarray:
        """Finite numbers (float64) of this shape; -1 is any length. Further axes of length one are taken off."""
        wanted = " x ".join("any" if n == -1 else str(n) for n in shape) + " numbers"
        values = _array(self.found)
        if values is None:
            raise self.wrong(wanted)
        squeezed = values if values.ndim == len(shape) else values.reshape([n for n in values.shape if n != 1])
        fits = squeezed.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, squeezed.shape, strict=True))
        if not fits:
            raise self.wrong(wanted, " x ".join(map(str, values.shape)))
        if not np.isfinite(squeezed).all():
            raise self.wrong(wanted, "NaN or infinity among them")
        if squeezed.size and np.abs(squeezed).max() > _LARGEST:
            raise self.wrong(wanted, f"{np.abs(squeezed).max():.3g} among them")
        return squeezed

    def _below(self, key: str, value: Any) -> Checked:
        return Checked(self.file, f"{self.path}.{key}" if self.path else key, value)


class _Repeating(dict[str, Any]):
    """A JSON object in which keys stand more than once; it keeps the last value of each."""

    repeated: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeating = _Repeating(found)
    repeating.repeated = frozenset(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeating


def read_json(path: Path | str) -> Checked:
    """The content of a JSON file, which must be an object."""
    path = Path(path)
    try:
        root = Checked(path, "", json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object))
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror or error}. Wanted a file of the EvRealHands layout; check the folder."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON ({error}). Wanted a file of the EvRealHands layout; copy it again."
        ) from error
    root.items()
    return root


def _array(found: Any) -> np.ndarray | None:
    """Lists of numbers as an array; None where they are ragged or hold anything else."""
    if not isinstance(found, list):
        return None
    try:
        values = np.array(found)
    except ValueError:
        return None
    return values.astype(np.float64) if values.dtype.kind in "iuf" else np.zeros(0) if values.size == 0 else None


def described(found: Any) -> str:
    """A JSON value in a few words."""
    if isinstance(found, dict):
        return f"an object with the keys {', '.join(list(found)[:8]) or '(none)'}"
    if isinstance(found, list):
        values = _array(found)
        return f"a list of {len(found)} that are not all numbers or not of one length" if values is None else (
            f"{' x '.join(map(str, values.shape))} numbers"
        )  # fmt: skip
    return "null" if found is None else json.dumps(found)[:60]
