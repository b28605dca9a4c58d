"""Signals that end what runs for ever on a loop, however many there are that do."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ending: dict[asyncio.AbstractEventLoop, set[asyncio.Event]] = {}


@contextmanager
def ended_by_signals(ending: asyncio.Event) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM set ``ending``; in the main thread, nowhere else."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    # The loop has one handler for a signal, so it is for all.
    if loop not in _ending:
        for number in SIGNALS:
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
                loop.remove_signal_handler(number)


def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    for ending in _ending.get(loop, ()):
        ending.set()
