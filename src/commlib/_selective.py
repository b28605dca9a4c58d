"""Tells the messages of a class from what else comes by a pattern. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import json, msgpack

from commlib._packet import Envelope, Fault, Header, Packet, Properties, Signature
from commlib._typing import T
from commlib._wire import Reader, Refused

_OF_ENVELOPES = frozenset(
    name
    for part in (Envelope, Header, Properties, Fault, Signature)
    for name in part.__struct_fields__
)


class SelectiveReader(Reader[T]):
    """Refuses as well what has fields, and none of those that the class has.

    By a pattern comes whatever others publish, signs of life among it. Where each field of a class
    has a default, all of that would pass for a message of nothing but defaults. A pydantic model
    says itself what it takes.
    """

    def __init__(self, kind: type[T], **options: Any) -> None:
        super().__init__(kind, **options)
        self._plain: Reader[Any] = Reader(None, **options)
        # What nearly every message of the class holds, and no other envelope: in JSON, and in
        # MessagePack, where a short name may be part of anything.
        certain = sorted(self.fields - _OF_ENVELOPES, key=len, reverse=True)
        self._sign, self._packed_sign = b"", b""
        if certain:
            self._sign = json.encode(certain[0])
            self._packed_sign = msgpack.encode(certain[0]) if len(certain[0]) > 2 else b""

    def read(self, packet: Packet) -> Envelope:
        envelope = Reader.read(self, packet)
        payload, sign = packet.payload, b""
        if payload[:1] == b"{":
            sign = self._sign
        elif payload[:1] >= b"\x80":  # what is compressed begins with neither
            sign = self._packed_sign
        if not sign or sign not in payload:
            self._check(packet, envelope.header)
        return envelope

    def _check(self, packet: Packet, header: Header) -> None:
        found = self._plain.read(packet).data
        if found and isinstance(found, dict) and self.fields.isdisjoint(found):
            name, has = self._kind.__qualname__, ", ".join(map(str, list(found)[:5]))
            text = f"no {name}: it has {has}, and no field of a {name}"
            raise Refused(f"{text}; a narrower pattern keeps other messages out", header)
