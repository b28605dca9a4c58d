"""Who runs a callback, who does not wait for it, and which of its errors end whom."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from commlib._lanes import Lane

log = logging.getLogger("commlib.lanes")

callback_task: ContextVar[asyncio.Task[None] | None] = ContextVar("commlib_callback", default=None)
"""The task of the callback that this is done in, or on behalf of."""


class Turn:
    """A turn of one who works off a lane: callbacks are called within one, by ``worker``.

    That is a task, or the ident of a thread. There is no ``lane`` when it is over.
    """

    __slots__ = ("lane", "worker")

    def __init__(self, lane: Lane, worker: object) -> None:
        self.lane: Lane | None = lane
        self.worker = worker


current_turn: ContextVar[Turn | None] = ContextVar("commlib_turn", default=None)
"""The turn that this is done in; tasks that a callback has begun see it as well, and later."""


def turn_of_callback() -> Turn | None:
    """The turn of the callback that has called this; None in what a callback has merely begun."""
    turn = current_turn.get()
    if turn is None or turn.lane is None:
        return None
    return turn if turn.worker in (_current_task(), threading.get_ident()) else None


@contextmanager
def spared(turn: Turn | None) -> Iterator[None]:
    """While it lasts, who closes the lane does not wait for this callback, which waits here.

    On the loop; it changes nothing for a lane on another one.
    """
    lane = None if turn is None else turn.lane
    if turn is None or lane is None or turn in lane.spared or not lane.is_here():
        yield
        return
    lane.spared += (turn,)
    lane.note_left()
    try:
        yield
    finally:
        lane.spared = tuple(each for each in lane.spared if each is not turn)


loops_of_ours: set[asyncio.AbstractEventLoop] = set()
"""Those on which nobody cancels tasks to end them all but by ``end_tasks``."""
_ended: WeakSet[asyncio.Task[Any]] = WeakSet()
"""What ``end_tasks`` has cancelled."""


async def end_tasks(tasks: Collection[asyncio.Task[Any]], grace: float, name: str) -> None:
    """Cancel tasks and wait for their end, but no longer than ``grace`` seconds."""
    for task in tasks:
        _ended.add(task)
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=grace)
        for task in stubborn:
            log.warning("%s: did not end when it was cancelled: %r", name, task)


def is_for_program(error: BaseException) -> bool:
    """Whether it is Ctrl-C, which may come amid any callback on a loop in the main thread.

    All else that a plain function on the loop lets out is its own, and the loop has to go on.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and is_main


def is_end_of_task(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether this task is to end, and not only something cancelled that it has waited for.

    So it is with Ctrl-C, and where the coroutine is closed that was left behind by a loop: then
    ``task``, in which it was begun, is not the current one.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):
        return task is None or task is not _current_task()
    return is_for_program(error)


def is_cancelled_alone(error: BaseException | None, task: asyncio.Task[Any] | None) -> bool:
    """Whether an error that ends this task is that the program has cancelled it, as no other one.

    Else it is to end because something is stopped, or the whole loop.
    """
    if not isinstance(error, asyncio.CancelledError) or task is None or task in _ended:
        return False
    if asyncio.get_running_loop() in loops_of_ours:
        return True
    # At its end asyncio.run() cancels all tasks, and what is begun then is left behind.
    return any(other is not task and not other.cancelling() for other in asyncio.all_tasks())


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
