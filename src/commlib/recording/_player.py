"""The player: publishes what was recorded, in the same order and at the same distances."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import NamedTuple, Unpack

from msgspec import Struct
from msgspec.structs import replace

from commlib import _topics
from commlib._hops import place
from commlib._pace import Pace
from commlib._packet import Header, Packet, now_ms
from commlib._sequence import Sequence, new_origin
from commlib.aio._endpoint import Endpoint, Options, Params
from commlib.exceptions import CommlibError, ConnectionLost, OutboxFull, SerializationError
from commlib.recording._part import RecordingError
from commlib.recording._reading import Found, Reading
from commlib.recording._records import Mark, from_record, open_packet

BATCH = 256  # messages that are read at once, on another thread, while others are played
BATCH_BYTES = 4 * 1024 * 1024  # and no more than that, but for the last one
CATCH_UP = 0.5  # s that it may be late, behind Ctrl-Z or a slow broker, and make up for
TURN = 100  # messages without a pause before others get their turn
CONFIRM_SECONDS = 10.0  # that the broker has to confirm the last messages


class Played(Struct):
    """What has been published: messages and their bytes, and what was not.

    ``calls`` are requests and responses, which are never replayed. ``foreign`` are messages that
    another program has recorded in a form that is no JSON. ``refused`` cannot be published on this
    broker: its last reason is ``reason``. ``lost`` is what the broker has not confirmed.
    ``position`` is in seconds from the first message of the files. ``faults`` says what is wrong
    with a file; ``damaged`` are the files of which more is missing than the end.
    """

    messages: int = 0
    bytes: int = 0
    calls: int = 0
    foreign: int = 0
    refused: int = 0
    lost: int = 0
    rounds: int = 0
    position: float = 0.0
    reason: str = ""
    damaged: int = 0
    faults: list[str] = []


class _Due(NamedTuple):
    """A message, and when it came, in seconds after the first one of all."""

    seconds: float
    found: Found


class Player(Endpoint):
    """Publishes a recording, or several one after the other.

    ``rate`` is how many times as fast as it was recorded; 0 is without any pauses. ``topics`` are
    names or patterns; none are all. ``start`` and ``end`` are seconds from the first message.
    Messages go in the order of the files; one that is older than others before it, as other
    programs may have written it, goes at once, and a file that is older right behind them.
    ``keep_headers`` leaves origin, number, timestamp and signature as they were; otherwise the
    messages are new ones of this player, numbered without gaps. ``loop`` begins again at the end,
    for ever. Options: those of every endpoint.
    """

    def __init__(
        self,
        path: str | PathLike[str] | Iterable[str | PathLike[str]],
        conn_params: Params = None,
        *,
        rate: float = 1.0,
        loop: bool = False,
        topics: Iterable[str] = (),
        start: float = 0.0,
        end: float | None = None,
        keep_headers: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__("player", conn_params, **options)
        self.paths = [path] if isinstance(path, str | PathLike) else list(path)
        if rate < 0 or start < 0 or (end is not None and end < start):
            raise ValueError(
                f"rate={rate}, start={start}, end={end}: none is negative, and the end comes last"
            )
        self.topics = tuple(map(_topics.check_pattern, _topics.check_list(topics, "topics")))
        self._matchers = [_topics.matcher(topic) for topic in self.topics]
        self._rate, self._repeats, self._start, self._until = rate, loop, start, end
        self._keep_headers = keep_headers
        self._sequence = Sequence(new_origin())
        self.played = Played()
        """How far it has come."""

    async def play(self) -> Played:
        """Publish all of it, and return when the broker has confirmed it.

        Raises RecordingError for a file that cannot be read, OutboxFull when the broker is away
        for too long.
        """
        self.check_open()
        await self.run()
        before = self.stats.lost
        while True:
            published = self.played.messages
            await self._play_once()
            self.played.rounds += 1
            if not self._repeats or self.played.messages == published:
                break  # or there is nothing in it
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self.hub.transport.flush()
        except TimeoutError as exc:
            raise OutboxFull(
                f"the broker has not confirmed the last messages within {CONFIRM_SECONDS:g} s"
            ) from exc
        self.played.lost = self.stats.lost - before
        return self.played

    async def _play_once(self) -> None:
        clock = asyncio.get_running_loop().time
        messages = self._messages()
        reading = asyncio.ensure_future(asyncio.to_thread(_batch, messages))
        pace: Pace | None = None
        turn = 0
        try:
            while batch := await reading:
                reading = asyncio.ensure_future(asyncio.to_thread(_batch, messages))
                for due in batch:
                    # From the beginning, not from the last one: so that errors never add up.
                    seconds = (due.seconds - self._start) / self._rate if self._rate else 0.0
                    pace = pace or Pace(clock, CATCH_UP)
                    self.played.position = due.seconds
                    turn += 1
                    if (pause := pace.pause(seconds)) > 0:
                        await asyncio.sleep(pause)
                    elif turn % TURN == 0:
                        await asyncio.sleep(0)
                    await self._publish(due.found)
        finally:
            await asyncio.wait([reading])  # a file is not closed while it is read
            if not reading.cancelled():
                reading.exception()  # it was seen: another error may have come before it
            messages.close()

    def _messages(self) -> Generator[_Due | None, None, None]:
        """All that is to be played; before an error None, so that what was read is played."""
        try:
            yield from self._all_messages()
        except RecordingError:
            yield None
            raise

    def _all_messages(self) -> Iterator[_Due]:
        begin: int | None = None
        elapsed = 0
        for path in self.paths:
            reading, is_first = Reading(path), True
            for found in self._checked(reading):
                time = found.message.log_time
                begin = time if begin is None else begin
                if is_first:
                    # A file that is older than the one before it goes right behind that.
                    begin, is_first = min(begin, time - elapsed), False
                elapsed = max(elapsed, time - begin)
                seconds = max(0, time - begin) / 1e9
                if self._until is not None and seconds > self._until:
                    if reading.is_ours:
                        break  # all that follows is later
                    continue
                if seconds >= self._start and self._is_wanted(found.channel.topic):
                    yield _Due(seconds, found)

    def _checked(self, reading: Reading) -> Iterator[Found]:
        """Its messages; what is wrong with the file is told once, however often it is played."""
        try:
            yield from reading.messages()
        finally:
            faults = [f"{reading.path}: {fault}" for fault in reading.faults]
            if not {*faults} <= {*self.played.faults}:
                self.played.faults += [each for each in faults if each not in self.played.faults]
                self.played.damaged += reading.is_damaged

    def _is_wanted(self, topic: str) -> bool:
        return not self._matchers or any(
            each is not None and each(topic) for each in self._matchers
        )

    async def _publish(self, found: Found) -> None:
        if found.channel.metadata.get("kind", "topic") in ("request", "response"):
            self.played.calls += 1
            return
        topic = found.channel.topic
        try:
            packet = self._packet(found, topic)
            if packet is None:
                self.played.foreign += 1
                return
            await self._post(topic, packet)
        except (OutboxFull, ConnectionLost):
            raise
        except (CommlibError, ValueError) as exc:  # ValueError: this broker has no such topic
            self.played.refused += 1
            self.played.reason = f"{topic}: {exc}"
            return
        self.played.messages += 1
        self.played.bytes += len(packet.payload)

    async def _post(self, topic: str, packet: Packet) -> None:
        transport, timeout = self.hub.transport, self.hub.params.offline_policy.timeout
        try:
            async with asyncio.timeout(timeout):
                while not transport.publish(topic, packet):
                    await transport.room(packet)
        except TimeoutError as exc:
            raise OutboxFull(
                f"{topic}: no room in the outgoing queue for {timeout:g} s: the broker is away or "
                f"too slow; {self.played.messages} messages were published"
            ) from exc

    # ---- from a record to a packet for this broker ----

    def _packet(self, found: Found, topic: str) -> Packet | None:
        """None: it is of another program, and no JSON."""
        data = found.message.data
        try:
            recorded, mark = from_record(data, topic)
        except SerializationError:
            if found.channel.message_encoding != "json":
                return None
            recorded, mark = Packet(data, topic), Mark()
        packet = self._with_header(topic, recorded, mark)
        qos = found.channel.metadata.get("qos", "0")
        if qos in ("1", "2") and int(qos) in self.hub.transport.traits.delivery_levels:
            packet.qos = int(qos)
        return packet

    def _with_header(self, topic: str, recorded: Packet, mark: Mark) -> Packet:
        if mark.place == "none":
            return Packet(recorded.payload, "", None, recorded.ttl)
        traits, limit = self.hub.transport.traits, self.hub.params.max_payload
        is_same = (mark.place == "native") == traits.native_headers and (
            mark.place != "beside" or traits.header_beside_bare
        )
        if self._keep_headers and is_same:
            return Packet(recorded.payload, "", recorded.header, recorded.ttl)
        letter = open_packet(recorded, limit)
        header = letter.header if self._keep_headers else self._new_header(topic, letter.header)
        if mark.place == "beside" and not (traits.native_headers or traits.header_beside_bare):
            return letter.forward(header.hops, native=False, envelope=False, limit=limit)
        beside = mark.place == "beside" and traits.header_beside_bare
        return letter.pack(replace(header), native=traits.native_headers or beside, limit=limit)

    def _new_header(self, topic: str, header: Header) -> Header:
        """As recorded, but it is a new message: with a number of this player, and of now."""
        new = Header(
            now_ms(),
            error=header.error,
            traceparent=header.traceparent,
            tracestate=header.tracestate,
        )
        if header.seq >= 0 and header.origin:
            new.origin, new.seq = self._sequence.next(topic)
        if header.hops and place(self.hub.params.address, topic) not in header.hops:
            new.hops = header.hops  # else bridges would take it for one that went in a circle
        return new


def _batch(messages: Iterator[_Due | None]) -> list[_Due]:
    batch: list[_Due] = []
    size = 0
    for due in islice(messages, BATCH):
        if due is None:
            if batch:
                break
            continue  # there is nothing to play before the error
        batch.append(due)
        size += len(due.found.message.data)
        if size >= BATCH_BYTES:
            break
    return batch
