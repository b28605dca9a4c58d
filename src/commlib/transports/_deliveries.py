"""Messages on their way out, until the broker has taken them over: what all kinds of that share.

At most ``window`` of them may be unanswered. A new connection knows nothing of the last one: what
was not answered to the end is sent again where that is promised (at least once), or given up and
counted. That may be the very message for which the broker has ended the connection. So if one is
lost for the second time, all that were under way go one by one then, and one with which the
connection was lost several times is given up.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from msgspec import Struct

from commlib._parts import Frame
from commlib.transports.base import LinkStats

MAX_LOSSES = 3
MAX_WAITING = 1000  # taken from the outbox while the window is full; beyond, that has no room
MAX_BYTES = 4 * 1024 * 1024  # the same in bytes


class Delivery(Struct):
    """One message."""

    topic: str
    qos: int
    born: float
    """When it was published, by the monotonic clock."""
    frame: Frame = b""
    is_resent: bool = False
    losses: int = 0
    """How often the connection was lost while it was the first one under way."""


D = TypeVar("D", bound=Delivery)


class Deliveries(ABC, Generic[D]):
    """All of them on one transport; an outbox takes it for a link.

    ``on_refused`` is told the topic and why, and counts, ``on_room`` whether more is taken.
    """

    def __init__(self, stats: LinkStats, on_refused: Callable[[str, Exception], None]) -> None:
        self._stats = stats
        self._on_refused = on_refused
        self._is_full = False
        self._one_by_one = 0  # so many messages yet
        self.on_room: Callable[[bool], None] = lambda room: None
        self._waiting: deque[D] = deque()
        self._waiting_bytes = 0
        self._under_way: dict[int, D] = {}
        self._idle: list[asyncio.Future[None]] = []

    # What each kind has of its own.

    @property
    @abstractmethod
    def _window(self) -> int:
        """How many may be unanswered now; 0: none can be written."""

    @abstractmethod
    def _begin(self, delivery: D) -> Frame:
        """Put it ``_under_way`` under its number; what is to be written.

        Nothing, if it was refused instead.
        """

    @abstractmethod
    def _write(self, out: list[Frame]) -> None:
        """Write these to the broker."""

    # What all have.

    def detach(self) -> list[D]:
        """The connection is away; returns what is still to be sent, again or for the first time."""
        again = []
        if any(delivery.is_resent for delivery in self._under_way.values()):
            self._one_by_one = max(self._one_by_one, len(self._under_way))
        for index, delivery in enumerate(self._under_way.values()):
            delivery.losses += index == 0  # the broker takes them in this order
            delivery.is_resent = True
            if delivery.qos == 1 and delivery.losses < MAX_LOSSES:
                again.append(delivery)
            else:
                self._stats.unconfirmed += 1
        again += self._waiting
        self._under_way.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._is_full = False
        self._note_idle()
        return again

    def write(self, parts: Iterable[Frame], notes: Iterable[object], /) -> None:
        """Take messages over; each note is its Delivery."""
        for frame, note in zip(parts, notes, strict=True):
            assert isinstance(note, Delivery), "nothing else is put into this outbox"
            note.frame = frame
            self._waiting.append(note)  # type: ignore[arg-type]
            self._waiting_bytes += len(frame)
        self._pump()

    def may_be_now(self, urgent: bool, /) -> bool:
        """Never: there is a window to be kept."""
        return False

    def write_now(self, frame: Frame, note: object, urgent: bool, /) -> bool:
        return False

    def write_all_now(self, frames: Iterable[Frame], notes: Iterable[object], /) -> bool:
        return False

    @property
    def is_idle(self) -> bool:
        """Whether the broker has taken over all that was written."""
        return not (self._waiting or self._under_way)

    async def drained(self) -> None:
        """Return when the broker has taken over all that was written."""
        if not self.is_idle:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def _pump(self) -> None:
        out = []
        window = min(self._window, 1) if self._one_by_one else self._window
        while self._waiting and len(self._under_way) < window:
            delivery = self._waiting.popleft()
            self._waiting_bytes -= len(delivery.frame)
            frame = self._begin(delivery)
            if frame:
                out.append(frame)
        if out:
            self._write(out)
        is_full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_BYTES
        if is_full != self._is_full:
            self._is_full = is_full
            self.on_room(not is_full)
        self._note_idle()

    def _wait_again(self, deliveries: list[D]) -> None:
        """These were under way, and go before all that waits."""
        self._waiting.extendleft(reversed(deliveries))
        self._waiting_bytes += sum(len(delivery.frame) for delivery in deliveries)

    def _end(self, number: int) -> None:
        """The broker has said its last word about this one; ``_pump`` then."""
        del self._under_way[number]
        self._one_by_one = max(self._one_by_one - 1, 0)

    def _note_idle(self) -> None:
        if self.is_idle:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()
