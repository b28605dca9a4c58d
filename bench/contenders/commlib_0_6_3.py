"""commlib-py 0.6.3, the release whose programs and wire ours takes over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from bench.child import address_of
from bench.roles import CALL_TIMEOUT, main
from commlib.msg import DataClass, PubSubMessage, RPCMessage
from commlib.node import Node, TransportType
from commlib.transports.redis import ConnectionParameters


@DataClass
class Sonar(PubSubMessage):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class AddTwoInts(RPCMessage):
    """A sum."""

    @DataClass
    class Request(RPCMessage.Request):
        """What to add."""

        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        """What it makes."""

        c: int = 0


def add(request: Any) -> Any:
    """The service."""
    return AddTwoInts.Response(c=request.a + request.b)


class Released:
    """All endpoints are those of one node; each opens its own connections."""

    def __init__(self, url: str) -> None:
        logging.disable()  # its best face: it writes a line per message otherwise
        host, port = address_of(url)
        params = ConnectionParameters(host=host, port=port)
        self._node = Node("bench", TransportType.REDIS, connection_params=params)
        self._is_running = False

    def start(self) -> None:
        self._node.run()
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        assert blob is None, "it cannot send bytes"
        return Sonar()

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        return self._node.create_publisher(topic=topic, msg_type=Sonar).publish

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
        client = self._node.create_rpc_client(rpc_name=name, msg_type=AddTwoInts)
        request = AddTwoInts.Request
        return lambda a, b: client.call(request(a=a, b=b), timeout=int(CALL_TIMEOUT)).c

    def _begin(self, endpoint: Any) -> None:
        if self._is_running:
            endpoint.run()


if __name__ == "__main__":
    main(Released)
