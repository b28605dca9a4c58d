"""The packets of MQTT 3.1.1 and 5 that begin and end connections and subscriptions. Pure.

Source: MQTT 3.1.1 and MQTT 5.0, sections 3.1, 3.2, 3.8 to 3.14.
"""

from __future__ import annotations

from math import ceil

from msgspec import Struct

from commlib.transports import _mqtt_bytes as wire
from commlib.transports._mqtt_bytes import Malformed

V311, V5 = 4, 5
"""The versions of the protocol, as CONNECT tells them."""

CONNECT, CONNACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x10, 0x20, 0x82, 0x90, 0xA2, 0xB0
PINGRESP, DISCONNECT = 0xD0, 0xE0
PINGREQ = b"\xc0\x00"
FAREWELL = b"\xe0\x00"
"""DISCONNECT with reason 0: the broker forgets the will."""

_CLEAN, _WILL, _PASSWORD, _USERNAME = 0x02, 0x04, 0x40, 0x80  # connect flags (section 3.1.2.3)
MAX_IDS = 65_535
FOREVER = 0xFFFFFFFF  # as a Session Expiry Interval, section 3.1.2.11.2


class Will(Struct):
    """What the broker publishes when the connection breaks."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Granted(Struct):
    """What the broker can do, as its CONNACK tells (MQTT 5, section 3.2.2.3)."""

    code: int
    said: str = ""
    keepalive: int | None = None
    window: int = MAX_IDS
    max_qos: int = 2
    retains: bool = True
    max_packet: int = wire.MAX_REMAINING
    numbers: bool = True
    shares: bool = True
    is_resumed: bool = False
    """Whether it has kept the session of an earlier connection."""
    session_expiry: int | None = None
    """Seconds that it will keep this one, where that is not what was asked for."""


def _frame(kind: int, body: bytes) -> bytes:
    return b"%c%b%b" % (kind, wire.length(len(body)), body)


def connect(
    version: int,
    client_id: str,
    keepalive: int,
    username: str,
    password: str,
    will: Will | None,
    session_expiry: float = 0,
) -> bytes:
    """CONNECT with a clean session, or one that is to be kept for ``session_expiry`` seconds.

    A password without a user name gets an empty one.
    """
    flags = 0 if session_expiry else _CLEAN
    is_5 = version == V5
    body = wire.text(client_id)
    if will is not None:
        flags |= _WILL | will.qos << 3 | will.retain << 5
        body += b"\x00" if is_5 else b""  # its properties: none
        body += wire.text(will.topic) + wire.binary(will.payload)
    if username or password:
        flags |= _USERNAME
        body += wire.text(username)
    if password:
        flags |= _PASSWORD
        body += wire.text(password)
    head = wire.text("MQTT") + bytes((version, flags)) + wire.u16.pack(keepalive)
    return _frame(CONNECT, head + (_connect_properties(session_expiry) if is_5 else b"") + body)


def _connect_properties(session_expiry: float) -> bytes:
    if not session_expiry:
        return b"\x00"
    seconds = FOREVER if session_expiry >= FOREVER else ceil(session_expiry)
    return b"\x05%c%b" % (wire.SESSION_EXPIRY, wire.u32.pack(seconds))


def is_resumed(body: bytes) -> bool:
    """Whether a CONNACK says that there is a session of an earlier connection."""
    return bool(body[:1] and body[0] & 1)


def read_connack(version: int, body: bytes) -> Granted:
    """The broker's answer to CONNECT. Raises Malformed."""
    if len(body) < 2:
        raise Malformed("a CONNACK that is cut off")
    granted = Granted(body[1], is_resumed=is_resumed(body))
    if version == V311:
        granted.numbers = granted.shares = False
        granted.window = 20  # Mosquitto's default; the broker has no way to say
    # A broker that knows nothing of MQTT 5 answers in its own way.
    elif len(body) > 2:
        _heed(granted, body)
        if not (granted.window and granted.max_packet and granted.max_qos < 3):
            raise Malformed("a CONNACK that grants nothing")
    return granted


def _heed(granted: Granted, body: bytes) -> None:
    for kind, value in wire.read_properties(body, 2)[0]:
        if kind == wire.REASON:
            granted.said = value
        elif kind == wire.SERVER_KEEPALIVE:
            granted.keepalive = value
        elif kind == wire.RECEIVE_MAXIMUM:
            granted.window = value
        elif kind == wire.MAXIMUM_QOS:
            granted.max_qos = value
        elif kind == wire.RETAIN_AVAILABLE:
            granted.retains = bool(value)
        elif kind == wire.MAXIMUM_PACKET:
            granted.max_packet = value
        elif kind == wire.IDS_AVAILABLE:
            granted.numbers = bool(value)
        elif kind == wire.SHARED_AVAILABLE:
            granted.shares = bool(value)
        elif kind == wire.SESSION_EXPIRY:
            granted.session_expiry = value


def subscribe(version: int, packet_id: int, topic_filter: str, qos: int, number: int) -> bytes:
    """SUBSCRIBE to one filter; ``number`` is its Subscription Identifier, 0 for none."""
    properties = b""
    if version == V5:
        properties = wire.subscription_id(number) if number else b"\x00"
    return _frame(
        SUBSCRIBE, wire.u16.pack(packet_id) + properties + wire.text(topic_filter) + bytes((qos,))
    )


def unsubscribe(version: int, packet_id: int, topic_filter: str) -> bytes:
    """UNSUBSCRIBE from one filter."""
    properties = b"\x00" if version == V5 else b""
    return _frame(UNSUBSCRIBE, wire.u16.pack(packet_id) + properties + wire.text(topic_filter))


def read_suback(version: int, body: bytes) -> tuple[int, int]:
    """The packet identifier of a SUBACK or UNSUBACK, and the code of its filter; 0 if it has none.

    Raises Malformed.
    """
    if len(body) < 2:
        raise Malformed("an acknowledgement without a packet identifier")
    at = 2
    if version == V5:
        _, at = wire.read_properties(body, at)
    return wire.u16.unpack_from(body)[0], body[at] if at < len(body) else 0


def read_disconnect(body: bytes) -> tuple[int, str]:
    """The reason code of the broker's DISCONNECT on MQTT 5, and its text. Raises Malformed."""
    found = wire.read_properties(body, 1)[0] if len(body) > 1 else []
    said = next((value for kind, value in found if kind == wire.REASON), "")
    return body[0] if body else 0, said
