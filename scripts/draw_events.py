"""Draw docs/images/events.png: what the representations make of real recordings and of a simulated hand.

Usage: python scripts/draw_events.py (real recordings are found by EVHANDS_SHARED, default ../shared; rows whose
recording is absent are left out, and said so). Sources: DAVIS346 clip of neuromorphicsystems/aedat test data (MIT);
EVT 3.0 clip of ros-event-camera/event_camera_py (Apache-2.0).
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from evhands.events.io import open_events
from evhands.events.representations import event_image, lnes, voxel_grid
from evhands.events.windows import batch_windows, window_at
from evhands.sim.generate import ClipConfig, simulate_clip
from evhands.types import Events, EventWindow

ROOT = Path(__file__).resolve().parents[1]
WINDOW_US = 33_333


def main() -> None:
    rows = [*_recordings(), ("simulated hand\n346 x 260", _simulated())]
    columns = ("event image (ON blue, OFF red)", "LNES, ON channel", "LNES, OFF channel", "voxel grid, bin 3 of 5")
    figure, axes = plt.subplots(len(rows), 4, figsize=(14, 2.75 * len(rows)), squeeze=False)
    for line, (name, window) in zip(axes, rows, strict=True):
        batch = batch_windows([window])
        counts, times, voxels = event_image(batch)[0], lnes(batch)[0], voxel_grid(batch)[0]
        line[0].imshow(_signed(counts))
        for axis, channel in zip(line[1:3], times, strict=True):
            axis.imshow(channel, cmap="magma", vmin=0, vmax=1)
        line[3].imshow(voxels[2], cmap="RdBu", vmin=-2, vmax=2)
        line[0].set_ylabel(f"{name}\n{len(window.events):,} events in {WINDOW_US / 1000:.0f} ms", fontsize=9)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    target = ROOT / "docs" / "images" / "events.png"
    figure.savefig(target, dpi=70)
    print(f"Wrote {target.relative_to(ROOT)}")


def _recordings() -> list[tuple[str, EventWindow]]:
    root = Path(os.environ.get("EVHANDS_SHARED", ROOT / "../shared")) / "real"
    found = []
    for name, path in (("cars, DAVIS346", "davis346-cars/sample.aedat4"), ("limb, EVT 3.0", "evt3-limb/limb.evt3.raw")):
        if not (root / path).exists():
            print(f"Left out {name}: no {path} in {root}")
            continue
        events = Events.concatenate(list(open_events(root / path)))
        width, height = events.size
        found.append((f"{name}\n{width} x {height}", _liveliest(events)))
    return found


def _simulated() -> EventWindow:
    return _liveliest(simulate_clip(ClipConfig(duration_us=600_000, subjects=(1_000_000, 1_000_008)), 5, 4).events)


def _liveliest(events: Events) -> EventWindow:
    """The window with the most events, among those that start every tenth of a window."""
    ends = np.arange(events.t_us[0] + WINDOW_US, events.t_us[-1] + 2, WINDOW_US // 10)
    counts = np.searchsorted(events.t_us, ends) - np.searchsorted(events.t_us, ends - WINDOW_US)
    return window_at(events, int(ends[counts.argmax()]), WINDOW_US)


def _signed(counts: np.ndarray) -> np.ndarray:
    """White where nothing happened, blue for ON, red for OFF."""
    on, off = np.minimum(counts, 2) / 2
    return np.stack([1 - on, 1 - np.maximum(on, off), 1 - off], axis=-1).clip(0, 1)


if __name__ == "__main__":
    main()
