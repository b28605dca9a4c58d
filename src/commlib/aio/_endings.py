"""Signals that end what runs for ever on a loop, however many there are that do."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ending: dict[asyncio.AbstractEventLoop, set[asyncio.Event]] = {}
_former: dict[tuple[asyncio.AbstractEventLoop, signal.Signals], Any] = {}
"""What was there before a loop had its handler, as ``signal.getsignal`` tells."""


@contextmanager
def ended_by_signals(ending: asyncio.Event) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM set ``ending``; in the main thread, nowhere else.

    After the last one the handlers of ``signal.signal`` are those that were there before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    # The loop has one handler for a signal, so it is for all.
    if loop not in _ending:
        for number in SIGNALS:
            _former[loop, number] = signal.getsignal(number)
            loop.add_signal_handler(number, _end_all, loop)
        _ending[loop] = set()
    _ending[loop].add(ending)
    try:
        yield
    finally:
        _ending[loop].discard(ending)
        if not _ending[loop]:
            del _ending[loop]
            for number in SIGNALS:
                former, meanwhile = _former.pop((loop, number)), signal.getsignal(number)
                loop.remove_signal_handler(number)
                for handler in (former, meanwhile):
                    if not _is_of_loop(handler):
                        signal.signal(number, handler)


def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    for ending in _ending.get(loop, ()):
        ending.set()


def _is_of_loop(handler: Any) -> bool:
    """Whether it stands for one that a loop was given, and has let go for ours; or is no Python."""
    owner = getattr(handler, "__self__", None)
    is_of_asyncio = getattr(handler, "__module__", "") == "asyncio.unix_events"
    return handler is None or is_of_asyncio or isinstance(owner, asyncio.AbstractEventLoop)
