"""The recorder: hears topics, counts what is missing, and puts all of it into a file."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Unpack, get_args

from msgspec import Struct

from commlib import __version__, _topics
from commlib._discovery import Event
from commlib._letter import Letter
from commlib._packet import Packet
from commlib._stats import Stats
from commlib._topics import check_list
from commlib._turns import is_for_program
from commlib.aio._action import CALLS, NEWS, part_name
from commlib.aio._endpoint import Endpoint, Options, Params
from commlib.aio._names import check_name, check_pattern
from commlib.aio.discovery import Discovery, NodeInfo
from commlib.recording._about import find_about
from commlib.recording._choice import hears_calls, is_own, is_reply, no_calls, without_covered
from commlib.recording._counts import About, TopicCounter
from commlib.recording._early import EarlyReplies
from commlib.recording._file import Limits, RecordingFile
from commlib.recording._part import Compression, Entry, RecordingError
from commlib.recording._records import open_packet
from commlib.transports.base import Subscription

DISCOVERY_SECONDS = 1.0  # that nodes have to tell their schemas before the file begins
MAX_TOPICS = 20_000  # MCAP numbers channels with 16 bits, and a topic may need three
OTHERS = "(other topics)"
MAX_CALLS = 10_000  # whose replies are waited for
_TWO_LEVELS = "+/+"  # where replies come on MQTT: in rpc-<id>/<token>


class Progress(Struct, frozen=True):
    """How far a recording has come: messages, their bytes, what was lost, bytes of the files.

    ``lost_before`` is lost on the way to the recorder, ``lost_inside`` had no room there.
    """

    messages: int = 0
    bytes: int = 0
    lost_before: int = 0
    lost_inside: int = 0
    size: int = 0
    topics: int = 0
    path: str = ""


class Recorder(Endpoint):
    """Records topics to an MCAP file, from ``run()`` to ``stop()``.

    ``topics`` are names and patterns; ``"*"`` is all of them. Each message is recorded once,
    however many of them match; but where the broker's own wildcards are in them, which it alone
    can tell apart, once for each of them, and counted as a duplicate. ``actions`` are names of
    actions: their status and feedback are recorded everywhere. ``rpc`` are names of services;
    their requests and responses, and those of ``actions``, can be heard on MQTT alone, and
    elsewhere ``rpc`` raises ValueError.

    ``split_size`` (bytes) and ``split_seconds`` begin another file; ``max_size`` (bytes, of all
    files) ends the recording. ``max_waiting`` (bytes) is what may wait for the disk; what is more
    is dropped, and counted. Options: those of every endpoint.

    ``file_compression`` is ``"zstd"``, ``"lz4"`` or ``"none"``. ``run()`` raises RecordingError if
    there can be no such file, or if there is one (with ``split_...``: any part) and no
    ``overwrite``, which removes the parts from 1 on, up to the first gap.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        topics: Iterable[str] = (),
        conn_params: Params = None,
        *,
        rpc: Iterable[str] = (),
        actions: Iterable[str] = (),
        split_size: int | None = None,
        split_seconds: float | None = None,
        max_size: int | None = None,
        max_waiting: int = 64 * 1024 * 1024,
        file_compression: Compression = "zstd",
        overwrite: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__("recorder", conn_params, **options)
        self.path = Path(path)
        self.rpc, self.actions = check_list(rpc, "rpc"), check_list(actions, "actions")
        self.topics = tuple(dict.fromkeys(check_list(topics, "topics")))
        if not (self.topics or self.rpc or self.actions):
            raise ValueError("name at least one topic, service or action to record; '*' is all")
        for topic in self.topics:
            check_pattern(topic, self.hub)
        for name in (*self.rpc, *self.actions):
            check_name(name, self.hub, "name")
        self.hears_calls = hears_calls(self.hub.transport.traits)
        if self.rpc and not self.hears_calls:
            raise ValueError(no_calls(self.hub.params))
        self._limits = Limits(split_size, split_seconds, max_size, max_waiting)
        self._limits.check()
        if file_compression not in get_args(Compression):
            known = ", ".join(get_args(Compression))
            raise ValueError(f"file_compression={file_compression!r}: it is one of {known}")
        self._file_options = (file_compression, overwrite)
        self._forget()

    def _forget(self) -> None:
        self._counters: dict[str, TopicCounter] = {}
        self._calls: OrderedDict[str, str] = OrderedDict()
        self._early = EarlyReplies()
        self._file: RecordingFile | None = None
        self._subscriptions: list[Subscription] = []
        self._discovery: Discovery | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        if self._file is None:
            return Progress()
        counts, counters = self._file.counts, self._counters.values()
        return Progress(
            messages=counts.messages,
            bytes=counts.bytes,
            lost_before=sum(each.stats.gaps for each in counters),
            lost_inside=sum(each.inside for each in counters),
            size=counts.size,
            topics=len(counters),
            path=str(self._file.path),
        )

    @property
    def stats(self) -> Stats:
        counters = self._counters.values()
        return dataclasses.replace(
            super().stats,
            dropped=sum(each.inside for each in counters),
            gaps=sum(each.stats.gaps for each in counters),
            duplicates=sum(each.stats.duplicates for each in counters),
            reordered=sum(each.stats.reordered for each in counters),
        )

    async def wait(self) -> None:
        """Return when ``max_size`` is reached. Raises RecordingError when the disk is full."""
        if self._ended is None:
            raise RecordingError(f"{self.path}: run() it before you wait for its end")
        await asyncio.shield(self._ended)

    # ---- beginning and end ----

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        ended.add_done_callback(lambda _: ended.cancelled() or ended.exception())  # it was seen
        self._forget()
        self._ended = ended
        transport = self.hub.transport
        await transport.connect()  # first, so that nobody is left with an empty file
        compression, overwrite = self._file_options
        self._wall, self._monotonic = time.time_ns(), time.monotonic_ns()

        def on_end(error: RecordingError | None) -> None:
            with suppress(RuntimeError):  # a loop that was closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, ended, error)

        self._file = RecordingFile(
            self.path,
            self._limits,
            compression,
            overwrite,
            self._about_recording(),
            "native" if transport.traits.native_headers else "beside",
            on_end,
        )
        try:
            await self._subscribe_all()
        except BaseException:
            await self._end()
            raise
        self._discovery = Discovery(hub=self.hub, on_change=self._note_node)
        self._starting = self.hub.spawn(self._start(self._discovery, self._file))
        self.hub.tell_errors(self._starting)  # then there are no schemas

    async def _start(self, discovery: Discovery, file: RecordingFile) -> None:
        """Begin to write, as soon as it is known what the messages look like."""
        try:
            async with asyncio.timeout(2 * DISCOVERY_SECONDS):
                await discovery.run()
                await discovery.ask(DISCOVERY_SECONDS)
        except TimeoutError:
            pass  # a broker that has just gone: the schemas come when it is back
        finally:
            for counter in self._counters.values():
                counter.about = self._find_about(counter.about)
            file.start()

    async def _end(self) -> None:
        try:
            await self._hear_no_more()
        finally:  # whatever happens to the connection, the file is to be finished
            try:
                if self._file is not None:
                    await asyncio.to_thread(self._file.close, list(self._counters.values()))
            finally:
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(None)

    async def _hear_no_more(self) -> None:
        if self._starting is not None:  # first: the file would be started while it is closed
            self._starting.cancel()
            await asyncio.wait([self._starting])
        subscriptions, self._subscriptions = self._subscriptions, []
        async with AsyncExitStack() as ending:  # one that fails keeps none of the others
            if self._discovery is not None:
                ending.push_async_callback(self._discovery.stop)
            for subscription in reversed(subscriptions):
                ending.push_async_callback(subscription.close)

    def _about_recording(self) -> dict[str, str]:
        return {
            "version": __version__,
            "broker": str(self.hub.params),
            "host": socket.gethostname(),
            "topics": " ".join(self.topics),
            "rpc": " ".join(self.rpc),
            "actions": " ".join(self.actions),
        }

    # ---- what is heard ----

    async def _subscribe_all(self) -> None:
        topics = [*self.topics]
        for action in self.actions:
            topics += [part_name(action, name) for name in NEWS]
        before: list[Callable[[str], bool]] = []
        native = self.hub.transport.traits.native_wildcards
        for topic in without_covered(topics, native):
            is_exact = not _topics.is_pattern(topic, native)
            take = partial(self._take, tuple(before), is_exact)
            await self._subscribe(topic, take)
            matches = _topics.matcher(topic, native)
            if matches is not None:
                before.append(matches)
        services = [*self.rpc] if self.hears_calls else []
        if self.hears_calls:
            services += [part_name(action, call) for action in self.actions for call in CALLS]
        if services:
            await self._subscribe(_TWO_LEVELS, self._take_reply)
        for service in services:
            await self._subscribe(service, partial(self._take_request, service))

    async def _subscribe(self, topic: str, take: Callable[[Packet], None]) -> None:
        def handle(packet: Packet) -> None:
            try:
                take(packet)
            except BaseException as exc:  # the transport has to go on
                if is_for_program(exc):
                    raise
                self._report(packet, exc)

        self._subscriptions.append(await self.hub.transport.subscribe(topic, handle))

    def _take(
        self, before: tuple[Callable[[str], bool], ...], is_exact: bool, packet: Packet
    ) -> None:
        """A message. Calls are none, which look like messages to a pattern on MQTT."""
        topic = packet.topic
        if any(matches(topic) for matches in before):
            return  # another subscription of ours brings it, too
        if not is_exact and (is_own(topic) or is_reply(topic)):
            return
        letter = open_packet(packet, self.hub.params.max_payload)
        if letter.header.reply_to:
            return
        self._put(topic, letter, About(topic))

    def _take_request(self, service: str, packet: Packet) -> None:
        letter = open_packet(packet, self.hub.params.max_payload)
        reply_to = letter.header.reply_to
        if not reply_to:
            return  # a message on a topic of that name
        self._calls[reply_to] = service
        if len(self._calls) > MAX_CALLS:
            self._calls.popitem(last=False)
        self._put(f"{service}.request", letter, About(service, "request"))
        if (reply := self._early.take(reply_to)) is not None:
            self._take_reply(reply)

    def _take_reply(self, packet: Packet) -> None:
        service = self._calls.pop(packet.topic, None)
        if service is None:
            if is_reply(packet.topic):
                self._early.keep(packet)
        else:
            letter = open_packet(packet, self.hub.params.max_payload)
            self._put(f"{service}.response", letter, About(service, "response"))

    def _put(self, topic: str, letter: Letter, about: About) -> None:
        now = self._wall + time.monotonic_ns() - self._monotonic  # which never goes back
        assert self._file is not None, "it is there as long as something is heard"
        if not self._file.is_open:
            return
        counter = self._counters.get(topic) or self._counter(topic, about)
        self._stats.received += 1
        if counter.name == OTHERS:
            counter.inside += 1
            return
        counter.note(letter.header)
        if not self._file.put(Entry(counter, letter, now, counter.losses)):
            counter.inside += 1

    def _counter(self, topic: str, about: About) -> TopicCounter:
        if len(self._counters) >= MAX_TOPICS:
            if OTHERS not in self._counters:
                self.log.warning("%s: too many topics; no further ones are recorded", self.path)
                self._counters[OTHERS] = TopicCounter(OTHERS, About(OTHERS))
            return self._counters[OTHERS]
        counter = self._counters[topic] = TopicCounter(topic, self._find_about(about))
        return counter

    # ---- what the messages look like ----

    def _note_node(self, event: Event, node: NodeInfo) -> None:
        if event == "death":
            return
        for counter in self._counters.values():
            if counter.about.schema is None:
                counter.about = find_about(counter.about, [node])

    def _find_about(self, about: About) -> About:
        if self._discovery is None:
            return about
        return find_about(about, self._discovery.nodes)


def _settle(ended: asyncio.Future[None], error: RecordingError | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
