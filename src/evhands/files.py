"""Writing files so that nothing already on disk is lost: to a temporary name first, then renamed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evhands.types import InputError

if TYPE_CHECKING:
    import h5py


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it to `path`, on any error remove it.

    The temporary name keeps the suffix, because writers choose a format by it. A full disk or a folder without
    write access becomes an `InputError`; the previous file at `path` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error, "What was there before is untouched.") from error
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success rename it to `path`, on any error remove it.

    A folder that is there and holds anything is an `InputError`: nothing in it is touched. A full disk too.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(
                f"Found {path} there already. Wanted a new or empty folder; name another, or move it away."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error, "Nothing is left behind.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(path: Path, error: OSError, state: str) -> InputError:
    free = shutil.disk_usage(_existing_parent(path)).free / 1e6
    return InputError(
        f"Could not write {path}: {error.strerror or error} ({free:.0f} MB free there). Wanted a folder with write "
        f"access and space enough; free some space or choose another place. {state}"
    )


@contextmanager
def hdf5_file(path: Path | str, *, libver: str | None = None) -> Iterator[h5py.File]:
    """A new HDF5 file at `path` to write to, on which a full disk is an `OSError` and nothing worse.

    With its own driver the HDF5 library cannot close a file whose last blocks do not fit, and crashes later. Here it
    writes through Python: the first error is raised, and while the file is closed what does not fit is dropped.
    """
    import h5py

    with _Spill(path) as raw:
        try:
            with h5py.File(raw, "w", libver=libver) as file:
                try:
                    yield file
                finally:
                    raw.closing = True
        finally:
            if raw.error is not None:
                raise raw.error


class _Spill(io.FileIO):
    """A file that remembers its first error and, once it is closing, raises no more."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self.closing = False

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest):
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self._remember(error)
                break
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._remember(error)
            return self.tell() if size is None else size

    def _remember(self, error: OSError) -> None:
        self.error = self.error or error
        if not self.closing:
            raise error


def _existing_parent(path: Path) -> Path:
    for parent in path.absolute().parents:
        if parent.exists():
            return parent
    return Path("/")
