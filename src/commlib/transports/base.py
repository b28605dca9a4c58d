"""The seven verbs: what a broker must be able to do, and all that a pattern asks of it.

A transport is any class of this shape; it need not import anything from here. It never sees a
message class, a user's callback or the timeout of a call. Everything runs on the event loop that
called ``connect``, except ``publish`` and ``send``, which any thread may call, and what says so
itself.

For a transport of your own there is more here: ``BaseParameters``, from which its parameters
derive; ``Packet``; ``matcher(pattern)``, the function that tells whether a name matches; and
``TopicInbox``. One that derives from ``Transport`` has the methods that many brokers need nothing
for: ``flush``, ``clock`` and ``abandon``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import urandom
from typing import Protocol, Self, runtime_checkable

from msgspec import Struct

from commlib._packet import Packet as Packet
from commlib._params import BaseParameters as BaseParameters
from commlib._topics import MAX_NAME_BYTES
from commlib._topics import matcher as matcher
from commlib.exceptions import CommlibError, ServiceNotFound

Handler = Callable[[Packet], None]
"""Takes one packet, on the loop; quick, never raises."""


class Traits(Struct, frozen=True):
    """What a kind of broker can do, asked for instead of its name.

    ``native_headers``: it carries headers beside the payload. ``stores_unread``: a queue keeps
    what nobody consumes. ``competing``: several consumers of a queue share its packets.
    ``native_wildcards``: characters of its own pattern language that pass through.
    ``never_in_names``: those of them that no name may hold, and a pattern as whole words only.
    ``separator``: the one that it splits topics at; empty where it does not matter.
    ``header_beside_bare``: a header can travel beside a payload that is the bare data.
    ``delivery_levels``: the QoS that a packet can have. ``retained``: it can keep the last packet
    of a topic for those who subscribe later. ``lasting``: it keeps what comes for a subscription
    while the connection is away, as these parameters ask for; see ``LastingTransport``.
    ``longest_name``: the most bytes that a name can have. ``takes_parts``: what is published may
    have a long payload in ``_parts.Parts`` instead of bytes. ``tells_time``: ``clock()`` is the
    broker's own, elsewhere it is this machine's.
    """

    native_headers: bool = False
    stores_unread: bool = False
    competing: bool = True
    native_wildcards: str = ""
    never_in_names: str = ""
    separator: str = ""
    header_beside_bare: bool = False
    delivery_levels: tuple[int, ...] = (0,)
    retained: bool = False
    lasting: bool = False
    longest_name: int = MAX_NAME_BYTES
    takes_parts: bool = False
    tells_time: bool = False


@dataclass(slots=True)
class LinkStats:
    """Counters of the connection, shared by all endpoints that use it.

    Lost on the way: ``unconfirmed`` (written, but the connection broke before the broker's word),
    ``refused`` (the broker said no), ``overflow`` and ``expired`` (dropped by the offline policy).
    ``garbage``: frames that made no sense.
    """

    unconfirmed: int = 0
    refused: int = 0
    overflow: int = 0
    expired: int = 0
    garbage: int = 0
    reconnects: int = 0


class Address(Struct, frozen=True, gc=False):
    """Where a reply shall go; ``correlation_id`` where the broker needs one to tell replies.

    ``request`` is what the reply answers: a broker that wants to know when it is worked off can be
    told with the reply.
    """

    reply_to: str
    correlation_id: str = ""
    request: Packet | None = None


class Subscription(Protocol):
    """An active subscription."""

    @property
    def working(self) -> bool:
        """False while the broker refuses it, or has not answered yet."""
        ...

    async def close(self) -> None:
        """End it; no packet is handed over after that. Idempotent."""


@runtime_checkable
class LastingSubscription(Subscription, Protocol):
    """An active subscription that can outlive its connection.

    ``close`` ends it at the broker, too, unless ``keep`` was called before.
    """

    def keep(self) -> None:
        """From now on the broker keeps what comes: ``close`` will leave it there. Idempotent.

        What the broker sends from here on may be handed over or left with it, but it must not be
        lost, unless others go on with the connection.
        """


class Consumer(Protocol):
    """An active consumer of a queue."""

    @property
    def working(self) -> bool:
        """False while the broker refuses to hand anything over from this queue, as above."""
        ...

    def done(self, packet: Packet) -> None:
        """One packet was worked off: another may be taken. From any thread."""

    async def close(self) -> None:
        """Take no more; returns when nothing is on its way to this consumer. Idempotent."""


@runtime_checkable
class ReadingConsumer(Consumer, Protocol):
    """What a consumer may have beside that if a thread can read the next packets itself."""

    reads_bursts: bool
    """Whether a thread reads several packets that come at once; else only what comes alone."""

    def read(self, is_wanted: Callable[[], bool], seconds: float, keep: bool) -> Sequence[Packet]:
        """Wait for what comes next, if it is packets for this consumer; the handler is not told.

        From any thread but the loop's. Nothing: they are handed over as always, or somebody else
        reads, or time is up, or the thread was sent away. ``is_wanted`` is asked when it is this
        thread's turn to read: what came before that was handed over. Who ``keep``s the turn has
        none but himself read until he comes again, or calls ``resume_reading``, within
        milliseconds: the connection is deaf until then.
        """
        ...

    def resume_reading(self) -> None:
        """Let others read, if the turn was kept. From any thread."""

    def send_reader_away(self) -> None:
        """A thread that waits in ``read`` has something else to do. On the loop."""


class Inbox(Protocol):
    """Private return addresses. A reply is told by the address at which it arrives."""

    capacity: int
    """How many addresses can be in use at once."""

    def address(self, token: str) -> Address:
        """An address whose reply will be handed over with this token."""
        ...

    def release(self, token: str, *, unused: bool = False) -> None:
        """No reply is wanted any more: one that still comes reaches nobody.

        ``unused``: none can come, the address was never told to anybody.
        """

    async def close(self) -> None:
        """Give all addresses back; leaves nothing on the broker. Idempotent."""


@runtime_checkable
class ReadingInbox(Inbox, Protocol):
    """What an inbox may have beside that if a thread can read the reply to its call itself.

    From any thread but the loop's.
    """

    def read(self, token: str, seconds: float) -> Packet | None:
        """Wait for what comes next to the address of the only call that is under way.

        None: the handler is told, or time is up. The address stays in use.
        """
        ...

    def hand_on(self, token: str, following: str) -> Address | None:
        """An address for a call to come, in the place of this one, which has its reply.

        None: it was released meanwhile.
        """
        ...


CallOutcome = Packet | CommlibError
"""How a call ends."""

ReplyHandler = Callable[[str | None, CallOutcome], bool]
"""Takes a reply and its token, None for one that came too late; on the loop, never raises.

Instead of a reply it may be what the broker has said: that none will come, and why.
False: it was not the reply to this call but a second one to a former call; the address stays in
use.
"""


class NotServedYet(ServiceNotFound):
    """What a handler of replies is told of a request that has reached nobody, and may yet.

    It is sent again in a moment. Never told to a program.
    """


StateHandler = Callable[[bool, Exception | None], None]
"""Told that the connection is there (True), or away and why; on the loop, never raises."""


class Transport(Protocol):
    """A broker, as seven verbs."""

    traits: Traits
    stats: LinkStats
    on_state: StateHandler
    on_refused: Callable[[str, Exception], None]
    """Told that the broker refused a packet, with its topic or queue; on the loop."""

    @property
    def connected(self) -> bool:
        """Whether all connections that were opened so far are there."""
        ...

    async def connect(self) -> None:
        """Return when the broker can be used; goes on trying until then.

        Raises AuthError when the broker says no, ConnectError if it is not to try again.
        """

    async def close(self) -> None:
        """Flush within a second, or a few as long as bytes leave, and leave. Idempotent.

        No handler runs after it.
        """

    def publish(self, topic: str, packet: Packet) -> bool:
        """Give a copy to every live subscriber; order is kept per caller and topic.

        False: there is no room now, nothing was taken, ``await room()`` and do it again.
        From any thread. Raises ConnectionLost where the offline policy says so.
        """
        ...

    async def subscribe(self, topic: str, handler: Handler) -> Subscription:
        """Hand over what is published on a topic or pattern; active on return."""
        ...

    def send(self, to: str | Address, packet: Packet) -> bool:
        """Give a packet to exactly one consumer of a queue, or a reply to its address.

        Otherwise as ``publish``.
        """
        ...

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> Consumer:
        """Take packets from a queue, at most ``prefetch`` that are not done yet.

        Where ``stores_unread`` the transport says of each packet whether it is ``waited``, on the
        broker before this consumer was: a service drops such requests of released clients, which
        name no deadline, when they are old. ``redelivered`` is one that was handed over before.
        """
        ...

    async def open_inbox(self, handler: ReplyHandler) -> Inbox:
        """Open return addresses for calls."""
        ...

    async def room(self, packet: Packet) -> None:
        """Return when ``publish`` and ``send`` have room again for such a packet."""

    async def flush(self) -> None:
        """Return when the broker has confirmed all that was published so far."""

    def clock(self) -> int:
        """The broker's time in ms since 1970, as well as it is known; else this machine's."""
        return int(time.time() * 1000)

    def abandon(self) -> None:
        """After a fork, in the child: let go of the sockets without a word to the broker."""


@runtime_checkable
class LastingTransport(Protocol):
    """What a transport has beside the seven verbs if its trait ``lasting`` is set."""

    async def subscribe_lasting(self, topic: str, handler: Handler) -> LastingSubscription:
        """As ``subscribe``; and what is published while this program is away comes when it is back.

        It is the same subscription as long as the parameters and the topic are the same. If it is
        given up before the broker has said yes, by cancellation too, the broker goes on keeping
        what it has.
        """
        ...


@runtime_checkable
class HoldingTransport(Transport, Protocol):
    """What a transport may have beside the seven verbs if replies are quicker sent many at once."""

    def hold(self, to: Address, packet: Packet) -> bool:
        """As ``send``, of a reply that may wait until further ones follow it. From any thread.

        It leaves with the next that is sent. A service whose next reply does not come calls
        ``let_go``, within milliseconds.
        """
        ...

    def let_go(self) -> None:
        """Send what waits by ``hold``. From any thread."""


@runtime_checkable
class BlockableTransport(Transport, Protocol):
    """What a transport has beside the seven verbs if its broker may take nothing for a while."""

    @property
    def is_blocked(self) -> bool:
        """Whether the connection is there and the broker takes no messages now."""
        ...


@runtime_checkable
class WithdrawingTransport(Transport, Protocol):
    """What a transport may have beside the seven verbs if its queues keep what nobody consumes."""

    def withdraw(self, to: str, packet: Packet) -> None:
        """Take a packet back that was sent to a queue, if it is there yet: nobody wants it now."""


class TopicInbox:
    """An inbox for a broker on which one subscription takes all replies.

    An address is a topic of two words, the first of which nobody else knows; so a reply is
    published, and each ``send`` to an ``Address`` has to do that.
    """

    capacity = 10_000
    _subscription: Subscription

    def __init__(self, handler: ReplyHandler) -> None:
        self._handler = handler
        self._prefix = f"rpc-{urandom(12).hex()}/"
        self._tokens: set[str] = set()

    @classmethod
    async def open(cls, transport: Transport, handler: ReplyHandler) -> Self:
        """A new one, subscribed to its topics: what ``open_inbox`` has to return."""
        inbox = cls(handler)
        inbox._subscription = await transport.subscribe(f"{inbox._prefix}*", inbox._take)
        return inbox

    def address(self, token: str) -> Address:
        self._tokens.add(token)
        return Address(self._prefix + token)

    def release(self, token: str, *, unused: bool = False) -> None:
        self._tokens.discard(token)

    def _take(self, packet: Packet) -> None:
        token = packet.topic.removeprefix(self._prefix)
        if token not in self._tokens:
            self._handler(None, packet)
        elif self._handler(token, packet):
            self._tokens.discard(token)

    async def close(self) -> None:
        await self._subscription.close()
