"""What is published while a subscriber is away, on brokers that keep it for him."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import strictly
from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.node import Node
from commlib.pubsub import Subscriber
from commlib.transports import _main_transport, resolve
from faults.proxy import Proxy

MakeNode = Callable[..., Node]

EXPIRY = 60
LEVELS = (1, 2)
"""At which the broker keeps what is published."""


@pytest.fixture
def robot(broker: Broker) -> str:
    """The URL of a robot for which the broker keeps what it misses."""
    if not hasattr(resolve(broker.url), "session_expiry"):
        pytest.skip("the broker keeps nothing for those who are away")
    url = broker.with_options(client_id=broker.unique("robot"), session_expiry=EXPIRY)
    assert resolve(url).make_transport().traits.lasting
    return url


@pytest.fixture(params=LEVELS)
def qos(request: pytest.FixtureRequest, broker: Broker) -> int:
    """A delivery level at which the broker keeps messages, where it has that."""
    level: int = request.param
    if level not in broker.traits.delivery_levels:
        pytest.skip(f"the broker does not deliver at QoS {level}")
    return level


@pytest.fixture
def publish(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Publishes on a topic, and returns when the broker has it."""
    monkeypatch.setattr(_main_transport, "FLUSH_SECONDS", DEADLINE)

    def publish(topic: str, messages: Iterable[Any], **options: Any) -> None:
        with Node(broker.unique("sender"), connection_params=broker.url) as sender:
            publisher = sender.create_publisher(topic, **{"qos": 1, **options})
            for message in messages:
                publisher.publish(message)

    return publish


Publish = Callable[..., None]


def test_a_client_without_a_name_cannot_be_known_again(broker: Broker, robot: str) -> None:
    url = broker.with_options(session_expiry=EXPIRY)
    with pytest.raises(ValueError, match="client_id"):
        resolve(url)


def test_without_session_expiry_nothing_is_kept(broker: Broker, publish: Publish) -> None:
    topic = broker.unique("kept")
    with Node("robot", connection_params=broker.url) as node:
        node.create_subscriber(topic, Collected())
    publish(topic, ["missed"], qos=max(broker.traits.delivery_levels))
    got = Collected()
    with Node("robot", connection_params=broker.url) as node:
        node.create_subscriber(topic, got)
        node.create_publisher(topic).publish("live")
        assert got.until("live") == []


def test_what_is_published_between_two_runs_comes_in_order_and_once(
    broker: Broker, robot: str, publish: Publish, qos: int
) -> None:
    topic = broker.unique("kept")
    with Node("robot", connection_params=robot) as node:
        node.create_subscriber(topic, Collected())
    publish(topic, range(100), qos=qos)
    got = Collected()
    node = Node("robot", connection_params=robot)
    node.create_subscriber(topic, got)
    with node:
        publish(topic, ["live"], qos=qos)
        assert got.until("live") == [*range(100)]
    # Nothing of it comes again in the third run.
    publish(topic, ["again"], qos=qos)
    more = Collected()
    with Node("robot", connection_params=robot) as node:
        node.create_subscriber(topic, more)
        assert more.first == "again"


def test_what_is_published_while_the_connection_is_cut_comes_in_order_and_once(
    make_node: MakeNode, broker: Broker, robot: str, publish: Publish, qos: int
) -> None:
    topic = broker.unique("kept")
    got = Collected()
    with Proxy(robot) as proxy:
        node = Node("robot", connection_params=proxy.url)
        subscriber = node.create_subscriber(topic, got)
        with node:
            proxy.refuses = True
            proxy.cut()
            publish(topic, range(100), qos=qos)
            proxy.refuses = False
            assert got.wait(100) == [*range(100)]
            publish(topic, ["live"], qos=qos)
            assert got.until("live") == [*range(100)]
            assert (subscriber.stats.gaps, subscriber.stats.duplicates) == (0, 0)


