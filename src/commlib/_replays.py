"""Which numbered messages have been taken before. Pure.

The window over the numbers is that of IPsec (RFC 4303, section 3.4.3) and DTLS: a bit for each of
the newest numbers of a sender tells whether it has been here; what is older counts as seen.

A sender that was forgotten must not become a door for what it once sent. So the newest timestamp
of all that were forgotten is kept for each key, and when a sender of that key gets a new window,
all that it sends has to be newer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_SENDERS = 10_000  # windows kept at once, the one that was not used for longest goes first


class Sender(NamedTuple):
    """Who counts: one life of an endpoint, on one topic, with one key."""

    key: str
    origin: str
    topic: str


class Window:
    """The newest ``size`` numbers of one sender.

    ``after``: what was signed then or before may have been taken before this window was made.
    """

    __slots__ = ("_mask", "_seen", "_top", "after", "newest", "size")

    def __init__(self, size: int, seq: int, after: int = -1) -> None:
        self.size = size
        self.after = after
        self._mask = (1 << size) - 1
        self._top = seq
        self._seen = 1  # bit i is for the number _top - i
        self.newest = 0
        """The newest timestamp of what was taken."""

    def is_new(self, seq: int) -> bool:
        """Whether this number has not been taken, and is not too old to tell."""
        behind = self._top - seq
        return behind < 0 or (behind < self.size and not self._seen >> behind & 1)

    def take(self, seq: int) -> None:
        """Note a number that is new."""
        ahead = seq - self._top
        if ahead <= 0:
            self._seen |= 1 << -ahead
            return
        # Not shifted by more than there is: a number may be 2 ** 62 ahead.
        self._seen = (self._seen << ahead & self._mask | 1) if ahead < self.size else 1
        self._top = seq


class Replays:
    """The windows of all senders."""

    def __init__(self, size: int, most: int = MAX_SENDERS) -> None:
        self._size = size
        self._most = most
        self._windows: OrderedDict[Sender, Window] = OrderedDict()
        self._forgotten: dict[str, int] = {}

    def is_new(self, sender: Sender, seq: int, timestamp: int) -> bool:
        """Whether a message may be taken; ``timestamp`` is when it was signed."""
        window = self._windows.get(sender)
        if window is None:
            return timestamp > self._forgotten.get(sender.key, -1)
        return timestamp > window.after and window.is_new(seq)

    def take(self, sender: Sender, seq: int, timestamp: int) -> bool:
        """Note a message if it is new; False if it is not."""
        if not self.is_new(sender, seq, timestamp):
            return False
        window = self._windows.get(sender)
        if window is None:
            after = self._forgotten.get(sender.key, -1)
            if len(self._windows) >= self._most:
                self._forget_one()
            window = self._windows[sender] = Window(self._size, seq, after)
        else:
            window.take(seq)
            self._windows.move_to_end(sender)
        window.newest = max(window.newest, timestamp)
        return True

    def _forget_one(self) -> None:
        sender, window = self._windows.popitem(last=False)
        last = self._forgotten.get(sender.key, -1)
        self._forgotten[sender.key] = max(last, window.newest)
