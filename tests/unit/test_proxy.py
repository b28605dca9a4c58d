"""The TCP relay, between real sockets of 127.0.0.1, and between a node and its broker."""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from brokers import RedisServer, free_port
from collected import DEADLINE, Collected, eventually
from commlib import proxy
from commlib.exceptions import EndpointClosed
from commlib.node import Node
from commlib.proxy import TCPProxy
from commlib.tcp_bridge import TCPBridge

HERE = "127.0.0.1"
MEGABYTE = 1024 * 1024


def threads_of_proxies() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "commlib-proxy"]


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """What listens at endpoint 2."""
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


@pytest.fixture
def relay(far: socket.socket) -> Iterator[TCPProxy]:
    """A proxy before ``far``, which does not run yet; in the end it leaves no thread."""
    relay = TCPProxy(HERE, 0, *far.getsockname())
    yield relay
    relay.stop()
    assert threads_of_proxies() == []


@pytest.fixture
def connect(relay: TCPProxy) -> Iterator[Callable[[], socket.socket]]:
    """Makes connections to endpoint 1."""
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(relay.server_address, timeout=DEADLINE))
        return made[-1]

    yield connect
    for sock in made:
        sock.close()


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def make_pair(
    relay: TCPProxy, connect: Callable[[], socket.socket], far: socket.socket
) -> Iterator[Callable[[], Pair]]:
    """Runs the proxy and makes both ends of a connection through it."""
    accepted: list[socket.socket] = []

    def make() -> Pair:
        relay.run()
        here = connect()
        there = far.accept()[0]
        there.settimeout(DEADLINE)
        accepted.append(there)
        return here, there

    yield make
    for sock in accepted:
        sock.close()


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side ends to send."""
    return b"".join(iter(lambda: sock.recv(MEGABYTE), b""))


def exchange(one: socket.socket, other: socket.socket, word: bytes = b"hello") -> None:
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(word)
        came = b""
        while len(came) < len(word):
            came += receiver.recv(len(word)) or pytest.fail("an end instead")
        assert came == word


def break_off(sock: socket.socket) -> None:
    """Close it so that its peer is told of a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    try:
        read_all(sock)
    except ConnectionResetError:
        return True
    return False


def is_turned_away(relay: TCPProxy) -> bool:
    try:
        with socket.create_connection(relay.server_address, timeout=DEADLINE) as sock:
            return is_reset(sock)
    except ConnectionResetError:  # so soon
        return True


# ---- what is relayed ----


def test_bytes_go_both_ways(make_pair: Callable[[], Pair]) -> None:
    here, there = make_pair()
    for word in (b"\x00", b"hello", b"x" * 100_000):
        exchange(here, there, word)


