"""Signatures over messages: what is signed, and how it is written. Pure.

Signed is one string of bytes, in which nothing can be taken for something else::

    "commlib-sig-1"  kind  seq  timestamp  has_error  7 texts  data

``kind`` is one byte: ``m`` for a published message, ``q`` for a request, ``r`` for a reply. ``seq``
and ``timestamp`` are integers of 8 bytes, big-endian, ``has_error`` is one byte, 0 or 1. The texts
are, each in UTF-8 after its length in 4 bytes: the id of the key, the topic or the name of the
service, the origin, the content type, the id of the call, and the class and the text of an error.
The data is the rest: as the serializer has written it, before it is enclosed or compressed. Every
way through the brokers keeps it: in an envelope of JSON it is the bytes of ``data``, and where the
serializer makes text or bytes it is these, not their spelling there.

The topic is signed because what was signed for one robot must not be given to another one of the
same kind. It travels in the signature, for a bridge may publish the message elsewhere.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from struct import Struct as Layout
from typing import Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from commlib._letter import open_letter
from commlib._packet import MAX_PAYLOAD, MESSAGE, Header, Packer, Packet, Signature, now_ms
from commlib._wire import Refused, Writer
from commlib.exceptions import SerializationError, SignatureError

T = TypeVar("T")

MAGIC = b"commlib-sig-1"

_NUMBERS = Layout("!qq?")
_length = Layout("!I").pack


class Unverified(Refused, SignatureError):
    """A message that is not believed, with the header that it claims to have."""

    is_verified = False

    def __init__(self, text: str, header: Header) -> None:
        super().__init__(text, header, SignatureError.__name__)

    def public(self, what: str) -> SignatureError:
        return SignatureError(f"{what}: {self}")


class Replayed(Unverified):
    """One that was taken before, or is too old to tell."""

    is_replay = True

    def __init__(self, header: Header) -> None:
        text = f"number {header.seq} of {header.origin} was taken before, or is too old to tell"
        super().__init__(text, header)


class Key(Protocol):
    """What signs; a ``SigningKey``."""

    @property
    def key_id(self) -> str: ...

    def sign(self, data: bytes) -> bytes: ...


def same_name(topic: str) -> str:
    """A topic in the one notation that is signed: brokers have their own, and bridges change it."""
    return topic.replace("/", ".")


def signed_bytes(
    kind: bytes, header: Header, sig: Signature, content_type: str, data: bytes
) -> bytes:
    """What a signature is made of. Raises ``struct.error`` for numbers of more than 8 bytes."""
    error = header.error
    texts = (
        *(sig.key, sig.topic, header.origin, content_type, header.id),
        *(("", "") if error is None else (error.type, error.message)),
    )
    parts = [MAGIC, kind, _NUMBERS.pack(header.seq, header.timestamp, error is not None)]
    for text in texts:
        raw = text.encode("utf8", "surrogatepass")
        parts += (_length(len(raw)), raw)
    parts.append(data)
    return b"".join(parts)


class Signing(Generic[T]):
    """Signs what a writer writes. Safe to use from several threads, as the writer is."""

    def __init__(self, writer: Writer[T], key: Key, kind: bytes) -> None:
        self._writer = writer
        self._key = key
        self._kind = kind

    def pack(self, data: T, header: Header | None, native: bool, topic: str) -> Packet:
        """As ``Writer.pack``, with a signature for this topic."""
        if header is None:  # the broker of now is another one than that of the beginning
            raise SerializationError("bare data has no room for a signature on this broker")
        body = self.sign(self._writer.encode(data), header, topic)
        return self._writer.wrap(body, header, native)

    def for_name(self, name: str, packer: Packer) -> Packer:
        """Who makes packets as ``packer`` does, signed for this name."""
        return SigningPacker(self, packer, name)

    def sign(self, body: Any, header: Header, topic: str) -> Any:
        """Put the signature over an encoded message into its header; the body to be wrapped.

        Nothing of the header that is signed may change after that. Raises SerializationError.
        """
        body, data = self._writer.fix(body)
        content_type = self._writer.content_type(body)
        header.sig = _signature(self._key, self._kind, header, topic, content_type, data)
        return body


def signed_anew(packet: Packet, key: Key, kind: bytes, topic: str) -> Packet:
    """A signed packet of ours with the time of now, and the signature over that."""
    letter = open_letter(packet, MAX_PAYLOAD, is_call=kind != MESSAGE, only_properties=True)
    data, properties = letter.plain()
    header = replace(letter.header, timestamp=now_ms(), properties=properties)
    header.sig = _signature(key, kind, header, topic, properties.content_type, data)
    return letter.pack(header, native=packet.header is not None, limit=MAX_PAYLOAD)


def _signature(
    key: Key, kind: bytes, header: Header, topic: str, content_type: str, data: bytes
) -> Signature:
    unsigned = Signature(key.key_id, same_name(topic))
    value = key.sign(signed_bytes(kind, header, unsigned, content_type, data))
    return replace(unsigned, value=urlsafe_b64encode(value).rstrip(b"=").decode())


class SigningPacker:
    """Makes packets for one name as another one does, and signs them."""

    def __init__(self, signing: Signing[Any], packer: Packer, name: str) -> None:
        self.properties = packer.properties
        self._signing = signing
        self._packer = packer
        self._name = name

    def wrap(self, body: Any, header: Header, native: bool) -> Packet:
        """The packet for an encoded message."""
        return self._packer.wrap(self._signing.sign(body, header, self._name), header, native)
