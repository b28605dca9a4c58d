"""Arbitrary payloads, in all the forms that there are, for all kinds of message classes.

Whatever it is, it is read or Refused. What was read is written and read again, and is the same.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec
import zstandard

from commlib._packet import Header, Packet, Properties, peek, peek_call, reply_id, unix_ms
from commlib._wire import COMPRESSED, Reader, Refused, Writer
from commlib.exceptions import SerializationError
from commlib.msg import Object, PubSubMessage
from commlib.serializer import (
    BytesSerializer,
    ContentType,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
    TextSerializer,
)
from fuzz.script import Script
from messages import AddTwoInts, AttrsSonar, DataclassSonar, Move, PydanticSonar, Sonar, SonarDict

LIMIT = 100_000


class Stamped(PubSubMessage):
    """A message with the names of the two parts of an envelope."""

    header: dict[str, Any] = {}
    data: list[float] = []


class Tree(Object):
    """A message that holds its own kind."""

    leaf: float = 0.0
    raw: bytes = b""
    boughs: list[Tree] = []
    by_name: dict[str, Tree] = {}
    anything: Any = None


class Own(Serializer):
    """A serializer of the program's own, whose form is text."""

    CONTENT_TYPE = "text/x-own"
    CONTENT_ENCODING = "utf8"

    @staticmethod
    def serialize(data: Any) -> str:
        return "own " + json.dumps(data)

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        text = data if isinstance(data, str) else data.decode()
        if not text.startswith("own "):
            raise KeyError(text)
        return json.loads(text[4:])


KINDS: tuple[Any, ...] = (
    *(None, Sonar, Stamped, Tree, AddTwoInts.Request, Move.Goal, DataclassSonar, AttrsSonar),
    *(PydanticSonar, SonarDict, dict, list[float], bytes, str, int, float, bool),
    dict[str, tuple[int, str]],
)
SERIALIZERS: tuple[Any, ...] = (
    *(None, MessagePackSerializer, BytesSerializer, TextSerializer, Own),
    JSONSerializer(loads=json.loads, dumps=json.dumps),
)
CONTENT_TYPES = (
    *(ContentType.json, ContentType.msgpack, ContentType.raw_bytes, ContentType.text),
    *("text/x-own", "application/cbor", ""),
)
COMPRESSIONS = (None, zlib.compress, zstandard.compress)
WRITTEN: tuple[Any, ...] = (None, "zlib", "zstd")
UNTYPED = (None, Stamped, Tree, dict)
"""Kinds with parts of any type: some forms spell one type of data as another, such as bytes."""
_readers: dict[tuple[int, int, bool], Reader[Any]] = {}


def run(data: bytes) -> None:
    """Read one payload with one reader, and what came of it again."""
    script = Script(data)
    kind, form = script.number() % len(KINDS), script.number() % len(SERIALIZERS)
    how = script.number()
    header = None
    if how & 1:
        properties = Properties(script.choice(CONTENT_TYPES), COMPRESSED if how & 2 else "utf8")
        header = Header(5, properties, "ab", 7)
    compress = COMPRESSIONS[(how >> 2) % 3]
    payload = script.rest()
    if compress is not None:
        payload = compress(payload)
    reader = _reader(kind, form, how & 0x80 != 0)
    packet = Packet(payload, "a.b", header)
    _look_into(packet)
    try:
        envelope = reader.read(packet)
    except Refused as exc:
        _check(exc.header)
        return
    _check(envelope.header)
    if len(payload) <= LIMIT:
        _again(envelope.data, kind, form, WRITTEN[(how >> 4) % 3], how & 0x40 != 0)


def _reader(kind: int, form: int, always_wrapped: bool) -> Reader[Any]:
    key = kind, form, always_wrapped
    if key not in _readers:
        _readers[key] = Reader(
            KINDS[kind], always_wrapped=always_wrapped, limit=LIMIT, serializer=SERIALIZERS[form]
        )
    return _readers[key]


def _look_into(packet: Packet) -> None:
    """What looks at the header alone."""
    for found in (peek(packet.payload), peek_call(packet.payload)):
        if found is not None:
            _check(found)
    assert isinstance(reply_id(packet), str)


def _check(header: Header) -> None:
    """All of a header is of its kind."""
    assert msgspec.convert(msgspec.to_builtins(header), Header) == header
    unix_ms(header.timestamp)


def _again(data: Any, kind: int, form: int, compression: Any, native: bool) -> None:
    """What was read comes through once more, however it is written."""
    writer: Writer[Any] = Writer(
        KINDS[kind], limit=10 * LIMIT, serializer=SERIALIZERS[form], compression=compression
    )
    reader: Reader[Any] = Reader(KINDS[kind], limit=20 * LIMIT, serializer=SERIALIZERS[form])
    try:
        packet = writer.pack(data, Header(5, writer.properties, "ab", 7), native)
    except SerializationError:
        return  # JSON has no form for all that MessagePack has
    found = reader.read(packet).data
    if not (KINDS[kind] in UNTYPED or "nan" in repr(data)):
        assert _are_same(found, data)
    packet = writer.pack(found, Header(5, writer.properties, "ab", 7), native)
    assert _are_same(reader.read(packet).data, found)


def _are_same(one: Any, other: Any) -> bool:
    """Whether data is spelled alike: NaN is not equal to itself, and 1 equals True."""
    return repr(one) == repr(other) or (type(one) is type(other) and bool(one == other))
