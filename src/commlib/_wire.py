"""Messages to packets and back, in every form of payload there is in the field. Pure.

Each of the forms that ``_packet`` tells of may be JSON or MessagePack, or the text or bytes of
another serializer, and may be compressed with zlib or zstd, without a flag: the first bytes tell.
All of this is read always. Reading goes in two steps: one strict pass straight into the message
class, which takes all that a well-meaning peer sends, and, only if that fails, a lenient one that
finds out what the payload is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Generic, TypeVar, is_typeddict

import msgspec
from msgspec import UNSET

from commlib import _json
from commlib._arrays import NDArray, is_array_like, kind_of
from commlib._arrays import is_raw as is_raw_type
from commlib._forms import JSON, AnySerializer, ArrayForm, form_for, is_ours, own_reader
from commlib._packet import (
    MAX_PAYLOAD,
    Envelope,
    Header,
    Packet,
    Properties,
    is_wrapped,
    peek,
    read_header,
)
from commlib._params import nearest
from commlib._parts import Parts
from commlib._types import (
    check_decodable,
    check_kind,
    dec_hook,
    null_to_nan,
    null_to_nan_in,
    validator_of,
)
from commlib.compression import Compression, compressor, expand
from commlib.exceptions import PayloadTooBig, SerializationError
from commlib.serializer import BytesSerializer, ContentType, MessagePackSerializer

T = TypeVar("T")

COMPRESSED = "compressed"  # the content_encoding of a native message whose first bytes tell how
_MARK, _MARKED = b"application/octet-stream;", 256  # in the header of an array, near its beginning
_encode = _json.encode
_BYTES = (bytes, bytearray, memoryview)


class Writer(Generic[T]):
    """Writes messages of one type, and refuses others; a dict is taken as the message it spells.

    ``kind=None`` writes whatever the serializer can write, JSON if none is given. Safe to use from
    several threads.
    """

    def __init__(
        self,
        kind: type[T] | None,
        *,
        limit: int = MAX_PAYLOAD,
        serializer: AnySerializer | None = None,
        compression: Compression = None,
    ) -> None:
        check_kind(kind)
        self._kind = kind
        self._limit = limit
        self._form = form_for(kind, serializer)
        self._compress = compressor(compression)
        self._is_plain_json = self._form is JSON and self._compress is None
        self._is_array = isinstance(self._form, ArrayForm)
        self.properties: Properties = self._form.properties
        """What the header of a message has to say of how it is written."""
        self.may_part = False
        """Whether the payload of a packet may be ``Parts``."""
        # list[int] and the like are no classes: what is given is taken at its word.
        is_class = isinstance(kind, type) and kind is not Any and not is_typeddict(kind)
        self._class: Any = kind if is_class else None

    def pack(self, data: Any, header: Header | None, native: bool) -> Packet:
        """The packet for a message, in one pass.

        ``header=None`` makes a bare payload; ``native`` puts the header beside it. Raises
        SerializationError, and PayloadTooBig when it is over ``limit`` bytes.
        """
        if not self._is_plain_json:
            return self.wrap(self.encode(data), header, native)
        if data.__class__ is not self._class:
            data = self.check(data)
        try:
            whole = data if header is None or native else Envelope(header, data)
            payload = _encode(whole)
            if payload.rfind(b"null") >= 0:  # from the end it is found missing in half the time
                payload = _json.with_infinities(whole, payload)
        except _json.NOT_ENCODABLE as exc:
            raise _json.cannot_write(data, "JSON", exc) from exc
        if len(payload) > self._limit:
            raise PayloadTooBig(len(payload), self._limit)
        return Packet(payload, "", header if native else None)

    def encode(self, data: Any) -> Any:
        """The message as it goes into an envelope, for ``wrap``. Raises SerializationError."""
        data = self.check(data)
        try:
            return self._form.body(data)
        except _json.NOT_ENCODABLE as exc:
            form = "JSON" if self._form is JSON else self.properties.content_type
            raise _json.cannot_write(data, form, exc) from exc

    def fix(self, body: Any) -> tuple[Any, bytes]:
        """An encoded message for ``wrap`` that is written verbatim, and its bytes, for a signature.

        Raises SerializationError.
        """
        try:
            body = self._form.fixed(body)
            return body, self._form.bare(body)
        except _json.NOT_ENCODABLE as exc:
            raise _json.cannot_write(body, self.properties.content_type, exc) from exc

    def content_type(self, body: Any) -> str:
        """What the header of an encoded message says of it."""
        form = self._form
        return (form.said(body) if isinstance(form, ArrayForm) else form.properties).content_type

    def wrap(self, body: Any, header: Header | None, native: bool) -> Packet:
        """The packet for an encoded message; otherwise as ``pack``."""
        payload: bytes | Parts
        if self._is_array:
            if header is None:
                raise SerializationError("an array needs the header, which says what it is")
            header.properties = Properties(self.content_type(body), "binary")
        if header is None or native:
            payload = self._form.bare(body)
        else:
            payload = self._form.wrapped(header, body)
        if len(payload) > self._limit:
            raise PayloadTooBig(len(payload), self._limit)
        if isinstance(payload, Parts) and (self._compress is not None or not self.may_part):
            payload = bytes(payload)
        if self._compress is not None:
            payload = self._compress(payload)  # type: ignore[arg-type] # it was joined
            if native and header is not None:
                header.properties = Properties(self.content_type(body), COMPRESSED)
        return Packet(payload, "", header if native else None)  # type: ignore[arg-type] # asked for

    def check(self, data: Any) -> Any:
        """The message itself, or the one that a dict spells. Raises SerializationError."""
        if self._class is None or isinstance(data, self._class):
            return data
        if self._class is float and isinstance(data, int):
            return data
        if self._class is NDArray and is_array_like(data):
            return NDArray.of(data)
        if not isinstance(data, dict):
            raise SerializationError(
                f"a {self._class.__qualname__} was expected, not {type(data).__qualname__}"
            )
        shape = _shape(self._kind)
        for key in data:
            if shape.names is not None and key not in shape.names:  # its reader gets the default
                near = nearest(str(key), shape.names) if shape.names else "it has none"
                raise SerializationError(
                    f"a {self._class.__qualname__} has no field {key!r}; {near}"
                )
        try:
            return shape.convert(data)
        except _json.NOT_DECODABLE as exc:
            raise SerializationError(f"no {self._class.__qualname__}: {exc}") from exc


def pack(data: Any, header: Header | None, native: bool, limit: int = MAX_PAYLOAD) -> Packet:
    """The packet for data of any type, as JSON; otherwise as ``Writer.pack``."""
    return Writer(None, limit=limit).pack(data, header, native)


class Refused(SerializationError):
    """A payload that is not the message it should be; ``header`` is what could be read of it.

    ``name`` is the class of the error as its sender is told.
    """

    is_verified = True
    """Whether the header may be believed, where signatures are asked for."""
    is_replay = False
    """Whether it is a signed message that has been here before."""

    def __init__(self, text: str, header: Header, name: str = "SerializationError") -> None:
        super().__init__(text)
        self.header = header
        self.name = name

    def public(self, what: str) -> SerializationError:
        """The same for who has asked for the message, without the header."""
        return SerializationError(f"{what}: {self}")


class Reader(Generic[T]):
    """Reads the payloads of one kind of message, in whatever form they come.

    ``kind`` is the class of the data, None for plain decoded data. ``always_wrapped`` is for
    calls, which no peer sends bare. ``serializer`` is needed for one of the program's own. Safe to
    use from several threads. A class that cannot be decoded raises TypeError here, not when the
    first message arrives.
    """

    def __init__(
        self,
        kind: type[T] | None,
        *,
        always_wrapped: bool = False,
        limit: int = MAX_PAYLOAD,
        serializer: AnySerializer | None = None,
    ) -> None:
        check_kind(kind)
        self._kind: Any = kind
        self._limit = limit
        self._always_wrapped = always_wrapped
        self._own = own_reader(serializer)
        # What is bare MessagePack cannot be told from its first byte, unless it is a map.
        self._unpacks = serializer is not None and is_ours(serializer, MessagePackSerializer)
        self._shape = _shape(kind)
        # The text of another serializer must not pass for the base64 of bytes.
        self._may_be_strict = self._own is None and kind not in _BYTES
        self._takes_bytes = kind in _BYTES and (
            serializer is None or self._own is None or is_ours(serializer, BytesSerializer)
        )

    @property
    def fields(self) -> frozenset[str]:
        """What the fields of a message are called in a payload, if its class has said so."""
        return frozenset(self._shape.names or ())

    @property
    def takes_anything(self) -> bool:
        """Whether each field of a message has a default, so that what has none of them is one.

        Not so where defaults are never sent, and where the class says itself what it takes.
        """
        return self._shape.takes_anything

    @property
    def has_header_and_data(self) -> bool:
        """Whether a message has fields with the names of the two parts of an envelope."""
        return self._shape.has_header_and_data

    def read(self, packet: Packet) -> Envelope:
        """The message in a packet, its data an instance of ``kind``.

        Raises Refused for anything that is no such message.
        """
        payload, header = packet.payload, packet.header
        if len(payload) > self._limit:
            # A caller is told, if that can be found out without decoding all of it.
            error = PayloadTooBig(len(payload), self._limit)
            raise Refused(
                str(error), header or (self._always_wrapped and peek(payload)) or Header()
            )
        is_json = header is None and payload[:1] < b"\x80"
        if not is_json and (self._takes_bytes or header is None):
            found = self._open_binary(payload, header)
            if found is not None:
                return found
        if self._may_be_strict:
            shape = self._shape
            try:
                if header is None:
                    decode = shape.read_wrapped if is_json else shape.unpack_wrapped
                    envelope: Envelope = decode(payload)
                    if self._always_wrapped or envelope.header.properties is not UNSET:
                        return envelope
                elif (kind := _content_type(header)) == ContentType.json:
                    return Envelope(header, shape.read_bare(payload))
                elif kind == ContentType.msgpack:
                    return Envelope(header, shape.unpack_bare(payload))
            except _json.NOT_DECODABLE:
                pass  # it is something else, or nothing
        return self._read_leniently(payload, header)

    def _read_leniently(self, payload: bytes, header: Header | None) -> Envelope:
        try:
            if header is None or not is_raw(header):
                payload = expand(payload, self._limit)
        except SerializationError as exc:
            raise Refused(str(exc), header or Header()) from exc
        if header is not None:
            return Envelope(header, self._native_data(payload, header))
        if payload[:1] >= b"\x80" and (found := self._open_array(payload)) is not None:
            return found  # it was compressed
        tree = self._tree(payload)
        if self._is_envelope(tree):
            header = read_header(tree["header"])
            return Envelope(header, self.convert(self._wrapped_body(tree, header), header))
        if self._always_wrapped:
            raise Refused("no envelope: {'header': …, 'data': …} was expected", Header())
        return Envelope(Header(), self._bare_data(tree, payload, Header()))

    def _open_binary(self, payload: bytes, header: Header | None) -> Envelope | None:
        """What is not to be copied; None for all else."""
        if self._takes_bytes:
            return self._open_bytes(payload, header)
        return self._open_array(payload) if payload.find(_MARK, 0, _MARKED) > 0 else None

    def _open_bytes(self, payload: bytes, header: Header | None) -> Envelope | None:
        """Bytes as they are written by us, for who wants just those; None for all else."""
        data: bytes | memoryview = payload
        if header is None:
            try:
                whole = _read_bytes(payload)
            except _json.NOT_DECODABLE:
                return None
            header, data = whole.header, whole.data
            if _content_type(header) != ContentType.raw_bytes:
                return None
        elif _content_type(header) != ContentType.raw_bytes or not is_raw(header):
            return None
        return Envelope(header, self._kind(data))

    def _open_array(self, payload: bytes) -> Envelope | None:
        """An array in an envelope, which is not copied; None if it is something else."""
        try:
            found = _read_bytes(payload)
        except _json.NOT_DECODABLE:
            return None
        header, kind = found.header, _content_type(found.header)
        if not is_raw_type(kind) or kind == ContentType.raw_bytes or self._kind in _BYTES:
            return None
        return Envelope(header, self._other_body(found.data, kind, header))

    def _tree(self, payload: bytes) -> Any:
        """What is in the payload; text or bytes if it is nothing else."""
        tree = _guess(payload)
        if self._unpacks and not self._is_envelope(tree):
            return _unpack(payload, tree)
        if self._own is None or (
            ContentType.json != self._own.CONTENT_TYPE and self._is_envelope(tree)
        ):
            return tree
        try:
            # All of it: that is how released peers write with a serializer of their own.
            return self._own.deserialize(payload)
        except Exception:  # it is the program's own function; somebody else may have written this
            return tree

    def _is_envelope(self, tree: Any) -> bool:
        if self._always_wrapped:
            return isinstance(tree, dict) and "header" in tree
        # Bytes of the program's own may happen to look like the least that is an envelope.
        return is_wrapped(tree, self._own is not None or self._shape.has_header_and_data)

    def _wrapped_body(self, tree: Any, header: Header) -> Any:
        body = tree.get("data", {})
        kind = _content_type(header)
        if kind in (ContentType.json, ContentType.msgpack) or not isinstance(body, str | bytes):
            return body
        return self._other_body(body, kind, header)

    def _bare_data(self, tree: Any, payload: bytes, header: Header) -> Any:
        if self._own is not None and isinstance(tree, str | bytes):
            tree = self._read_blob(tree, self._own.CONTENT_TYPE, header)
        text = _as_text(payload) if self._kind is str or self._kind in _BYTES else None
        if self._kind in _BYTES and tree == text:
            return self._kind(payload)  # text and no JSON, so no base64, though it may look so
        try:
            return self.convert(tree, header)
        except Refused:
            if self._kind in _BYTES:
                return self._kind(payload)  # no base64 in JSON, so they are what was meant
            if isinstance(text, str):
                return text  # it happens to be JSON, but text is what is wanted
            raise

    def _native_data(self, payload: bytes, header: Header) -> Any:
        kind = _content_type(header)
        if kind == ContentType.json:
            return self._bare_data(self._tree(payload), payload, header)
        if kind != ContentType.msgpack:
            return self.convert(self._other_body(payload, kind, header), header)
        try:
            tree = msgspec.msgpack.decode(payload)
        except _json.NOT_DECODABLE as exc:
            raise Refused(f"no MessagePack: {exc}", header) from exc
        return self.convert(tree, header)

    def _other_body(self, body: str | bytes | memoryview, kind: str, header: Header) -> Any:
        """What another serializer than ours has made of the data."""
        if isinstance(body, memoryview) or (isinstance(body, bytes) and self._kind not in _BYTES):
            try:
                said = kind_of(kind)
                if said is not None:
                    return self._array(NDArray(*said, memoryview(body)), header)
            except SerializationError as exc:
                raise Refused(str(exc), header) from exc
        if isinstance(body, memoryview):
            body = bytes(body)
        if self._own is not None and kind == self._own.CONTENT_TYPE:
            try:
                body = self._own.deserialize(body)
            except Exception as exc:  # the program's own function may raise anything
                raise Refused(f"the serializer refused it: {exc!r}", header) from exc
            if not isinstance(body, str | bytes):
                return body
        return self._read_blob(body, kind, header)

    def _array(self, found: NDArray, header: Header) -> Any:
        """An array as what is wanted."""
        if self._shape.is_numpy:
            return found.array
        if self._kind in (None, Any, dict):
            return {"dtype": found.dtype, "shape": list(found.shape), "data": bytes(found.data)}
        return self.convert(found, header)

    def _read_blob(self, body: str | bytes, kind: str, header: Header) -> Any:
        """Text or bytes as they are if that is what is wanted, else the message that they spell."""
        raw = body.encode() if isinstance(body, str) else body
        if self._kind in _BYTES:
            return raw
        if self._kind in (None, str, Any):
            return _as_text(raw) if self._kind is str or is_text(kind) else body
        if is_text(kind) or kind == ContentType.raw_bytes:
            return _guess(raw)
        raise Refused(f"written as {kind}: give this endpoint the serializer for it", header)

    def convert(self, tree: Any, header: Header) -> Any:
        """The message that plain data spells; ``header`` is for the error. Raises Refused."""
        try:
            return self._shape.convert(tree)
        except _json.NOT_DECODABLE as exc:
            kind = getattr(self._kind, "__qualname__", self._kind)
            raise Refused(f"not a {kind}: {exc or type(exc).__name__}", header) from exc


class _WrappedBytes(msgspec.Struct, forbid_unknown_fields=True):
    header: Header
    data: memoryview


_read_bytes = msgspec.msgpack.Decoder(_WrappedBytes, strict=False).decode


def is_raw(header: Header) -> bool:
    """Whether a native payload is bytes of the program's, and none that we have compressed."""
    properties = header.properties
    return (
        properties is not UNSET
        and is_raw_type(properties.content_type)
        and properties.content_encoding != COMPRESSED
    )


