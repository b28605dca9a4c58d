"""Commlib over Parrot, the made-up broker of parrot.py."""

import asyncio
import json
from asyncio import AbstractEventLoop, Future, StreamWriter, Task
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from os import urandom
from typing import Any

from commlib.exceptions import ConnectionLost, EndpointClosed
from commlib.transports import base

MAX_UNSENT = 4 * 1024 * 1024  # bytes that may wait for the socket
MAX_LINE = 32 * 1024 * 1024
PAUSE = 0.2  # s between attempts to connect


@dataclass
class ConnectionParameters(base.BaseParameters):
    """Where the broker is: parrot://host:port."""

    host: str = "localhost"
    port: int = 7000

    schemes = ("parrot",)

    @classmethod
    def _from_url_parts(cls, parts: Any) -> dict[str, Any]:
        return {"host": parts.hostname or "localhost", "port": parts.port or 7000}

    def make_transport(self) -> "ParrotTransport":
        return ParrotTransport(self)

    def __str__(self) -> str:
        return f"parrot://{self.host}:{self.port}"


class ParrotTransport(base.Transport):
    """The seven verbs."""

    traits = base.Traits(stores_unread=True)  # the defaults say what this broker does not have

    def __init__(self, params: ConnectionParameters) -> None:
        self.stats = base.LinkStats()
        self.on_state = self.on_refused = lambda *news: None  # commlib puts its own here
        self.ears: list[Ear] = []
        self.consumers: dict[str, Consumer] = {}
        self.line = Line(params, self)
        self.closed = False

    # 1 and 2: come and go.

    async def connect(self) -> None:
        await self.line.ready()

    async def close(self) -> None:
        self.closed = True
        await self.line.close()

    # 3 and 4: publish to all who subscribe.

    def publish(self, topic: str, packet: base.Packet) -> bool:
        return self.post("say", topic, packet)

    async def subscribe(self, topic: str, handler: base.Handler) -> "Ear":
        await self.connect()
        ear = Ear(self, topic, handler)
        await self.line.settle(("hear", ear.prefix))
        return ear

    # 5 and 6: send to exactly one of those who consume.

    def send(self, to: str | base.Address, packet: base.Packet) -> bool:
        if isinstance(to, base.Address):  # a reply, which the inbox of the caller hears
            return self.post("say", to.reply_to, packet)
        return self.post("give", to, packet)

    async def consume(self, queue: str, handler: base.Handler, prefetch: int) -> "Consumer":
        await self.connect()
        consumer = Consumer(self, queue, handler, prefetch)
        await self.line.settle(*consumer.wishes())
        return consumer

    # 7: addresses for replies.

    async def open_inbox(self, handler: base.ReplyHandler) -> base.TopicInbox:
        return await base.TopicInbox.open(self, handler)

    # Beside the verbs.

    @property
    def connected(self) -> bool:
        return self.line.up.is_set()

    async def room(self, packet: base.Packet) -> None:
        await self.line.room()

    async def flush(self) -> None:
        await self.line.settle()

    def post(self, verb: str, name: str, packet: base.Packet) -> bool:
        """From any thread. False: commlib waits for ``room`` and comes again."""
        if self.closed:
            raise EndpointClosed("the connection was closed")
        if not self.line.has_room():
            return False
        self.line.tell(verb, name, b64encode(packet.payload).decode())
        return True

    # What the line tells.

    def wishes(self) -> Iterator[tuple[str, ...]]:
        """All that the broker has to know, on a connection that is new."""
        yield from (("hear", ear.prefix) for ear in self.ears)
        for consumer in self.consumers.values():
            yield from consumer.wishes()

    def on_said(self, name: str, text: str) -> None:
        for ear in list(self.ears):
            if ear.matches(name):
                ear.handler(base.Packet(b64decode(text), name))

    def on_given(self, who: str, text: str) -> None:
        if who in self.consumers:
            self.consumers[who].take(b64decode(text))


class Ear:
    """A subscription: the broker knows prefixes, the rest of a pattern is matched here."""

    working = True  # there is nothing that this broker refuses

    def __init__(self, transport: ParrotTransport, topic: str, handler: base.Handler) -> None:
        self.transport, self.handler = transport, handler
        self.prefix, self.matches = topic.partition("*")[0], base.matcher(topic)
        transport.ears.append(self)

    async def close(self) -> None:
        others = self.transport.ears
        if self in others:
            others.remove(self)
            if all(ear.prefix != self.prefix for ear in others):
                self.transport.line.tell("ignore", self.prefix)


