"""Tells the messages of a class from what else comes by a pattern. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import json, msgpack

from commlib._packet import Envelope, Header, Packet
from commlib._typing import T
from commlib._wire import Reader, Refused


class SelectiveReader(Reader[T]):
    """Refuses as well what has fields, and none of those that the class has.

    By a pattern comes whatever others publish, signs of life among it. Where each field of a class
    has a default, all of that would pass for a message of nothing but defaults. A pydantic model
    says itself what it takes.
    """

    def __init__(self, kind: type[T], **options: Any) -> None:
        super().__init__(kind, **options)
        self._plain: Reader[Any] = Reader(None, **options)
        # What nearly every message of the class holds, and no header: in JSON, and in MessagePack.
        certain = sorted(self.fields.difference(Header.__struct_fields__))[:1]
        self._signs = [sign(name) for name in certain for sign in (json.encode, msgpack.encode)]

    def read(self, packet: Packet) -> Envelope:
        envelope = Reader.read(self, packet)
        for sign in self._signs:
            if sign in packet.payload:
                return envelope
        self._check(packet, envelope.header)
        return envelope

    def _check(self, packet: Packet, header: Header) -> None:
        found = self._plain.read(packet).data
        if found and isinstance(found, dict) and self.fields.isdisjoint(found):
            name, has = self._kind.__qualname__, ", ".join(map(str, list(found)[:5]))
            text = f"no {name}: it has {has}, and no field of a {name}"
            raise Refused(f"{text}; a narrower pattern keeps other messages out", header)
