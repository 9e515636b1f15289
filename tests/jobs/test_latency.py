"""`evhands latency`: its parts add up to the step, and it says what it measured on."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from evhands.cli import main
from evhands.hand.model import load_hand
from evhands.live import making
from evhands.live.load import Looped, first_seconds
from evhands.stopwatch import PARTS, listening, part
from evhands.tracking import Tracker, TrackerConfig
from evhands.types import Events, InputError
from seeing_models import Middle

SIZE = (120, 90)


class Slow(Middle):
    """A model whose network takes 5 ms and whose detector takes 3."""

    def predict(self, *args, **options):
        with part("network"):
            time.sleep(0.005)
        return super().predict(*args, **options)

    def detect(self, window, camera):
        time.sleep(0.003)
        return super().detect(window, camera)


def some_events(count: int = 20_000, seconds: float = 1.0) -> Events:
    rng = np.random.default_rng(0)
    xy = rng.normal(np.array(SIZE) / 2, 12, (count, 2)).clip(0, np.array(SIZE) - 1).astype(np.uint16)
    return Events(
        xy[:, 0], xy[:, 1], np.sort(rng.integers(0, int(1e6 * seconds), count)), rng.random(count) < 0.5, SIZE
    )


class Stream(list):
    size = SIZE


def test_a_listener_hears_the_parts_and_nobody_else_pays():
    with part("network"):
        pass
    with listening() as seconds:
        with part("network"):
            time.sleep(0.01)
        assert 0.01 <= seconds["network"] < 0.2 and seconds["hand"] == 0.0
    with part("network"):
        time.sleep(0.01)
    assert seconds["network"] < 0.2


@pytest.mark.parametrize("rate", [None, 5_000.0, 200_000.0])
def test_a_loop_has_the_rate_that_is_asked_for_on_one_clock(rate):
    events = some_events()
    got = Events.concatenate(list(Looped(events, 2.5, rate)))
    assert (np.diff(got.t_us) >= 0).all() and got.t_us[-1] < 2_500_000
    assert len(got) == pytest.approx(2.5 * (rate or len(events)), rel=0.02)


def test_the_beginning_of_a_stream():
    events = some_events()
    begun = first_seconds(Stream([events[:5], events[5:]]), 0.25)
    np.testing.assert_array_equal(begun.t_us, events.t_us[events.t_us <= events.t_us[0] + 250_000])
    with pytest.raises(InputError, match="no events"):
        first_seconds(Stream([]), 1.0)


def test_the_command_tells_where_the_time_goes(tmp_path, monkeypatch, capsys):
    def make(model, camera, side, device, smooth=True, mano=None):
        return Tracker(Slow(), Slow(), load_hand("open"), camera, TrackerConfig())

    monkeypatch.setattr(making, "make_tracker", make)
    e = some_events()
    np.savez(tmp_path / "events.npz", x=e.x, y=e.y, t=e.t_us, p=e.p, width=SIZE[0], height=SIZE[1])
    out = tmp_path / "latency.json"
    assert main(["latency", str(tmp_path / "events.npz"), "--seconds", "1.5", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    told = json.loads(out.read_text())
    parts = told["parts_ms"]
    assert set(parts) == set(PARTS) and all(name in text for name in PARTS)
    assert parts["network"]["p50"] >= 5 and parts["detector"]["p50"] >= 3
    assert told["step_ms"]["p50"] >= 8 and told["latency_ms"]["p50"] >= 0.98 * told["step_ms"]["p50"]
    assert told["windows"] + told["dropped_windows"] >= 40 and told["offline"]["poses_per_second"] < 125
    assert told["machine"]["cores"] and told["stride_us"] == 33_333


def test_no_time_is_refused(capsys):
    assert main(["latency", "demo.h5", "--seconds", "0"]) == 2
    assert "0.0 seconds" in capsys.readouterr().err