class Consumer:
    """Takes from a queue: the broker gives it one text for each ``take``."""

    working = True  # there is nothing for which this broker stops a consumer

    def __init__(
        self, transport: ParrotTransport, queue: str, handler: base.Handler, prefetch: int
    ) -> None:
        self.transport, self.queue, self.handler = transport, queue, handler
        self.id, self.free = urandom(8).hex(), prefetch
        transport.consumers[self.id] = self

    def wishes(self) -> list[tuple[str, ...]]:
        return [("take", self.queue, self.id)] * self.free

    def take(self, payload: bytes) -> None:
        self.free -= 1
        self.handler(base.Packet(payload, self.queue))

    def done(self, packet: base.Packet) -> None:
        """From any thread."""
        self.transport.line.call(self.take_another)

    def take_another(self) -> None:
        self.free += 1
        if self.id in self.transport.consumers:
            self.transport.line.write(("take", self.queue, self.id))

    async def close(self) -> None:
        line = self.transport.line
        line.tell("leave", self.queue, self.id)
        await line.sync()  # what was given before that comes before the answer
        self.transport.consumers.pop(self.id, None)


class Line:
    """The connection: it comes back when it was lost, and tells in order."""

    def __init__(self, params: ConnectionParameters, transport: ParrotTransport) -> None:
        self.params, self.transport = params, transport
        self.up = asyncio.Event()
        self.was_up = False
        self.loop: AbstractEventLoop | None = None
        self.task: Task[None] | None = None
        self.writer: StreamWriter | None = None
        self.answers: list[Future[bool]] = []

    async def ready(self) -> None:
        if self.task is None:
            self.loop = asyncio.get_running_loop()
            self.task = self.loop.create_task(self.live())
        await self.up.wait()

    async def close(self) -> None:
        if self.up.is_set():
            await asyncio.wait([asyncio.ensure_future(self.sync())], timeout=0.8)
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    def has_room(self) -> bool:
        """From any thread."""
        writer = self.writer
        if writer is None or not self.up.is_set():
            return False
        return writer.transport.get_write_buffer_size() < MAX_UNSENT

    async def room(self) -> None:
        await self.up.wait()
        if (writer := self.writer) is not None:
            with suppress(OSError):  # it was lost: the next one who waits does so until it is back
                await writer.drain()

    def call(self, work: Callable[..., object], *args: object) -> None:
        """Have something called on the loop; from any thread, in order."""
        assert self.loop is not None, "there is one since ``ready``"
        self.loop.call_soon_threadsafe(work, *args)

    def tell(self, *message: str) -> None:
        """From any thread."""
        self.call(self.write, message)

    def write(self, message: tuple[str, ...]) -> None:
        if self.writer is not None:
            self.writer.write(json.dumps(message).encode() + b"\n")
        elif message[0] in ("say", "give"):
            self.transport.stats.unconfirmed += 1  # it was lost in between

    async def sync(self) -> bool:
        """Whether the broker has done all that it was told before; False when it was lost."""
        if not self.up.is_set() or self.loop is None:
            return False
        answer = self.loop.create_future()
        self.answers.append(answer)
        self.tell("sync")
        return await answer

    async def settle(self, *wishes: tuple[str, ...]) -> None:
        """Tell the broker, and return when it has done so; a new connection knows them as well."""
        for wish in wishes:
            self.tell(*wish)
        while not await self.sync():
            await self.ready()

    async def live(self) -> None:
        while True:
            writer = reason = None
            try:
                where = self.params.host, self.params.port
                reader, writer = await asyncio.open_connection(*where, limit=MAX_LINE)
                self.writer = writer
                for wish in (*self.transport.wishes(), ("sync",)):
                    self.write(wish)
                async for line in reader:
                    self.take(*json.loads(line))
            except (OSError, ValueError, TypeError, AttributeError) as exc:
                reason = exc  # it was lost, or this is no Parrot
            finally:
                self.lose(reason)
                if writer is not None:
                    writer.close()
            await asyncio.sleep(PAUSE)

    def take(self, verb: str, *rest: str) -> None:
        if verb != "sync":
            getattr(self.transport, f"on_{verb}")(*rest)
        elif not self.up.is_set():  # the first one: now the broker knows all
            self.up.set()
            self.transport.stats.reconnects += self.was_up
            self.was_up = True
            self.transport.on_state(True, None)
        elif not (answer := self.answers.pop(0)).done():
            answer.set_result(True)

    def lose(self, reason: Exception | None) -> None:
        self.writer = None
        if self.up.is_set():
            self.up.clear()
            for answer in self.answers:
                if not answer.done():
                    answer.set_result(False)
            self.answers.clear()
            self.transport.on_state(False, reason or ConnectionLost("closed by the broker"))
