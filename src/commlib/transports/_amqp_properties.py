"""What travels beside a message on AMQP: our header as basic properties. Pure.

``content_type``, ``content_encoding``, ``timestamp`` (ms since 1970, as released commlib-py has
it), ``reply_to``, ``correlation_id`` (a call's id) and ``expiration`` are properties of AMQP; the
other keys of our header are in the ``headers`` table. Source: AMQP 0-9-1, section 4.2.6.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from struct import Struct as Layout
from struct import error as LayoutError
from typing import Any

from msgspec import UNSET, Struct

from commlib._packet import PROPERTIES, Header, Properties, read_header
from commlib.transports._amqp_bytes import (
    Malformed,
    i64,
    read_long,
    read_short,
    read_table,
    short,
    table,
    u32,
    u64,
)
from commlib.transports.base import LinkStats

log = logging.getLogger("commlib.amqp")

CONTENT_TYPE, CONTENT_ENCODING, HEADERS = 0x8000, 0x4000, 0x2000
DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO = 0x1000, 0x0800, 0x0400, 0x0200
EXPIRATION, MESSAGE_ID, TIMESTAMP = 0x0100, 0x0080, 0x0040
_MORE_FLAGS = 0x0001
PERSISTENT = b"\x02"

_numbers = Layout("!qQ")  # what ends the properties of a plain message: its seq, its timestamp
_REPLY_FLAGS = CONTENT_TYPE | CONTENT_ENCODING | CORRELATION_ID | TIMESTAMP
_PLAIN_FLAGS = CONTENT_TYPE | CONTENT_ENCODING | HEADERS | TIMESTAMP
_WAY_FLAGS = REPLY_TO | EXPIRATION
_CALL_FLAGS = frozenset(
    _REPLY_FLAGS | more | way
    for more in (0, HEADERS)
    for way in (0, REPLY_TO, EXPIRATION, REPLY_TO | EXPIRATION)
)
_SEQ = b"\x03seql"
LONGEST_TTL = 30 * 86_400  # s
LONGEST_KNOWN = 1000  # bytes of properties that are remembered
MAX_KNOWN = 10_000  # senders whose properties are remembered
MAX_WAYS = 1000  # return addresses, each with a time-out, that are remembered
_PLAIN_KEYS = ("deadline", "attempt", "traceparent", "tracestate", "hops", "origin", "seq")
_IN_TABLE = ("id", "error", "sig", *_PLAIN_KEYS)
_DEFAULTS = Header()


_Sender = tuple[Properties, str, tuple[str, ...]]
"""What one sender says each time: of the payload, who it is, and the hops."""


class Beside(Struct):
    """What was read beside a payload. ``ttl`` in seconds."""

    header: Header | None = None
    correlation_id: str = ""
    ttl: float | None = None


class PropertyWriter:
    """Writes properties; what messages and calls of one sender have in common is remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def write(
        self, header: Header | None, correlation_id: str, ttl: float | None, persistent: bool
    ) -> bytes:
        """The flags and what they announce. Raises ValueError for what has no room."""
        if (
            header is not None
            and (header.properties is PROPERTIES or header.properties == PROPERTIES)
            and header.id == correlation_id
            and not persistent
            and _is_plain(header)
        ):
            if correlation_id:
                return self._write_call(header, ttl)
            if header.origin and ttl is None and not header.reply_to:
                sender = header.origin, header.hops
                known = self._known.get(sender) or self._learn(sender)
                return known + _numbers.pack(header.seq, header.timestamp)
        return _write(header, correlation_id, ttl, persistent)

    def _learn(self, sender: tuple[str, tuple[str, ...]]) -> bytes:
        origin, hops = sender
        whole = _write(Header(1, PROPERTIES, origin, 0, hops=hops), "", None, False)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        known = whole[: -_numbers.size]
        if len(known) < LONGEST_KNOWN:
            self._known[sender] = known
        return known

    def _write_call(self, header: Header, ttl: float | None) -> bytes:
        """A request or a reply whose only keys are those of a plain message, and its id."""
        flags, way = _way(header.reply_to, ttl)
        start, number = _KINDS, b""
        if header.origin:
            sender = header.origin, header.hops
            # But for its flags the same as that of a message.
            start = (self._known.get(sender) or self._learn(sender))[2:]
            number = i64.pack(header.seq)
            flags |= HEADERS
        flags |= _REPLY_FLAGS
        return b"%c%c%b%b%b%b%b" % (
            *(flags >> 8, flags & 0xFF, start, number),
            *(short(header.id), way, u64.pack(header.timestamp)),
        )


