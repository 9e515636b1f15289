"""Events from standard input, or any other pipe: see `decoders` for what can come through it."""

from __future__ import annotations

import os
import select
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evhands.sources.decoders import Decoder, LineDecoder, MalformedError, decoder_of, refuse
from evhands.sources.lasting import TICK_S, SourceWarning
from evhands.types import Events, InputError, Size

_BYTES = 1 << 20


@dataclass
class PipeStream:
    """A pipe whose head has been read; can be iterated once. Yields empty `Events` as ticks while nothing comes."""

    descriptor: int
    name: str
    size: Size
    _decoder: Decoder
    _first: list[Events]

    def __iter__(self) -> Iterator[Events]:
        count = 0
        for events in self._decoded():
            outside = (events.x >= self.size[0]) | (events.y >= self.size[1])
            if outside.any():
                k = int(np.argmax(outside))
                raise InputError(
                    f"{self.name}: event {count + k} lies at x = {events.x[k]}, y = {events.y[k]}, outside its "
                    f"{self.size[0]}x{self.size[1]} sensor. Wanted every event on the sensor; mend what writes it."
                )
            count += len(events)
            yield events

    def _decoded(self) -> Iterator[Events]:
        yield from self._first
        try:
            while (data := _read(self.descriptor)) != b"":
                yield Events.empty(self.size) if data is None else self._joined(data)
            if not self._decoder.ended and isinstance(self._decoder, LineDecoder):
                yield self._joined(b"\n")
        except MalformedError as error:
            raise refuse(self.name, error) from error
        if not self._decoder.ended:
            text = f"{self.name} was cut off before its end; what came whole is used."
            warnings.warn(text, SourceWarning, stacklevel=2)

    def _joined(self, data: bytes) -> Events:
        return Events.concatenate(self._decoder.feed(data), self.size)


def open_pipe(descriptor: int, name: str = "standard input") -> PipeStream:
    """Read from an open file descriptor until the sensor size is known.

    Raises InputError where the descriptor is a terminal, or what comes is no stream of events.
    """
    if os.isatty(descriptor):
        raise InputError(
            f"{name} is a terminal. Wanted events piped in; try `evhands stream FILE --to - | evhands track -`."
        )
    head, first = b"", list[Events]()
    decoder: Decoder | None = None
    try:
        while decoder is None or decoder.size is None:
            data = _read(descriptor)
            if data is None:
                continue
            if decoder is None:
                head += data
                decoder, data = decoder_of(head, last=not data), head
            elif not data and isinstance(decoder, LineDecoder):
                first += decoder.feed(b"\n")
            if decoder is not None and data:
                first += decoder.feed(data)
            elif not data and (decoder is None or decoder.size is None):
                raise MalformedError("ended before its first event")
    except MalformedError as error:
        raise refuse(name, error) from error
    return PipeStream(descriptor, name, decoder.size, decoder, first)


def _read(descriptor: int) -> bytes | None:
    """What has come, nothing at the end, None where nothing comes."""
    if not select.select([descriptor], [], [], TICK_S)[0]:
        return None
    return os.read(descriptor, _BYTES)
