"""Subscriptions to Redis channels: who wants what, confirmed by the server, restored on a new link.

A channel or pattern is subscribed once however many handlers it has. The server matches patterns
as globs, whose star crosses the separators, so each topic is filtered again by our grammar. One
that the server has refused is asked for again as long as somebody wants it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from commlib._packet import Packet
from commlib._topics import REDIS_WILDCARDS, is_pattern, matcher, redis_glob
from commlib.exceptions import CommlibError
from commlib.transports._confirmation import Subscribed
from commlib.transports._redis_link import RedisLink, Unexpected, command, error_from
from commlib.transports._redis_pops import ERROR_PAUSE, LONGEST_ERROR_PAUSE
from commlib.transports.base import Handler


class Channel(Subscribed):
    """A channel or pattern on the server, and the handlers behind it."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.is_pattern = is_pattern(topic, REDIS_WILDCARDS)
        self.address = (redis_glob(topic) if self.is_pattern else topic).encode()
        self.was_confirmed = False
        self._matches = matcher(topic, REDIS_WILDCARDS) if self.is_pattern else None

    def frame(self, un: str = "") -> bytes:
        """The command that subscribes, or with ``un="UN"`` ends it."""
        return command(f"{'P' if self.is_pattern else ''}{un}SUBSCRIBE", self.address)

    def dispatch_match(self, topic: str, payload: bytes) -> None:
        """Hand over what the server found to match, if the grammar agrees."""
        if self._matches is None or self._matches(topic):
            packet = Packet(payload, topic)
            for handler in self.handlers:
                handler(packet)


class Channels:
    """All subscriptions of one transport.

    ``on_refused`` is told why the server does not give us one any more.
    """

    def __init__(
        self, on_garbage: Callable[[Any], None], on_refused: Callable[[CommlibError], None]
    ) -> None:
        self._on_garbage = on_garbage
        self._on_refused = on_refused
        self._link: RedisLink | None = None
        self._exact: dict[bytes, Channel] = {}
        self._patterns: dict[bytes, Channel] = {}
        self._asked: deque[Channel | None] = deque()  # answers come in order; None: UNSUBSCRIBE
        self._refused: set[Channel] = set()
        self._pause = ERROR_PAUSE
        self._retry: asyncio.TimerHandle | None = None

    def add(self, topic: str, handler: Handler) -> Channel:
        """Note a handler; its channel is asked for if it is the first one, or was refused."""
        channel = Channel(topic)
        channel = self._half(channel).setdefault(channel.address, channel)
        channel.handlers += (handler,)
        if len(channel.handlers) == 1:
            self._ask(channel)
        elif channel in self._refused:
            channel.renew()  # whoever asks now is told what holds now
            self._ask(channel)
        return channel

    def remove(self, channel: Channel, handler: Handler) -> None:
        """Forget a handler, and the channel with the last one."""
        if not channel.drop(handler):
            return
        half = self._half(channel)
        if not channel.handlers and half.get(channel.address) is channel:
            del half[channel.address]
            self._refused.discard(channel)
            if self._link is not None:
                self._asked.append(None)
                self._link.write([channel.frame("UN")], [])

    def _half(self, channel: Channel) -> dict[bytes, Channel]:
        return self._patterns if channel.is_pattern else self._exact

    def _ask(self, *channels: Channel) -> None:
        if self._link is not None:
            self._asked.extend(channels)
            self._link.write([channel.frame() for channel in channels], [])

    async def restore(self, link: RedisLink) -> None:
        """Subscribe everything on a new link; returns when the server has answered."""
        self._asked.clear()
        self._forget_refusals()
        self._link = link
        link.on_reply = self._take
        link.probe = lambda: link.write([command("PING")], [])
        channels = [*self._exact.values(), *self._patterns.values()]
        for channel in channels:
            channel.renew()
        if channels:
            self._ask(*channels)
            # Answers come in order: the last one stands for all.
            ends: list[asyncio.Future[Any]] = [channels[-1].confirmed, link.closed]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    def detach(self) -> None:
        """The link is away."""
        self._link = None
        self._forget_refusals()

    # What the server refuses, it may give a moment later: a right that comes back, or a script that
    # has kept it busy.

    def _note_refusal(self, channel: Channel, error: CommlibError) -> None:
        if channel not in self._refused:
            self._refused.add(channel)
            self._forget_retry()  # a new trouble is looked after sooner than an old one
            if channel.was_confirmed:
                self._on_refused(error)  # else it is told to those who asked
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._ask_again)
            self._pause = min(2 * self._pause, LONGEST_ERROR_PAUSE)

    def _ask_again(self) -> None:
        self._retry = None
        if self._refused:
            self._ask(*self._refused)

    def _forget_retry(self) -> None:
        self._pause = ERROR_PAUSE
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _forget_refusals(self) -> None:
        self._refused.clear()
        self._forget_retry()

    def _take(self, reply: Any) -> None:
        if reply.__class__ is not list:
            self._take_answer(reply)
            return
        kind = reply[0] if reply else None
        if kind == b"message":
            if (
                len(reply) != 3
                or reply[1].__class__ is not bytes
                or reply[2].__class__ is not bytes
            ):
                raise Unexpected(reply)
            channel = self._exact.get(reply[1])
            if channel is not None:
                packet = Packet(reply[2], channel.topic)
                for handler in channel.handlers:
                    handler(packet)
        elif kind == b"pmessage":
            if (
                len(reply) != 4
                or reply[1].__class__ is not bytes
                or reply[2].__class__ is not bytes
                or reply[3].__class__ is not bytes
            ):
                raise Unexpected(reply)
            channel = self._patterns.get(reply[1])
            if channel is not None:
                channel.dispatch_match(reply[2].decode("utf8", "replace"), reply[3])
        elif kind != b"pong":
            self._confirm(None)

    def _take_answer(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._confirm(error_from(reply, "SUBSCRIBE"))
        elif reply != "PONG" and reply != b"PONG":
            self._on_garbage(reply)

    def _confirm(self, error: CommlibError | None) -> None:
        channel = self._asked.popleft() if self._asked else None
        if channel is None:
            return
        if error is not None and channel.handlers:
            self._note_refusal(channel, error)
        elif channel in self._refused:
            self._refused.remove(channel)
        channel.was_confirmed |= error is None
        channel.confirm(error)
