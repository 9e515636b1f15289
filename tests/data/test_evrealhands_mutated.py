"""Mutated annotations and event files: each ends soon in a clear error or a correct result, and leaves no half file.

The mutations run in a process of their own with bounded memory, which this file is when it is called as a script.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MOST_SECONDS = 10
MORE_MEMORY = 1 << 30
_HERE = Path(__file__).resolve()


@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [("annotations", 0, 20), ("events", 0, 20)]
    + [pytest.param(kind, 20, 230, marks=pytest.mark.slow) for kind in ("annotations", "events")],
)
def test_mutated_files_end_in_a_clear_error_or_a_correct_result(kind: str, first: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, str(_HERE), kind, str(first), str(count)], capture_output=True, text=True, timeout=15 * count
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one for one in outcomes if one["fault"]] == [], done.stderr[-2000:]
    assert len(outcomes) == count, done.stderr[-2000:]
    refused = sum(not one["read"] for one in outcomes)
    assert 0.3 * count < refused < 0.95 * count  # most mutations matter, and some do not


# --- mutations ------------------------------------------------------------------------------------------------------

_STRANGE: list[Any] = [
    None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "right", "²", [], [[]], {}, [None], [1, 2, 3],
    [[0.0] * 3] * 21, [[0.0] * 2] * 20, {"0": []}, {"tl": [0, 0]}, [[[[1]]]], "x" * 1000,
]  # fmt: skip


def mutated_text(text: str, rng: random.Random) -> str:
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        how = rng.randrange(9)
        if how == 0:
            at = rng.randrange(len(text))
            return text[:at] + rng.choice(("", "{", "]", ",", '"', "NaN", "\x00", "1e999", "[" * 5000)) + text[at + 1 :]
        if how == 1:
            return text[: rng.randrange(len(text))]
        if how == 2:
            key = rng.choice(("manos", "3d_joints", "bbox", "scene"))
            return text.replace(f'"{key}":', f'"{key}": {json.dumps(rng.choice(_STRANGE))}, "{key}":', 1)
        places = _places(content)
        if how > 4:
            places = [(above, key) for above, key in places if isinstance(above[key], float)] or places
        above, key = rng.choice(places)
        if how == 3:
            above.pop(key)
        elif how > 4 and isinstance(above[key], float):
            above[key] *= rng.choice((1.0001, 0.9, -1.0, 1e-9, 1000.0, 1e12, 1e300))
        else:
            above[key] = copy.deepcopy(rng.choice(_STRANGE))
    return json.dumps(content)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(list or object, index or key) at any depth; of long lists and deep branches the first ones."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, item in list(below)[:20]:
        found += [(value, key), *_places(item)[:120]]
    return found


def mutated_events(path: Path, rng: random.Random) -> bytes:
    content = bytearray(path.read_bytes())
    how = rng.randrange(9)
    if how == 0:  # anywhere
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif how == 1:  # the header, where sizes and offsets are
        for _ in range(rng.choice((1, 2, 8))):
            content[rng.randrange(min(1200, len(content)))] = rng.randrange(256)
    elif how == 2:
        del content[rng.randrange(len(content)) :]
    elif how == 3:
        at = rng.randrange(len(content))
        content[at:at] = rng.randbytes(rng.choice((1, 8, 4000)))
    elif how == 4:
        at = rng.randrange(len(content))
        content[at : at + 200] = bytes(200)
    elif how == 5:
        size = rng.choice((b"32767", b"    0", b"   -1", b"99999", b"    x", b"    2"))
        content = bytearray(bytes(content).replace(b'key="sizeX" type="int">346', b'key="sizeX" type="int">' + size))
    else:
        return _other_times(path, rng)
    return bytes(content)


def _other_times(path: Path, rng: random.Random) -> bytes:
    """A sound file whose events are strange."""
    from event_recordings import Replay
    from evhands.events.io import open_events, write_events

    events = open_events(path).read()
    t_us, x = events.t_us.copy(), events.x.copy()
    at = rng.randrange(len(events))
    t_us[at:] += rng.choice(
        (0, -(10**6), -5000, 5000, 10**6, 10**9, 8 * 10**10, 10**15, 9 * 10**18 - 2 * 10**15, -(10**17))
    )
    x[at] = rng.choice((int(x[at]), 345, 346, 32767))
    changed = path.with_name("changed.aedat4")
    write_events(changed, Replay(replace(events, t_us=t_us, x=x)))
    content = changed.read_bytes()
    changed.unlink()
    return content


# --- the process that is put to the test ----------------------------------------------------------------------------


def _attempt(folder: Path, out: Path) -> tuple[bool, str]:
    """(whether it could be read, what is wrong with how it ended)."""
    from evhands.data.evrealhands import prepare_sequence
    from evhands.examination import Examined, examine
    from evhands.recording import read_recording
    from evhands.types import InputError

    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # of the processor: other work on the machine is not counted
    try:
        try:
            found = examine(folder)
        except InputError as error:
            if "--hand" not in str(error):  # the only thing that a data set can lack and that is no fault of it
                raise
            found = Examined(name="")
        if found.findings and min(len(finding.text) for finding in found.findings) < 20:
            return False, f"a finding that says nothing: {found.findings}"
        try:
            done = prepare_sequence(folder, out / "0.h5")
        except InputError as error:
            left = [path.name for path in out.iterdir()]
            clear = len(str(error)) > 60 and "Traceback" not in str(error)
            return False, f"left {left}" if left else "" if clear else f"unclear: {error}"
        recording = read_recording(out / "0.h5")
        events = recording.events
        sound = len(events) == done.events > 0 and (np.diff(events.t_us) >= 0).all()
        sound &= bool((events.x < events.size[0]).all() and (events.y < events.size[1]).all())
        sound &= len(list(out.iterdir())) == 1
        return True, "" if sound else "what was written is not sound"
    except Exception:
        return False, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {MOST_SECONDS} s")


def main(kind: str, first: int, count: int) -> None:
    sys.path.insert(0, str(_HERE.parents[1]))
    from evhands import evrealhands_layout as layout
    from evhands.examination import examine
    from test_evrealhands_layout import _with_views, a_recording

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _too_long)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        recording, _ = _with_views(a_recording(6, side="left", m=3), np.random.default_rng(0))
        layout.write_sequence(root / "whole", recording)
        (root / "warm").mkdir()
        examine(root / "whole")  # compiles what is not compiled yet
        assert _attempt(root / "whole", root / "warm") == (True, "")
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + MORE_MEMORY, -1))
        for seed in range(first, first + count):
            rng = random.Random(f"{kind} {seed}")
            folder, out = root / f"{seed}", root / f"out{seed}"
            shutil.copytree(root / "whole", folder)
            out.mkdir()
            if kind == "annotations":
                path = folder / "annot.json"
                path.write_text(mutated_text(path.read_text(), rng))
            else:
                path = folder / "events.aedat4"
                path.write_bytes(mutated_events(path, rng))
            read, fault = _attempt(folder, out)
            print(json.dumps({"seed": seed, "read": read, "fault": fault}), flush=True)
            shutil.rmtree(folder)
            shutil.rmtree(out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
