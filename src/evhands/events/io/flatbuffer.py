"""Just enough of the flatbuffers wire format to read and write .aedat4 files; every access is checked against the end.

A table starts with a signed offset back to its vtable; the vtable lists, per field, where in the table it lies (0 =
absent). Strings, vectors and tables are unsigned offsets from their own position. Source: flatbuffers "internals" page.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


class FlatbufferError(ValueError):
    """The bytes are not the flatbuffer that was expected."""


@dataclass(frozen=True)
class Table:
    """One table inside a buffer; fields are named by their number in the schema."""

    data: bytes | memoryview
    position: int

    @staticmethod
    def root(data: bytes | memoryview, identifier: bytes, start: int = 0) -> Table:
        """The root table of a flatbuffer at `start`, which must carry the four-byte file identifier."""
        found = bytes(data[start + 4 : start + 8])
        if found != identifier:
            raise FlatbufferError(f"found {found!r} where {identifier!r} was wanted")
        return Table(data, start + _unpack("<I", data, start))

    def _field(self, number: int) -> int:
        """The position of a field, 0 where it is absent."""
        vtable = self.position - _unpack("<i", self.data, self.position)
        size = _unpack("<H", self.data, vtable)
        if 4 + 2 * number >= size:
            return 0
        offset = _unpack("<H", self.data, vtable + 4 + 2 * number)
        return self.position + offset if offset else 0

    def scalar(self, number: int, code: str, default: int = 0) -> int:
        """A number with the `struct` code given (b, h, i, q ...)."""
        position = self._field(number)
        return _unpack("<" + code, self.data, position) if position else default

    def vector(self, number: int, item_size: int) -> tuple[int, int]:
        """(position, length) of a vector of items of a fixed size; (0, 0) where it is absent."""
        position = self._field(number)
        if not position:
            return 0, 0
        start = position + _unpack("<I", self.data, position)
        length = _unpack("<I", self.data, start)
        if start + 4 + length * item_size > len(self.data):
            raise FlatbufferError(f"a vector of {length} items runs over the end")
        return start + 4, length

    def text(self, number: int) -> str:
        """A string, empty where it is absent."""
        start, length = self.vector(number, 1)
        return bytes(self.data[start : start + length]).decode("utf-8", "replace")

    def tables(self, number: int) -> list[Table]:
        """A vector of tables."""
        start, length = self.vector(number, 4)
        positions = (start + 4 * i for i in range(length))
        return [Table(self.data, position + _unpack("<I", self.data, position)) for position in positions]


def _unpack(code: str, data: bytes | memoryview, position: int) -> int:
    if position < 0:
        raise FlatbufferError("an offset points before the start")
    try:
        return int(struct.unpack_from(code, data, position)[0])
    except struct.error as error:
        raise FlatbufferError("an offset points behind the end") from error
