"""Replies that a recorder reads before their requests.

Requests and replies may come on connections of their own, see `Boards`, and be read in any order.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commlib._packet import Packet

MAX_REPLIES = 100  # nearly all that wait are to calls of no interest
MAX_BYTES = 4_000_000


class EarlyReplies:
    """The newest that no request is known for, by the place that each was sent to.

    One that is larger than all the room is not kept: no recorder is to fill the memory of its
    machine with what others say to each other.
    """

    def __init__(self) -> None:
        self._replies: OrderedDict[str, Packet] = OrderedDict()
        self._bytes = 0

    def keep(self, reply: Packet) -> None:
        """Wait for its request; the oldest ones are given up for it."""
        self.take(reply.topic)
        if len(reply.payload) > MAX_BYTES:
            return
        self._replies[reply.topic] = reply
        self._bytes += len(reply.payload)
        while len(self._replies) > MAX_REPLIES or self._bytes > MAX_BYTES:
            self.take(next(iter(self._replies)))

    def take(self, place: str) -> Packet | None:
        """The reply that was sent there, if there is one."""
        reply = self._replies.pop(place, None)
        if reply is not None:
            self._bytes -= len(reply.payload)
        return reply
