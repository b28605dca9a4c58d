"""What all bridges have in common: two hubs, counters, rules that must not be."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypedDict

from commlib._bridge_stats import BridgeStats
from commlib._hops import place
from commlib._params import BaseParameters, NetworkParameters
from commlib._routes import spelled
from commlib._turns import turn_of_callback
from commlib.aio._endpoint import Endpoint, ErrorHandler, Params, no_option
from commlib.aio._hub import Hub
from commlib.aio._life import has_failed
from commlib.transports import resolve

log = logging.getLogger("commlib.bridges")

BridgeType = IntEnum | tuple[Any, Any] | None
"""A pair of transports: a member of an enum of ``commlib.bridges``, a tuple, or None for any."""


class BridgeOptions(TypedDict, total=False):
    """What every bridge can be told.

    * ``on_error(error, topic)`` is told of what could not be raised.
    * ``debug``: as of endpoints.
    * ``hub``, ``sink_hub``: connections that others use as well, of the source and of the sink.
    """

    debug: bool
    on_error: ErrorHandler | None
    hub: Hub | None
    sink_hub: Hub | None


class Bridge(Endpoint):
    """A port between two brokers.

    ``hub`` is the connection to the source, ``sink`` that to the other side.
    """

    def __init__(
        self,
        btype: BridgeType,
        from_uri: str,
        to_uri: str,
        from_params: Params,
        to_params: Params,
        /,
        *,
        hub: Hub | None = None,
        sink_hub: Hub | None = None,
        on_error: ErrorHandler | None = None,
        debug: bool = False,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(no_option(type(self), Bridge, next(iter(unknown))))
        types = schemes_of(btype)
        source = hub.params if hub else resolve_for(from_params, types[0])
        sink = sink_hub.params if sink_hub else resolve_for(to_params, types[1])
        name = f"{from_uri} -> {to_uri}"
        _check_apart(name, source, sink)
        super().__init__(name, source, hub=hub, on_error=on_error, debug=debug)
        self.from_uri = from_uri
        self.to_uri = to_uri
        self._has_own_sink = sink_hub is None
        self.sink = sink_hub or Hub(sink, name)
        self._stats: BridgeStats = BridgeStats()
        self._joining: asyncio.Task[None] | None = None
        self._tell_difference(types, source, sink)

    def _tell_difference(
        self, types: tuple[str, str], source: BaseParameters, sink: BaseParameters
    ) -> None:
        wrong = [
            f"{params.schemes[0]} instead of {scheme}"
            for scheme, params in zip(types, (source, sink), strict=True)
            if scheme and scheme not in params.schemes
        ]
        if wrong:
            log.warning(
                "%s: the bridge type is not used, the connection parameters are for %s",
                *(self.name, " and for ".join(wrong)),
            )

    @property
    def connected(self) -> bool:
        """Whether the connections to both brokers are there now."""
        return self.hub.transport.connected and self.sink.transport.connected

    async def wait_connected(self, timeout: float = 30) -> bool:
        """Whether both connections are there, or come within ``timeout`` seconds.

        Otherwise as of other endpoints.
        """
        self.check_open()
        for hub in (self.hub, self.sink):  # before one of them begins to live on this loop
            hub.check_loop()
        return all(
            await asyncio.gather(*(hub.wait_connected(timeout) for hub in (self.hub, self.sink)))
        )

    @property
    def own_stats(self) -> BridgeStats:
        return self._stats

    @property
    def stats(self) -> BridgeStats:
        source, sink = self.hub.link_stats, self.sink.link_stats
        stats = self._stats.with_links(source, sink)
        return dataclasses.replace(stats, source=source, sink=sink)

    async def run(self, wait: bool = True) -> None:
        """Begin to work; idempotent.

        With ``wait`` it returns when both brokers have confirmed, or after the ``connect_timeout``
        of one that has not with a warning, and goes on trying. Raises AuthError when one says no,
        and ConnectError with ``reconnect=False``.
        """
        await self._run(lambda hub: wait)

    async def run_beside(self) -> None:
        """Begin to work beside others that do already; waits for each broker if it is there.

        What comes from the source after that is kept until the sink is there.
        """
        await self._run(lambda hub: hub.transport.connected)

    async def _run(self, waits_for: Callable[[Hub], bool]) -> None:
        if not await self.may_begin(turn_of_callback()):
            return
        is_new = not self._is_begun
        beginning = self.start()
        assert self._joining is not None, "start() has set it"
        sides = (
            (self.hub, beginning, self._has_own_hub),
            (self.sink, self._joining, self._has_own_sink),
        )
        waits = []
        for hub, task, is_own in sides:
            if waits_for(hub):
                waits.append(hub.settle(self.name, task, quiet=not is_own))
            elif is_new:
                hub.tell_errors(task)
        await asyncio.gather(*waits)

    async def _reopen(self) -> None:
        await asyncio.gather(self.hub.reopen(), self.sink.reopen())

    def start(self) -> asyncio.Future[None]:
        # The one that is the bridge's own lives where the other one does.
        known = self.hub if self._has_own_sink else self.sink
        for hub in (self.hub, self.sink):
            if hub.loop is None:
                hub.home = known.home
        self.sink.start()
        if self._joining is None or has_failed(self._joining) or not self._is_begun:
            self._joining = self.sink.spawn(self._join())
        return super().start()

    async def _join(self) -> None:
        """Return when the sink can be used."""
        await self.sink.transport.connect()

    @property
    def ready(self) -> bool:
        return super().ready and self._joining is not None and self._joining.done()

    async def stop(self) -> None:
        """Take nothing more, send what waits if the sink is there, leave; idempotent.

        What could not be sent is counted as dropped.
        """
        for hub in (self.hub, self.sink):
            hub.check_here()
        self.sink.leave_loop()
        await super().stop()

    @property
    def _is_apart(self) -> bool:
        return super()._is_apart or self._has_own_sink

    async def _end_life(
        self, beginning: asyncio.Future[None] | None, former: asyncio.Task[None] | None
    ) -> None:
        joining, self._joining = self._joining, None
        try:
            if joining is not None and joining.get_loop() is asyncio.get_running_loop():
                joining.cancel()
                await asyncio.wait([joining])
            await super()._end_life(beginning, former)
        finally:
            if self._has_own_sink:
                await self.sink.close()

    def _place(self, hub: Hub, topic: str) -> str:
        return place(hub.params.address, spelled(topic, hub.transport.traits.separator))


def _check_apart(name: str, source: BaseParameters, sink: BaseParameters) -> None:
    """Raises ValueError for two lists of brokers that may end up at the same one."""
    sides = [
        {each.address for each in side.each_place()}
        if isinstance(side, NetworkParameters)
        else set()
        for side in (source, sink)
    ]
    if source.address != sink.address and sides[0] & sides[1]:
        raise ValueError(
            f"{name}: a broker that both sides may use would get each message twice; "
            "their fallbacks must differ"
        )


def at_node(hub: Hub, from_params: Params, to_params: Params) -> BridgeOptions:
    """A node's connection as the side of a bridge that has no parameters.

    Raises ValueError unless that is one of the two.
    """
    if (from_params is None) == (to_params is None):
        raise ValueError(
            "a bridge of a node needs the parameters of the other broker alone: to_broker_params "
            "if messages go there, from_broker_params if they come from there"
        )
    return {"hub": hub} if from_params is None else {"sink_hub": hub}


def resolve_for(params: Params, scheme: str) -> BaseParameters:
    """The parameters as given; where none are, those of the usual place of this kind of broker."""
    return resolve(None, scheme) if params is None else resolve(params)


def schemes_of(btype: BridgeType) -> tuple[str, str]:
    """The URL schemes of the two sides, empty where it is not said.

    Raises TypeError for what is no bridge type.
    """
    if btype is None:
        return "", ""
    parts = btype.name.split("_TO_") if isinstance(btype, IntEnum) else btype
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise TypeError(
            f"btype={btype!r}: it is TopicBridgeType.REDIS_TO_MQTT or the like, a pair such as "
            "('redis', 'memory'), or None, for the parameters tell"
        )
    first, second = (str(getattr(part, "name", part) or "").lower() for part in parts)
    return first, second
