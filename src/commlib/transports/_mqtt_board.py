"""Who wants which topics of one connection, and which filters the broker was asked for.

Brokers differ in what they do when several filters of one connection match a message: Mosquitto
sends one copy on MQTT 3.1.1 and one for each filter on MQTT 5; NATS sends several. So on MQTT 5
each filter has a number (Subscription Identifier), and a copy goes only to those who wait behind
the numbers it bears. Where there are no numbers a board never holds two filters that overlap: one
that is covered by another is served from what that one brings, and one that overlaps otherwise
needs a board, that is a connection, of its own.

What a broker has stored (retained) comes as an answer to SUBSCRIBE, so it goes to those alone for
whom that was sent, and a further handler makes the filter be asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import count

from commlib._topics import from_mqtt, is_pattern, matcher, mqtt_filter
from commlib.exceptions import CommlibError, ConnectError
from commlib.transports._mqtt_codes import FAILURE, refusal
from commlib.transports._mqtt_filters import Levels, covers, is_exact, levels, overlap
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_link import MqttLink, Route
from commlib.transports.base import Handler

log = logging.getLogger("commlib.mqtt")

WILDCARDS = "+#"
"""The wildcards of MQTT that our grammar leaves to the broker."""
GROUP = "$share/commlib/"
HIGHEST_QOS = 2  # asked for always: what comes is delivered as it was published
AT_ONCE = 1000  # filters that are asked for before their answers are waited for


class Channel:
    """A name or pattern that was subscribed, and the handlers behind it.

    ``shares``: each message goes to one of all who share it. ``passing``: hardly any topic of it
    comes twice.
    """

    def __init__(self, topic: str, *, shares: bool = False, passing: bool = False) -> None:
        self.topic = topic
        self.filter = mqtt_filter(topic)
        self.levels = levels(self.filter)
        self.shares = shares
        self.recurs = not passing
        self.handlers: tuple[Handler, ...] = ()
        self.wanted: Wanted | None = None
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_pattern = is_pattern(topic, WILDCARDS)
        self._matches = matcher(topic, WILDCARDS) if self._is_pattern else None

    def name(self, topic: str) -> str | None:
        """A topic that the filter matches, as this channel spells it; None if it does not match."""
        if not self._is_pattern:
            return self.topic
        name = from_mqtt(topic, self.topic)
        return name if self._matches is None or self._matches(name) else None

    def renew(self) -> None:
        """The broker has to confirm again."""
        if self.confirmed.done():
            self.confirmed = self.confirmed.get_loop().create_future()

    def confirm(self, error: CommlibError | None) -> None:
        """The broker has said yes, or why not."""
        if self.confirmed.done():
            return
        if error is None:
            self.confirmed.set_result(None)
            return
        log.warning("%s cannot be subscribed: %s", self.topic, error)
        self.confirmed.set_exception(error)
        self.confirmed.exception()  # marked as seen: after a reconnection nobody waits for it


class Wanted:
    """A filter that the broker is asked for, with the channels that it serves."""

    def __init__(self, board: Board, text: str, wanted: Levels, number: int) -> None:
        self.board = board
        self.text = text
        self.levels = wanted
        self.number = number
        self.channels: list[Channel] = []
        self.fresh: tuple[Handler, ...] = ()
        """Those who are sent what the broker has stored."""

    def confirm(self, error: CommlibError | None) -> None:
        for channel in self.channels:
            channel.confirm(error)


class Board:
    """The filters of one connection."""

    def __init__(self) -> None:
        self.link: MqttLink | None = None
        self._wanted: dict[str, Wanted] = {}
        self._by_number: dict[int, Wanted] = {}
        self._numbers = count(1)
        # Where a topic is looked for that bears no number.
        self._exact: dict[str, list[Channel]] = {}
        self._children: dict[str, list[Channel]] = {}  # of filters that end with /+
        self._others: dict[str, list[Channel]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._wanted

    def find(self, text: str) -> Wanted | None:
        """The filter that the broker is asked for with this text."""
        return self._wanted.get(text)

    def find_cover(self, channel: Channel) -> Wanted | None:
        """A filter of this board that brings all that the channel wants."""
        if channel.filter in self._wanted:
            return self._wanted[channel.filter]
        return next((w for w in self._patterns() if covers(w.levels, channel.levels)), None)

    def has_overlap(self, channel: Channel) -> bool:
        """Whether a filter of this board matches something that the channel's does."""
        against = self._patterns() if is_exact(channel.levels) else iter(self._wanted.values())
        return any(overlap(wanted.levels, channel.levels) for wanted in against)

    def _patterns(self) -> Iterator[Wanted]:
        return (wanted for wanted in self._wanted.values() if not is_exact(wanted.levels))

    def want(self, channel: Channel, prefix: str, *, numbered: bool) -> Wanted:
        """A new filter for a channel, yet to be asked for."""
        number = next(self._numbers) if numbered else 0
        wanted = Wanted(self, prefix + channel.filter, channel.levels, number)
        self._wanted[wanted.text] = wanted
        if numbered:
            self._by_number[number] = wanted
        return wanted

    def join(self, wanted: Wanted, channel: Channel) -> None:
        """Serve a channel from this filter, and ask the broker for it."""
        channel.wanted = wanted
        wanted.channels.append(channel)
        shelf, key = self._shelf(channel)
        shelf.setdefault(key, []).append(channel)
        self.ask(wanted, channel.handlers)

    def ask(self, wanted: Wanted, fresh: tuple[Handler, ...]) -> None:
        """SUBSCRIBE, for these handlers, if the connection is there."""
        link = self.link
        if link is None:
            return
        link.forget_routes()
        if not wanted.fresh:
            wanted.fresh = fresh

        def answered(code: int) -> None:
            wanted.fresh = fresh
            what = f"SUBSCRIBE {wanted.text}"
            wanted.confirm(None if code < FAILURE else refusal(what, code, "", ConnectError))

        link.subscribe(wanted.text, HIGHEST_QOS, wanted.number, answered)

    def leave(self, channel: Channel) -> None:
        """Serve a channel no more; a filter without channels is given up."""
        wanted, channel.wanted = channel.wanted, None
        assert wanted is not None, "it has joined before"
        wanted.channels.remove(channel)
        shelf, key = self._shelf(channel)
        shelf[key].remove(channel)
        if not shelf[key]:
            del shelf[key]
        if self.link is not None:
            self.link.forget_routes()
        if not wanted.channels:
            del self._wanted[wanted.text]
            self._by_number.pop(wanted.number, None)
            if self.link is not None:
                self.link.unsubscribe(wanted.text)

    def _shelf(self, channel: Channel) -> tuple[dict[str, list[Channel]], str]:
        """Where a channel is found by its topics, and under what name."""
        if is_exact(channel.levels):
            return self._exact, channel.filter
        if channel.levels[-1] == "+" and is_exact(channel.levels[:-1]):
            return self._children, channel.filter[:-2]
        return self._others, ""

    # The connection.

    async def restore(self, link: MqttLink) -> None:
        """Ask for everything on a new link; returns when the broker has answered."""
        self.attach(link)
        for wanted in self._wanted.values():
            for channel in wanted.channels:
                channel.renew()
        for number, wanted in enumerate(list(self._wanted.values()), 1):
            self.ask(wanted, tuple(h for channel in wanted.channels for h in channel.handlers))
            if number % AT_ONCE == 0:
                await link.ping()
        await link.ping()

    def attach(self, link: MqttLink | None) -> None:
        """The link is there, or away."""
        self.link = link
        if link is not None:
            link.on_route = self._route
            link.on_retained = self._route_retained

    def _route(self, topic: str, published: Published) -> tuple[Route, bool]:
        found = list(self._find(topic, published))
        route = tuple((handler, name) for channel, name in found for handler in channel.handlers)
        return route, all(channel.recurs for channel, _ in found)

    def _route_retained(self, topic: str, published: Published) -> Route:
        return tuple(
            (handler, name)
            for channel, name in self._find(topic, published)
            for handler in channel.handlers
            if channel.wanted is not None and handler in channel.wanted.fresh
        )

    def _find(self, topic: str, published: Published) -> Iterator[tuple[Channel, str]]:
        for channel in self._candidates(topic, published):
            name = channel.name(topic)
            if name is not None:
                yield channel, name

    def _candidates(self, topic: str, published: Published) -> Iterator[Channel]:
        if published.ids:
            for number in published.ids:
                if number in self._by_number:
                    yield from self._by_number[number].channels
            return
        yield from self._exact.get(topic, ())
        yield from self._children.get(topic.rpartition("/")[0], ())
        if self._others:
            words = levels(topic)
            yield from (c for c in self._others[""] if covers(c.levels, words))


