"""README and docs say what is there: links lead to files, commands exist, options are known."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from conftest import REPOSITORY
from evhands import cli

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert not [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page) -> None:
    text = page.read_text()
    calls = re.findall(r"(?:^|[`/ ])evhands ([a-z]+)((?: [^`\n|]*)?)", text, re.MULTILINE)
    for name, rest in calls:
        first = rest.split()[:1]
        if first and f"{name} {first[0]}" in cli.COMMANDS:
            name = f"{name} {first[0]}"
        if name in cli.COMMANDS:
            command = cli.COMMANDS[name]
            parser = cli.parser_of(name, getattr(import_module(command.module), command.function))
            known = {o.replace("_", "-") for action in parser._actions for o in action.option_strings}
            assert set(re.findall(r"--[a-z][\w-]*", rest)) <= known, f"evhands {name}{rest}"
    in_code = re.findall(r"`(?:\.venv/bin/)?evhands ([a-z]+)", text)
    assert set(in_code) <= set(cli.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= {
        pair for t in targets for pair in ((t, ""), ("", t))
    }


def test_every_command_stands_in_the_readme() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert [name for name in cli.COMMANDS if f"| `evhands {name}" not in text] == []
