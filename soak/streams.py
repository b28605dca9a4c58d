"""Numbered messages, and those who listen to them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from commlib.exceptions import CommlibError
from soak.complaints import Complaints
from soak.messages import Tick, text_of
from soak.tally import Numbers

BACKLOG = 0.2  # s that a publisher makes up for when it had to wait


class Listening:
    """A subscriber, and what it was given."""

    def __init__(self, complaints: Complaints) -> None:
        self.numbers = Numbers()
        self.subscriber: Any = None
        self._complaints = complaints

    def take(self, msg: Tick) -> None:
        """A message has come."""
        if msg.text != text_of(msg.number):
            self._complaints.note("wrong message", msg)
        self.numbers.note(msg.number)

    def take_with_topic(self, msg: Tick, topic: str) -> None:
        """The same for a pattern."""
        self.take(msg)


class Stream:
    """Messages that are numbered from 0 on, and those who listen to them."""

    def __init__(self, publisher: Any, rate: float, listening: list[Listening]) -> None:
        self.publisher = publisher
        self.listening = listening
        self.sent = 0
        """Messages that were numbered."""
        self.unsent: Counter[str] = Counter()
        self._rate = rate
        self._due = time.monotonic()

    @property
    def last(self) -> int:
        """The newest that all of them have."""
        return min(each.numbers.last for each in self.listening)

    @property
    def gaps(self) -> int:
        """What they have counted as lost, all together."""
        return sum(each.subscriber.stats.gaps for each in self.listening)

    def publish(self) -> None:
        """The next one."""
        number = self.sent
        try:
            self.publisher.publish(Tick(number=number, text=text_of(number)))
        except CommlibError as exc:
            self.unsent[type(exc).__name__] += 1
        self.sent = number + 1

    def publish_what_is_due(self) -> None:
        """As many as the rate asks for by now."""
        now = time.monotonic()
        self._due = max(self._due, now - BACKLOG)
        while self._due < now:
            self.publish()
            self._due += 1 / self._rate
