"""Counters: nothing is lost without one of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from commlib.transports.base import LinkStats


@dataclass(slots=True)
class Stats:
    """What became of the messages of one endpoint.

    ``sent`` were handed to the connection, ``received`` came from it. Of those: ``refused`` were
    no such message (garbage, wrong types, too big), ``dropped`` did not fit into the queue,
    ``expired`` were requests nobody waits for any more, and ``errors`` made the callback raise.
    ``gaps``, ``duplicates`` and ``reordered`` count by the sender's sequence numbers; those of what
    was ``dropped`` because the callback was too slow are among the ``gaps``, too.
    ``repeated`` are requests that had come before: ``idempotent`` clients send a call again, and it
    is handled once.

    The last ones belong to the connection and are shared by all endpoints that use it:
    ``unconfirmed`` were written but the connection broke before the broker's word, ``rejected``
    were refused by the broker, ``discarded`` were dropped by the offline policy, ``reconnects``
    is how often the connection came back. So does ``late``, which an ``RPCClient`` alone shows:
    replies that came after their call had ended.
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

    @property
    def lost(self) -> int:
        """How many messages of the connection have not got to the broker, as far as is known."""
        return self.unconfirmed + self.rejected + self.discarded

    def add(self, other: Stats) -> None:
        """Count what the other one has counted, too."""
        for field in dataclasses.fields(other):
            count = getattr(other, field.name)
            if isinstance(count, int):  # a bridge has counters of each connection as well
                setattr(self, field.name, getattr(self, field.name) + count)

    def with_links(self, *links: LinkStats) -> Self:
        """The same counters, and those of the connections."""
        return dataclasses.replace(
            self,
            unconfirmed=sum(link.unconfirmed for link in links),
            rejected=sum(link.refused for link in links),
            discarded=sum(link.overflow + link.expired for link in links),
            reconnects=sum(link.reconnects for link in links),
        )
