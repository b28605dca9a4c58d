"""How AMQP writes numbers, texts and tables. Pure.

Source: AMQP 0-9-1, section 4.2, and the types of table fields that RabbitMQ has
(rabbitmq.com/amqp-0-9-1-errata, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct as Layout
from struct import error as LayoutError
from typing import Any

u16 = Layout("!H")
u32 = Layout("!I")
u64 = Layout("!Q")
i64 = Layout("!q")

LONGEST_SHORT = 255
"""Bytes of a short string: names of queues and exchanges, routing keys, most properties."""
DEEPEST = 20  # tables within tables; beyond that it is no message of anybody sensible


class Malformed(ValueError):
    """Bytes that are not what they should be."""


def short(text: str) -> bytes:
    """A short string. Raises ValueError if it is too long for one."""
    raw = text.encode("utf8", "surrogateescape")  # as `read_short` has read what is no UTF-8
    if len(raw) > LONGEST_SHORT:
        raise ValueError(f"{text[:20]!r}... is {len(raw)} bytes long, and AMQP has room for 255")
    return b"%c%b" % (len(raw), raw)


def long(raw: bytes) -> bytes:
    """A long string."""
    return u32.pack(len(raw)) + raw


def table(fields: Mapping[str, Any]) -> bytes:
    """A field table, of the types that we write."""
    return long(b"".join(short(name) + _field(value) for name, value in fields.items()))


def _field(value: Any) -> bytes:
    if isinstance(value, str):
        return b"S" + long(value.encode())
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return b"l" + i64.pack(value)
    if isinstance(value, Mapping):
        return b"F" + table(value)
    assert isinstance(value, list | tuple), "nothing else is put into a table"
    return b"A" + long(b"".join(map(_field, value)))


def read_short(data: bytes, at: int, errors: str = "replace") -> tuple[str, int]:
    """A short string and where it ends; ``errors`` is for what is no UTF-8. Raises Malformed."""
    try:
        stop = at + 1 + data[at]
        if stop > len(data):
            raise Malformed("a string that is cut off")
        return str(data[at + 1 : stop], "utf8", errors), stop
    except IndexError as exc:
        raise Malformed("a string that is cut off") from exc


def read_long(data: bytes, at: int) -> tuple[bytes, int]:
    """A long string and where it ends. Raises Malformed."""
    (size,) = _number(u32, data, at)
    stop = at + 4 + size
    if stop > len(data):
        raise Malformed("a string that is cut off")
    return data[at + 4 : stop], stop


def read_table(data: bytes, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """A field table and where it ends. Raises Malformed."""
    raw, stop = read_long(data, at)
    fields: dict[str, Any] = {}
    at = 0
    while at < len(raw):
        name, at = read_short(raw, at)
        fields[name], at = _read_field(raw, at, depth)
    return fields, stop


def _number(layout: Layout, data: bytes, at: int) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(data, at)
    except LayoutError as exc:
        raise Malformed("a number that is cut off") from exc


_NUMBERS = {
    ord(kind): Layout(f"!{code}")
    for kind, code in {
        **{"t": "?", "b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I"},
        **{"l": "q", "L": "q", "T": "Q", "f": "f", "d": "d"},
    }.items()
}
_decimal = Layout("!Bi")


def _read_field(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        raise Malformed("a table that is cut off")
    if depth >= DEEPEST:
        raise Malformed(f"a table more than {DEEPEST} deep")
    kind, at = data[at], at + 1
    if (layout := _NUMBERS.get(kind)) is not None:
        return _number(layout, data, at)[0], at + layout.size
    reader = _READERS.get(kind)
    if reader is None:
        raise Malformed(f"a table field of the unknown type {kind:#04x}")
    return reader(data, at, depth + 1)


def _read_text(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    raw, at = read_long(data, at)
    return str(raw, "utf8", "replace"), at


def _read_bytes(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return read_long(data, at)


def _read_decimal(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    places, digits = _number(_decimal, data, at)
    return digits / 10**places, at + _decimal.size


def _read_nothing(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return None, at


def _read_list(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    raw, stop = read_long(data, at)
    values: list[Any] = []
    at = 0
    while at < len(raw):
        value, at = _read_field(raw, at, depth)
        values.append(value)
    return values, stop


_READERS: dict[int, Callable[[bytes, int, int], tuple[Any, int]]] = {
    ord("S"): _read_text,
    ord("x"): _read_bytes,
    ord("D"): _read_decimal,
    ord("V"): _read_nothing,
    ord("A"): _read_list,
    ord("F"): read_table,
}
