"""The three frames of a message: its method, its header, its body. Pure.

A body that is too long for one frame is cut into several. Source: AMQP 0-9-1, section 4.2.6.
"""

from __future__ import annotations

from commlib._parts import LONG, Frame, Part, Parts
from commlib.transports._amqp_bytes import short, u16, u32, u64
from commlib.transports._amqp_methods import AROUND, PUBLISH, method

MANDATORY = 1
"""Of a publish: what no queue takes comes back."""


def publish_method(channel: int, exchange: str, key: str, flags: int = 0) -> bytes:
    """The first frame: where a message goes. Raises ValueError if a name is too long."""
    where = b"\0\0%b%b%c" % (short(exchange), short(key), flags)
    return method(channel, PUBLISH, where)


def content(channel: int, properties: bytes, payload: bytes, frame_max: int) -> Frame:
    """The frames behind it; ``frame_max`` is the most bytes that one may have, all told."""
    size = len(payload)
    head = b"\x02%c%c%b\x00\x3c\x00\x00%b%b\xce" % (
        *(channel >> 8, channel & 0xFF, u32.pack(12 + len(properties))),
        *(u64.pack(size), properties),
    )
    room = frame_max - AROUND
    if size <= room:
        if size >= LONG:
            before = b"%b\x03%c%c%b" % (head, channel >> 8, channel & 0xFF, u32.pack(size))
            return Parts(before, payload, b"\xce")
        if not size:
            return head
        return b"%b\x03%c%c%b%b\xce" % (
            *(head, channel >> 8, channel & 0xFF),
            *(u32.pack(size), payload),
        )
    start = b"\x03" + u16.pack(channel)
    whole = memoryview(payload)
    parts: list[Part] = []
    for at in range(0, size, room):
        part = whole[at : at + room]
        parts += [start + u32.pack(len(part)), part, b"\xce"]
    return Parts(head, *parts) if room >= LONG else head + b"".join(parts)
