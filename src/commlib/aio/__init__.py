"""commlib for asyncio: everything on the loop of the caller, without a hidden thread.

::

    async with Node("robot", "redis://localhost") as node:
        await node.create_publisher("sonar", Sonar).publish(Sonar(distance=2.0))
        async for msg in node.create_subscriber("sonar", msg_type=Sonar):
            ...
"""

from typing import TYPE_CHECKING

from commlib.aio._endpoint import Endpoint
from commlib.aio.events import EventEmitter
from commlib.aio.node import Node
from commlib.aio.pubsub import (
    MPublisher,
    PSubscriber,
    Publisher,
    Subscriber,
    WPublisher,
    WSubscriber,
)
from commlib.aio.rpc import RPCClient, RPCServer, RPCService
from commlib.transports import ACTION_CLASSES, loaded_when_needed

if TYPE_CHECKING:
    from commlib.aio.action import ActionClient, ActionService
else:
    __getattr__ = loaded_when_needed("commlib.aio.action", *ACTION_CLASSES)

__all__ = [
    "ActionClient",
    "ActionService",
    "Endpoint",
    "EventEmitter",
    "MPublisher",
    "Node",
    "PSubscriber",
    "Publisher",
    "RPCClient",
    "RPCServer",
    "RPCService",
    "Subscriber",
    "WPublisher",
    "WSubscriber",
]
