"""The passes of a track in both directions of time: what is read is kept, tracked twice, and then given out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evhands.both_ways import ReversedEvents, fused, mirror_us
from evhands.recording import EventsInMemory
from evhands.track_files import Passes, Sink, one_way
from evhands.tracking import Tracker, TrackResult, whole_windows
from evhands.types import Events, EventStream

Watch = Callable[[EventStream, str], EventStream]
"""Gives a stream back that shows, under a name, how far it has been read."""


def both_ways(watch: Watch = lambda stream, name: stream) -> Passes:
    """The passes for `run_track`: all events are held, 13 bytes each, and one hand is tracked in both directions."""

    def passes(
        tracker: Tracker, stream: EventStream, stride_us: int, sinks: Sequence[Sink], /
    ) -> tuple[list[TrackResult], float]:
        held = EventsInMemory(Events.concatenate(list(stream), stream.size))
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
