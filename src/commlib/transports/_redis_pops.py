"""Pipelined BLPOPs: how lists on Redis become queues.

One BLPOP at a time makes every message wait for a round trip, so several are kept outstanding; the
server works them off one after another. A blocked BLPOP cannot be changed, so each of them also
waits for a private *wake list*: to change the lists, something is pushed there once for every
BLPOP that is outstanding. (CLIENT UNBLOCK would be racy, and usual ACLs deny it.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from typing import Any

from commlib.exceptions import CommlibError
from commlib.transports._redis_link import UNASKED, RedisLink, Unexpected, command, error_from

log = logging.getLogger("commlib.redis")

READ_AT_ONCE = 4  # answers read by threads after which further BLPOPs are sent
ERROR_PAUSE, LONGEST_ERROR_PAUSE = 1.0, 60.0  # s before what the server has refused is tried again

Wake = Callable[[bytes, int], bool]
"""Pushes so many items to a wake list; False when there is no connection to do so."""


class Popper:
    """Keeps BLPOPs outstanding on one link, for lists that may change at any time.

    ``plan`` tells, whenever there is something to decide, which lists to pop from and with how
    many BLPOPs at once. The server serves the first list of a BLPOP first, so all of them take
    turns: a list that is always behind a busy one would never be served. ``on_refused`` is told why
    the server does not let us pop from a list, for each of them.
    """

    def __init__(
        self,
        keepalive: float,
        wake: Wake,
        plan: Callable[[], tuple[tuple[bytes, ...], int]],
        on_item: Callable[[bytes, bytes], None],
        on_refused: Callable[[CommlibError], None],
    ) -> None:
        self.wake_list = b"rpc-w-" + os.urandom(12).hex().encode()
        self._wake = wake
        self._plan = plan
        self._on_item = on_item
        self._on_refused = on_refused
        self._head = b""
        self._tail = _word(b"%d" % max(1, round(keepalive)))
        self._link: RedisLink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lists: tuple[bytes, ...] = ()
        self._depth = 0  # of the last plan
        self._words = b""  # the lists, as they stand in a command
        self._starts: list[int] = []  # where each of them begins
        self._turn = 0
        # For what is outstanding, and with which lists: a thread may replace some. It does not wait
        # for the lock; and the loop is interrupted by signals, whose handlers may come here again.
        self._lock = threading.RLock()
        self._outstanding = 0
        self._pings = 0  # that are unanswered; all of them were sent before what is outstanding
        self._stale = 0  # the oldest outstanding ones, which are woken because their lists are old
        self._settled: list[asyncio.Future[None]] = []
        self._fill_pending = False
        self._is_loop_called = False  # by threads
        self._urgent = False
        self._refusal: Exception | None = None  # of a BLPOP, until it is known why
        self._is_retrying = False  # no BLPOP is sent before it is known what may be popped by now
        self._suspects: deque[bytes] = deque()  # asked for one by one, in the order of the answers
        self._banned: dict[bytes, str] = {}  # refused for themselves, and what the server says
        self._complaint = ""  # of the server about all of it, the last one
        self._pause = ERROR_PAUSE
        self._retry: asyncio.TimerHandle | None = None
        self.read: deque[bytes] = deque()
        """Answers of this link that threads have taken, which are yet to be counted."""

    @property
    def link(self) -> RedisLink | None:
        return self._link

    def attach(self, link: RedisLink | None) -> None:
        """Go on with a new link; None: it is away, and all that was outstanding with it."""
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._link = link
            self._outstanding = self._stale = self._pings = 0
            self.read = deque()
        self._is_loop_called = False
        self._refusal, self._is_retrying, self._pause = None, False, ERROR_PAUSE
        self._suspects.clear()
        self._banned.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._note_settled()
        if link is not None:
            link.on_reply, link.on_idle, link.probe = self._take, self.fill, self._probe
            self.fill()

    def items_of(self, link: RedisLink, name: bytes, data: bytes) -> list[bytes]:
        """The items of this list that are all of ``data``; none if there is something else.

        For the thread that has read it.
        """
        link.heard_now()
        head, at, items = b"*2\r\n" + _word(name) + b"$", 0, list[bytes]()
        while at < len(data):
            end = data.find(b"\r\n", at + len(head))
            if not data.startswith(head, at) or end < 0:
                return []
            size = data[at + len(head) : end]
            at = end + 4 + (int(size) if size.isdigit() else -1)
            item = data[end + 2 : at - 2]
            if size != b"%d" % len(item) or not data.startswith(b"\r\n", at - 2):
                return []
            items.append(item)
        return items

    def note_read(self) -> None:
        """A thread has perhaps put one more answer to ``read``. From any thread."""
        if self.read and len(self.read) >= min(READ_AT_ONCE, self._outstanding):
            self.fill_soon()

    def fill_soon(self) -> None:
        """Have the loop count what threads have done, and send what is missing. From any thread."""
        if not self._is_loop_called and self._loop is not None:
            self._is_loop_called = True
            with suppress(RuntimeError):  # the loop is closed: nobody pops any more
                self._loop.call_soon_threadsafe(self.fill)

    @property
    def outstanding(self) -> int:
        """How many BLPOPs have no answer, as far as is known. From any thread."""
        return self._outstanding - len(self.read)

    @property
    def is_low(self) -> bool:
        """Whether those are no more than half of what was planned. From any thread."""
        return 2 * self.outstanding <= self._depth

    def replace(self) -> bool:
        """Send BLPOPs in the place of those whose answers threads have read. On a thread.

        So nothing changes that the loop has counted. False: the loop has to do it.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            link, read = self._link, self.read
            if link is None or self._stale or self._suspects or self._is_halted:
                return False
            answers, is_first = list[bytes](), self.outstanding <= 0
            with suppress(IndexError):  # the loop has counted the others
                while self.outstanding < self._depth:
                    answers.append(read.popleft())
            if not answers:
                return False
            if is_first:
                link.heard_now()  # as in ``fill``
            frames = [self._next_frame() for _ in answers]
            is_written = link.write_all_now(frames, ())
            if not is_written:
                read.extendleft(answers)
            return is_written
        finally:
            self._lock.release()

    def _count_read(self) -> None:
        while self.read:
            with suppress(IndexError):  # a thread has replaced it
                self.read.popleft()
                self._note_answer()

    def refill(self, *, urgent: bool) -> None:
        """The plan has changed. ``urgent``: also for the BLPOPs that are outstanding."""
        self._urgent = self._urgent or urgent
        if not self._fill_pending and self._link is not None:
            self._fill_pending = True
            asyncio.get_running_loop().call_soon(self.fill)

    def refresh(self, *, anew: bool = False) -> None:
        """Wake all outstanding BLPOPs, so that they are sent again with the lists of today.

        ``anew``: also those that were woken before, because that may have been lost on the way.
        """
        with self._lock:
            self._count_read()
            awake = 0 if anew else self._stale
            if self._outstanding > awake and self._wake(self.wake_list, self._outstanding - awake):
                self._stale = self._outstanding

    async def settle(self) -> None:
        """Return when no BLPOP of a former plan is outstanding."""
        self._urgent = True
        self.fill()
        if self._stale:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settled.append(settled)
            await settled

    def _note_settled(self) -> None:
        for settled in self._settled:
            if not settled.done():
                settled.set_result(None)
        self._settled.clear()

    def _take(self, reply: Any) -> None:
        self._count_read()
        if self._pings:
            self._pings -= 1  # whatever it says, a refusal too: the connection is alive
            return
        if self._suspects:
            self._take_verdict(self._suspects.popleft(), reply)
            return
        if not self._outstanding:
            raise Unexpected(reply, UNASKED)
        if reply.__class__ is list:
            if (
                len(reply) != 2
                or reply[0].__class__ is not bytes
                or reply[1].__class__ is not bytes
            ):
                raise Unexpected(reply)
            self._note_answer()
            if reply[0] != self.wake_list:
                self._on_item(reply[0], reply[1])
            return
        if isinstance(reply, Exception):
            self._refusal = reply
            if self._outstanding > 1:
                self.refresh()  # those that block already would keep the verdict waiting
        elif reply is not None:
            raise Unexpected(reply)
        self._note_answer()

    def _note_answer(self) -> None:
        self._outstanding -= 1
        if self._stale:
            self._stale -= 1
            if not self._stale:
                self._note_settled()
        if not self._outstanding and self._is_halted:
            self._try_one_by_one()

    # The server refuses all of a BLPOP for one list that may not be read, or that is no list. So
    # then the lists are tried one by one, and those that are refused wait outside of the set.

    @property
    def _is_halted(self) -> bool:
        return self._refusal is not None or self._is_retrying

    def forget(self, name: bytes) -> None:
        """Nobody pops this list any more; who does again begins anew."""
        self._banned.pop(name, None)
        if not self._banned:
            self._pause = ERROR_PAUSE

    def is_banned(self, name: bytes) -> bool:
        """Whether the server refuses this list."""
        return name in self._banned

    def _try_one_by_one(self) -> None:
        lists = self._plan()[0]
        if self._link is None or not lists:
            self._refusal, self._is_retrying = None, False
            if self._banned:
                self._try_again_later()  # those without credit now are no less banned
            return
        self._suspects.extend(lists)
        self._link.write([command("LPOP", name) for name in lists], [])

    def _take_verdict(self, name: bytes, reply: Any) -> None:
        if not isinstance(reply, Exception):
            if reply is not None and reply.__class__ is not bytes:
                raise Unexpected(reply)
            self._banned.pop(name, None)
            if reply is not None:
                self._on_item(name, reply)
        elif "'lpop'" not in str(reply):  # else it is LPOP itself that we may not use
            self._ban(name, reply)
        if not self._suspects:
            self._end_trial()

    def _ban(self, name: bytes, why: Exception) -> None:
        if name not in self._banned:
            self._pause = ERROR_PAUSE  # a new trouble is looked after sooner than an old one
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
        if self._banned.get(name) != str(why):
            self._banned[name] = str(why)
            self._on_refused(error_from(why, name.decode()))
            log.error("%s is not served: the server says: %s; trying again", name.decode(), why)

    def _end_trial(self) -> None:
        refusal, self._refusal, self._is_retrying = self._refusal, None, False
        if refusal is not None and not self._banned:
            # No list is to blame, so nothing can be served for a while.
            if str(refusal) != self._complaint:
                self._complaint = str(refusal)
                self._on_refused(error_from(refusal, "BLPOP"))
                names = b" ".join(self._lists[:5]).decode()
                log.error("BLPOP %s: the server says: %s; trying again", names, refusal)
            self._is_retrying = True
        else:
            self.fill()
        if refusal is not None or self._banned:
            self._try_again_later()

    def _try_again_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again)
            self._pause = min(2 * self._pause, LONGEST_ERROR_PAUSE)

    def _try_again(self) -> None:
        """See whether what was refused may be popped by now."""
        self._retry = None
        self._is_retrying = bool(self._banned)
        if not self._banned:
            self.fill()
        elif self._outstanding:
            self.refresh()  # the verdicts come when these are answered
        else:
            self._try_one_by_one()

    def _probe(self) -> None:
        self._count_read()
        # While a BLPOP is outstanding its time-out is the sign of life, and nothing else gets
        # through; without one the connection answers like any other. An LPOP is answered itself.
        if self._link is not None and not (self._outstanding or self._suspects):
            self._pings += 1
            self._link.write([command("PING")], [])
        self.fill()

    def fill(self) -> None:
        """Send as many BLPOPs as the plan says, if many are missing."""
        self._is_loop_called = False  # before the rest: who notes something now calls again
        self._fill_pending = True  # what changes while the plan is made, is in the plan
        self._count_read()
        lists, depth = self._plan()
        self._fill_pending = False
        if self._link is None or self._suspects or self._is_halted:
            return
        if self._banned:
            lists = tuple(name for name in lists if name not in self._banned)
        with self._lock:
            self._depth = depth
            if lists != self._lists:
                self._lists, self._starts = lists, []
                if self._urgent:
                    self.refresh()
        self._urgent = False
        missing = depth - self._outstanding
        if not lists or missing <= 0 or missing * 2 < depth:
            return  # half of them still wait: one write for several a little later
        if not self._outstanding:
            # From here on the server has the keepalive's time before it must say something.
            self._link.heard = asyncio.get_running_loop().time()
        with self._lock:
            self._outstanding += missing
            self._link.write([self._next_frame() for _ in range(missing)], [])

    def _next_frame(self) -> bytes:
        """The next BLPOP: each begins with another list."""
        if not self._starts:
            words = [_word(name) for name in self._lists]
            self._head = b"*%d\r\n" % (len(words) + 3) + _word(b"BLPOP") + _word(self.wake_list)
            self._words = b"".join(words)
            self._starts = [0, *accumulate(len(word) for word in words[:-1])]
        self._turn = (self._turn + 1) % len(self._starts)
        start = self._starts[self._turn]
        return b"".join((self._head, self._words[start:], self._words[:start], self._tail))


def _word(word: bytes) -> bytes:
    """A word as it stands in a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)
