"""Writing a file: the old one stays until the new one is whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from evhands.files import replacing
from evhands.types import InputError


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_new_file_replaces_the_old_one_at_the_end(tmp_path) -> None:
    path = tmp_path / "poses.npz"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        assert temporary.suffix == path.suffix
        np.savez(temporary, a=np.arange(3))
        assert path.read_bytes() == b"old"
    assert np.array_equal(np.load(path)["a"], np.arange(3))
    assert leftovers(tmp_path) == ["poses.npz"]


def test_folders_are_made(tmp_path) -> None:
    with replacing(tmp_path / "a" / "b" / "c.csv") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "c.csv").read_text() == "x"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), InputError("a wrong file")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error) -> None:
    path = tmp_path / "events.h5"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["events.h5"]


def test_a_full_disk_is_an_input_error_that_says_so(tmp_path) -> None:
    path = tmp_path / "events.h5"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="No space left on device.*untouched"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["events.h5"]


def test_a_full_disk_at_the_last_step_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(InputError, match="No space left"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["a.csv"]


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="Could not write"), replacing(tmp_path / "file" / "x.csv"):
        pass
