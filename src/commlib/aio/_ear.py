"""Listens to what others tell of nodes, on the connection of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from commlib.aio._hub import Hub
from commlib.exceptions import CommlibError
from commlib.transports.base import Handler, Subscription


class Ear:
    """Subscriptions on a connection that is there, until it breaks. On the loop.

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
        self._on_open = on_open
        self._on_refusal = on_refusal
        self._subscriptions: list[Subscription] = []
        self._is_closed = False
        hub.spawn(self._open(hears))

    async def _open(self, hears: Mapping[str, Handler]) -> None:
        transport = self.hub.transport
        try:
            for topic, hear in hears.items():
                self._subscriptions.append(await transport.subscribe(topic, hear))
        except CommlibError as exc:
            # Without a connection it is not the right to listen that is missing.
            is_refused = transport.connected
            await self._end()
            if is_refused and not self._is_closed:
                self._on_refusal(self.hub, exc)
            return
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
