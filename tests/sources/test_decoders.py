"""Events in pieces: cut anywhere, a stream gives the same events; what is no stream of events is said to be none."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from event_recordings import SIZE, Replay, same, some_events
from evhands.events.io import write_events
from evhands.events.io.aedat4_writer import stream_header
from evhands.sources.decoders import (
    FRAME_MAGIC,
    MalformedError,
    PacketDecoder,
    decoder_of,
    frame,
    frame_header,
)
from evhands.sources.serving import packet
from evhands.types import Events

EVENTS = some_events(300, start_us=1_655_000_000_000_000)


def framed() -> bytes:
    return frame_header(SIZE) + frame(EVENTS[:100]) + frame(EVENTS[:0]) + frame(EVENTS[100:])


def lines(names: str = "", order: str = "txyp") -> bytes:
    columns = {"t": EVENTS.t_us, "x": EVENTS.x, "y": EVENTS.y, "p": EVENTS.p.astype(int)}
    rows = [" ".join(str(columns[c][k]) for c in order) for k in range(len(EVENTS))]
    return (f"# size {SIZE[0]}x{SIZE[1]}\n{names}" + "\n".join(rows) + "\n").encode()


def written(suffix: str, folder) -> bytes:
    write_events(folder / f"a{suffix}", Replay(EVENTS))
    return (folder / f"a{suffix}").read_bytes()


def decoded(data: bytes, step: int) -> Events:
    decoder = decoder_of(data[:64], last=True)
    assert decoder is not None
    parts = [part for i in range(0, len(data), step) for part in decoder.feed(data[i : i + step])]
    assert decoder.size == SIZE and decoder.ended
    return Events.concatenate(parts, SIZE)


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("kind", ["frames", "lines", "named lines", ".aedat4", ".csv"])
def test_the_pieces_do_not_matter(kind: str, step: int, tmp_path) -> None:
    streams = {"frames": framed, "lines": lines, "named lines": lambda: lines("x,y,t_us,polarity\n", "xytp")}
    data = streams[kind]() if kind in streams else written(kind, tmp_path)
    assert same(decoded(data, step), EVENTS)


@pytest.mark.parametrize("step", [1, 1000])
def test_packets_of_a_socket_end_where_an_empty_one_says_so(step: int) -> None:
    data = stream_header(SIZE) + packet(EVENTS[:200]) + packet(EVENTS[200:])
    decoder = PacketDecoder(magic=False)
    parts = [part for i in range(0, len(data), step) for part in decoder.feed(data[i : i + step])]
    assert same(Events.concatenate(parts, SIZE), EVENTS) and not decoder.ended
    assert decoder.feed(packet(EVENTS[:0])) == [] and decoder.ended
    assert len(decoder.feed(packet(EVENTS))) == 1 and not decoder.ended


def test_seconds_are_read_where_the_columns_say_so() -> None:
    decoder = decoder_of(b"# size 64x48\n", last=False)
    (events,) = decoder.feed(b"# size 64x48\nt_s x y p\n0.5 1 2 1\n1.25 3 4 0\n")
    np.testing.assert_array_equal(events.t_us, [500_000, 1_250_000])


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_on_the_way_is_events_or_a_clear_refusal(seed: int, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(framed() if seed % 3 == 0 else written((".aedat4", ".csv")[seed % 2], tmp_path))
    for position in rng.integers(0, min(len(data), 1200 if seed % 4 else len(data)), 5):
        data[position] = rng.integers(256)
    with suppress(MalformedError):
        decoder = decoder_of(bytes(data[:64]), last=True)
        assert decoder is not None
        events = [part for i in range(0, len(data), 500) for part in decoder.feed(bytes(data[i : i + 500]))]
        assert sum(map(len, events)) <= 2 * len(EVENTS)


MALFORMED = {
    "nothing": (b"", "is empty"),
    "binary": (bytes(range(200, 256)), "no known kind"),
    "prose": (b"# size 64x48\nonce upon a time\n", "names its columns|has the line"),
    "no size": (b"100 1 2 1\n", "how large the sensor"),
    "three numbers": (b"# size 64x48\n100 1 2 1\n200 1 2\n", "'200 1 2' after 1 events"),
    "endless time": (b"# size 64x48\n1e99 1 2 1\n", "too large"),
    "fractions": (b"# size 64x48\n100.5 1 2 1\n", "whole microseconds"),
    "bad frame header": (FRAME_MAGIC + b"large\n", "WIDTHxHEIGHT"),
    "huge frame": (frame_header(SIZE) + b"\xff\xff\xff\xff", "frame of"),
    "not a header": (b"#!AER-DAT4.0\r\n" + b"\xff" * 40, "header"),
    "not a packet": (b"#!AER-DAT4.0\r\n" + stream_header(SIZE) + b"\xff" * 40, "no packet"),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("step", [3, 1 << 20])
def test_what_is_no_stream_of_events_is_refused(name: str, step: int) -> None:
    data, message = MALFORMED[name]
    with pytest.raises(MalformedError, match=message):
        decoder = decoder_of(data[:64], last=True)
        assert decoder is not None
        for i in range(0, len(data), step):
            decoder.feed(data[i : i + step])
