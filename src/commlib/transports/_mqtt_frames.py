"""PUBLISH and its acknowledgements as bytes: the packets of every message. Pure.

Source: MQTT 3.1.1 and MQTT 5.0, sections 3.3 to 3.7.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from commlib._parts import LONG, Frame, Parts, head_of, parts_of, with_head
from commlib.transports._mqtt_bytes import (
    ALIAS,
    CONTENT_TYPE,
    EXPIRY,
    FORMAT,
    SUBSCRIPTION_ID,
    USER_PROPERTY,
    Malformed,
    length,
    read_length,
    read_properties,
    text,
    u16,
    u32,
)

PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x30, 0x40, 0x50, 0x62, 0x70
RETAIN, QOS_SHIFT, QOS_MASK = 0x01, 1, 0x06

NO_PROPERTIES = b"\x00"
"""What stands in the place of properties on MQTT 5."""


def publish(topic: bytes, payload: Frame, flags: int, properties: bytes) -> Frame:
    """PUBLISH at QoS 0; ``topic`` as `text` makes it, ``properties`` with their length, if any."""
    size = len(topic) + len(properties) + len(payload)
    if size < LONG:
        return b"%c%b%b%b%b" % (PUBLISH | flags, length(size), topic, properties, payload)  # type: ignore[str-format]
    head = b"%c%b%b%b" % (PUBLISH | flags, length(size), topic, properties)
    return Parts(head, *parts_of(payload))


def publish_parts(
    topic: bytes, payload: Frame, flags: int, properties: bytes
) -> tuple[bytes, Frame]:
    """The same at QoS 1 or 2: what comes before the packet identifier, and what comes after it."""
    size = len(topic) + 2 + len(properties) + len(payload)
    rest = Parts(properties, *parts_of(payload)) if size >= LONG else properties + payload
    return b"%c%b%b" % (PUBLISH | flags, length(size), topic), rest


@lru_cache(1000)
def expiry(seconds: float) -> bytes:
    """The properties of a PUBLISH on MQTT 5 that has nothing but seconds to live."""
    return b"\x05%c%b" % (EXPIRY, u32.pack(min(max(ceil(seconds), 1), 0xFFFFFFFF)))


def publish_properties(seconds: float | None, pairs: list[tuple[str, str]]) -> bytes:
    """The properties of a PUBLISH on MQTT 5: seconds to live, and user properties."""
    body = b"" if seconds is None else expiry(seconds)[1:]
    for name, value in pairs:
        body += b"%c%b%b" % (USER_PROPERTY, text(name), text(value))
    return length(len(body)) + body


def downgraded(frame: Frame) -> Frame:
    """A PUBLISH that was made for MQTT 5 as MQTT 3.1.1 has it; any other packet as it is."""
    data = head_of(frame)
    head = data[0]
    if head & 0xF0 != PUBLISH:
        return frame
    _, start = read_length(data, 1)
    begin = start + 2 + u16.unpack_from(data, start)[0] + (2 if head & QOS_MASK else 0)
    size, end = read_length(data, begin)
    body = data[start:begin] + data[end + size :]
    whole = len(body) + len(frame) - len(data)
    return with_head(frame, b"%c%b%b" % (head, length(whole), body))


def payload_start(data: bytes, start: int, qos: int, has_properties: bool) -> int | None:
    """Where the payload of a PUBLISH begins that is cut off; None if that is not there.

    ``start`` is where its topic is. Raises Malformed.
    """
    try:
        at = start + 2 + (data[start] << 8 | data[start + 1]) + (2 if qos else 0)
        if has_properties:
            size, at = read_length(data, at)
            at += size
    except IndexError:
        return None
    return at if at <= len(data) else None


class Published:
    """What the properties of a received PUBLISH say, as far as it is of interest."""

    __slots__ = ("expiry", "ids", "is_constant", "pairs")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.expiry: int | None = None
        self.pairs: list[tuple[str, str]] = []
        self.is_constant = True
        """Whether other messages of a topic are likely to have these properties."""


def read_published(data: bytes, at: int) -> tuple[Published, int]:
    """The properties of a PUBLISH, and where its payload begins. Raises Malformed."""
    published = Published()
    found, at = read_properties(data, at)
    for kind, value in found:
        published.is_constant &= kind in (SUBSCRIPTION_ID, FORMAT, CONTENT_TYPE, EXPIRY)
        if kind == SUBSCRIPTION_ID:
            published.ids.append(value)
        elif kind == EXPIRY:
            published.expiry = value
        elif kind == USER_PROPERTY:
            published.pairs.append(value)
        elif kind == ALIAS:
            raise Malformed("a topic alias, which was not allowed")
    return published, at


def acknowledge(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, of success."""
    return b"%c\x02%b" % (kind, u16.pack(packet_id))


def read_acknowledgement(body: bytes) -> tuple[int, int]:
    """The packet identifier and the reason code of one of those."""
    if len(body) < 2:
        raise Malformed("an acknowledgement without a packet identifier")
    return u16.unpack_from(body)[0], body[2] if len(body) > 2 else 0
