"""Ways into a Redis server: passwords, users, databases, unix socket, TLS; and being refused."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from brokers import RedisServer, free_port
from collected import Collected, eventually
from commlib.exceptions import AuthError
from commlib.node import Node
from commlib.transports.redis import (
    ConnectionParameters,
    Credentials,
    Publisher,
    RPCClient,
    RPCService,
    Subscriber,
    UnixSocketConnectionParameters,
)

MakeRedis = Callable[..., RedisServer]

ROBOT = {"robot": "on >secret ~* &* +@all"}


def round_trip(params: ConnectionParameters | str) -> None:
    """Publish, subscribe and call with these parameters."""
    seen = Collected()
    with Node("n", connection_params=params) as node:
        node.create_subscriber("numbers", seen)
        node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        node.create_publisher("numbers").publish({"n": 1})
        assert seen.first == {"n": 1}
        assert node.create_rpc_client("double").call({"n": 4}, timeout=5) == {"n": 8}


def test_a_password_alone_opens_the_door(make_redis: MakeRedis) -> None:
    server = make_redis(password="s3cret")
    round_trip(f"redis://:s3cret@127.0.0.1:{server.port}")
    round_trip(ConnectionParameters(host="127.0.0.1", port=server.port, password="s3cret"))


def test_a_user_and_a_password_open_the_door(make_redis: MakeRedis) -> None:
    server = make_redis(users=ROBOT)
    round_trip(server.url_as("robot", "secret"))
    creds = Credentials(username="robot", password="secret")
    round_trip(ConnectionParameters(host="127.0.0.1", port=server.port, creds=creds))


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:s3cret@"])
def test_wrong_credentials_raise_at_once_and_are_not_told(
    make_redis: MakeRedis, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(password="s3cret")
    node = Node("n", connection_params=f"redis://{login}127.0.0.1:{server.port}")
    node.create_subscriber("numbers", print)
    with pytest.raises(AuthError) as caught:
        node.run()
    node.stop()
    for text in (str(caught.value), caplog.text, repr(node)):
        assert "s3cret" not in text
        assert "wrong" not in text.replace("WRONGPASS", "")


def test_a_password_where_none_is_needed_is_an_error_that_says_so(make_redis: MakeRedis) -> None:
    server = make_redis()
    node = Node("n", connection_params=f"redis://:s3cret@127.0.0.1:{server.port}")
    with pytest.raises(AuthError, match="password"):
        node.run()
    node.stop()


def test_a_publisher_with_wrong_credentials_raises_when_it_publishes(
    make_redis: MakeRedis,
) -> None:
    server = make_redis(password="s3cret")
    publisher = Publisher("numbers", None, ConnectionParameters("127.0.0.1", server.port))
    with pytest.raises(AuthError):
        publisher.run()
    with pytest.raises(AuthError):
        publisher.publish({"n": 1})
    publisher.stop()


def test_a_user_who_may_not_subscribe_is_told_so(make_redis: MakeRedis) -> None:
    server = make_redis(users={"robot": "on >secret ~* resetchannels &allowed.* +@all"})
    seen = Collected()
    with Node("n", connection_params=server.url_as("robot", "secret")) as node:
        with pytest.raises(AuthError, match="NOPERM"):
            node.create_subscriber("forbidden", print)
        node.create_subscriber("allowed.numbers", seen)
        node.create_publisher("allowed.numbers").publish({"n": 1})
        assert seen.first == {"n": 1}


def test_a_user_who_may_not_publish_is_counted_and_logged_once(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* resetchannels &allowed.* +@all"})
    url = server.url_as("robot", "secret")
    with Node("n", connection_params=url, heartbeats=False) as node:
        publisher = node.create_publisher("forbidden")
        for number in range(5):
            publisher.publish({"n": number})
        eventually(lambda: publisher.stats.rejected == 5)
        assert caplog.text.count("NOPERM") == 1


def test_a_node_that_may_not_beat_is_told_so_once_and_of_its_messages_all_the_same(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* resetchannels &allowed.* +@all"})
    url = server.url_as("robot", "secret")
    with Node("n", connection_params=url, heartbeat_interval=0.005, remote_logger=True) as node:
        publisher = node.create_publisher("forbidden")
        eventually(lambda: publisher.stats.rejected >= 3)
        assert caplog.text.count("NOPERM") == 1
        assert "n.heartbeat" in caplog.text
        node.log.error("not heard afar")
        publisher.publish({"n": 1})
        eventually(lambda: caplog.text.count("NOPERM") == 2)
        assert "forbidden" in caplog.text


def test_a_caller_who_may_not_push_to_the_list_is_counted(make_redis: MakeRedis) -> None:
    server = make_redis(users={"robot": "on >secret ~rpc-* &* +@all"})
    with Node("n", connection_params=server.url_as("robot", "secret")) as node:
        client = node.create_rpc_client("forbidden")
        with pytest.raises(TimeoutError):
            client.call({}, timeout=0.3)
        assert client.stats.rejected == 1


@pytest.mark.parametrize(("user", "bad"), [("robot", "forbidden"), ("keeper", "occupied")])
def test_a_service_that_may_not_be_served_leaves_its_neighbours_alone(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture, user: str, bad: str
) -> None:
    server = make_redis(users={"robot": "on >robot ~good ~rpc-* &* +@all"})
    server.cli("SET", "occupied", "by a text")
    with Node("n", connection_params=server.url_as(user, user)) as node:
        node.create_rpc("good", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("good")
        assert client.call({"n": 1}, timeout=5) == {"n": 2}
        refused = node.create_rpc(bad, lambda request: request)
        for number in range(100):
            assert client.call({"n": number}, timeout=5) == {"n": 2 * number}
        eventually(lambda: refused.stats.rejected == 1)
        assert not node.health
    assert caplog.text.count(f"{bad} is not served") == 1


def test_a_user_who_may_not_expire_keys_serves_all_the_same(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* &* +@all -expire"})
    with Node("n", connection_params=server.url_as("robot", "secret")) as node:
        service = node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("double")
        for number in range(5):
            assert client.call({"n": number}, timeout=5) == {"n": 2 * number}
        assert service.stats.rejected == 0
    assert "None" not in caplog.text


def test_databases_keep_queues_apart(make_redis: MakeRedis) -> None:
    server = make_redis()
    params = [ConnectionParameters("127.0.0.1", server.port, db=db) for db in (0, 3)]
    services = [
        RPCService("which", lambda request, db=db: {"db": db}, None, params[i])
        for i, db in enumerate((0, 3))
    ]
    for service in services:
        service.run()
    clients = [RPCClient("which", None, p) for p in params]
    assert [client.call({}, timeout=5)["db"] for client in clients] == [0, 3]
    for endpoint in (*services, *clients):
        endpoint.stop()


def test_a_unix_socket_is_as_good_as_a_port(make_redis: MakeRedis) -> None:
    server = make_redis()
    round_trip(UnixSocketConnectionParameters(unix_socket=server.unix_socket))
    round_trip(f"redis+unix://{server.unix_socket}?db=1")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def make_tls(
    make_redis: MakeRedis, authority: trustme.CA, tmp_path: Path
) -> Callable[[str], tuple[int, RedisServer]]:
    """Starts a server that speaks TLS for a host name, and tells its TLS port."""

    def make(host: str) -> tuple[int, RedisServer]:
        certificate = authority.issue_cert(host)
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        port = free_port()
        server = make_redis(
            config=[
                f"tls-port {port}",
                f"tls-cert-file {tmp_path}/server.pem",
                f"tls-key-file {tmp_path}/server.pem",
                f"tls-ca-cert-file {tmp_path}/ca.pem",
                "tls-auth-clients no",
            ]
        )
        return port, server

    return make


def test_tls_works_with_a_certificate_of_a_known_authority(
    make_tls: Callable[[str], tuple[int, RedisServer]], authority: trustme.CA
) -> None:
    port, _ = make_tls("127.0.0.1")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    round_trip(ConnectionParameters("127.0.0.1", port, ssl=context))


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("elsewhere.example", True)])
def test_tls_refuses_an_unknown_authority_and_a_wrong_host(
    make_tls: Callable[[str], tuple[int, RedisServer]],
    authority: trustme.CA,
    host: str,
    trusted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port, server = make_tls(host)
    params: ConnectionParameters | str = f"rediss://127.0.0.1:{port}?connect_timeout=0.5"
    if trusted:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        params = ConnectionParameters("127.0.0.1", port, ssl=context, connect_timeout=0.5)
    subscriber = Subscriber("numbers", print, None)
    subscriber.stop()
    node = Node("n", connection_params=params)
    node.run()
    assert not node.connected
    assert "certificate verify failed" in caplog.text
    node.stop()
    assert server.cli("PING") == "PONG" or server.cli("PING") == b"PONG"