_KINDS = short(PROPERTIES.content_type) + short(PROPERTIES.content_encoding)


@lru_cache(MAX_WAYS)
def _way(reply_to: str, ttl: float | None) -> tuple[int, bytes]:
    """Where a reply goes and until when, with its flags. Raises ValueError."""
    flags, raw = 0, b""
    if reply_to:
        flags |= REPLY_TO
        raw += short(reply_to)
    if ttl is not None and ttl < LONGEST_TTL:  # beyond, nobody means it; a broker has its limits
        flags |= EXPIRATION
        raw += short(str(max(1, int(ttl * 1000))))
    return flags, raw


@lru_cache(MAX_WAYS)
def _read_way(flags: int, raw: bytes) -> tuple[str, float | None]:
    """Where a reply goes, and the time in seconds that somebody waits. Raises Malformed."""
    at, reply_to, ttl = 0, "", None
    if flags & REPLY_TO:
        reply_to, at = read_short(raw, at)
    if flags & EXPIRATION:
        text, at = read_short(raw, at)
        ttl = _seconds(text)
    if at != len(raw):
        raise Malformed("more than was announced")
    return reply_to, ttl


def _seconds(text: str) -> float | None:
    """What an expiration says in whole ms; None if that makes no sense."""
    return int(text) / 1000 if text.isdecimal() and len(text) < 16 else None


def _is_plain(header: Header) -> bool:
    """Whether it has no keys but those of a plain message or call, and its numbers have room."""
    return (
        header.timestamp > 0
        and (header.seq >= 0 if header.origin else header.seq == -1 and not header.hops)
        and header.error is None
        and not (header.deadline or header.attempt or header.traceparent)
        and not (header.tracestate or header.sig)
    )


def _write(
    header: Header | None, correlation_id: str, ttl: float | None, persistent: bool
) -> bytes:
    flags, parts = 0, []
    fields: dict[str, Any] = {}
    if header is not None:
        if header.properties is not UNSET:
            flags |= CONTENT_TYPE | CONTENT_ENCODING
            parts += [short(header.properties.content_type)]
            parts += [short(header.properties.content_encoding)]
        fields = _fields(header, correlation_id)
    if fields:
        flags |= HEADERS
        parts.append(table(fields))
    if persistent:
        flags |= DELIVERY_MODE
        parts.append(PERSISTENT)
    if correlation_id:
        flags |= CORRELATION_ID
        parts.append(short(correlation_id))
    more, way = _way("" if header is None else header.reply_to, ttl)
    flags |= more
    parts.append(way)
    if header is not None and header.timestamp > 0:
        flags |= TIMESTAMP
        parts.append(u64.pack(header.timestamp))
    return b"%c%c%b" % (flags >> 8, flags & 0xFF, b"".join(parts))


def _fields(header: Header, correlation_id: str) -> dict[str, Any]:
    """The keys of our own. The last one of a plain message is its number, see ``_SEQ``."""
    fields: dict[str, Any] = {}
    if header.id and header.id != correlation_id:
        fields["id"] = header.id
    if header.error is not None:
        fields["error"] = {"type": header.error.type, "message": header.error.message}
    if header.sig is not None:
        fields["sig"] = {name: getattr(header.sig, name) for name in header.sig.__struct_fields__}
    for name in _PLAIN_KEYS:
        value = getattr(header, name)
        if value != getattr(_DEFAULTS, name):
            fields[name] = value
    return fields


