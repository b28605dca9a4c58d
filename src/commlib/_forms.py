"""The forms that a message is written in: one for each serializer. Pure.

A form makes of a message its *body*, which goes into an envelope as it is, and of a header and a
body the payload. JSON and MessagePack have an envelope of their own; other serializers give text,
which goes into an envelope of JSON, or bytes, which go into one of MessagePack. So every header
can be read by everybody, and says what the body is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from commlib import _json
from commlib._arrays import NDArray
from commlib._long_bytes import keep_memory
from commlib._packet import PROPERTIES, Envelope, Header, Properties
from commlib._parts import LONG, Frame, Parts
from commlib._types import enc_hook
from commlib.exceptions import SerializationError
from commlib.serializer import (
    BytesSerializer,
    ContentType,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
)

AnySerializer = Serializer | type[Serializer]

_skim = msgspec.json.Decoder(Raw).decode
_BLANK = b" \t\r\n"  # what may be around a value of JSON (RFC 8259, section 2)


class Form(Protocol):
    """How messages of one endpoint are written."""

    properties: Properties
    """What the header says of it."""

    def body(self, data: Any) -> Any:
        """The message as it goes into an envelope; may raise what ``_json.NOT_ENCODABLE`` has."""
        ...

    def fixed(self, body: Any) -> Any:
        """The body such that any payload holds it byte for byte; may raise what ``body`` may."""
        ...

    def bare(self, body: Any) -> bytes:
        """A payload that is nothing but the message."""
        ...

    def wrapped(self, header: Header, body: Any) -> Frame:
        """A payload with header and message; in parts, if it is long and need not be copied."""
        ...


class JSONForm:
    """JSON by msgspec."""

    properties = PROPERTIES  # the same object: transports know by it what is most common

    def body(self, data: Any) -> Raw:
        payload = _json.encode(data)
        return Raw(_json.with_infinities(data, payload) if b"null" in payload else payload)

    def fixed(self, body: Raw) -> Raw:
        return body

    def bare(self, body: Raw) -> bytes:
        return bytes(body)

    def wrapped(self, header: Header, body: Raw) -> bytes:
        return _json.encode(Envelope(header, body))


class MessagePackForm:
    """MessagePack by msgspec."""

    properties = Properties(MessagePackSerializer.CONTENT_TYPE, "binary")

    def body(self, data: Any) -> Raw:
        return Raw(_json.pack(data))

    def fixed(self, body: Raw) -> Raw:
        return body

    def bare(self, body: Raw) -> bytes:
        return bytes(body)

    def wrapped(self, header: Header, body: Raw) -> bytes:
        return _json.pack(Envelope(header, body))


class OtherForm:
    """Any other serializer: text or bytes, in an envelope of ours."""

    def __init__(self, serializer: AnySerializer) -> None:
        self.properties = Properties(serializer.CONTENT_TYPE, serializer.CONTENT_ENCODING)
        self._serialize = serializer.serialize

    def body(self, data: Any) -> str | bytes:
        return _written(self._serialize, _plain(data))

    def fixed(self, body: str | bytes) -> str | bytes:
        return body

    def bare(self, body: str | bytes) -> bytes:
        return body.encode() if isinstance(body, str) else body

    def wrapped(self, header: Header, body: str | bytes) -> Frame:
        if isinstance(body, str):
            return _json.encode(Envelope(header, body))
        return _enclosed(header, body)


class ArrayForm:
    """Arrays as they are: see ``_arrays``."""

    properties = Properties(ContentType.raw_bytes, "binary")

    def body(self, data: NDArray) -> NDArray:
        return data

    def fixed(self, body: NDArray) -> NDArray:
        return body.settled()

    def bare(self, body: NDArray) -> bytes:
        data = body.settled().data
        # All of it is there, so what it is a view on can be given out itself.
        return data.obj if type(data.obj) is bytes and len(data.obj) == len(data) else bytes(data)

    def wrapped(self, header: Header, body: NDArray) -> Frame:
        return _enclosed(header, body.settled().data)

    def said(self, body: NDArray) -> Properties:
        """What the header says of this one."""
        return Properties(body.content_type, "binary")


class OwnJSONForm:
    """JSON by the program's own function, which writes the envelope, too."""

    properties = JSONForm.properties

    def __init__(self, serializer: AnySerializer) -> None:
        self._serialize = serializer.serialize

    def body(self, data: Any) -> Any:
        return _plain(data)

    def fixed(self, body: Any) -> Raw:
        payload = self.bare(body).strip(_BLANK)
        try:
            _skim(payload)
        except msgspec.DecodeError as exc:
            # NaN, for example: whoever passes it on would have to write it in another way.
            raise SerializationError(f"the serializer has written no strict JSON: {exc}") from exc
        return Raw(payload)

    def bare(self, body: Any) -> bytes:
        if isinstance(body, Raw):
            return bytes(body)
        text = _written(self._serialize, body)
        return text.encode() if isinstance(text, str) else text

    def wrapped(self, header: Header, body: Any) -> bytes:
        if isinstance(body, Raw):
            return _json.encode(Envelope(header, body))
        return self.bare({"header": _plain(header), "data": body})


