"""The live loop: takes events as they come, tracks the windows that are due, and tells everybody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evhands.events.windows import window_at
from evhands.hands import HandsState, step
from evhands.live.cutting import Cutter, Due, EventCount, TimeStep, Windowing
from evhands.live.reading import RateLimiter, Reader
from evhands.live.undivided import undivided
from evhands.machine import give_memory_back
from evhands.sources.replaying import Piece
from evhands.stopwatch import part, unheard
from evhands.track_files import Sink
from evhands.tracking import Tracker, TrackResult
from evhands.types import Events, Size

_TIDY_S = 10.0
_WAIT_S = 0.02
_WARM_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How windows are cut and what happens when there is too much.

    windowing: None = those the network was trained for. behind_us: windows that have waited longer than this are passed
    over for the newest one that is due, and counted; None = none is ever passed over. max_event_rate: events a second
    that are let through; None = all.
    """

    windowing: Windowing | None = None
    behind_us: int | None = 50_000
    max_event_rate: float | None = None


@dataclass
class Quantiles:
    """Quantiles of any number of durations in little memory: a histogram of bins 1 % wide from a microsecond on."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(2400, np.int64))
    longest_s: float = 0.0

    def add(self, seconds: float) -> None:
        place = np.log(max(seconds, 1e-6) / 1e-6) / np.log(1.01)
        self.counts[min(int(place), len(self.counts) - 1)] += 1
        self.longest_s = max(self.longest_s, seconds)

    def at(self, share: float) -> float:
        """Seconds that this share of the durations does not exceed, to one per cent; NaN without any."""
        total = int(self.counts.sum())
        if not total:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.counts), share * total, side="left"))
        return min(1e-6 * 1.01 ** (place + 1), self.longest_s)

    def told_ms(self) -> dict[str, float]:
        """p50, p95, p99 and the longest, in milliseconds."""
        told = {f"p{round(100 * share)}": 1000 * self.at(share) for share in (0.5, 0.95, 0.99)}
        return {name: round(value, 3) for name, value in (told | {"max": 1000 * self.longest_s}).items()}


@dataclass
class LiveReport:
    """What a live track has been so far.

    latency: from the last event of a window (as soon as a source could give it) to the hands. step: of that, the
    tracker's work. late, lost, thinned: events behind windows closed by the clock, given up because too many waited,
    and left out by the limiter. interrupted: ended by Ctrl-C or a signal.
    """

    windows: int = 0
    dropped: int = 0
    tracked: int = 0
    holding: int = 0
    events: int = 0
    late: int = 0
    lost: int = 0
    thinned: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    first_us: int | None = None
    last_us: int | None = None
    confidence_sum: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)
    step: Quantiles = field(default_factory=Quantiles)
    interrupted: bool = False

    def told(self) -> dict[str, Any]:
        """As plain values."""
        share = max(self.windows, 1)
        return {
            "windows": self.windows,
            "dropped_windows": self.dropped,
            "tracked_share": round(self.tracked / share, 4),
            "holding_share": round(self.holding / share, 4),
            "mean_confidence": round(self.confidence_sum / max(self.tracked, 1), 4),
            "events": self.events,
            "late_events": self.late,
            "lost_events": self.lost,
            "thinned_events": self.thinned,
            "first_us": self.first_us,
            "last_us": self.last_us,
            "seconds": round(self.seconds, 3),
            "processor_share": round(self.processor_seconds / max(self.seconds, 1e-9), 4),
            "latency_ms": self.latency.told_ms(),
            "step_ms": self.step.told_ms(),
            "interrupted": self.interrupted,
        }


def run_live(
    tracker: Tracker,
    pieces: Iterable[Piece],
    size: Size,
    config: LiveConfig = LiveConfig(),
    sinks: Sequence[Sink] = (),
    report: LiveReport | None = None,
) -> LiveReport:
    """Track a source at its own pace until it ends, or until Ctrl-C; every window with its hands goes to the sinks.

    The first windows are tracked once for nothing, so that what is compiled on first use is there; they may be late.
    `report` is filled in as the track goes on.
    """
    report = report or LiveReport()
    inputs = tracker.estimator.input_config
    windowing = config.windowing or TimeStep(inputs.window_us, inputs.stride_us)
    with unheard():
        warm_up(tracker, size)
    cutter, state = Cutter(size, windowing), HandsState()
    limiter = None if config.max_event_rate is None else RateLimiter(config.max_event_rate)
    start_s, start_cpu = time.monotonic(), time.process_time()
    reader = Reader(pieces, limiter)
    try:
        with reader:
            ended, tidied_s = False, start_s
            while not ended:
                if time.monotonic() > tidied_s + _TIDY_S:  # here, where no window waits: it takes a millisecond
                    give_memory_back()
                    tidied_s = time.monotonic()
                ended = _feed(cutter, reader, _WAIT_S)
                while cutter.due():
                    overdue = config.behind_us is not None and cutter.behind_us() > config.behind_us
                    with part("slicing"):
                        due = cutter.take(newest=overdue)
                    state = _track(tracker, due, state, sinks, report)
                    report.dropped, report.late = cutter.dropped, cutter.late
                    ended = ended or _feed(cutter, reader, 0.0)
                _account(report, reader, limiter, start_s, start_cpu)
    except KeyboardInterrupt:
        report.interrupted = True
    _account(report, reader, limiter, start_s, start_cpu)
    return report


def _feed(cutter: Cutter, reader: Reader, timeout_s: float) -> bool:
    """Hand on what has come, waiting at most so long; whether that was all there is."""
    pieces, ended = reader.take(timeout_s)
    for piece in pieces:
        cutter.add(piece)
    if ended:
        cutter.finish()
    return ended


def _track(tracker: Tracker, due: Due, state: HandsState, sinks: Sequence[Sink], report: LiveReport) -> HandsState:
    begun = time.monotonic()
    if len(due.missed) and state.recent is not None:
        state = replace(state, recent=Events.concatenate([state.recent, due.missed]))
    state, hands = step(tracker, due.window, state)
    done = time.monotonic()
    report.step.add(done - begun)
    report.latency.add(max(done - due.ready_s, 0.0))
    with undivided():
        _count(report, hands)
        for sink in sinks:
            sink(due.window, hands)
    return state


def _count(report: LiveReport, hands: Sequence[TrackResult]) -> None:
    report.windows += 1
    report.first_us = hands[0].t_us if report.first_us is None else report.first_us
    report.last_us = hands[0].t_us
    if hands[0].tracked:
        report.tracked += 1
        report.holding += any(hand.status == "holding" for hand in hands)
        report.confidence_sum += float(np.mean([hand.confidence for hand in hands]))


def _account(report: LiveReport, reader: Reader, limiter: RateLimiter | None, start_s: float, start_cpu: float) -> None:
    report.events, report.lost = reader.events, reader.lost
    report.thinned = 0 if limiter is None else limiter.thinned
    report.seconds, report.processor_seconds = time.monotonic() - start_s, time.process_time() - start_cpu


def warm_up(tracker: Tracker, size: Size) -> None:
    """Track a few made-up windows for nothing, so that all that is compiled or laid out on first use is there."""
    rng, inputs = np.random.default_rng(0), tracker.estimator.input_config
    count = 4000
    width, height = size
    middle = np.array([width, height]) / 2
    places = (middle + rng.normal(0, 0.1 * min(size), (count, 2))).clip(0, np.array(size) - 1)
    t_us = np.sort(rng.integers(0, 10 * inputs.window_us, count))
    x, y = places.T.astype(np.uint16)
    events = Events(x, y, t_us, rng.random(count) < 0.5, size)
    state = HandsState()
    for end in range(2 * inputs.window_us, (2 + _WARM_STEPS) * inputs.window_us, inputs.window_us):
        state, _ = step(tracker, window_at(events, end, inputs.window_us), state)
    lively = replace(tracker, config=replace(tracker.config, min_detection=0.0))
    step(lively, window_at(events, 9 * inputs.window_us, inputs.window_us), HandsState())


__all__ = ["EventCount", "LiveConfig", "LiveReport", "Quantiles", "TimeStep", "run_live", "warm_up"]
