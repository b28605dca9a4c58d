"""Subscriptions that outlive their connection, in sessions that the broker keeps.

Such a session has a connection of its own: on the main one the broker would also keep the shares
that a program which is gone has in the requests to its services. The main one bears the client id
as it was given, for what the broker allows by it was allowed before there was a session to keep;
the others bear it with an end of their own, which has to be the same in each run.

What the broker has kept comes right behind its yes to CONNECT, before it is asked for anything, and
with the numbers (Subscription Identifiers) of an earlier run. So a number is made from the text of
its filter, and all are known before the link reads. Where there are no numbers no two filters of
one session may overlap: names share one, each pattern has one for itself.

A program may make its subscribers one after the other. So what comes for none of them is not
acknowledged for a while; then it is dropped, and its filter given up. What is still to come for
that is dropped at once: the broker may have kept a lot of it, before what the others wait for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from zlib import crc32

from commlib._packet import Packet
from commlib.transports._mqtt_board import Board
from commlib.transports._mqtt_channel import Channel, Wanted
from commlib.transports._mqtt_filters import covers, is_exact, levels, matching
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_link import MqttLink, Unclaimed
from commlib.transports._mqtt_routes import Route
from commlib.transports.base import Handler, LinkStats

log = logging.getLogger("commlib.mqtt")

UNCLAIMED_SECONDS = 10.0  # as long as run() waits for a broker by itself: programs are up by then
NUMBERED, NAMES, PATTERN = "-lasting", "-lasting-names", "-lasting-{:08x}"
"""What the client ids of sessions end with."""
LARGEST_NUMBER = 0x0FFFFFFF  # of a Subscription Identifier: MQTT 5, section 3.8.2.1.2

Key = tuple[int, ...] | str
"""The numbers that a message bears, or its topic, if it bears none."""


class Held:
    """What waits for who wants it; ``topic`` and ``published`` are those of the first message."""

    def __init__(self, first: Unclaimed) -> None:
        self.topic = first.topic
        self.published = first.published
        self.messages: list[Unclaimed] = []


class Lasting:
    """A subscription that the broker keeps, as its owner sees it."""

    def __init__(self, boards: LastingBoards, channel: Channel, handler: Handler) -> None:
        self.channel = channel
        self.handler = handler
        self._boards = boards
        self._is_kept = False

    @property
    def working(self) -> bool:
        """False while the broker refuses it."""
        return self.channel.working

    def keep(self) -> None:
        if not self._is_kept:
            self._is_kept = True
            self._boards.note_kept(self)

    async def close(self) -> None:
        self._boards.remove(self, keep=self._is_kept)


class LastingBoard(Board):
    """The filters of one session that the broker keeps.

    ``name`` is the broker's, for the log. ``on_ended`` is told when the broker has given one up.
    """

    def __init__(self, stats: LinkStats, name: str) -> None:
        super().__init__(stats)
        self.is_left = False
        """Whether nothing more is to be taken: what still comes stays with the broker."""
        self.on_ended: Callable[[], None] = lambda: None
        self._name = name
        self._ended: dict[str, asyncio.Future[bool] | None] = {}
        """Filters that were given up, and the broker has not confirmed it; what it is asked by."""
        self._was_linked = False
        self._received: set[int] = set()
        self._early: set[str] = set()
        self._link: MqttLink | None = None
        self._unclaimed: dict[Key, Held] = {}
        self._given_up: set[Key] = set()
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def is_empty(self) -> bool:
        return super().is_empty and not self._ended

    def _number_for(self, text: str) -> int:
        # Two filters of one number do no harm: `_candidates` tells them apart, but where they
        # overlap, and that is one pair in 268 million.
        return crc32(text.encode()) & LARGEST_NUMBER or 1

    # The connection.

    def prepare(self, link: MqttLink) -> None:
        """Be there for what the broker has kept. It may be asked for filters when it has answered.

        Called before the link reads anything.
        """
        self._forget_early()  # of a link that came to nothing
        self._link = link
        for text in self._ended:
            self._expect_no_more(text)
        link.received = self._received
        link.routes.on_topic = self._route
        link.on_retained = self._route_retained
        link.on_unclaimed = self._hold

    async def restore(self, link: MqttLink) -> None:
        if self._was_linked and not link.granted.is_resumed:
            log.warning("%s has kept nothing: what was published meanwhile is lost", self._name)
        self._was_linked = True
        for text in list(self._ended):
            self._note_ended(text, link.unsubscribe(text))
        await super().restore(link)
        self._early.clear()

    def attach(self, link: MqttLink | None) -> None:
        super().attach(link)
        if link is None:
            self._forget_early()

    def _forget_early(self) -> None:
        self._early.clear()
        self._given_up.clear()
        self._unclaimed.clear()  # the broker, which was not told that they came, sends them again
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def ask(self, wanted: Wanted, fresh: tuple[Handler, ...]) -> None:
        super().ask(wanted, fresh)
        for topic in self._early:
            wanted.note_live(topic)  # what the broker has stored of these is older

    # The end of a filter.

    def end(self, channel: Channel) -> None:
        """Serve a channel no more, and have the broker give up its filter, now or on a later link.

        Until it has done so the channel is served.
        """
        asked = self.leave(channel, keep=True)
        if self.find(channel.filter) is None:
            self._note_ended(channel.filter, asked)

    def _note_ended(self, text: str, asked: asyncio.Future[bool] | None) -> None:
        self._ended[text] = asked
        if asked is not None:
            asked.add_done_callback(lambda _: self._note_confirmed(text, asked))

    def _note_confirmed(self, text: str, asked: asyncio.Future[bool]) -> None:
        if asked.result() and self._ended.get(text) is asked:
            del self._ended[text]
            self._expect_no_more(text)
            self.on_ended()

    def _expect_no_more(self, text: str) -> None:
        """What still comes for this filter is no reason to wait for somebody."""
        self._given_up |= {text, (self._number_for(text),)}

    # What comes.

    def _route(self, topic: str, published: Published) -> tuple[Route, bool]:
        if self.link is None:
            self._early.add(topic)
        route, recurs = super()._route(topic, published)
        return route, recurs and bool(route)  # what reaches nobody is to be counted

    def _route_number(self, number: int, topic: str) -> Channel | None:
        return None  # it may be that of another filter as well

    def _candidates(self, topic: str, published: Published) -> Iterator[Channel]:
        words = levels(topic)
        return (c for c in super()._candidates(topic, published) if covers(c.levels, words))

    def _hold(self, message: Unclaimed) -> bool:
        """Keep what nobody takes. False: it is nobody's that is to come."""
        if self.is_left:
            return True
        if any(self._candidates(message.topic, message.published)):
            return False
        key: Key = tuple(message.published.ids) or message.topic
        if key in self._given_up:
            self._stats.expired += 1
            return False
        held = self._unclaimed.setdefault(key, Held(message))
        if self._giving_up is None:
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(UNCLAIMED_SECONDS, self._give_up)
        if not message.qos:  # it tells of its filter; the broker would not have kept it
            self._stats.expired += 1
            return False
        held.messages.append(message)
        return True

    def claim(self, channel: Channel) -> None:
        """Hand over what waits for a channel that has just joined."""
        self._ended.pop(channel.filter, None)
        self._given_up = {key for key in self._given_up if not self._is_claimed(key)}
        for key, held in list(self._unclaimed.items()):
            if any(self._candidates(held.topic, held.published)):
                del self._unclaimed[key]
                for message in held.messages:
                    self._hand_over(message)

    def _is_claimed(self, key: Key) -> bool:
        if isinstance(key, str):
            return any(self._candidates(key, Published()))
        return any(number in self._by_number for number in key)

    def _hand_over(self, message: Unclaimed) -> None:
        route, _ = self._route(message.topic, message.published)
        for handler, name in route:
            expiry = message.published.expiry
            handler(Packet(message.payload, name, message.header, expiry))
        self._acknowledge(message)

    def _acknowledge(self, message: Unclaimed) -> None:
        assert self._link is not None, "it has brought the message"
        self._link.acknowledge(message.qos, message.packet_id)

    def _give_up(self) -> None:
        """Drop what was claimed by nobody, and ask for no more of it."""
        assert self._link is not None, "nothing is held without one"
        unclaimed, self._unclaimed, self._giving_up = self._unclaimed, {}, None
        self._given_up.update(unclaimed)
        for held in unclaimed.values():
            text = self._filter_of(held)
            log.warning(
                "%s: an earlier run has subscribed to %s, this one has not for %g s: given up, "
                "with what the broker has kept for it",
                *(self._name, text, UNCLAIMED_SECONDS),
            )
            self._link.unsubscribe(text)
            self._stats.expired += len(held.messages)
            for message in held.messages:
                self._acknowledge(message)

    def _filter_of(self, held: Held) -> str:
        """The filter that has brought a message; the topic, if that is not to be found out."""
        ids, topic = held.published.ids, held.topic
        return next((text for text in matching(topic) if self._number_for(text) in ids), topic)


