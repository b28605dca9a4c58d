"""A transport on a stage: its sockets, the broker and the clock are played, as a script says.

Nothing here waits. When all on the loop is asleep, the clock is put to the next thing that shall
wake it: hours of trying again pass in milliseconds, and what waits for ever is found at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import selectors
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar
from unittest import mock

from commlib._packet import Header, Packet
from commlib.exceptions import CommlibError
from commlib.transports._stream_link import StreamLink
from fuzz.script import Script
from played_socket import PlayedSocket

L = TypeVar("L", bound=StreamLink)

STEPS = 40  # of one script: a longer one finds nothing that two short ones do not
MAX_TURNS = 50_000  # of the loop; one script takes some hundreds
MAX_SOCKETS = 1000  # opened in one script; with pauses between them it takes half of that
MAX_WAITS = 70.0  # s of the clock that is played, in all the pauses of one script
READ_BYTES = 4096  # of one read; with the buffers of the product most time goes into making them
PASSES = 200  # turns of the loop, after which somebody turns it for ever
CLOSE_SECONDS = 30.0  # of the clock that is played; it takes two


class Wrong(BaseException):
    """Something that must not happen, whatever a broker says; no code of the product catches it."""


class _PlayedTime(selectors.SelectSelector):
    """Waits for no socket: it puts the clock forward instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.turns += 1
        if self.turns > MAX_TURNS:
            raise Wrong(f"the loop has turned {MAX_TURNS} times")
        if timeout is None:
            raise Wrong("it waits for something that never comes")
        self.now += max(timeout, 0)
        return []


class _PlayedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is played. Keeps what went wrong where nobody was told."""

    def __init__(self) -> None:
        self._played = _PlayedTime()
        super().__init__(self._played)
        self.complaints: list[dict[str, Any]] = []
        self._made: list[asyncio.Task[Any]] = []
        self.set_exception_handler(lambda loop, context: self.complaints.append(context))
        self.set_task_factory(self._make_task)

    @property
    def is_busy(self) -> bool:
        """Whether anything beside what runs now wants to run at once."""
        return bool(self._ready)  # type: ignore[attr-defined] # what asyncio calls it

    def forgive(self) -> None:
        """Let it turn again, after what was wrong."""
        self._played.turns = 0

    def time(self) -> float:
        return self._played.now

    def _make_task(self, loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._made.append(task)
        return task

    def check(self) -> None:
        """Raise what the loop has complained of, or a task has ended with that nobody looks at."""
        for complaint in self.complaints:
            raise Wrong(f"the loop complains: {complaint['message']}") from complaint.get(
                "exception"
            )
        for task in self._made:
            if task.done() and not task.cancelled() and task._log_traceback:  # type: ignore[attr-defined]
                error = task.exception()
                if error is not None:
                    raise Wrong(f"nobody was told that {task.get_name()} has failed") from error
        self._made = [task for task in self._made if not task.done()]


class _Socket:
    """What a link asks of a socket; nothing waits in this one."""

    family = socket.AF_UNIX

    def setsockopt(self, *option: int) -> None:
        """There is nothing to set."""

    @staticmethod
    @cache
    def fileno() -> int:
        """Something that can be asked how much waits in it."""
        return os.open(os.devnull, os.O_RDWR)


class _Played(PlayedSocket[Any]):
    """A socket all of which is played."""

    def get_extra_info(self, name: str) -> Any:
        return _Socket() if name == "socket" else None


class _Complaints(logging.Handler):
    """Errors that were caught, logged with their traceback, and never should be."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


