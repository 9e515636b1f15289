"""Laws of the live loop: the poses are those of the file, overload is bounded and counted, and the end leaves whole
files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.jobs import track as job
from evhands.live import EventCount, LiveConfig, LiveReport, Piece, TimeStep, replayed, run_live
from evhands.live.loop import Quantiles
from evhands.live.telling import ending_well
from evhands.live.writing import TrackWriter
from evhands.track_files import FILES, load_track, run_track
from evhands.tracking import Tracker, TrackerConfig
from evhands.types import Events, Prediction
from seeing_models import Middle, flat_hand

SIZE = (120, 90)


@dataclass
class Mean(Middle):
    """A model whose hand lies where the events of the crop do, so that poses tell which events were seen."""

    pause_s: float = 0.0

    def initial_state(self, batch):
        return 0.0

    def predict(self, window, camera, crop, state, side="right"):
        time.sleep(self.pause_s)
        place = float(window.events.x.mean()) / 1000 + 0.1 * state
        return Prediction(flat_hand(place - 0.06, side), np.float32(0.7)), 0.5 * state + place


def tracker(pause_s: float = 0.0) -> Tracker:
    model = Mean(pause_s)
    return Tracker(model, model, load_hand("open"), default_camera(SIZE), TrackerConfig(smoothing=None))


def some_events(seconds: float = 0.5, rate: int = 20_000) -> Events:
    rng = np.random.default_rng(0)
    count = int(rate * seconds)
    t = np.sort(rng.integers(1_000_000, 1_000_000 + int(1e6 * seconds), count))
    xy = (rng.normal(0, 12, (count, 2)) + [60, 45] + 10 * np.sin(t / 1e5)[:, None]).clip(0, (119, 89)).astype(np.uint16)
    return Events(xy[:, 0], xy[:, 1], t, rng.random(count) < 0.5, SIZE)


@dataclass
class Stream:
    parts: list[Events]
    size: tuple[int, int] = SIZE

    def __iter__(self):
        yield from self.parts


def in_chunks(events: Events, count: int) -> Stream:
    return Stream([events[k : k + count] for k in range(0, len(events), count)])


class Kept(list):
    def __call__(self, window, hands):
        self.append(hands[0])


def test_a_recording_gives_the_same_poses_in_any_chunks_and_at_true_pace():
    events = some_events()
    wanted = run_track(tracker(), Stream([events]), model="m", stride_us=10_000)
    assert len(wanted) > 30 and wanted.tracked.all() and np.ptp(wanted.joints_m[:, 0, 0]) > 0.01
    for count in (1, 100, 100_000):
        got = run_track(tracker(), in_chunks(events, count), model="m", stride_us=10_000)
        np.testing.assert_array_equal(got.joints_m, wanted.joints_m)
        np.testing.assert_array_equal(got.t_us, wanted.t_us)
    live = Kept()
    config = LiveConfig(windowing=TimeStep(66_667, 10_000), behind_us=None)
    told = run_live(tracker(), replayed(Stream([events])), SIZE, config, [live])
    assert told.dropped == 0 and told.late == 0 and told.windows == len(wanted)
    np.testing.assert_array_equal([r.t_us for r in live], wanted.t_us)
    np.testing.assert_array_equal(np.array([r.joints_m for r in live], np.float32), wanted.joints_m)


def test_a_slow_tracker_passes_over_windows_and_stays_near():
    events = some_events(1.0)
    live = Kept()
    config = LiveConfig(windowing=TimeStep(66_667, 5_000), behind_us=20_000)
    start = time.monotonic()
    told = run_live(tracker(0.02), replayed(Stream([events])), SIZE, config, [live])
    assert told.dropped > 50 and told.windows + told.dropped == (1_000_000 - 66_667) // 5_000 + 1
    assert told.latency.at(0.95) < 0.3, "it never falls behind"
    assert time.monotonic() - start < 6
    assert [r.t_us for r in live] == sorted({r.t_us for r in live})


def test_windows_by_count_follow_the_events():
    live = Kept()
    told = run_live(
        tracker(), replayed(Stream([some_events(0.3)])), SIZE, LiveConfig(windowing=EventCount(1000, 500)), [live]
    )
    assert told.windows + told.dropped == (6000 - 1000) // 500 + 1


def test_a_limit_on_events_is_kept_and_told():
    told = run_live(tracker(), replayed(Stream([some_events(0.5)])), SIZE, LiveConfig(max_event_rate=5000.0))
    assert told.events == 10_000 and 6000 < told.thinned < 8000


def test_quantiles_are_those_of_the_durations():
    rng, told = np.random.default_rng(1), Quantiles()
    values = np.exp(rng.normal(-5, 1, 4000))
    for value in values:
        told.add(float(value))
    for share in (0.5, 0.95, 0.99):
        assert told.at(share) == pytest.approx(np.quantile(values, share), rel=0.02)
    assert told.at(1.0) == values.max() and np.isnan(Quantiles().at(0.5))


def test_what_is_written_on_the_way_is_what_a_file_track_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("evhands.live.writing._ROWS", 7)
    events = some_events()
    run_track(tracker(), Stream([events]), model="m", out=tmp_path / "file", video=False)
    with TrackWriter(tmp_path / "live", tracker(), "m", video=False) as writer:
        told = run_live(tracker(), replayed(Stream([events])), SIZE, LiveConfig(behind_us=None), [writer])
        assert sorted(p.name for p in (tmp_path / "live").iterdir() if not p.name.startswith(".")) == []
        writer.finish(told.told())
    assert sorted(p.name for p in (tmp_path / "live").iterdir()) == ["poses.csv", "poses.npz", "summary.json"]
    a, b = (load_track(tmp_path / name / "poses.npz") for name in ("file", "live"))
    for name in (
        "t_us",
        "joints_m",
        "joints",
        "wrist",
        "shape",
        "confidence",
        "tracked",
        "status",
        "events",
        "boxes_px",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (tmp_path / "file" / "poses.csv").read_text() == (tmp_path / "live" / "poses.csv").read_text()
    assert json.loads((tmp_path / "live" / "summary.json").read_text())["windows"] == len(a)


def test_an_error_on_the_way_leaves_what_was_there(tmp_path):
    (tmp_path / "poses.csv").write_text("mine")
    with pytest.raises(RuntimeError), TrackWriter(tmp_path, tracker(), "m", video=True) as writer:
        writer(*_one_window())
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["poses.csv"]


def _one_window():
    kept = []
    run_live(tracker(), [Piece(some_events(0.1), 0.0)], SIZE, LiveConfig(), [lambda w, h: kept.append((w, h))])
    return kept[0]


def test_ctrl_c_ends_the_loop_and_is_told():
    def pieces():
        yield Piece(some_events(0.2), time.monotonic())
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    try:
        told = run_live(tracker(), pieces(), SIZE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert told.interrupted and told.windows + told.dropped > 2


def test_a_signal_does_not_divide_a_window():
    """It comes while the first of two sinks has the window: the second one gets it, too, and then the track ends."""
    first, second = [], []

    def killed(window, hands):
        first.append(window.end_us)
        if len(first) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here

    pieces = [Piece(part, 0.0) for part in in_chunks(some_events(1.0), 500).parts]
    with ending_well():
        told = run_live(
            tracker(),
            pieces,
            SIZE,
            LiveConfig(behind_us=None),
            [killed, lambda window, hands: second.append(window.end_us)],
        )
    assert told.interrupted and first == second and len(first) == told.windows == 3


def test_a_second_signal_frees_a_sink_that_is_stuck():
    def stuck(window, hands):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        raise AssertionError("it went on")

    with ending_well():
        told = run_live(tracker(), [Piece(some_events(0.2), 0.0)], SIZE, LiveConfig(), [stuck])
    assert told.interrupted


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_files(tmp_path, number):
    """The real command, ended in the middle of a recording."""
    recording, out = os.path.join(os.path.dirname(job.__file__), "..", "assets", "demo.h5"), tmp_path / "out"
    command = [sys.executable, "-m", "evhands", "track", recording, "--live", "--out", str(out), "--jsonl"]
    process = subprocess.Popen([*command, str(tmp_path / "hands.jsonl")], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "hands.jsonl").exists() or (tmp_path / "hands.jsonl").stat().st_size < 10_000:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 0, process.stderr.read()
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    summary = json.loads((out / "summary.json").read_text())
    lines = (tmp_path / "hands.jsonl").read_text().splitlines()
    assert summary["interrupted"] and summary["windows"] == len(load_track(out / "poses.npz")) == len(lines)
    assert all(json.loads(line) for line in lines)


def test_reports_name_what_happened():
    from evhands.live.telling import report_live

    text = report_live(LiveReport(windows=10, dropped=3, seconds=2.0, late=7, interrupted=True), None, True)
    assert "10, 3 dropped" in text and "7 events" in text and "ended by hand" in text