def _content_type(header: Header) -> str:
    return ContentType.json if header.properties is UNSET else header.properties.content_type


def is_text(content_type: str) -> bool:
    """Whether a body of this type is text; released commlib-py has the second spelling."""
    return content_type.startswith("text/") or content_type == "plain/text"


def _guess(payload: bytes) -> Any:
    try:
        return _json.parse(payload)
    except _json.NOT_DECODABLE:
        return _as_text(payload)


def _unpack(payload: bytes, otherwise: Any) -> Any:
    try:
        return msgspec.msgpack.decode(payload)
    except _json.NOT_DECODABLE:
        return otherwise


def _as_text(payload: bytes) -> str | bytes:
    try:
        return str(payload, "utf8")
    except UnicodeDecodeError:
        return payload


class _Shape:
    """How one class is decoded: strictly from JSON in one pass, or from a tree."""

    def __init__(self, kind: Any) -> None:
        self._validate = validator_of(kind)
        self._kind = Any if kind is None or self._validate else kind
        wrapped = msgspec.defstruct(
            "Wrapped",
            [("header", Header), ("data", self._kind)],
            bases=(Envelope,),
            forbid_unknown_fields=True,
            module=__name__,
        )
        self.read_wrapped = self._decoder(msgspec.json.Decoder, wrapped)
        self.unpack_wrapped = self._decoder(msgspec.msgpack.Decoder, wrapped)
        self.read_bare = self._decoder(msgspec.json.Decoder, self._kind)
        self.unpack_bare = self._decoder(msgspec.msgpack.Decoder, self._kind)
        check_decodable(self._kind)
        self._null_to_nan = null_to_nan(self._kind)
        info: Any = msgspec.inspect.type_info(self._kind)
        fields = getattr(info, "fields", None)
        self.names = None if fields is None else [field.encode_name for field in fields]
        """Of its fields, and of its tag; None if its class itself says what may be there."""
        own = getattr(kind, "model_fields", {})
        self.has_header_and_data = {"header", "data"} <= {*(self.names or ()), *own}
        if self.names is not None and (tag_field := getattr(info, "tag_field", None)):
            self.names.append(tag_field)
        config = getattr(kind, "__struct_config__", None)
        self.takes_anything = not (config is not None and config.omit_defaults) and (
            bool(fields) and not any(field.required for field in fields or ())
        )
        self.is_numpy = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__name__', '')}" == (
            "numpy.ndarray"
        )

    def _decoder(self, decoder: Any, kind: Any) -> Any:
        decode = decoder(kind, strict=False, dec_hook=dec_hook).decode
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
            try:
                return self._validate(tree)
            except ValueError as exc:
                if not hasattr(exc, "errors"):
                    raise
                return self._validate(null_to_nan_in(tree, exc))
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
