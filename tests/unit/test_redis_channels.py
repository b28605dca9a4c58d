"""Subscriptions to Redis channels, with a link whose other end is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import hiredis
import pytest

from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib._packet import Packet
from commlib.exceptions import AuthError, ConnectError
from commlib.transports import _redis_channels
from commlib.transports._redis_channels import Channel, Channels
from commlib.transports.redis import ConnectionParameters


class FakeLink:
    """Keeps the commands that are written, and answers as a server does."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.on_reply: Any = None
        self.probe: Any = None
        self.written = asyncio.Event()
        self._commands = hiredis.Reader()

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        assert list(notes) == [], "on this link nobody takes the notes off again"
        for frame in frames:
            self._commands.feed(frame)
        self.written.set()

    def heard(self) -> list[tuple[bytes, ...]]:
        """The commands since the last look."""
        found = []
        while (command := self._commands.gets()) is not False:
            found.append(tuple(command))
        return found

    def says_yes(self) -> None:
        """Confirm all that was asked for."""
        for word, name in self.heard():
            self.on_reply([word.lower(), name, 1])


class Handler(Collected):
    """Keeps topic and payload of what it is handed."""

    def __call__(self, packet: Packet) -> None:
        super().__call__(packet.topic, packet.payload)


async def soon(awaitable: Any) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


@pytest.fixture
def garbage() -> Collected:
    return Collected()


@pytest.fixture
def refused() -> Collected:
    return Collected()


@pytest.fixture
def channels(garbage: Collected, refused: Collected) -> Channels:
    return Channels(garbage, refused)


