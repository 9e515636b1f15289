"""The command line tool `evhands`: parse, call, print. A command is a typed function of `evhands.jobs`.

A job is imported only when its command is called, so that `evhands --help` answers at once. Its parameters become the
options (jsonargparse): a required parameter is a positional, a keyword-only or defaulted one is an option, and the
help texts come from the `Args:` section of its docstring. `--config FILE` reads any of them from YAML.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import inspect
import json
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evhands import __version__

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


@dataclass(frozen=True)
class Command:
    """Where a job lives, what it does in one line, and a call of it that can be typed as it stands.

    spelled: parameter -> its option, where Python reserves the word; the parameter's own name works too.
    """

    module: str
    function: str
    summary: str
    example: str
    spelled: Mapping[str, str] = field(default_factory=dict)


COMMANDS = {
    "demo": Command(
        "evhands.jobs.demo", "demo", "Track the recording that ships with the package and score it.", "evhands demo"
    ),
    "info": Command(
        "evhands.jobs.info",
        "info",
        "What is in an event file: sensor, duration, counts, rates, gaps.",
        "evhands info recording.aedat4",
    ),
    "track": Command(
        "evhands.jobs.track",
        "track_command",
        "Event recording or live source in, 3D hand poses and an overlay video out.",
        "evhands track recording.raw --out poses --camera calib.json",
    ),
    "latency": Command(
        "evhands.jobs.latency",
        "latency",
        "How long from the last event to the pose on this machine, part by part.",
        "evhands latency recording.h5 --json latency.json",
        {"json_file": "--json"},
    ),
    "stream": Command(
        "evhands.jobs.stream",
        "stream",
        "Events of any source over the network or a pipe, to other programs.",
        "evhands stream recording.aedat4 --to tcp://127.0.0.1:7777",
    ),
    "convert": Command(
        "evhands.jobs.convert",
        "convert",
        "Event file to another format, or an ordinary video to events.",
        "evhands convert hand.mp4 events.h5",
    ),
    "simulate": Command(
        "evhands.jobs.simulate",
        "simulate",
        "Recordings of simulated hands with their truth, for training and tests.",
        "evhands simulate recordings",
    ),
    "prepare": Command(
        "evhands.jobs.prepare",
        "prepare",
        "Simulated clips as training data, made by several processes; resumable.",
        "evhands prepare clips --clips 10000 --workers 2",
    ),
    "prepare evrealhands": Command(
        "evhands.jobs.prepare_evrealhands",
        "prepare_evrealhands",
        "EvRealHands sequences as recordings: checked, in metres; resumable.",
        "evhands prepare evrealhands EvRealHands recordings --hand MANO_RIGHT.pkl",
    ),
    "doctor": Command(
        "evhands.jobs.doctor",
        "doctor",
        "Look through a data set: files, gaps, clocks, and truth against events.",
        "evhands doctor recordings --sheet sheet.png",
    ),
    "train": Command(
        "evhands.jobs.train",
        "train",
        "Train a model on prepared clips or on recordings; stop and resume at will.",
        "evhands train run --data clips",
        {"start": "--from", "device": "--accelerator"},
    ),
    "export": Command(
        "evhands.jobs.export",
        "export",
        "A model as an ONNX file that runs without torch, compared with torch in mm.",
        "evhands export small --to onnx --out small.onnx",
    ),
    "evaluate": Command(
        "evhands.jobs.evaluate",
        "evaluate",
        "Predict the hands of a data set to a file, score it, and write a report.",
        "evhands evaluate small --data recordings --out result",
    ),
    "score": Command(
        "evhands.jobs.score",
        "score",
        "Score a file of predictions again.",
        "evhands score result/predictions.npz --data recordings",
    ),
    "leaderboard": Command(
        "evhands.jobs.leaderboard",
        "leaderboard",
        "Compare the results of several methods under one protocol.",
        "evhands leaderboard first/results.json second/results.json",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code: 0 done, 1 done and something is not in order, 2 something the user gave
    cannot be used, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _one_line_warnings():
            code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nevhands: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has left. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"evhands {__version__}")
        return 0
    name, *rest = arguments
    if rest and f"{name} {rest[0]}" in COMMANDS:  # a command of two words
        name = f"{name} {rest.pop(0)}"
    if name not in COMMANDS:
        return _complain("", _unknown_command(name))
    return _call(name, rest)


def _call(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    # Imported here because numpy and jsonargparse take longer than `evhands --help` may.
    from jsonargparse import ArgumentError

    from evhands.types import InputError

    job = getattr(importlib.import_module(command.module), command.function)
    parser = parser_of(name, job)
    try:
        options = parser.instantiate_classes(parser.parse_args(_as_the_parser_spells_it(arguments, parser))).as_dict()
    except ArgumentError as error:
        return _complain(name, f"{_plain(str(error))} See `evhands {name} --help`.")
    except InputError as error:  # of a config that checks its own fields
        return _complain(name, str(error))
    except SystemExit as stop:  # --help has been printed
        return int(stop.code or 0)
    try:
        result = job(**{key: value for key, value in options.items() if key != "config"})
    except InputError as error:
        return _complain(name, str(error))
    except OSError as error:
        # What the system refuses (no such file, no permission, no space) is not a fault of the program.
        if isinstance(error, BrokenPipeError) or error.filename is None:
            raise
        return _complain(name, f"{error.filename}: {error.strerror}. Check the path and its permissions.")
    if isinstance(result, str):
        print(result)
    return result if isinstance(result, int) else 0


def parser_of(name: str, job: Callable[..., Any]) -> ArgumentParser:
    """The parser of one command, made from the signature and the docstring of its job."""
    from docstring_parser import parse
    from jsonargparse import ActionYesNo, ArgumentParser

    parser = ArgumentParser(
        prog=f"evhands {name}",
        description=_description(name, job),
        epilog=f"example:  {COMMANDS[name].example}",
        formatter_class=_help_formatter(),
        exit_on_error=False,
        default_meta=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parameters = inspect.signature(job, eval_str=True).parameters.values()
    flags = {p.name: p.default for p in parameters if p.annotation is bool and p.default is not p.empty}
    options: set[str | int] = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty}
    positionals: set[str | int] = {p.name for p in parameters if p.name not in options}
    parser.add_function_arguments(job, as_group=False, as_positional=True, skip=options)
    parser.add_function_arguments(job, as_group=False, skip=positionals | set(flags))
    for parameter, option in COMMANDS[name].spelled.items():
        action = parser._option_string_actions[f"--{parameter}"]
        action.option_strings = [option, *action.option_strings]
        parser._option_string_actions[option] = action
    help_texts = {p.arg_name: p.description for p in parse(job.__doc__ or "").params}
    for name, default in flags.items():
        parser.add_argument(
            f"--{name}", action=ActionYesNo(no_prefix="no-"), default=default, help=help_texts.get(name) or name
        )
    return parser


def _as_the_parser_spells_it(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """`--video false` as `--no-video` and `--val-clips` as `--val_clips`: both spellings of each are natural."""
    from jsonargparse import ActionYesNo

    known = {option for action in parser._actions for option in action.option_strings}
    flags = {o for action in parser._actions if isinstance(action, ActionYesNo) for o in action.option_strings}
    spelling = {option.replace("_", "-"): option for option in known}
    prefix = {"true": "--", "yes": "--", "false": "--no-", "no": "--no-"}
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] in flags and argument.lower() in prefix:
            result[-1] = prefix[argument.lower()] + result[-1].removeprefix("--").removeprefix("no-")
        else:
            option, equals, value = argument.partition("=")
            result.append(spelling.get(option.replace("_", "-"), option) + equals + value)
    return _with_lists(_with_positionals(result, flags, parser), parser)


def _with_positionals(arguments: list[str], flags: set[str], parser: ArgumentParser) -> list[str]:
    """`A B C` as one list, where the command's positional takes one."""
    positional = [a for a in parser._actions if not a.option_strings]
    if len(positional) != 1 or "list[" not in str(getattr(positional[0], "_typehint", "")):
        return arguments
    words: list[str] = []
    rest: list[str] = []
    for argument in arguments:
        value_of_option = bool(rest) and rest[-1].startswith("--") and "=" not in rest[-1] and rest[-1] not in flags
        (rest if argument.startswith("-") or value_of_option else words).append(argument)
    return rest + (words if not words or words[0].startswith("[") else [json.dumps(words)])


