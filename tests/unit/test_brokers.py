"""The servers that tests start: what an outage or a locked door in a test is made of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from brokers import MosquittoServer, NatsServer, RedisServer, Server, find, missing
from brokers._mqtt import CONNACK, CONNECT

Make = Callable[..., Any]

KINDS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "mosquitto": MosquittoServer,
    "nats": NatsServer,
}


def client(name: str, server: Server, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run mosquitto_pub or mosquitto_sub on the server, to its end."""
    program = find(name)
    if program is None:
        missing(f"{name} is missing; install it with: sudo apt-get install mosquitto-clients")
    command = [program, "-V", "311", "-h", "127.0.0.1", "-p", str(server.port), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def keep(server: Server, name: str) -> None:
    """Let the server keep something under this name."""
    if isinstance(server, RedisServer):
        server.cli("SET", name, "kept")
    else:
        done = client("mosquitto_pub", server, "-q", "1", "-r", "-t", name, "-m", "kept")
        assert done.returncode == 0, done.stderr


def kept(server: Server, *names: str) -> str:
    """The first of the names under which the server keeps something."""
    if isinstance(server, RedisServer):
        return next(name for name in names if server.cli("GET", name))
    topics = [option for name in names for option in ("-t", name)]
    return client("mosquitto_sub", server, "-C", "1", "-F", "%t", *topics).stdout.strip()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest) -> Make:
    """Starts servers of each kind."""
    return request.getfixturevalue(f"make_{kind}")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_server_comes_back_empty_on_the_same_port(make: Make, end: str) -> None:
    server = make()
    url, pid = server.url, server.pid
    keep(server, "old")
    assert kept(server, "old", "new") == "old"
    getattr(server, end)()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    server.start()
    assert server.url == url
    assert server.pid != pid
    keep(server, "new")
    assert kept(server, "old", "new") == "new"


def test_a_frozen_server_says_nothing_until_it_thaws(kind: str, make: Make) -> None:
    question, answer = (b"PING\r\n", b"+PONG") if kind == "redis" else (CONNECT, CONNACK)
    server = make()
    server.freeze()
    with socket.create_connection(("127.0.0.1", server.port), 0.1) as sock:
        sock.sendall(question)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        server.thaw()
        sock.settimeout(10)
        with sock.makefile("rb") as replies:
            assert replies.read(len(answer)) == answer


def test_a_stranger_on_the_port_is_not_taken_for_the_server(kind: str, make: Make) -> None:
    stranger = make()
    server = KINDS[kind]()
    server.port = stranger.port
    with pytest.raises(AssertionError, match="ended at once"):
        server.start()
    server.close()


# ---- the doors of Mosquitto ----


def enters(server: Server, *options: str | Path, topic: str = "open") -> bool:
    """Whether a client with these options gets in."""
    done = client("mosquitto_pub", server, "-q", "1", "-t", topic, "-m", "x", *options)
    return done.returncode == 0


def test_only_users_get_into_a_mosquitto_that_has_some(make_mosquitto: Make) -> None:
    server = make_mosquitto(users={"robot": "s3:cret", "base": "other"})
    assert enters(server, "-u", "robot", "-P", "s3:cret")
    assert enters(server, "-u", "base", "-P", "other")
    assert not enters(server, "-u", "robot", "-P", "other")
    assert not enters(server)
    assert server.url == f"mqtt://127.0.0.1:{server.port}"
    assert server.url_as("robot") == f"mqtt://robot:s3%3Acret@127.0.0.1:{server.port}"
    assert server.url_as("robot", "no") == f"mqtt://robot:no@127.0.0.1:{server.port}"


def test_a_mosquitto_gives_the_rights_of_its_list_alone(make_mosquitto: Make) -> None:
    server = make_mosquitto(acl=["topic readwrite open"])
    keep(server, "secret")
    keep(server, "open")
    assert kept(server, "secret", "open") == "open"


@pytest.mark.parametrize("both", [False, True], ids=["server", "both"])
def test_a_mosquitto_shows_its_certificate_and_asks_for_one(
    make_mosquitto: Make, tmp_path: Path, both: bool
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    server = make_mosquitto(certificates=(ca, cert, key), require_certificate=both)
    assert server.url == f"mqtts://127.0.0.1:{server.port}"
    assert enters(server, "--cafile", ca) is not both
    assert enters(server, "--cafile", ca, "--cert", cert, "--key", key)
    assert not enters(server)
