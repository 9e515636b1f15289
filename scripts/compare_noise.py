"""Real background noise beside the simulator's: `python scripts/compare_noise.py [--plot docs/images/noise.png]`.

Real: 1.25 s of an EVK4 (1280x720) that sees a still scene (ros-event-camera/event_camera_codecs, Apache-2.0).
Simulated: the preset `evk4` before a flat grey wall, and before the light that the smoothed map of the real noise
suggests. Two recordings of moving scenes follow as context. Recordings are found by EVHANDS_SHARED (default ../shared).
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import numpy as np
from numba import njit
from PIL import Image
from scipy.ndimage import gaussian_filter

from evhands.events.io import open_events
from evhands.sim.sensor import SENSORS, EventSensor, draw_sensor
from evhands.sim.sensor_noise import GREY
from evhands.types import Events

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EVHANDS_SHARED", "../shared"))
REAL = (SHARED if SHARED.is_absolute() else ROOT / SHARED) / "real"
NOISE = REAL / "noise-evk4/noise.evt3.raw"
CONTEXT = {"limb": REAL / "evt3-limb/limb.evt3.raw", "cars": REAL / "davis346-cars/sample.aedat4"}
HOT = 50
"""Pixels with at least this many events count as hot."""
WARM_UP_US = 2_000_000
"""Simulated before the time compared, so that runs of noise that began earlier are there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="write a figure to this file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not NOISE.exists():
        raise SystemExit(f"{NOISE} is not there. Set EVHANDS_SHARED to the folder of recordings.")
    real = Events.concatenate(list(open_events(NOISE)))
    grey = np.full(real.size[::-1], math.log(GREY), np.float32)
    columns = {
        "real": real,
        "grey wall": simulated(grey, real, arguments.seed),
        "likely light": simulated(likely_light(real), real, arguments.seed),
    }
    show({name: figures(events) for name, events in columns.items()}, "EVK4, still scene: real and simulated")
    context = {n: Events.concatenate(list(open_events(path))) for n, path in CONTEXT.items() if path.exists()}
    show({name: figures(events) for name, events in context.items()}, "Moving scenes (real), as context")
    if arguments.plot:
        plot(columns, arguments.plot)


def likely_light(real: Events) -> np.ndarray:
    """Log light (height, width) float32 that gives the noise of the recording, smoothed over 12 pixels, its pattern."""
    active = (counts(real) > 0).astype(np.float32)
    relative = gaussian_filter(active, 12, mode="nearest")
    relative /= relative.mean()
    return np.float32(math.log(GREY)) - np.log(relative) / np.float32(np.mean(SENSORS["evk4"].noise_falloff))


def simulated(log_light: np.ndarray, like: Events, seed: int) -> Events:
    """As many microseconds of the preset `evk4` in a still scene."""
    rng = np.random.default_rng(seed)
    eye = EventSensor(draw_sensor(SENSORS["evk4"], like.size, rng), log_light, 0, rng)
    end_us = WARM_UP_US + int(like.t_us[-1] - like.t_us[0]) + 1
    for t_us in [*range(50_000, end_us, 50_000), end_us]:
        eye.expose(log_light[:1, :1], (0, 0, 1, 1), t_us)
    return eye.take().between(WARM_UP_US, end_us)


def counts(events: Events) -> np.ndarray:
    """Events of each pixel (height, width)."""
    width, height = events.size
    return np.bincount(events.y.astype(np.int64) * width + events.x, minlength=width * height).reshape(height, width)


