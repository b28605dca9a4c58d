"""How messages become bytes: JSON, MessagePack, raw bytes, text, or a way of the program's own.

Every endpoint takes one as ``serializer=``, a class or an object, and writes with it. What is
written says which it was, so readers need not be told::

    node.create_publisher("camera.front", bytes, serializer=BytesSerializer)
    node.create_subscriber("camera.front", on_image, bytes)

There are exceptions. Without an envelope (``envelope=False``, on a broker without headers) a
payload does not say what it is: the reader of bytes, text, or MessagePack that is no map is then
given the same serializer, and bytes that are themselves a zlib or zstd stream arrive expanded. And
a serializer of the program's own must be given to its readers in any case::

    class CBORSerializer(Serializer):
        CONTENT_TYPE = "application/cbor"

        @staticmethod
        def serialize(data):          # dicts, lists, str, numbers, bool and None
            return cbor2.dumps(data)

        @staticmethod
        def deserialize(data):
            return cbor2.loads(data)

The header stays readable for everybody. JSON and MessagePack of ours are msgspec's; a program that
prefers another JSON library gives it its functions, ``JSONSerializer(loads=..., dumps=...)``, and
those write and read the whole payload.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from commlib._json import NOT_DECODABLE, NOT_ENCODABLE, cannot_write, parse, write_json
from commlib._types import enc_hook
from commlib.exceptions import SerializationError

__all__ = [
    "BinarySerializer",
    "BytesSerializer",
    "ContentType",
    "JSONSerializer",
    "MessagePackSerializer",
    "SerializationTypes",
    "Serializer",
    "TextSerializer",
]


class SerializationTypes(IntEnum):
    """The serializations of commlib-py 0.6, by number."""

    JSON = 0


class ContentType:
    """How data is written, as the header names it."""

    json = "application/json"
    msgpack = "application/x-msgpack"
    raw_bytes = "application/octet-stream"
    text = "text/plain"


class Serializer:
    """The base for serializers of the program's own; both methods may be called by any thread.

    ``CONTENT_TYPE`` tells readers how the data is written. What ``deserialize`` raises refuses the
    message.
    """

    CONTENT_TYPE: str = ""
    CONTENT_ENCODING: str = "binary"

    @staticmethod
    def serialize(data: Any) -> str | bytes:
        """Data as text or bytes: dicts with str keys, lists, str, numbers, bool and None."""
        raise NotImplementedError

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        """The data again; it is given what ``serialize`` has returned."""
        raise NotImplementedError


class JSONSerializer(Serializer):
    """JSON, by msgspec; or by the functions that the program gives.

    ``dumps(data)`` returns str or bytes, ``loads(payload)`` takes bytes.
    """

    CONTENT_TYPE = ContentType.json
    CONTENT_ENCODING = "utf8"

    def __init__(
        self,
        loads: Callable[[Any], Any] | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> None:
        if loads is not None:
            self.deserialize = loads  # type: ignore[assignment] # hides that of the class
        if dumps is not None:
            self.serialize = dumps  # type: ignore[assignment] # the same

    @staticmethod
    def serialize(data: Any) -> str | bytes:
        """Data as JSON, a str. Raises SerializationError."""
        return write_json(data).decode()

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        """The data in JSON. Raises SerializationError."""
        return _parse(data)


class MessagePackSerializer(Serializer):
    """MessagePack, by msgspec: smaller than JSON, and it keeps bytes and NaN as they are."""

    CONTENT_TYPE = ContentType.msgpack

    @staticmethod
    def serialize(data: Any) -> bytes:
        """Data as MessagePack. Raises SerializationError."""
        try:
            return msgspec.msgpack.encode(data, enc_hook=enc_hook)
        except NOT_ENCODABLE as exc:
            raise cannot_write(data, "MessagePack", exc) from exc

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        """The data in MessagePack. Raises SerializationError."""
        try:
            return msgspec.msgpack.decode(data.encode() if isinstance(data, str) else data)
        except msgspec.MsgspecError as exc:
            raise SerializationError(f"no MessagePack: {exc}") from exc


class BytesSerializer(Serializer):
    """Bytes as they are, without base64, and text in UTF-8; all else is written as JSON."""

    CONTENT_TYPE = ContentType.raw_bytes

    @staticmethod
    def serialize(data: Any) -> bytes:
        """Bytes, text in UTF-8, or data as JSON. Raises SerializationError."""
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        try:
            return data.encode() if isinstance(data, str) else write_json(data)
        except UnicodeEncodeError as exc:
            raise cannot_write(data, "UTF-8", exc) from exc

    @staticmethod
    def deserialize(data: str | bytes) -> bytes:
        """The bytes."""
        return data.encode() if isinstance(data, str) else data


class TextSerializer(Serializer):
    """Text as it is, and bytes that are text in UTF-8; all else is written as JSON."""

    CONTENT_TYPE = ContentType.text
    CONTENT_ENCODING = "utf8"

    @staticmethod
    def serialize(data: Any) -> str:
        """Text, or data as JSON. Raises SerializationError."""
        if isinstance(data, bytes | bytearray | memoryview):
            return TextSerializer.deserialize(bytes(data))
        return data if isinstance(data, str) else write_json(data).decode()

    @staticmethod
    def deserialize(data: str | bytes) -> str:
        """The text. Raises SerializationError for bytes that are no UTF-8."""
        try:
            return data if isinstance(data, str) else str(data, "utf8")
        except UnicodeDecodeError as exc:
            raise SerializationError(f"no text: {exc}") from exc


BinarySerializer = BytesSerializer
"""The name that commlib-py 0.13 has for it."""


def _parse(data: str | bytes) -> Any:
    try:
        return parse(data.encode() if isinstance(data, str) else data)
    except NOT_DECODABLE as exc:
        raise SerializationError(f"no JSON: {exc}") from exc
