"""The life of a node and of its endpoints, on every broker."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib._portal import Portal
from commlib.exceptions import EndpointClosed, RPCTimeout
from commlib.node import Node, NodeState
from commlib.pubsub import Publisher, Subscriber
from commlib.rpc import RPCClient, RPCService
from messages import AddTwoInts, Sonar

MakeNode = Callable[..., Node]


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


# ---- beginning and end ----


def test_a_node_tells_where_it_is_in_its_life(broker: Broker) -> None:
    node = Node("robot", connection_params=broker.url)
    states = [(node.state, node.connected)]
    node.run()
    states.append((node.state, node.connected))
    node.stop()
    states.append((node.state, node.connected))
    with node:
        states.append((node.state, node.connected))
    states.append((node.state, node.connected))

    assert states == [
        (NodeState.IDLE, False),
        (NodeState.RUNNING, True),
        (NodeState.STOPPED, False),
        (NodeState.RUNNING, True),
        (NodeState.EXITED, False),
    ]


def test_a_node_without_a_name_gets_one_that_no_other_has(broker: Broker) -> None:
    one, other = Node(connection_params=broker.url), Node(connection_params=broker.url)

    assert one.node_name
    assert one.node_name != other.node_name
    assert one.log.name == f"commlib.node.{one.node_name}"


def test_nothing_is_received_before_run(broker: Broker, make_node: MakeNode) -> None:
    topic = broker.unique()
    got = Collected()
    node = Node("robot", connection_params=broker.url)
    node.create_subscriber(topic, got)
    publisher = make_node().create_publisher(topic)
    make_node().create_subscriber(topic, fence := Collected())

    publisher.publish("before")
    fence.until("before")
    with node:
        publisher.publish("after")
        assert got.until("after") == []


def test_endpoints_made_before_run_work_from_run_on(broker: Broker) -> None:
    topic, name = broker.unique("topic"), broker.unique("service")
    got = Collected()
    node = Node("robot", connection_params=broker.url)
    node.create_subscriber(topic, got, Sonar)
    publisher = node.create_publisher(topic, Sonar)
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)

    with node:
        publisher.publish(Sonar(1.0))
        assert got.first == Sonar(1.0)
        assert client.call(AddTwoInts.Request(a=1, b=2)).c == 3


def test_endpoints_made_after_run_work_at_once(node: Node, broker: Broker) -> None:
    topic, name = broker.unique("topic"), broker.unique("service")
    for n in range(20):
        got = Collected()
        subscriber = node.create_subscriber(f"{topic}{n}", got)
        node.create_publisher(f"{topic}{n}").publish(n)
        assert got.first == n
        subscriber.stop()

    node.create_rpc(name, lambda n: n)
    assert node.create_rpc_client(name).call(5) == 5


def test_running_twice_changes_nothing(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    service = node.create_rpc(f"{topic}.echo", lambda n: n)
    for _ in range(3):
        node.run()
        subscriber.run()
        service.run()

    publisher = node.create_publisher(topic)
    publisher.publish(1)
    publisher.publish("end")

    assert got.until("end") == [1]
    assert node.create_rpc_client(f"{topic}.echo").call(2) == 2
    assert service.stats.received == 1


def test_stopping_twice_or_before_run_changes_nothing(broker: Broker, portal: Portal) -> None:
    states = Collected()
    node = Node("robot", connection_params=broker.url, on_state=states)
    node.create_subscriber(broker.unique(), print)
    node.stop()
    assert node.state is NodeState.IDLE
    assert states.items == []
    node.run()
    publisher = node.create_publisher(broker.unique())
    for _ in range(3):
        publisher.stop()
        node.stop()

    assert node.state is NodeState.STOPPED
    assert not node.connected
    assert [connected for connected, _ in states.items] == [True, False]


def test_what_was_stopped_opens_no_connection_again_unless_it_is_run(
    node: Node, broker: Broker
) -> None:
    topic, other, echo = broker.unique("topic"), broker.unique("other"), broker.unique("echo")
    got, states = Collected(), Collected()
    node.create_subscriber(topic, got)
    node.create_rpc(echo, lambda n: n)
    stopped = Node("stopped", connection_params=broker.url, on_state=states)
    publisher, many = stopped.create_publisher(topic), stopped.create_mpublisher()
    client = stopped.create_rpc_client(echo)
    alone = Publisher(topic, conn_params=broker.url)
    stopped.run()
    stopped.stop()
    alone.stop()

    for use in (
        lambda: publisher.publish("lost"),
        lambda: many.publish("lost", other),
        lambda: alone.publish("lost"),
        lambda: client.call(1),
        lambda: client.call_async(1),
        lambda: client.wait_for_service(DEADLINE),
    ):
        with pytest.raises(EndpointClosed, match="was stopped"):
            use()
    assert [connected for connected, _ in states.items] == [True, False]

    with stopped:
        publisher.publish("again")
        assert got.until("again") == []
        assert client.call(1) == 1
    with alone:
        alone.publish("once more")
        got.until("once more")


def test_threads_that_publish_while_their_node_is_stopped_are_told(broker: Broker) -> None:
    node = Node("robot", connection_params=broker.url)
    publisher = node.create_publisher(broker.unique())
    errors, published = Collected(), Collected()

    def publish() -> None:
        try:
            while True:
                publisher.publish("hello")
                published("hello")
        except EndpointClosed as exc:
            errors(exc)

    node.run()
    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    published.wait(100)
    node.stop()
    for thread in threads:
        thread.join(DEADLINE)

    assert len(errors.items) == 4
    assert not node.connected


def test_a_node_works_again_after_it_was_stopped_and_run(broker: Broker) -> None:
    topic, name = broker.unique("topic"), broker.unique("service")
    got = Collected()
    node = Node("robot", connection_params=broker.url)
    node.create_psubscriber(f"{topic}.*", got, Sonar)
    publisher = node.create_mpublisher(Sonar)
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)

    for n in range(5):
        node.run()
        publisher.publish(Sonar(float(n)), f"{topic}.front")
        got.wait(n + 1)
        assert client.call(AddTwoInts.Request(a=n, b=1)).c == n + 1
        node.stop()

    assert [msg.distance for msg, _ in got.items] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_who_stops_a_node_that_is_being_stopped_takes_nothing_from_its_next_run(
    make_node: MakeNode, topic: str
) -> None:
    node, other = make_node(), make_node()
    begun, gate = Collected(), threading.Event()
    publisher = other.create_publisher(topic)
    client = other.create_rpc_client(f"{topic}.add", AddTwoInts)

    def work(msg: str) -> None:
        begun(msg)
        gate.wait(DEADLINE)

    node.create_subscriber(topic, work)
    node.create_rpc(f"{topic}.add", add, AddTwoInts)
    for turn in range(1, 4):
        gate.clear()
        publisher.publish("hello")
        begun.wait(turn)
        stopping = [threading.Thread(target=node.stop) for _ in range(3)]
        for thread in stopping:
            thread.start()
        eventually(lambda: all(core.stopped for core in node._core.endpoints))
        node.stop()
        gate.set()
        for thread in stopping:
            thread.join()
        node.run()
        assert client.call(AddTwoInts.Request(a=turn, b=1), timeout=DEADLINE).c == turn + 1


def test_threads_that_run_and_stop_a_node_at_once_leave_it_whole(
    make_node: MakeNode, topic: str
) -> None:
    node, other = make_node(), make_node()
    got = Collected()
    node.create_subscriber(topic, got)
    node.create_rpc(f"{topic}.add", add, AddTwoInts)
    for _ in range(10):
        threads = [threading.Thread(target=turn) for turn in (node.run, node.stop) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    node.stop()
    node.run()
    client = other.create_rpc_client(f"{topic}.add", AddTwoInts)
    assert client.call(AddTwoInts.Request(a=1, b=1), timeout=DEADLINE).c == 2
    other.create_publisher(topic).publish("hello")
    assert got.first == "hello"


def test_a_stopped_node_neither_hears_nor_serves(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    node, other = make_node(), make_node()
    heard, fence, asked = Collected(), Collected(), Collected()
    node.create_subscriber(topic, heard)
    other.create_subscriber(topic, fence)
    node.create_rpc(f"{topic}.ask", asked)
    client = other.create_rpc_client(f"{topic}.ask")
    publisher = other.create_publisher(topic)

    node.stop()
    publisher.publish("hello")
    fence.until("hello")
    with pytest.raises(RPCTimeout):
        client.call("hello", timeout=0.05)

    assert heard.items == asked.items == []


def test_no_callback_is_called_after_stop(broker: Broker, make_node: MakeNode, topic: str) -> None:
    node, other = make_node(), make_node()
    stopped = threading.Event()
    got, too_late = Collected(), Collected()

    def on_message(n: int) -> None:
        got(n)
        if stopped.is_set():
            too_late(n)

    node.create_subscriber(topic, on_message)
    publisher = other.create_publisher(topic)
    for n in range(20_000):
        publisher.publish(n)
    got.wait(1)
    node.stop()
    stopped.set()
    publisher.publish(-1)
    other.create_subscriber(topic, fence := Collected())
    publisher.publish("end")
    fence.until("end")

    assert too_late.items == []
    assert got.items == list(range(len(got.items)))


def test_stop_does_not_wait_for_a_callback_that_blocks(
    make_node: MakeNode, topic: str, gate: threading.Event
) -> None:
    node = make_node()
    entered, done = Collected(), Collected()

    def on_message(msg: str) -> None:
        entered(msg)
        gate.wait(DEADLINE)
        done(msg)

    node.create_subscriber(topic, on_message)
    node.create_publisher(topic).publish("hello")
    entered.wait(1)

    node.stop()

    assert done.items == []
    assert node.state is NodeState.STOPPED
    gate.set()
    done.wait(1)


def test_a_callback_may_stop_its_own_node(make_node: MakeNode, topic: str) -> None:
    node = make_node()
    stopped = Collected()

    def on_message(msg: str) -> None:
        node.stop()
        stopped(msg)

    node.create_subscriber(topic, on_message)
    node.create_publisher(topic).publish("hello")

    assert stopped.first == "hello"
    assert node.state is NodeState.STOPPED


FOR_EVER = 3600.0  # s of grace, of which nobody would see the end


def test_who_stops_a_node_from_its_own_callback_is_not_waited_for(
    broker: Broker, topic: str
) -> None:
    node = Node("own", connection_params=broker.url, grace=FOR_EVER)
    stopped = Collected()

    def stop_it(msg: str) -> None:
        node.stop()
        stopped(msg)

    node.create_subscriber(topic, stop_it)
    publisher = node.create_publisher(topic)
    node.run()
    publisher.publish("hello")
    assert stopped.first == "hello"
    assert node.state is NodeState.STOPPED


async def test_nor_is_a_coroutine_that_ends_run_forever_by_that(broker: Broker, topic: str) -> None:
    node = aio.Node("own", connection_params=broker.url, grace=FOR_EVER)
    stopped = []

    async def stop_it(msg: str) -> None:
        await node.stop()
        stopped.append(msg)

    node.create_subscriber(topic, stop_it)
    async with asyncio.timeout(DEADLINE):
        await node.run()
        running = asyncio.create_task(node.run_forever())
        await node.create_publisher(topic).publish("hello")
        await running
    assert stopped == ["hello"]
    assert node.state is NodeState.STOPPED


async def test_a_task_that_a_callback_has_begun_waits_for_that_when_it_stops_the_node(
    broker: Broker, topic: str
) -> None:
    node = aio.Node("own", connection_params=broker.url, grace=DEADLINE)
    stopping = []

    async def serve(msg: str) -> str:
        stopping.append(asyncio.create_task(node.stop()))
        await asyncio.sleep(0.05)  # it has begun by then
        return msg

    node.create_rpc(topic, serve)
    async with (
        asyncio.timeout(DEADLINE),
        node,
        aio.Node("o", connection_params=broker.url) as other,
    ):
        assert await other.create_rpc_client(topic).call("hello", timeout=DEADLINE) == "hello"
        await stopping[0]


async def test_a_coroutine_that_stops_a_node_which_is_being_stopped_goes_on_after_that(
    broker: Broker, topic: str
) -> None:
    node = aio.Node("own", connection_params=broker.url, grace=DEADLINE)
    begun, may_stop, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stop_it(msg: str) -> None:
        begun.set()
        await may_stop.wait()
        await node.stop()
        stopped.set()

    node.create_subscriber(topic, stop_it)
    async with asyncio.timeout(DEADLINE):
        await node.run()
        await node.create_publisher(topic).publish("hello")
        await begun.wait()
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        may_stop.set()
        await stopping
        await stopped.wait()


def test_a_callback_and_another_thread_may_stop_their_node_at_once(
    make_node: MakeNode, topic: str
) -> None:
    node = make_node(grace=FOR_EVER)
    begun, stopped = Collected(), Collected()

    def stop_it(msg: str) -> None:
        begun(msg)
        eventually(lambda: node._core._leaving is not None)
        node.stop()
        stopped(msg)

    node.create_subscriber(topic, stop_it)
    node.create_publisher(topic).publish("hello")
    begun.wait(1)
    node.stop()
    assert stopped.items == ["hello"]


def test_a_node_that_fails_inside_with_is_stopped(broker: Broker) -> None:
    node = Node("robot", connection_params=broker.url)

    with pytest.raises(ZeroDivisionError), node:
        raise ZeroDivisionError

    assert node.state is NodeState.EXITED
    assert not node.connected


def test_a_node_leaves_no_task_and_no_worker_behind(
    broker: Broker, portal: Portal, topic: str
) -> None:
    import asyncio

    async def tasks() -> set[asyncio.Task[object]]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    tasks_before = portal.run(tasks)
    threads_before = set(threading.enumerate())
    with Node("robot", connection_params=broker.url) as node:
        got = Collected()
        for n in range(10):
            node.create_subscriber(f"{topic}{n}", got)
            node.create_rpc(f"{topic}{n}.echo", lambda n: n)
        for n in range(10):
            node.create_publisher(f"{topic}{n}").publish(n)
            assert node.create_rpc_client(f"{topic}{n}.echo").call(n) == n
        got.wait(10)
        assert set(threading.enumerate()) > threads_before

    assert portal.run(tasks) == tasks_before
    assert set(threading.enumerate()) == threads_before


# ---- run_forever ----


def test_run_forever_returns_on_stop(broker: Broker) -> None:
    topic = broker.unique()
    node = Node("robot", connection_params=broker.url)
    got = Collected()
    node.create_subscriber(topic, got)
    thread = threading.Thread(target=node.run_forever)
    thread.start()
    eventually(lambda: node.state is NodeState.RUNNING and node.connected)

    node.stop()

    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert node.state is NodeState.STOPPED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_run_forever_returns_on_a_signal_and_stops(broker: Broker, number: signal.Signals) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    # The connection comes when run_forever() already listens for signals.
    node = Node(
        "robot",
        connection_params=broker.url,
        on_state=lambda connected, reason: connected and os.kill(os.getpid(), number),
    )

    node.run_forever(sleep_rate=0.01)

    assert node.state is NodeState.STOPPED
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_an_endpoint_without_a_node_runs_forever_too(broker: Broker) -> None:
    topic = broker.unique()
    got = Collected()
    subscriber = Subscriber(topic, got, conn_params=broker.url)
    thread = threading.Thread(target=subscriber.run_forever)
    thread.start()
    eventually(lambda: subscriber.connected)

    subscriber.stop()

    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert not subscriber.connected


# ---- decorators ----


def test_functions_become_ports_by_decorators(node: Node, broker: Broker) -> None:
    topic, name = broker.unique("topic"), broker.unique("service")
    got = Collected()

    @node.subscribe(topic, Sonar)
    def on_sonar(msg: Sonar) -> None:
        got(msg)

    @node.subscribe(f"{topic}.*")
    def on_any(msg: object, topic: str) -> None:
        got((msg, topic))

    @node.rpc(name, AddTwoInts)
    def on_request(request: AddTwoInts.Request) -> AddTwoInts.Response:
        return add(request)

    node.create_publisher(topic, Sonar).publish(Sonar(1.0))
    assert got.wait(1) == [Sonar(1.0)]
    node.create_publisher(f"{topic}.front").publish(5)
    assert got.wait(2)[1] == (5, f"{topic}.front")
    response = node.create_rpc_client(name, AddTwoInts).call(AddTwoInts.Request(a=1, b=2))
    assert response.c == 3
    assert on_request(AddTwoInts.Request(a=1, b=1)).c == 2, "it still is a function"
    assert on_sonar.__name__ == "on_sonar"
    assert on_any.__name__ == "on_any"


def test_decorated_functions_of_a_node_that_runs_later_are_ports(broker: Broker) -> None:
    name = broker.unique()
    node = Node("robot", connection_params=broker.url)

    @node.rpc(name)
    async def double(n: int) -> int:
        return 2 * n

    with node:
        assert node.create_rpc_client(name).call(4) == 8


# ---- where the connection comes from ----


def test_the_broker_of_the_environment_is_the_default(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMLIB_URL", broker.url)
    topic, name = broker.unique("topic"), broker.unique("service")
    got = Collected()

    with Node("robot") as node, Node("other", connection_params=broker.url) as other:
        other.create_subscriber(topic, got)
        node.create_publisher(topic).publish("from the environment")
        assert got.first == "from the environment"
        with Subscriber(topic, got), RPCService(name, lambda n: n):
            publisher, client = Publisher(topic), RPCClient(name)
            publisher.publish("hello")
            got.wait(3)
            assert client.call(1) == 1
            publisher.stop()
            client.stop()


def test_parameters_may_be_a_url_or_an_object_under_either_name(broker: Broker) -> None:
    from commlib.transports import resolve

    topic = broker.unique()
    params = resolve(broker.url)
    got = Collected()

    with (
        Node("a", connection_params=broker.url) as one,
        Node("b", connection_params=params) as two,
        Node("c", transport_connection_params=params) as three,
    ):
        one.create_subscriber(topic, got)
        for node in (one, two, three):
            node.create_publisher(topic).publish(node.node_name)
        assert set(got.wait(3)) == {"a", "b", "c"}


def test_connection_parameters_may_stand_first_or_by_either_keyword(broker: Broker) -> None:
    from commlib.transports import resolve

    topic = broker.unique()
    params = resolve(broker.url)
    got = Collected()

    with (
        Subscriber(params, topic, got),  # type: ignore[arg-type]
        Publisher(params, topic) as one,  # type: ignore[arg-type]
        Publisher(topic, conn_params=params) as two,
        Publisher(topic, connection_params=broker.url) as three,
    ):
        for n, publisher in enumerate((one, two, three)):
            publisher.publish(n)
        assert sorted(got.wait(3)) == [0, 1, 2]


# ---- what a node knows ----


def test_a_node_is_told_when_its_connection_comes_and_goes(broker: Broker) -> None:
    states = Collected()
    with Node("robot", connection_params=broker.url, on_state=states):
        assert states.wait(1) == [(True, None)]

    assert [connected for connected, _ in states.items] == [True, False]


def test_a_node_lists_its_endpoints(node: Node, broker: Broker) -> None:
    topic = broker.unique()
    made = [
        node.create_publisher(topic),
        node.create_subscriber(topic, print),
        node.create_rpc(topic, print),
        node.create_rpc_client(topic),
    ]

    assert node.endpoints == made


def test_nodes_of_one_process_do_not_disturb_each_other(
    make_node: MakeNode, broker: Broker
) -> None:
    topic = broker.unique()
    first, second, third = make_node(), make_node(), make_node()
    got = Collected()
    third.create_subscriber(topic, got)
    publishers = [node.create_publisher(topic) for node in (first, second)]
    for publisher in publishers:
        publisher.publish("both")
    got.wait(2)

    first.stop()
    publishers[1].publish("second alone")

    assert got.wait(3)[2] == "second alone"
    assert second.connected
    assert third.connected


def test_counters_add_up_over_the_life_of_an_endpoint(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, lambda n: got(1 / n), int)
    publisher = node.create_publisher(topic)

    for value in (1, 0, "no number", 2):
        publisher.publish(value)

    got.wait(2)
    stats = subscriber.stats
    assert (stats.received, stats.errors, stats.refused) == (4, 1, 1)
    assert publisher.stats.sent == 4
    assert (stats.dropped, stats.gaps, stats.unconfirmed, stats.reconnects) == (0, 0, 0, 0)
