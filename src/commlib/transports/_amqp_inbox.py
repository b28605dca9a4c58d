"""Replies on AMQP.

A reply comes back through RabbitMQ's direct reply-to, a queue that is none: it is consumed on the
channel that the request is published on, without acknowledgement, and told by its correlation id.
Source: rabbitmq.com/direct-reply-to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from commlib._packet import Packet
from commlib.exceptions import AuthError, CommlibError, ConnectionLost, ServiceNotFound
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_codes import Refusal
from commlib.transports._amqp_envelopes import is_enveloped
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import CALLS
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports.base import Address, NotServedYet, ReplyHandler

DIRECT = "amq.rabbitmq.reply-to"
REPLY_TAG = "r"


class Inbox:
    """Return addresses: one queue that is none, and a correlation id for each call.

    ``is_settling`` says whether those who serve may be on their way back to the broker.
    """

    capacity = 10_000

    def __init__(
        self,
        reader: PropertyReader,
        handler: ReplyHandler,
        is_settling: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._handler = handler
        self._is_settling = is_settling
        self.open: set[str] = set()
        """The tokens of calls that a reply is wanted for."""
        self.wrapped: set[str] = set()
        """Those of them whose call was in an envelope, and whose reply will be."""
        self.sent: set[str] = set()
        """Those of them whose call was written to the broker on this link."""
        self._channel: Channel | None = None
        self._link: AmqpLink | None = None

    def address(self, token: str) -> Address:
        self.open.add(token)
        return Address(DIRECT, token)

    def release(self, token: str, *, unused: bool = False) -> None:
        self.open.discard(token)
        self.wrapped.discard(token)
        self.sent.discard(token)

    async def close(self) -> None:
        self.open.clear()
        self.wrapped.clear()
        if self._channel is not None:
            self._channel.cancel(REPLY_TAG)
            self._channel = None

    # The connection.

    async def restore(self, link: AmqpLink) -> None:
        """Consume on a new link. Raises AuthError, Refusal, ConnectionLost."""
        channel = self._channel = link.channel(CALLS)
        self._link = link
        channel.on_arrival = self._take
        channel.on_return = self._take_back
        channel.on_reset = self._reset
        await channel.ask(self._consume)

    _consume = methods.consume(CALLS, DIRECT, REPLY_TAG, methods.NO_ACK)

    def _reset(self, error: Refusal | AuthError) -> None:
        """The broker has closed the channel: no reply to what was sent will come."""
        if self._channel is None:
            return  # it was closed
        self._channel.ask(self._consume)
        self._fail(error if isinstance(error, AuthError) else ConnectionLost(str(error)))

    def detach(self) -> None:
        """The link is away, and with it the address of all that was asked on it."""
        self._channel = self._link = None
        self._fail(ConnectionLost("the connection was lost before the reply came"))

    def _fail(self, error: CommlibError) -> None:
        for token in list(self.sent):
            self.release(token)
            self._handler(token, error)

    # Replies.

    def _take(
        self,
        consumer: bytes,
        tag: int,
        again: bool,
        where: bytes,
        properties: bytes,
        payload: bytes,
    ) -> None:
        token, packet = self._read(properties, payload)
        if token not in self.open:
            self._handler(None, packet)
        elif self._handler(token, packet):
            self.release(token)

    def _read(self, properties: bytes, payload: bytes) -> tuple[str, Packet]:
        beside = self._reader.read(properties)
        token, header = beside.correlation_id, beside.header
        if token in self.wrapped and is_enveloped(payload, is_request=False):
            header = None
        return token, Packet(payload, "", header)

    def read(self, token: str, seconds: float) -> Packet | None:
        link = self._link
        if link is None:
            return None
        find = partial(self._find, link, token)
        return link.read_here(partial(self.open.__contains__, token), find, [], seconds)

    def _find(self, link: AmqpLink, token: str, data: bytes) -> Packet | None:
        came = link.messages_of(data, CALLS)
        if len(came) != 1:
            return None
        whose, packet = self._read(*came[0][-2:])
        return packet if whose == token else None

    def hand_on(self, token: str, following: str) -> Address:
        self.release(token)
        return self.address(following)

    def _take_back(self, queue: str, properties: bytes) -> None:
        """No queue of this name is there."""
        token = self._reader.read(properties).correlation_id
        if token in self.open:
            self.release(token)
            kind = NotServedYet if self._is_settling() else ServiceNotFound
            self._handler(token, kind(f"nobody serves {queue}, the broker says"))
