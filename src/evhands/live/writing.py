"""What a live track leaves on disk, written as it goes: memory stays the same for a day, and whenever the track ends,
the files are whole."""

from __future__ import annotations

import csv
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from evhands.files import replacing
from evhands.overlay import OverlayStyle, video_writer
from evhands.track_files import (
    COLUMNS,
    Track,
    collect,
    csv_header,
    csv_rows,
    draw_hands,
    file_names,
    one_values,
)
from evhands.tracking import Tracker, TrackResult
from evhands.types import EventWindow

_ROWS = 512
_VIDEO_FPS = 30.0


class TrackWriter:
    """A sink that writes poses.npz, poses.csv, overlay.mp4 and, with `finish`, summary.json to a folder, as
    `save_track` and the other writers of `track_files` do.

    A context manager. Nothing appears under the final names before the end; on leaving with an error nothing does.
    The video shows the newest window 30 times a second, drawn by a thread of its own.
    """

    def __init__(self, out: Path, tracker: Tracker, model: str, video: bool) -> None:
        self._out, self._tracker, self._model, self._video = out, tracker, model, video
        self._results: list[TrackResult] = []
        self._rows = 0
        self._stack = ExitStack()
        self._columns: dict[str, BinaryIO] = {}
        self._kinds: dict[str, np.ndarray] = {}

    def __enter__(self) -> TrackWriter:
        self._out.mkdir(parents=True, exist_ok=True)
        self._paths = {name: self._stack.enter_context(replacing(self._out / name)) for name in file_names(self._video)}
        self._parts = Path(self._stack.enter_context(TemporaryDirectory(prefix=".poses.", dir=self._out)))
        self._csv = self._stack.enter_context(self._paths["poses.csv"].open("w", newline=""))
        self._writer = csv.writer(self._csv)
        self._writer.writerow(csv_header(self._tracker.count > 1))
        self._overlay = None
        if self._video:
            self._overlay = self._stack.enter_context(_Overlay(self._paths["overlay.mp4"], self._tracker))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._columns.values():
            file.close()
        self._stack.__exit__(kind, error, trace)

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        self._results.extend(hands)
        if self._overlay is not None:
            self._overlay(window, hands)
        if len(self._results) >= _ROWS:
            self._spill()

    def finish(self, summary: dict[str, Any]) -> None:
        """Write what is still in memory, and put the parts together."""
        if self._overlay is not None:
            self._overlay.finish()
        self._spill()
        self._csv.flush()
        single = one_values(collect([], self._tracker, self._model))
        with zipfile.ZipFile(self._paths["poses.npz"], "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, kind in self._kinds.items():
                self._columns[name].close()
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    header = {"descr": np.lib.format.dtype_to_descr(kind.dtype), "fortran_order": False,
                              "shape": (self._rows, *kind.shape[1:])}  # fmt: skip
                    np.lib.format.write_array_header_1_0(file, header)
                    with (self._parts / name).open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
            for name, value in single.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
        self._paths["summary.json"].write_text(json.dumps(summary, indent=2) + "\n")

    def _spill(self) -> None:
        """Rows from memory to disk; the first time (also of none) the columns are begun."""
        part: Track = collect(self._results, self._tracker, self._model)
        self._writer.writerows(csv_rows(part, self._tracker.count > 1))
        for name in COLUMNS:
            values = np.ascontiguousarray(getattr(part, name))
            if name not in self._columns:
                self._columns[name] = (self._parts / name).open("wb")
                self._kinds[name] = values[:0]
            self._columns[name].write(values.astype(self._kinds[name].dtype).tobytes())
        self._rows += len(part)
        self._results.clear()


class _Overlay:
    """Draws the newest window for each frame of a video, in a thread; windows between frames are not drawn."""

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self._tracker, self._style = tracker, OverlayStyle()
        self._stack = ExitStack()
        self._path = path
        self._newest: tuple[EventWindow, Sequence[TrackResult]] | None = None
        self._news = threading.Event()
        self._stop = threading.Event()
        self._origin_us = 0

    def __enter__(self) -> _Overlay:
        self._write = self._stack.enter_context(video_writer(self._path, _VIDEO_FPS))
        self._thread = threading.Thread(target=self._draw, name="overlay", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        self._stack.__exit__(kind, error, trace)

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        if self._newest is None:
            self._origin_us = window.start_us
        self._newest = (window, hands)
        self._news.set()

    def finish(self) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join()

    def _draw(self) -> None:
        self._news.wait()
        if self._newest is None:
            return
        start_s, frames = time.monotonic(), 0
        while True:
            window, hands = self._newest
            picture = draw_hands(window, hands, self._tracker, self._style, self._origin_us)
            wanted = int((time.monotonic() - start_s) * _VIDEO_FPS) + 1
            for _ in range(max(wanted - frames, 0)):  # a slow machine repeats frames: the speed stays true
                self._write(picture)
            frames = max(wanted, frames)
            if self._stop.is_set():
                return
            self._stop.wait(max(frames / _VIDEO_FPS - (time.monotonic() - start_s), 0.0))
