"""Writing files so that nothing already on disk is lost: to a temporary name first, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evhands.types import InputError


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
        free = shutil.disk_usage(_existing_parent(path)).free / 1e6
        raise InputError(
            f"Could not write {path}: {error.strerror or error} ({free:.0f} MB free there). Wanted a folder with write "
            "access and space enough; free some space or choose another place. What was there before is untouched."
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def _existing_parent(path: Path) -> Path:
    for parent in path.absolute().parents:
        if parent.exists():
            return parent
    return Path("/")
