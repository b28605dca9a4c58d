"""The proxy that breaks links for tests/faults, between plain sockets of 127.0.0.1."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from collected import DEADLINE
from faults.proxy import Proxy

QUIET_SECONDS = 0.2
"""What has not come after so long does not come."""


def echo(sock: socket.socket) -> None:
    with sock, suppress(OSError):
        while data := sock.recv(65_536):
            sock.sendall(data)


@pytest.fixture
def echo_url() -> Iterator[str]:
    """Where a server gives back what it gets."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"echo://127.0.0.1:{listening.getsockname()[1]}/path?x=1"
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


@pytest.fixture
def proxy(echo_url: str) -> Iterator[Proxy]:
    with Proxy(echo_url) as proxy:
        yield proxy


def dial(proxy: Proxy) -> socket.socket:
    port = int(proxy.url.split(":")[2].split("/")[0])
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


def nothing_comes(sock: socket.socket) -> bool:
    sock.settimeout(QUIET_SECONDS)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(DEADLINE)
    return False


def is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_connection_that_is_cut_before_it_has_begun_is_closed(proxy: Proxy) -> None:
    class Cut(dict[Any, Any]):
        def __setitem__(self, task: Any, ways: Any) -> None:
            super().__setitem__(task, ways)
            task.cancel()

    proxy._connections = Cut()
    with dial(proxy) as sock:
        assert is_cut(sock)


def test_the_url_keeps_all_but_the_port(proxy: Proxy, echo_url: str) -> None:
    assert proxy.url != echo_url
    assert proxy.url.startswith("echo://127.0.0.1:")
    assert proxy.url.endswith("/path?x=1")


@pytest.mark.parametrize("piece", [0, 1, 1000])
def test_bytes_pass_both_ways_in_order_and_the_end_after_them(echo_url: str, piece: int) -> None:
    sent = bytes(range(256)) * 20
    with Proxy(echo_url, piece=piece) as proxy, dial(proxy) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, len(sent) + 1) == sent
        assert sock.recv(1) == b""


def test_a_cut_resets_what_is_there_and_the_next_connection_works(proxy: Proxy) -> None:
    with dial(proxy) as first, dial(proxy) as second:
        first.sendall(b"a")
        assert receive(first, 1) == b"a"
        proxy.cut()
        assert is_cut(first)
        assert is_cut(second)
    with dial(proxy) as sock:
        sock.sendall(b"b")
        assert receive(sock, 1) == b"b"


@pytest.mark.parametrize("way", ["both", "to_broker", "to_client"])
def test_what_is_stalled_comes_later(proxy: Proxy, way: str) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"a")
        assert receive(sock, 1) == b"a"
        proxy.stall(to_broker=way != "to_client", to_client=way != "to_broker")
        sock.sendall(b"b")
        assert nothing_comes(sock)
        proxy.resume()
        assert receive(sock, 1) == b"b"


def test_a_stalled_link_takes_no_more_than_fits_into_buffers(echo_url: str) -> None:
    with Proxy(echo_url) as proxy, dial(proxy) as sock:
        proxy.stall()
        sock.settimeout(QUIET_SECONDS)
        with pytest.raises(TimeoutError):
            sock.sendall(b"x" * 100_000_000)


def test_half_open_takes_all_and_gives_nothing_and_is_reset_afterwards(proxy: Proxy) -> None:
    with dial(proxy) as sock, dial(proxy) as other:
        other.sendall(b"a")
        assert receive(other, 1) == b"a"
        proxy.half_open()
        sock.sendall(b"x" * 20_000_000)
        assert nothing_comes(sock)
        proxy.resume()
        assert is_cut(sock)
        other.sendall(b"b")  # it has lost nothing
        assert receive(other, 1) == b"b"


def test_delayed_bytes_come_late_and_in_order(echo_url: str) -> None:
    with Proxy(echo_url, delay=0.05, jitter=0.1) as proxy, dial(proxy) as sock:
        begun = time.monotonic()
        for number in range(50):
            sock.sendall(bytes([number]))
        assert receive(sock, 50) == bytes(range(50))
        assert time.monotonic() - begun >= 2 * 0.05


def test_a_slow_link_passes_so_many_bytes_a_second(echo_url: str) -> None:
    with Proxy(echo_url, rate=100_000) as proxy, dial(proxy) as sock:
        begun = time.monotonic()
        sock.sendall(b"x" * 50_000)
        assert receive(sock, 50_000) == b"x" * 50_000
        assert time.monotonic() - begun >= 0.3


def test_a_connection_ends_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.longest = 1000
    with dial(proxy) as sock:
        came = 0
        with suppress(ConnectionError):  # which may meet the second piece already
            sock.sendall(b"x" * 600)
            sock.sendall(b"x" * 600)
            while part := sock.recv(1000):
                came += len(part)
        assert came < 1000


def test_while_it_refuses_connections_are_reset_and_old_ones_go_on(proxy: Proxy) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        proxy.refuses = True
        with suppress(ConnectionResetError), dial(proxy) as new:
            assert is_cut(new)
        old.sendall(b"b")
        assert receive(old, 1) == b"b"
        proxy.refuses = False
        with dial(proxy) as new:
            new.sendall(b"c")
            assert receive(new, 1) == b"c"
