"""Bridges for actions: goals go from one broker to the other, feedback and states come back."""

from __future__ import annotations

import asyncio
from typing import Unpack

from commlib import _topics
from commlib._bridge_stats import BridgeStats
from commlib._store import Keep
from commlib.aio._action import CALLS, NEWS, part_name
from commlib.aio._bridge import Bridge, BridgeOptions, BridgeType
from commlib.aio._endpoint import GRACE, Params
from commlib.aio._outlet import RESUME_SECONDS, Outlet
from commlib.aio._rpc_bridge import RPCBridge
from commlib.aio._rpc_service import TASKS
from commlib.aio._topic_bridge import TopicBridge


class ActionOptions(BridgeOptions, total=False):
    """The options of bridges for actions.

    * ``concurrency``: how many calls of each kind may be under way at once.
    * ``timeout`` (s): how long an answer is waited for where the caller does not say how long it
      waits itself.
    * ``keep``: how much waits, states and feedback together, while the broker of the clients is
      away.
    """

    concurrency: int
    timeout: float
    keep: Keep


class ActionBridge(Bridge):
    """Clients of the action ``from_uri`` on one broker pursue goals of ``to_uri`` on the other.

    An action is three services and two topics: so this is three bridges for calls there, and two
    for topics back. Whatever a goal, its feedback and its result hold is passed on, and goals keep
    their ids. States and feedback keep their order, also if they have to wait. Options:
    ``ActionOptions``. Raises ValueError for an action that is bridged to itself.
    """

    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        *,
        concurrency: int = TASKS,
        timeout: float = 30.0,
        keep: Keep = Keep(),  # noqa: B008 - it is frozen
        **options: Unpack[BridgeOptions],
    ) -> None:
        _topics.check_topic(from_uri, "from_uri")
        _topics.check_topic(to_uri, "to_uri")
        super().__init__(btype, from_uri, to_uri, from_broker_params, to_broker_params, **options)
        self.parts: list[Bridge] = []
        self._outlet = Outlet(
            *(self.hub, self.name, keep, RESUME_SECONDS, self._stats, self._report)
        )
        there: BridgeOptions = {"hub": self.hub, "sink_hub": self.sink, "on_error": self._on_error}
        back: BridgeOptions = {"hub": self.sink, "sink_hub": self.hub, "on_error": self._on_error}
        for name in NEWS:
            names = part_name(to_uri, name), part_name(from_uri, name)
            self.parts.append(TopicBridge(None, *names, outlet=self._outlet, **back))
        for name in CALLS:
            names = part_name(from_uri, name), part_name(to_uri, name)
            part = RPCBridge(None, *names, concurrency=concurrency, timeout=timeout, **there)
            part.may_be_heard_of = name == "send_goal"
            if name == "get_result":  # a goal has ended for who has the result: its feedback first
                part.before_reply = self._outlet.opened
            self.parts.append(part)

    @property
    def stats(self) -> BridgeStats:
        """The counters of all parts together, as they are now."""
        total = super().stats
        for part in self.parts:
            total.add(part.own_stats)
        return total

    @property
    def ready(self) -> bool:
        return super().ready and all(part.ready for part in self.parts)

    async def run_beside(self) -> None:
        """As of other bridges; one of an action needs both brokers before it hears of goals."""
        await self.run(self.connected)

    async def _begin(self) -> None:
        await self._outlet.stop(0)  # after a run that a broker has refused
        self._outlet.start()
        # One after another, so that what clients hear of a goal is bridged before goals are taken.
        for part in self.parts:
            await part.start()

    async def _end(self) -> None:
        await asyncio.gather(*(part.stop() for part in self.parts))
        await self._outlet.stop(GRACE)