class PropertyReader:
    """Reads properties, leniently; what those of one sender have in common is remembered.

    ``stats.garbage`` counts those that made no sense: their messages are taken without.
    """

    def __init__(self, stats: LinkStats) -> None:
        self._stats = stats
        # By all that stands before the number of a message.
        self._known: dict[bytes, _Sender] = {}
        # By all that stands before the number of a request or, in a reply, before the id.
        self._known_calls: dict[bytes, _Sender] = {}

    def read(self, raw: bytes) -> Beside:
        """What these properties say."""
        known = self._known.get(raw[: -_numbers.size])
        if known is not None:
            seq, timestamp = _numbers.unpack_from(raw, len(raw) - _numbers.size)
            properties, origin, hops = known
            return Beside(Header(timestamp, properties, origin, seq, hops=hops))
        try:
            return self._read_call(raw) or self._read_any(raw)
        except Malformed as exc:
            self._note_garbage(exc)
            return Beside(Header())

    def _read_call(self, raw: bytes) -> Beside | None:
        """A call of a sender that is known; None if it is anything else."""
        try:
            flags, at, seq = raw[0] << 8 | raw[1], 3 + raw[2], -1
            if flags not in _CALL_FLAGS:
                return None
            at += 1 + raw[at]
            if flags & HEADERS:
                at += u32.unpack_from(raw, at)[0] - 4  # to the number, which ends the table
            known = self._known_calls.get(raw[:at])
            if known is None:
                return None
            if flags & HEADERS:
                (seq,) = i64.unpack_from(raw, at)
                at += 8
            end, stop = at + 1 + raw[at], len(raw) - 8
            if end > stop:
                return None
            call = str(raw[at + 1 : end], "utf8")
            reply_to, ttl = _read_way(flags & _WAY_FLAGS, raw[end:stop])
        except (IndexError, LayoutError, UnicodeDecodeError, Malformed):
            return None
        properties, origin, hops = known
        (timestamp,) = u64.unpack_from(raw, stop)
        return Beside(
            Header(timestamp, properties, origin, seq, reply_to, call, hops=hops), call, ttl
        )

    def _read_any(self, raw: bytes) -> Beside:
        """Anything, slowly; who has sent it will be known. Raises Malformed."""
        beside, start = _read(raw, self._note_garbage)
        header = beside.header
        if (
            header is not None
            and len(raw) < LONGEST_KNOWN
            and start
            and header.properties is not UNSET
            and header.id == beside.correlation_id
            and _is_plain(header)
        ):
            flags = int.from_bytes(raw[:2])
            sender = header.properties, header.origin, header.hops
            if flags in _CALL_FLAGS and header.id:
                _remember(self._known_calls, raw[:start], sender)
            elif flags == _PLAIN_FLAGS and start == len(raw) - _numbers.size:
                _remember(self._known, raw[:start], sender)
        return beside

    def _note_garbage(self, error: Malformed) -> None:
        if not self._stats.garbage:
            log.warning("properties of a message made no sense: %s (others are counted)", error)
        self._stats.garbage += 1


def _ends_with_number(tree: dict[str, Any], raw: bytes, end: int) -> bool:
    """Whether a table that ends there does so with the number of a message, and has no id."""
    if not tree or next(reversed(tree)) != "seq" or "id" in tree:
        return False
    if raw[end - 8 - len(_SEQ) : end - 8] != _SEQ:
        return False
    # What looks like it from behind may be the end of something else.
    seq = tree["seq"]
    return seq.__class__ is int and seq == i64.unpack_from(raw, end - 8)[0]


def _remember(known: dict[bytes, _Sender], start: bytes, sender: _Sender) -> None:
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[start] = sender


def _read(raw: bytes, on_garbage: Callable[[Malformed], None]) -> tuple[Beside, int]:
    """What is there, and where that ends which is the same in all of its sender.

    That is before the number that a table ends with or, without a table, before the id of a call;
    0 in anything else. Raises Malformed.
    """
    flags, at = int.from_bytes(raw[:2]), 2
    if not flags:
        return Beside(), 0  # nobody said anything: a bare payload
    if flags & _MORE_FLAGS:
        raise Malformed("more properties than AMQP has")
    kind = encoding = ""
    tree: dict[str, Any] = {}
    ttl, correlation_id = None, ""
    if flags & CONTENT_TYPE:
        kind, at = read_short(raw, at)
    if flags & CONTENT_ENCODING:
        encoding, at = read_short(raw, at)
    start = at
    if flags & HEADERS:
        _, at = read_long(raw, at)
        try:
            tree, _ = read_table(raw, start)
        except Malformed as exc:
            on_garbage(exc)  # the rest may make sense: who calls waits for an answer
        start = at - 8 if _ends_with_number(tree, raw, at) else 0
    at += bool(flags & DELIVERY_MODE) + bool(flags & PRIORITY)
    if flags & CORRELATION_ID:
        # Whatever it is, it comes back as it was; the id of a call it is only if it is text.
        correlation_id, at = read_short(raw, at, "surrogateescape")
    reply_to = ""
    if flags & REPLY_TO:
        reply_to, at = read_short(raw, at)
    if flags & EXPIRATION:
        text, at = read_short(raw, at)
        ttl = _seconds(text)
    if flags & MESSAGE_ID:
        _, at = read_short(raw, at)
    header = read_header({name: tree[name] for name in _IN_TABLE if name in tree})
    if flags & TIMESTAMP:
        if at + 8 > len(raw):
            raise Malformed("a timestamp that is cut off")
        header.timestamp = u64.unpack_from(raw, at)[0]
    if kind:
        header.properties = Properties(kind, encoding or "utf8")
    header.reply_to = reply_to
    if not header.id and not any("\ud800" <= character <= "\udfff" for character in correlation_id):
        header.id = correlation_id
    return Beside(header, correlation_id, ttl), start
