"""The services by which a node is stopped and started from afar."""

from __future__ import annotations

from commlib.msg import RPCMessage


class NodeStartMessage(RPCMessage):
    """The call that starts the ports of a node."""

    class Request(RPCMessage.Request):
        """Says nothing but that."""

    class Response(RPCMessage.Response):
        """``status`` is 0 if it was done, else 1, and ``error`` says why not."""

        status: int = 0
        error: str = ""


class NodeStopMessage(NodeStartMessage):
    """The call that stops the ports of a node."""
