"""The counters of nodes as Prometheus metrics."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from collected import DEADLINE, Collected, eventually
from commlib import _workers, aio
from commlib._readings import COUNTERS, LINK_COUNTERS
from commlib._stats import Stats
from commlib.metrics import NodeCollector, export
from commlib.node import Node
from commlib.pubsub import Subscriber
from commlib.transports.base import LinkStats
from messages import Sonar

URL = "memory://metrics"


@pytest.fixture
def registry() -> CollectorRegistry:
    """One that nothing else is registered in."""
    return CollectorRegistry()


@pytest.fixture
def node() -> Iterator[Node]:
    """A running node."""
    with Node("robot", URL, heartbeats=False) as node:
        yield node


class Scraped:
    """What a scrape has brought."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, metric: str, **labels: str) -> float | None:
        """The value of one series, None if there is none."""
        return self.values.get((metric, *sorted(labels.items())))

    @property
    def nodes(self) -> set[str]:
        """The names of the nodes that are shown."""
        return {s.labels["node"] for s in self.families["commlib_node_info"].samples}


def scrape(registry: CollectorRegistry) -> Scraped:
    return Scraped(generate_latest(registry).decode())


# ---- which nodes ----


def test_a_node_is_shown_until_it_is_stopped_and_again_when_it_runs_again(
    registry: CollectorRegistry,
) -> None:
    node = Node("robot", URL)
    export(node, registry)
    assert scrape(registry)("commlib_node_healthy", node="robot") == 0
    for _ in range(2):
        with node:
            eventually(lambda: scrape(registry)("commlib_node_healthy", node="robot") == 1)
        assert scrape(registry).values == {}


def test_a_node_that_nobody_holds_any_more_vanishes(registry: CollectorRegistry) -> None:
    export(Node("robot", URL), registry)
    eventually(lambda: scrape(registry).nodes == set())


def test_what_is_no_node_is_refused_and_the_others_are_shown_on(
    registry: CollectorRegistry, node: Node
) -> None:
    export(node, registry)
    for wrong in (node.create_publisher("topic"), 5):
        with pytest.raises(TypeError, match="is no Node"):
            export(wrong, registry)  # type: ignore[arg-type]
    assert node.node_name in generate_latest(registry).decode()


def test_several_nodes_are_shown_in_one_registry_and_others_are_not(
    registry: CollectorRegistry, node: Node
) -> None:
    with Node("second", URL) as second, Node("third", URL):
        assert export(node, registry) is export(second, registry)
        assert scrape(registry).nodes == {"robot", "second"}


def test_a_collector_that_was_taken_out_of_its_registry_comes_back_with_the_next_export(
    registry: CollectorRegistry, node: Node
) -> None:
    registry.unregister(export(node, registry))
    assert generate_latest(registry) == b""
    export(node, registry)
    export(node, registry)
    assert scrape(registry).nodes == {"robot"}


async def test_all_nodes_of_the_process_are_shown_on_request(
    registry: CollectorRegistry, node: Node
) -> None:
    registry.register(NodeCollector())
    async with aio.Node("later", URL) as later:
        later.create_publisher("a.b")
        scraped = scrape(registry)
        assert {"robot", "later"} <= scraped.nodes
        labels = {"node": "later", "kind": "publisher", "name": "a.b"}
        assert scraped("commlib_messages_sent_total", **labels) == 0
    assert "later" not in scrape(registry).nodes


def test_an_endpoint_that_is_stopped_alone_vanishes(
    registry: CollectorRegistry, node: Node
) -> None:
    export(node, registry)
    publisher = node.create_publisher("a.b")
    labels = {"node": "robot", "kind": "publisher", "name": "a.b"}
    assert scrape(registry)("commlib_endpoint_ready", **labels) == 1
    publisher.stop()
    assert scrape(registry)("commlib_endpoint_ready", **labels) is None


