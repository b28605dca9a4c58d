"""Whether a service is there, asked through a bridge: it is if the one behind the bridge is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from os import urandom
from typing import Protocol

from commlib._packet import PROPERTIES, Header, Packet, now_ms
from commlib._wire import Reader, pack
from commlib.aio._hub import Hub
from commlib.aio._rpc_service import PRESENCE, presence_topic
from commlib.exceptions import CommlibError
from commlib.transports.base import Subscription

MAX_ASKED = 100  # questions that wait for an answer; who asks does so again and again


class Between(Protocol):
    """A bridge for calls."""

    to_uri: str
    source_place: str

    @property
    def sink(self) -> Hub: ...


class FarPresence:
    """Passes questions on to the sink of a bridge, and tells which of them are answered there.

    All methods are for the loop. ``on_present`` is given a question, ``on_error`` one that cannot
    be passed on.
    """

    def __init__(
        self,
        bridge: Between,
        on_present: Callable[[Packet], None],
        on_error: Callable[[Packet, BaseException], None],
    ) -> None:
        self._bridge = bridge
        self._on_present = on_present
        self._on_error = on_error
        self._answers = f"{PRESENCE}.{urandom(12).hex()}"
        self._tokens = count()
        self._asked: dict[str, tuple[Packet, Header]] = {}
        self._subscription: Subscription | None = None
        self._beginning: asyncio.Task[None] | None = None

    def ask(self, question: Packet, hops: tuple[str, ...]) -> None:
        """Pass a question on, which has come by way of ``hops``."""
        token = str(next(self._tokens))
        hops = (*hops, self._bridge.source_place)
        header = Header(now_ms(), PROPERTIES, reply_to=self._answers, id=token, hops=hops)
        if len(self._asked) >= MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[token] = question, header
        if self._subscription is not None:
            self._send(question, header)
        elif self._beginning is None:
            self._beginning = self._bridge.sink.spawn(self._begin(question))

    async def close(self) -> None:
        """Ask no more; it may begin anew after that."""
        beginning, self._beginning = self._beginning, None
        subscription, self._subscription = self._subscription, None
        self._asked.clear()
        if beginning is not None:
            beginning.cancel()
            await asyncio.wait([beginning])
        if subscription is not None:
            await subscription.close()

    async def _begin(self, question: Packet) -> None:
        transport = self._bridge.sink.transport
        try:
            self._subscription = await transport.subscribe(self._answers, self._take)
        except CommlibError as exc:
            self._on_error(question, exc)
            return
        for asked in list(self._asked.values()):
            self._send(*asked)

    def _send(self, question: Packet, header: Header) -> None:
        transport = self._bridge.sink.transport
        try:
            packet = pack({}, header, transport.traits.native_headers)
            transport.publish(presence_topic(self._bridge.to_uri), packet)
        except CommlibError as exc:
            self._on_error(question, exc)

    def _take(self, answer: Packet) -> None:
        limit = self._bridge.sink.params.max_payload
        try:
            header = Reader(None, always_wrapped=True, limit=limit).read(answer).header
        except CommlibError as exc:
            self._on_error(answer, exc)
            return
        asked = self._asked.pop(header.id, None)
        if asked is not None:
            self._on_present(asked[0])
