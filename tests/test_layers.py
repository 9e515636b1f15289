"""The rooms of the house: who may import whom (the contracts stand in pyproject.toml)."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "evhands"

# The lazy public names, and the table of commands: both name modules that are imported when they are asked for.
MAY_IMPORT_BY_NAME = {"__init__.py", "cli.py"}


def test_rooms_import_downwards_only(tmp_path: Path, capsys) -> None:
    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), cache_dir=str(tmp_path)) == (
        EXIT_STATUS_SUCCESS
    ), capsys.readouterr().out


def test_nothing_goes_around_the_contracts_by_importing_by_name() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if str(path.relative_to(SOURCE)) not in MAY_IMPORT_BY_NAME
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}
    ]
    assert not found


def test_no_module_is_longer_than_a_sitting() -> None:
    long = {str(p.relative_to(SOURCE)): n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_every_folder_is_a_package() -> None:
    folders = {p.parent for p in SOURCE.rglob("*.py")}
    assert not [f for f in folders if not os.path.exists(f / "__init__.py")]
