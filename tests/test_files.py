"""Writing a file: the old one stays until the new one is whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from evhands.files import hdf5_file, new_folder, replacing
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


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "b") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert leftovers(tmp_path / "a") == []
    (tmp_path / "a" / "b").mkdir()  # an empty one may be there
    with new_folder(tmp_path / "a" / "b") as folder:
        (folder / "whole").write_text("whole")
        assert leftovers(tmp_path / "a" / "b") == []
    assert leftovers(tmp_path / "a" / "b") == ["whole"]
    with pytest.raises(InputError, match="there already"), new_folder(tmp_path / "a" / "b"):
        pass
    assert leftovers(tmp_path / "a") == ["b"]
    assert leftovers(tmp_path / "a" / "b") == ["whole"]
    with pytest.raises(InputError, match="Could not write"), new_folder(tmp_path / "a" / "b" / "whole" / "c"):
        pass


def test_hdf5_files_are_ordinary_ones(tmp_path) -> None:
    with hdf5_file(tmp_path / "a.h5") as file:
        file["x"] = np.arange(1000)
        assert file["x"][3] == 3
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["x"], np.arange(1000))


FULL_DISK = """
import resource, sys, h5py, numpy
from evhands.files import hdf5_file
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for attempt in range(2):
    try:
        with hdf5_file(sys.argv[1], libver=[None, "latest"][attempt]) as file:
            data = file.create_dataset("x", (0, 1000), "f8", maxshape=(None, 1000), compression="lzf", chunks=(1, 1000))
            for row in range(500):
                data.resize((row + 1, 1000))
                data[row] = numpy.random.default_rng(row).random(1000)
    except OSError as error:
        print(error.errno)
print("alive")
"""


@pytest.mark.parametrize("size", [0, 100, 3000, 20_000, 1_000_000, 4_000_000])
def test_hdf5_on_a_full_disk_is_an_os_error_and_no_crash(tmp_path, size) -> None:
    """The system lets no file of the process grow past `size`, which is how a full disk looks from inside."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5"), str(size)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(errno.EFBIG)] * 2 + ["alive"]
