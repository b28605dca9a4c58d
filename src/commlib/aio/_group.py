"""Endpoints that belong together: they are run, stopped and counted as one."""

from __future__ import annotations

import asyncio
from typing import TypeVar, Unpack

from commlib._stats import Stats
from commlib.aio._endpoint import Endpoint, Options, Params, enough_after

E = TypeVar("E", bound=Endpoint)


class Group(Endpoint):
    """An endpoint of several parts on one connection."""

    def __init__(self, name: str, conn_params: Params = None, **options: Unpack[Options]) -> None:
        super().__init__(name, conn_params, **options)
        self.parts: list[Endpoint] = []
        self._alone: set[Endpoint] = set()
        """Those that were stopped one by one: the next run does not begin with them."""
        self._has_begun = False
        self._enough = 0  # parts, at which it is worth while to forget the stopped ones
        self.part_options: Options = {
            "hub": self.hub,
            "serializer": self._given.serializer,
            "compression": self._given.compression,
            "sign": self._given.sign,
            "verify": self._given.verify,
            "grace": self._given.grace,
            "on_error": self._on_error,
            "debug": self.debug,
        }
        """What the parts are told."""

    def add(self, part: E) -> E:
        """Take a part that was made with ``part_options``."""
        if self.is_running and len(self.parts) >= self._enough:
            self.parts = [known for known in self.parts if not known.stopped]
            self._enough = enough_after(len(self.parts))
        self.parts.append(part)
        return part

    async def join(self, part: E) -> E:
        """Run a new part if the others run; waits for the broker's yes if it is there."""
        if self.is_running:
            await part.run(self.connected)
        return part

    @property
    def is_running(self) -> bool:
        """Whether a part that is added now has to begin at once."""
        return self._running

    @property
    def ready(self) -> bool:
        return super().ready and all(part.ready for part in self.parts if not part.stopped)

    @property
    def stats(self) -> Stats:
        """The counters of all parts together, as they are now."""
        total = super().stats
        for part in self.parts:
            total.add(part.own_stats)
        return total

    def set_aside(self) -> None:
        super().set_aside()
        for part in self.parts:
            part.set_aside()

    async def _begin(self) -> None:
        await super()._begin()
        self._has_begun = True
        await asyncio.gather(*(part.start() for part in self.parts if part not in self._alone))

    def keep(self) -> None:
        for part in self.parts:
            part.keep()

    async def _end(self) -> None:
        if self._has_begun:  # else it is since the end before that they are stopped
            self._alone = {part for part in self.parts if part.stopped}
        self._has_begun = False
        await asyncio.gather(*(part.stop() for part in self.parts))
