"""What endpoints, nodes and bridges can be told by keyword, in plain Python and in asyncio alike.

A class of a program's own passes it on by these::

    class Robot(aio.Node):
        def __init__(self, name: str, **options: Unpack[NodeOptions]) -> None:
            super().__init__(name, **options)
"""

from commlib.aio._action_bridge import ActionOptions
from commlib.aio._bridge import BridgeOptions
from commlib.aio._endpoint import FormOptions, Options, SecurityOptions
from commlib.aio._rpc_bridge import RPCOptions
from commlib.aio._topic_bridge import TopicOptions
from commlib.aio.action import ActionServiceOptions
from commlib.aio.node import NodeOptions
from commlib.aio.pubsub import PublisherOptions, SubscriberOptions
from commlib.aio.rpc import ClientOptions, RPCClientOptions, ServiceOptions

__all__ = [
    "ActionOptions",
    "ActionServiceOptions",
    "BridgeOptions",
    "ClientOptions",
    "FormOptions",
    "NodeOptions",
    "Options",
    "PublisherOptions",
    "RPCClientOptions",
    "RPCOptions",
    "SecurityOptions",
    "ServiceOptions",
    "SubscriberOptions",
    "TopicOptions",
]
