"""What must start fast, or run without torch, imports no torch: asked of a fresh interpreter."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

import evhands

HEAVY = ("torch", "lightning", "matplotlib", "av", "viser")

WITHOUT_TORCH = [
    "evhands",
    "evhands.cli",
    "evhands.types",
    "evhands.files",
    "evhands.geometry",
    "evhands.inputs",
    "evhands.recording",
    "evhands.events.io",
    "evhands.events.windows",
    "evhands.events.representations",
    "evhands.events.noise",
    "evhands.hand.skeleton",
    "evhands.hand.open_hand",
    "evhands.hand.raster",
    "evhands.runtime",
    "evhands.sources",
    "evhands.sinks",
]


def _heavy_after(code: str) -> set[str]:
    report = f"\nimport sys; print('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True).stdout
    return set(out.splitlines()[-1].split()[1:])


def test_reading_and_preprocessing_import_no_torch() -> None:
    # One interpreter for all: the union is what is forbidden, and starting one for each takes long.
    assert "torch" not in _heavy_after("import " + ", ".join(WITHOUT_TORCH))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"]])
def test_the_tool_answers_without_anything_heavy(arguments: list[str]) -> None:
    assert not _heavy_after(f"from evhands.cli import main; main({arguments!r}); import sys; sys.stdout.flush()")


def test_help_answers_at_once() -> None:
    """Counted in seconds of the processor, which other work on the machine does not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "evhands", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_every_public_name_exists() -> None:
    for name in evhands.__all__:
        assert getattr(evhands, name) is not None
    assert set(evhands.__all__) == set(dir(evhands))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trakc'"):
        evhands.trakc  # noqa: B018
