"""What travels beside a message on AMQP: our header as basic properties. Pure.

``content_type``, ``content_encoding``, ``timestamp`` (ms since 1970, as released commlib-py has
it), ``reply_to``, ``correlation_id`` (a call's id) and ``expiration`` are properties of AMQP; the
other keys of our header are in the ``headers`` table. Source: AMQP 0-9-1, section 4.2.6.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from struct import Struct as Layout
from typing import Any

from msgspec import UNSET, Struct

from commlib._packet import PROPERTIES, Header, Properties, read_header
from commlib.transports._amqp_bytes import (
    Malformed,
    read_long,
    read_short,
    read_table,
    short,
    table,
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
_PLAIN_FLAGS = CONTENT_TYPE | CONTENT_ENCODING | HEADERS | TIMESTAMP
_SEQ = b"\x03seql"
LONGEST_TTL = 30 * 86_400  # s
LONGEST_KNOWN = 1000  # bytes of properties that are remembered
MAX_KNOWN = 10_000  # senders whose properties are remembered
_PLAIN_KEYS = ("deadline", "attempt", "traceparent", "tracestate", "hops", "origin", "seq")
_IN_TABLE = ("id", "error", "sig", *_PLAIN_KEYS)
_DEFAULTS = Header()


class Beside(Struct):
    """What was read beside a payload. ``ttl`` in seconds."""

    header: Header | None = None
    correlation_id: str = ""
    ttl: float | None = None


class PropertyWriter:
    """Writes properties; those of a plain message are the same but for two numbers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def write(
        self, header: Header | None, correlation_id: str, ttl: float | None, persistent: bool
    ) -> bytes:
        """The flags and what they announce. Raises ValueError for what has no room."""
        if (
            header is not None
            and (header.properties is PROPERTIES or header.properties == PROPERTIES)
            and not (correlation_id or persistent or ttl is not None)
            and _is_plain(header)
        ):
            sender = header.origin, header.hops
            known = self._known.get(sender)
            if known is None:
                known = self._learn(sender)
            return known + _numbers.pack(header.seq, header.timestamp)
        return _write(header, correlation_id, ttl, persistent)

    def _learn(self, sender: tuple[str, tuple[str, ...]]) -> bytes:
        origin, hops = sender
        whole = _write(Header(1, PROPERTIES, origin, 0, hops=hops), "", None, False)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        known = self._known[sender] = whole[: -_numbers.size]
        return known


def _is_plain(header: Header) -> bool:
    return (
        header.seq >= 0
        and header.timestamp > 0
        and bool(header.origin)
        and header.error is None
        and not (header.reply_to or header.id or header.attempt or header.traceparent)
        and not (header.deadline or header.tracestate or header.sig)
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
    if header is not None and header.reply_to:
        flags |= REPLY_TO
        parts.append(short(header.reply_to))
    if ttl is not None and ttl < LONGEST_TTL:  # beyond, nobody means it; a broker has its limits
        flags |= EXPIRATION
        parts.append(short(str(max(1, int(ttl * 1000)))))
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
    """Reads properties, leniently; those of a plain sender are remembered.

    ``stats.garbage`` counts those that made no sense: their messages are taken without.
    """

    def __init__(self, stats: LinkStats) -> None:
        self._stats = stats
        self._known: dict[bytes, tuple[Properties, str, tuple[str, ...]]] = {}

    def read(self, raw: bytes) -> Beside:
        """What these properties say."""
        known = self._known.get(raw[: -_numbers.size])
        if known is not None:
            seq, timestamp = _numbers.unpack_from(raw, len(raw) - _numbers.size)
            properties, origin, hops = known
            return Beside(Header(timestamp, properties, origin, seq, hops=hops))
        try:
            beside, table_end = _read(raw, self._note_garbage)
        except Malformed as exc:
            self._note_garbage(exc)
            return Beside(Header())
        header = beside.header
        if (
            header is not None
            and len(raw) < LONGEST_KNOWN
            and table_end == len(raw) - 8
            and raw[table_end - 8 - len(_SEQ) : table_end - 8] == _SEQ
            and int.from_bytes(raw[:2]) == _PLAIN_FLAGS
            and header.properties is not UNSET
            and _is_plain(header)
        ):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[raw[: -_numbers.size]] = header.properties, header.origin, header.hops
        return beside

    def _note_garbage(self, error: Malformed) -> None:
        if not self._stats.garbage:
            log.warning("properties of a message made no sense: %s (others are counted)", error)
        self._stats.garbage += 1


def _read(raw: bytes, on_garbage: Callable[[Malformed], None]) -> tuple[Beside, int]:
    """What is there, and where a table ends that ends with ``seq``, else 0. Raises Malformed."""
    flags, at = int.from_bytes(raw[:2]), 2
    if not flags:
        return Beside(), 0  # nobody said anything: a bare payload
    if flags & _MORE_FLAGS:
        raise Malformed("more properties than AMQP has")
    kind = encoding = ""
    tree: dict[str, Any] = {}
    table_end, ttl, correlation_id = 0, None, ""
    if flags & CONTENT_TYPE:
        kind, at = read_short(raw, at)
    if flags & CONTENT_ENCODING:
        encoding, at = read_short(raw, at)
    if flags & HEADERS:
        start, (_, at) = at, read_long(raw, at)
        try:
            tree, _ = read_table(raw, start)
        except Malformed as exc:
            on_garbage(exc)  # the rest may make sense: who calls waits for an answer
        # As far as a number, what comes last there is known only if it stands there itself.
        table_end = at if tree and next(reversed(tree)) == "seq" else 0
    at += bool(flags & DELIVERY_MODE) + bool(flags & PRIORITY)
    if flags & CORRELATION_ID:
        # Whatever it is, it comes back as it was; the id of a call it is only if it is text.
        correlation_id, at = read_short(raw, at, "surrogateescape")
    reply_to = ""
    if flags & REPLY_TO:
        reply_to, at = read_short(raw, at)
    if flags & EXPIRATION:
        text, at = read_short(raw, at)
        ttl = int(text) / 1000 if text.isdecimal() and len(text) < 16 else None
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
    return Beside(header, correlation_id, ttl), table_end
