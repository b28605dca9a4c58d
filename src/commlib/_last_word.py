"""What a broker tells of a connection that ends without a word. Pure.

It is made with every node, so it does without the modules that know all of discovery.
"""

from __future__ import annotations

from commlib._packet import Header, now_ms
from commlib._wire import pack

ANNOUNCE = "commlib.discovery"
"""Where it is told what becomes of nodes; the other topics of discovery begin with it."""


def last_word(link: str) -> bytes:
    """The ``Announcement`` that all nodes on the connection of this name are gone."""
    return pack({"event": "death", "link": link}, Header(now_ms()), native=False).payload
