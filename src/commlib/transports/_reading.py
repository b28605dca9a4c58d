"""Whose turn it is to read from a socket: the event loop's, or that of a thread that waits.

To read one small reply, or request, the loop needs a turn of its own and has to wake the thread
that waits for it. A thread that has nothing else to wait for reads it itself, with half the work.
What comes and is not for it, it leaves to the loop, in the order in which it came.

Ctrl-C may end what the main thread does between any two steps of it. So a turn is taken, and bytes
are received and taken, in one step of the interpreter each, which leaves its result where everybody
finds it; and to give a turn back twice does no harm. Where a signal has a handler of the program's
own, which may itself wait for the loop, the main thread does not read.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Protocol, TypeVar

from commlib._signals import may_be_interrupted

T = TypeVar("T")

CAN_BE_LENT = sys.platform == "linux"  # where there is epoll, whose sets may be watched in turn
READ_BYTES = 4096  # what is longer, the loop had better read
LONGEST_WAIT = 3600.0  # s in one go; who waits longer leaves the reading to the loop
UNUSED = 500  # times that the loop has read, and no thread between them
MOST_SKIPPED = 64  # calls whose replies are left to the loop where other things come between

_READER = "reader"
_ONCE = (READ_BYTES,)
_FIRST = (0,)


class Taken(Protocol):
    """A list or a deque."""

    def extend(self, parts: Iterable[bytes], /) -> None: ...


class Reading:
    """The reading from one socket. On the loop, but for ``read``.

    ``on_readable(sock)`` reads once, ``on_bytes`` takes what a thread has read, and ``on_failure``
    why it could not; all on the loop. ``is_clear`` tells whether all that came before was whole:
    only then a thread may read. ``on_unused`` is told when no thread has found its answer for
    long. The socket has a descriptor of its own here, which is valid as long as it is used. Raises
    OSError when there are no more descriptors.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_readable: Callable[[socket.socket], None],
        on_bytes: Callable[[bytes], None],
        on_failure: Callable[[OSError], None],
        is_clear: Callable[[], bool],
        on_unused: Callable[[], None],
    ) -> None:
        self._on_unused = on_unused
        self._on_readable = on_readable
        self._on_bytes = on_bytes
        self._on_failure = on_failure
        self._is_clear = is_clear
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._came: list[bytes] = []
        """What a thread has received; what it leaves there, the loop takes before it reads on."""
        self._failure: OSError | None = None
        self._holder: dict[str, object] = {}
        """Whose turn it is, if it is anybody's."""
        self._kept = False
        """The loop is told of nothing that comes, until a thread has read on, or `resume`."""
        self._skip, self._next_skip = 0, 1
        self._unused = 0
        """How often the loop has read since a thread has found its answer."""
        with ExitStack() as opened:
            self.sock = opened.enter_context(socket.socket(fileno=os.dup(sock.fileno())))
            self.sock.setblocking(False)
            # The loop watches a set with the socket in it: a thread may take that out and back.
            self._bell = opened.enter_context(select.epoll())
            self._bell.register(self.sock, select.EPOLLIN)
            self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            opened.callback(os.close, self._nudge)
            self._news = opened.enter_context(select.epoll())
            self._news.register(self.sock, select.EPOLLIN)
            self._news.register(self._nudge, select.EPOLLIN)
            self._loop.add_reader(self._bell.fileno(), self._take_turn)
            self._opened = opened.pop_all()

    def stop(self) -> None:
        """The loop reads by other means from here on; a thread that reads is sent away."""
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._bell.fileno())
            os.eventfd_write(self._nudge, 1)
            self._close_if_unused()

    def send_away(self) -> None:
        """What a thread reads for will not come: it returns, if one reads."""
        if not self._ended and _READER in self._holder:
            os.eventfd_write(self._nudge, 1)

    def resume(self) -> None:
        """The loop reads what comes, if no thread does just now. From any thread."""
        if self._kept:
            turn = object()
            if self._holder.setdefault(_READER, turn) is turn:
                self._kept = False
                self._give_back(turn)

    def _close_if_unused(self) -> None:
        # This turn is never given back, so one of those who come here closes it all, and once.
        last = object()
        if self._holder.setdefault(_READER, last) is last:
            self._opened.close()

    def _take_turn(self) -> None:
        """Something has come."""
        if self._holder.setdefault(_READER, self) is not self:
            return
        try:
            came, self._came = self._came, []
            for data in came:
                self._on_bytes(data)
            if self._failure is not None and not self._ended:
                self._on_failure(self._failure)
            if not self._ended:
                self._on_readable(self.sock)
            self._unused += 1
            if self._unused >= UNUSED and not self._ended:
                self._on_unused()
        finally:
            if self._kept and not self._ended:  # what had come was known here already
                self._kept = False
                self._bell.modify(self.sock, select.EPOLLIN)
            del self._holder[_READER]
            if self._ended:
                self._close_if_unused()

    # On a thread that waits.

    def read(
        self,
        is_wanted: Callable[[], bool],
        find: Callable[[bytes], T | None],
        taken: Taken,
        seconds: float,
        keep: bool = False,
    ) -> T | None:
        """What ``find`` makes of the next that comes, within ``seconds``; that is put to ``taken``.

        None: it is left to the loop, or time is up. ``is_wanted`` is asked when the loop does not
        read any more: what it has read before is not waited for. Who ``keep``s the turn is about to
        read again: what comes until then is left where it is, or until he calls ``resume``.
        """
        if self._skip or may_be_interrupted():
            self._skip = max(0, self._skip - 1)
            return None
        turn = object()
        try:
            try:
                return self._read(turn, is_wanted, find, taken, seconds, keep)
            finally:
                self._give_back(turn)
        finally:
            self._give_back(turn)  # one more signal may have come before that was done

    def _read(
        self,
        turn: object,
        is_wanted: Callable[[], bool],
        find: Callable[[bytes], T | None],
        taken: Taken,
        seconds: float,
        keep: bool,
    ) -> T | None:
        if self._holder.setdefault(_READER, turn) is not turn:
            return None
        came = self._came
        is_kept, self._kept = self._kept, False
        if self._ended or came or not (self._is_clear() and is_wanted()):
            return None
        if not is_kept:
            self._bell.modify(self.sock, 0)
        self._news.poll(max(0, min(seconds, LONGEST_WAIT)), 1)
        if not self._ended:
            try:
                came.extend(map(self.sock.recv, _ONCE))
            except BlockingIOError:  # time is up, or it is sent away
                with suppress(BlockingIOError):
                    os.eventfd_read(self._nudge)
            except OSError as exc:
                self._failure = exc
        if not came or not came[0]:  # nothing, or the end, which the loop will see
            came.clear()
            return None
        found = find(came[0])
        if found is None:
            self._skip, self._next_skip = self._next_skip, min(2 * self._next_skip, MOST_SKIPPED)
        else:
            taken.extend(map(came.pop, _FIRST))
            self._next_skip = 1
            self._unused = 0
            self._kept = keep
        return found

    def _give_back(self, turn: object) -> None:
        if self._holder.get(_READER) is turn:
            if not (self._ended or self._kept):
                self._bell.modify(self.sock, select.EPOLLIN)
            self._holder.pop(_READER, None)
        if self._came or self._failure is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_turn)
        if self._ended:
            self._close_if_unused()
