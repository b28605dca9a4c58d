"""The three frames of a message: its method, its header, its body. Pure.

A body that is too long for one frame is cut into several. Source: AMQP 0-9-1, section 4.2.6.
"""

from __future__ import annotations

from struct import Struct as Layout

from commlib._parts import LONG, Frame, Part, Parts
from commlib.transports._amqp_bytes import short, u16, u32
from commlib.transports._amqp_methods import AROUND, BODY, END, HEADER, PUBLISH, method

CLASS = 60  # of all methods that are about messages
_header = Layout("!BHIHHQ").pack  # type, channel, size; class, an unused weight, size of the body
_body = Layout("!BBHI").pack  # the end of the frame before; type, channel, size
MANDATORY = 1
"""Of a publish: what no queue takes comes back."""


def publish_method(channel: int, exchange: str, key: str, flags: int = 0) -> bytes:
    """The first frame: where a message goes. Raises ValueError if a name is too long."""
    where = b"\0\0%b%b%c" % (short(exchange), short(key), flags)
    return method(channel, PUBLISH, where)


def content(channel: int, properties: bytes, payload: bytes, frame_max: int) -> Frame:
    """The frames behind it; ``frame_max`` is the most bytes that one may have, all told."""
    size = len(payload)
    head = _header(HEADER, channel, 12 + len(properties), CLASS, 0, size)
    room = frame_max - AROUND
    if size <= room:
        if not size:
            return b"%b%b\xce" % (head, properties)
        begin = _body(END, BODY, channel, size)
        if size >= LONG:
            return Parts(head + properties + begin, payload, b"\xce")
        return b"%b%b%b%b\xce" % (head, properties, begin, payload)
    head = b"%b%b\xce" % (head, properties)
    start = b"\x03" + u16.pack(channel)
    whole = memoryview(payload)
    parts: list[Part] = []
    for at in range(0, size, room):
        part = whole[at : at + room]
        parts += [start + u32.pack(len(part)), part, b"\xce"]
    return Parts(head, *parts) if room >= LONG else head + b"".join(parts)
