"""What travels: the packet, its header, and every form of payload there is in the field.

Pure: bytes in, messages out, and back. Three forms of one message exist side by side:

* *wrapped* (Redis and MQTT): ``{"header": {...}, "data": {...}}`` in one JSON object,
* *bare*: the payload is the data, as every device sends it that never heard of commlib,
* *native* (a broker with message headers of its own): the payload is the data and the header
  travels beside it, in ``Packet.header``.

Each of them may also be MessagePack, or compressed with zlib or zstd, without a flag: the first
bytes tell. All of this is read always; wrapped JSON (or native) is what is written. Reading goes
in two steps: one strict pass straight into the message class, which takes all that a well-meaning
peer sends, and, only if that fails, a lenient one that finds out what the payload is.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, Generic, TypeVar, is_typeddict

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from commlib._types import check_decodable, dec_hook, enc_hook, null_to_nan
from commlib.exceptions import PayloadTooBig, SerializationError

T = TypeVar("T")

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


class Header(Struct, omit_defaults=True):
    """The keys beside the data; one that has its default is not written.

    ``timestamp`` and ``deadline`` are ms since 1970, the latter in the broker's clock.
    ``origin`` and ``seq`` together are the message's id.
    """

    timestamp: int = 0
    properties: Properties | UnsetType = UNSET
    origin: str = ""
    seq: int = -1
    reply_to: str = ""
    id: str = ""
    deadline: int = 0
    error: Fault | None = None


class Packet(Struct, gc=False):
    """What a transport carries.

    ``header`` is set where the broker carries headers beside the payload, else it is inside.
    ``ttl`` is the time in seconds after which nobody wants the packet, for brokers that drop such
    packets themselves. ``waited``: it was on the broker before its consumer was.
    """

    payload: bytes
    topic: str = ""
    header: Header | None = None
    ttl: float | None = None
    waited: bool = False


class Envelope(Struct):
    """A message as it is written, and as it was read."""

    header: Header
    data: Any


_KNOWN_KEYS = frozenset(Header.__struct_fields__) | {
    *("traceparent", "tracestate", "hops"),  # ours, read by bridges and tracing
    *("content_type", "encoding", "agent"),  # the flat header of 0.13
}
_HEADER_FIELDS = tuple((field.name, field.type) for field in msgspec.structs.fields(Header))
_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode
_NOT_ENCODABLE = (TypeError, ValueError, NotImplementedError, RecursionError, msgspec.MsgspecError)
_NOT_DECODABLE = (ValueError, RecursionError, msgspec.MsgspecError)


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


def encode(data: Any) -> Raw:
    """The data as JSON, to be put into an envelope later. Raises SerializationError."""
    try:
        return Raw(_encode(data))
    except _NOT_ENCODABLE as exc:
        raise _cannot_encode(data, exc) from exc


class Writer(Generic[T]):
    """Writes messages of one type, and refuses others; a dict is taken as the message it spells.

    ``kind=None`` writes whatever can be written as JSON. Safe to use from several threads.
    """

    def __init__(self, kind: type[T] | None, *, limit: int = MAX_PAYLOAD) -> None:
        self._kind = kind
        self._limit = limit
        # list[int] and the like are no classes: what is given is taken at its word.
        self._class = kind if isinstance(kind, type) and not is_typeddict(kind) else None

    def pack(self, data: Any, header: Header | None, native: bool) -> Packet:
        """The packet for a message, in one pass.

        ``header=None`` makes a bare payload; ``native`` puts the header beside it. Raises
        SerializationError, and PayloadTooBig when it is over ``limit`` bytes.
        """
        if data.__class__ is not self._class:
            data = self._checked(data)
        try:
            if header is None or native:
                payload = _encode(data)
            else:
                payload = _encode(Envelope(header, data))
        except _NOT_ENCODABLE as exc:
            raise _cannot_encode(data, exc) from exc
        if len(payload) > self._limit:
            raise PayloadTooBig(len(payload), self._limit)
        return Packet(payload, "", header if native else None)

    def encode(self, data: Any) -> Raw:
        """The message as JSON, to be put into an envelope later. Raises SerializationError."""
        return encode(self._checked(data))

    def _checked(self, data: Any) -> Any:
        if self._class is None or isinstance(data, self._class):
            return data
        if self._class is float and isinstance(data, int):
            return data
        if not isinstance(data, dict):
            raise SerializationError(
                f"a {self._class.__qualname__} was expected, not {type(data).__qualname__}"
            )
        try:
            return _shape(self._kind).convert(data)
        except _NOT_DECODABLE as exc:
            raise SerializationError(f"no {self._class.__qualname__}: {exc}") from exc


def pack(data: Any, header: Header | None, native: bool, limit: int = MAX_PAYLOAD) -> Packet:
    """The packet for data of any type; otherwise as ``Writer.pack``."""
    return Writer(None, limit=limit).pack(data, header, native)


def _cannot_encode(data: Any, exc: BaseException) -> SerializationError:
    kind = type(data).__qualname__
    return SerializationError(f"{kind} cannot be written as JSON: {exc or type(exc).__name__}")


class Refused(SerializationError):
    """A payload that is not the message it should be; ``header`` is what could be read of it."""

    def __init__(self, text: str, header: Header) -> None:
        super().__init__(text)
        self.header = header


class Reader(Generic[T]):
    """Reads the payloads of one kind of message, in whatever form they come.

    ``kind`` is the class of the data, None for plain decoded data. ``always_wrapped`` is for
    calls, which no peer sends bare. Safe to use from several threads. A class that cannot be
    decoded raises TypeError here, not when the first message arrives.
    """

    def __init__(
        self, kind: type[T] | None, *, always_wrapped: bool = False, limit: int = MAX_PAYLOAD
    ) -> None:
        self._kind = kind
        self._limit = limit
        self._always_wrapped = always_wrapped
        self._shape = _shape(kind)

    def read(self, packet: Packet) -> Envelope:
        """The message in a packet, its data an instance of ``kind``.

        Raises Refused for anything that is no such message.
        """
        payload, shape = packet.payload, self._shape
        if len(payload) > self._limit:
            raise Refused(str(PayloadTooBig(len(payload), self._limit)), Header())
        try:
            if packet.header is not None:
                return Envelope(packet.header, shape.read_bare(payload))
            envelope = shape.read_wrapped(payload)
        except _NOT_DECODABLE:
            return self._read_leniently(payload, packet.header)
        if envelope.header.properties is UNSET and not self._always_wrapped:
            return self._read_leniently(payload, None)
        found: Envelope = envelope
        return found

    def _read_leniently(self, payload: bytes, header: Header | None) -> Envelope:
        payload = expand(payload, self._limit)
        try:
            tree, is_text = parse(payload), False
        except _NOT_DECODABLE:
            tree, is_text = _as_text(payload), True
        if header is None:
            header, tree = self._unwrap(tree)
        if is_text and self._kind is bytes:
            tree = payload
        return Envelope(header, self._convert(tree, header))

    def _unwrap(self, tree: Any) -> tuple[Header, Any]:
        if self._always_wrapped:
            if not isinstance(tree, dict) or "header" not in tree:
                raise Refused("no envelope: {'header': …, 'data': …} was expected", Header())
            return read_header(tree["header"]), tree.get("data", {})
        if is_wrapped(tree, self._shape.has_header_and_data):
            return read_header(tree["header"]), tree["data"]
        return Header(), tree

    def _convert(self, tree: Any, header: Header) -> Any:
        try:
            return self._shape.convert(tree)
        except _NOT_DECODABLE as exc:
            kind = getattr(self._kind, "__qualname__", self._kind)
            raise Refused(f"not a {kind}: {exc or type(exc).__name__}", header) from exc


class _Shape:
    """How one class is decoded: strictly from JSON in one pass, or from a tree."""

    def __init__(self, kind: Any) -> None:
        self._validate = getattr(kind, "model_validate", None)  # pydantic
        self._kind = Any if kind is None or self._validate else kind
        wrapped = msgspec.defstruct(
            "Wrapped",
            [("header", Header), ("data", self._kind)],
            bases=(Envelope,),
            forbid_unknown_fields=True,
            module=__name__,
        )
        self.read_wrapped = self._decoder(wrapped)
        self.read_bare = self._decoder(self._kind)
        check_decodable(self._kind)
        self._null_to_nan = null_to_nan(self._kind)
        fields = getattr(msgspec.inspect.type_info(self._kind), "fields", ())
        names = {field.encode_name for field in fields} | getattr(kind, "model_fields", {}).keys()
        self.has_header_and_data = "header" in names and "data" in names

    def _decoder(self, kind: Any) -> Any:
        decode = msgspec.json.Decoder(kind, strict=False, dec_hook=dec_hook).decode
        if self._validate is None:
            return decode
        validate = self._validate

        def decode_and_validate(payload: bytes) -> Any:
            found = decode(payload)
            if kind is self._kind:
                return validate(found)
            found.data = validate(found.data)
            return found

        return decode_and_validate

    def convert(self, tree: Any) -> Any:
        if self._validate is not None:
            return self._validate(tree)
        if self._kind is Any:
            return tree
        if self._null_to_nan is not None:
            tree = self._null_to_nan(tree)
        return msgspec.convert(tree, self._kind, strict=False, dec_hook=dec_hook)


@lru_cache(maxsize=1024)
def _cached_shape(kind: Any) -> _Shape:
    return _Shape(kind)


def _shape(kind: Any) -> _Shape:
    try:
        return _cached_shape(kind)
    except (TypeError, NameError, AttributeError) as exc:
        name = getattr(kind, "__qualname__", kind)
        raise TypeError(
            f"messages of type {name} cannot be decoded: {exc}. Define the class and the types "
            "of its fields at module level, or leave out 'from __future__ import annotations'"
        ) from exc


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


_read_header_only = msgspec.json.Decoder(_HeaderOnly, strict=False).decode


def reply_id(packet: Packet) -> str:
    """The id of the call that a reply is for; empty where it does not say, as of released peers."""
    try:
        return (packet.header or _read_header_only(packet.payload).header).id
    except _NOT_DECODABLE:
        return ""


def read_header(tree: Any) -> Header:
    """The header, leniently: a key of a wrong type counts as absent, an unknown one as well."""
    header = Header()
    if isinstance(tree, dict):
        for name, kind in _HEADER_FIELDS:
            if name in tree:
                try:
                    setattr(header, name, msgspec.convert(tree[name], kind, strict=False))
                except msgspec.ValidationError:
                    continue  # absent, by the rule above
    return header


def parse(payload: bytes) -> Any:
    """A payload as plain data: MessagePack if it begins with one of its maps, else JSON."""
    first = payload[0] if payload else 0
    if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
        return msgspec.msgpack.decode(payload)
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        if b"NaN" in payload or b"Infinity" in payload:
            import json  # the only writer of these literals is also their only reader

            tree = json.loads(payload)
            # Lone surrogates, which msgspec refuses: half a character that nobody could write.
            json.dumps(tree, ensure_ascii=False).encode()
            return tree
        raise


def _as_text(payload: bytes) -> str | bytes:
    try:
        return str(payload, "utf8")
    except UnicodeDecodeError:
        return payload


def expand(payload: bytes, limit: int) -> bytes:
    """The payload decompressed if it is zlib or zstd, else the same object.

    Raises Refused for more than ``limit`` bytes, and for zstd without the extra.
    """
    if payload[:1] == b"\x78":
        return _inflate(payload, limit)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return _unzstd(payload, limit)
    return payload


def _inflate(payload: bytes, limit: int) -> bytes:
    import zlib

    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(payload, limit + 1)
    except zlib.error:
        return payload  # text that begins with an x
    if len(plain) > limit:
        raise Refused(str(PayloadTooBig(len(plain), limit)), Header())
    return plain if stream.eof else payload


def _unzstd(payload: bytes, limit: int) -> bytes:
    try:
        import zstandard
    except ImportError as exc:
        text = 'a payload compressed with zstd: pip install "commlib-py[zstd]" to read it'
        raise Refused(text, Header()) from exc
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as stream:
            plain: bytes = stream.read(limit + 1)
    except zstandard.ZstdError as exc:
        raise Refused(f"a broken zstd payload: {exc}", Header()) from exc
    if len(plain) > limit:
        raise Refused(str(PayloadTooBig(len(plain), limit)), Header())
    return plain
