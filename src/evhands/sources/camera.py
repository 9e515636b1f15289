"""iniVation cameras (DAVIS, DVXplorer, DVS), by dv-processing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from evhands.events.io.columns import pixel_column, polarity_column
from evhands.sources.lasting import TICK_S, LastingStream, SourceLostError
from evhands.types import Events, InputError, Size

_IDLE_S = 0.001


def open_camera(name: str, wait_s: float) -> LastingStream:
    """The camera whose model and serial number contain `name` (empty = the first one found)."""
    driver = _driver()
    hint = (
        "Wanted an iniVation camera on USB that this user may open (its udev rules installed); plug it in, or name "
        "another source."
    )
    return LastingStream.open(f"camera:{name}", lambda: CameraConnection(driver, name), wait_s, hint)


def _driver() -> Any:
    """The camera part of dv-processing."""
    try:
        from dv_processing.io import camera
    except ImportError as error:
        raise InputError(
            f"dv-processing cannot open cameras here ({error}). Wanted version 2 or newer: "
            "`pip install 'dv-processing>=2.0'`."
        ) from error
    return camera


class CameraConnection:
    """One camera as long as it is plugged in; `SourceLostError` where there is none of that name."""

    def __init__(self, driver: Any, name: str) -> None:
        found = {_label(device): device for device in driver.discover()}
        match = next((label for label in found if name.lower() in label.lower()), None)
        if match is None:
            there = ", ".join(found) or "no camera"
            raise SourceLostError(f"found {there}" if not name else f"found {there}, none with {name!r} in its name")
        try:
            self._camera = driver.open(found[match])
        except (RuntimeError, ValueError) as error:
            raise SourceLostError(f"{match} is there but cannot be opened ({error})") from error
        width, height = self._camera.getEventResolution()
        self.size: Size = (int(width), int(height))

    def chunks(self) -> Iterator[Events]:
        seen = time.monotonic()
        while self._camera.isRunning():
            store = self._camera.getNextEventBatch()
            if store is not None and not store.isEmpty():
                seen = time.monotonic()
                yield events_of_store(store.numpy(), self.size)
            elif time.monotonic() - seen >= TICK_S:
                seen = time.monotonic()
                yield Events.empty(self.size)
            else:
                time.sleep(_IDLE_S)
        raise SourceLostError("the camera is gone")

    def close(self) -> None:
        self._camera = None  # the library closes a device when nothing refers to it any more


def _label(device: Any) -> str:
    return f"{str(device.cameraModel).rpartition('.')[2]} {device.serialNumber}"


def events_of_store(rows: np.ndarray, size: Size) -> Events:
    """The structured array of an `EventStore` as columns."""
    return Events(
        pixel_column(rows["x"]),
        pixel_column(rows["y"]),
        np.ascontiguousarray(rows["timestamp"], np.int64),
        polarity_column(rows["polarity"]),
        size,
    )
