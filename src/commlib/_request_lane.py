"""The lanes of services that are plain functions."""

from __future__ import annotations

from collections import deque
from typing import Any

from commlib._lanes import ThreadLane
from commlib._packet import Packet
from commlib.transports.base import HoldingTransport

QUICK_SECONDS = 0.0001  # that a quick handler takes; to wake one more worker costs about as much
QUICK_CALLS = 32  # that have to be quick in a row
PATIENCE = 0.005  # s between looks whether a worker that is left alone gets on
MOST_HELD = 8  # replies that wait for those of the requests behind them


class RequestLane(ThreadLane):
    """Calls a plain function with requests. They come on credit, so there are no bounds to heed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue = deque()

    def put(self, packet: Packet) -> None:
        if self._closed is not None:
            self.stats.dropped += 1
            return
        self.stats.received += 1
        self._queue.append(packet)
        if self._places:
            self._take()

    def _pop(self) -> Packet | None:
        try:
            return self._queue.popleft() if self._queue else None
        except IndexError:  # another worker was quicker
            return None


class HoldingLane(RequestLane):
    """The same on a broker to which many replies go as one.

    To wake a worker costs more than a quick function does, and several are in each other's way, for
    Python runs one of them at a time. So the one that is at work is left alone with what comes, as
    long as the calls before were quick. It need not send each reply by itself, either, if further
    requests wait: see ``may_hold``. Looks are taken meanwhile whether it gets on. If not, what it
    holds is sent, and the others join.
    """

    def __init__(self, transport: HoldingTransport, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hold = transport.hold
        self._let_go = transport.let_go
        self._quick_calls = 0
        self._called = 0  # roughly: workers count without a lock
        self._is_watched = False
        self._held = 0  # in a row
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
        if self._called != called:
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
            self._let_go()

    # What the function's caller says, on a worker.

    def note_call(self, seconds: float) -> None:
        """The function has taken so long."""
        self._called += 1
        self._quick_calls = self._quick_calls + 1 if seconds < QUICK_SECONDS else 0

    def may_hold(self) -> bool:
        """Whether a reply may wait for that of a further request; if so, say ``note_held`` then."""
        if not (self._is_watched and self._queue) or self._held >= MOST_HELD:
            self._held = 0
            return False
        self._held += 1
        return True

    def note_held(self) -> None:
        """A reply waits. It was put there before: a look may be taken between the two."""
        self._must_let_go = True