class LastingBoards:
    """All lasting subscriptions of one transport, in as many sessions as they need.

    ``open_board`` opens a connection whose client id ends with a text, ``close_board`` one that is
    needed no more.
    """

    def __init__(
        self, open_board: Callable[[str], LastingBoard], close_board: Callable[[Board], None]
    ) -> None:
        self._open = open_board
        self._close = close_board
        self._boards: dict[str, LastingBoard] = {}
        self._channels: dict[str, Channel] = {}
        self._in_use: set[Lasting] = set()
        self._numbered: bool | None = None
        """Whether filters have numbers; None while it is not known what the broker can do."""

    def add(self, topic: str, handler: Handler) -> Lasting:
        """Note a handler, and ask for its filter. Raises ValueError if MQTT allows no such."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = Channel(topic)
        channel.handlers += (handler,)
        subscription = Lasting(self, channel, handler)
        self._in_use.add(subscription)
        if channel.wanted is not None:
            channel.renew_if_refused()
            channel.wanted.board.ask(channel.wanted, (handler,))
        elif self._numbered is not None:
            self._place(channel)
        return subscription

    def settle(self, *, numbered: bool) -> None:
        """It is known whether the broker has numbers: find a place for every channel."""
        if numbered == self._numbered:
            return
        self._numbered = numbered
        self._close_all()
        for channel in self._channels.values():
            self._place(channel)

    def _place(self, channel: Channel) -> None:
        end = self._end_for(channel)
        board = self._boards.get(end)
        if board is None:
            board = self._boards[end] = self._open_board(end)
        wanted = board.find(channel.filter)
        wanted = wanted or board.want(channel, "", numbered=bool(self._numbered))
        board.join(wanted, channel)
        board.claim(channel)

    def _open_board(self, end: str) -> LastingBoard:
        board = self._open(end)

        def close_if_empty() -> None:
            if board.is_empty and self._boards.get(end) is board:
                del self._boards[end]
                self._close(board)

        board.on_ended = close_if_empty
        return board

    def _end_for(self, channel: Channel) -> str:
        if self._numbered:
            return NUMBERED
        if is_exact(channel.levels):
            return NAMES
        return PATTERN.format(crc32(channel.filter.encode()))

    def note_kept(self, subscription: Lasting) -> None:
        """This one is about to end here, and not at the broker; with the last one all are left."""
        self._in_use.discard(subscription)
        if not self._in_use:
            self._close_all()
            self._channels = {}

    def _close_all(self) -> None:
        boards, self._boards = self._boards, {}
        for board in boards.values():
            board.is_left = True
            self._close(board)

    def remove(self, subscription: Lasting, *, keep: bool) -> None:
        """Forget a handler, and with the last one its filter, unless the broker is to ``keep`` it.

        What comes for a filter that is kept while others go on reaches nobody.
        """
        self._in_use.discard(subscription)
        channel = subscription.channel
        if not channel.drop(subscription.handler):
            return
        wanted = channel.wanted
        if wanted is not None and wanted.board.link is not None:
            wanted.board.link.routes.forget(wanted.number)
        if channel.handlers or (keep and not (wanted is not None and wanted.is_refused)):
            return
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]
        if wanted is not None:
            assert isinstance(wanted.board, LastingBoard), "no other one is opened here"
            wanted.board.end(channel)
