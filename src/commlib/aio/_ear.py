"""Listens to what others tell of nodes, on the connection of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from commlib.aio._hub import Hub
from commlib.exceptions import CommlibError
from commlib.transports.base import Handler, Subscription


class Ear:
    """Subscriptions that are made as soon as the broker is there.

    ``hears`` are the handlers by topic. ``on_open`` is told when the broker has confirmed all,
    ``on_refusal`` with the hub and the error that it has not and will not.
    """

    def __init__(
        self,
        hub: Hub,
        hears: Mapping[str, Handler],
        on_open: Callable[[], None],
        on_refusal: Callable[[Hub, Exception], None],
    ) -> None:
        self.hub = hub
        self.is_open = False
        self._hears = hears
        self._on_open = on_open
        self._on_refusal = on_refusal
        self._subscriptions: list[Subscription] = []
        self._is_opening = self._is_closed = False

    def open(self) -> None:
        """Begin to listen, if that is not done yet."""
        if not (self.is_open or self._is_opening or self._is_closed):
            self._is_opening = True
            self.hub.spawn(self._open())

    async def _open(self) -> None:
        transport = self.hub.transport
        try:
            for topic, hear in self._hears.items():
                self._subscriptions.append(await transport.subscribe(topic, hear))
        except CommlibError as exc:
            await self._end()
            # Without a connection it is not the right to listen that is missing: when it comes,
            # this is tried again.
            if transport.connected and not self._is_closed:
                self._on_refusal(self.hub, exc)
            return
        finally:
            self._is_opening = False
        if self._is_closed:
            await self._end()
            return
        self.is_open = True
        self._on_open()

    def close(self) -> None:
        """Listen no more."""
        self._is_closed = True
        if self.is_open:
            self.is_open = False
            self.hub.spawn(self._end())

    async def _end(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()
