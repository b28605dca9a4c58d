"""Against loops: the places that a bridged message has left, by 8 hex digits each.

A place is a topic on a broker. A bridge appends the place that it takes a message from, and drops
one that has left, or is about to leave again, a place where it was before: it went in a circle.
Two spellings of one broker, by name here and by number there, are two places; then a circle is
noticed one round later, when the message leaves its first place again.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache

MAX_HOPS = 16
"""A message that has passed so many bridges goes no further."""


def place(address: str, topic: str) -> str:
    """The place of a topic; ``address`` is that of the connection parameters."""
    from hashlib import blake2s  # only programs with bridges need it

    return blake2s(f"{address}\n{topic}".encode(), digest_size=4).hexdigest()


def is_loop(hops: tuple[str, ...], source: str, sink: str) -> bool:
    """Whether a message with these hops must not go on from one place to the other."""
    return bool(hops) and (sink in hops or source in hops or len(hops) >= MAX_HOPS)


def host_name(host: str) -> str:
    """A host as part of an address: ``localhost`` of two machines is not the same broker."""
    host = host.lower()
    if host in ("", "localhost", "::1", "[::1]") or host.startswith("127."):
        return f"localhost@{this_machine()}"
    return host


@lru_cache(maxsize=1)
def this_machine() -> str:
    """What tells this machine, or container, from all others; until it is started again."""
    try:
        # Host names and machine ids are copied with the image of a disk; these two are not.
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}-{os.readlink('/proc/self/ns/net')}"
    except OSError:
        return socket.gethostname()
