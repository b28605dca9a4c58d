"""commlib for asyncio: everything on the loop of the caller, without a hidden thread.

async with Node("robot", "redis://localhost") as node:
    await node.create_publisher("sonar", Sonar).publish(Sonar(distance=2.0))
    async for msg in node.create_subscriber("sonar", msg_type=Sonar):
        ...
"""

from commlib.aio._endpoint import Endpoint
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

__all__ = [
    "Endpoint",
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
