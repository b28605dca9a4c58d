"""Messages as records of a file, and back to the very bytes that were on the wire. Pure.

A record is a JSON object, for that is what viewers of MCAP files read: the message's own fields,
and behind them one more, ``_commlib``, with all that it takes to have the packet again. What is no
JSON object goes into one:

* ``value``: a number, a list, a text,
* ``data``: bytes, in base64.

The payload is what stands there, between the bytes ``before`` and ``after``; or else, where it was
compressed or is MessagePack, ``payload`` has it whole. All three are base64.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from commlib import _json
from commlib._letter import Letter, open_letter
from commlib._packet import Header, Packet, Properties
from commlib._wire import Refused, is_text
from commlib.exceptions import SerializationError
from commlib.recording._counts import is_numbered
from commlib.serializer import ContentType

KEY = b'"_commlib":'
VALUE, DATA = b'{"value":', b'{"data":'

Shape = Literal["object", "value", "bytes"]
Place = Literal["inside", "native", "beside", "none"]
Source = Literal["object", "json", "text", "bytes"]


class Mark(Struct, omit_defaults=True):
    """What stands beside the data.

    ``place`` is where the header was: ``inside`` the payload, beside it on a broker that always
    has it there (``native``) or on one that seldom has (``beside``), or ``none``. ``source`` tells
    what the payload is made of: the object itself without the mark, the JSON in ``value``, or the
    text or the bytes that are spelled there.
    ``wrapped``: it is in the usual envelope, with ``header`` as it is here.
    """

    place: Place = "none"
    header: Raw = Raw(b"null")
    source: Source = "object"
    wrapped: bool = False
    before: str = ""
    after: str = ""
    payload: str = ""
    ttl: float | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether its sender has numbered the message."""
        try:
            return is_numbered(_read_header(self.header))
        except _json.NOT_DECODABLE:  # there is none, or it is none of ours
            return False


class Record(NamedTuple):
    """A message as it is written to a file."""

    shape: Shape
    data: bytes


_read_mark = msgspec.json.Decoder(Mark).decode
_read_header = msgspec.json.Decoder(Header, strict=False).decode
_read_text = msgspec.json.Decoder(str).decode


def open_packet(packet: Packet, limit: int) -> Letter:
    """What is in a packet; what cannot be read is all data."""
    try:
        return open_letter(packet, limit)
    except Refused as exc:
        bare = Letter(packet, packet.header, None, data=packet.payload)
        bare.header = exc.header
        return bare


def to_record(letter: Letter, place_beside: Place) -> Record:
    """The record of a message; ``place_beside``: what a header beside the payload is called."""
    packet = letter.packet
    payload = bytes(packet.payload)
    raw_header = _raw_header(letter)
    place: Place = "inside"
    if packet.header is not None:
        place = place_beside
    elif letter.is_bare:
        place = "none"
    mark = Mark(place, raw_header, ttl=packet.ttl)
    shape, head, source, mark.source = _view(letter)
    if source is None or (found := payload.find(source)) < 0:
        mark.payload = b64encode(payload).decode()
    else:
        before, after = payload[:found], payload[found + len(source) :]
        mark.wrapped = after == b"}" and before == b'{"header":%b,"data":' % bytes(raw_header)
        if not mark.wrapped:
            mark.before, mark.after = b64encode(before).decode(), b64encode(after).decode()
    return Record(shape, b"%b%b%b}" % (head, KEY, _json.encode(mark)))


def _raw_header(letter: Letter) -> Raw:
    if letter.packet.header is None and letter.is_bare:
        return Raw(b"null")
    raw = letter.raw_header
    # Only JSON begins with a brace; and what has our key in it could not be told from the mark.
    if raw[:1] != b"{" or KEY in raw or not _is_json(raw):
        return Raw(_json.encode(letter.header))
    return Raw(raw)


def _view(letter: Letter) -> tuple[Shape, bytes, bytes | None, Source]:
    """How a message is shown: its shape, its record up to the mark, and what that is made of."""
    try:
        plain, properties = letter.plain()
    except (SerializationError, *_json.NOT_DECODABLE):
        plain, properties = letter.packet.payload, Properties("", "")
    if letter.is_bare and letter.compression is None:
        plain = letter.packet.payload  # of which nothing was read
    plain = bytes(plain)
    if KEY in plain:  # somebody records what we have written
        return _bytes_view(plain)
    kind = properties.content_type
    if kind == ContentType.msgpack or (letter.is_bare and _json.is_packed_map(plain)):
        try:
            shape, head, _ = _json_view(_json.encode(msgspec.msgpack.decode(plain)))
            return shape, head, None, "bytes"
        except (*_json.NOT_ENCODABLE, *_json.NOT_DECODABLE):
            return _bytes_view(plain)
    if kind == ContentType.json and _is_json(plain):
        plain = plain.strip(b" \t\r\n")
        shape, head, made_of = _json_view(plain)
        return shape, head, plain, made_of
    if kind == ContentType.json or is_text(kind):
        try:
            text = plain.decode("utf8")
        except UnicodeDecodeError:
            return _bytes_view(plain)
        return "value", b"%b%b," % (VALUE, _json.encode(text)), plain, "text"
    return _bytes_view(plain)


def _bytes_view(plain: bytes) -> tuple[Shape, bytes, bytes, Source]:
    return "bytes", b'%b"%b",' % (DATA, b64encode(plain)), plain, "bytes"


def _json_view(text: bytes) -> tuple[Shape, bytes, Source]:
    if text[:1] != b"{":
        return "value", b"%b%b," % (VALUE, text), "json"
    head = text[:-1]
    return "object", head if head.rstrip() == b"{" else head + b",", "object"


def _is_json(text: bytes) -> bool:
    """Whether any reader of JSON reads this: msgspec's does not look into what it skips."""
    try:
        msgspec.json.decode(text)
    except _json.NOT_DECODABLE:
        return False
    return True


# ---- and back ----


def from_record(data: bytes, topic: str) -> tuple[Packet, Mark]:
    """The packet of a record. Raises SerializationError if this is none of ours."""
    head, key, tail = data.rpartition(KEY)
    try:
        if not key:
            raise ValueError("there is no field _commlib")
        mark = _read_mark(tail[:-1])
        header = None
        if mark.place in ("native", "beside"):
            header = _read_header(mark.header)
        payload = b64decode(mark.payload) if mark.payload else _payload(head, mark)
    except _json.NOT_DECODABLE as exc:
        raise SerializationError(f"no record of commlib: {exc}") from exc
    return Packet(payload, topic, header, mark.ttl), mark


def _payload(head: bytes, mark: Mark) -> bytes:
    if mark.source == "bytes":
        source = b64decode(head[len(DATA) + 1 : -2])
    elif mark.source == "text":
        source = _read_text(head[len(VALUE) : -1]).encode()
    elif mark.source == "json":
        source = head[len(VALUE) : -1]
    else:
        source = head.removesuffix(b",") + b"}"
    if mark.wrapped:
        return b'{"header":%b,"data":%b}' % (bytes(mark.header), source)
    return b64decode(mark.before) + source + b64decode(mark.after)
