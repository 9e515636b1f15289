"""An iniVation camera, played by a stand-in for its driver: found by name, unplugged and plugged in again."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import dv_processing as dv
import numpy as np
import pytest

from event_recordings import SIZE, Replay, same, some_events
from evhands.sources import SourceWarning, camera, open_source
from evhands.types import Events, InputError


def store(events: Events) -> dv.EventStore:
    result = dv.EventStore()
    for x, y, t, p in zip(events.x, events.y, events.t_us, events.p):
        result.push_back(int(t), int(x), int(y), bool(p))
    return result


@dataclass
class Device:
    cameraModel: str
    serialNumber: str


@dataclass
class Camera:
    """Gives its batches, some of them none, and is then unplugged."""

    batches: list[dv.EventStore | None]

    def getEventResolution(self):
        return SIZE

    def isRunning(self) -> bool:
        return bool(self.batches)

    def getNextEventBatch(self):
        return self.batches.pop(0)


@dataclass
class Driver:
    plugged: list[list[Device]]
    """What is there at each look; the last look lasts."""
    cameras: list[Camera] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def discover(self):
        return self.plugged.pop(0) if len(self.plugged) > 1 else self.plugged[0]

    def open(self, device: Device) -> Camera:
        self.opened.append(device.serialNumber)
        return self.cameras.pop(0)


DAVIS, DVX = Device("CameraModel.DAVIS346", "00000123"), Device("CameraModel.DVXplorer", "DXA00042")


def play(monkeypatch, driver: Driver) -> Driver:
    monkeypatch.setattr(camera, "_driver", lambda: driver)
    return driver


def test_the_camera_of_a_name_is_opened_and_read(monkeypatch) -> None:
    events = some_events(900)
    batches = [store(events[:500]), None, store(events[:0]), store(events[500:])]
    driver = play(monkeypatch, Driver([[DAVIS, DVX]], [Camera(batches)]))
    stream = open_source("camera:dxa00042", wait_s=0)
    assert stream.size == SIZE and driver.opened == ["DXA00042"]
    driver.plugged = [[]]
    with pytest.warns(SourceWarning, match="camera is gone"):
        assert same(Events.concatenate(list(stream)), events)


def test_a_camera_that_is_plugged_in_again_goes_on(monkeypatch) -> None:
    events = some_events(200)
    cameras = [Camera([store(events)]), Camera([store(events)])]
    driver = play(monkeypatch, Driver([[DVX], [], [DVX], []], cameras))
    stream = open_source("camera:", wait_s=5)
    with pytest.warns(SourceWarning) as caught:
        chunks = iter(stream)
        parts = [next(chunks)]
        while sum(map(len, parts)) < 2 * len(events):
            parts.append(next(chunks))
        chunks.close()
    both = Events.concatenate(parts)
    assert np.array_equal(both.x, np.tile(events.x, 2)) and (np.diff(both.t_us) >= 0).all()
    assert len(driver.opened) == 2 and "clock was set back" in " ".join(str(w.message) for w in caught)


def test_no_camera_is_said_with_what_was_found(monkeypatch) -> None:
    play(monkeypatch, Driver([[]]))
    with pytest.raises(InputError, match="found no camera .*iniVation camera on USB"):
        open_source("camera:", wait_s=0)
    play(monkeypatch, Driver([[DAVIS, DVX]]))
    with pytest.raises(InputError, match="DAVIS346 00000123, DVXplorer DXA00042, none with 'davis240'"):
        open_source("camera:davis240", wait_s=0)


def test_the_real_driver_looks_for_cameras() -> None:
    """Whatever is plugged in here: the library answers, and a camera of this name there is not."""
    with pytest.raises(InputError, match="none with 'no such camera'"):
        open_source("camera:no such camera", wait_s=0)


def test_an_old_library_is_named(monkeypatch) -> None:
    monkeypatch.setattr(dv, "io", object())
    monkeypatch.setitem(sys.modules, "dv_processing.io", None)
    with pytest.raises(InputError, match="dv-processing>=2"):
        open_source("camera:", wait_s=0)


def test_files_are_sources_too(tmp_path) -> None:
    from evhands.events.io import write_events

    events = some_events(100)
    write_events(tmp_path / "a.npz", Replay(events))
    assert same(Events.concatenate(list(open_source(tmp_path / "a.npz"))), events)
    with pytest.raises(InputError, match="no topics"):
        open_source(tmp_path / "a.npz", topic="/dvs")
    with pytest.raises(InputError, match="wait"):
        open_source(tmp_path / "a.npz", wait_s=-1)