def test_much_goes_both_ways_at_the_same_time_unchanged(make_pair: Callable[[], Pair]) -> None:
    pair = make_pair()
    sent = [os.urandom(8 * MEGABYTE), os.urandom(8 * MEGABYTE)]
    received = Collected()

    def send(sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    threads = [
        *(threading.Thread(target=send, args=args) for args in zip(pair, sent, strict=True)),
        *(threading.Thread(target=lambda sock=sock: received(read_all(sock))) for sock in pair),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(received.wait(2)) == sorted(sent)


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_has_ended_to_send_can_still_receive(make_pair: Callable[[], Pair], who: str) -> None:
    one, other = make_pair() if who == "client" else reversed(make_pair())
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == b"question"
    other.sendall(b"answer")
    other.close()
    assert read_all(one) == b"answer"


def test_what_was_sent_before_the_end_arrives_though_nobody_read_it_yet(
    make_pair: Callable[[], Pair],
) -> None:
    here, there = make_pair()
    here.sendall(b"x" * 200_000)
    here.close()
    assert len(read_all(there)) == 200_000


def test_many_connections_are_open_at_once(make_pair: Callable[[], Pair]) -> None:
    pairs = [make_pair() for _ in range(60)]
    for number, pair in enumerate(pairs):
        exchange(*pair, b"%d" % number)
    for here, there in pairs:
        here.close()
        assert read_all(there) == b""


def test_who_sends_faster_than_the_other_side_reads_has_to_wait(
    make_pair: Callable[[], Pair],
) -> None:
    here, there = make_pair()
    sent, most = 0, 64 * MEGABYTE  # more than the buffers of four sockets take
    here.settimeout(1)
    with suppress(TimeoutError):
        while sent < most:
            sent += here.send(b"x" * MEGABYTE)
    assert sent < most
    here.shutdown(socket.SHUT_WR)
    assert len(read_all(there)) == sent


# ---- what goes wrong ----


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_side_that_breaks_resets_the_other_and_no_other_connection(
    make_pair: Callable[[], Pair], who: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "commlib.proxy")
    broken, whole = make_pair(), make_pair()
    one, other = broken if who == "client" else reversed(broken)
    break_off(one)
    assert is_reset(other)
    exchange(*whole)
    eventually(lambda: len(caplog.records) == 1)
    assert "broke: [Errno" in caplog.text
    assert caplog.records[0].levelno == logging.INFO


def test_while_the_other_endpoint_is_away_clients_are_reset_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    with TCPProxy(HERE, 0, HERE, port) as relay:
        for _ in range(3):
            assert is_turned_away(relay)
        (record,) = [record for record in caplog.records if record.name == "commlib.proxy"]
        assert record.levelno == logging.WARNING
        assert f"{HERE}:{port} cannot be reached" in record.getMessage()

        with socket.create_server((HERE, port)) as far:
            far.settimeout(DEADLINE)
            with socket.create_connection(relay.server_address, timeout=DEADLINE) as sock:
                there = far.accept()[0]
                with there:
                    exchange(sock, there)


def test_an_endpoint_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxy, "CONNECT_SECONDS", 0.05)
    # A listener whose queue is full answers nobody.
    with socket.create_server((HERE, 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        with TCPProxy(HERE, 0, *full.getsockname()) as relay:
            assert is_turned_away(relay)
    assert "no answer within 0.05 s" in caplog.text


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 70])
def test_a_host_that_does_not_exist_is_a_warning(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TCPProxy(HERE, 0, host, 6379) as relay:
        assert is_turned_away(relay)
    assert f"{host}:6379 cannot be reached" in caplog.text
    assert "Traceback" not in caplog.text


def test_without_free_files_connections_wait_until_there_are_some() -> None:
    program = """
import logging, os, resource, socket, threading
from commlib import proxy

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
proxy.RETRY_SECONDS = 0.05
failed = threading.Event()
logging.getLogger("commlib.proxy").addFilter(lambda record: failed.set())

with (
    socket.create_server(("127.0.0.1", 0)) as far,
    socket.socket() as here,
    proxy.TCPProxy("127.0.0.1", 0, *far.getsockname()) as relay,
):
    # Until it has relayed something, its own files are not all open.
    with socket.create_connection(relay.server_address) as first, far.accept()[0] as there:
        first.sendall(b"x")
        there.recv(1)
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        here.connect(relay.server_address)
        assert failed.wait(15)
        for number in taken:
            os.close(number)
    with far.accept()[0] as there:
        here.sendall(b"hello")
        print(there.recv(5).decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_a_port_that_is_taken_is_an_error_at_once(far: socket.socket) -> None:
    taken = far.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        TCPProxy(HERE, taken, HERE, 6379)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_the_other_endpoint_needs_a_port(port: int) -> None:
    with pytest.raises(ValueError, match=r"port_ep2=.* from 1 to 65535"):
        TCPProxy(HERE, 0, HERE, port)


@pytest.mark.parametrize(
    ("ports", "error", "text"),
    [
        ((70_000, 1), ValueError, "port_ep1=70000: .* from 0 to 65535"),
        ((-1, 1), ValueError, "port_ep1=-1: .* from 0 to 65535"),
        (("x", 1), TypeError, "port_ep1='x': .* a number"),
        ((0, "x"), TypeError, "port_ep2='x': .* a number"),
        ((None, 1), TypeError, "port_ep1=None: .* a number"),
    ],
)
def test_what_is_no_port_is_refused_before_there_is_a_socket(
    monkeypatch: pytest.MonkeyPatch, ports: tuple[Any, Any], error: type[Exception], text: str
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket, "create_server", lambda *args, **options: opened.append(args))
    with pytest.raises(error, match=text):
        TCPProxy(HERE, ports[0], HERE, ports[1])
    assert opened == []


# ---- to serve, and to end it ----


def test_a_free_port_is_told_and_kept(relay: TCPProxy, make_pair: Callable[[], Pair]) -> None:
    address = relay.server_address
    assert address[0] == HERE
    assert address[1] > 0
    exchange(*make_pair())
    relay.stop()
    exchange(*make_pair())
    assert relay.server_address == address


def test_run_twice_is_once(relay: TCPProxy) -> None:
    relay.run()
    relay.run()
    assert len(threads_of_proxies()) == 1


def test_stop_ends_all_relays_and_frees_the_port(
    relay: TCPProxy, make_pair: Callable[[], Pair]
) -> None:
    pairs = [make_pair() for _ in range(5)]
    for pair in pairs:
        exchange(*pair)
    relay.stop()
    relay.stop()
    assert threads_of_proxies() == []
    assert all(is_reset(sock) for pair in pairs for sock in pair)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(relay.server_address, timeout=DEADLINE)


def test_stop_ends_a_relay_that_nobody_reads_from(
    relay: TCPProxy, make_pair: Callable[[], Pair]
) -> None:
    here, there = make_pair()
    exchange(here, there)
    here.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            here.send(b"x" * MEGABYTE)
    relay.stop()
    assert is_reset(there)


def test_stop_may_come_at_any_point_after_run_and_connect(
    relay: TCPProxy, connect: Callable[[], socket.socket]
) -> None:
    for _ in range(30):
        relay.run()
        here = connect()
        relay.stop()
        assert threads_of_proxies() == []
        with suppress(ConnectionResetError):
            assert read_all(here) == b""


def test_run_and_stop_may_come_from_many_threads(relay: TCPProxy) -> None:
    threads = [
        threading.Thread(target=method) for _ in range(10) for method in (relay.run, relay.stop)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_a_proxy_that_never_ran_can_be_stopped(relay: TCPProxy) -> None:
    relay.shutdown()
    relay.server_close()
    relay.stop()


def test_it_serves_in_a_thread_of_the_program_as_a_tcpserver_does(
    relay: TCPProxy, connect: Callable[[], socket.socket], far: socket.socket
) -> None:
    thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.5})
    thread.start()
    here = connect()
    with far.accept()[0] as there:
        exchange(here, there)
        with pytest.raises(RuntimeError, match="already"):
            relay.serve_forever()
        relay.shutdown()
        assert is_reset(here)
    thread.join(DEADLINE)
    assert not thread.is_alive()

    # It still listens: who comes now waits until it serves again.
    late = connect()
    relay.run()
    with far.accept()[0] as there:
        exchange(late, there)
    relay.shutdown()
    relay.server_close()
    with pytest.raises(EndpointClosed, match="run"):
        relay.serve_forever()


def test_run_forever_runs_until_it_is_stopped(
    relay: TCPProxy, connect: Callable[[], socket.socket], far: socket.socket
) -> None:
    thread = threading.Thread(target=relay.run_forever)
    thread.start()
    here = connect()
    with far.accept()[0] as there:
        exchange(here, there)
    relay.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_with_block_serves_as_long_as_it_lasts(
    relay: TCPProxy, connect: Callable[[], socket.socket], far: socket.socket
) -> None:
    with relay as same:
        assert same is relay
        here = connect()
        with far.accept()[0] as there:
            exchange(here, there)
    assert threads_of_proxies() == []


def test_it_listens_at_an_address_of_ipv6_as_well(far: socket.socket) -> None:
    try:
        relay = TCPProxy("::1", 0, *far.getsockname())
    except OSError:
        pytest.skip("no IPv6 here")
    with relay, socket.create_connection(relay.server_address, timeout=DEADLINE) as here:
        with far.accept()[0] as there:
            exchange(here, there)


def test_a_signal_handler_may_stop_it_amid_serving() -> None:
    program = """
import os, signal, threading, time
from commlib.proxy import TCPProxy
proxy = TCPProxy("127.0.0.1", 0, "127.0.0.1", 9)
signal.signal(signal.SIGTERM, lambda *_: proxy.stop())
def stop_it_when_it_serves():
    while proxy._serving is None:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop_it_when_it_serves).start()
proxy.serve_forever()
proxy.stop()
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")


def test_the_bridge_of_0_13_is_the_proxy() -> None:
    assert TCPBridge is TCPProxy


# ---- what it is for ----


def test_a_node_works_through_it(redis_server: RedisServer) -> None:
    received = Collected()
    with (
        TCPProxy(HERE, 0, HERE, redis_server.port) as relay,
        Node("proxied", connection_params=f"redis://{HERE}:{relay.server_address[1]}") as node,
        Node("direct", connection_params=redis_server.url) as direct,
    ):
        node.create_subscriber("test_proxy.words", received)
        node.create_rpc("test_proxy.double", lambda number: 2 * number)
        direct.create_publisher("test_proxy.words").publish({"word": "x" * MEGABYTE})
        assert len(received.first["word"]) == MEGABYTE
        assert direct.create_rpc_client("test_proxy.double").call(21) == 42
