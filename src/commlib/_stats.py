"""Counters: nothing is lost without one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from commlib.transports.base import LinkStats


@dataclass(slots=True)
class Stats:
    """What became of the messages of one endpoint.

    ``sent`` were handed to the connection, ``received`` came from it. Of those: ``refused`` were
    no such message (garbage, wrong types, too big), ``dropped`` did not fit into the queue,
    ``expired`` were requests nobody waits for any more, and ``errors`` made the callback raise.
    ``gaps``, ``duplicates`` and ``reordered`` count by the sender's sequence numbers.
    ``late`` are replies that came after their call had ended, ``repeated`` requests that had come
    before: ``idempotent`` clients send a call again, and it is handled once.

    The last ones belong to the connection and are shared by all endpoints that use it:
    ``unconfirmed`` were written but the connection broke before the broker's word, ``rejected``
    were refused by the broker, ``discarded`` were dropped by the offline policy, ``reconnects``
    is how often the connection came back.
    """

    sent: int = 0
    received: int = 0
    refused: int = 0
    dropped: int = 0
    expired: int = 0
    errors: int = 0
    gaps: int = 0
    duplicates: int = 0
    reordered: int = 0
    late: int = 0
    repeated: int = 0
    unconfirmed: int = 0
    rejected: int = 0
    discarded: int = 0
    reconnects: int = 0


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
