"""The sign of life of a node."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from commlib._packet import now_ms
from commlib.aio._hub import Hub
from commlib.aio._names import check_name
from commlib.aio.pubsub import Sender
from commlib.exceptions import SerializationError
from commlib.msg import HeartbeatMessage

if TYPE_CHECKING:
    from commlib.signing import SigningKey


class Heartbeat(Sender[HeartbeatMessage]):
    """Publishes a sign of life every ``interval`` seconds, from ``run()`` to ``stop()``.

    The first one is published at once, and so is one whenever the connection comes back. One that
    finds no connection, or no room in the outgoing queue, is dropped and counted in
    ``stats.dropped``: told later it would be a lie.
    """

    def __init__(
        self,
        topic: str,
        interval: float,
        hub: Hub,
        *,
        envelope: bool,
        sign: SigningKey | None = None,
    ) -> None:
        if not 0 < interval < inf:
            raise ValueError(f"heartbeat_interval={interval}: it is a time above 0 s")
        self.topic = check_name(topic, hub, "heartbeat_uri")
        super().__init__(topic, HeartbeatMessage, None, hub=hub, envelope=envelope, sign=sign)
        self.interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._series = object()
        """Of beats that follow each other; a timer of a former one finds that it is over."""

    async def _begin(self) -> None:
        self._timer = None
        await super()._begin()
        self.hub.listeners.add(self._beat_when_back)
        self._begin_series()

    async def _end(self) -> None:
        self.hub.listeners.discard(self._beat_when_back)
        if self._timer is not None:
            self._timer.cancel()

    def _beat_when_back(self, connected: bool, reason: Exception | None) -> None:
        if connected and self.ready:
            self._begin_series()

    def _begin_series(self) -> None:
        if self._timer is not None:
            self._timer.cancel()  # else it would keep all that is stopped meanwhile until it is due
        self._series = object()
        self._beat(asyncio.get_running_loop().time(), self._series)

    def _beat(self, due: float, series: object) -> None:
        """Beat, and see to the next one. By a timer: neither a thread nor a task is needed."""
        if series is not self._series or not self._running:
            return
        loop = asyncio.get_running_loop()
        # From when this one was due, so that nothing adds up; those that were missed stay missed.
        due = max(due + self.interval, loop.time())
        self._timer = loop.call_at(due, self._beat, due, series)
        try:
            packet = self.pack(HeartbeatMessage(now_ms()), self.topic)
            self._stats.dropped += not self.offer(packet, self.topic)
        except SerializationError:  # ``max_payload`` is less than a beat
            self._stats.dropped += 1