def test_two_collectors_of_all_nodes_are_told_apart_at_once(registry: CollectorRegistry) -> None:
    registry.register(NodeCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(NodeCollector())


# ---- which counters ----


def test_every_counter_of_stats_is_a_metric() -> None:
    ours = {*COUNTERS, "gaps", "late"}
    of_the_connection = {"unconfirmed", "rejected", "discarded", "reconnects"}
    assert set(Stats.__slots__) == (ours | of_the_connection) - {"forwarded", "looped"}
    assert set(LinkStats.__slots__) == set(LINK_COUNTERS)


def test_messages_are_counted_by_node_kind_and_name(
    registry: CollectorRegistry, node: Node
) -> None:
    export(node, registry)
    got = Collected()
    errors = Collected()

    def on_message(msg: Sonar) -> None:
        got(msg)
        if msg.distance < 0:
            raise ValueError

    node.create_subscriber("a.b", on_message, Sonar, on_error=lambda error, topic: errors(error))
    publisher = node.create_publisher("a.b", Sonar)
    node.create_mpublisher().publish({"distance": "far"}, "a.b")
    for distance in (1.0, 2.0, -1.0):
        publisher.publish(Sonar(distance))
    got.wait(3)
    errors.wait(2)

    scraped = scrape(registry)
    sent = {"node": "robot", "kind": "publisher"}
    assert scraped("commlib_messages_sent_total", name="a.b", **sent) == 3
    assert scraped("commlib_messages_sent_total", name="*", **sent) == 1
    received = {"node": "robot", "kind": "subscriber", "name": "a.b"}
    assert scraped("commlib_messages_received_total", **received) == 4
    assert scraped("commlib_messages_refused_total", **received) == 1
    assert scraped("commlib_callback_errors_total", **received) == 1
    assert scraped("commlib_messages_dropped_total", **received) == 0
    assert scraped("commlib_messages_missing", **received) == 0
    assert scraped("commlib_requests_repeated_total", **received) is None, "not of this kind"


def test_calls_and_goals_and_bridges_are_counted(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    node.create_rpc_server("calculator", {"add": dict})
    node.create_rpc_client("calculator.add").call({}, timeout=DEADLINE)
    node.create_action("drive", on_goal=lambda goal: {})
    node.create_action_client("drive").send_goal({}, wait_for_result=True)
    bridge = node.create_bridge("topic", "near", "far", "memory://metrics_far")
    eventually(lambda: bridge.core.ready)
    node.create_publisher("near").publish(1)
    eventually(lambda: bridge.stats.forwarded == 1)

    scraped = scrape(registry)
    of = {"node": "robot"}
    service = {"kind": "service", "name": "calculator.add", **of}
    assert scraped("commlib_messages_received_total", **service) == 1
    assert scraped("commlib_messages_sent_total", **service) == 1
    client = {"kind": "client", "name": "calculator.add", **of}
    assert scraped("commlib_messages_sent_total", **client) == 1
    for kind in ("action", "action_client"):
        found = scraped("commlib_messages_received_total", kind=kind, name="drive", **of)
        assert found is not None
        assert found >= 2
    passed = scraped("commlib_messages_forwarded_total", kind="bridge", name="near -> far", **of)
    assert passed == 1
    for broker in (URL, "memory://metrics_far"):
        assert scraped("commlib_connected", broker=broker, **of) == 1
        assert scraped("commlib_reconnects_total", broker=broker, **of) == 0


def test_what_waits_is_shown(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    gate, began = threading.Event(), Collected()

    def hold(msg: Any) -> None:
        began(msg)
        gate.wait(DEADLINE)

    node.create_subscriber("a.b", hold)
    publisher = node.create_publisher("a.b")
    for number in range(4):
        publisher.publish(number)
    assert began.first == 0

    def waiting() -> float | None:
        labels = {"node": "robot", "kind": "subscriber", "name": "a.b"}
        return scrape(registry)("commlib_messages_waiting", **labels)

    eventually(lambda: waiting() == 3)
    gate.set()
    eventually(lambda: waiting() == 0)


def test_types_are_right_and_counters_end_in_total(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    gauges = {
        *("commlib_node_info", "commlib_node_healthy", "commlib_connected"),
        *("commlib_endpoint_ready", "commlib_messages_waiting", "commlib_messages_missing"),
    }
    for name, family in scrape(registry).families.items():
        assert family.type == ("gauge" if name in gauges else "counter"), name
        assert family.documentation


def test_late_replies_are_counted_once_for_the_connection(
    registry: CollectorRegistry, node: Node
) -> None:
    export(node, registry)
    for name in ("a", "b"):
        node.create_rpc_client(name)
    node._core.hub.caller.late = 2
    assert scrape(registry)("commlib_replies_late_total", node="robot", broker=URL) == 2


def test_callbacks_that_waited_for_a_thread_are_counted(
    registry: CollectorRegistry, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(node, registry)
    monkeypatch.setattr(_workers, "MAX_WORKERS", 1)
    gate, got = threading.Event(), Collected()

    def hold(msg: Any) -> None:
        gate.wait(DEADLINE)
        got(msg)

    publishers = []
    for topic in ("a.b", "a.c", "a.d"):
        node.create_subscriber(topic, hold)
        publishers.append(node.create_publisher(topic))
    for publisher in publishers:
        publisher.publish(1)

    def starved() -> float | None:
        return scrape(registry)("commlib_callbacks_starved_total", node="robot", broker=URL)

    eventually(lambda: starved() == 2)
    gate.set()
    got.wait(3)


def test_endpoints_of_one_name_are_added_up(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    for _ in range(3):
        node.create_publisher("a.b").publish(1)
    labels = {"node": "robot", "kind": "publisher", "name": "a.b"}
    assert scrape(registry)("commlib_messages_sent_total", **labels) == 3


def test_a_connection_that_nodes_share_is_counted_once(registry: CollectorRegistry) -> None:
    with (
        Node("one", URL, share_connection=True) as one,
        Node("two", URL, share_connection=True) as two,
    ):
        export(one, registry)
        export(two, registry)
        scraped = scrape(registry)
        connected = scraped.families["commlib_connected"].samples
        assert [sample.labels for sample in connected] == [{"node": "", "broker": URL}]
        assert scraped.nodes == {"one", "two"}


# ---- bounds ----


def test_there_is_a_bound_of_series_and_what_is_beyond_is_added_up(
    registry: CollectorRegistry, node: Node
) -> None:
    registry.register(NodeCollector(node, max_endpoints=2))
    for number in range(10):
        node.create_publisher(f"a.{number}").publish(number)
    node.create_subscriber("a.b", print)

    scraped = scrape(registry)
    of = {"node": "robot", "kind": "publisher"}
    assert scraped("commlib_messages_sent_total", name="a.0", **of) == 1
    assert scraped("commlib_messages_sent_total", name="a.2", **of) is None
    assert scraped("commlib_messages_sent_total", name="(others)", **of) == 8
    assert len(scraped.families["commlib_endpoint_ready"].samples) == 4


@pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
def test_what_is_no_bound_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_endpoints"):
        NodeCollector(max_endpoints=wrong)


def test_topics_of_messages_make_no_series(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    got = Collected()
    node.create_subscriber("a.*", got)
    publisher = node.create_mpublisher()
    before = len(scrape(registry).values)
    for number in range(20):
        publisher.publish(number, f"a.{number}")
    got.wait(20)
    assert len(scrape(registry).values) == before


def test_a_password_is_not_shown(registry: CollectorRegistry) -> None:
    node = Node("robot", "redis://user:s3cret@localhost:1/2")
    export(node, registry)
    text = generate_latest(registry).decode()
    assert "localhost" in text
    assert "s3cret" not in text


# ---- while much goes on ----


def test_it_may_be_scraped_while_endpoints_and_nodes_come_and_go(
    registry: CollectorRegistry,
) -> None:
    registry.register(NodeCollector())
    over = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not over.is_set():
                generate_latest(registry)
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(30):
            with Node(f"node{number}", URL) as node:
                node.create_publisher("a.b").publish(1)
                server = node.create_rpc_server("calculator", {"add": dict})
                server.register_endpoint("sub", dict)
                node.create_subscriber("a.b", print, inline=False).stop()
    finally:
        over.set()
        thread.join()
    assert failed == []


def test_prometheus_own_server_serves_them(registry: CollectorRegistry, node: Node) -> None:
    export(node, registry)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=DEADLINE) as page:
            text = page.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'commlib_node_healthy{node="robot"} 1.0' in text


def test_an_endpoint_without_a_node_is_not_shown(registry: CollectorRegistry) -> None:
    registry.register(NodeCollector())
    with Subscriber("alone.b", print, conn_params=URL):
        assert "alone.b" not in generate_latest(registry).decode()


def test_without_the_package_it_is_told_what_to_install() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
from commlib.exceptions import MissingDriver
try:
    import commlib.metrics
except MissingDriver as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == 'prometheus_client is missing: pip install "commlib-py[metrics]"\n'