def test_nothing_is_lost_on_a_connection_that_is_cut_again_and_again(
    node: Node, broker: Broker, robot: str, qos: int
) -> None:
    topic, got = broker.unique("kept"), Collected()
    publisher = node.create_publisher(topic, qos=qos)
    with Proxy(robot) as proxy:
        receiver = Node("robot", connection_params=proxy.url)
        receiver.create_subscriber(topic, got)
        with receiver:
            for number in range(500):
                publisher.publish(number)
                if number % 50 == 25:
                    got.wait(number // 2)
                    proxy.cut()
            eventually(lambda: len(set(got.items)) == 500)
            publisher.publish("end")
            found = got.until("end")
    # Not all brokers keep the order of what was on its way when the connection broke.
    assert set(found) == {*range(500)}
    if qos == 2:
        assert len(found) == 500


def test_each_of_several_subscribers_that_overlap_gets_its_own_copy(
    broker: Broker, robot: str, publish: Publish
) -> None:
    base = broker.unique("kept")
    names = ("exact", "pattern", "all", "part", "other")

    def subscribed(node: Node) -> dict[str, Collected]:
        got = {name: Collected() for name in names}
        node.create_subscriber(f"{base}.arm.state", got["exact"])
        node.create_psubscriber(f"{base}.*.state", got["pattern"])
        node.create_psubscriber(f"{base}.*", got["all"])
        parts = node.create_wsubscriber()
        parts.subscribe(f"{base}.arm.*", got["part"])
        node.create_subscriber(f"{base}.leg.state", got["other"])
        return got

    node = Node("robot", connection_params=robot)
    subscribed(node)
    with node:
        pass
    publish(f"{base}.arm.state", [1, 2])
    publish(f"{base}.leg.state", [3])
    node = Node("robot", connection_params=robot)
    got = subscribed(node)
    with node:
        publish(f"{base}.arm.state", ["live"])
        arm, leg = f"{base}.arm.state", f"{base}.leg.state"
        assert got["exact"].until("live") == [1, 2]
        assert got["pattern"].until(("live", arm)) == [(1, arm), (2, arm), (3, leg)]
        assert got["all"].until(("live", arm)) == [(1, arm), (2, arm), (3, leg)]
        assert got["part"].until("live") == [1, 2]
        assert got["other"].wait(1) == [3]


def test_subscribers_of_a_running_node_get_what_waited_one_after_the_other(
    broker: Broker, robot: str, publish: Publish
) -> None:
    topics = [broker.unique(f"kept{number}") for number in range(3)]
    node = Node("robot", connection_params=robot)
    for topic in topics:
        node.create_subscriber(topic, Collected())
    with node:
        pass
    for topic in topics:
        publish(topic, range(30))
    with Node("robot", connection_params=robot) as node:
        for topic in topics:
            got = Collected()
            node.create_subscriber(topic, got)
            assert got.wait(30) == [*range(30)]


def test_what_is_stopped_alone_is_ended_at_the_broker_as_well(
    broker: Broker, robot: str, publish: Publish
) -> None:
    ended, kept = broker.unique("ended"), broker.unique("kept")
    node = Node("robot", connection_params=robot)
    subscriber = node.create_subscriber(ended, Collected())
    node.create_subscriber(kept, Collected())
    with node:
        subscriber.stop()
    publish(ended, ["lost"])
    publish(kept, ["found"])
    got, missed = Collected(), Collected()
    node = Node("robot", connection_params=robot)
    node.create_subscriber(kept, got)
    node.create_subscriber(ended, missed)
    with node:
        assert got.first == "found"
        publish(ended, ["live"])
        assert missed.first == "live"


def test_a_node_that_is_stopped_and_started_from_afar_gets_what_came_meanwhile(
    broker: Broker, robot: str, publish: Publish
) -> None:
    topic, name, got = broker.unique("kept"), broker.unique("robot"), Collected()
    node = Node(name, connection_params=robot, ctrl_services=True)
    node.create_subscriber(topic, got)
    with node, Node(broker.unique("far"), connection_params=broker.url) as far:
        far.create_rpc_client(f"{name}.stop").call({})
        publish(topic, range(10))
        far.create_rpc_client(f"{name}.start").call({})
        publish(topic, ["live"])
        assert got.until("live") == [*range(10)]


def test_a_subscriber_that_stands_alone_is_missed_until_it_is_run_again(
    broker: Broker, robot: str, publish: Publish
) -> None:
    topic, got = broker.unique("kept"), Collected()
    subscriber = Subscriber(topic, got, conn_params=robot)
    subscriber.run()
    subscriber.stop()
    publish(topic, ["away"])
    subscriber.run()
    assert got.first == "away"
    publish(topic, ["live"])
    assert got.until("live") == ["away"]
    subscriber.stop()


def test_a_run_that_is_stopped_while_it_begins_ends_nothing(
    broker: Broker, robot: str, publish: Publish
) -> None:
    topic, got = broker.unique("kept"), Collected()
    with Node("robot", connection_params=robot) as node:
        node.create_subscriber(topic, got)
    publish(topic, ["away"])
    for _ in range(10):
        node = Node("robot", connection_params=robot)
        node.create_subscriber(topic, got)
        node.run(wait=False)
        node.stop()
    node = Node("robot", connection_params=robot)
    node.create_subscriber(topic, got)
    with node:
        assert got.first == "away"
        publish(topic, ["live"])
        assert set(got.until("live")) == {"away"}


async def test_an_iterator_gets_what_was_published_between_two_runs(
    broker: Broker, robot: str
) -> None:
    topic = broker.unique("kept")
    async with aio.Node("robot", robot) as node:
        await node.create_subscriber(topic).run()
    async with aio.Node("sender", broker.url) as sender:
        publisher = sender.create_publisher(topic, qos=1)
        for number in range(3):
            await publisher.publish(number)
    async with aio.Node("robot", robot) as node:
        messages = aiter(node.create_subscriber(topic))
        assert [await anext(messages) for _ in range(3)] == [0, 1, 2]


PROGRAM = """
import sys, time
from commlib.node import Node
url, *topics = sys.argv[1:]
node = Node("robot", connection_params=url)
for topic in topics:
    node.create_subscriber(topic, lambda msg: None)
node.run()
print("running", flush=True)
time.sleep(60)
"""


def test_what_is_published_after_a_program_was_killed_comes_in_its_next_run(
    broker: Broker, robot: str, publish: Publish
) -> None:
    topic = broker.unique("kept")
    with subprocess.Popen(
        [sys.executable, *strictly.STRICT, "-c", PROGRAM, robot, topic],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.kill()
        process.wait(DEADLINE)
    publish(topic, range(10))
    got = Collected()
    with Node("robot", connection_params=robot) as node:
        node.create_subscriber(topic, got)
        publish(topic, ["live"])
        assert got.until("live") == [*range(10)]


def test_a_call_to_a_service_of_a_program_that_is_away_is_not_kept_for_it(
    broker: Broker, robot: str
) -> None:
    topic, service = broker.unique("kept"), broker.unique("service")
    with Node("robot", connection_params=robot) as node:
        node.create_subscriber(topic, Collected())
        node.create_rpc(service, lambda request: "first")
    with Node("standin", connection_params=broker.url) as standin:
        standin.create_rpc(service, lambda request: "second")
        with Node("asker", connection_params=broker.url) as asker:
            client = asker.create_rpc_client(service)
            assert {client.call({}) for _ in range(20)} == {"second"}
