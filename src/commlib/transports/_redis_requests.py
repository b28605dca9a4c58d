"""The queues of services on Redis: lists, and those who take requests from them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from commlib._packet import Packet
from commlib.exceptions import CommlibError
from commlib.transports._redis_link import RedisLink
from commlib.transports._redis_pops import Popper, Wake
from commlib.transports.base import Handler

MAX_POPS = 16  # outstanding BLPOPs for requests; more bring nothing
REPLACED_AT_ONCE = 2  # BLPOPs that a thread sends as one, for each costs a system call
QUEUE_INIT = b"QueueInit"  # what released 0.13 pushes to create a list
SETTLE_SECONDS = 0.25  # how long a consumer that leaves waits for what was popped for it


class RequestConsumer:
    """One consumer of one list.

    ``credit`` is how many more requests it can take now, ``backlog`` how many of the next ones were
    waiting before it began.
    """

    reads_bursts = True

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
        self._loop_thread = threading.get_ident()

    @property
    def working(self) -> bool:
        return not self._pool.popper.is_banned(self.key)

    def done(self, packet: Packet) -> None:
        if threading.get_ident() == self._loop_thread:
            self._pool.give_back(self)
        else:
            self._pool.note_done(self)

    def read(self, is_wanted: Callable[[], bool], seconds: float, keep: bool) -> Sequence[Packet]:
        return self._pool.read(self, is_wanted, seconds, keep)

    def resume_reading(self) -> None:
        self._pool.resume_reading()

    def send_reader_away(self) -> None:
        self._pool.send_reader_away()

    def packet(self, payload: bytes) -> Packet:
        """The next request that has come. On the loop, or on a thread while that does not read."""
        waited = self.backlog > 0
        self.backlog -= waited
        return Packet(payload, self.queue, waited=waited)

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
        # Told by threads and yet to be counted, a consumer for each request:
        self._taken: deque[RequestConsumer] = deque()  # that is in the hands of its workers
        self._given_back: deque[RequestConsumer] = deque()  # that is worked off, but was counted
        self._is_kept = False
        """Who has read them keeps the turn to read: so they are not worked on for long."""
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
        self._count_news()
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
        self._change_credit(consumer, 1)

    def note_done(self, consumer: RequestConsumer) -> None:
        """The same on a thread. The loop is told when there is something to do for it."""
        try:
            self._taken.remove(consumer)
        except ValueError:
            self._given_back.append(consumer)
        popper = self.popper
        if consumer.credit > 0 and not popper.is_low:
            return
        is_deaf = popper.outstanding <= 0
        if not self._given_back:
            if self._taken:  # as many as are worked off then are popped for at once
                if self._is_kept or not is_deaf:
                    return
            elif (len(popper.read) < REPLACED_AT_ONCE and not is_deaf) or popper.replace():
                return
        popper.fill_soon()

    def _count_news(self) -> None:
        while self._taken:
            with suppress(IndexError):
                self._change_credit(self._taken.popleft(), -1)
        while self._given_back:
            self._change_credit(self._given_back.popleft(), 1)

    def _change_credit(self, consumer: RequestConsumer, change: int) -> None:
        consumer.credit += change
        if not consumer.closing:
            self._note_credit(consumer.key, change)

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
        self._count_news()
        if self._ready is None:
            self._ready = tuple(key for key, credit in self._free.items() if credit > 0)
        if not self._ready:
            return self._ready, 0
        depth = min([self._free[key] for key in self._ready])
        if len(self._ready) < len(self._free):
            depth = 1
        return self._ready, min(depth, MAX_POPS)

    def _take(self, key: bytes, payload: bytes) -> None:
        if payload == QUEUE_INIT:
            return
        self._count_news()
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
        self._change_credit(consumer, -1)
        consumer.handler(consumer.packet(payload))

    # On a thread that has nothing else to do.

    def read(
        self, consumer: RequestConsumer, is_wanted: Callable[[], bool], seconds: float, keep: bool
    ) -> Sequence[Packet]:
        """What comes next, read in this thread, if it is requests for this consumer alone.

        See ``ReadingConsumer``.
        """
        if self.popper.outstanding <= 0:
            self.popper.fill_soon()
        link = self.popper.link
        read = self.popper.read  # behind that: what is read there later, nobody reads here
        if link is None:
            return ()
        find = partial(self._find, link, read, consumer, keep)
        requests = link.read_here(is_wanted, find, [], seconds, keep)
        if not requests:
            return ()
        if self.popper.outstanding <= 0 and (self._room(consumer) > 0 or len(self._consumers) > 1):
            self.popper.fill_soon()  # what was read may be worked on for long
        return requests

    def _room(self, consumer: RequestConsumer) -> int:
        """The credit of a consumer, with what is yet to be counted."""
        change = self._given_back.count(consumer) - self._taken.count(consumer)
        return consumer.credit + change

    def _find(
        self,
        link: RedisLink,
        read: deque[bytes],
        consumer: RequestConsumer,
        keep: bool,
        data: bytes,
    ) -> list[Packet] | None:
        items = self.popper.items_of(link, consumer.key, data)
        if not items or QUEUE_INIT in items or len(items) > self._room(consumer):
            return None
        if consumer.closing or self._consumers.get(consumer.key) != [consumer]:
            return None  # who gets it is for the loop to say
        # In this order, or for a moment more could be asked for than there is credit.
        self._is_kept = keep
        self._taken.extend([consumer] * len(items))
        read.extend(items)
        return [consumer.packet(item) for item in items]

    def resume_reading(self) -> None:
        """A thread that was about to read on does not. From any thread."""
        self._is_kept = False
        if self.popper.is_low:
            self.popper.fill_soon()
        link = self.popper.link
        if link is not None:
            link.resume_reading()

    def send_reader_away(self) -> None:
        """A thread that waits in ``read`` returns. On the loop."""
        if self.popper.link is not None:
            self.popper.link.send_reader_away()
