"""Ways into an MQTT broker: passwords, rights, TLS, certificates; and being refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from brokers import MosquittoServer, NatsServer, Server, missing
from collected import Collected, eventually
from commlib.exceptions import AuthError
from commlib.node import Node
from commlib.transports.mqtt import ConnectionParameters, Credentials, Publisher

MakeMosquitto = Callable[..., MosquittoServer]
MakeNats = Callable[..., NatsServer]

VERSIONS = pytest.mark.parametrize("protocol", ["MQTTv5", "MQTTv311"])
ROBOT = {"robot": "s3cret"}


def round_trip(params: ConnectionParameters | str) -> None:
    """Publish, subscribe and call with these parameters."""
    seen = Collected()
    with Node("n", connection_params=params) as node:
        node.create_subscriber("numbers", seen)
        node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        node.create_publisher("numbers").publish({"n": 1})
        assert seen.first == {"n": 1}
        assert node.create_rpc_client("double").call({"n": 4}, timeout=5) == {"n": 8}


# ---- passwords ----


@VERSIONS
def test_a_user_and_a_password_open_the_door(make_mosquitto: MakeMosquitto, protocol: str) -> None:
    server = make_mosquitto(users={"robot": "s3 cret/@"}, protocol=protocol)
    round_trip(server.url_as("robot"))
    at = {"host": "127.0.0.1", "port": server.port, "protocol": protocol}
    round_trip(ConnectionParameters(**at, creds=Credentials("robot", "s3 cret/@")))
    round_trip(ConnectionParameters(**at, username="robot", password="s3 cret/@"))


@VERSIONS
@pytest.mark.parametrize("login", [("", ""), ("robot", "wrong"), ("nobody", "s3cret")])
def test_wrong_credentials_raise_at_once_and_are_not_told(
    make_mosquitto: MakeMosquitto,
    protocol: str,
    login: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_mosquitto(users=ROBOT, protocol=protocol)
    caplog.set_level("DEBUG")
    node = Node("n", connection_params=server.url_as(*login))
    node.create_subscriber("numbers", print)
    with pytest.raises(AuthError) as caught:
        node.run()
    node.stop()
    params = node._core.hub.params
    for text in (str(caught.value), caplog.text, repr(node), repr(params), str(params)):
        assert "s3cret" not in text
        assert "wrong:" not in text
        assert ":wrong" not in text


def test_what_is_right_is_not_told_either(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_mosquitto(users=ROBOT)
    caplog.set_level("DEBUG")
    round_trip(server.url_as("robot"))
    assert "s3cret" not in caplog.text


def test_a_publisher_with_wrong_credentials_raises_when_it_publishes(
    make_mosquitto: MakeMosquitto,
) -> None:
    server = make_mosquitto(users=ROBOT)
    publisher = Publisher("numbers", None, ConnectionParameters("127.0.0.1", server.port))
    with pytest.raises(AuthError):
        publisher.run()
    with pytest.raises(AuthError):
        publisher.publish({"n": 1})
    publisher.stop()


# ---- rights ----


def dynamic_security(folder: Path) -> list[str]:
    """Lines for mosquitto.conf: a user ``robot`` who may subscribe to ``allowed/#`` alone.

    A file of rights would not do: Mosquitto reads it for messages, never for subscriptions.
    """
    plugin = next(iter(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")), None)
    if plugin is None:
        missing("mosquitto_dynamic_security.so is missing; install it with: apt install mosquitto")
    salt = os.urandom(12)
    password = hashlib.pbkdf2_hmac("sha512", b"s3cret", salt, 101)
    access = ("publishClientSend", "publishClientReceive", "unsubscribe")
    rights = [
        {"acltype": "subscribePattern", "topic": topic, "allow": True}
        for topic in ("allowed/#", "rpc-+/#", "$presence/#", "$share/commlib/allowed/#")
    ]
    config = {
        "defaultACLAccess": {**dict.fromkeys(access, True), "subscribe": False},
        "clients": [
            {
                "username": "robot",
                "salt": base64.b64encode(salt).decode(),
                "password": base64.b64encode(password).decode(),
                "iterations": 101,
                "roles": [{"rolename": "robot"}],
            }
        ],
        "roles": [{"rolename": "robot", "acls": rights}],
        "groups": [],
    }
    file = folder / "rights.json"
    file.write_text(json.dumps(config))
    file.chmod(0o644)
    return [f"plugin {plugin}", f"plugin_opt_config_file {file}"]


@VERSIONS
def test_a_user_who_may_not_subscribe_is_told_so(
    make_mosquitto: MakeMosquitto, tmp_path: Path, protocol: str
) -> None:
    server = make_mosquitto(config=dynamic_security(tmp_path), protocol=protocol)
    check_rights(server)


def test_a_user_who_may_not_subscribe_is_told_so_by_another_broker(make_nats: MakeNats) -> None:
    allowed = '"allowed.>", "rpc-*.*", "$MQTT.>"'
    server = make_nats(
        config=[
            "authorization { users = [ {",
            '  user: robot, password: s3cret, permissions: { publish: ">",',
            f"  subscribe: {{ allow: [{allowed}] }} }}",
            "} ] }",
        ]
    )
    check_rights(server)


def check_rights(server: Server) -> None:
    seen = Collected()
    url = server.url_as("robot", "s3cret")
    with Node("n", connection_params=url, heartbeats=False) as node:
        with pytest.raises(AuthError, match="forbidden"):
            node.create_subscriber("forbidden", print)
        node.create_subscriber("allowed.numbers", seen)
        node.create_publisher("allowed.numbers").publish({"n": 1})
        assert seen.first == {"n": 1}
        assert node.connected


def test_a_user_who_may_not_publish_is_counted_and_logged_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_mosquitto(users=ROBOT, acl=["user robot", "topic readwrite allowed/#"])
    with Node("n", connection_params=server.url_as("robot"), heartbeats=False) as node:
        publisher = node.create_publisher("forbidden", qos=1)
        for number in range(5):
            publisher.publish({"n": number})
            # One by one: Mosquitto 2.0.11 closes the connection for each of them.
            eventually(lambda number=number: publisher.stats.rejected == number + 1)
        assert caplog.text.count("not authorized") == 1


def test_what_may_not_be_published_takes_nothing_else_with_it(
    make_mosquitto: MakeMosquitto,
) -> None:
    server = make_mosquitto(users=ROBOT, acl=["user robot", "topic readwrite allowed/#"])
    url, seen = server.url_as("robot"), Collected()
    with (
        Node("spy", connection_params=url, heartbeats=False) as spy,
        Node("n", connection_params=url, heartbeats=False) as node,
    ):
        spy.create_subscriber("allowed.numbers", seen)
        publisher = node.create_publisher("allowed.numbers", qos=1)
        forbidden = node.create_publisher("forbidden", qos=1)
        for number in range(100):
            if number % 20 == 10:
                forbidden.publish(number)
            publisher.publish(number)
        eventually(lambda: set(seen.items) == set(range(100)), lambda: publisher.stats)


# ---- TLS ----


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


MakeTls = Callable[..., MosquittoServer]


@pytest.fixture
def make_tls(make_mosquitto: MakeMosquitto, authority: trustme.CA, tmp_path: Path) -> MakeTls:
    """Starts a server that speaks TLS for a host name."""

    def make(host: str, **options: bool) -> MosquittoServer:
        certificate = authority.issue_cert(host)
        names = ("ca.pem", "server.pem", "server.key")
        authority.cert_pem.write_to_path(tmp_path / names[0])
        certificate.cert_chain_pems[0].write_to_path(tmp_path / names[1])
        certificate.private_key_pem.write_to_path(tmp_path / names[2])
        paths = tuple(tmp_path / name for name in names)
        return make_mosquitto(certificates=paths, **options)

    return make


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@VERSIONS
def test_tls_works_with_a_certificate_of_a_known_authority(
    make_tls: MakeTls, authority: trustme.CA, protocol: str
) -> None:
    server = make_tls("127.0.0.1")
    at = {"port": server.port, "ssl": trusting(authority), "protocol": protocol}
    round_trip(ConnectionParameters("127.0.0.1", **at))


def test_tls_takes_a_burst_and_a_big_message(make_tls: MakeTls, authority: trustme.CA) -> None:
    server = make_tls("127.0.0.1")
    seen, big = Collected(), Collected()
    params = ConnectionParameters("127.0.0.1", server.port, ssl=trusting(authority))
    with Node("n", connection_params=params) as node:
        node.create_subscriber("numbers", seen)
        node.create_subscriber("image", big, bytes)
        publisher = node.create_publisher("numbers")
        for number in range(5000):
            publisher.publish(number)
        assert seen.wait(5000) == list(range(5000))
        node.create_publisher("image", bytes).publish(image := os.urandom(3_000_000))
        assert big.first == image


def test_a_certificate_of_the_client_opens_the_door(
    make_tls: MakeTls, authority: trustme.CA
) -> None:
    server = make_tls("127.0.0.1", require_certificate=True)
    context = trusting(authority)
    authority.issue_cert("robot@example.com").configure_cert(context)
    round_trip(ConnectionParameters("127.0.0.1", server.port, ssl=context))


def test_without_the_certificate_that_is_wanted_there_is_no_way_in(
    make_tls: MakeTls, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_tls("127.0.0.1", require_certificate=True)
    params = ConnectionParameters(
        "127.0.0.1", server.port, ssl=trusting(authority), connect_timeout=0.5
    )
    node = Node("n", connection_params=params)
    node.run()
    assert not node.connected
    node.stop()
    assert "certificate" in caplog.text.lower()


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("elsewhere.example", True)])
def test_tls_refuses_an_unknown_authority_and_a_wrong_host(
    make_tls: MakeTls,
    authority: trustme.CA,
    host: str,
    trusted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_tls(host)
    params: ConnectionParameters | str = server.url_with(connect_timeout=0.5)
    if trusted:
        params = ConnectionParameters(
            "127.0.0.1", server.port, ssl=trusting(authority), connect_timeout=0.5
        )
    node = Node("n", connection_params=params)
    node.run()
    assert not node.connected
    assert "certificate verify failed" in caplog.text
    node.stop()
