"""What of MQTT was subscribed, and the filter that brings it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from commlib._topics import MQTT_WILDCARDS, from_mqtt, is_pattern, matcher, mqtt_filter
from commlib.transports._confirmation import Subscribed
from commlib.transports._mqtt_filters import Levels, levels
from commlib.transports.base import Handler

if TYPE_CHECKING:
    from commlib.transports._mqtt_board import Board

QUIET_PONGS = 2
"""So many answers to pings without stored messages between them, and none is under way any more:
at QoS 2 the broker sends the next one only after a second exchange."""


class Channel(Subscribed):
    """A name or pattern that was subscribed, and the handlers behind it.

    ``is_queue``: it takes requests or replies, so each packet goes to one of all who ask for it,
    hardly any topic comes twice, and what the broker has stored is of no interest.
    """

    def __init__(self, topic: str, *, is_queue: bool = False) -> None:
        super().__init__(topic)
        self.filter = mqtt_filter(topic)
        self.levels = levels(self.filter)
        self.is_queue = is_queue
        self.wanted: Wanted | None = None
        self._is_pattern = is_pattern(topic, MQTT_WILDCARDS)
        self._matches = matcher(topic, MQTT_WILDCARDS) if self._is_pattern else None

    @property
    def is_shared(self) -> bool:
        """Whether others on the broker may take their share of it: a service's queue, no inbox."""
        return self.is_queue and not self._is_pattern

    @property
    def is_inbox(self) -> bool:
        """Whether it takes replies: each has a topic of its own, named as on the wire."""
        return self.is_queue and self._is_pattern

    def name(self, topic: str) -> str | None:
        """A topic that the filter matches, as this channel spells it; None if it does not match."""
        if not self._is_pattern:
            return self.topic
        name = from_mqtt(topic, self.topic)
        return name if self._matches is None or self._matches(name) else None


class Wanted:
    """A filter that the broker is asked for, with the channels that it serves."""

    def __init__(self, board: Board, text: str, wanted: Levels, number: int) -> None:
        self.board = board
        self.text = text
        self.levels = wanted
        self.number = number
        self.channels: list[Channel] = []
        self.is_refused = False
        self.again: asyncio.TimerHandle | None = None
        """When the broker is asked once more, after it has refused."""
        self._fresh: dict[Handler, set[str]] = {}
        self._quiet = 0

    def put_off(self, timer: asyncio.TimerHandle | None) -> None:
        """The broker is to be asked again then, and no other time; None: not by itself."""
        if self.again is not None:
            self.again.cancel()
        self.again = timer

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """Those of all channels that it serves."""
        return tuple(handler for channel in self.channels for handler in channel.handlers)

    # What the broker has stored comes as an answer to SUBSCRIBE, without a mark at its end. So
    # those for whom that was sent are fresh until nothing of it can be under way any more, and
    # each of them gets each topic once, however often the filter is asked for meanwhile.

    def refresh(self, handlers: tuple[Handler, ...], *, ping_under_way: bool) -> None:
        """The broker is about to send these what it has stored."""
        self._fresh.update((handler, set()) for handler in handlers)
        self._quiet = -1 if ping_under_way else 0  # that one was sent before

    def takes_stored(self, handler: Handler, topic: str) -> bool:
        """Whether a stored message of this topic is meant for a handler; asked once for each."""
        self._quiet = min(self._quiet, 0)
        had = self._fresh.get(handler)
        if had is None or topic in had:
            return False
        had.add(topic)
        return True

    def note_live(self, topic: str) -> None:
        """Who is handed a new message of this topic wants no stored one, which is older."""
        for had in self._fresh.values():
            had.add(topic)

    def note_pong(self) -> bool:
        """The broker has answered a ping; whether nobody is fresh any more."""
        self._quiet += 1
        if self._quiet >= QUIET_PONGS:
            self._fresh.clear()
        return not self._fresh
