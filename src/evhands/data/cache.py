"""Recordings as memory-mapped columns: decoded once, then read at the speed of the disk.

A cached recording is a folder of `x.u2`, `y.u2`, `t_us.i8`, `p.b1` (the events that land in the undistorted image, in
their order), `first_of_ms.i8` (index of the first event of every millisecond), `labels.npz` and `about.json`. It is
written under another name and renamed when whole; its name is a checksum of the source and of the settings, so that
another source or setting is another folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from evhands.data.kernels import first_at
from evhands.data.labels import Labels, labels_of
from evhands.evrealhands_layout import read_sequence
from evhands.files import new_folder
from evhands.geometry import pixels_inside, undistortion_map
from evhands.hand.model import HandModel
from evhands.recording import Recording, Tags, read_recording
from evhands.types import Camera, Events, InputError, Size

COLUMNS: dict[str, Any] = {"x": np.uint16, "y": np.uint16, "t_us": np.int64, "p": np.bool_}
_FILES = {"x": "x.u2", "y": "y.u2", "t_us": "t_us.i8", "p": "p.b1", "first_of_ms": "first_of_ms.i8"}
_VERSION = 1
_HASHED_WHOLE = 1 << 22
_LONGEST_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """How recordings are read into the cache.

    undistortion_iterations: None solves the lens exactly, 5 is what OpenCV and the published code compute.
    rows_against_width: keeps events whose undistorted row lies below the image (tested against its width) in the last
    row, as published (O1). evaluation: reads the truth in space of fast sequences (`annotf.json`), which training does
    without.
    """

    undistortion_iterations: int | None = None
    rows_against_width: bool = False
    evaluation: bool = False


@dataclass(frozen=True)
class CachedRecording:
    """A recording whose events lie on disk as columns and whose labels are arrays in memory.

    Pixels x, y are those of the sensor; `table` (None without a lens) takes them into the undistorted image, whose
    camera is `camera` (points are projected with its K). start_us, end_us: of the source's first event, and behind its
    last; left_out: how many of its events leave the undistorted image and are not here.
    """

    name: str
    folder: Path
    camera: Camera
    x: np.ndarray
    y: np.ndarray
    t_us: np.ndarray
    p: np.ndarray
    first_of_ms: Int64[np.ndarray, " k"]
    start_us: int
    end_us: int
    left_out: int
    labels: Labels
    tags: Tags | None
    table: Float32[np.ndarray, "h w 2"] | None = None

    @property
    def size(self) -> Size:
        return self.camera.size

    def events(self) -> Events:
        """All events that land in the undistorted image, as they left the sensor."""
        return Events(np.array(self.x), np.array(self.y), np.array(self.t_us), np.array(self.p), self.size)

    def first_at(self, t_us: Int64[np.ndarray, "*b"]) -> Int64[np.ndarray, "*b"]:
        """For each time the index of the first event at or after it; reads a page of the column at most."""
        times = np.ascontiguousarray(t_us, np.int64)
        return first_at(self.t_us, self.first_of_ms, self.start_us, times.reshape(-1)).reshape(times.shape)


def sources_in(root: Path | str) -> list[Path]:
    """Recordings (.h5) and sequence folders under a data folder (or the one recording that it is), in order."""
    root = Path(root)
    if root.is_file() or (root / "annot.json").exists():
        return [root]
    found = [*root.rglob("*.h5"), *(path.parent for path in root.rglob("annot.json"))]
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    if not visible:
        raise InputError(
            f"{root} holds no recording. Wanted .h5 recordings or EvRealHands sequence folders (with annot.json) in "
            "it; check the path, or simulate or convert some."
        )
    return sorted(visible, key=_natural)


def _natural(path: Path) -> tuple[str, bool, int, str]:
    return (str(path.parent), not path.stem.isdigit(), int(path.stem) if path.stem.isdigit() else 0, path.name)


def cache_recordings(
    sources: Sequence[Path | str],
    folder: Path | str,
    config: CacheConfig = CacheConfig(),
    *,
    hand: HandModel | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[CachedRecording]:
    """Every source (a .h5 recording or an EvRealHands sequence folder) from the cache, read into it where it is not.

    `hand` is needed for poses of MANO. Sources that cannot be read stop it with one InputError that names them all;
    those that could are in the cache then and need not be read again.
    """
    folder, wrong, found = Path(folder), [], []
    for source in map(Path, sources):
        try:
            target = folder / _key(source, config, hand)
            if not (target / "about.json").exists():
                if progress is not None:
                    progress(f"reading {source} into the cache")
                _write_once(target, source, config, hand)
            found.append(open_cached(target))
        except InputError as error:
            wrong.append(f"{source}: {error}")
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(sources)} recordings cannot be read:\n"
            + "\n".join(wrong)
            + "\nWanted all of them; correct these, or take them out of the data folder."
        )
    return found


def _key(source: Path, config: CacheConfig, hand: HandModel | None) -> str:
    """The name of a recording in the cache: its own, and a checksum of its files and of all that shapes the result."""
    files = sorted(source.glob("*.aedat4")) + sorted(source.glob("annot*.json")) if source.is_dir() else [source]
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(config), [path.name for path in files]]).encode())
    if hand is not None:
        digest.update(hand.name.encode() + hand.mean_pose.numpy().tobytes())
    for path in files:
        digest.update(_content(path))
    return f"{source.stem}-{digest.hexdigest()[:16]}"


def _content(path: Path) -> bytes:
    """Small files whole; of large ones the size, the time of the last change, and both ends."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            if size <= _HASHED_WHOLE:
                return file.read()
            head = file.read(_HASHED_WHOLE // 4)
            file.seek(-_HASHED_WHOLE // 4, 2)
            return head + file.read() + f"{size} {path.stat().st_mtime_ns}".encode()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}. Wanted a recording; check the path.") from error


def _read(source: Path, config: CacheConfig, hand: HandModel | None) -> Recording:
    if source.is_dir():
        return read_sequence(source, hand=hand, evaluation=config.evaluation)
    return read_recording(source)


def _write_once(target: Path, source: Path, config: CacheConfig, hand: HandModel | None) -> None:
    try:
        _write(target, source, config, hand)
    except InputError:
        if not (target / "about.json").exists():  # else another process was faster
            raise


def _write(target: Path, source: Path, config: CacheConfig, hand: HandModel | None) -> None:
    recording = _read(source, config, hand)
    camera, table = undistorted(recording, config)
    with new_folder(target) as temporary:
        start_us, last_us, count, left_out = None, None, 0, 0
        with ExitStack() as files:
            columns = {name: files.enter_context(open(temporary / _FILES[name], "wb")) for name in COLUMNS}
            for chunk in recording.stream:
                if not len(chunk):
                    continue
                _check_times(chunk.t_us, last_us)
                start_us = int(chunk.t_us[0]) if start_us is None else start_us
                last_us = int(chunk.t_us[-1])
                kept = _lands_inside(chunk, table)
                count, left_out = count + int(kept.sum()), left_out + int((~kept).sum())
                for name, kind in COLUMNS.items():
                    np.ascontiguousarray(getattr(chunk, name)[kept], kind).tofile(columns[name])
        if start_us is None or last_us is None:
            raise InputError("it holds no events. Wanted some; record again, or take it out of the data folder.")
        if last_us - start_us > _LONGEST_US:
            raise InputError(
                f"its clock runs for {(last_us - start_us) / 8.64e10:.1f} days. Wanted a day at most: cut it where it "
                "jumps."
            )
        t_us = _column(temporary, "t_us", np.int64, count)
        ticks = start_us + 1000 * np.arange((last_us - start_us) // 1000 + 2)
        np.searchsorted(t_us, ticks).astype(np.int64).tofile(temporary / _FILES["first_of_ms"])
        np.savez(temporary / "labels.npz", **labels_of(recording, config.undistortion_iterations).arrays())
        about = {
            "source": source.name,
            "name": source.stem,
            "events": count,
            "left_out": left_out,
            "start_us": start_us,
            "end_us": last_us + 1,
            "size": list(camera.size),
            "K": camera.K.tolist(),
            "tags": None if recording.tags is None else asdict(recording.tags),
            "config": asdict(config),
            "lens": {} if table is None else _lens(recording),
        }
        (temporary / "about.json").write_text(json.dumps(about), encoding="utf-8")


def undistorted(recording: Recording, config: CacheConfig) -> tuple[Camera, np.ndarray | None]:
    """The pinhole camera of the undistorted image, in which points are projected, and the table that leads there."""
    lens, both = recording.camera, recording.rectification
    K_image, K_points = (lens.K, lens.K) if both is None else (both.K_image, both.K_points)
    camera = Camera(np.asarray(K_points, np.float64), lens.size, np.zeros(0), lens.T_camera_world)
    if not np.any(lens.distortion) and np.array_equal(K_image, lens.K):
        return camera, None
    return camera, _table(lens, K_image, config)


def _table(lens: Camera, K_image: np.ndarray, config: CacheConfig) -> np.ndarray:
    table = undistortion_map(lens, K_image, config.undistortion_iterations)
    if config.rows_against_width:
        low = pixels_inside(table.reshape(-1, 2), lens.size, rows_against_width=True).reshape(table.shape[:2])
        table[..., 1] = np.where(low, np.minimum(table[..., 1], lens.size[1] - 1), table[..., 1])
    return table


def _lens(recording: Recording) -> dict[str, Any]:
    lens, both = recording.camera, recording.rectification
    K_image = lens.K if both is None else both.K_image
    return {"K": lens.K.tolist(), "distortion": lens.distortion.tolist(), "K_image": K_image.tolist()}


def _lands_inside(events: Events, table: np.ndarray | None) -> np.ndarray:
    if table is None:
        return np.ones(len(events), np.bool_)
    return pixels_inside(table[events.y, events.x], events.size)


def _check_times(t_us: np.ndarray, last_us: int | None) -> None:
    if (last_us is not None and t_us[0] < last_us) or np.any(t_us[1:] < t_us[:-1]):
        raise InputError("its times run backwards. Wanted events in the order of time; sort the recording.")


def open_cached(folder: Path) -> CachedRecording:
    """A recording of the cache; the columns are mapped, not read."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    size, lens = (int(about["size"][0]), int(about["size"][1])), about["lens"]
    table = None
    if lens:
        camera = Camera(np.array(lens["K"]), size, np.array(lens["distortion"]))
        table = _table(camera, np.array(lens["K_image"]), CacheConfig(**about["config"]))
    with np.load(folder / "labels.npz") as stored:
        labels = Labels.from_arrays(dict(stored))
    columns = {name: _column(folder, name, kind, about["events"]) for name, kind in COLUMNS.items()}
    return CachedRecording(
        name=about["name"],
        folder=folder,
        camera=Camera(np.array(about["K"], np.float64), size),
        first_of_ms=np.fromfile(folder / _FILES["first_of_ms"], np.int64),
        start_us=about["start_us"],
        end_us=about["end_us"],
        left_out=about["left_out"],
        labels=labels,
        tags=None if about["tags"] is None else Tags(**about["tags"]),
        table=table,
        **columns,
    )


def _column(folder: Path, name: str, kind: Any, count: int) -> np.ndarray:
    if count == 0:  # nothing cannot be mapped
        return np.empty(0, kind)
    return np.memmap(folder / _FILES[name], kind, "r", shape=(count,)).view(np.ndarray)
