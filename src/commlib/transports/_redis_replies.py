"""The inbox on Redis: a pool of lists that replies come to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, takewhile

from commlib._packet import Packet
from commlib.exceptions import CommlibError
from commlib.transports._redis_pops import Popper, Wake
from commlib.transports.base import Address, ReplyHandler

FIRST_LISTS, MAX_LISTS = 8, 256  # reply lists, doubled on demand; 1000 would be quadratic
REPLY_POPS = 8  # outstanding BLPOPs for replies; more bring nothing
RETIRED_SECONDS = 60  # a list whose call timed out is deleted after that
MAX_RETIRED = 64  # so many of them are listened to, to count the late replies


class ReplyLists:
    """A pool of private lists, each one the address of one call.

    A list is used again after its reply came. One whose call has ended without a reply is retired,
    so that a late reply reaches nobody, and deleted after a minute.
    """

    capacity = MAX_LISTS

    def __init__(
        self,
        keepalive: float,
        wake: Wake,
        delete: Callable[[Sequence[bytes]], None],
        on_refused: Callable[[CommlibError], None],
    ) -> None:
        self.popper = Popper(keepalive, wake, self._plan, self._take, on_refused)
        self.handler: ReplyHandler = lambda token, packet: True
        self._delete = delete
        self._prefix = "rpc-" + os.urandom(12).hex()
        self._made = 0
        self._free: list[bytes] = []
        self._tokens: dict[bytes, str] = {}
        self._lists: dict[str, bytes] = {}
        self._retired: dict[bytes, float] = {}  # with the loop's time of it, the oldest first
        self._burial: asyncio.TimerHandle | None = None
        self._heard: tuple[bytes, ...] | None = None  # the plan, until it changes

    def address(self, token: str) -> Address:
        if not self._free:
            self._grow()
        key = self._free.pop()
        self._tokens[key] = token
        self._lists[token] = key
        return Address(key.decode(), token)

    def _grow(self) -> None:
        live = len(self._tokens)
        # At least one: a thread that makes a booked call is for a moment not counted.
        for _ in range(max(1, min(max(FIRST_LISTS, live), MAX_LISTS - live))):
            self._free.append(f"{self._prefix}{self._made:08x}".encode())
            self._made += 1
        self._heard = None
        self.popper.refill(urgent=True)

    def _plan(self) -> tuple[tuple[bytes, ...], int]:
        if self._heard is None:
            late = islice(reversed(self._retired), MAX_RETIRED)
            self._heard = (*self._tokens, *self._free, *late)
        return self._heard, REPLY_POPS

    def _take(self, key: bytes, payload: bytes) -> None:
        token = self._tokens.get(key)
        if token is not None and self._lists.pop(token, None) is None:
            token = None  # a thread has had its reply, and is about to hand the list on
        if token is not None:
            # Free before it is handed over: the next call may want it at once.
            del self._tokens[key]
            self._free.append(key)
        packet = Packet(payload, key.decode("utf8", "replace"))
        if not self.handler(token, packet) and token is not None:
            self._free.remove(key)
            self._tokens[key] = token
            self._lists[token] = key

    def read(self, token: str, seconds: float) -> Packet | None:
        popper = self.popper
        link, key = popper.link, self._lists.get(token)
        if link is None or key is None:
            return None

        def find(data: bytes) -> bytes | None:
            # The list of a call that was refused may be that of another one by now.
            items = popper.items_of(link, key, data) if self.expects(token) else ()
            return items[0] if len(items) == 1 else None

        item = link.read_here(partial(self.expects, token), find, popper.read, seconds)
        popper.note_read()
        return None if item is None else Packet(item, key.decode())

    def hand_on(self, token: str, following: str) -> Address | None:
        key = self._lists.pop(token, None)
        if key is None:
            return None
        # It never leaves those that are listened to: the loop may look at them in this moment.
        self._lists[following], self._tokens[key] = key, following
        return Address(key.decode(), following)

    def expects(self, token: str) -> bool:
        """Whether a reply to this call is wanted still."""
        return token in self._lists

    def refuse(self, token: str, error: CommlibError) -> None:
        """The server has not taken the request: no reply will come."""
        if self.expects(token):
            self.release(token, unused=True)
            self.handler(token, error)
            if self.popper.link is not None:
                self.popper.link.send_reader_away()

    def release(self, token: str, *, unused: bool = False) -> None:
        key = self._lists.pop(token, None)
        if key is None:
            return
        del self._tokens[key]
        if unused:
            self._free.append(key)
            return
        loop = asyncio.get_running_loop()
        if self._burial is None:
            self._burial = loop.call_later(RETIRED_SECONDS, self._bury)
        self._retired[key] = loop.time()
        self._heard = None

    def _bury(self) -> None:
        """Delete the lists that were retired long enough ago, the oldest first."""
        self._burial = None
        loop = asyncio.get_running_loop()
        old = loop.time() - RETIRED_SECONDS
        keys = list(takewhile(lambda key: self._retired[key] <= old, self._retired))
        for key in keys:
            del self._retired[key]
        if keys:
            self._heard = None
            self._delete(keys)
        if self._retired:
            first = next(iter(self._retired.values()))
            self._burial = loop.call_at(first + RETIRED_SECONDS, self._bury)

    def close(self) -> list[bytes]:
        """No reply is wanted any more; returns ``keys()``, for nobody else deletes them now."""
        if self._burial is not None:
            self._burial.cancel()
            self._burial = None
        return self.keys()

    def keys(self) -> list[bytes]:
        """All that may have been left on the server."""
        return [*self._tokens, *self._free, *self._retired, self.popper.wake_list]
