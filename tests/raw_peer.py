"""A peer below the patterns: it sends and takes bytes, on whatever broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collected import Collected
from commlib import _portal
from commlib._face import stop
from commlib._packet import Envelope, Header, Packet
from commlib._wire import Reader, pack
from commlib.aio._hub import Hub
from commlib.transports import resolve
from commlib.transports.base import Address


class RawPeer:
    """A peer that sends and takes bytes, whatever they are, by the verbs of the transport."""

    def __init__(self, url: str) -> None:
        self._hub = Hub(resolve(url), "raw")
        self._portal = _portal.enter(self._hub)
        self._portal.run(self._hub.transport.connect)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish a payload as it is."""
        self._post(self._hub.transport.publish, topic, Packet(payload))

    def publish_message(self, topic: str, data: Any, header: Header) -> None:
        """Publish a well-formed message with a header of one's own."""
        self._post(self._hub.transport.publish, topic, self._pack(data, header))

    def send(self, queue: str, payload: bytes) -> None:
        """Send a payload as it is to a queue."""
        self._post(self._hub.transport.send, queue, Packet(payload))

    def send_message(self, queue: str, data: Any, header: Header) -> None:
        """Send a well-formed message with a header of one's own."""
        self._post(self._hub.transport.send, queue, self._pack(data, header))

    def answer(self, request: Envelope, payload: bytes) -> None:
        """Answer a request with a payload as it is."""
        self._post(self._hub.transport.send, _address(request), Packet(payload))

    def answer_message(self, request: Envelope, data: Any, header: Header) -> None:
        """Answer a request with a well-formed message with a header of one's own."""
        self._post(self._hub.transport.send, _address(request), self._pack(data, header))

    def consume(self, queue: str) -> Collected:
        """The envelopes that come to a queue."""
        collected = Collected()
        reader: Reader[Any] = Reader(None, always_wrapped=True)
        transport = self._hub.transport
        self._portal.run(transport.consume, queue, lambda p: collected(reader.read(p)), 100)
        return collected

    def subscribe(self, topic: str) -> Collected:
        """The packets that come to a topic or pattern, as they are."""
        collected = Collected()
        self._portal.run(self._hub.transport.subscribe, topic, collected)
        return collected

    def close(self) -> None:
        stop(self._hub, self._hub.close)

    def _pack(self, data: Any, header: Header) -> Packet:
        return pack(data, header, self._hub.transport.traits.native_headers)

    def _post(self, verb: Callable[[Any, Packet], bool], to: str | Address, packet: Packet) -> None:
        while not verb(to, packet):
            self._portal.run(self._hub.transport.room, packet)


def _address(request: Envelope) -> Address:
    return Address(request.header.reply_to, request.header.id)
