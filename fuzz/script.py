"""An input, read piece by piece as what is to be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

LONG = 0xF0  # a length of more than one byte begins with this or more


class Script:
    """What is left of an input; behind its end all numbers are 0 and all bytes are none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def number(self) -> int:
        """A byte."""
        if self.is_over:
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def flag(self) -> bool:
        return self.number() & 1 != 0

    def choice(self, among: Sequence[T]) -> T:
        """One of these."""
        return among[self.number() % len(among)]

    def piece(self) -> bytes:
        """Some bytes: their length comes before them, in one byte or two."""
        size = self.number()
        if size >= LONG:
            size = (size - LONG) << 8 | self.number()
        return self._take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self._take(len(self._data))

    def _take(self, size: int) -> bytes:
        start = self._at
        self._at = min(start + size, len(self._data))
        return self._data[start : self._at]


def text(raw: bytes) -> str:
    """Bytes as text; what is no UTF-8 becomes lone surrogates, which text may hold as well."""
    return raw.decode("utf8", "surrogateescape")
