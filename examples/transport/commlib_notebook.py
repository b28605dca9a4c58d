"""Commlib over Notebook, the made-up broker of notebook_broker.py."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from threading import Semaphore
from typing import Any

from notebook_broker import Notebook

from commlib.exceptions import EndpointClosed
from commlib.transports import base

LOOK = 0.002  # s between looks into the file, for it tells nobody when something is written


@dataclass
class ConnectionParameters(base.BaseParameters):
    """Where the file is: notebook:///home/robot/notebook, or notebook://notebook right here."""

    path: str = "notebook"

    schemes = ("notebook",)

    @classmethod
    def _from_url_parts(cls, parts: Any) -> dict[str, Any]:
        return {"path": parts.netloc + parts.path}

    def make_transport(self) -> "NotebookTransport":
        return NotebookTransport(self)

    def __str__(self) -> str:
        return f"notebook://{self.path}"


class NotebookTransport(base.Transport):
    """The seven verbs."""

    traits = base.Traits(stores_unread=True)  # the defaults say what this broker does not have

    def __init__(self, params: ConnectionParameters) -> None:
        self.params = params
        self.stats = base.LinkStats()
        self.on_state = self.on_refused = lambda *news: None  # commlib puts its own here
        self.book: Notebook | None = None
        self.closed = False
        self.readers: list[Reader] = []

    # 1 and 2: come and go.

    async def connect(self) -> None:
        if self.book is None and not self.closed:
            self.book = Notebook(self.params.path)
            self.reading = asyncio.create_task(self.read())
            self.on_state(True, None)

    async def close(self) -> None:
        was_connected, self.closed = self.connected, True
        if was_connected:
            self.reading.cancel()
            await asyncio.wait([self.reading])
            self.book.close()
            self.on_state(False, None)

    # 3 and 4: publish to all who subscribe.

    def publish(self, topic: str, packet: base.Packet) -> bool:
        return self.write(Notebook.say, topic, packet)

    async def subscribe(self, topic: str, handler: base.Handler) -> "Subscription":
        await self.connect()
        return Subscription(self, topic, handler)

    # 5 and 6: send to exactly one of those who consume.

    def send(self, to: str | base.Address, packet: base.Packet) -> bool:
        if isinstance(to, base.Address):  # a reply: the inbox of the caller is subscribed to it
            return self.publish(to.reply_to, packet)
        return self.write(Notebook.give, to, packet)

    async def consume(self, queue: str, handler: base.Handler, prefetch: int) -> "Consumer":
        await self.connect()
        return Consumer(self, queue, handler, prefetch)

    # 7: addresses for replies.

    async def open_inbox(self, handler: base.ReplyHandler) -> base.TopicInbox:
        return await base.TopicInbox.open(self, handler)

    # Beside the verbs.

    @property
    def connected(self) -> bool:
        return self.book is not None and not self.closed

    async def room(self, packet: base.Packet) -> None:
        await self.connect()  # once it is open there is always room

    def write(self, how: Callable[..., None], name: str, packet: base.Packet) -> bool:
        """From any thread. False: commlib waits for ``room`` and comes again."""
        if self.closed:
            raise EndpointClosed("the notebook was closed")
        if self.book is None:
            return False
        how(self.book, name, packet.payload)
        return True

    async def read(self) -> None:
        while True:
            for reader in list(self.readers):
                reader.look()
            await asyncio.sleep(LOOK)


class Reader:
    """What looks into the file again and again."""

    working = True  # there is nothing that this broker refuses

    def __init__(self, transport: NotebookTransport, name: str, handler: base.Handler) -> None:
        self.book, self.name, self.handler = transport.book, name, handler
        self.others = transport.readers
        self.others.append(self)

    async def close(self) -> None:
        if self in self.others:
            self.others.remove(self)


class Subscription(Reader):
    """A handler of all that is said on a topic or pattern from now on."""

    def __init__(self, transport: NotebookTransport, topic: str, handler: base.Handler) -> None:
        super().__init__(transport, topic, handler)
        self.matches, self.seen = base.matcher(topic), self.book.newest()

    def look(self) -> None:
        for number, name, payload in self.book.said_since(self.seen):
            self.seen = number
            if self.matches(name):
                self.handler(base.Packet(payload, name))


class Consumer(Reader):
    """A handler that takes from a queue while fewer than ``prefetch`` packets are not done."""

    def __init__(
        self, transport: NotebookTransport, queue: str, handler: base.Handler, prefetch: int
    ) -> None:
        super().__init__(transport, queue, handler)
        self.free = Semaphore(prefetch)

    def done(self, packet: base.Packet) -> None:
        """From any thread."""
        self.free.release()

    def look(self) -> None:
        while self.free.acquire(blocking=False):
            payload = self.book.take(self.name)
            if payload is None:
                self.free.release()
                return
            self.handler(base.Packet(payload, self.name))
