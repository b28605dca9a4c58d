"""What tests wait with: a callback that keeps what it is given, and looks at counters."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

DEADLINE = 15.0
"""Seconds after which a test gives up; far more than anything here takes."""
BUSY_SECONDS = 3.0
"""What a busy machine may add to a time that is promised."""


class Collected:
    """A callback that keeps its argument, or the tuple of them if there are several."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, *args: Any) -> None:
        with self._changed:
            self.items.append(args[0] if len(args) == 1 else args)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        """All that came, as soon as it is ``count`` at least."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.items) >= count, DEADLINE)
            assert len(self.items) >= count, f"{len(self.items)} of {count}: {self.items[-3:]}"
            return list(self.items)

    def until(self, last: Any) -> list[Any]:
        """All that came before ``last``, as soon as that has come."""
        with self._changed:
            self._changed.wait_for(lambda: last in self.items, DEADLINE)
            assert last in self.items, f"{last!r} did not come: {self.items[-3:]}"
            return self.items[: self.items.index(last)]

    @property
    def first(self) -> Any:
        """The first thing that comes."""
        return self.wait(1)[0]


@contextmanager
def interruptible() -> Iterator[None]:
    """While Python's collector does not run: what it calls swallows Ctrl-C, and complains of it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def eventually(holds: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds that nobody tells of, such as the state of a counter."""
    deadline = time.monotonic() + DEADLINE
    look = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, what()
        look.wait(0.002)


async def met(holds: Callable[[], bool]) -> None:
    """``eventually`` on a loop, which goes on meanwhile."""
    look = asyncio.Event()
    async with asyncio.timeout(DEADLINE):
        while not holds():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    await look.wait()
