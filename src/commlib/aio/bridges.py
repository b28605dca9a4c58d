"""Bridges: what is published, called or pursued as a goal on one broker reaches another.

Any two transports, and two brokers of one kind. Untyped bridges read and rewrite the header alone.
With a message class the data is checked, too, and what is no such message is refused and counted.
"""

from collections.abc import Mapping
from typing import TypeVar

from commlib._params import nearest
from commlib._store import Keep
from commlib.aio._action_bridge import ActionBridge
from commlib.aio._bridge import Bridge
from commlib.aio._rpc_bridge import RPCBridge
from commlib.aio._topic_bridge import PTopicBridge, TopicBridge

__all__ = ["ActionBridge", "Bridge", "Keep", "PTopicBridge", "RPCBridge", "TopicBridge", "of_kind"]

KINDS: dict[str, type[Bridge]] = {
    "topic": TopicBridge,
    "pattern": PTopicBridge,
    "rpc": RPCBridge,
    "action": ActionBridge,
}

B = TypeVar("B")


def of_kind(kind: str, kinds: Mapping[str, B]) -> B:
    """The class of this kind of bridge. Raises ValueError with the nearest one that there is."""
    if kind not in kinds:
        raise ValueError(f"{kind!r} is no kind of bridge; {nearest(str(kind), kinds)}")
    return kinds[kind]
