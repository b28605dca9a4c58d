"""Who wants which topics of one connection, and which filters the broker was asked for.

Brokers differ in what they do when several filters of one connection match a message: Mosquitto
sends one copy on MQTT 3.1.1 and one for each filter on MQTT 5; NATS sends several. So on MQTT 5
each filter has a number (Subscription Identifier), and a copy goes only to those who wait behind
the numbers it bears. Where there are no numbers a board never holds two filters that overlap: one
that is covered by another is served from what that one brings, and one that overlaps otherwise
needs a board, that is a connection, of its own.

A filter stays as long as a channel that it serves: to change over from a wide one to the narrow
ones that it covered would lose messages, or double them. If the broker refuses a wide filter, what
it covered is asked for by itself.

What a broker has stored (retained) comes as an answer to SUBSCRIBE, so it goes to those alone for
whom that was sent, and a further handler makes the filter be asked for again.

A right that was taken from a user may be given back. So as long as somebody wants what the broker
refuses, as it can after a reconnection, it is asked for now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count

from commlib._anchors import Anchors
from commlib._session import AUTH_PAUSE
from commlib.exceptions import AuthError, ConnectError
from commlib.transports._mqtt_channel import Channel, Wanted
from commlib.transports._mqtt_codes import FAILURE, refusal
from commlib.transports._mqtt_control import V311
from commlib.transports._mqtt_filters import Levels, covers, is_exact, levels, overlap
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_link import MqttLink
from commlib.transports._mqtt_routes import Route
from commlib.transports.base import Handler, LinkStats

GROUP = "$share/commlib/"
HIGHEST_QOS = 2  # asked for always: what comes is delivered as it was published
AT_ONCE = 1000  # filters that are asked for before their answers are waited for


class Board:
    """The filters of one connection.

    ``on_refused`` is told of a filter that the broker will not have, and ``ask_again`` called when
    it may have it by now. ``stats`` counts stored requests, which are as good as expired.
    """

    def __init__(self, stats: LinkStats) -> None:
        self.link: MqttLink | None = None
        self.on_refused: Callable[[Wanted], None] = lambda wanted: None
        self.ask_again: Callable[[Wanted], None] = lambda wanted: self.ask(wanted, wanted.handlers)
        self._stats = stats
        self._wanted: dict[str, Wanted] = {}
        self._by_number: dict[int, list[Wanted]] = {}
        self._numbers = count(1)
        self._unsettled: set[Wanted] = set()  # those with somebody fresh
        self._pinging: asyncio.Future[None] | None = None
        # Where a topic is looked for that bears no number.
        self._exact: dict[str, list[Channel]] = {}
        self._children: dict[str, list[Channel]] = {}  # of filters that end with /+
        self._others: Anchors[Channel] = Anchors()
        # The filters with wildcards.
        self._wide: Anchors[Wanted] = Anchors()

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
        patterns = self._patterns(channel.levels)
        return next((w for w in patterns if covers(w.levels, channel.levels)), None)

    def has_overlap(self, channel: Channel) -> bool:
        """Whether a filter of this board matches something that the channel's does."""
        exact = is_exact(channel.levels)
        against = self._patterns(channel.levels) if exact else self._granted()
        return any(overlap(wanted.levels, channel.levels) for wanted in against)

    @property
    def has_refusals(self) -> bool:
        """Whether the broker has refused a filter."""
        return any(wanted.is_refused for wanted in self._wanted.values())

    def _granted(self) -> Iterator[Wanted]:
        return (wanted for wanted in self._wanted.values() if not wanted.is_refused)

    def _patterns(self, wanted: Levels) -> Iterator[Wanted]:
        """The filters with wildcards that may cover this filter, or match this topic."""
        return (wide for wide in self._wide.find(wanted) if not wide.is_refused)

    def want(self, channel: Channel, prefix: str, *, numbered: bool) -> Wanted:
        """A new filter for a channel, yet to be asked for."""
        text = prefix + channel.filter
        number = self._number_for(text) if numbered else 0
        wanted = Wanted(self, text, channel.levels, number)
        self._wanted[wanted.text] = wanted
        if not is_exact(wanted.levels):
            self._wide.add(wanted.levels, wanted)
        if numbered:
            self._by_number.setdefault(number, []).append(wanted)
        return wanted

    def _number_for(self, text: str) -> int:
        return next(self._numbers)

    def join(self, wanted: Wanted, channel: Channel) -> None:
        """Serve a channel from this filter, and ask the broker for it."""
        channel.wanted = wanted
        wanted.channels.append(channel)
        if (place := self._place(channel)) is None:
            self._others.add(channel.levels, channel)
        else:
            shelf, key = place
            shelf.setdefault(key, []).append(channel)
        self.ask(wanted, channel.handlers)

    def ask(self, wanted: Wanted, fresh: tuple[Handler, ...]) -> None:
        """SUBSCRIBE, for these handlers, if the connection is there."""
        link = self.link
        if link is None:
            return
        link.routes.forget(wanted.number)
        wanted.refresh(fresh, ping_under_way=self._pinging is not None)

        def answered(code: int) -> None:
            if code < FAILURE:
                wanted.is_refused = False
                wanted.put_off(None)
                for channel in wanted.channels:
                    channel.confirm(None)
            else:
                self._refuse(wanted, code)

        link.subscribe(wanted.text, HIGHEST_QOS, wanted.number, answered)
        self._unsettled.add(wanted)
        self._ping(link)

    def _refuse(self, wanted: Wanted, code: int) -> None:
        assert self.link is not None, "it is the link that tells of this"
        # MQTT 3.1.1 has one code for all reasons, and the usual one is the lack of a right.
        kind = AuthError if self.link.version == V311 else ConnectError
        error = refusal(f"SUBSCRIBE {wanted.text}", code, "", kind)
        wanted.is_refused = True
        is_wanted = self._wanted.get(wanted.text) is wanted  # else it was given up meanwhile
        if is_wanted:
            loop = asyncio.get_running_loop()
            wanted.put_off(loop.call_later(AUTH_PAUSE, self.ask_again, wanted))
        for channel in wanted.channels:
            if channel.levels == wanted.levels:
                channel.confirm(error)
        if is_wanted:
            self.on_refused(wanted)

    def _ping(self, link: MqttLink) -> None:
        """Find out when all that the broker has stored has come."""
        if self._pinging is not None:
            return
        pinging = self._pinging = link.ping()

        def answered(answer: asyncio.Future[None]) -> None:
            if self._pinging is not pinging:
                return
            self._pinging = None
            if answer.exception() is None:
                self._unsettled = {w for w in self._unsettled if not w.note_pong()}
                if self._unsettled and self.link is link:
                    self._ping(link)

        pinging.add_done_callback(answered)

    def leave(self, channel: Channel, *, keep: bool = False) -> asyncio.Future[bool] | None:
        """Serve a channel no more; a filter without channels is given up.

        The future is done when the broker has confirmed that, or the link has ended; with ``keep``
        the channel is served until then.
        """
        wanted, ended = channel.wanted, None
        assert wanted is not None, "it has joined before"
        if wanted.channels == [channel]:
            del self._wanted[wanted.text]
            self._wide.discard(wanted)
            self._unsettled.discard(wanted)
            wanted.put_off(None)
            if self.link is not None:
                ended = self.link.unsubscribe(wanted.text)
        if keep and ended is not None:
            ended.add_done_callback(lambda _: self._forget(channel))
        else:
            self._forget(channel)
        return ended

    def _forget(self, channel: Channel) -> None:
        wanted, channel.wanted = channel.wanted, None
        assert wanted is not None, "it is forgotten once"
        wanted.channels.remove(channel)
        if not wanted.channels and wanted.number:
            self._by_number[wanted.number].remove(wanted)
            if not self._by_number[wanted.number]:
                del self._by_number[wanted.number]
        if (place := self._place(channel)) is None:
            self._others.discard(channel)
        else:
            shelf, key = place
            shelf[key].remove(channel)
            if not shelf[key]:
                del shelf[key]
        if self.link is not None:
            self.link.routes.forget(wanted.number)

    def _place(self, channel: Channel) -> tuple[dict[str, list[Channel]], str] | None:
        """Where a channel is found by its topics, and under what name; None: among the others."""
        if is_exact(channel.levels):
            return self._exact, channel.filter
        if channel.levels[-1] == "+" and is_exact(channel.levels[:-1]):
            return self._children, channel.filter[:-2]
        return None

    # The connection.

    async def restore(self, link: MqttLink) -> None:
        """Ask for everything on a new link; returns when the broker has answered."""
        self.attach(link)
        for number, wanted in enumerate(list(self._wanted.values()), 1):
            self.ask(wanted, wanted.handlers)
            if number % AT_ONCE == 0:
                await link.ping()
        await link.ping()

    def attach(self, link: MqttLink | None) -> None:
        """The link is there, or away."""
        self.link = link
        self._pinging = None
        self._unsettled.clear()
        if link is not None:
            link.routes.on_topic = self._route
            link.routes.on_number = self._route_number
            link.routes.on_siblings = self._route_siblings
            link.on_retained = self._route_retained
        for wanted in self._wanted.values():
            wanted.put_off(None)
            for channel in wanted.channels:
                channel.renew()

    def _route(self, topic: str, published: Published) -> tuple[Route, bool]:
        found = list(self._find(topic, published))
        for channel, _ in found:
            if channel.wanted is not None:
                channel.wanted.note_live(topic)
        route = tuple((handler, name) for channel, name in found for handler in channel.handlers)
        return route, not any(channel.is_inbox for channel, _ in found)

    def _route_number(self, number: int, topic: str) -> Channel | None:
        """Who takes what bears this number, if it is that of a filter for this topic alone."""
        for wanted in self._by_number.get(number, ()):
            if len(wanted.channels) == 1 and is_exact(wanted.levels):
                (channel,) = wanted.channels
                if channel.filter == topic:
                    wanted.note_live(topic)
                    return channel
        return None

    def _route_siblings(self, published: Published) -> tuple[Handler, ...]:
        """Who takes replies that come with these properties, if nobody else can want any of them.

        Without the number of a filter that is not known.
        """
        wanted = [w for number in published.ids for w in self._by_number.get(number, ())]
        channels = [channel for each in wanted for channel in each.channels]
        return channels[0].handlers if len(channels) == 1 and channels[0].is_inbox else ()

    def _route_retained(self, topic: str, published: Published) -> Route:
        route = []
        for channel, name in self._find(topic, published):
            wanted = channel.wanted
            assert wanted is not None, "it would not be found"
            if channel.is_queue:
                self._stats.expired += 1  # a request or reply of who knows when
            else:
                route += [(h, name) for h in channel.handlers if wanted.takes_stored(h, topic)]
        return tuple(route)

    def _find(self, topic: str, published: Published) -> Iterator[tuple[Channel, str]]:
        for channel in self._candidates(topic, published):
            name = channel.name(topic)
            if name is not None:
                yield channel, name

    def _candidates(self, topic: str, published: Published) -> Iterator[Channel]:
        if published.ids:
            for number in published.ids:
                for wanted in self._by_number.get(number, ()):
                    yield from wanted.channels
            return
        yield from self._exact.get(topic, ())
        yield from self._children.get(topic.rpartition("/")[0], ())
        if self._others:
            words = levels(topic)
            yield from (c for c in self._others.find(words) if covers(c.levels, words))


