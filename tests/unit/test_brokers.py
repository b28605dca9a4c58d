"""The servers that tests start: what an outage or a locked door in a test is made of."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
import trustme
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

import brokers
from brokers import (
    MosquittoServer,
    NatsServer,
    RabbitServer,
    RedisServer,
    Server,
    find,
    missing,
)
from brokers._mqtt import CONNACK, CONNECT
from brokers._rabbitmq import PROTOCOL_HEADER

Make = Callable[..., Any]

KINDS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "mosquitto": MosquittoServer,
    "nats": NatsServer,
    "rabbitmq": RabbitServer,
}
# What a client says first, and how the answer begins.
GREETINGS = {
    "redis": (b"PING\r\n", b"+PONG"),
    "mosquitto": (CONNECT, CONNACK),
    "nats": (CONNECT, CONNACK),
    "rabbitmq": (PROTOCOL_HEADER, b"\x01\x00\x00"),
}
END_SECONDS = 10.0


def client(name: str, server: Server, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run mosquitto_pub or mosquitto_sub on the server, to its end."""
    program = find(name)
    if program is None:
        missing(f"{name} is missing; install it with: sudo apt-get install mosquitto-clients")
    command = [program, "-V", "311", "-h", "127.0.0.1", "-p", str(server.port), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    """A channel of pika's on RabbitMQ."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        yield connection.channel()


def has_queue(server: Server, name: str) -> bool:
    """Whether RabbitMQ has a queue of this name."""
    with channel(server.url) as rabbit:
        try:
            rabbit.queue_declare(name, passive=True)
        except ChannelClosedByBroker:
            return False
        return True


def keep(server: Server, name: str) -> None:
    """Let the server keep something under this name."""
    if isinstance(server, RedisServer):
        server.cli("SET", name, "kept")
    elif isinstance(server, RabbitServer):
        with channel(server.url) as rabbit:
            rabbit.queue_declare(name, durable=True)
    else:
        done = client("mosquitto_pub", server, "-q", "1", "-r", "-t", name, "-m", "kept")
        assert done.returncode == 0, done.stderr


def kept(server: Server, *names: str) -> str:
    """The first of the names under which the server keeps something."""
    if isinstance(server, RedisServer):
        return next(name for name in names if server.cli("GET", name))
    if isinstance(server, RabbitServer):
        return next(name for name in names if has_queue(server, name))
    topics = [option for name in names for option in ("-t", name)]
    return client("mosquitto_sub", server, "-C", "1", "-F", "%t", *topics).stdout.strip()


def left_in(folder: Path) -> list[str]:
    """The processes that have to do with this folder and do not end, though they are given time.

    Without /proc there are none to be seen.
    """
    deadline = time.monotonic() + END_SECONDS
    # Nobody tells when a process ends that is not our child, so this is a series of looks.
    while (processes := list(_processes(folder))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return processes


def _processes(folder: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            traces = [os.readlink(process / "cwd").encode(), (process / "environ").read_bytes()]
        except OSError:
            continue  # it has ended, or it is not ours
        if any(bytes(folder) in trace for trace in (command, *traces)):
            yield f"{process.name}: {command.decode(errors='replace')}"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest) -> Make:
    """Starts servers of each kind."""
    return request.getfixturevalue(f"make_{kind}")


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Server:
    """The server of each kind that the whole run uses."""
    name = {"rabbitmq": "amqp"}.get(kind, kind)
    return request.getfixturevalue(f"{name}_server")


def test_a_server_comes_back_empty_on_the_same_port_and_leaves_nothing_running(make: Make) -> None:
    server = make()
    url, pid, folder = server.url, server.pid, server.folder
    for end, old, new in [(server.kill, "a", "b"), (server.stop, "b", "c")]:
        keep(server, old)
        assert kept(server, old, new) == old
        end()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.start()
        assert server.url == url
        assert server.pid != pid
        keep(server, new)
        assert kept(server, old, new) == new
    server.close()
    assert left_in(folder) == []
    assert not folder.exists()


def test_a_server_ends_with_the_process_that_started_it_even_if_it_is_frozen(kind: str) -> None:
    KINDS[kind].need()
    code = f"""
import os
from brokers import {KINDS[kind].__name__} as Kind
server = Kind().start()
server.freeze()
print(server.folder, flush=True)
os._exit(1)
"""
    tests = str(Path(brokers.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = Path(done.stdout.strip())
    assert folder.is_absolute()
    assert left_in(folder) == []
    assert not folder.exists()


def test_a_frozen_server_says_nothing_until_it_thaws(kind: str, server: Server) -> None:
    question, answer = GREETINGS[kind]
    server.freeze()
    try:
        sock = socket.create_connection(("127.0.0.1", server.port), 0.1)
        with sock:
            sock.sendall(question)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            server.thaw()
            sock.settimeout(10)
            with sock.makefile("rb") as replies:
                assert replies.read(len(answer)) == answer
    finally:
        server.thaw()


def test_a_stranger_on_the_port_is_not_taken_for_the_server(kind: str, server: Server) -> None:
    late = KINDS[kind]()
    late.port = server.port
    with pytest.raises(AssertionError, match="ended at once"):
        late.start()
    late.close()


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


def certified(folder: Path, authority: trustme.CA, name: str) -> tuple[Path, Path, Path]:
    """What a server shows, or a client: cafile, certfile, keyfile."""
    certificate = authority.issue_cert(name)
    ca, cert, key = (folder / f"{name}-{part}.pem" for part in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    return ca, cert, key


@pytest.mark.parametrize("both", [False, True], ids=["server", "both"])
def test_a_mosquitto_shows_its_certificate_and_asks_for_one(
    make_mosquitto: Make, tmp_path: Path, both: bool
) -> None:
    ca, cert, key = certified(tmp_path, trustme.CA(), "127.0.0.1")
    server = make_mosquitto(certificates=(ca, cert, key), require_certificate=both)
    assert server.url == f"mqtts://127.0.0.1:{server.port}"
    assert enters(server, "--cafile", ca) is not both
    assert enters(server, "--cafile", ca, "--cert", cert, "--key", key)
    assert not enters(server)


def test_a_mosquitto_speaks_websockets_and_nothing_else(make_mosquitto: Make) -> None:
    server = make_mosquitto(websockets=True)
    assert server.url == f"ws://127.0.0.1:{server.port}"
    assert not enters(server)


# ---- the doors of RabbitMQ, and its alarm ----


def refusal(url: str) -> type[Exception] | None:
    """How pika is kept out there; None if it gets in."""
    try:
        with channel(url):
            return None
    except AMQPConnectionError as exc:
        return type(exc)


def test_users_of_a_rabbitmq_may_do_what_it_was_told(make_rabbitmq: Make) -> None:
    server = make_rabbitmq(
        users={"robot": "s3:cret", "base": "other"},
        permissions={"base": ("^base", "^(base|amq.topic)", "^base")},
        topic_permissions={"base": ("amq.topic", "^base[.]", ".*")},
        vhosts=["/", "the/lab"],
    )
    assert server.url == f"amqp://127.0.0.1:{server.port}"
    robot, base = server.url_as("robot"), server.url_as("base")
    assert robot == f"amqp://robot:s3%3Acret@127.0.0.1:{server.port}"
    assert refusal(robot) is None
    assert refusal(server.url_as("robot", vhost="the/lab")) is None
    assert refusal(server.url_as("robot", vhost="elsewhere")) is ProbableAccessDeniedError
    assert refusal(server.url_as("robot", "other")) is ProbableAuthenticationError
    assert refusal(server.url) is ProbableAuthenticationError  # guest, for pika

    def answer(url: str, method: str, *arguments: object) -> int:
        with channel(url) as rabbit:
            rabbit.confirm_delivery()
            try:
                getattr(rabbit, method)(*arguments)
            except ChannelClosedByBroker as exc:
                return exc.reply_code
            return 200

    assert answer(robot, "queue_declare", "robot") == 200
    assert answer(base, "queue_declare", "base") == 200
    assert answer(base, "queue_declare", "other") == 403
    assert answer(robot, "basic_publish", "amq.topic", "robot.x", b"") == 200
    assert answer(base, "basic_publish", "amq.topic", "base.x", b"") == 200
    assert answer(base, "basic_publish", "amq.topic", "robot.x", b"") == 403


def test_a_rabbitmq_shows_its_certificate_and_asks_for_one(
    make_rabbitmq: Make, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificates = certified(tmp_path, authority, "127.0.0.1")
    server = make_rabbitmq(certificates=certificates, require_certificate=True)
    ca, cert, key = certified(tmp_path, authority, "robot.test")
    assert server.url == f"amqps://127.0.0.1:{server.port}"

    @contextmanager
    def secured(context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        context.load_verify_locations(ca)
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
            with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                yield secure

    known = ssl.create_default_context()
    known.load_cert_chain(cert, key)
    question, answer = GREETINGS["rabbitmq"]
    with secured(known) as sock:
        sock.sendall(question)
        assert sock.recv(len(answer)) == answer
    # In TLS 1.3 a server's no comes when the client believes to be in.
    with secured(ssl.create_default_context()) as sock:
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            sock.recv(1)


def test_a_blocked_rabbitmq_tells_who_publishes(amqp_server: RabbitServer) -> None:
    heard: list[str] = []
    with channel(amqp_server.url) as rabbit:
        connection = rabbit.connection
        connection.add_on_connection_blocked_callback(lambda *_: heard.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: heard.append("unblocked"))
        amqp_server.block()
        try:
            rabbit.basic_publish("", "nobody", b"")
            while not heard:
                connection.process_data_events(None)
        finally:
            amqp_server.unblock()
        while len(heard) < 2:
            connection.process_data_events(None)
    assert heard == ["blocked", "unblocked"]
