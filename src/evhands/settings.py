"""Any field of a frozen config by its name, as the command line and YAML give it."""

from __future__ import annotations

import contextlib
import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec

from evhands.types import InputError


def changed(config: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """The config with some fields replaced: `{"learning_rate": 1e-3, "model.pose.hidden": 64, "split": {...}}`.

    Numbers may come as text. InputError names a key that is not there and a value of another type.
    """
    for key, value in changes.items():
        name, _, rest = key.partition(".")
        known = [field.name for field in fields(config)]
        if name not in known:
            raise InputError(
                f"There is no setting {prefix + name!r}. Wanted one of {', '.join(known)}; check the name."
            )
        value = {rest: value} if rest else value
        config = replace(config, **{name: _fitted(config, name, value, prefix + name)})
    return config


def _fitted(config: Any, name: str, value: Any, key: str) -> Any:
    current, hint = getattr(config, name), typing.get_type_hints(type(config))[name]
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(json.JSONDecodeError):  # the check below names what it is
            value = json.loads(value)
    if is_dataclass(current) and value is not None:
        if not isinstance(value, Mapping):
            names = ", ".join(field.name for field in fields(current))
            raise InputError(f"{key} = {value!r}: wanted its settings by name ({names}); name those to change.")
        return changed(current, value, f"{key}.")
    if isinstance(current, Mapping) and isinstance(value, Mapping):
        if unknown := set(value) - set(current):
            raise InputError(
                f"There is no setting {key}.{min(unknown)}. Wanted one of {', '.join(current)}; check the name."
            )
        value = {**current, **value}
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"{key} = {value!r}: {error}. Wanted such a value as {current!r}; correct it.") from error
