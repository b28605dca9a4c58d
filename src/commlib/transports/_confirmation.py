"""Whether the broker has said yes to a subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from commlib.exceptions import CommlibError
from commlib.transports.base import Handler

log = logging.getLogger("commlib.session")


class Confirmation:
    """A name or pattern that the broker was asked for.

    ``confirmed`` is done when it has answered.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(self) -> None:
        """Return when the broker has said yes. Raises what it says instead."""
        confirmed = self.confirmed
        await asyncio.wait([confirmed])  # who is cancelled leaves it for the others
        confirmed.result()

    def renew(self) -> None:
        """The broker has to confirm again."""
        if self.confirmed.done():
            self.confirmed = self.confirmed.get_loop().create_future()

    def renew_if_refused(self) -> None:
        """Whoever asks now is to be told what holds now."""
        if not self.working:
            self.renew()

    @property
    def working(self) -> bool:
        """Whether the broker has said yes, and has not said no since."""
        answer = self.confirmed
        return answer.done() and not answer.cancelled() and answer.exception() is None

    def confirm(self, error: CommlibError | None) -> None:
        """The broker has said yes, or why not; asked again it may say something else."""
        is_change = self.confirmed.done()
        if is_change:
            if self.working == (error is None):
                return
            self.renew()
        if error is None:
            self.confirmed.set_result(None)
            if is_change:
                log.warning("%s is subscribed again", self.topic)
            return
        log.warning("%s cannot be subscribed: %s", self.topic, error)
        self.confirmed.set_exception(error)
        self.confirmed.exception()  # marked as seen: after a reconnection nobody waits for it


class Subscribed(Confirmation):
    """One with the handlers behind it."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.handlers: tuple[Handler, ...] = ()

    def drop(self, handler: Handler) -> bool:
        """Forget a handler, once if it is there several times; whether it was there."""
        if handler not in self.handlers:
            return False
        at = self.handlers.index(handler)
        self.handlers = self.handlers[:at] + self.handlers[at + 1 :]
        return True


class Ending:
    """A subscription as its owner sees it: something that ends, by a function of those arguments.

    There are many, and a function that has none would have to hold them: five objects more.
    """

    __slots__ = ("_end", "_found", "_handler")

    def __init__(
        self, end: Callable[[Any, Handler], object], found: Confirmation, handler: Handler
    ) -> None:
        self._end = end
        self._found = found
        self._handler = handler

    @property
    def working(self) -> bool:
        """False while the broker refuses it, or has not answered yet."""
        return self._found.working

    async def close(self) -> None:
        self._end(self._found, self._handler)
