"""The passes of a track in both directions of time: what is read is kept, tracked twice, and then given out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from evhands.both_ways import ReversedEvents, check_one_hand, fused, mirror_us, with_shares
from evhands.track_files import Passes, Sink, one_way
from evhands.tracking import Tracker, TrackResult, whole_windows
from evhands.types import Events, EventStream, Size

Watch = Callable[[EventStream, str], EventStream]
"""Gives a stream back that shows, under a name, how far it has been read."""


@dataclass(frozen=True)
class HeldEvents:
    """Events in memory as a stream; `chunks` says how much of them has been read."""

    events: Events
    chunk: int = 100_000

    @property
    def size(self) -> Size:
        return self.events.size

    def __iter__(self) -> Iterator[Events]:
        for begin in range(0, len(self.events), self.chunk):
            yield self.events[begin : begin + self.chunk]

    def chunks(self) -> Iterator[tuple[Events, float]]:
        return with_shares(self, len(self.events))


def both_ways(watch: Watch = lambda stream, name: stream) -> Passes:
    """The passes for `run_track`: all events are held, 13 bytes each, and one hand is tracked in both directions."""

    def passes(
        tracker: Tracker, stream: EventStream, stride_us: int, sinks: Sequence[Sink], /
    ) -> tuple[list[TrackResult], float]:
        check_one_hand(tracker)
        held = HeldEvents(Events.concatenate(list(stream), stream.size))
        forward, there = one_way(tracker, watch(held, "tracking forwards"), stride_us, ())
        backward, back = one_way(tracker, watch(ReversedEvents(held.events), "tracking backwards"), stride_us, ())
        results = fused(tracker, forward, backward, mirror_us(held.events))
        if sinks:
            windows = whole_windows(watch(held, "writing"), tracker.estimator.input_config.window_us, stride_us)
            for window, result in zip(windows, results, strict=True):
                for sink in sinks:
                    sink(window, (result,))
        return results, there + back

    return passes
