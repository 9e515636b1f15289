"""A pipe: all that was written arrives, silence gives ticks, and an end in the wrong place is said."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from event_recordings import SIZE, same, some_events
from evhands.sources import SourceWarning
from evhands.sources.decoders import frame, frame_header
from evhands.sources.pipe import open_pipe
from evhands.types import Events, InputError

EVENTS = some_events(40_000)


@contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """The reading end of a pipe into which `data` is written, and which is then closed."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join(timeout=5)


def test_every_event_arrives() -> None:
    with pipe(frame_header(SIZE) + frame(EVENTS[:30_000]) + frame(EVENTS[30_000:])) as descriptor:
        stream = open_pipe(descriptor)
        assert same(Events.concatenate(list(stream), stream.size), EVENTS)


def test_a_last_line_needs_no_end() -> None:
    with pipe(b"# size 64x48\n10 1 2 1\n20 3 4 0") as descriptor:
        stream = open_pipe(descriptor)
        assert Events.concatenate(list(stream)).t_us.tolist() == [10, 20]


def test_while_nothing_comes_there_are_ticks() -> None:
    reading, writing = os.pipe()
    os.write(writing, frame_header(SIZE) + frame(EVENTS[:10]))
    chunks = iter(open_pipe(reading))
    assert len(next(chunks)) == 10
    assert [len(next(chunks)) for _ in range(2)] == [0, 0]
    os.write(writing, frame(EVENTS[10:30]))
    assert len(next(chunks)) == 20
    os.close(writing)
    assert list(chunks) == []
    os.close(reading)


def test_a_stream_that_is_cut_off_is_used_as_far_as_it_goes() -> None:
    with (
        pipe(frame_header(SIZE) + frame(EVENTS[:100]) + frame(EVENTS[100:200])[:-5]) as descriptor,
        pytest.warns(SourceWarning, match="cut off"),
    ):
        assert same(Events.concatenate(list(open_pipe(descriptor))), EVENTS[:100])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"# events\n", "before its first event"),
        (b"10 1 2 1", "how large the sensor"),
        (b"\x00\x01\x02\x03" * 50, "no known kind"),
        (b"# size 64x48\n10 1 2 1\n20 64 4 0\n", "event 1 lies at x = 64"),
        (b"# size 64x48\n10 1 2 1\nnonsense\n", "'nonsense' after 1 events"),
    ],
)
def test_what_is_no_stream_of_events_is_refused(data: bytes, message: str) -> None:
    with pipe(data) as descriptor, pytest.raises(InputError, match=message):
        list(open_pipe(descriptor))