class Boards:
    """All subscriptions of one transport, on as many connections as they need.

    ``open_board`` opens a further connection, ``close_board`` one that is needed no more.
    """

    def __init__(
        self, open_board: Callable[[], Board], close_board: Callable[[Board], None]
    ) -> None:
        self.main = Board()
        self._boards = [self.main]
        self._open = open_board
        self._close = close_board
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._numbered: bool | None = None
        """Whether filters have numbers; None while it is not known what the broker can do."""

    def add(
        self, topic: str, handler: Handler, *, shares: bool = False, passing: bool = False
    ) -> Channel:
        """Note a handler, and ask for its filter. Raises ValueError if MQTT allows no such."""
        channel = self._channels.get((topic, shares))
        if channel is None:
            channel = Channel(topic, shares=shares, passing=passing)
            self._channels[topic, shares] = channel
        channel.handlers += (handler,)
        if channel.wanted is not None:
            channel.wanted.board.ask(channel.wanted, (handler,))
        elif self._numbered is not None:
            self._place(channel)
        return channel

    def remove(self, channel: Channel, handler: Handler) -> None:
        """Forget a handler, and the channel with the last one."""
        handlers = list(channel.handlers)
        if handler not in handlers:
            return
        handlers.remove(handler)
        channel.handlers = tuple(handlers)
        board = channel.wanted.board if channel.wanted is not None else None
        if board is not None and board.link is not None:
            board.link.forget_routes()
        if handlers:
            return
        self._channels.pop((channel.topic, channel.shares), None)
        if board is not None:
            board.leave(channel)
            if board.is_empty and board is not self.main:
                self._boards.remove(board)
                self._close(board)

    def settle(self, *, numbered: bool) -> None:
        """It is known what the broker can do: find a place for every channel.

        ``numbered``: it has subscription identifiers, and shared subscriptions.
        """
        if numbered == self._numbered:
            return
        self._numbered = numbered
        for board in self._boards[1:]:
            self._close(board)
        self.main = Board()
        self._boards = [self.main]
        for channel in self._channels.values():
            self._place(channel)

    def _place(self, channel: Channel) -> None:
        if self._numbered:
            prefix = GROUP if channel.shares else ""
            wanted = self.main.find(prefix + channel.filter)
            wanted = wanted or self.main.want(channel, prefix, numbered=True)
        else:
            covering = (board.find_cover(channel) for board in self._boards)
            wanted = next((found for found in covering if found is not None), None)
            wanted = wanted or self._find_board(channel).want(channel, "", numbered=False)
        wanted.board.join(wanted, channel)

    def _find_board(self, channel: Channel) -> Board:
        for board in self._boards:
            if not board.has_overlap(channel):
                return board
        board = self._open()
        self._boards.append(board)
        return board
