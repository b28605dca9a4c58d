"""The messages of the limit and of the bare clients: structs in the envelope of commlib-py.

On AMQP they travel without it: what the envelope says, the properties of a message say there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")


class Properties(msgspec.Struct):
    """How the data is written."""

    content_type: str = "application/json"
    content_encoding: str = "utf8"


class Header(msgspec.Struct):
    """The envelope's header."""

    timestamp: int
    properties: Properties
    reply_to: str = ""


class Envelope(msgspec.Struct, Generic[T]):
    """What travels."""

    header: Header
    data: T


class Sonar(msgspec.Struct):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class Terms(msgspec.Struct):
    """What to add."""

    a: int
    b: int


class Sum(msgspec.Struct):
    """What it makes."""

    c: int


_encode = msgspec.json.Encoder().encode
_PROPERTIES = Properties()


def packed(data: object, reply_to: str = "") -> bytes:
    """Data in its envelope, as bytes."""
    return _encode(Envelope(Header(int(time.time() * 1000), _PROPERTIES, reply_to), data))


def reader(kind: type[T]) -> Callable[[bytes], Envelope[T]]:
    """Reads envelopes that have such data."""
    return msgspec.json.Decoder(Envelope[kind]).decode  # type: ignore[valid-type]


read_sonar = reader(Sonar)
read_terms = reader(Terms)
read_sum = reader(Sum)


def bare(data: object, reply_to: str = "") -> bytes:
    """Data without an envelope, as bytes; the address for replies is a property."""
    return _encode(data)


read_bare_sonar = msgspec.json.Decoder(Sonar).decode
read_bare_terms = msgspec.json.Decoder(Terms).decode
read_bare_sum = msgspec.json.Decoder(Sum).decode


class Form(NamedTuple):
    """How a message travels: ``write`` makes the payload, ``read`` has the message out of it."""

    write: Callable[..., bytes]
    read: Callable[[bytes], Sonar]


ENVELOPED = Form(packed, lambda payload: read_sonar(payload).data)
BARE = Form(bare, read_bare_sonar)