def _enclosed(header: Header, body: bytes | memoryview) -> Frame:
    """An envelope of MessagePack around bytes."""
    size = len(body)
    if size < LONG or size > 0xFFFFFFFF:
        return _json.pack(Envelope(header, body))
    keep_memory(size)
    # As `pack` would write it: an object of two, and the size of the bytes as "bin 32".
    return Parts(b"\x82\xa6header%b\xa4data\xc6%b" % (_json.pack(header), size.to_bytes(4)), body)


def _written(serialize: Callable[[Any], str | bytes], data: Any) -> str | bytes:
    """What the program's own function makes of data. Raises SerializationError."""
    try:
        found = serialize(data)
    except Exception as exc:  # it may raise anything
        raise SerializationError(f"the serializer refused the data: {exc!r}") from exc
    if not isinstance(found, str | bytes):
        kind = type(found).__qualname__
        raise SerializationError(f"the serializer returned {kind}, where str or bytes are needed")
    return found


def _plain(data: Any) -> Any:
    """A message as dicts, lists, str, numbers, bool and None; bytes as they are, on their own."""
    if isinstance(data, str | bytes | bytearray | memoryview):
        return data
    return msgspec.to_builtins(data, str_keys=True, enc_hook=enc_hook)


JSON = JSONForm()
_MESSAGE_PACK = MessagePackForm()
_ARRAYS = ArrayForm()


def form_for(kind: Any, serializer: AnySerializer | None) -> Form:
    """The form in which messages of this kind are written: arrays are bytes, if not said otherwise.

    Raises TypeError for what is no serializer.
    """
    if kind is NDArray and (serializer is None or is_ours(serializer, BytesSerializer)):
        return _ARRAYS
    return form_of(serializer)


def form_of(serializer: AnySerializer | None) -> Form:
    """The form in which a serializer writes. Raises TypeError for what is no serializer."""
    if serializer is None or is_ours(serializer, JSONSerializer):
        return JSON
    if is_ours(serializer, MessagePackSerializer):
        return _MESSAGE_PACK
    content_type = getattr(serializer, "CONTENT_TYPE", None)
    if not content_type or not callable(getattr(serializer, "serialize", None)):
        raise TypeError(
            f"serializer={serializer!r}: it needs serialize(data), deserialize(data) and a "
            "CONTENT_TYPE, as commlib.serializer.Serializer has them"
        )
    return OwnJSONForm(serializer) if content_type == ContentType.json else OtherForm(serializer)


def is_ours(serializer: AnySerializer, kind: type[Serializer]) -> bool:
    """Whether it is this one of ours, and none of the functions that a program gives to it."""
    if isinstance(serializer, type):
        return serializer is kind
    return type(serializer) is kind and not vars(serializer)


def own_reader(serializer: AnySerializer | None) -> AnySerializer | None:
    """The serializer if its messages can be read by itself only, or None."""
    return None if form_of(serializer) in (JSON, _MESSAGE_PACK) else serializer