def gaps(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Milliseconds between successive events of a pixel, and the polarities before and after."""
    pixel = events.y.astype(np.int64) * events.size[0] + events.x
    order = np.lexsort((events.t_us, pixel))
    same = np.diff(pixel[order]) == 0
    p = events.p[order]
    return np.diff(events.t_us[order])[same] * 1e-3, p[:-1][same], p[1:][same]


@njit
def _has_earlier(x, y, t_us, width, height, within_us):  # type: ignore[no-untyped-def]
    last = np.full((height + 2, width + 2), -(2**62), np.int64)
    found = np.zeros(len(t_us), np.bool_)
    for i in range(len(t_us)):
        near = last[y[i] : y[i] + 3, x[i] : x[i] + 3]
        found[i] = near.max() >= t_us[i] - within_us
        last[y[i] + 1, x[i] + 1] = t_us[i]
    return found


def isolated(events: Events) -> float:
    """Share of events without any other in the 3x3 pixels around within 10 ms before or after."""
    x, y, t_us, size = events.x.astype(np.int64), events.y.astype(np.int64), events.t_us, events.size
    earlier = _has_earlier(x, y, t_us, *size, 10_000)
    later = _has_earlier(x[::-1].copy(), y[::-1].copy(), -t_us[::-1], *size, 10_000)[::-1]
    return float((~earlier & ~later).mean())


def figures(events: Events) -> dict[str, str]:
    """The rows of the table."""
    count = counts(events)
    seconds = float(events.t_us[-1] - events.t_us[0]) * 1e-6
    cold = np.where(count < HOT, count, 0)
    rows = {
        "events a pixel and second": f"{len(events) / count.size / seconds:.4f}",
        "ON share": f"{events.p.mean():.3f}",
    }
    for low, high in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 9), (10, 19), (20, HOT - 1)):
        name = f"pixels with {low}" + (f" to {high}" if high > low else "") + " events"
        rows[name] = str(np.count_nonzero((count >= low) & (count <= high)))
    rows[f"hot pixels ({HOT} events or more)"] = str(np.count_nonzero(count >= HOT))
    rows["isolated events (3x3, 10 ms)"] = f"{isolated(events):.3f}"
    rows |= _over_time(events, seconds)
    for axis, name in ((0, "columns"), (1, "rows")):
        total = cold.sum(axis)
        rows[f"{name}: events in the noisiest tenth"] = f"{np.sort(total)[-len(total) // 10 :].sum() / total.sum():.3f}"
        rows[f"{name}: odd to even"] = f"{total[1::2].sum() / total[::2].sum():.3f}"
    return rows


def _over_time(events: Events, seconds: float) -> dict[str, str]:
    ms, before, after = gaps(events)
    rows = {"successive at a pixel: same polarity": f"{(before == after).mean():.3f}"}
    for name, chosen in (("all", before | ~before), ("OFF to ON", ~before & after), ("ON to OFF", before & ~after)):
        rows[f"gaps at a pixel, {name}: 10/50/90 % (ms)"] = _quantiles(ms[chosen], (10, 50, 90), ".1f")
    rows["gaps of all events: 10/50/90/99 % (us)"] = _quantiles(np.diff(events.t_us), (10, 50, 90, 99), ".0f")
    binned = np.bincount((events.t_us - events.t_us[0]) // 1000)[: int(seconds * 1000)].astype(float)
    for width in (1, 10):
        group = binned[: len(binned) // width * width].reshape(-1, width).sum(1)
        rows[f"variance over mean of {width} ms counts"] = f"{group.var() / group.mean():.2f}"
    power = np.abs(np.fft.rfft(binned - binned.mean())) ** 2 / binned.sum()
    hertz = np.fft.rfftfreq(len(binned), 1e-3)
    for low, high in ((0.5, 5), (5, 20), (20, 100), (100, 500)):
        chosen = (hertz >= low) & (hertz < high)
        mean = f"{power[chosen].mean():.2f}" if chosen.any() else "-"
        rows[f"power of the rate {low:g}-{high:g} Hz (Poisson 1)"] = mean
    return rows


def _quantiles(values: np.ndarray, percents: tuple[int, ...], form: str) -> str:
    return " / ".join(format(v, form) for v in np.percentile(values, percents)) if len(values) else "-"


def show(columns: dict[str, dict[str, str]], title: str) -> None:
    """Print a markdown table."""
    if not columns:
        return
    print(f"\n{title}\n\n| | " + " | ".join(columns) + " |\n|---" + "|---:" * len(columns) + "|")
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(column[row] for column in columns.values()) + " |")


def plot(columns: dict[str, Events], path: Path) -> None:
    """Maps of the noise, events a pixel, and gaps at a pixel."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplot_mosaic([["real", "grey wall", "likely light"], ["n", "up", "down"]], figsize=(12, 6.2))
    for (name, events), colour in zip(columns.items(), ("black", "tab:orange", "tab:blue"), strict=True):
        count = counts(events)
        axes[name].imshow(gaussian_filter((count > 0).astype(float), 6)[::4, ::4], vmin=0, vmax=0.15, cmap="magma")
        axes[name].set(title=f"{name}: share of pixels that fire", xticks=[], yticks=[])
        axes["n"].plot(np.arange(1, 60), np.bincount(count.ravel(), minlength=60)[1:60], ".-", color=colour, label=name)
        ms, before, after = gaps(events)
        for key, chosen in (("up", ~before & after), ("down", before & ~after)):
            axes[key].hist(ms[chosen], np.geomspace(0.1, 1250, 45), histtype="step", color=colour)
            axes[key].set(xscale="log")
    axes["n"].set(yscale="log", xlabel="events of a pixel in 1.25 s", ylabel="pixels")
    axes["n"].legend()
    axes["up"].set(xlabel="ms from OFF to the next event, an ON")
    axes["down"].set(xlabel="ms from ON to the next event, an OFF")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)  # a third of the size


if __name__ == "__main__":
    main()
