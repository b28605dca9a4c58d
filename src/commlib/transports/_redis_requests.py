"""The queues of services on Redis: lists, and those who take requests from them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from commlib._packet import Packet
from commlib.exceptions import CommlibError
from commlib.transports._redis_pops import Popper, Wake
from commlib.transports.base import Handler

MAX_POPS = 16  # outstanding BLPOPs for requests; more bring nothing
SETTLE_SECONDS = 0.25  # how long a consumer that leaves waits for what was popped for it


class RequestConsumer:
    """One consumer of one list.

    ``credit`` is how many more requests it can take now, ``backlog`` how many of the next ones were
    waiting before it began.
    """

    def __init__(
        self, pool: RequestLists, queue: str, handler: Handler, prefetch: int, backlog: int
    ) -> None:
        self.queue = queue
        self.key = queue.encode()
        self.handler = handler
        self.credit = prefetch
        self.backlog = backlog
        self.closing = False
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()

    @property
    def working(self) -> bool:
        return not self._pool.popper.is_banned(self.key)

    def done(self, packet: Packet) -> None:
        if threading.get_ident() == self._loop_thread:
            self._pool.give_back(self)
        else:
            self._loop.call_soon_threadsafe(self._pool.give_back, self)

    async def close(self) -> None:
        await self._pool.remove(self)


class RequestLists:
    """The consumers of one transport, on one link.

    A list is only popped while one of its consumers has credit, so that another process can serve
    what this one has no worker for. ``put_back`` takes what was popped for nobody, and says whether
    it could; if not, and with True as its last argument, that is a loss.
    """

    def __init__(
        self,
        keepalive: float,
        wake: Wake,
        put_back: Callable[[bytes, bytes, bool], bool],
        on_refused: Callable[[CommlibError], None],
    ) -> None:
        self.popper = Popper(keepalive, wake, self._plan, self._take, on_refused)
        self._put_back = put_back
        self.unsettled = False
        """Whether the server has not answered when a consumer left."""
        self._consumers: dict[bytes, list[RequestConsumer]] = {}
        self._free: dict[bytes, int] = {}  # the credit of each list
        self._ready: tuple[bytes, ...] | None = None  # those with credit; None: look again

    def __len__(self) -> int:
        """How many lists have consumers."""
        return len(self._consumers)

    def __contains__(self, queue: str) -> bool:
        return queue.encode() in self._consumers

    def add(self, queue: str, handler: Handler, prefetch: int, backlog: int) -> RequestConsumer:
        consumer = RequestConsumer(self, queue, handler, prefetch, backlog)
        self._consumers.setdefault(queue.encode(), []).append(consumer)
        self._note_credit(queue.encode(), prefetch)
        return consumer

    async def remove(self, consumer: RequestConsumer) -> None:
        """Stop a consumer; what the server has popped for it meanwhile is still handed over."""
        if consumer.closing:
            return
        key = consumer.key
        consumer.closing = True
        self._note_credit(key, -consumer.credit)
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.popper.settle()
        except TimeoutError:
            self.unsettled = True  # the server hangs, or the link; what still comes is put back
        finally:
            self._forget(consumer)

    def _forget(self, consumer: RequestConsumer) -> None:
        key = consumer.key
        rest = [c for c in self._consumers.get(key, ()) if c is not consumer]
        if rest:
            self._consumers[key] = rest
        else:
            self._consumers.pop(key, None)
            self._free.pop(key, None)
            self._ready = None
            self.popper.forget(key)

    def give_back(self, consumer: RequestConsumer) -> None:
        """The consumer has worked one request off."""
        consumer.credit += 1
        if not consumer.closing:
            self._note_credit(consumer.key, 1)

    def _note_credit(self, key: bytes, change: int) -> None:
        before = self._free.get(key, 0)
        after = self._free[key] = before + change
        crossed = (before > 0) != (after > 0)
        if crossed:
            self._ready = None
        if crossed or change > 0:
            self.popper.refill(urgent=crossed)

    def _plan(self) -> tuple[tuple[bytes, ...], int]:
        """The lists with a free consumer.

        Never more at once than the scarcest of them can take, and only one while another list is
        out of the set: it will want to come back soon, and that costs a wake-up for each.
        """
        if self._ready is None:
            self._ready = tuple(key for key, credit in self._free.items() if credit > 0)
        if not self._ready:
            return self._ready, 0
        depth = min([self._free[key] for key in self._ready])
        if len(self._ready) < len(self._free):
            depth = 1
        return self._ready, min(depth, MAX_POPS)

    def _take(self, key: bytes, payload: bytes) -> None:
        if payload == b"QueueInit":
            return  # released 0.13 pushes it to create the list
        consumers = self._consumers.get(key)
        if consumers is None:
            self._put_back(key, payload, True)
            return
        consumer = consumers[0]
        if len(consumers) > 1:
            # One that leaves comes last, but before one that has no room for what was its due.
            consumer = max(consumers, key=lambda c: (c.credit > 0, not c.closing, c.credit))
        if consumer.credit <= 0 and self._put_back(key, payload, False):
            return  # it was popped for one that has left meanwhile
        consumer.credit -= 1
        if not consumer.closing:
            self._note_credit(key, -1)
        waited = consumer.backlog > 0
        consumer.backlog -= waited
        consumer.handler(Packet(payload, consumer.queue, waited=waited))
