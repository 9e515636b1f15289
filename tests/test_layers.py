"""The rooms of the house: who may import whom (the contracts stand in pyproject.toml)."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "evhands"

# Who imports modules of other folders by name: the lazy public names and the table of commands.
MAY_IMPORT_BY_NAME = {"__init__.py": "evhands.", "cli.py": "evhands.jobs."}


def test_rooms_import_downwards_only(tmp_path: Path, capsys) -> None:
    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), cache_dir=str(tmp_path)) == (
        EXIT_STATUS_SUCCESS
    ), capsys.readouterr().out


def test_nothing_goes_around_the_contracts_by_importing_by_name() -> None:
    for path in SOURCE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        if any(isinstance(n, ast.Call) and _called(n) in {"import_module", "__import__"} for n in nodes):
            inside = path.relative_to(SOURCE)
            room = MAY_IMPORT_BY_NAME.get(str(inside), ".".join(["evhands", *inside.parts[:-1]]) + ".")
            named = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            assert all(n.startswith(room) for n in named if _is_module(n)), path


def test_no_module_is_longer_than_a_sitting() -> None:
    long = {str(p.relative_to(SOURCE)): n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def _is_module(name: str) -> bool:
    path = SOURCE.parent / name.replace(".", "/")
    return bool(re.fullmatch(r"evhands(\.\w+)+", name)) and (path.is_dir() or path.with_suffix(".py").exists())


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_every_folder_is_a_package() -> None:
    folders = {p.parent for p in SOURCE.rglob("*.py")}
    assert not [f for f in folders if not os.path.exists(f / "__init__.py")]
