"""The lanes of services that are plain functions.

To hand one request to a worker, the loop needs a turn of its own, and the worker has to be woken.
Where requests come one by one, a worker that has nothing else to do reads the next one itself, if
the transport can do that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar

from commlib._lanes import ThreadLane
from commlib._packet import Packet
from commlib._workers import IDLE_SECONDS
from commlib.transports.base import Address, HoldingTransport, ReadingConsumer

T = TypeVar("T")
R = TypeVar("R")

QUICK_SECONDS = 0.0001  # that a quick function takes; to wake one more worker takes about as long
QUICK_CALLS = 32  # in a row, so that a function that blocks now and then is not taken for quick
PATIENCE = 0.005  # s between looks whether a worker gets on; Python's threads take turns every 5 ms
ALONE = 4  # requests in a row that come one by one: so will the next
MOST_HELD = 8  # replies that leave as one; with more the callers would have to wait


class RequestLane(ThreadLane):
    """Calls a plain function with requests. They come on credit, so there are no bounds to heed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue = deque()
        self._courtesy = self._workers.courtesy
        self._source: ReadingConsumer | None = None
        self._alone = 0
        """So many requests in a row have found nobody at work."""

    def read_from(self, source: ReadingConsumer) -> None:
        """Have a worker that has nothing else to do read the next request itself."""
        self._source = source

    def put(self, packet: Packet) -> None:
        if self._closed is not None:
            self.stats.dropped += 1
            return
        self.stats.received += 1
        self._queue.append(packet)
        if self._courtesy is not None:
            self._courtesy.note()
        if self._source is not None:
            self._heed_reader(self._source)
        if self._places:
            self._take()

    def _heed_reader(self, source: ReadingConsumer) -> None:
        """A request has come by the loop: whether the next may be read, and nobody reads now."""
        if not self._active:
            self._alone += 1
            return
        self._alone = 0
        if source in self._workers.sources:
            source.send_reader_away()

    def _pop(self) -> Packet | None:
        if not self._queue:
            return self._read()
        try:
            return self._queue.popleft()
        except IndexError:  # another worker was quicker
            return None

    def _read(self) -> Packet | None:
        """Wait for the next request; None: it comes by way of the loop. On a worker."""
        source, sources = self._source, self._workers.sources
        if source is None or self._alone < ALONE or self._active > 1:
            return None
        sources.add(source)
        try:
            packet = source.read(self._has_nothing, IDLE_SECONDS)
        finally:
            sources.discard(source)
        if packet is None:
            self._alone = 0
        else:
            self.stats.received += 1
        return packet

    def _has_nothing(self) -> bool:
        """Whether nothing is to be done, here or elsewhere, but to wait."""
        return self._source is not None and not (self._queue or self._workers.all_taken)

    async def close(self, grace: float) -> list[Packet]:
        source, self._source = self._source, None
        if source is not None:
            source.send_reader_away()
        return await super().close(grace)


class HoldingLane(RequestLane):
    """The same on a broker to which many replies go as one.

    To wake a worker costs more than a quick function does, and several are in each other's way, for
    Python runs one of them at a time. So the one that is at work is left alone with what comes, as
    long as the calls before were quick. It need not send each reply by itself, either, if further
    requests wait; with ``concurrency=1`` it does. Looks are taken meanwhile whether it gets on, and
    is still quick. If not, what it holds is sent, and the others join.
    """

    def __init__(self, transport: HoldingTransport, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transport = transport
        self._quick_calls = 0
        self._called = 0  # roughly: workers count without a lock
        self._is_watched = False
        self._held = 0  # since one was sent
        self._must_let_go = False

    def _take(self) -> None:
        if self._quick_calls < QUICK_CALLS or len(self._places) == self._concurrency:
            super()._take()
        elif not self._is_watched:
            self._watch()

    def _watch(self) -> None:
        self._is_watched = True
        self._loop.call_later(PATIENCE, self._look, self._called)

    def _look(self, called: int) -> None:
        self._is_watched = False
        self._send_held()
        if not self._queue:
            return
        if self._called != called and self._quick_calls >= QUICK_CALLS:
            self._watch()
            return
        self._quick_calls = 0
        for _ in range(min(len(self._queue), len(self._places))):
            self._take()

    def _pop(self) -> Packet | None:
        packet = super()._pop()
        if self._must_let_go and (packet is None or not self._is_watched):
            self._send_held()
        return packet

    def _send_held(self) -> None:
        if self._must_let_go:
            self._must_let_go = False
            with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
                self.transport.let_go()

    # What is done on a worker.

    def call(self, function: Callable[[T], R], argument: T) -> R:
        """Call the function of the service, and heed how long it takes."""
        begun = perf_counter()
        try:
            return function(argument)
        finally:
            is_quick = perf_counter() - begun < QUICK_SECONDS
            self._quick_calls = self._quick_calls + 1 if is_quick else 0
            self._called += 1

    def send(self, to: Address, packet: Packet) -> bool:
        """As that of a transport, of a reply; it is held while further requests wait."""
        is_left_alone = self._is_watched and self._quick_calls >= QUICK_CALLS
        if not (is_left_alone and self._queue) or self._held >= MOST_HELD:
            self._held = 0
            return self.transport.send(to, packet)
        self._held += 1
        is_taken = self.transport.hold(to, packet)
        self._must_let_go = True  # behind that: a look may be taken between the two
        return is_taken
