"""Laws of events that come at their own pace."""

from __future__ import annotations

import time

import numpy as np
import pytest

from evhands.live import Piece, RateLimiter, Reader, as_they_come, replayed
from evhands.types import Events, InputError

SIZE = (20, 10)


def events_at(t_us) -> Events:
    t = np.asarray(t_us, np.int64)
    return Events((t % 20).astype(np.uint16), (t % 10).astype(np.uint16), t, t % 3 == 0, SIZE)


class Stream:
    size = SIZE

    def __init__(self, *parts: Events, error: Exception | None = None) -> None:
        self.parts, self.error = parts, error

    def __iter__(self):
        yield from self.parts
        if self.error:
            raise self.error


def test_a_replay_gives_all_events_not_before_their_time_and_ticks_that_tell_the_truth():
    whole = events_at(np.r_[np.arange(0, 20_000, 100), np.arange(60_000, 80_000, 100)])
    start, got, known = time.monotonic(), [], -1
    for piece in replayed(Stream(whole)):
        if len(piece.events):
            assert piece.events.t_us[0] >= known, "a tick has said that nothing would come before"
            got.append(piece.events)
            assert time.monotonic() - start >= piece.events.t_us[-1] / 1e6 - 1e-4
            assert piece.events.t_us[-1] - piece.events.t_us[0] <= 2000
        else:
            known = max(known, piece.until_us)
    np.testing.assert_array_equal(np.concatenate([e.t_us for e in got]), whole.t_us)
    assert 25_000 < known <= 60_000


def test_the_clock_of_a_silent_source_goes_on():
    def parts():
        yield events_at([1000, 2000])
        time.sleep(0.05)
        yield Events.empty(SIZE)

    stream = Stream()
    stream.__class__ = type("Slow", (Stream,), {"__iter__": lambda self: parts()})
    first, tick = as_they_come(stream, grace_us=10_000)
    assert first.until_us is None
    assert 2000 + 39_000 <= tick.until_us <= 2000 + 40_000 + 30_000


@pytest.mark.parametrize("pieces", [1, 7, 50])
def test_the_limiter_keeps_the_rate_and_the_order(pieces):
    whole = events_at(np.arange(0, 1_000_000, 5))  # 200 000 events in a second
    limiter = RateLimiter(50_000)
    edges = np.linspace(0, len(whole), pieces + 1).astype(int)
    kept = [limiter(whole[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    joined = Events.concatenate(kept)
    assert abs(len(joined) - 50_000) < 4000 and len(joined) + limiter.thinned == len(whole)
    assert (np.diff(joined.t_us) > 0).all()
    per_tenth = np.bincount(joined.t_us // 100_000, minlength=10)
    assert per_tenth[1:].max() - per_tenth[1:].min() < 400, "thinned evenly"


def test_few_events_pass_the_limiter_as_they_are():
    whole = events_at(np.arange(0, 100_000, 100))
    limiter = RateLimiter(50_000)
    assert limiter(whole) is whole and limiter.thinned == 0


def test_a_reader_gives_everything_in_order_and_says_when_it_is_over():
    parts = [events_at([k, k + 1]) for k in range(0, 400, 2)]
    with Reader(Piece(part, 0.0) for part in parts) as reader:
        got, ended = [], False
        while not ended:
            pieces, ended = reader.take(0.5)
            got += [int(t) for piece in pieces for t in piece.events.t_us]
    assert got == list(range(400)) and reader.events == 400 and reader.lost == 0


def test_where_too_much_waits_the_oldest_is_given_up():
    parts = [events_at(np.arange(k, k + 100)) for k in range(0, 1000, 100)]
    with Reader((Piece(part, 0.0) for part in parts), most_waiting=250) as reader:
        reader._thread.join()
        pieces, ended = reader.take(0.5)
    assert ended and reader.lost == 800 and pieces[0].events.t_us[0] == 800


def test_an_error_of_the_source_reaches_who_takes():
    with Reader(replayed(Stream(events_at([0, 1]), error=InputError("broken")))) as reader:
        reader._thread.join()
        with pytest.raises(InputError, match="broken"):
            reader.take(0.5)
