"""The answers to requests that may come again, so that a service handles each of them once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from commlib._packet import Header, Packet
from commlib.transports.base import Address

MAX_ANSWERS, MAX_BYTES = 1000, 4 * 1024 * 1024  # that are kept; the oldest go first
KEPT_SECONDS = 60.0  # longer than nearly every caller waits
Answer = tuple[Address, Packet]


class Answers:
    """The answers of one service, by the ids of the calls. Safe from several threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._askers: dict[str, list[Address]] = {}
        """Who has asked again, by the ids of what is being handled."""
        self._replies: OrderedDict[str, tuple[Packet, float]] = OrderedDict()
        self._bytes = 0

    def begin(self, packet: Packet, header: Header) -> tuple[bool, Answer | None]:
        """Whether this request is to be handled, and its answer if that is there already.

        Neither: it is being handled, and this asker will get the answer as well.
        """
        # Without the request: a broker that wants to know is told when this one is worked off.
        asker = Address(packet.reply_to or header.reply_to, packet.correlation_id)
        with self._lock:
            self._forget()
            if header.id in self._replies:
                return False, (asker, self._replies[header.id][0])
            if header.id in self._askers:
                self._askers[header.id].append(asker)
                return False, None
            self._askers[header.id] = []
            return True, None

    def end(self, id: str, reply: Packet | None) -> list[Answer]:
        """Keep the reply to what was handled; its answers to those who have asked meanwhile.

        None: there is none, since nobody waits any more.
        """
        with self._lock:
            askers = self._askers.pop(id)
            if reply is None:
                return []
            self._replies[id] = reply, time.monotonic()
            self._bytes += len(reply.payload)
            self._forget()
        return [(asker, reply) for asker in askers]

    def _forget(self) -> None:
        """Drop what is too old, or too much. Under the lock."""
        oldest = time.monotonic() - KEPT_SECONDS
        while self._replies:
            reply, when = next(iter(self._replies.values()))
            is_too_much = len(self._replies) > MAX_ANSWERS or self._bytes > MAX_BYTES
            if when >= oldest and not is_too_much:
                return
            self._replies.popitem(last=False)
            self._bytes -= len(reply.payload)
