"""Where callbacks run: one lane per subscription, and the threads that work the lanes off.

A lane is a bounded queue that keeps the order of its messages. It is filled on the loop. Plain
functions are called by worker threads, coroutine functions by a task on the loop, and with
``inline=True`` a plain function is called on the loop, at once. A burst costs one hand-over: the
worker that takes a lane stays with it until the lane is empty.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, get_args

from msgspec import Struct

from commlib._packet import Packet
from commlib._records import about
from commlib._stats import Stats
from commlib._turns import (
    Turn,
    callback_task,
    current_turn,
    end_tasks,
    is_cancelled_alone,
    is_end_of_task,
    is_for_program,
)
from commlib._workers import Workers

log = logging.getLogger("commlib.lanes")

TURN = 1000  # messages of one lane before a worker looks whether another lane waits

Overflow = Literal["drop_oldest", "drop_newest", "latest"]


class Bounds(Struct, frozen=True):
    """How much may wait in a lane, and what is dropped beyond that.

    ``latest`` keeps nothing but the newest message. ``max_bytes`` counts payloads.
    """

    max_messages: int = 100_000
    max_bytes: int = 32 * 1024 * 1024
    overflow: Overflow = "drop_oldest"

    def __post_init__(self) -> None:
        if self.overflow not in get_args(Overflow):
            known = ", ".join(get_args(Overflow))
            raise ValueError(f"overflow={self.overflow!r}: it is one of {known}")
        for name in ("max_messages", "max_bytes"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= 1):
                raise ValueError(f"{name}={value!r}: room for at least 1 is needed")


BOUNDS = Bounds()
EMPTY: deque[Packet] = deque(maxlen=0)  # which is what nothing can be put into


class Lane:
    """A bounded queue of packets on their way to one callback.

    ``handle`` takes a packet and may raise; ``on_error`` is told with the packet. ``on_slow`` is
    told once when packets begin to be dropped. ``put`` is for the loop only. Subclasses say where
    ``handle`` runs.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Packet], Any],
        stats: Stats,
        on_error: Callable[[Packet, BaseException], None],
        *,
        bounds: Bounds | None = None,
        concurrency: int = 1,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.stats = stats
        self._handle = handle
        self._on_error = on_error
        self._on_slow = on_slow
        self._bounds = bounds = bounds or BOUNDS
        self._max_messages = 1 if bounds.overflow == "latest" else bounds.max_messages
        self._concurrency = concurrency
        self._places: list[None] = [None] * concurrency
        """One for each worker or task that may still join those who work this lane off."""
        self._queue = EMPTY
        """Of its own when the first packet comes: an empty one takes as much as all else here."""
        # Two counters instead of one, so that each has one writer: the loop, and the worker.
        self._bytes_in = self._bytes_out = 0
        self._overflowing = False
        self._closed: asyncio.Event | None = None
        self.spared: tuple[Turn, ...] = ()
        """Of those who work it off, who is not waited for: callbacks that stop something."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock() if concurrency > 1 else None

    @property
    def _active(self) -> int:
        """How many work it off."""
        return self._concurrency - len(self._places)

    @property
    def waiting(self) -> int:
        """How many packets wait for their callback."""
        return len(self._queue)

    def put(self, packet: Packet) -> None:
        """Queue a packet and see that somebody works it off."""
        if self._closed is not None:
            self.stats.dropped += 1
            return
        self.stats.received += 1
        if self._queue is EMPTY:
            self._queue = deque()
        self._queue.append(packet)
        self._bytes_in += len(packet.payload)
        if (
            self._overflowing
            or len(self._queue) > self._max_messages
            or self._bytes_in - self._bytes_out > self._bounds.max_bytes
        ):
            self._make_room()
        if self._places:
            self._take()

    def _make_room(self) -> None:
        drop_newest = self._bounds.overflow == "drop_newest"
        full = False
        while len(self._queue) > 1 and (
            len(self._queue) > self._max_messages
            or self._bytes_in - self._bytes_out > self._bounds.max_bytes
        ):
            full = True
            try:
                packet = self._queue.pop() if drop_newest else self._queue.popleft()
            except IndexError:
                break  # the worker was quicker
            self._bytes_in -= len(packet.payload)
            self.stats.dropped += 1
        is_news = full and not self._overflowing and self._bounds.overflow != "latest"
        # The episode lasts until the callback has caught up by half.
        self._overflowing = full or (
            self._overflowing
            and (
                len(self._queue) > self._max_messages // 2
                or self._bytes_in - self._bytes_out > self._bounds.max_bytes // 2
            )
        )
        if is_news:
            log.warning(
                "%s: the callback is too slow, messages are dropped (%s)",
                *(self.name, self._bounds.overflow),
                extra=about(self.name),
            )
            self._on_slow()

    def _take(self) -> None:
        raise NotImplementedError

    def _pop(self) -> Packet | None:
        if self._lock is None:
            return self._pop_alone()
        with self._lock:
            return self._pop_alone()

    def _pop_alone(self) -> Packet | None:
        if not self._queue:
            return None
        try:
            packet = self._queue.popleft()
        except IndexError:  # it was dropped meanwhile, to make room
            return None
        self._bytes_out += len(packet.payload)
        return packet

    def is_here(self) -> bool:
        """Whether this is its loop."""
        return self._loop is asyncio.get_running_loop()

    def note_left(self) -> None:
        """The last of those who worked on a closed lane turns off the light. On the loop."""
        if self._closed is not None and self._active <= len(self.spared):
            self._closed.set()

    def _note_unfinished(self) -> None:
        """A callback has not ended in the time that it was given."""
        log.warning("%s: stopped while its callback was running", self.name)

    async def close(self, grace: float) -> list[Packet]:
        """Take nothing more, work off what is there, up to ``grace`` seconds; what is left then."""
        if self._closed is None:
            self._closed = asyncio.Event()
        if self._active > len(self.spared):
            try:
                async with asyncio.timeout(grace):
                    await self._closed.wait()
            except TimeoutError:
                self._note_unfinished()
        left = []
        while (packet := self._pop()) is not None:
            left.append(packet)
        if left:
            self.stats.dropped += len(left)
            text = "%s: %d messages were still waiting when it was stopped"
            log.warning(text, self.name, len(left), extra=about(self.name))
        return left


class ThreadLane(Lane):
    """Calls a plain function on worker threads."""

    def __init__(self, workers: Workers, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._workers = workers

    def _take(self) -> None:
        if self._join():
            self._workers.serve(self)

    def _join(self) -> bool:
        """Whether one more worker may work here; then its place is taken."""
        try:
            self._places.pop()
        except IndexError:
            return False
        return True

    async def close(self, grace: float) -> list[Packet]:
        if self._queue:
            self._take()  # a worker who is just about to leave has perhaps not seen it yet
        return await super().close(grace)

    def work(self) -> None:
        """Work the lane off. On a worker thread."""
        turn = Turn(self, threading.get_ident())
        current_turn.set(turn)
        pop, handle = self._pop, self._handle
        try:
            while True:
                for _ in range(TURN):
                    packet = pop()
                    if packet is None:
                        self._give_back()
                        return
                    try:
                        result = handle(packet)
                        if result is not None:
                            refuse_coroutine(result)
                    except BaseException as exc:  # SystemExit too: no callback ends a worker
                        self._on_error(packet, exc)
                if self._workers.all_taken:
                    self._workers.serve_again(self)
                    return
        finally:
            turn.lane = None

    def _give_back(self) -> None:
        self._places.append(None)
        # Between the last pop and here the loop may have queued a packet and seen us at work.
        if self._queue:
            if self._join():
                self._workers.serve_again(self)
        elif self._closed is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
                self._loop.call_soon_threadsafe(self.note_left)


class LoopLane(Lane):
    """Awaits a coroutine function on the loop: one task per burst, not per message."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tasks: set[asyncio.Task[None]] = set()

    def _take(self) -> None:
        self._places.pop()
        task = asyncio.get_running_loop().create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        task = asyncio.current_task()
        turn = Turn(self, task)
        current_turn.set(turn)
        callback_task.set(task)
        goes_on = False
        try:
            while (packet := self._pop_alone()) is not None:
                try:
                    await self._handle(packet)
                except BaseException as exc:
                    is_end = is_end_of_task(exc, task)
                    goes_on = is_end and is_cancelled_alone(exc, task)
                    if goes_on or not is_end:
                        self._on_error(packet, exc)
                    if is_end:
                        raise
        finally:
            turn.lane = None
            self._places.append(None)
            if goes_on and self._queue:
                self._take()  # in a new task; else what waits would do so until more comes
            self.note_left()

    def _note_unfinished(self) -> None:
        log.debug("%s: its callback is cancelled", self.name)

    async def close(self, grace: float) -> list[Packet]:
        left = await super().close(grace)
        # A callback that stops its own subscription goes on after that.
        spared = {callback_task.get(), *(turn.worker for turn in self.spared)}
        tasks = {task for task in self._tasks if task not in spared}
        await end_tasks(tasks, grace, self.name)
        return left


