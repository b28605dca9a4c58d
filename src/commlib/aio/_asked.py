"""Who has asked who is there, and when they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from os import urandom

from commlib._discovery import Probe, is_id
from commlib._packet import Packet
from commlib._wire import Reader
from commlib.aio._alarms import SHARE, Alarms
from commlib.aio._sayings import said_in

JITTER = 0.1  # s within which the answers to a probe are spread
ASKERS = 32  # probes that wait for their answers; more are not answered


class Asked:
    """Hears probes of a process; ``answer`` is given all who have asked meanwhile. On the loop."""

    def __init__(self, process: str, alarms: Alarms, answer: Callable[[Set[str]], None]) -> None:
        self._process = process
        self._alarms = alarms
        self._answer = answer
        self._askers: set[str] = set()
        self._from = 0.0
        """When it is answered again, in the loop's time."""
        self._reader: Reader[Probe] = Reader(Probe)

    def hear(self, packet: Packet) -> None:
        """Somebody asks."""
        probe = said_in(packet, self._reader)
        if probe is None or not is_id(probe.asker) or probe.process not in ("", self._process):
            return
        if len(self._askers) >= ASKERS:
            return
        self._askers.add(probe.asker)
        # Many do not answer in one moment.
        wait = 0.0 if probe.process else JITTER * urandom(1)[0] / 256
        now = asyncio.get_running_loop().time()
        self._alarms.set("answer", max(now + wait, self._from), self._act)

    def clear(self) -> None:
        """Nobody is there to answer."""
        self._askers.clear()
        self._alarms.cancel("answer")

    def _act(self) -> None:
        askers, self._askers = self._askers, set()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._answer(askers)
        self._from = begin + SHARE * (loop.time() - begin)
