"""What comes for lasting subscriptions on AMQP: handed over, and acknowledged.

A burst is acknowledged in one go when all of it was handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from commlib._packet import Packet
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import LASTING
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports.base import Handler


class Taker(Protocol):
    """A subscription, as its messages see it."""

    handler: Handler
    matches: Callable[[str], bool]
    kept: list[int] | None


K = TypeVar("K", bound=Taker)


class Receipts(Generic[K]):
    """All messages on the channel of one transport's lasting subscriptions.

    ``takers`` are those who are handed messages, by what the broker calls their consumers.
    """

    def __init__(self, reader: PropertyReader) -> None:
        self.takers: dict[bytes, K] = {}
        self._reader = reader
        self._link: AmqpLink | None = None
        self._channel: Channel | None = None
        self._keepers = 0  # takers that are kept
        self._taken: list[int] = []
        """What the broker calls the messages that are to be acknowledged."""
        # What has come before the link was announced: callbacks could not publish yet.
        self._early: list[tuple[int, tuple[Any, ...]]] | None = None

    def attach(self, link: AmqpLink) -> None:
        """There is a new link, which others do not know of yet."""
        self._link = link
        self._early = []

    def announce(self) -> None:
        """The link is there for everybody."""
        early, self._early = self._early or [], None
        if self._channel is not None:
            self._channel.on_arrival = self._take
        for life, arrival in early:
            if self._channel is not None and self._channel.life == life:  # else it comes again
                self._take(*arrival)

    def detach(self) -> None:
        """The link is away, and numbers count no more."""
        self._link = self._channel = None
        self._early = None
        self._taken.clear()

    def open(self, channel: Channel) -> None:
        """Take what comes on this channel."""
        self._channel = channel
        channel.on_arrival = self._take if self._early is None else self._hold

    def clear(self) -> None:
        """The channel was closed: the broker numbers anew, and sends the same again."""
        self._taken.clear()

    def keep(self, taker: K) -> None:
        """Leave with the broker what comes for this one from now on."""
        taker.kept = []
        self._keepers += 1

    def let_go(self, taker: K) -> bool:
        """Its consumer is no more; whether it was kept."""
        was_kept = taker.kept is not None
        self._keepers -= was_kept
        taker.kept = None
        return was_kept

    def _hold(self, *arrival: Any) -> None:
        assert self._early is not None, "the link was not announced yet"
        assert self._channel is not None, "it is the channel that brings this"
        self._early.append((self._channel.life, arrival))

    def _take(
        self,
        consumer: bytes,
        tag: int,
        again: bool,
        where: bytes,
        properties: bytes,
        payload: bytes,
    ) -> None:
        link, channel = self._link, self._channel
        assert link is not None, "it is the link that brings this"
        assert channel is not None, "and the channel"
        taker = self.takers.get(consumer)
        if taker is None:
            # Now, for what comes behind it may be acknowledged together with all before.
            link.write([methods.give_back(LASTING, tag)], [])
            return
        if taker.kept is not None:
            taker.kept.append(tag)
            return
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._acknowledge, channel, channel.life)
        self._taken.append(tag)
        name = methods.read_routing_key(where)
        if taker.matches(name):
            beside = self._reader.read(properties)
            packet = Packet(payload, name, beside.header, beside.ttl, redelivered=again)
            taker.handler(packet)

    def _acknowledge(self, channel: Channel, life: int) -> None:
        """All of a burst has been handed over."""
        if channel is not self._channel or channel.life != life or not channel.is_open:
            return  # the broker does not know it any more, and sends it again
        taken, self._taken = self._taken, []
        if not taken or self._link is None:
            return
        if self._keepers:  # the broker must not count in what they were sent
            self._link.write([methods.ack(LASTING, tag) for tag in taken], [])
        else:
            self._link.write([methods.ack_all(LASTING, taken[-1])], [])
