"""What waits to be written to a broker: filled from any thread, written in bursts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from commlib._params import Offline
from commlib._parts import Frame
from commlib._session import Sink
from commlib._signals import may_be_interrupted
from commlib.exceptions import CommlibError, ConnectionLost, EndpointClosed
from commlib.transports.base import LinkStats

log = logging.getLogger("commlib.session")

MAX_BYTES = 4 * 1024 * 1024  # what may wait in an outbox while connected
FRAME_COST = 100  # bytes that a frame takes in memory besides its own
MOST_OF_OTHERS = 8  # times that a thread writes what others have brought, before it leaves the rest

Revise = Callable[[Frame, object], "Frame | None"]


def _messages(notes: Iterable[object]) -> int:
    """How many of them are messages; a question of ``confirm`` is none."""
    return sum(not isinstance(note, asyncio.Future) for note in notes)


class Outbox:
    """What waits to be written: filled from any thread, written in bursts.

    That is done on the loop, or by a thread that was just about to write.

    A signal may interrupt the main thread between any two steps, and its handler may wait for the
    loop, as ``stop()`` does. So what the main thread puts here beside a loop in another thread, it
    puts without the lock, in one step, and the loop takes it from there; or it ends with Ctrl-C.

    ``failure`` tells why no link will come, if none will; then ``put`` raises that. ``connecting``
    tells that the first attempt to connect is still under way: then a program that has just begun
    to publish waits, as with a full queue, rather than losing what is beyond the offline policy.
    """

    def __init__(
        self,
        name: str,
        offline: Offline,
        stats: LinkStats,
        failure: Callable[[], CommlibError | None],
        connecting: Callable[[], bool],
    ) -> None:
        self._failure = failure
        self._connecting = connecting
        self._name = name
        self._offline = offline
        self._stats = stats
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._main_thread: int | None = 0
        self._beside_loop: int | None = 0
        """The main thread, if the loop is in another one."""
        self._of_main: deque[tuple[Frame, object]] = deque()
        self._main_bytes = 0  # roughly: of those, without the lock
        self._is_amid_put = False  # the main thread
        self._link: Sink | None = None
        self._paused = False
        self._is_held = False  # only while paused
        # Re-entrant, because a signal handler may publish while the same thread is publishing.
        self._lock = threading.RLock()
        self._frames: deque[Frame] = deque()
        self._notes: deque[object] = deque()
        self._born: deque[float] = deque()  # beside _frames, only while offline or held
        self._bytes = 0
        self._wake_pending = False
        self._flushing = False
        self._writing = False  # by a thread that has left the lock for that
        self._revision: Revise | None = None
        self._is_unrevised = False
        """Whether what waits was in the hands of a thread when the last revision came."""
        self._overflowing = False
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []

    def put(
        self, frame: Frame, note: object, urgent: bool | None = False, more: bool = False
    ) -> bool:
        """Take a frame; False when there is no room. From any thread.

        ``urgent``: somebody waits for the answer; None: it must not be written before what the loop
        is about to write. ``more``: another one is about to come, so it may wait for that, or for
        ``let_go``.
        Raises ConnectionLost or AuthError as the offline policy says.
        """
        if threading.get_ident() == self._beside_loop:
            return self._put_of_main(frame, note, urgent)
        is_taken, is_news, must_wake = True, False, False
        may_write = is_queued = False
        with self._lock:
            if self._of_main:
                self._adopt()  # it was put before this: so it is written before
            link = self._link
            if link is None:
                is_taken = self._put_offline(frame, note)
                is_news = is_taken and self._drop_excess()
            else:
                is_busy = self._flushing or self._writing or (self._frames and self._wake_pending)
                may_write = not (is_busy or more or urgent is None or not link.may_be_now(urgent))
                if may_write and threading.get_ident() == self._main_thread:
                    if not self._frames and link.write_now(frame, note, bool(urgent)):
                        return True
                    may_write = False
                is_queued = not may_write or bool(self._frames)
                if is_queued:
                    size = self._bytes + len(frame) + FRAME_COST
                    if size > MAX_BYTES and self._bytes:
                        return False
                    self._bytes = size
                    self._frames.append(frame)
                    self._notes.append(note)
                if may_write:
                    self._writing = True
                elif not more:
                    must_wake = self._must_wake()
        if may_write and link is not None:
            return self._put_now(link, None if is_queued else frame, note, bool(urgent))
        if is_news:
            self._tell_of_excess()
        if must_wake:
            self._wake_loop()
        return is_taken

    def _put_of_main(self, frame: Frame, note: object, urgent: bool | None) -> bool:
        """As ``put``, by the main thread beside the loop."""
        is_in_handler, self._is_amid_put = self._is_amid_put, True
        try:
            link = self._link
            if link is None:
                if not self._may_wait(frame) or self._is_beyond_policy():
                    return False
            elif not self._of_main and self._write_of_main(link, frame, note, urgent):
                return True
            else:
                waiting = self._bytes + self._main_bytes
                if waiting and waiting + len(frame) + FRAME_COST > MAX_BYTES:
                    return False
            self._main_bytes += len(frame) + (FRAME_COST if link is not None else 0)
            self._of_main.append((frame, note))
            # Else the loop is about to come for those before; what was interrupted, perhaps not.
            if is_in_handler or len(self._of_main) <= 1:
                self._wake_loop()
            return True
        except BaseException:
            if self._of_main:  # Ctrl-C: perhaps the loop knows nothing of it
                with suppress(EndpointClosed):
                    self._wake_loop()
            raise
        finally:
            self._is_amid_put = is_in_handler

    def _is_beyond_policy(self) -> bool:
        """Whether the main thread has put here more than is kept; then it waits for the loop."""
        policy = self._offline
        return len(self._of_main) >= policy.max_messages or self._main_bytes > policy.max_bytes

    def _write_of_main(self, link: Sink, frame: Frame, note: object, urgent: bool | None) -> bool:
        """Write a frame in the main thread, if nothing waits, and no handler may come between."""
        # In this order: what the main thread has put before goes from each to the next.
        if self._of_main or self._frames or self._flushing or self._writing:
            return False
        if urgent is None or not link.may_be_now(urgent) or may_be_interrupted():
            return False
        return link.write_now(frame, note, urgent)

    def _adopt(self) -> bool:
        """Take what the main thread has put here; whether that was something. Under the lock."""
        of_main, frames, notes = self._of_main, self._frames, self._notes
        if not of_main:
            return False
        is_offline, before, size = self._link is None, len(frames), 0
        while of_main and not self._closed:
            frame, note = of_main[0]
            frames.append(frame)
            notes.append(note)
            size += len(frame)
            of_main.popleft()  # only now: it is always somewhere
        count = len(frames) - before
        self._bytes += size
        if is_offline:
            self._date()
        else:
            self._bytes += FRAME_COST * count
        while of_main:  # nobody will write it any more
            self._stats.expired += _messages(of_main.popleft()[1:])
        self._main_bytes = 0
        return True

    def let_go(self) -> None:
        """Write what waits because more was to come. From any thread."""
        may_write = must_wake = False
        with self._lock:
            link = self._link
            if link is not None and self._frames:
                is_busy = self._flushing or self._writing or self._wake_pending or self._paused
                is_other = threading.get_ident() not in (self._loop_thread, self._main_thread)
                if is_other and not is_busy:
                    may_write = self._writing = True
                else:
                    must_wake = self._must_wake()
        if may_write and link is not None:
            self._put_now(link, None, None, True)
        elif must_wake:
            self._wake_loop()

    def _must_wake(self) -> bool:
        """Whether the loop must be woken to write what waits; then that is noted. Under the lock.

        Who is writing now sees to it himself.
        """
        if self._wake_pending or self._writing:
            return False
        if self._paused:
            if self._is_held:
                self._date()
            return False
        self._wake_pending = True
        return True

    def _wake_loop(self) -> None:
        assert self._loop is not None, "the link has brought it"
        try:
            if threading.get_ident() == self._loop_thread:
                self._loop.call_soon(self._flush)
            else:
                self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:  # the loop is closed
            raise EndpointClosed(f"{self._name} was closed") from None

    def _put_now(self, link: Sink, frame: Frame | None, note: object, urgent: bool) -> bool:
        """Write a frame in this thread, None for what waits, and what others bring meanwhile.

        That is done without the lock. Python lets another thread run while this one is in the
        kernel, which would come to wait for the lock, and this one for the other. The main thread
        does not come here: a signal may interrupt it anywhere.
        """
        is_written = frame is None
        try:
            if frame is not None:
                is_written = link.write_now(frame, note, urgent)
            is_loop = threading.get_ident() == self._loop_thread  # which is about to write them
            for _ in range(MOST_OF_OTHERS if is_written and not is_loop else 0):
                if not self._write_of_others(link):
                    break
        finally:
            with self._lock:
                self._writing = False
                is_needed = self._link is not None and (self._frames or self._waiting)
                must_wake = bool(is_needed) and self._must_wake()
            if must_wake:
                self._wake_loop()
        if is_written:
            return True
        assert frame is not None, "what waits counts as written"
        return self.put(frame, note, None)

    def _write_of_others(self, link: Sink) -> bool:
        """Write what was put here while this thread was writing; whether that was something."""
        with self._lock:
            if not self._frames or self._link is not link or self._paused:
                return False
            frames, notes, size = self._frames, self._notes, self._bytes
            self._frames, self._notes, self._bytes = deque(), deque(), 0
            self._revision = None
        if link.write_all_now(frames, notes):
            return True
        with self._lock:
            self._is_unrevised = self._revision is not None
            if self._link is not None:
                self._frames.extendleft(reversed(frames))
                self._notes.extendleft(reversed(notes))
                self._bytes += size
                if self._is_held:
                    self._born.extendleft([time.monotonic()] * len(frames))
            elif not self._closed:
                self.put_back([*frames], [*notes], [time.monotonic()] * len(frames))
            else:
                self._stats.expired += _messages(notes)
        return False

    def _put_offline(self, frame: Frame, note: object) -> bool:
        if not self._may_wait(frame):
            return False
        self._frames.append(frame)
        self._notes.append(note)
        self._bytes += len(frame)
        self._born.append(time.monotonic())
        return True

    def _may_wait(self, frame: Frame) -> bool:
        """Whether the offline policy has a place for it, perhaps in that of an older one."""
        if self._closed:
            raise EndpointClosed(f"{self._name} was closed")
        failure = self._failure()
        if failure is not None:
            raise failure
        policy = self._offline
        if policy.policy == "wait":
            return False
        if policy.policy == "raise":
            raise ConnectionLost(
                f"{self._name} is away and offline='raise'; try again when it is connected, "
                "or use offline='buffer' or 'wait'"
            )
        count = len(self._frames) + len(self._of_main)
        size = self._bytes + self._main_bytes
        full = count >= policy.max_messages or (count and size + len(frame) > policy.max_bytes)
        return not (full and self._connecting())

    def _drop_excess(self) -> bool:
        """Drop what is beyond the offline policy; whether that is the first loss of the outage."""
        policy, dropped = self._offline, 0
        while self._frames and (
            len(self._frames) > policy.max_messages or self._bytes > policy.max_bytes
        ):
            self._drop_oldest()
            dropped += 1
        self._stats.overflow += dropped
        is_first = dropped > 0 and not self._overflowing
        self._overflowing |= is_first
        return is_first

    def _tell_of_excess(self) -> None:
        # Without the lock: a handler of the log may wait for one whose holder publishes.
        log.warning("%s is away for long: the oldest messages are dropped", self._name)

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._frames.popleft())
        self._notes.popleft()
        self._born.popleft()

    def _date(self) -> None:
        """Note that those have come now of which it is not known. Under the lock."""
        self._born.extend([time.monotonic()] * (len(self._frames) - len(self._born)))

    def _expire(self, stays: Callable[[object], bool] = lambda note: False) -> None:
        """Drop what is too old, unless its note ``stays``, and forget how old the rest is."""
        oldest = time.monotonic() - self._offline.max_age
        staying: list[tuple[Frame, object]] = []
        while self._born and self._born[0] < oldest:
            frame, note = self._frames[0], self._notes[0]
            self._drop_oldest()
            if stays(note):
                staying.append((frame, note))
            else:
                self._stats.expired += 1
        for frame, note in reversed(staying):
            self._frames.appendleft(frame)
            self._notes.appendleft(note)
        self._born.clear()

    def attend(self) -> None:
        """From here on this loop writes. On the loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._main_thread = threading.main_thread().ident
        is_beside = self._main_thread != self._loop_thread
        self._beside_loop = self._main_thread if is_beside else 0

    def set_link(self, link: Sink | None) -> None:
        """The link is there, or away (None). On the loop."""
        self.attend()
        with self._lock:
            self._adopt()
            self._link = link
            self._paused = False
            if link is None:
                # From here on the bound is that of the policy, in bytes on the wire.
                self._bytes = sum(map(len, self._frames))
                self._date()
            else:
                self._expire()
                self._overflowing = False
            self._is_held = False
        self._flush()
        if link is None:
            self.wake()  # what holds for them now is the offline policy

    def put_back(self, frames: list[Frame], notes: list[object], born: list[float]) -> None:
        """Take back what was written and did not arrive, before all that waits; the link is away.

        ``born`` tells when each was put here first, by the monotonic clock.
        """
        with self._lock:
            self._frames.extendleft(reversed(frames))
            self._notes.extendleft(reversed(notes))
            self._born.extendleft(reversed(born))
            self._bytes += sum(map(len, frames))

    def revise(self, revised: Revise) -> None:
        """Put other frames in the place of those that wait, or none where it gives None.

        On the loop. What was revised may be so again.
        """
        with self._lock:
            self._adopt()
            self._revision, self._is_unrevised = revised, False
            is_offline = self._link is None
            is_dated = is_offline or self._is_held
            if is_dated:
                self._date()
            born = self._born if is_dated else [0.0] * len(self._frames)
            waiting = list(zip(self._frames, self._notes, born, strict=True))
            self._frames, self._notes, self._born = deque(), deque(), deque()
            for frame, note, when in waiting:
                new = revised(frame, note)
                if new is not None:
                    self._frames.append(new)
                    self._notes.append(note)
                    if is_dated:
                        self._born.append(when)
            cost = 0 if is_offline else FRAME_COST
            self._bytes = sum(len(frame) + cost for frame in self._frames)

    async def confirm(self, question: bytes, closed: asyncio.Future[Any]) -> None:
        """Ask the broker something behind all that waits; return when it has answered.

        Raises ConnectionLost when ``closed`` comes first. On the loop.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # If nobody waits for it any more, nobody needs to know how it ends.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not self.put(question, answer):
            await self.room()
        await asyncio.wait([answer, closed], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionLost(f"{self._name} was lost")
        answer.result()

    def on_room(self, room: bool) -> None:
        """The socket is full (False), or has room again. On the loop."""
        self._paused = not room
        if room:
            self._flush()

    def hold(self) -> None:
        """The broker takes nothing for now: what waits grows old, as while the link is away.

        After ``on_room(False)``: a thread must not write any more. On the loop.
        """
        with self._lock:
            self._is_held = True
            self._date()

    def release(self, stays: Callable[[object], bool]) -> None:
        """The broker takes something again, but not what is too old for the offline policy.

        Whose note ``stays`` is sent however old it is. Before ``on_room(True)``. On the loop.
        """
        with self._lock:
            if not self._is_held:
                return
            self._adopt()
            self._date()
            self._expire(stays)
            self._is_held = False
            self._bytes = sum(len(frame) + FRAME_COST for frame in self._frames)

    def _flush(self) -> None:
        taken = None
        with self._lock:
            self._wake_pending = False
            is_news = self._adopt() and self._link is None and self._drop_excess()
            link = self._link
            if link is not None and not (self._paused or self._writing):
                taken = self._begin_flush()
            elif self._is_held:
                self._date()
        if is_news:
            self._tell_of_excess()
        if link is None or taken is None:
            return
        frames, notes = taken
        try:
            if frames:
                link.write(frames, notes)
        finally:
            self._flushing = False
        self.wake()

    def _begin_flush(self) -> tuple[deque[Frame], deque[object]]:
        """All that waits, to be written now. Under the lock."""
        if self._is_unrevised and self._revision is not None:
            self.revise(self._revision)
        self._flushing = True  # until these are written nobody may overtake them
        # In one go: a signal handler that publishes must not come between the two.
        frames, notes = self._frames, self._notes
        self._frames, self._notes = deque(), deque()
        self._bytes = 0
        return frames, notes

    def wake(self) -> None:
        """Let those who wait for room try again. On the loop."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def close(self) -> None:
        """Give up all that waits, and take nothing more. On the loop."""
        self._closed = True
        self.give_up()

    def give_up(self) -> None:
        """Give up all that waits, counted as expired, and tell it. On the loop."""
        with self._lock:
            self._adopt()
            given_up = _messages(self._notes)
            self._stats.expired += given_up
            self._frames.clear()
            self._notes.clear()
            self._born.clear()
            self._bytes = 0
        if given_up:
            what = "1 message was" if given_up == 1 else f"{given_up} messages were"
            log.warning("%s: %s never sent", self._name, what)
        self.wake()

    @property
    def empty(self) -> bool:
        """Whether nothing waits here. From any thread."""
        # In this order: a thread may put them back.
        return not (self._writing or self._of_main or self._frames)

    @property
    def is_written(self) -> bool:
        """Whether all that was put here is with the link. From any thread."""
        return self.empty and not self._flushing

    async def room(self) -> None:
        """Return when ``put`` may take something again. On the loop."""
        if self._closed or self._failure() is not None:
            return  # put() has the reason
        if self._link is None and self._offline.policy == "buffer" and not self._connecting():
            self._flush()  # there is room for the newest, when what the main thread put is here
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._link is not None and not self._paused:
            self._flush()
        try:
            await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