class InlineLane(Lane):
    """Calls a quick plain function on the loop, at once."""

    def put(self, packet: Packet) -> None:
        if self._closed is not None:
            self.stats.dropped += 1
            return
        self.stats.received += 1
        try:
            result = self._handle(packet)
            if result is not None:
                refuse_coroutine(result)
        except BaseException as exc:
            if is_for_program(exc):
                raise
            self._on_error(packet, exc)


class IterLane(Lane):
    """Keeps the packets until somebody asks for the next one; nothing is called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._news = asyncio.Event()

    def _take(self) -> None:
        self._news.set()

    async def next(self) -> Packet | None:
        """The next packet, None when the lane is closed; each goes to one of those who ask."""
        while not self._queue and self._closed is None:
            self._news.clear()
            await self._news.wait()
        return self._pop_alone()

    def forget(self) -> None:
        """Drop what waits, without a word: whoever asked for it has seen enough."""
        while self._pop_alone() is not None:
            pass

    async def close(self, grace: float) -> list[Packet]:
        left = await super().close(grace)
        self._take()
        return left


def is_async(callback: Any) -> bool:
    """Whether calling it makes a coroutine."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(type(callback), "__call__", None)  # noqa: B004 - an object with async __call__
    )


def refuse_coroutine(result: object) -> None:
    """Raises TypeError if a plain function has returned a coroutine, which nobody would await."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            "the callback is a plain function that has returned a coroutine; make it async def"
        )


def make_lane(
    workers: Workers, callback: Any, inline: bool, name: str, *args: Any, **kwargs: Any
) -> Lane:
    """The lane for this kind of callback; the rest are the arguments of ``Lane``. On the loop."""
    if callback is None:
        return IterLane(name, *args, **kwargs)
    if is_async(callback):
        return LoopLane(name, *args, **kwargs)
    if inline:
        return InlineLane(name, *args, **kwargs)
    return ThreadLane(workers, name, *args, **kwargs)
