"""Counters of bridges."""

from __future__ import annotations

from dataclasses import dataclass, field

from commlib._stats import Stats
from commlib.transports.base import LinkStats


@dataclass(slots=True)
class BridgeStats(Stats):
    """What became of the messages of one bridge.

    Of those ``received`` from the source, ``forwarded`` were handed to the sink, ``looped`` had
    been here before, ``refused`` were no such message, ``dropped`` did not fit into what may wait,
    ``expired`` waited for too long or were requests that nobody answered in time, and ``waiting``
    wait now. ``sent`` are the replies of an RPC bridge.

    ``source`` and ``sink`` are the counters of the two connections. Those of ``Stats`` that belong
    to the connection are the sums of both.
    """

    forwarded: int = 0
    looped: int = 0
    waiting: int = 0
    source: LinkStats = field(default_factory=LinkStats)
    sink: LinkStats = field(default_factory=LinkStats)
