"""Signals that end what runs for ever on a loop, however many there are that do.

A loop can neither tell which handler the program has given it for a signal nor lay it aside. So
ours are those of the process, as ``signal.signal`` sets them, and what the program has on its loop
stays there, and hears the signal as well.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ending: dict[asyncio.AbstractEventLoop, set[asyncio.Event]] = {}
_former: dict[signal.Signals, Any] = {}
"""The handlers of the program, while ours are in their place."""


@contextmanager
def ended_by_signals(ending: asyncio.Event) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM set ``ending``; in the main thread, nowhere else.

    After the last one the handlers of the process are again those that were there before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    here = _ending.setdefault(loop, set())
    here.add(ending)
    # From here on a signal finds somebody to tell, and until there is nobody it finds our handler.
    if not _former:
        for number in SIGNALS:
            _former[number] = signal.signal(number, _end_all)
    try:
        yield
    finally:
        _forget_closed()
        if _ending in ({loop: {ending}}, {}):
            _give_back()
        here.discard(ending)
        if not here:
            _ending.pop(loop, None)


def _forget_closed() -> None:
    """Forget the loops that have ended without those on them."""
    for loop in [loop for loop in _ending if loop.is_closed()]:
        del _ending[loop]


def _end_all(number: int, frame: FrameType | None) -> None:
    _forget_closed()
    for loop in _ending:
        loop.call_soon_threadsafe(_end_all_on, loop)
    if not _ending:
        _give_back()
        signal.raise_signal(number)


def _end_all_on(loop: asyncio.AbstractEventLoop) -> None:
    for ending in _ending.get(loop, ()):
        ending.set()


def _give_back() -> None:
    for number, handler in _former.items():
        if signal.getsignal(number) is _end_all:  # else the program has set another one meanwhile
            signal.signal(number, _default(number) if _is_over(handler) else handler)
    _former.clear()


def _is_over(handler: Any) -> bool:
    """Whether it cannot be set, or is that of an ``asyncio.run`` that has done its work.

    That run would have taken it away itself, had it found it in its place.
    """
    task = getattr(handler, "keywords", {}).get("main_task")
    return handler is None or (isinstance(task, asyncio.Task) and task.done())


def _default(number: int) -> Any:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
