"""The sockets of the limit: one on an event loop, one that blocks."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from bench.child import address_of
from bench.roles import CALL_TIMEOUT

OnMessage = Callable[[bytes], object]
Exchange = Callable[[bytes], bytes]
"""Sends a request and waits for the reply."""

PATIENCE = 60.0  # s for the broker to take everything
READ_BYTES = 65536  # of a blocking read


class Link(asyncio.Protocol):
    """One socket on a loop thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, feed: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._feed = feed
        self._out: deque[bytes] = deque()
        self._is_awake = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "it is that of a socket"
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = sock.fileno()

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def send(self, data: bytes) -> None:
        """Append, and wake the loop once per burst; from any thread."""
        self._out.append(data)
        if not self._is_awake:
            self._is_awake = True
            self._loop.call_soon_threadsafe(self._flush)

    def send_at_once(self, data: bytes) -> None:
        """Write it here and now, from any thread, and wake no other; `send` must be done before."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except BlockingIOError:
                select.select([], [self._file], [])

    def _flush(self) -> None:
        self._is_awake = False  # first: what is appended from now on wakes the loop again
        chunks = []
        while self._out:
            chunks.append(self._out.popleft())
        self._transport.write(b"".join(chunks))


def open_link(url: str, feed: Callable[[bytes], None]) -> Link:
    """A connection to the broker, with a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def connect() -> Link:
        return (await loop.create_connection(lambda: Link(loop, feed), *address_of(url)))[1]

    return asyncio.run_coroutine_threadsafe(connect(), loop).result(5)


def open_socket(url: str) -> socket.socket:
    """A connection that blocks."""
    sock = socket.create_connection(address_of(url), timeout=CALL_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def received(sock: socket.socket) -> bytes:
    """What has come there, some bytes at least."""
    data = sock.recv(READ_BYTES)
    if not data:
        raise ConnectionError("the broker has closed the connection")
    return data


def ignore(data: bytes) -> None:
    """Take a message, and leave it at that."""


class Questions:
    """What was asked on a connection, and how much of it the broker has answered."""

    def __init__(self) -> None:
        self._answers = 0
        self._goal = -1
        self._reached = threading.Event()

    def note(self, answer: object) -> None:
        """Take one more answer. On the loop."""
        self._answers += 1
        if self._answers == self._goal:
            self._reached.set()

    def wait(self, answers: int) -> None:
        """Return when there were so many in all."""
        self._goal = answers
        while self._answers < answers:  # perhaps what was reached is the goal before
            if not self._reached.wait(PATIENCE):
                raise TimeoutError(f"the broker answered {self._answers} of {answers}")
            self._reached.clear()


def reply_address() -> str:
    """Where the replies to this process go."""
    return f"rpc-{os.getpid()}"
