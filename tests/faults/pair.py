"""Two nodes that publish and call while something fails, and count what becomes of it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from collected import BUSY_SECONDS, Collected, eventually
from commlib.exceptions import ConnectionLost, RPCTimeout
from commlib.node import Node

UNANSWERED = RPCTimeout, ConnectionLost
CALL_SECONDS = 0.5
CALLERS = 4


class Pair:
    """Two nodes at ``url``; while ``busy``, one publishes every ``pause`` and calls all the time.

    ``far_url`` is for that one, if it goes another way. ``timeout`` is that of its calls (s).
    """

    def __init__(
        self, url: str, far_url: str = "", *, pause: float = 0.001, timeout: float = CALL_SECONDS
    ) -> None:
        name = os.urandom(4).hex()  # zombies of an earlier pair may still be at the broker
        self.got = Collected()
        self.handled = Collected()
        self.sent = 0
        self.answered = 0
        self.unanswered = 0
        self.wrong: list[object] = []
        self.slowest_call = 0.0
        """By how much the slowest one was later than its timeout, in seconds."""
        self._pause = pause
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self.base = Node("base", connection_params=url)
        self.far = Node("far", connection_params=far_url or url)
        self.subscriber = self.base.create_subscriber(f"numbers.{name}", self.got)
        self.base.create_rpc(f"double.{name}", self._double)
        self.publisher = self.far.create_publisher(f"numbers.{name}")
        self.client = self.far.create_rpc_client(f"double.{name}")

    def _double(self, request: Any) -> Any:
        self.handled(request)
        return 2 * request

    @property
    def connected(self) -> bool:
        return self.base.connected and self.far.connected

    @property
    def lost(self) -> int:
        """How many were published and have not come."""
        return self.sent - len(self.got.items)

    @property
    def duplicated(self) -> int:
        """How many messages or requests came more than once."""
        return sum(len(came) - len(set(came)) for came in (self.got.items, self.handled.items))

    def publish(self) -> int:
        """Publish the next number, only ever from one thread at a time."""
        self.sent += 1
        self.publisher.publish(self.sent)
        return self.sent

    @contextmanager
    def busy(self) -> Iterator[None]:
        done = threading.Event()

        def publish_for_ever() -> None:
            while not done.wait(self._pause):
                self.publish()

        def call_for_ever() -> None:
            while not done.is_set():
                self.call()

        threads = [threading.Thread(target=publish_for_ever)]
        threads += [threading.Thread(target=call_for_ever) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def call(self, timeout: float | None = None) -> bool:
        """Whether it is answered; a wrong answer is kept."""
        timeout = timeout or self._timeout
        number = next(self._numbers)
        begun = time.monotonic()
        try:
            answer = self.client.call(number, timeout=timeout)
        except UNANSWERED:
            self.unanswered += 1
            return False
        finally:
            late = time.monotonic() - begun - timeout
            self.slowest_call = max(self.slowest_call, late)
        if answer != 2 * number:
            self.wrong.append((number, answer))
        self.answered += 1
        return True

    def works_again(self) -> None:
        """While it is busy: return when a call is answered, and a message of now has come."""
        mark, answered = self.sent, self.answered
        eventually(
            lambda: self.answered > answered and (self.got.items or [0])[-1] > mark,
            lambda: f"{self.answered - answered} answers, {self.got.items[-3:]} after {mark}",
        )

    def check(self) -> None:
        """All works; nothing was wrong or came twice, and what is missing is counted."""
        with self.busy():
            self.works_again()
        stats = self.subscriber.stats
        eventually(lambda: self.lost == stats.gaps, lambda: f"{self.lost} lost, {stats}")
        assert self.wrong == []
        assert self.duplicated == 0
        assert self.got.items == sorted(self.got.items)
        assert self.slowest_call < BUSY_SECONDS, "a call lasted longer than its timeout"

    def __enter__(self) -> Self:
        self.base.run()
        self.far.run()
        self.publish()  # gaps are counted from the first one on
        self.got.wait(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.far.stop()
        self.base.stop()
