"""How counters are put together."""

from __future__ import annotations

from commlib._bridge_stats import BridgeStats
from commlib._stats import Stats
from commlib.transports.base import LinkStats

FIRST = LinkStats(unconfirmed=1, refused=2, overflow=3, expired=4, garbage=5, reconnects=6)


def test_those_of_connections_stand_beside_those_of_an_endpoint() -> None:
    own = Stats(sent=7, expired=8)
    assert own.with_links(FIRST) == Stats(
        sent=7, expired=8, unconfirmed=1, rejected=2, discarded=7, reconnects=6
    )
    assert own.with_links(FIRST, FIRST).reconnects == 12
    assert own == Stats(sent=7, expired=8)


def test_what_is_lost_is_what_the_broker_has_not_got() -> None:
    assert Stats(sent=1, dropped=1, expired=1).with_links(FIRST).lost == 1 + 2 + 3 + 4


def test_those_of_a_bridge_are_added_but_for_its_connections() -> None:
    total = BridgeStats(sent=1, source=FIRST)
    total.add(BridgeStats(sent=2, forwarded=3, source=FIRST, sink=FIRST))
    assert total == BridgeStats(sent=3, forwarded=3, source=FIRST)
