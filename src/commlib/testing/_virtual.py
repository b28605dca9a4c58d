"""An event loop on which waiting takes no time.

When nothing is left to do but to wait for a timer, the loop's clock jumps to it. It does so only if
nobody else can have a say before: while a worker thread is at a callback, something was handed to
an executor, or a node lives on another loop, time passes as it does elsewhere.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from commlib.aio._hub import Hub, copied, hubs

T = TypeVar("T")

LOOK_SECONDS = 0.001  # between looks whether the threads have finished, who tell nobody


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop for tests, on which an hour of sleeping is over at once.

    It is the ``loop_factory`` that test frameworks and ``asyncio.Runner`` take. ``time()`` is that
    of the loop, and jumps; so timers, ``asyncio.sleep`` and ``asyncio.timeout``, signs of life,
    the timeouts of calls and goals, and leases go by it. What goes by the machine's clock goes on
    doing so: ``time.time()`` and the timestamps of messages, ``commlib.timer.Timer``, ``max_rate``
    and the ``max_age`` of the offline policy.
    """

    ahead = 0.0
    """How many seconds it has jumped so far."""

    def __init__(self) -> None:
        self._handed_out = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return super().time() + self.ahead

    def run_in_executor(  # type: ignore[override] # the base class says it with a TypeVarTuple
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self._handed_out += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._take_back)
        return future

    def _take_back(self, future: asyncio.Future[Any]) -> None:
        self._handed_out -= 1

    @property
    def waits_for_others(self) -> bool:
        """Whether a thread, or another loop, may give this one something to do."""
        return self._handed_out > 0 or any(self._is_active(hub) for hub in copied(hubs))

    def _is_active(self, hub: Hub) -> bool:
        if hub.loop is self:
            return hub.workers.busy
        return hub.loop is not None and not hub.loop.is_closed()


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for sockets as any other, but lets the loop jump where it would wait for a timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        # The threads first: one that has finished by then has left word of it, seen just below.
        waits = timeout != 0 and self._loop.waits_for_others
        found = super().select(0)
        if found or timeout == 0:
            return found
        if waits:
            return super().select(LOOK_SECONDS if timeout is None else min(timeout, LOOK_SECONDS))
        if timeout is None:
            return super().select(None)
        self._loop.ahead += timeout
        return found


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run``, on a ``VirtualLoop``."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
