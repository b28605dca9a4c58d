"""The lanes of services that are plain functions.

To hand one request to a worker, the loop needs a turn of its own, and the worker has to be woken.
Where requests come one by one, or the function is quick, a worker that has nothing else to do reads
what comes next itself, if the transport can do that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
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
PROVEN = 4  # requests in a row that one worker is enough for: so it will be for the next
MOST_HELD = 8  # replies that leave as one; with more the callers would have to wait


class RequestLane(ThreadLane):
    """Calls a plain function with requests. They come on credit, so there are no bounds to heed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue = deque()
        self._courtesy = self._workers.courtesy

    def put(self, packet: Packet) -> None:
        if self._closed is not None:
            self.stats.dropped += 1
            return
        self.stats.received += 1
        self._queue.append(packet)
        if self._courtesy is not None:
            self._courtesy.note()
        if self._places:
            self._take()

    def _pop(self) -> Packet | None:
        if not self._queue:
            return None
        try:
            return self._queue.popleft()
        except IndexError:  # another worker was quicker
            return None


class HoldingLane(RequestLane):
    """The same on a broker to which many replies go as one, and from which a thread may read.

    To wake a worker costs more than a quick function does, and several are in each other's way, for
    Python runs one of them at a time. So the one that is at work is left alone with what comes, as
    long as the calls before were quick. It need not send each reply by itself, either, if further
    requests wait; with ``concurrency=1`` it does. And it keeps the turn to read, so that the loop
    is not woken for what comes meanwhile. Looks are taken whether it gets on, and is still quick.
    If not, what it holds is sent, the loop reads again, and the others join.
    """

    def __init__(self, transport: HoldingTransport, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transport = transport
        self._quick_calls = 0
        self._called = 0  # roughly: workers count without a lock
        self._is_watched = False
        """Looks are taken, or begin with the next turn of the loop."""
        self._next_look: asyncio.TimerHandle | None = None
        self._held = 0  # since one was sent
        self._must_let_go = False
        self._source: ReadingConsumer | None = None
        self._kept: ReadingConsumer | None = None
        """Where a worker has kept the turn to read."""
        self._in_row = 0
        """So many requests in a row have found nobody at work, or one who is quick."""
        self._lone = PROVEN
        """So many were read alone since several were read at once."""

    def read_from(self, source: ReadingConsumer) -> None:
        """Have a worker that has nothing else to do read the next request itself."""
        self._source = source

    @property
    def _is_left_alone(self) -> bool:
        """Whether a worker is enough for all that comes."""
        return self._quick_calls >= QUICK_CALLS

    def put(self, packet: Packet) -> None:
        source = self._source
        if source is not None:
            is_enough = not self._active or (source.reads_bursts and self._is_left_alone)
            self._in_row = self._in_row + 1 if is_enough else 0
        super().put(packet)
        if source in self._workers.sources:  # behind that: who begins to read now has seen it
            source.send_reader_away()

    def _take(self) -> None:
        if not self._is_left_alone or len(self._places) == self._concurrency:
            super()._take()
        else:
            self._watch()

    # Looks.

    def _watch(self) -> None:
        if self._next_look is None:
            self._is_watched = True
            self._next_look = self._loop.call_later(PATIENCE, self._look, self._called)

    def _watch_soon(self) -> None:
        """The same by a worker."""
        if not self._is_watched:
            self._is_watched = True
            with suppress(RuntimeError):  # the loop is closed: nobody is held up any more
                self._loop.call_soon_threadsafe(self._watch)

    def _look(self, called: int) -> None:
        self._next_look = None
        self._is_watched = False  # before the rest: who does something now sees that, or is seen
        self._send_held()
        is_needed = self._queue or self._kept is not None
        if is_needed and self._called != called and self._is_left_alone:
            self._watch()
            return
        self._resume_reading()
        if self._queue:
            self._quick_calls = 0
            for _ in range(min(len(self._queue), len(self._places))):
                self._take()

    # What is done on a worker.

    def work(self) -> None:
        try:
            super().work()
        finally:
            self._resume_reading()

    def _pop(self) -> Packet | None:
        packet = super()._pop()
        if self._must_let_go and (packet is None or not self._is_watched):
            self._send_held()
        return self._read() if packet is None else packet

    def _read(self) -> Packet | None:
        """Wait for the next request; None: it comes by way of the loop."""
        source, sources = self._source, self._workers.sources
        if source is None or self._in_row < PROVEN or self._active > 1:
            return None
        keep = self._is_watched and self._is_left_alone and self._lone < PROVEN
        sources.add(source)
        try:
            packets = source.read(self._has_nothing, IDLE_SECONDS, keep)
        finally:
            sources.discard(source)
        if not packets:
            self._in_row = 0
            return None
        self.stats.received += len(packets)
        self._lone += 1
        if len(packets) > 1:
            self._lone = 0
            self._share(packets[1:])
        self._kept = source if keep else None
        if not self._is_watched or self._source is None:
            self._resume_reading()
        return packets[0]

    def _has_nothing(self) -> bool:
        """Whether nothing is to be done, here or elsewhere, but to wait."""
        return self._source is not None and not (self._queue or self._workers.all_taken)

    def _share(self, packets: Sequence[Packet]) -> None:
        """Further requests have come with one: see to it that they are not held up by it."""
        self._queue.extend(packets)
        if self._is_left_alone:
            self._watch_soon()
            return
        self._in_row = 0
        for _ in range(min(len(self._queue), len(self._places))):
            ThreadLane._take(self)

    def _resume_reading(self) -> None:
        kept = self._kept
        if kept is not None:  # a worker may note one meanwhile, and sees to that himself
            self._kept = None
            kept.resume_reading()

    def _send_held(self) -> None:
        if self._must_let_go:
            self._must_let_go = False
            with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
                self.transport.let_go()

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
        is_left_alone = self._is_watched and self._is_left_alone
        if not (is_left_alone and self._queue) or self._held >= MOST_HELD:
            self._held = 0
            return self.transport.send(to, packet)
        self._held += 1
        is_taken = self.transport.hold(to, packet)
        self._must_let_go = True  # behind that: a look may be taken between the two
        return is_taken

    async def close(self, grace: float) -> list[Packet]:
        source, self._source = self._source, None
        if source is not None:
            source.send_reader_away()
        self._resume_reading()
        return await super().close(grace)
