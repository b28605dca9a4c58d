"""Many topics or services on one connection, and nodes that share one, on every broker."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.exceptions import EndpointClosed, RPCTimeout
from commlib.node import Node, NodeState
from commlib.pubsub import MPublisher, WPublisher
from commlib.transports import resolve
from messages import AddTwoInts, Sonar

MakeNode = Callable[..., Node]


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


# ---- many topics ----


def test_a_wsubscriber_hands_each_topic_to_its_own_callback(node: Node, topic: str) -> None:
    first, second, late, pattern = (Collected() for _ in range(4))
    subscriber = node.create_wsubscriber()
    subscriber.subscribe(f"{topic}.first", first, Sonar)
    subscriber.subscribe(f"{topic}.second", second)
    subscriber.subscribe(f"{topic}.*", lambda msg, name: pattern((msg, name)))
    subscriber.subscribe(f"{topic}.late", late)
    publisher = node.create_mpublisher()

    publisher.publish({"distance": 1.0}, f"{topic}.first")
    publisher.publish(2, f"{topic}.second")
    publisher.publish(3, f"{topic}.late")

    assert first.first == Sonar(1.0)
    assert second.first == 2
    assert late.first == 3
    assert (3, f"{topic}.late") in pattern.wait(3)
    eventually(lambda: subscriber.stats.received == 6)


def test_topics_that_were_given_before_run_are_there_when_it_returns(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    got = Collected()
    node = Node("many", connection_params=broker.url)
    subscriber = node.create_wsubscriber()
    for number in range(20):
        subscriber.subscribe(f"{topic}.{number}", got)
    publisher = make_node().create_mpublisher()
    with node:
        for number in range(20):
            publisher.publish(number, f"{topic}.{number}")
        assert sorted(got.wait(20)) == list(range(20))
    assert not subscriber.connected


def test_a_wpublisher_publishes_on_the_connection_of_another(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)
    publisher = node.create_wpublisher(node.create_mpublisher(), topic, Sonar)

    publisher.publish(Sonar(2.0))

    assert got.first == Sonar(2.0)
    assert publisher.stats.sent == 1


async def test_groups_are_there_for_asyncio_as_well(broker: Broker, topic: str) -> None:
    got = Collected()
    async with aio.Node("many", broker.url) as node:
        subscriber = node.create_wsubscriber()
        await subscriber.run()
        part = await subscriber.subscribe(f"{topic}.a", got)
        await subscriber.subscribe(f"{topic}.b", got)
        publisher = node.create_wpublisher(node.create_mpublisher(), f"{topic}.a")
        await publisher.publish(1)
        server = node.create_rpc_server(topic, {"add": (add, AddTwoInts)})
        await server.run()
        await server.register_endpoint("echo", lambda n: n)
        client = node.create_rpc_client(f"{topic}.add", AddTwoInts)
        assert await client.call(AddTwoInts.Request(a=1, b=2)) == AddTwoInts.Response(c=3)
        assert await node.create_rpc_client(f"{topic}.echo").call("x") == "x"
        await part.stop()
        await publisher.publish(2)
        await node.create_publisher(f"{topic}.b").publish(3)
        assert await asyncio.to_thread(got.wait, 2) == [1, 3]


def test_a_wpublisher_ends_with_the_mpublisher_whose_connection_it_has(
    broker: Broker, topic: str
) -> None:
    params = resolve(broker.url)
    mpub: MPublisher[object] = MPublisher(None, params)
    publisher = WPublisher(mpub, topic)
    publisher.publish(1)
    mpub.stop()
    with pytest.raises(EndpointClosed):
        publisher.publish(2)
    assert not publisher.connected
    mpub.run()
    publisher.run()
    publisher.publish(3)
    mpub.stop()


# ---- many services ----


def test_a_server_serves_many_names_at_once(node: Node, make_node: MakeNode, topic: str) -> None:
    server = node.create_rpc_server(topic, {"add": (add, AddTwoInts), "echo": lambda n: n})
    server.register_endpoint("late.double", lambda n: 2 * n)
    caller = make_node()

    adder = caller.create_rpc_client(f"{topic}.add", AddTwoInts)
    assert adder.call(AddTwoInts.Request(a=1, b=2)) == AddTwoInts.Response(c=3)
    assert caller.create_rpc_client(f"{topic}.echo").call("x") == "x"
    assert caller.create_rpc_client(f"{topic}.late.double").call(4) == 8
    eventually(lambda: server.stats.received == server.stats.sent == 3)


def test_a_server_may_serve_one_name_as_a_service_does(node: Node, topic: str) -> None:
    node.create_rpc_server(rpc_name=topic, on_request=add, msg_type=AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)
    assert client.call(AddTwoInts.Request(a=1, b=2)) == AddTwoInts.Response(c=3)


def test_a_server_takes_a_name_once_and_stops_all_of_them(node: Node, topic: str) -> None:
    server = node.create_rpc_server(topic, {"echo": lambda n: n})
    with pytest.raises(ValueError, match="served already"):
        server.register_endpoint("echo", lambda n: n)
    client = node.create_rpc_client(f"{topic}.echo")
    assert client.call(1) == 1
    server.stop()
    with pytest.raises(RPCTimeout):
        client.call(2, timeout=0.2)
    server.run()
    assert client.call(3) == 3


# ---- one connection for several nodes ----


def test_nodes_that_ask_for_it_share_a_connection_until_the_last_one_stops(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    url = broker.with_options(keepalive=17)  # of this test alone
    got, states = Collected(), Collected()
    nodes = [
        make_node(url, share_connection=True, on_state=states if n == 0 else None) for n in range(3)
    ]
    lonely = make_node(url)
    assert len({id(node._core.hub) for node in nodes}) == 1
    assert lonely._core.hub is not nodes[0]._core.hub
    for number, node in enumerate(nodes):
        node.create_subscriber(f"{topic}.{number}", got)
        node.create_rpc(f"{topic}.echo.{number}", lambda n: n)
    publisher = lonely.create_mpublisher()
    for left in (nodes, nodes[1:], nodes[2:]):
        for number, node in enumerate(nodes):
            assert node.connected is (node in left) or node.state is NodeState.STOPPED
            publisher.publish((len(left), number), f"{topic}.{number}")
        assert left[-1].create_rpc_client(f"{topic}.echo.2").call("x") == "x"
        got.until([len(left), 2])
        left[0].stop()
    assert not nodes[2].connected
    assert sorted(map(tuple, got.items)) == [(1, 2), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    # A node that has left hears no more of the connection.
    assert [connected for connected, _ in states.items] == [True]


def test_a_node_may_enter_while_the_last_one_of_those_that_share_leaves(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    url = broker.with_options(keepalive=19)
    publisher = make_node().create_publisher(topic)
    for number in range(20):
        got = Collected()
        first = Node("first", connection_params=url, share_connection=True)
        second = Node("second", connection_params=url, share_connection=True)
        second.create_subscriber(topic, got)
        first.run()
        stopping = _in_thread(first.stop)
        second.run()
        stopping()
        assert second.health
        publisher.publish(number)
        assert got.first == number
        second.stop()


def test_a_node_that_was_not_run_keeps_a_shared_connection_too(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    url = broker.with_options(keepalive=18)
    make_node().create_rpc(topic, lambda n: n)
    lazy = Node("lazy", connection_params=url, share_connection=True)
    client = lazy.create_rpc_client(topic)
    with Node("short", connection_params=url, share_connection=True):
        future = client.call_async(1, timeout=10)
    assert future.result(10) == 1
    assert client.call(2, timeout=10) == 2
    lazy.stop()
    assert not lazy.connected


def _in_thread(work: Callable[[], Any]) -> Callable[[], None]:
    thread = threading.Thread(target=work)
    thread.start()
    return thread.join


# ---- health ----


def test_a_node_is_healthy_when_every_endpoint_is_in_place(broker: Broker, topic: str) -> None:
    node = Node("patient", connection_params=broker.url)
    subscriber = node.create_subscriber(topic, print)
    assert not node.health
    with node:
        assert node.health
        node.create_rpc_server(topic, {"echo": lambda n: n})
        node.create_wsubscriber().subscribe(f"{topic}.x", print)
        assert node.health
        subscriber.stop()
        assert node.health, "what was stopped is no patient any more"
    assert not node.health


def test_one_can_wait_for_the_connection_without_an_endpoint_that_needs_it(
    broker: Broker, topic: str
) -> None:
    node = Node("patient", connection_params=broker.url)
    publisher = node.create_publisher(topic)
    assert publisher.wait_connected(DEADLINE)
    assert node.wait_connected(DEADLINE)
    assert publisher.connected
    assert publisher.wait_connected(0)
    node.stop()
    publisher.stop()
    with pytest.raises(EndpointClosed, match=topic):
        publisher.wait_connected(DEADLINE)


async def test_who_waits_for_the_connection_of_a_node_that_is_stopped_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
        node = aio.Node("patient", connection_params=f"redis://127.0.0.1:{port}")
        await node.run(wait=False)
        waiting = asyncio.create_task(node.wait_connected(2 * DEADLINE))
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            await node.stop()
            with pytest.raises(EndpointClosed, match="stopped"):
                await waiting
    with pytest.raises(EndpointClosed, match="stopped"):
        await node.wait_connected(DEADLINE)


# ---- what was stopped ----


def test_an_endpoint_that_was_stopped_alone_is_closed_though_its_node_runs(
    node: Node, topic: str
) -> None:
    node.create_rpc(f"{topic}.echo", lambda n: n)
    publisher, client = node.create_publisher(topic), node.create_rpc_client(f"{topic}.echo")
    for endpoint in (publisher, client):
        endpoint.stop()
    with pytest.raises(EndpointClosed):
        publisher.publish(1)
    with pytest.raises(EndpointClosed):
        client.call(1)
    with pytest.raises(EndpointClosed):
        client.call_async(1)
    for endpoint in (publisher, client):
        endpoint.run()
    publisher.publish(1)
    assert client.call(2) == 2


async def test_a_part_that_was_stopped_alone_does_not_begin_again_with_the_others(
    broker: Broker, topic: str
) -> None:
    got = Collected()
    async with aio.Node("n", broker.url) as node:
        subscriber = node.create_wsubscriber()
        first = await subscriber.subscribe(f"{topic}.a", got)
        await subscriber.subscribe(f"{topic}.b", got)
        server = node.create_rpc_server(topic, {"echo": lambda n: "old", "other": lambda n: n})
        await server.run()
        await first.stop()
        await server.services["echo"].stop()
        await server.register_endpoint("echo", lambda n: "new")
        await subscriber.stop()
        await server.stop()
        await subscriber.run()
        await server.run()
        publisher, client = node.create_mpublisher(), node.create_rpc_client(f"{topic}.echo")
        await publisher.publish("a", f"{topic}.a")
        await publisher.publish("b", f"{topic}.b")
        assert [await client.call(1, timeout=DEADLINE) for _ in range(6)] == ["new"] * 6
        assert await asyncio.to_thread(got.wait, 1) == ["b"]


async def test_a_group_that_is_stopped_before_it_has_begun_again_keeps_its_parts(
    broker: Broker, topic: str
) -> None:
    async with aio.Node("n", broker.url) as node:
        server = node.create_rpc_server(topic, {"echo": lambda n: n})
        await server.run()
        await server.stop()
        await server.run(wait=False)
        await server.stop()
        await server.run()
        assert await node.create_rpc_client(f"{topic}.echo").call(1, timeout=DEADLINE) == 1


def test_who_is_told_of_the_connection_is_forgotten_when_it_stops(node: Node, topic: str) -> None:
    before = list(node._core.hub.listeners)
    for _ in range(20):
        node.create_publisher(topic, on_state=print).stop()
    assert list(node._core.hub.listeners) == before


# ---- what makes no sense ----


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": -1}, {"workers": "x"}, {"max_age": None}]
)
def test_options_of_services_that_make_no_sense_are_refused(
    node: Node, topic: str, options: Any
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        node.create_rpc(topic, lambda n: n, **options)
    with pytest.raises(ValueError, match=next(iter(options))):
        node.create_rpc_server(topic, **options)


def test_a_server_of_a_name_without_a_handler_is_refused(node: Node, topic: str) -> None:
    with pytest.raises(ValueError, match="belong together"):
        node.create_rpc_server(rpc_name=topic)
