"""The answers to requests that may come again, so that a service handles each of them once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from enum import Enum, auto
from typing import Final

from commlib._packet import Header, Packet
from commlib.transports.base import Address

MAX_IDS, KEPT_SECONDS = 10_000, 60.0  # of requests that are known to have been handled
MAX_BYTES = 4 * 1024 * 1024  # of the replies that are kept, the oldest go first
MAX_ASKERS = 8  # of one request: those who ask again meanwhile; a client of ours asks less often

Answer = tuple[Address, Packet]


class Known(Enum):
    """What is known of a request that has no answer here."""

    NEW = auto()
    PENDING = auto()
    """It is being handled; who asks again gets the answer as well."""
    FORGOTTEN = auto()
    """It was handled, and its reply is not kept any more."""


class Answers:
    """The answers of one service, by the ids of the calls. Safe from several threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._pending: dict[str, deque[Address]] = {}
        """Who has asked again, by the ids of what is being handled."""
        self._handled: OrderedDict[str, float] = OrderedDict()
        self._replies: OrderedDict[str, Packet] = OrderedDict()
        self._bytes = 0

    def begin(self, packet: Packet, header: Header) -> Known | Answer:
        """The answer to a request, if that is there already; one that is new is to be handled."""
        # Without the request: a broker that wants to know is told when this one is worked off.
        asker = Address(packet.reply_to or header.reply_to, packet.correlation_id)
        with self._lock:
            self._forget()
            if header.id in self._pending:
                self._pending[header.id].append(asker)
                return Known.PENDING
            if header.id in self._handled:
                reply = self._replies.get(header.id)
                return Known.FORGOTTEN if reply is None else (asker, reply)
            self._pending[header.id] = deque(maxlen=MAX_ASKERS)
            return Known.NEW

    def end(self, id: str, reply: Packet | None) -> list[Answer]:
        """Keep the reply to what was handled; its answers to those who have asked meanwhile.

        None: it was not handled, or nobody waits any more.
        """
        with self._lock:
            askers = self._pending.pop(id)
            if reply is None:
                return []
            self._handled[id] = time.monotonic()
            self._replies[id] = reply
            self._bytes += len(reply.payload)
            self._forget()
        return [(asker, reply) for asker in askers]

    def _forget(self) -> None:
        """Drop what is too old, or too much. Under the lock."""
        while self._bytes > MAX_BYTES:
            _, reply = self._replies.popitem(last=False)
            self._bytes -= len(reply.payload)
        oldest = time.monotonic() - KEPT_SECONDS
        while self._handled:
            id, when = next(iter(self._handled.items()))
            if when >= oldest and len(self._handled) <= MAX_IDS:
                return
            del self._handled[id]
            dropped = self._replies.pop(id, None)
            if dropped is not None:
                self._bytes -= len(dropped.payload)
