"""Who takes what comes on a connection to an MQTT broker: found out once for each topic.

Remembered are the bytes that a packet begins with, so that of those that come again nothing has to
be read but its payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from commlib._packet import Packet
from commlib.transports._mqtt_bytes import SUBSCRIPTION_ID, read_length, subscription_id
from commlib.transports._mqtt_frames import Published
from commlib.transports.base import Handler

Route = tuple[tuple[Handler, str], ...]
"""Who takes the messages of a topic, and what name the topic has for each."""

Known = tuple[tuple[Handler, str, "int | None"], ...]
"""A route that is remembered, and the seconds to live of what comes on it."""

Siblings = tuple[tuple[Handler, ...], "int | None"]
"""The same of all topics that have one parent, each of which has its own name for all."""


class Taker(Protocol):
    """Who takes what one filter brings, and what name its topic has for them; looked at each time.

    It is there already: thousands of objects that are made with the first messages have Python's
    collector look at all that there are.
    """

    topic: str
    handlers: tuple[Handler, ...]


LONGEST_KEY = 1000  # bytes of a topic and its properties that are remembered
MAX_ROUTES = 10_000  # topics, and parents of topics, whose receivers are remembered


class Routes:
    """Who takes the topics that have come.

    ``on_topic(topic, published)`` tells who takes the messages of a topic, and whether that is
    worth remembering. If the only property is the number of a filter ``on_number(number, topic)``
    is asked before, which is quicker: who takes what this filter brings, if it is one for this
    topic alone. Nothing but the number is looked at when that comes again. Of a topic that does not
    come again ``on_siblings`` tells who takes all topics that have the same parent, if anybody does
    and all are named as on the wire. An answer that is remembered holds until ``forget``.

    The methods that take packets get the bytes of a PUBLISH at QoS 0 that is not retained. Its
    topic begins at ``start`` and ends at ``named``, its properties end at ``behind`` and it itself
    at ``stop``, as it says.
    """

    def __init__(self) -> None:
        self.on_topic: Callable[[str, Published], tuple[Route, bool]] = lambda *_: ((), False)
        self.on_number: Callable[[int, str], Taker | None] = lambda number, topic: None
        self.on_siblings: Callable[[Published], tuple[Handler, ...]] = lambda published: ()
        self.by_topic: dict[bytes, Known] = {}
        """By the topic and the properties, as they came."""
        self.by_number: dict[bytes, Taker] = {}
        """By properties that are nothing but the number of a filter: as many as there are of those.
        """
        self.siblings: dict[tuple[bytes, bytes], Siblings] = {}
        """By the topic's parent and the properties."""

    def forget(self, number: int) -> None:
        """Somebody behind the filter of this number has begun or ended: ask for the routes again.

        What is known by the numbers of other filters stays. The number 0 is none.
        """
        self.by_topic.clear()
        self.siblings.clear()
        self.by_number.pop(subscription_id(number), None)

    def remember(self, start: bytes, route: Route | None, published: Published) -> None:
        """Know what begins so when it comes again, or without a route what is beside it."""
        if route is not None:
            if len(self.by_topic) >= MAX_ROUTES:
                self.by_topic.clear()
            self.by_topic[start] = tuple((*each, published.expiry) for each in route)
        elif handlers := self.on_siblings(published):
            named = 2 + int.from_bytes(start[:2])
            parent = start[2 : start.rfind(b"/", 2, named) + 1]
            if len(self.siblings) >= MAX_ROUTES:
                self.siblings.clear()
            self.siblings[parent, start[named:]] = handlers, published.expiry

    def take_first(self, data: bytes, start: int, named: int, behind: int, stop: int) -> bool:
        """The first PUBLISH that bears nothing but the number of a filter for one topic.

        False: it is something else.
        """
        if behind - named < 3 or data[named + 1] != SUBSCRIPTION_ID:
            return False
        number, _ = read_length(data, named + 2)
        properties = subscription_id(number)
        if data[named:behind] != properties or behind > stop:
            return False
        try:
            taker = self.on_number(number, str(data[start + 2 : named], "utf8"))
        except UnicodeDecodeError:
            return False
        if taker is None:
            return False
        self.by_number[properties] = taker
        payload = data[behind:stop]
        for handler in taker.handlers:
            handler(Packet(payload, taker.topic))
        return True

    def take_sibling(self, data: bytes, start: int, named: int, behind: int, stop: int) -> bool:
        """A PUBLISH of a topic that comes once, beside those that have come before: a reply.

        False: it is something else.
        """
        parent = data[start + 2 : data.rfind(b"/", start + 2, named) + 1]
        known = self.siblings.get((parent, data[named:behind]))
        if known is None or behind > stop:
            return False
        try:
            name = str(data[start + 2 : named], "utf8")
        except UnicodeDecodeError:
            return False
        payload = data[behind:stop]
        handlers, expiry = known
        for handler in handlers:
            handler(Packet(payload, name, None, expiry))
        return True
