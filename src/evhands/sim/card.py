"""What a folder of simulated recordings is: a card with every setting and event statistics, and a contact sheet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evhands import __version__
from evhands.boxes import sensor_pixels
from evhands.events.windows import window_at
from evhands.files import replacing
from evhands.overlay import draw_events, draw_skeleton
from evhands.recording import read_recording
from evhands.sim.config import ClipConfig


def write_card(out: Path, configs: dict[Path, ClipConfig], series: dict[str, Any]) -> dict[str, Any]:
    """Write OUT/card.json of recordings (path -> its configuration): settings and statistics; returns the latter."""
    metas = [read_recording(path).meta for path in configs]
    rows = [meta["statistics"] for meta in metas]
    seconds, events = sum(r["seconds"] for r in rows), sum(r["events"] for r in rows)
    rates = np.array([r["events"] / r["seconds"] for r in rows])
    statistics = {
        "recordings": len(rows),
        "seconds": seconds,
        "events": events,
        "events_per_second": events / seconds,
        "events_per_second_quantiles": dict(
            zip(
                ("5 %", "25 %", "50 %", "75 %", "95 %"),
                np.quantile(rates, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist(),
                strict=True,
            )
        ),
        "on_share": sum(r["on_events"] for r in rows) / max(events, 1),
        "joint_px_per_second": float(np.mean([r["joint_px_s"] for r in rows])),
        "box_share_of_image": float(np.mean([r["box_share"] for r in rows])),
        "subjects": len({meta["subject"] for meta in metas}),
    }
    settings: dict[str, str] = {}
    for path, config in configs.items():
        settings.setdefault(json.dumps(asdict(config), sort_keys=True), path.name)
    card = {
        "evhands": __version__,
        "series": series,
        "statistics": statistics,
        "first_of_each_setting": {name: json.loads(setting) for setting, name in list(settings.items())[:200]},
        "recordings": {path.name: meta for path, meta in zip(configs, metas, strict=True)},
    }
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1))
    return statistics


SHEET = (4, 5)
"""Rows and columns of the contact sheet."""


def write_sheet(out: Path, paths: list[Path]) -> Path:
    """Write OUT/sheet.png: the events of a window from the middle of some recordings, with the true skeleton."""
    rows, columns = SHEET
    chosen = [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, rows * columns).astype(int))]
    tiles = []
    for source in chosen:
        recording = read_recording(source)
        assert recording.pose_t_us is not None and recording.joints_m is not None
        middle = len(recording.pose_t_us) // 2
        t_us = int(recording.pose_t_us[middle])
        window = window_at(recording.events, t_us, 33_000)
        picture = draw_events(window.events, t_us, 33_000)
        draw_skeleton(picture, sensor_pixels(recording.joints_m[middle].astype(np.float64), recording.camera))
        image = Image.fromarray(np.clip(picture * 255, 0, 255).astype(np.uint8))
        tiles.append(np.asarray(image.resize((346, round(346 * image.height / image.width)))))
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    lines = [np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)]
    path = out / "sheet.png"
    with replacing(path) as temporary, open(temporary, "wb") as file:
        Image.fromarray(np.concatenate(lines)).save(file, "png")
    return path