class Stage(ABC):
    """One script on one transport; what it can do in a step is in ``_steps``."""

    transport: Any

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sockets: list[PlayedSocket[Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.endings: list[Any] = []
        self.inbox: Any = None
        self._waited = 0.0
        self._steps: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self._is_honest,
            self._says_anything,
            self._says_something,
            self._acts,
            self._waits,
            self._cuts,
            self._is_silent,
        )

    # What each kind of broker has of its own.

    @abstractmethod
    def begin(self) -> None:
        """Make the transport."""

    @abstractmethod
    def act(self) -> None:
        """Do one more thing."""

    @abstractmethod
    def answer(self, socket: PlayedSocket[Any]) -> bytes:
        """What an honest broker says to all that was written; forgets that."""

    @abstractmethod
    def something(self) -> bytes:
        """What a broker may say, with contents that the script chooses."""

    # For them.

    async def consume(self, queue: str) -> Any:
        """Serve a queue."""
        consumers: list[Any] = []

        def take(packet: Packet) -> None:
            self.take_request(packet)
            for consumer in consumers:
                consumer.done(packet)

        consumer = await self.transport.consume(queue, take, 2)
        consumers.append(consumer)
        return consumer

    async def _open_inbox(self) -> Any:
        self.inbox = await self.transport.open_inbox(self.take_reply)
        self.inbox.address("1")
        return self.inbox

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside all else; it may fail as it is documented to."""
        self.tasks.append(asyncio.get_running_loop().create_task(self._keep(work)))

    async def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            ending = await work
        except CommlibError:
            return
        if hasattr(ending, "close"):
            self.endings.append(ending)

    def attempt(self, work: Callable[[], object]) -> None:
        """Do something now; it may fail as it is documented to."""
        try:
            work()
        except CommlibError:
            pass

    def take(self, packet: Packet) -> None:
        """A handler: what it is handed is a packet of what a packet is of."""
        assert type(packet.payload) is bytes, packet
        assert type(packet.topic) is str, packet
        assert packet.header is None or type(packet.header) is Header, packet
        assert packet.ttl is None or packet.ttl >= 0, packet

    def take_request(self, packet: Packet) -> None:
        """The same for requests, which are worked off then."""
        self.take(packet)

    def take_reply(self, token: str | None, reply: Packet | CommlibError) -> bool:
        """The same for replies."""
        if isinstance(reply, Packet):
            self.take(reply)
        else:
            assert isinstance(reply, CommlibError), reply
        return True

    async def open_stream(self, make: Callable[[], L], params: object) -> L:
        """Takes the place of that function: a link with a played socket."""
        await asyncio.sleep(0)
        link = make()
        link.allow_direct = lambda: None  # type: ignore[method-assign] # it has no descriptor
        self.sockets.append(_Played(link))
        if len(self.sockets) > MAX_SOCKETS:
            raise Wrong(f"{MAX_SOCKETS} connections in one script")
        return link

    # The play.

    async def play(self) -> None:
        """All of it, from the first connection to the last word."""
        self.begin()
        for topic in ("a.b", "a.*"):
            self.start(self.transport.subscribe(topic, self.take))
        self.start(self.consume("svc"))
        self.start(self._open_inbox())
        await self._pass()
        for _ in range(STEPS):
            if self.script.is_over:
                break
            await self.script.choice(self._steps)()
        await self._is_honest()
        await self._leave()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for ending in self.endings:
                    await ending.close()
                await self.transport.close()
        except TimeoutError as exc:
            raise Wrong("it cannot be closed") from exc
        waiting = [task for task in self.tasks if not task.done()]
        for task in waiting:  # a failed one would forget by this that nobody was told
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for each in self.sockets:
            each.abort()
        await self._pass()
        await asyncio.sleep(100)  # whatever was to happen later
        await self._pass()

    @staticmethod
    async def _pass() -> None:
        """Return when nothing is left to do at this moment."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _PlayedLoop), "it plays on no other"
        for _ in range(PASSES):
            await asyncio.sleep(0)
            if not loop.is_busy:
                return
        raise Wrong("there is always something to do")

    # The steps.

    async def _is_honest(self) -> None:
        """All that was asked is answered, until nobody asks any more."""
        for _ in range(10):
            await self._pass()
            asked = False
            for each in list(self.sockets):
                if not each.is_cut and (said := self.answer(each)):
                    asked = True
                    each.comes(said)
            if not asked:
                return

    async def _says_anything(self) -> None:
        self._says(self.script.piece())

    async def _says_something(self) -> None:
        self._says(self.something())

    def _says(self, raw: bytes) -> None:
        open_ones = [each for each in self.sockets if not each.is_cut]
        how = self.script.number()
        if open_ones:
            at_once = (1_000_000, 1, 3, 100)[how & 3]
            open_ones[(how >> 2) % len(open_ones)].comes(raw, at_once)

    async def _acts(self) -> None:
        self.act()
        await self._pass()

    async def _waits(self) -> None:
        seconds = min(self.script.number() / 4, MAX_WAITS - self._waited)
        self._waited += seconds
        await asyncio.sleep(seconds)

    async def _cuts(self) -> None:
        if self.sockets:
            self.script.choice(self.sockets).abort()
        await self._pass()

    async def _is_silent(self) -> None:
        """What was asked remains without an answer."""
        await self._pass()
        for each in self.sockets:
            each.written.clear()


def perform(make: Callable[[Script], Stage], module: str, data: bytes) -> None:
    """Play a script; ``module`` is the one of the link, where connections are opened."""
    random.seed(0)  # pauses are jittered
    complaints = _Complaints()
    logger = logging.getLogger("commlib")
    before = logger.level, logger.propagate
    logger.addHandler(complaints)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    loop = _PlayedLoop()
    stage = make(Script(data))
    try:
        with (
            mock.patch(f"{module}.open_stream", stage.open_stream),
            mock.patch("commlib.transports._stream_link.READ_BYTES", READ_BYTES),
            mock.patch("os.urandom", bytes),
        ):
            _run(loop, stage)
        if complaints.errors:
            raise Wrong("it was caught and logged") from complaints.errors[0]
        loop.check()
    finally:
        logger.removeHandler(complaints)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        asyncio.set_event_loop(None)
        loop.close()


def _run(loop: _PlayedLoop, stage: Stage) -> None:
    play = loop.create_task(stage.play())
    try:
        loop.run_until_complete(play)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.forgive()
        if left:
            loop.run_until_complete(asyncio.wait(left))