class Boards:
    """All subscriptions of one transport, on as many connections as they need.

    ``open_board`` opens a further connection, ``close_board`` one that is needed no more.
    """

    def __init__(
        self,
        stats: LinkStats,
        open_board: Callable[[], Board],
        close_board: Callable[[Board], None],
    ) -> None:
        self._stats = stats
        self._open = open_board
        self._close = close_board
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._numbered: bool | None = None
        """Whether filters have numbers; None while it is not known what the broker can do."""
        self._begin()

    def _begin(self) -> None:
        self.main = Board(self._stats)
        self._boards: list[Board] = []
        self._adopt(self.main)

    def _adopt(self, board: Board) -> None:
        board.on_refused = self._place_anew
        if not self._numbered:
            board.ask_again = self._place_again
        self._boards.append(board)

    def add(self, topic: str, handler: Handler, *, is_queue: bool = False) -> Channel:
        """Note a handler, and ask for its filter. Raises ValueError if MQTT allows no such."""
        channel = self._channels.get((topic, is_queue))
        if channel is None:
            channel = Channel(topic, is_queue=is_queue)
            self._channels[topic, is_queue] = channel
        channel.handlers += (handler,)
        if channel.wanted is not None:
            channel.renew_if_refused()
            channel.wanted.board.ask(channel.wanted, (handler,))
        elif self._numbered is not None:
            self._place(channel)
        return channel

    def remove(
        self, channel: Channel, handler: Handler, *, keep_until_confirmed: bool = False
    ) -> asyncio.Future[bool] | None:
        """Forget a handler, and the channel with the last one.

        With ``keep_until_confirmed`` it goes on being called until the broker sends no more; the
        future, where there is one, is done then.
        """
        if handler not in channel.handlers:
            return None
        wanted = channel.wanted
        board = wanted.board if wanted is not None else None
        if channel.handlers == (handler,):
            self._channels.pop((channel.topic, channel.is_queue), None)
            if board is None:
                channel.handlers = ()
                return None
            return self._leave(board, channel, keep_until_confirmed)
        channel.drop(handler)
        if wanted is not None and wanted.board.link is not None:
            wanted.board.link.routes.forget(wanted.number)
        return None

    def _leave(self, board: Board, channel: Channel, keep: bool) -> asyncio.Future[bool] | None:
        ended = board.leave(channel, keep=keep)
        if not keep:
            channel.handlers = ()
        self._close_if_empty(board)
        return ended

    def _close_if_empty(self, board: Board) -> None:
        if board.is_empty and board is not self.main:
            self._boards.remove(board)
            self._close(board)

    def settle(self, *, numbered: bool) -> None:
        """It is known what the broker can do: find a place for every channel.

        ``numbered``: it has subscription identifiers, and shared subscriptions.
        """
        if numbered == self._numbered and not any(board.has_refusals for board in self._boards):
            return
        self._numbered = numbered
        for board in self._boards[1:]:
            self._close(board)
        self._begin()
        for channel in self._channels.values():
            self._place(channel)

    def _place(self, channel: Channel) -> None:
        if self._numbered:
            prefix = GROUP if channel.is_shared else ""
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
        self._adopt(board)
        return board

    def _place_anew(self, refused: Wanted) -> None:
        """Ask by themselves for those that a filter served which the broker refuses."""
        for channel in [c for c in refused.channels if c.levels != refused.levels]:
            refused.board.leave(channel)
            self._place(channel)

    def _place_again(self, refused: Wanted) -> None:
        """Ask again for a filter that was refused.

        Meanwhile others may have found their place beside it that overlap with it.
        """
        for channel in list(refused.channels):
            refused.board.leave(channel)
            self._place(channel)
        self._close_if_empty(refused.board)
