"""The threads that work lanes off."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol
from weakref import WeakSet

from commlib._courtesy import Courtesy

log = logging.getLogger("commlib.lanes")

MAX_WORKERS = 64
FEW = 4  # workers that are started whenever a lane is ready and nobody is idle
IDLE_SECONDS = 10.0  # an idle worker ends after that
PATIENCE = 0.01  # s between looks whether they get on; Python's threads take turns every 5 ms
QUICK = 100  # lanes that a worker gets through in that time if their callbacks are quick


class Work(Protocol):
    """What a worker can be given: a lane, or a single call."""

    name: str

    def work(self) -> None:
        """Do it; never raises."""


class Source(Protocol):
    """Where a worker with nothing else to do waits for what comes, to read it itself."""

    def send_reader_away(self) -> None:
        """There is something else to do. On the loop."""


class Workers:
    """Threads that serve lanes, no more of them than it takes.

    A few are started whenever a lane is ready and nobody is idle. When lanes wait nevertheless, a
    look is taken some milliseconds later: workers that get on quickly are left to it, as with a
    burst for thousands of lanes; if their callbacks block, or last, more are started.

    Lanes wait in line without a lock. A worker says that it is idle before it looks at the line
    for the last time, and who puts a lane there looks for the idle after that: so one of the two
    sees the other.
    """

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where looks are taken; no other will do, for it may end, or be blocked, before that."""
        self.courtesy: Courtesy | None = None
        """Of that loop, if it has a thread to itself."""
        self._name = name
        self._line: deque[Work] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()
        """One for each idle worker that was woken."""
        self._lock = threading.Lock()
        self._idle = 0  # workers that nobody has woken yet
        self._threads: set[threading.Thread] = set()
        self.sources: set[Source] = set()
        """Where workers wait who are not idle, but can be called away."""
        self._alone: WeakSet[threading.Thread] = WeakSet()
        """The threads of ``serve_alone``; those that have ended are forgotten by themselves."""
        self._done = 0  # lanes that were served, roughly: workers count without a lock
        self._is_watched = False
        self._closed = False
        self._warned = False
        self.starved = 0
        """How often a lane had to wait because all workers were taken."""

    @property
    def count(self) -> int:
        return len(self._threads)

    @property
    def all_taken(self) -> bool:
        """Whether a lane is waiting for a worker."""
        return bool(self._line)

    @property
    def busy(self) -> bool:
        """Whether something is being worked off, or waits for it. From any thread."""
        with self._lock:
            if self._line or self._idle + len(self.sources) < len(self._threads):
                return True
        return any(thread.is_alive() for thread in list(self._alone))

    def serve(self, lane: Work) -> None:
        """Have a worker work the lane off."""
        self._line.append(lane)
        if self._idle:
            self._wake()
            return
        if self.sources:
            self._send_readers_away_soon()
        if not (self._is_watched and self._threads):  # they may all have ended meanwhile
            self._see_to(lane)

    def serve_again(self, lane: Work) -> None:
        """Put a lane at the end of the line. On a worker, who is about to take the next one."""
        self._line.append(lane)

    def _wake(self) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._calls.put(None)

    def _send_readers_away_soon(self) -> None:
        """Have a worker that waits for what may come next look at the line, as an idle one does.

        It looks there before it begins to wait, and behind the word that it does.
        """
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self.loop.call_soon_threadsafe(self._send_readers_away)

    def _send_readers_away(self) -> None:
        for source in tuple(self.sources):
            source.send_reader_away()

    def _see_to(self, lane: Work) -> None:
        """Nobody is idle: start one more worker, or see soon whether that is needed."""
        with self._lock:
            is_enough = len(self._threads) >= FEW or self.sources
            if is_enough and self._watch(lane):
                return
            threads = self._hire(1)
        if not self._start(threads):
            self._note_starvation(lane, 1)

    def _watch(self, lane: Work) -> bool:
        """Have a look soon whether the lanes in line get on. Under the lock.

        False elsewhere than on the loop, where that cannot be.
        """
        loop = self.loop
        if loop is None or asyncio._get_running_loop() is not loop:
            return False
        loop.call_later(PATIENCE, self._look, lane, self._done)
        self._is_watched = True
        return True

    def _look(self, lane: Work, done_before: int) -> None:
        """Start more workers if lanes wait and those who are there do not get on with them."""
        with self._lock:
            self._is_watched = False
            waiting, done = len(self._line), self._done - done_before
            if not waiting or self._closed:
                return
            workers = len(self._threads)
            if done <= 0 or not workers:
                wanted = min(waiting, max(1, workers))
            else:
                wanted = int(done < QUICK * workers)
            threads = self._hire(wanted)
        started = self._start(threads)
        if started < wanted:
            self._note_starvation(lane, wanted - started)  # at the limit: who comes next looks
        else:
            with self._lock:
                self._watch(lane)

    def _hire(self, wanted: int) -> list[threading.Thread]:
        """More workers, yet to be started, as many as there is room for. Under the lock."""
        threads = [
            threading.Thread(target=self._work, name=f"{self._name}-worker", daemon=True)
            for _ in range(min(wanted, MAX_WORKERS - len(self._threads)))
        ]
        self._threads.update(threads)
        return threads

    def _start(self, threads: list[threading.Thread]) -> int:
        """Let them begin; how many have."""
        for number, thread in enumerate(threads):
            try:
                thread.start()
            except RuntimeError:  # the system has no more of them, or the program is ending
                with self._lock:
                    self._threads.difference_update(threads[number:])
                return number
        return len(threads)

    def serve_alone(self, work: Work) -> threading.Thread:
        """Have a thread of its own do what may last, and end with it. On the loop.

        Raises RuntimeError when the system has no more threads, or the program is ending.
        """
        thread = threading.Thread(
            target=self._work_alone, args=(work,), name=f"{work.name}-worker", daemon=True
        )
        thread.start()
        self._alone.add(thread)
        return thread

    def _work_alone(self, work: Work) -> None:
        if self.courtesy is not None:
            self.courtesy.end_here()
        work.work()

    def give_up(self, thread: threading.Thread) -> None:
        """Nobody shall wait for this thread of ``serve_alone`` any more. On the loop."""
        self._alone.discard(thread)

    def _note_starvation(self, lane: Work, count: int) -> None:
        with self._lock:
            self.starved += count
            is_first, self._warned = not self._warned, True
            workers = len(self._threads)
        if is_first:  # without the lock: the program's handlers may take locks of their own
            log.warning(
                "all %d workers of %s are busy; %s waits. Callbacks that block for long are "
                "better 'async def'",
                *(workers, self._name, lane.name),
            )

    def _work(self) -> None:
        if self.courtesy is not None:
            self.courtesy.end_here()
        line = self._line
        while True:
            try:
                lane = line.popleft()
            except IndexError:
                if not self._rest():
                    return
            else:
                lane.work()
                self._done += 1

    def _rest(self) -> bool:
        """Wait until there is something to do; False when it is time to end."""
        with self._lock:
            if self._closed:
                self._threads.discard(threading.current_thread())
                return False
            self._idle += 1
        if self._line:
            self._wake()
        while True:
            try:
                self._calls.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if not self._calls.empty():
                        continue
                    self._idle -= 1
                    if self._line:  # who put it there has seen us idle, and wakes nobody now
                        return True
                    self._threads.discard(threading.current_thread())
                    return False
            else:
                return True

    def close(self) -> list[threading.Thread]:
        """Let every worker end as soon as it has finished what it is doing; final.

        Returns the threads, for somebody who may wait to join.
        """
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle -= 1
                self._calls.put(None)
            return [*self._threads, *self._alone]
