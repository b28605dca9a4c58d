"""The sink of a bridge dies and comes back: nothing within the bound is lost, the rest counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from brokers import Server
from collected import Collected, eventually
from commlib.bridges import Keep, RPCBridge, TopicBridge
from commlib.exceptions import RPCTimeout
from commlib.node import Node

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds
MEMORY = "memory://bridge-faults"


@pytest.fixture
def near() -> Iterator[Node]:
    """A running node on the source, which never goes away."""
    with Node("near", connection_params=MEMORY) as node:
        yield node


@pytest.mark.parametrize(
    "outage", [pytest.param(1, id="1s"), pytest.param(10, id="10s", marks=pytest.mark.slow)]
)
def test_nothing_is_lost_while_the_sink_is_away_and_order_is_kept(
    near: Node, make_server: MakeServer, outage: float
) -> None:
    server = make_server()
    got = Collected()
    with (
        Node("far", connection_params=server.url) as far,
        TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url) as bridge,
    ):
        subscriber = far.create_subscriber("far.sonar", got)
        publisher = near.create_publisher("sonar")
        for n in range(100):
            publisher.publish(n)
        got.wait(100)

        server.kill()
        eventually(lambda: not bridge.connected)
        for n in range(100, 5100):
            publisher.publish(n)
        eventually(lambda: bridge.stats.waiting == 5000)
        threading.Event().wait(outage)  # the length of the outage is what is tested
        server.start()

        assert got.wait(5100) == list(range(5100))
        stats = bridge.stats
        assert (stats.received, stats.forwarded, stats.waiting) == (5100, 5100, 0)
        assert stats.dropped == stats.expired == stats.unconfirmed == stats.discarded == 0
        assert stats.sink.reconnects == 1
        assert subscriber.stats.gaps == subscriber.stats.duplicates == 0


@pytest.mark.restarts
def test_what_comes_in_the_middle_of_an_outage_keeps_its_place(
    near: Node, make_server: MakeServer
) -> None:
    server = make_server()
    got = Collected()
    done = threading.Event()
    sent = 0

    with (
        Node("far", connection_params=server.url) as far,
        TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url) as bridge,
    ):
        subscriber = far.create_subscriber("far.sonar", got)
        publisher = near.create_publisher("sonar")

        def publish_for_ever() -> None:
            nonlocal sent
            while not done.wait(0.001):
                publisher.publish(sent)
                sent += 1

        thread = threading.Thread(target=publish_for_ever)
        thread.start()
        got.wait(100)
        server.kill()
        eventually(lambda: bridge.stats.waiting > 100)
        server.start()
        eventually(lambda: bridge.stats.waiting == 0 and bridge.stats.sink.reconnects == 1)
        mark = len(got.items)
        got.wait(mark + 100)
        done.set()
        thread.join()
        # What was on its way when the sink died is counted by the bridge if that broker confirms
        # what it gets, else by the subscriber.
        eventually(
            lambda: sent - len(got.items) <= bridge.stats.unconfirmed + subscriber.stats.gaps,
            lambda: f"{len(got.items)} of {sent}, {bridge.stats}, {subscriber.stats}",
        )

        assert got.items == sorted(got.items)
        assert bridge.stats.dropped == 0


@pytest.mark.restarts
def test_beyond_the_bound_the_oldest_are_dropped_and_counted(
    near: Node, make_server: MakeServer
) -> None:
    server = make_server()
    got = Collected()
    keep = Keep(max_messages=100)
    with (
        Node("far", connection_params=server.url) as far,
        TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url, keep=keep) as bridge,
    ):
        far.create_subscriber("far.sonar", got)
        publisher = near.create_publisher("sonar")
        server.kill()
        eventually(lambda: not bridge.connected)
        for n in range(1000):
            publisher.publish(n)
        eventually(lambda: bridge.stats.received == 1000)
        eventually(lambda: (bridge.stats.waiting, bridge.stats.dropped) == (100, 900))
        server.start()

        assert got.wait(100) == list(range(900, 1000))
        assert bridge.stats.forwarded == 100


@pytest.mark.restarts
def test_what_waits_for_too_long_is_dropped_and_counted(
    near: Node, make_server: MakeServer
) -> None:
    server = make_server()
    got = Collected()
    keep = Keep(max_age=0.5)
    with (
        Node("far", connection_params=server.url) as far,
        TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url, keep=keep) as bridge,
    ):
        far.create_subscriber("far.sonar", got)
        publisher = near.create_publisher("sonar")
        server.kill()
        eventually(lambda: not bridge.connected and not far.connected)
        publisher.publish("old")
        eventually(lambda: bridge.stats.received == 1)
        threading.Event().wait(0.6)  # its age is what is tested
        server.start()
        eventually(lambda: far.connected and bridge.connected and bridge.stats.expired == 1)
        publisher.publish("new")

        assert got.wait() == ["new"]


@pytest.mark.restarts
def test_a_bridge_begins_without_its_sink(near: Node, make_server: MakeServer) -> None:
    server = make_server()
    server.kill()
    got = Collected()
    bridge = TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url_with(connect_timeout=1))
    bridge.run(wait=False)
    try:
        publisher = near.create_publisher("sonar")

        def is_taken() -> bool:
            publisher.publish("early")
            return bridge.stats.waiting > 0

        eventually(is_taken)
        far = Node("far", connection_params=server.url)
        far.create_subscriber("far.sonar", got)
        far.run(wait=False)
        server.start()
        assert got.first == "early"
    finally:
        far.stop()
        bridge.stop()


@pytest.mark.restarts
def test_what_could_not_be_sent_before_the_stop_is_counted(
    near: Node, make_server: MakeServer
) -> None:
    server = make_server()
    bridge = TopicBridge(None, "sonar", "far.sonar", MEMORY, server.url)
    bridge.run()
    server.kill()
    eventually(lambda: not bridge.connected)
    publisher = near.create_publisher("sonar")
    for n in range(10):
        publisher.publish(n)
    eventually(lambda: bridge.stats.waiting == 10)
    bridge.stop()
    assert (bridge.stats.waiting, bridge.stats.dropped) == (0, 10)


@pytest.mark.restarts
def test_the_source_dies_and_the_bridge_takes_up_its_topics_again(make_server: MakeServer) -> None:
    server = make_server()
    got = Collected()
    with (
        Node("far", connection_params=MEMORY) as far,
        Node("near", connection_params=server.url) as near,
        TopicBridge(None, "sonar", "far.sonar", server.url, MEMORY) as bridge,
    ):
        far.create_subscriber("far.sonar", got)
        publisher = near.create_publisher("sonar")
        server.kill()
        eventually(lambda: not bridge.connected)
        server.start()

        def arrives() -> bool:
            publisher.publish("again")
            return bool(got.items)

        eventually(arrives)
        eventually(lambda: bridge.stats.source.reconnects == 1)


@pytest.mark.restarts
def test_calls_go_through_again_after_the_sink_has_died(
    near: Node, make_server: MakeServer
) -> None:
    server = make_server()
    with (
        Node("far", connection_params=server.url) as far,
        RPCBridge(None, "add", "far.add", MEMORY, server.url),
    ):
        far.create_rpc("far.add", lambda request: request["a"] + 1)
        client = near.create_rpc_client("add")
        assert client.call({"a": 1}, timeout=5) == 2
        server.kill()
        with pytest.raises(RPCTimeout):
            client.call({"a": 2}, timeout=0.3)
        server.start()

        def answers() -> bool:
            try:
                return bool(client.call({"a": 3}, timeout=0.5) == 4)
            except RPCTimeout:
                return False

        eventually(answers)
