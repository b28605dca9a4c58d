"""Many services of one process: what each of them costs does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable

from brokers import RedisServer
from collected import eventually
from commlib.node import Node
from commlib.transports.redis import MAX_QUEUES, RedisTransport

MakeRedis = Callable[..., RedisServer]


def test_many_services_are_spread_over_connections_and_all_of_them_answer(
    make_redis: MakeRedis,
) -> None:
    server = make_redis()
    many = 2 * MAX_QUEUES + 5
    node = Node("many", connection_params=server.url, heartbeats=False)
    for number in range(many):
        node.create_rpc(f"many.{number}", lambda request, number=number: {"is": number})
    with node:
        transport = node._core.hub.transport
        assert isinstance(transport, RedisTransport)
        popped = [len(requests.lists) for requests in transport._requests]
        assert popped == [MAX_QUEUES, MAX_QUEUES, 5], "so many at most are popped together"

        made = [node.create_rpc_client(f"many.{number}") for number in range(many)]
        calls = [client.call_async({}) for client in made]
        assert [call.result() for call in calls] == [{"is": number} for number in range(many)]

        node.create_rpc("many.1", lambda request: {"is": 1})
        assert len(transport._requests[0].lists) == MAX_QUEUES, "one that is popped has its place"
    eventually(lambda: not server.cli("KEYS", "rpc-*"))


def test_the_place_of_a_service_that_was_stopped_is_given_to_the_next_one(
    make_redis: MakeRedis,
) -> None:
    server = make_redis()
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        made = [node.create_rpc(f"many.{number}", dict) for number in range(MAX_QUEUES)]
        made[0].stop()
        node.create_rpc("many.next", dict)
        transport = node._core.hub.transport
        assert isinstance(transport, RedisTransport)
        assert [len(requests.lists) for requests in transport._requests] == [MAX_QUEUES]