def _with_lists(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """`--data A --data B` as one list, which is how the parser takes one; a list that is written as one stays.

    YAML files may follow each other: `--published a.yml b.yml`.
    """
    several = {o for a in parser._actions if "list[" in str(getattr(a, "_typehint", "")) for o in a.option_strings}
    found: dict[str, list[str]] = {}
    result: list[str] = []
    open_list: list[str] = []
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if argument.endswith((".yml", ".yaml")) and open_list and open_list[-1].endswith((".yml", ".yaml")):
            open_list.append(argument)
            continue
        open_list = []
        if option not in several or option.endswith("+"):
            result.append(argument)
        elif (given := value if equals else next(following, "")).startswith("["):
            result += [option, given]
        else:
            open_list = found.setdefault(option, [])
            open_list.append(given)
    return result + [part for option, values in found.items() for part in (option, json.dumps(values))]


def _plain(message: str) -> str:
    """An error of the parser without the parser's own words."""
    message = re.sub(r'Parser key "([\w.]+)":', r"\1:", " ".join(message.split()))
    union = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .* Given value: (.*)"
    message = re.sub(union, r"Expected \1. Got value: \2", message)
    message = re.sub(r"<class '([\w.]+)'>", r"\1", message).replace("NoneType", "null")
    message = re.sub(r"typing\.Literal\[(.*?)\]", r"value of \1", message)
    return message.removesuffix(".") + "."


def _description(name: str, job: Callable[..., Any]) -> str:
    """The summary of a command, and the docstring of its job between the first sentence and the first section."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    paragraphs = [COMMANDS[name].summary]
    for paragraph in inspect.cleandoc(job.__doc__ or "").split("\n\n")[1:]:
        if paragraph.startswith(("Args:", "Returns:", "Raises:", "Example:", "Examples:", "Yields:")):
            break
        paragraphs.append(paragraph)
    return "\n\n".join(textwrap.fill(" ".join(p.split()), width) for p in paragraphs)


def _help_formatter() -> type:
    """Paragraphs as they are, and types by their name."""
    from jsonargparse import DefaultHelpFormatter

    class Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
        def _expand_help(self, action: argparse.Action) -> str:
            return re.sub(r"<class '([\w.]+)'>", r"\1", super()._expand_help(action))

    return Formatter


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items())
    examples = "\n".join(f"  {command.example}" for command in COMMANDS.values())
    return (
        "usage: evhands COMMAND [ARGUMENTS]\n\n"
        "3D hand pose, shape and mesh from event cameras.\n\n"
        f"commands:\n{commands}\n\n"
        f"examples:\n{examples}\n\n"
        "`evhands COMMAND --help` lists the arguments of a command; `evhands --version` prints the version."
    )


def _unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no command {name!r}.{guess} The commands are {', '.join(COMMANDS)}; see `evhands --help`."


def _complain(name: str, message: str) -> int:
    """Print one paragraph on stderr and return the exit code of a mistake of the user."""
    text = " ".join(message.split())
    print(_wrapped(f"evhands{' ' + name if name else ''}: error: {text}"), file=sys.stderr)
    return USER_ERROR


def _wrapped(text: str) -> str:
    """Folded at the width of a terminal; left in one line where the reader is a program."""
    if not sys.stderr.isatty():
        return text
    width = os.get_terminal_size(sys.stderr.fileno()).columns
    return textwrap.fill(text, max(40, width - 1), break_long_words=False, break_on_hyphens=False)


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Warnings as one line on stderr, without the place in the code that a user can do nothing with."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print("evhands: warning: " + " ".join(str(message).split()), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
