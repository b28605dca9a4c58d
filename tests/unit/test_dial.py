"""TCP connections by name: addresses in turn, and name servers that take their time."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

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
