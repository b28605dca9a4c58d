"""What waits to be sent on: in order, bounded, the oldest is dropped first. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from commlib._packet import Packet


@dataclass(frozen=True, slots=True)
class Keep:
    """How much waits while the sink of a bridge is away: messages, bytes of payload, seconds.

    ``max_age=None``: for as long as it takes.
    """

    max_messages: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    max_age: float | None = None

    def __post_init__(self) -> None:
        if self.max_messages < 1 or self.max_bytes < 1:
            raise ValueError("there must be room for one message at least")
        if self.max_age is not None and not self.max_age > 0:
            raise ValueError(f"max_age={self.max_age}: seconds, or None for as long as it takes")

    def with_room_for(self, max_messages: int, max_bytes: int) -> Keep:
        """The same, with room for so much at least."""
        most = max(self.max_messages, max_messages), max(self.max_bytes, max_bytes)
        return Keep(*most, self.max_age)


class Store:
    """A queue of packets with their topics. ``now`` is the time in seconds, of any one clock.

    ``keep`` may be changed; it holds from the next packet on.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._items: deque[tuple[float, str, Packet]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, topic: str, packet: Packet, now: float) -> int:
        """Append a packet; returns how many of the oldest had to go for it."""
        self._items.append((now, topic, packet))
        self._bytes += len(packet.payload)
        keep, dropped = self.keep, 0
        while len(self._items) > 1 and (
            len(self._items) > keep.max_messages or self._bytes > keep.max_bytes
        ):
            self.pop()
            dropped += 1
        return dropped

    def first(self) -> tuple[str, Packet]:
        """The oldest, which stays; there must be one."""
        return self._items[0][1:]

    def pop(self) -> None:
        """Drop the oldest."""
        self._bytes -= len(self._items.popleft()[2].payload)

    def expire(self, now: float) -> int:
        """Drop what is too old; returns how many that were."""
        expired = 0
        if self.keep.max_age is not None:
            while self._items and self._items[0][0] < now - self.keep.max_age:
                self.pop()
                expired += 1
        return expired
