"""Reading event files on one thread, beside the libraries for it: `python benchmarks/bench_io.py`."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evhands.events.io import open_events, write_events
from evhands.types import Events, Size
from timing import Timing, machine_reference, measure

SIZE: Size = (346, 260)
EVENTS = 4_000_000
REPEATS = 5


def main() -> None:
    """Print a table: million events a second from a file to columns, by the clock and by the processor time."""
    with tempfile.TemporaryDirectory() as folder:
        stream = _Moving()
        print(f"{EVENTS / 1e6:.0f} M events of moving contours, {SIZE[0]}x{SIZE[1]}, warm cache; one thread; Mev/s")
        print(f"  {'':<44} {'median':>9} {'fastest':>9} {'processor':>9}")
        aedat4 = Path(folder) / "a.aedat4"
        write_events(aedat4, stream)
        _row("aedat4, LZ4", measure(lambda: _read(aedat4), REPEATS), "limit 25")
        _library("  library: dv-processing", "dv_processing", lambda dv: _by_dv(dv, aedat4))
        raw = Path(folder) / "a.raw"
        raw.write_bytes(b"% evt 3.0\n% geometry 346x260\n% end\n" + _evt3(stream.events).tobytes())
        _row("EVT 3.0", measure(lambda: _read(raw), REPEATS), "limit 50")
        _library("  library: evt3", "evt3", lambda evt3: evt3.decode_file(str(raw)))
        for suffix in (".h5", ".npz", ".csv"):
            path = Path(folder) / f"a{suffix}"
            write_events(path, stream)
            note = f"{path.stat().st_size / EVENTS:.1f} bytes an event"
            _row({".h5": "our HDF5 (lzf)", ".npz": "npz (deflate)", ".csv": "csv"}[suffix],
                 measure(lambda path=path: _read(path), 3), note)  # fmt: skip
    print("  ms a call:")
    for name, value in machine_reference().items():
        print(f"  {name:<44} {value.median_ms:9.3f} {value.fastest_ms:9.3f} {value.processor_ms:9.3f}")


def _row(name: str, times: Timing, note: str = "") -> None:
    rates = (EVENTS / 1e3 / ms for ms in (times.median_ms, times.fastest_ms, times.processor_ms))
    print(f"  {name:<44} " + " ".join(f"{rate:9.1f}" for rate in rates) + f"  {note}")


def _library(name: str, package: str, read: Callable[[Any], object]) -> None:
    try:
        module = __import__(package)
    except ImportError:
        print(f"  {name:<44} not installed")
        return
    _row(name, measure(lambda: read(module), REPEATS))


def _read(path: Path) -> None:
    """The whole file to columns, chunk by chunk, as every user of the package reads it."""
    assert sum(len(events) for events in open_events(path)) == EVENTS


def _by_dv(dv: Any, path: Path) -> None:
    """The whole file to arrays, batch by batch."""
    reader, total = dv.io.MonoCameraRecording(str(path)), 0
    while (batch := reader.getNextEventBatch()) is not None:
        total += len(batch.numpy())
    assert total == EVENTS


class _Moving:
    """An event stream of contours that move: neighbours in space and time, as a scene gives them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        t = np.sort(rng.integers(0, EVENTS // 2, EVENTS))
        x = (t // 2000 + rng.normal(0, 4, EVENTS)) % SIZE[0]
        y = rng.integers(0, SIZE[1], EVENTS)
        self.size = SIZE
        self.events = Events(x.astype(np.uint16), y.astype(np.uint16), t, rng.random(EVENTS) < 0.5, SIZE)

    def __iter__(self) -> Iterator[Events]:
        return (self.events[i : i + (1 << 20)] for i in range(0, EVENTS, 1 << 20))


def _evt3(events: Events) -> np.ndarray:
    """EVT 3.0 words without vectors: a time where it changes, then a row and a column for each event."""
    high, low = events.t_us >> 12 & 0xFFF, events.t_us & 0xFFF
    words = np.stack([
        0x8000 | high, 0x6000 | low, events.y.astype(np.int64), 0x2000 | events.p.astype(np.int64) << 11 | events.x
    ], axis=1)  # fmt: skip
    keep = np.ones(words.shape, bool)
    keep[1:, 0] = high[1:] != high[:-1]
    keep[1:, 1] = events.t_us[1:] != events.t_us[:-1]
    return words[keep].astype("<u2")


if __name__ == "__main__":
    main()
