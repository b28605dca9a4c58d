"""commlib-py 0.13.2, the newest release of the library that ours began from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from bench.child import address_of
from bench.roles import CALL_TIMEOUT, main
from commlib.msg import PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.transports.redis import ConnectionParameters


class Sonar(PubSubMessage):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class AddTwoInts(RPCMessage):
    """A sum."""

    class Request(RPCMessage.Request):
        """What to add."""

        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        """What it makes."""

        c: int = 0


def add(request: Any) -> Any:
    """The service."""
    return AddTwoInts.Response(c=request.a + request.b)


class Released:
    """All endpoints are those of one node; they share a pool of connections."""

    def __init__(self, url: str) -> None:
        logging.disable()
        host, port = address_of(url)
        params = ConnectionParameters(host=host, port=port)
        self._node = Node("bench", connection_params=params)
        self._is_running = False

    def start(self) -> None:
        self._node.run(wait=True)
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        assert blob is None, "it cannot send bytes"
        return Sonar()

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        return self._begin(self._node.create_publisher(topic=topic, msg_type=Sonar)).publish

    def flush(self) -> None:
        """Nothing to do: publish() waits for the broker's answer."""

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        for topic in topics:
            self._begin(
                self._node.create_subscriber(topic=topic, msg_type=Sonar, on_message=on_message)
            )

    def serve(self, name: str) -> None:
        self._begin(self._node.create_rpc(rpc_name=name, msg_type=AddTwoInts, on_request=add))

    def caller(self, name: str) -> Callable[[int, int], int]:
        client = self._begin(self._node.create_rpc_client(rpc_name=name, msg_type=AddTwoInts))
        request = AddTwoInts.Request
        return lambda a, b: client.call(request(a=a, b=b), timeout=CALL_TIMEOUT).c

    def _begin(self, endpoint: Any) -> Any:
        if self._is_running:
            endpoint.run()
        return endpoint


if __name__ == "__main__":
    main(Released)
