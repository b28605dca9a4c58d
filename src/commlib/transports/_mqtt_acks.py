"""When the kernel is asked to acknowledge what has come, which it would put off by 40 ms.

Many brokers (Mosquitto, as it comes) leave Nagle's algorithm on: the second of two small packets
waits for the acknowledgement of the first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

QUICKACK = getattr(socket, "TCP_QUICKACK", 0)  # Linux has it
PERIOD = 0.001  # s, of which each is judged by what was written before
MOST = 16  # that are asked for in a period: a busy connection has enough of them
TALK_SECONDS = 0.0005  # mean time between writes below which the next one acknowledges soon enough
NO_TALK_SECONDS = 0.1  # after one for which a packet had to wait


class Acks:
    """Decides when what comes on one connection is acknowledged. On the loop, but for ``writes``.

    What comes is acknowledged at once. Where much is written, as by many calls at a time, it is
    with what is written next: what the broker holds back until then comes as one, and is worked off
    as one. ``ask`` has the kernel acknowledge what has come; ``is_unsent`` tells whether something
    that was written has not left yet.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[], None],
        is_unsent: Callable[[], bool],
    ) -> None:
        self.writes = 0
        """How often something was written. Counted by who writes, one at a time."""
        self._loop = loop
        self._ask = ask
        self._is_unsent = is_unsent
        self._begun = self._no_talk_before = float("-inf")
        self._left = 0
        self._is_talk = False
        self._heard = 0.0
        self._writes_begun = 0
        """``writes`` when the period began, or at the last answer: who waits for one is silent."""
        self._writes_heard = 0
        """``writes`` when something came last."""

    def heard(self, now: float) -> None:
        """Something has come."""
        self._heard = now
        self._writes_heard = self.writes
        if now - self._begun > PERIOD:
            self._begin(now)
        if self._left:
            self._left -= 1
            self._ask()
            if not self._left:
                self._ask_later()

    def answered(self) -> None:
        """What has come answers what was written; perhaps nothing will be written for that."""
        self._writes_begun = self.writes

    def _begin(self, now: float) -> None:
        writes = self.writes - self._writes_begun
        is_much = writes * TALK_SECONDS > now - self._begun
        self._is_talk = is_much and now >= self._no_talk_before
        self._begun, self._writes_begun = now, self.writes
        self._left = 0 if self._is_talk else MOST
        if self._is_talk:
            self._ask_later()

    def _ask_later(self) -> None:
        """What comes in the rest of the period must not wait for long, either.

        Twice as long: uvloop's clock is exact to a millisecond, and what comes behind the one that
        asks would have none.
        """
        self._loop.call_later(2 * PERIOD, self._ask_for_rest)

    def _ask_for_rest(self) -> None:
        if self.writes != self._writes_heard and not self._is_unsent():
            return  # that has acknowledged it
        now = self._loop.time()
        if self._is_talk and now - self._heard > 1.5 * PERIOD:  # by uvloop's clock, too
            self._no_talk_before = now + NO_TALK_SECONDS
        self._ask()
