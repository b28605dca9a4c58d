"""How MQTT writes numbers, texts and properties. Pure.

Source: MQTT 3.1.1, section 1.5; MQTT 5.0, sections 1.5 and 2.2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct as Layout
from struct import error as LayoutError
from typing import Any

MAX_REMAINING = 268_435_455  # bytes of a packet after its fixed header (section 2.2.3)

u16 = Layout("!H")
u32 = Layout("!I")


class Malformed(ValueError):
    """Bytes that are not what they should be."""


@lru_cache(1000)
def length(number: int) -> bytes:
    """A variable byte integer."""
    if number < 0x80:
        return b"%c" % number
    if number < 0x4000:
        return b"%c%c" % (number & 0x7F | 0x80, number >> 7)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends. Raises Malformed, IndexError if it is cut off."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 21:
            raise Malformed("a length of more than four bytes")


def binary(value: bytes) -> bytes:
    """Bytes with their length before them."""
    return u16.pack(len(value)) + value


def text(value: str) -> bytes:
    """A string with its length before it."""
    return binary(value.encode())


def read_binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes that have their length before them, and where they end."""
    end = at + 2 + u16.unpack_from(data, at)[0]
    if end > len(data):
        raise Malformed("a value that is longer than its packet")
    return data[at + 2 : end], end


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """The same as a string."""
    raw, at = read_binary(data, at)
    try:
        return str(raw, "utf8"), at
    except UnicodeDecodeError as exc:
        raise Malformed(f"a text that is no UTF-8: {exc}") from exc


# ---- properties ----

EXPIRY, SUBSCRIPTION_ID, SESSION_EXPIRY = 0x02, 0x0B, 0x11
SERVER_KEEPALIVE, REASON, RECEIVE_MAXIMUM = 0x13, 0x1F, 0x21
MAXIMUM_QOS, RETAIN_AVAILABLE, USER_PROPERTY, MAXIMUM_PACKET = 0x24, 0x25, 0x26, 0x27
IDS_AVAILABLE, SHARED_AVAILABLE = 0x29, 0x2A
ALIAS, FORMAT, CONTENT_TYPE = 0x23, 0x01, 0x03


def subscription_id(number: int) -> bytes:
    """Properties with nothing but the number of a filter, in as few bytes as it takes."""
    body = b"%c%b" % (SUBSCRIPTION_ID, length(number))
    return b"%c%b" % (len(body), body)


def _read_byte(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _read_u16(data: bytes, at: int) -> tuple[int, int]:
    return u16.unpack_from(data, at)[0], at + 2


def _read_u32(data: bytes, at: int) -> tuple[int, int]:
    return u32.unpack_from(data, at)[0], at + 4


def _read_pair(data: bytes, at: int) -> tuple[tuple[str, str], int]:
    name, at = read_text(data, at)
    value, at = read_text(data, at)
    return (name, value), at


# Section 2.2.2.2: how the value of each is written.
_READERS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), _read_byte),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), _read_u16),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), _read_u32),
    **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), read_text),
    **dict.fromkeys((0x09, 0x16), read_binary),
    SUBSCRIPTION_ID: read_length,
    USER_PROPERTY: _read_pair,
}


def read_properties(data: bytes, at: int) -> tuple[list[tuple[int, Any]], int]:
    """The properties of a packet, each with its number, and where they end. Raises Malformed."""
    found = []
    try:
        size, at = read_length(data, at)
        end = at + size
        if end > len(data):
            raise Malformed("properties that are longer than their packet")
        while at < end:
            kind = data[at]
            read = _READERS.get(kind)
            if read is None:
                raise Malformed(f"an unknown property, {kind:#04x}")
            value, at = read(data, at + 1)
            found.append((kind, value))
    except (IndexError, LayoutError) as exc:
        raise Malformed(f"properties that are cut off: {exc}") from exc
    if at != end:
        raise Malformed("a property that is longer than the properties")
    return found, at
