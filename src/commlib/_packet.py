"""What travels: the packet, its header and its envelope. Pure.

Three forms of one message exist side by side:

* *wrapped* (Redis and MQTT): ``{"header": {...}, "data": {...}}`` in one payload,
* *bare*: the payload is the data, as every device sends it that never heard of commlib,
* *native* (a broker with message headers of its own): the payload is the data and the header
  travels beside it, in ``Packet.header``.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from commlib._json import NOT_DECODABLE

MAX_PAYLOAD = 16 * 1024 * 1024
"""The most bytes of one payload, also after decompression; the default of ``max_payload``."""


class Properties(Struct, frozen=True):
    """The part of the seed's header that tells a wrapped message from a bare one."""

    content_type: str = "application/json"
    content_encoding: str = "utf8"


PROPERTIES = Properties()


class Fault(Struct):
    """An error on its way to the caller: the name of its class and its text."""

    type: str = ""
    message: str = ""


MESSAGE, REQUEST, REPLY = b"m", b"q", b"r"
"""What is signed, for nothing must pass for something else."""


class Signature(Struct, frozen=True):
    """A signature over a message: by which key, for which topic, and itself in base64url."""

    key: str = ""
    topic: str = ""
    value: str = ""


class Header(Struct, omit_defaults=True):
    """The keys beside the data; one that has its default is not written.

    ``timestamp`` and ``deadline`` are ms since 1970, the latter in the broker's clock.
    ``origin`` and ``seq`` together are the message's id. ``hops`` are the places that a bridged
    message has left. ``attempt`` counts from 1 how often a call that may be repeated was sent.
    ``sig``: see ``_signatures``.
    """

    timestamp: int = 0
    properties: Properties | UnsetType = UNSET
    origin: str = ""
    seq: int = -1
    reply_to: str = ""
    id: str = ""
    deadline: int = 0
    error: Fault | None = None
    traceparent: str = ""
    tracestate: str = ""
    hops: tuple[str, ...] = ()
    attempt: int = 0
    sig: Signature | None = None


class Packet(Struct, gc=False):
    """What a transport carries.

    ``header`` is set where the broker carries headers beside the payload, else it is inside.
    ``ttl`` is the time in seconds after which nobody wants the packet, for brokers that drop such
    packets themselves. ``waited``: it was on the broker before its consumer was. ``qos`` and
    ``retain`` are for brokers that have such a thing: how hard to try, and whether to keep it.
    ``correlation_id`` tells replies where they come to one address. ``redelivered``: a request that
    was handed over before, to somebody whose connection has broken since. ``reply_to``: of a call
    in an envelope on a broker that carries headers itself, as commlib-py 0.13 sends it on AMQP;
    what its own header says is not the whole address.
    """

    payload: bytes
    topic: str = ""
    header: Header | None = None
    ttl: float | None = None
    waited: bool = False
    qos: int = 0
    retain: bool = False
    correlation_id: str = ""
    redelivered: bool = False
    reply_to: str = ""


class Packer(Protocol):
    """Makes packets of encoded messages: a ``Writer``, or who does it otherwise."""

    properties: Properties

    def wrap(self, body: Any, header: Header, native: bool) -> Packet: ...


class Envelope(Struct):
    """A message as it is written, and as it was read."""

    header: Header
    data: Any


_KNOWN_KEYS = frozenset(Header.__struct_fields__) | {
    *("content_type", "encoding", "agent"),  # the flat header of 0.13
}


@cache
def _header_fields() -> tuple[tuple[str, Any], ...]:
    """Each key of a header with its type; looked up when the first strange header comes."""
    return tuple((field.name, field.type) for field in msgspec.structs.fields(Header))


def now_ms() -> int:
    """The time in ms since 1970, by this machine's clock."""
    return int(time.time() * 1000)


def unix_ms(timestamp: int) -> int | None:
    """A peer's timestamp in ms: released peers write s, ms, µs or ns, told apart by size.

    None where it is no date between 2001 and 2286: such a clock was never set.
    """
    if not 0 < timestamp < 10**19:  # beyond that perhaps more than a float can hold
        return None
    for scale in (1, 0.001, 1000, 1_000_000):
        if 1e12 <= timestamp / scale < 1e13:
            return int(timestamp / scale)
    return None


def is_wrapped(tree: Any, has_header_and_data: bool = False) -> bool:
    """Whether a decoded payload is an envelope, or all of it is data.

    ``has_header_and_data`` is for message classes that have fields of these two names, as
    ROS-shaped messages do: there only ``properties`` tells.
    """
    if not isinstance(tree, dict) or tree.keys() != {"header", "data"}:
        return False
    header = tree["header"]
    if not isinstance(header, dict):
        return False
    return "properties" in header or (not has_header_and_data and header.keys() <= _KNOWN_KEYS)


class _HeaderOnly(Struct):
    header: Header


_peek_json = msgspec.json.Decoder(_HeaderOnly, strict=False).decode
_peek_msgpack = msgspec.msgpack.Decoder(_HeaderOnly, strict=False).decode


def peek(payload: bytes) -> Header | None:
    """The header of an envelope, its data skipped; None where there is none, or compressed."""
    try:
        return (_peek_json if payload[:1] < b"\x80" else _peek_msgpack)(payload).header
    except NOT_DECODABLE:
        return None


class _Call(Struct, forbid_unknown_fields=True):
    header: Header
    data: msgspec.Raw


_open_call = msgspec.json.Decoder(_Call, strict=False).decode


def peek_call(payload: bytes) -> Header | None:
    """The header of a call that is nothing but an envelope of JSON; None for anything else."""
    if payload[:1] != b"{":
        return None
    try:
        return _open_call(payload).header
    except NOT_DECODABLE:
        return None


def reply_id(packet: Packet) -> str:
    """The id of the call that a reply is for; empty where it does not say, as of released peers."""
    header = packet.header or peek(packet.payload)
    return header.id if header is not None else ""


def read_header(tree: Any) -> Header:
    """The header, leniently: a key of a wrong type counts as absent, an unknown one as well."""
    header = Header()
    if isinstance(tree, dict):
        for name, kind in _header_fields():
            if name in tree:
                try:
                    setattr(header, name, msgspec.convert(tree[name], kind, strict=False))
                except msgspec.ValidationError:
                    continue  # absent, by the rule above
    return header
