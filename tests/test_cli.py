"""The command line tool: its answers, its exit codes, and how a typed function becomes a command."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import types
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from docstring_parser import parse

import evhands
from evhands import cli
from evhands.types import InputError


def greet(source: Path, times: int = 1, *, out: Path, at_most: int = 9, loud: bool = False) -> str:
    """Greet a file.

    Greets it as often as wanted.

    Args:
        source: what to greet
        times: how often
        out: where to
        at_most: not more often
        loud: with an exclamation mark
    """
    return f"{source.name} {out.name}{'!' if loud else ''} " * min(times, at_most)


@pytest.fixture
def job(monkeypatch):
    """Put any function behind the command `fake`."""

    def install(function):
        module = types.ModuleType("fake_job")
        module.run = function
        monkeypatch.setitem(sys.modules, "fake_job", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", cli.Command("fake_job", "run", "Fakes.", "evhands fake a.h5"))

    return install


def test_required_parameters_are_positionals_and_keyword_only_ones_options(job, capsys) -> None:
    job(greet)
    assert cli.main(["fake", "a/b.h5", "--out", "c", "--times", "2", "--loud", "true"]) == 0
    assert capsys.readouterr().out.split() == ["b.h5", "c!", "b.h5", "c!"]


@pytest.mark.parametrize("option", [["--at_most", "2"], ["--at-most", "2"], ["--at-most=2"]])
def test_hyphens_and_underscores_are_the_same(job, capsys, option) -> None:
    job(greet)
    assert cli.main(["fake", "f", "5", "--out", "o", *option]) == 2
    assert cli.main(["fake", "f", "--times=5", "--out", "o", *option]) == 0
    assert capsys.readouterr().out.split() == ["f", "o", "f", "o"]


@pytest.mark.parametrize(
    ("flag", "loud"),
    [
        (["--loud"], True),
        (["--no-loud"], False),
        (["--loud", "true"], True),
        (["--loud", "no"], False),
        ([], False),
    ],
)
def test_flags_need_no_value_and_take_one(job, capsys, flag, loud) -> None:
    job(greet)
    assert cli.main(["fake", *flag, "f", "--out", "o"]) == 0
    assert ("!" in capsys.readouterr().out) is loud


def test_options_come_from_yaml_and_the_command_line_wins(job, capsys, tmp_path) -> None:
    job(greet)
    config = tmp_path / "options.yaml"
    config.write_text("out: there\ntimes: 3\nloud: true\n")
    assert cli.main(["fake", "--config", str(config), "f", "--times", "1"]) == 0
    assert capsys.readouterr().out.split() == ["f", "there!"]


@pytest.mark.parametrize("given", [["--name", "a", "--name=b"], ["--name", '["a", "b"]']])
def test_an_option_for_several_is_given_several_times_or_as_one_list(job, capsys, given) -> None:
    def join(*, name: list[str] | None = None, last: str = "") -> str:
        """Join."""
        return "+".join(name or []) + last

    job(join)
    assert cli.main(["fake", *given, "--last", "!"]) == 0
    assert capsys.readouterr().out == "a+b!\n"


def test_an_option_may_be_spelled_as_a_word_that_python_reserves(job, capsys, monkeypatch) -> None:
    def begin(*, start: str = "") -> str:
        """Begin."""
        return start

    job(begin)
    monkeypatch.setitem(cli.COMMANDS, "fake", replace(cli.COMMANDS["fake"], spelled={"start": "--from"}))
    for option in ("--from", "--start"):
        assert cli.main(["fake", option, "here"]) == 0
        assert capsys.readouterr().out == "here\n"


def test_help_teaches(job, capsys) -> None:
    job(greet)
    assert cli.main(["fake", "--help"]) == 0
    text = capsys.readouterr().out
    for piece in ("Fakes.", "Greets it as often", "what to greet", "how often", "default: 1", "evhands fake a.h5"):
        assert piece in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["source"]),
        (["f"], ["out"]),
        (["f", "--out", "o", "--times", "many"], ["times", "many"]),
        (["f", "--out", "o", "--tmies", "2"], ["tmies"]),
        (["f", "--out", "o", "--config", "none.yaml"], ["none.yaml"]),
    ],
)
def test_wrong_arguments_are_one_paragraph_that_names_them(job, capsys, arguments, words) -> None:
    job(greet)
    assert cli.main(["fake", *arguments]) == cli.USER_ERROR
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("evhands fake: error: ")
    assert all(word in lines[0] for word in words)


def _raiser(error: BaseException):
    def run() -> None:
        raise error

    return run


def test_input_errors_are_one_paragraph_and_exit_2(job, capsys) -> None:
    job(_raiser(InputError("Found a cat.\n  Wanted a dog.")))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "evhands fake: error: Found a cat. Wanted a dog.\n"


def test_what_the_system_refuses_is_one_paragraph_and_exit_2(job, capsys) -> None:
    job(_raiser(PermissionError(13, "Permission denied", "/root/x")))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err.startswith("evhands fake: error: /root/x: Permission denied.")


def test_a_fault_of_the_program_keeps_its_traceback(job) -> None:
    job(_raiser(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake"])


def test_ctrl_c_is_one_line_and_exit_130(job, capsys) -> None:
    job(_raiser(KeyboardInterrupt()))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr().err.strip() == "evhands: interrupted"


def test_warnings_are_one_line_without_a_place_in_the_code(job, capsys) -> None:
    def warn() -> None:
        warnings.warn("Read 3 of 4 packets\nof f.aedat4.", stacklevel=1)

    job(warn)
    assert cli.main(["fake"]) == 0
    assert capsys.readouterr().err == "evhands: warning: Read 3 of 4 packets of f.aedat4.\n"


def test_unknown_commands_get_a_suggestion(capsys) -> None:
    assert cli.main(["tarck"]) == 2
    assert "Did you mean track?" in capsys.readouterr().err
    assert cli.main(["xyzzy"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_command(arguments, capsys) -> None:
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"evhands {evhands.__version__}\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([sys.executable, "-m", "evhands"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == cli.BROKEN_PIPE


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_documented_typed_function(name, capsys) -> None:
    command = cli.COMMANDS[name]
    job = getattr(import_module(command.module), command.function)
    described = {p.arg_name for p in parse(job.__doc__).params if p.description}
    for parameter in inspect.signature(job).parameters.values():
        assert parameter.annotation is not parameter.empty, parameter
        assert parameter.name in described, f"{name}: {parameter.name} is not in the Args: section"
    assert len(command.summary) <= 80
    assert cli.main([name, "--help"]) == 0
    assert command.example in capsys.readouterr().out
