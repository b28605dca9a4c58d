"""TCP connections by name: addresses in turn, and name servers that take their time."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from brokers import free_port
from commlib._dial import connect, resolve


class Greeting(asyncio.Protocol):
    """Writes a greeting to whoever connects."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


class Reading(asyncio.Protocol):
    """Keeps what it reads."""

    def __init__(self) -> None:
        self.read = b""
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.read += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def test_the_addresses_of_a_host_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.get_running_loop().create_server(Greeting, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    there = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    away = socket.getaddrinfo("127.0.0.1", free_port(), type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: away + there)
    async with server:
        reading = await connect(Reading, "robot.example", port, None, 10)
        await reading.ended
        assert reading.read == b"hello"


async def test_when_no_address_answers_the_reason_is_told() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect(Reading, "localhost", free_port(), None, 10)


async def test_a_link_local_address_is_tried_in_its_own_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 1883, 0, 7))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    tried: list[tuple[object, ...]] = []

    async def create_connection(make: object, *place: object, **options: object) -> object:
        tried.append((*place, options["server_hostname"]))
        return None, None

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_connection", create_connection)
    await connect(Reading, "fe80::1%eth0", 1883, None, 10)
    context: Any = object()
    await connect(Reading, "fe80::1%eth0", 1883, context, 10)
    assert tried == [("fe80::1%7", 1883, None), ("fe80::1%7", 1883, "fe80::1")]


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_such_a_one_of_this_machine_takes_the_connection(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    host = link_local()

    async def read() -> bytes:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind((await resolve(host, 0))[0][4])
            async with await asyncio.get_running_loop().create_server(Greeting, sock=listener):
                reading = await connect(Reading, host, listener.getsockname()[1], None, 10)
                await reading.ended
                return reading.read

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(read()) == b"hello"


def link_local() -> str:
    """An address of this machine that needs its zone; skips where there is none."""
    listed = Path("/proc/net/if_inet6")  # of Linux: address, index, prefix, scope, flags, name
    for line in listed.read_text().splitlines() if listed.exists() else []:
        digits, *_, name = line.split()
        if digits.startswith("fe80"):
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{name}"
    pytest.skip("no link-local address here")


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = []
        for _ in range(3):  # its queue is full then, and nobody takes from it
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(deaf.getsockname())
        server = await asyncio.get_running_loop().create_server(Greeting, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (deaf.getsockname(), ("127.0.0.1", port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        async with server:
            reading = await connect(Reading, "robot.example", port, None, 3)
            await reading.ended
            assert reading.read == b"hello"
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("name", ["nowhere.invalid", "." * 300, "x" * 70])
async def test_a_name_that_is_none_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError):
        await resolve(name, 1)


async def test_a_name_server_that_never_answers_holds_up_nobody_but_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: gate.wait() and [])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolve("slow.example", 1)
    [resolver] = [t for t in threading.enumerate() if t.name == "commlib-resolver"]
    assert resolver.daemon, "it is not waited for at the end of the program"
    gate.set()
    resolver.join()


async def test_where_no_thread_is_to_be_had_the_name_is_resolved_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert (await resolve("127.0.0.1", 7))[0][4] == ("127.0.0.1", 7)


def test_the_tables_of_international_names_are_loaded_for_those_only() -> None:
    program = """
import asyncio, sys
from commlib._dial import resolve
asyncio.run(resolve("localhost", 7))
print("encodings.idna" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


async def test_an_international_name_is_looked_up_by_its_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def look_up(name: object, *args: Any, **options: Any) -> list[Any]:
        asked.append(name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    await resolve("müller.example", 7)
    assert asked == ["müller.example"], "a str, which Python encodes"