async def attach(channels: Channels) -> FakeLink:
    """A new link, on which everything is confirmed."""
    link = FakeLink()
    restoring = asyncio.create_task(channels.restore(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    link.says_yes()
    await soon(restoring)
    return link


# ---- asking and confirming ----


async def test_a_topic_is_subscribed_and_a_pattern_is_psubscribed(channels: Channels) -> None:
    link = await attach(channels)
    channels.add("sonar.front", Handler())
    channels.add("sonar.*", Handler())
    channels.add("hbot/*/start", Handler())
    channels.add("sonar.[ab]?", Handler())
    assert link.heard() == [
        (b"SUBSCRIBE", b"sonar.front"),
        (b"PSUBSCRIBE", b"sonar.*"),
        (b"PSUBSCRIBE", b"hbot/*/start"),
        (b"PSUBSCRIBE", b"sonar.[ab]?"),
    ]


async def test_a_subscription_is_confirmed_when_the_server_has_said_yes_and_not_before(
    channels: Channels,
) -> None:
    link = await attach(channels)
    first, second = channels.add("a", Handler()), channels.add("b.*", Handler())
    assert not first.confirmed.done()
    link.on_reply([b"subscribe", b"a", 1])
    assert first.confirmed.done()
    assert not second.confirmed.done()
    link.on_reply([b"psubscribe", b"b.*", 2])
    await soon(second.confirmed)


async def test_a_refusal_reaches_the_one_who_asked_and_nobody_else(channels: Channels) -> None:
    link = await attach(channels)
    asked = [channels.add(topic, Handler()) for topic in ("a", "b", "c")]
    link.on_reply([b"subscribe", b"a", 1])
    link.on_reply(hiredis.ReplyError("NOPERM no access to this channel"))
    link.on_reply(hiredis.ReplyError("ERR something else"))
    await soon(asked[0].confirmed)
    with pytest.raises(AuthError, match="NOPERM"):
        await soon(asked[1].confirmed)
    with pytest.raises(ConnectError, match="something else"):
        await soon(asked[2].confirmed)


async def test_answers_are_told_apart_though_some_are_to_those_who_have_left(
    channels: Channels,
) -> None:
    link = await attach(channels)
    handler, after = Handler(), Handler()
    gone = channels.add("gone", handler)
    channels.remove(gone, handler)
    stays = channels.add("stays", after)
    assert [words[0] for words in link.heard()] == [b"SUBSCRIBE", b"UNSUBSCRIBE", b"SUBSCRIBE"]
    link.on_reply([b"subscribe", b"gone", 1])
    link.on_reply([b"unsubscribe", b"gone", 0])
    assert not stays.confirmed.done()
    link.on_reply(hiredis.ReplyError("NOPERM"))
    with pytest.raises(AuthError):
        await soon(stays.confirmed)


async def test_a_second_handler_of_a_channel_asks_for_nothing_and_waits_with_the_first(
    channels: Channels,
) -> None:
    link = await attach(channels)
    first = channels.add("a", Handler())
    second = channels.add("a", Handler())
    assert second is first
    assert link.heard() == [(b"SUBSCRIBE", b"a")]


async def test_only_the_last_handler_ends_the_channel_and_once(channels: Channels) -> None:
    link = await attach(channels)
    handlers = [Handler(), Handler()]
    channel, same = (channels.add("a.*", handler) for handler in handlers)
    assert same is channel
    link.says_yes()
    channels.remove(channel, handlers[0])
    channels.remove(channel, handlers[0])
    assert link.heard() == []
    channels.remove(channel, handlers[1])
    channels.remove(channel, handlers[1])
    assert link.heard() == [(b"PUNSUBSCRIBE", b"a.*")]


async def test_a_channel_that_was_left_may_be_entered_again(channels: Channels) -> None:
    link = await attach(channels)
    handler = Handler()
    for _ in range(3):
        channel = channels.add("a", handler)
        link.says_yes()
        await soon(channel.confirmed)
        link.on_reply([b"message", b"a", b"x"])
        channels.remove(channel, handler)
        link.says_yes()
        link.on_reply([b"message", b"a", b"not any more"])
    assert handler.items == [("a", b"x")] * 3


# ---- what is published ----


async def test_every_handler_gets_its_copy_and_those_of_other_channels_none(
    channels: Channels,
) -> None:
    link = await attach(channels)
    one, two, other = Handler(), Handler(), Handler()
    channels.add("a", one)
    channels.add("a", two)
    channels.add("b", other)
    link.says_yes()
    link.on_reply([b"message", b"a", b"x"])
    link.on_reply([b"message", b"unknown", b"x"])
    assert one.items == two.items == [("a", b"x")]
    assert other.items == []


async def test_a_pattern_gets_the_real_topic_and_only_what_the_grammar_matches(
    channels: Channels,
) -> None:
    link = await attach(channels)
    handler = Handler()
    channels.add("a.*.c", handler)
    link.says_yes()
    for topic in (b"a.b.c", b"a.b.b.c", b"a..c", b"a.b/b.c"):
        # The server's star crosses the separators.
        link.on_reply([b"pmessage", b"a.*.c", topic, b"x"])
    assert handler.items == [("a.b.c", b"x"), ("a..c", b"x")]


async def test_a_native_wildcard_is_left_to_the_server(channels: Channels) -> None:
    link = await attach(channels)
    handler = Handler()
    channels.add("a.[bc]*", handler)
    link.says_yes()
    link.on_reply([b"pmessage", b"a.[bc]*", b"a.b.d", b"x"])
    assert handler.items == [("a.b.d", b"x")]


async def test_a_topic_that_is_no_utf8_is_handed_over_all_the_same(channels: Channels) -> None:
    link = await attach(channels)
    handler = Handler()
    channels.add("*", handler)
    link.says_yes()
    link.on_reply([b"pmessage", b"*", b"\xff\xfe", b"x"])
    assert handler.items == [("\ufffd\ufffd", b"x")]


async def test_a_handler_that_leaves_while_messages_are_handed_out_disturbs_nobody(
    channels: Channels,
) -> None:
    link = await attach(channels)
    got: list[str] = []

    def leave(packet: Packet) -> None:
        got.append("leave")
        channels.remove(channel, leave)

    def stay(packet: Packet) -> None:
        got.append("stay")

    channel = channels.add("a", leave)
    channels.add("a", stay)
    link.says_yes()
    link.on_reply([b"message", b"a", b"x"])
    link.on_reply([b"message", b"a", b"x"])
    assert got == ["leave", "stay", "stay"]


async def test_signs_of_life_are_no_answers(channels: Channels, garbage: Collected) -> None:
    link = await attach(channels)
    channel = channels.add("a", Handler())
    link.heard()
    link.probe()
    assert link.heard() == [(b"PING",)]
    for pong in ([b"pong", b""], b"PONG", "PONG"):
        link.on_reply(pong)
    assert not channel.confirmed.done()
    assert garbage.items == []


async def test_what_makes_no_sense_is_told(channels: Channels, garbage: Collected) -> None:
    link = await attach(channels)
    link.on_reply(b"something")
    link.on_reply(7)
    assert garbage.items == [b"something", 7]


# ---- a new link ----


async def test_everything_is_restored_on_a_new_link_before_it_counts_as_there(
    channels: Channels,
) -> None:
    first = await attach(channels)
    handlers = [Handler(), Handler()]
    wanted = [channels.add("a", handlers[0]), channels.add("b.*", handlers[1])]
    gone = Handler()
    channels.remove(channels.add("gone", gone), gone)
    first.says_yes()
    channels.detach()
    second = FakeLink()
    restoring = asyncio.create_task(channels.restore(second))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert second.heard() == [(b"SUBSCRIBE", b"a"), (b"PSUBSCRIBE", b"b.*")]
    assert not any(channel.confirmed.done() for channel in wanted)
    second.on_reply([b"subscribe", b"a", 1])
    await asyncio.sleep(0)
    assert not restoring.done()
    second.on_reply([b"psubscribe", b"b.*", 2])
    await soon(restoring)
    second.on_reply([b"message", b"a", b"x"])
    second.on_reply([b"pmessage", b"b.*", b"b.c", b"y"])
    assert [handler.items for handler in handlers] == [[("a", b"x")], [("b.c", b"y")]]


async def test_what_is_asked_for_while_the_link_is_away_is_asked_for_when_it_is_there(
    channels: Channels,
) -> None:
    handler = Handler()
    early = channels.add("early", handler)
    left = channels.add("left", handler)
    channels.remove(left, handler)
    link = FakeLink()
    restoring = asyncio.create_task(channels.restore(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert link.heard() == [(b"SUBSCRIBE", b"early")]
    link.on_reply([b"subscribe", b"early", 1])
    await soon(asyncio.gather(restoring, early.confirmed))


async def test_answers_that_a_lost_link_owes_are_not_expected_of_the_next_one(
    channels: Channels,
) -> None:
    await attach(channels)
    handler = Handler()
    first = channels.add("first", handler)
    channels.add("second", handler)
    channels.remove(channels.add("third", handler), handler)
    channels.detach()
    assert not first.confirmed.done()
    link = await attach(channels)
    fourth = channels.add("fourth", handler)
    link.on_reply(hiredis.ReplyError("NOPERM"))
    with pytest.raises(AuthError):
        await soon(fourth.confirmed)
    await soon(first.confirmed)


async def test_a_link_that_is_lost_while_it_is_restored_ends_the_restoring(
    channels: Channels,
) -> None:
    channels.add("a", Handler())
    link = FakeLink()
    restoring = asyncio.create_task(channels.restore(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    link.closed.set_result(None)
    await soon(restoring)


async def test_a_subscription_that_is_refused_when_it_is_restored_is_logged_and_spares_the_others(
    channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Handler(), Handler()
    channels.add("a", one)
    channels.add("b", two)
    await attach(channels)
    channels.detach()
    link = FakeLink()
    restoring = asyncio.create_task(channels.restore(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    link.on_reply(hiredis.ReplyError("NOPERM not any more"))
    link.on_reply([b"subscribe", b"b", 1])
    await soon(restoring)
    assert "a cannot be subscribed" in caplog.text
    link.on_reply([b"message", b"b", b"x"])
    assert two.items == [("b", b"x")]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is asked for again at once."""
    monkeypatch.setattr(_redis_channels, "ERROR_PAUSE", 0.0001)


async def asked_again(link: FakeLink) -> list[tuple[bytes, ...]]:
    """The commands that come without anybody's doing."""
    while not (heard := link.heard()):
        link.written.clear()
        await soon(link.written.wait())
    return heard


async def refused_when_restored(channels: Channels, handler: Handler) -> FakeLink:
    """A new link, on which a channel is refused that was there on the one before."""
    link = await attach(channels)
    channels.add("a", handler)
    link.says_yes()
    channels.detach()
    link = FakeLink()
    restoring = asyncio.create_task(channels.restore(link))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert link.heard() == [(b"SUBSCRIBE", b"a")]
    link.on_reply(hiredis.ReplyError("NOPERM not now"))
    await soon(restoring)
    return link


async def test_a_subscription_that_is_refused_when_it_is_restored_is_asked_for_until_it_is_given(
    channels: Channels, refused: Collected, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler()
    channels._forget_retry()
    link = await refused_when_restored(channels, handler)
    for _ in range(3):
        assert await asked_again(link) == [(b"SUBSCRIBE", b"a")]
        link.on_reply(hiredis.ReplyError("NOPERM not yet"))
    assert await asked_again(link) == [(b"SUBSCRIBE", b"a")]
    link.on_reply([b"subscribe", b"a", 1])
    link.on_reply([b"message", b"a", b"x"])
    assert handler.items == [("a", b"x")]
    assert len(refused.items) == 1
    assert caplog.text.count("a cannot be subscribed") == 1
    assert caplog.text.count("a is subscribed again") == 1
    await soon(channels.add("a", Handler()).confirmed)
    assert channels._retry is None


async def test_who_asks_for_what_was_refused_before_is_told_what_holds_now(
    channels: Channels,
) -> None:
    link = await refused_when_restored(channels, Handler())
    second, third = (channels.add("a", Handler()) for _ in range(2))
    assert link.heard() == [(b"SUBSCRIBE", b"a")] * 2
    link.on_reply([b"subscribe", b"a", 1])
    await soon(asyncio.gather(second.confirmed, third.confirmed))


@pytest.mark.parametrize("end", ["remove", "detach"])
async def test_a_subscription_that_is_given_up_is_not_asked_for_again(
    channels: Channels, end: str
) -> None:
    handler = Handler()
    link = await refused_when_restored(channels, handler)
    (channel,) = channels._exact.values()
    if end == "remove":
        channels.remove(channel, handler)
    else:
        channels.detach()
    assert not channels._refused
    channels._ask_again()
    assert (b"SUBSCRIBE", b"a") not in link.heard()


async def test_a_first_subscription_that_is_refused_is_told_to_who_asked_alone(
    channels: Channels, refused: Collected
) -> None:
    link, handler = await attach(channels), Handler()
    channel = channels.add("a", handler)
    link.on_reply(hiredis.ReplyError("NOPERM"))
    with pytest.raises(AuthError):
        await soon(channel.confirmed)
    channels.remove(channel, handler)
    assert not channels._refused
    assert refused.items == []


def test_the_address_of_a_pattern_is_a_glob_and_that_of_a_topic_is_itself() -> None:
    async def addresses() -> list[bytes]:
        return [Channel(topic).address for topic in ("a.b", "a.*", "a\\b.*", "*")]

    assert asyncio.run(addresses()) == [b"a.b", b"a.*", b"a\\\\b.*", b"*"]


# ---- with a server ----


async def test_a_subscription_that_is_given_up_while_the_broker_is_away_is_not_made_later(
    make_redis: Any,
) -> None:
    server = make_redis()
    async with aio.Node("n", server.url) as node:
        transport = node.hub.transport
        await (await transport.subscribe("kept", Handler())).close()
        server.kill()
        await soon(asyncio.to_thread(eventually, lambda: not transport.connected))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transport.subscribe("given.up", Handler())
        server.start()
        await soon((await transport.subscribe("other", Handler())).close())
        assert server.cli("PUBSUB", "NUMSUB", "given.up") == [b"given.up", 0]


class SilentServer:
    """Answers everything but SUBSCRIBE, and counts the connections on which it was asked that."""

    def __init__(self) -> None:
        self.tries = self.open = self.most = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands, is_asked = hiredis.Reader(), False
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                commands.feed(data)
                while (words := commands.gets()) is not False:
                    if words[0] == b"SUBSCRIBE":
                        is_asked = True
                        self.tries, self.open = self.tries + 1, self.open + 1
                        self.most = max(self.most, self.open)
                    else:
                        writer.write(b"*2\r\n:1\r\n:1\r\n" if words == [b"TIME"] else b"+PONG\r\n")
        self.open -= is_asked
        writer.close()


async def test_a_link_that_is_not_restored_in_time_is_closed_before_the_next_one_is_tried() -> None:
    serve = SilentServer()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    transport = ConnectionParameters(host, port, connect_timeout=0.05).make_transport()
    subscribing = asyncio.create_task(transport.subscribe("a", Handler()))
    await soon(asyncio.to_thread(eventually, lambda: serve.tries == 3))
    subscribing.cancel()
    await asyncio.wait([subscribing])
    await transport.close()
    await soon(asyncio.to_thread(eventually, lambda: serve.open == 0))
    assert serve.most == 1
    server.close()
