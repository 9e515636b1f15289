"""3D hand pose, shape and mesh from event cameras. Public names load lazily: `import evhands` imports no torch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Camera": "evhands.types",
    "Events": "evhands.types",
    "HandMesh": "evhands.types",
    "HandPose": "evhands.types",
    "InputError": "evhands.types",
    "load_hand": "evhands.hand.model",
    "open_events": "evhands.events.io",
    "open_source": "evhands.sources",
    "read_recording": "evhands.recording",
    "track": "evhands.jobs.track",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'evhands' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
