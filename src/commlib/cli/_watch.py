"""Listening to a topic or pattern below the messages: the packets, and what can be read of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from commlib._lanes import IterLane
from commlib._packet import Header, Packet
from commlib._wire import Refused
from commlib.aio import Node
from commlib.aio.pubsub import Receiver

TURN = 64  # messages in a row before others on the loop have theirs, Ctrl-C among them


class Heard(NamedTuple):
    """A message, in whatever form it came. ``error``: why its data cannot be read.

    Since the message before it, ``dropped`` found no room on this side; ``lost`` are missing in the
    numbers of its sender, and got lost elsewhere.
    """

    packet: Packet
    header: Header
    data: Any
    error: str = ""
    lost: int = 0
    dropped: int = 0


class Watch(Receiver[Any]):
    """Receives what is published on a topic or pattern, on the connection of a node.

    ``on_packet(packet)`` is called on the loop when a packet comes, and must be quick. Without it,
    iterate over ``messages()``.
    """

    def __init__(
        self, node: Node, topic: str, on_packet: Callable[[Packet], None] | None = None
    ) -> None:
        super().__init__(topic, on_packet, None, None, True, inline=True, hub=node.hub)

    def _handler(self) -> Callable[[Packet], Any]:
        return self.on_message or self.read

    async def _end(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        if isinstance(self._lane, IterLane):
            self._lane.forget()
        await super()._end()

    async def messages(self) -> AsyncIterator[Heard]:
        """The messages in the order of their coming, until it is stopped."""
        assert isinstance(self._lane, IterLane), "only without on_packet, while it runs"
        count = gaps = dropped = 0
        while (packet := await self._lane.next()) is not None:
            heard = self._hear(packet)
            lacking, unheard = self._stats.gaps - gaps, self._stats.dropped - dropped
            gaps, dropped = self._stats.gaps, self._stats.dropped
            # What was dropped here is missing in the numbers as well, if it has any.
            yield heard._replace(lost=max(0, lacking - unheard), dropped=unheard)
            count += 1
            if count % TURN == 0:
                await asyncio.sleep(0)

    def _hear(self, packet: Packet) -> Heard:
        try:
            envelope = self.read(packet)
        except Refused as exc:
            return Heard(packet, exc.header, None, str(exc))
        return Heard(packet, envelope.header, envelope.data)
