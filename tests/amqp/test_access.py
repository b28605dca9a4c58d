"""Ways into RabbitMQ that others do not have: virtual hosts, certificates; and how it refuses.

What all brokers have alike is in tests/security.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from brokers import RabbitServer, missing, running
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually
from commlib.exceptions import AuthError, RPCTimeout
from commlib.node import Node
from commlib.transports.amqp import ConnectionParameters
from security.access import round_trip
from security.certificates import files_for, trusting

ALL, NONE = ".*", "^$"
USERS = {
    "robot": "s3cret/@ é",
    "picky": "picky",  # may write and read topics that begin with allowed, and be discovered
    "mute": "mute",  # may not write to the default exchange: neither call nor answer
    "silent": "silent",  # may write to no exchange
    "shy": "shy",  # may have queues of the broker's naming alone
    "blind": "blind",  # may not read from what is named work
    "deaf": "deaf",  # may have no queue
    "lost": "lost",  # may have a queue, but not read from it
    "nobody": "nobody",
}
PERMISSIONS = {
    "mute": (ALL, r"^(?!amq\.default$)", ALL),
    "silent": (ALL, r"^amq\.gen", ALL),
    "shy": (r"^amq\.gen|^good", ALL, ALL),
    "blind": (ALL, ALL, r"^(?!work)"),
    "deaf": (NONE, ALL, ALL),
    "lost": (ALL, ALL, r"^amq\.topic$"),
    "nobody": (NONE, NONE, NONE),
}
TOPICS = r"^allowed|^commlib\.discovery"
TOPIC_PERMISSIONS = {"picky": ("amq.topic", TOPICS, rf"{TOPICS}|^\$presence|^amq\.")}


class Server(RabbitServer):
    """The broker with these users."""

    def __init__(self) -> None:
        super().__init__(
            users=USERS,
            permissions=PERMISSIONS,
            topic_permissions=TOPIC_PERMISSIONS,
            vhosts=("/", "fleet/7"),
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Server) as server:
        yield server


@pytest.fixture
def topic() -> str:
    return f"t{os.urandom(4).hex()}"


@pytest.fixture
def seen(server: Server, topic: str) -> Iterator[Collected]:
    """What comes on a topic that the picky user may write to."""
    seen = Collected()
    with Node("spy", connection_params=server.url_as("robot")) as spy:
        spy.create_subscriber(f"allowed.{topic}", seen)
        yield seen


@pytest.fixture
def picky(server: Server) -> Iterator[Node]:
    """A node of the picky user, which publishes nothing of its own that he may not."""
    with Node("n", connection_params=server.url_as("picky"), heartbeats=False) as node:
        yield node


# ---- virtual hosts ----


def test_virtual_hosts_keep_topics_and_services_apart(server: Server, topic: str) -> None:
    here, there = Collected(), Collected()
    with (
        Node("one", connection_params=server.url_as("robot")) as one,
        Node("two", connection_params=server.url_as("robot", vhost="fleet/7")) as two,
    ):
        one.create_subscriber(topic, here)
        two.create_subscriber(topic, there)
        for node, name in ((one, "one"), (two, "two")):
            node.create_rpc(topic, lambda request, name=name: {"name": name})
            node.create_publisher(topic).publish(name)
        assert (here.first, there.first) == ("one", "two")
        for node, name in ((one, "one"), (two, "two")):
            assert node.create_rpc_client(topic).call({}, timeout=DEADLINE) == {"name": name}
        assert (here.items, there.items) == (["one"], ["two"])


@pytest.mark.parametrize("vhost", ["unknown", "fleet"])
def test_a_virtual_host_that_there_is_not_is_an_error_that_names_it(
    server: Server, vhost: str
) -> None:
    node = Node("n", connection_params=server.url_as("robot", vhost=vhost))
    with pytest.raises(AuthError, match=f"vhost {vhost} not found"):
        node.run()
    node.stop()


def test_one_where_the_user_may_do_nothing_lets_him_in_and_says_so_later(
    server: Server, topic: str
) -> None:
    with Node("n", connection_params=server.url_as("nobody"), heartbeats=False) as node:
        with pytest.raises(AuthError, match="refused for user 'nobody'"):
            node.create_subscriber(topic, print)
        with pytest.raises(AuthError, match=f"access to queue '{topic}' .*refused"):
            node.create_rpc(topic, print)
        with pytest.raises(AuthError, match=r"access to exchange 'amq\.default' .*refused"):
            node.create_rpc_client(topic).call({}, timeout=DEADLINE)
        publisher = node.create_publisher(topic)
        publisher.publish(1)
        eventually(lambda: publisher.stats.rejected > 0)
        assert node.connected
        assert publisher.stats.reconnects == 0


def test_a_way_in_that_the_broker_does_not_know_is_an_error_that_tells_which_it_knows(
    server: Server,
) -> None:
    params = ConnectionParameters("127.0.0.1", server.port, mechanism="EXTERNAL")
    node = Node("n", connection_params=params)
    with pytest.raises(AuthError, match=r"nobody in by EXTERNAL, it knows .*PLAIN"):
        node.run()
    node.stop()


# ---- rights: publish ----


@pytest.mark.parametrize("qos", [0, 1])
def test_a_user_who_may_not_publish_is_counted_and_logged_once(
    server: Server, topic: str, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Node("n", connection_params=server.url_as("picky"), heartbeats=False) as node:
        publisher = node.create_publisher(f"forbidden.{topic}", qos=qos)
        for number in range(5):
            publisher.publish({"n": number})
            eventually(lambda number=number: publisher.stats.rejected == number + 1)
        assert caplog.text.count("ACCESS_REFUSED") == 1
        assert f"forbidden.{topic}" in caplog.text
        assert publisher.stats.reconnects == 0


def test_who_goes_on_as_soon_as_it_is_told_loses_nothing(
    seen: Collected, picky: Node, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = picky.create_publisher(f"allowed.{topic}")
    forbidden = picky.create_publisher(f"forbidden.{topic}")

    class GoOn(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            forbidden.publish("again")
            allowed.publish("behind it")

    monkeypatch.setattr(logging.getLogger("commlib"), "handlers", [GoOn()])
    forbidden.publish("x")
    assert seen.first == "behind it"
    eventually(lambda: forbidden.stats.rejected == 2)


@pytest.mark.parametrize("qos", [0, 1])
def test_what_may_not_be_published_does_not_keep_the_rest_from_it(
    seen: Collected, picky: Node, topic: str, qos: int
) -> None:
    allowed = picky.create_publisher(f"allowed.{topic}", qos=qos)
    forbidden = picky.create_publisher(f"forbidden.{topic}", qos=qos)
    forbidden.publish("x")
    eventually(lambda: forbidden.stats.rejected == 1)
    for number in range(100):
        if number % 20 == 10:
            forbidden.publish(number)
        allowed.publish(number)
    assert seen.wait(100) == list(range(100))
    eventually(lambda: forbidden.stats.rejected == 6)


def test_at_qos_1_what_may_not_be_published_takes_nothing_else_with_it(
    seen: Collected, picky: Node, topic: str
) -> None:
    allowed = picky.create_publisher(f"allowed.{topic}", qos=1)
    forbidden = [picky.create_publisher(f"forbidden{n}.{topic}", qos=1) for n in range(3)]
    for number in range(100):
        if number % 30 == 10:
            forbidden[number // 30].publish(number)
        allowed.publish(number)
    eventually(lambda: set(seen.items) == set(range(100)), lambda: allowed.stats)
    eventually(lambda: allowed.stats.rejected == 3)


def test_calls_go_on_while_messages_are_refused(server: Server, topic: str) -> None:
    with Node("n", connection_params=server.url_as("picky"), heartbeats=False) as node:
        node.create_rpc(topic, lambda n: n)
        client = node.create_rpc_client(topic)
        forbidden = node.create_mpublisher()
        for number in range(50):
            forbidden.publish(number, f"forbidden.{topic}.{number}")
            assert client.call(number, timeout=DEADLINE) == number
            # One by one: what is behind it in the same moment the broker drops without a word.
            eventually(lambda number=number: forbidden.stats.rejected == number + 1)
        assert client.stats.reconnects == 0


def test_a_user_who_may_publish_nothing_hears_and_serves_all_the_same(
    server: Server, topic: str
) -> None:
    seen, url = Collected(), server.url_as("silent")
    with (
        Node("other", connection_params=server.url_as("robot")) as other,
        # What it would tell of itself were refused and counted, too.
        Node("n", connection_params=url, heartbeats=False, discovery=False) as node,
    ):
        node.create_subscriber(topic, seen)
        served = Collected()
        node.create_rpc(f"{topic}.work", served)
        publisher = node.create_publisher(f"{topic}.more")
        for number in range(3):
            publisher.publish(number)
            # One by one: what is behind it in the same moment the broker drops without a word.
            eventually(lambda number=number: publisher.stats.rejected == number + 1)
        for number in range(3):
            other.create_publisher(topic).publish(number)
        assert seen.wait(3) == [0, 1, 2]
        with pytest.raises(TimeoutError):
            other.create_rpc_client(f"{topic}.work").call({"n": 1}, timeout=0.3)
        assert served.first == {"n": 1}
        assert publisher.stats.reconnects == 0


# ---- rights: subscribe ----


def test_a_topic_that_may_not_be_read_leaves_the_others_alone(server: Server, topic: str) -> None:
    seen, early = Collected(), Collected()
    with Node("n", connection_params=server.url_as("picky"), heartbeats=False) as node:
        node.create_subscriber(f"allowed.{topic}.early", early)
        for forbidden in (f"forbidden.{topic}", "forbidden.*"):
            with pytest.raises(AuthError, match="access to topic 'forbidden"):
                node.create_subscriber(forbidden, print)
        node.create_subscriber(f"allowed.{topic}", seen)
        node.create_publisher(f"allowed.{topic}").publish({"n": 1})
        node.create_publisher(f"allowed.{topic}.early").publish({"n": 2})
        assert (seen.first, early.first) == ({"n": 1}, {"n": 2})
        assert node.connected


@pytest.mark.parametrize("user", ["deaf", "lost"])
def test_a_user_who_may_have_no_queue_is_told_so_each_time_and_publishes_and_calls(
    server: Server, topic: str, user: str
) -> None:
    seen = Collected()
    with (
        Node("other", connection_params=server.url_as("robot")) as other,
        Node("n", connection_params=server.url_as(user), heartbeats=False) as node,
    ):
        other.create_subscriber(topic, seen)
        other.create_rpc(f"{topic}.double", lambda request: {"n": request["n"] * 2})
        for name in ("one", "two"):
            with pytest.raises(AuthError, match=f"refused for user '{user}'"):
                node.create_subscriber(f"{topic}.{name}", print)
        node.create_publisher(topic).publish({"n": 1})
        assert seen.first == {"n": 1}
        call = node.create_rpc_client(f"{topic}.double").call
        assert call({"n": 4}, timeout=DEADLINE) == {"n": 8}
        assert node.connected


# ---- rights: serve and call ----


@pytest.mark.parametrize("user", ["shy", "blind"])
def test_a_service_that_may_not_be_served_leaves_its_neighbours_alone(
    server: Server, topic: str, user: str
) -> None:
    with Node("n", connection_params=server.url_as(user), heartbeats=False) as node:
        good = node.create_rpc(f"good.{topic}", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client(f"good.{topic}")
        assert client.call({"n": 1}, timeout=DEADLINE) == {"n": 2}
        for _ in range(2):
            with pytest.raises(AuthError, match=f"access to queue 'work.{topic}'"):
                node.create_rpc(f"work.{topic}", print)
        for number in range(20):
            assert client.call({"n": number}, timeout=DEADLINE) == {"n": 2 * number}
        assert good.stats.received == 21
        assert good._core.ready


def test_a_caller_who_may_not_call_is_told_so_and_publishes_all_the_same(
    server: Server, topic: str
) -> None:
    seen = Collected()
    with (
        Node("other", connection_params=server.url_as("robot")) as other,
        Node("n", connection_params=server.url_as("mute"), heartbeats=False) as node,
    ):
        other.create_subscriber(topic, seen)
        other.create_rpc(f"{topic}.work", lambda request: {})
        client = node.create_rpc_client(f"{topic}.work")
        for _ in range(3):
            with pytest.raises(AuthError, match=r"access to exchange 'amq\.default'"):
                client.call({}, timeout=DEADLINE)
        publisher = node.create_publisher(topic)
        for number in range(3):
            publisher.publish(number)
        assert seen.wait(3) == [0, 1, 2]
        assert publisher.stats.rejected == 0


def test_a_service_that_may_not_answer_does_not_keep_its_node_from_publishing(
    server: Server, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen, served = Collected(), Collected()
    with (
        Node("other", connection_params=server.url_as("robot")) as other,
        Node("n", connection_params=server.url_as("mute"), heartbeats=False) as node,
    ):
        other.create_subscriber(topic, seen)
        service = node.create_rpc(f"{topic}.work", served)
        client = other.create_rpc_client(f"{topic}.work")
        publisher = node.create_publisher(topic)
        calls = []
        for number in range(3):
            calls.append(client.call_async({"n": number}, timeout=BUSY_SECONDS))
            # One by one: what is behind it in the same moment the broker drops without a word.
            eventually(lambda number=number: service.stats.rejected == number + 1)
            publisher.publish(number)
        assert seen.wait(3) == [0, 1, 2]
        for call in calls:
            with pytest.raises(RPCTimeout):
                call.result(DEADLINE)
        assert served.wait(3) == [{"n": 0}, {"n": 1}, {"n": 2}], "each once"
        assert service.stats.reconnects == 0
    assert caplog.text.count("access to exchange 'amq.default'") == 1


# ---- certificates of the client ----

PLUGIN = "rabbitmq_auth_mechanism_ssl"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certain_server(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitServer]:
    """One that wants a certificate, and takes the name in it for the user's."""
    files = files_for(authority, tmp_path_factory.mktemp("tls"), "127.0.0.1")

    class CertainServer(RabbitServer):
        def __init__(self) -> None:
            super().__init__(
                users={"robot": "s3cret"},
                certificates=files,
                require_certificate=True,
                config=[
                    "auth_mechanisms.1 = EXTERNAL",
                    "auth_mechanisms.2 = PLAIN",
                    "ssl_cert_login_from = common_name",
                ],
            )

        def _prepare(self) -> None:
            super()._prepare()
            (self.folder / "plugins").write_text(f"[{PLUGIN}].\n")
            plugins = self.folder / "home" / "plugins"
            installed = Path(self._found() or "").resolve().parents[1] / "plugins"
            found = next(installed.glob(f"{PLUGIN}-*"), None)
            if found is None:
                missing(f"{PLUGIN} is missing; it comes with RabbitMQ")
            (plugins / found.name).symlink_to(found)

    with running(CertainServer) as server:
        yield server


def with_certificate(authority: trustme.CA, user: str) -> ssl.SSLContext:
    context = trusting(authority)
    authority.issue_cert("robot.example.com", common_name=user).configure_cert(context)
    return context


def test_a_certificate_of_the_client_opens_the_door(
    certain_server: RabbitServer, authority: trustme.CA, topic: str
) -> None:
    at = {"host": "127.0.0.1", "port": certain_server.port}
    context = with_certificate(authority, "robot")
    round_trip(ConnectionParameters(**at, ssl=context, mechanism="EXTERNAL"), topic)
    login = {"username": "robot", "password": "s3cret"}
    round_trip(ConnectionParameters(**at, ssl=context, **login), topic)


def test_a_certificate_of_a_stranger_does_not(
    certain_server: RabbitServer, authority: trustme.CA
) -> None:
    context = with_certificate(authority, "stranger")
    params = ConnectionParameters(
        "127.0.0.1", certain_server.port, ssl=context, mechanism="EXTERNAL"
    )
    node = Node("n", connection_params=params)
    with pytest.raises(AuthError, match="ACCESS_REFUSED"):
        node.run()
    node.stop()
