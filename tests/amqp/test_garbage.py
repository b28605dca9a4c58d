"""A peer that speaks no AMQP, or bad AMQP: nothing hangs or crashes, and it is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pika import spec

from amqp_wire import closing, delivered, delivery_frames, returned, said
from collected import BUSY_SECONDS, DEADLINE
from commlib import aio
from commlib.exceptions import ConnectError
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_link import AmqpLink, dial
from commlib.transports._amqp_methods import TOPICS
from commlib.transports.amqp import ConnectionParameters

from .fake_broker import GREETING, FakeBroker

STOP_SECONDS = 1.0 + BUSY_SECONDS
NOISE = [random.Random(seed).randbytes(200) for seed in range(3)]


async def until(holds: Any) -> None:
    """Wait for what nobody tells of."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def stop_quickly(node: aio.Node) -> None:
    async with asyncio.timeout(STOP_SECONDS):
        await node.stop()


def raw_method(channel: int, arguments: bytes) -> bytes:
    return b"\x01%b%b%b\xce" % (channel.to_bytes(2), len(arguments).to_bytes(4), arguments)


# ---- before the door is open ----

GREETINGS = {
    "silence": b"",
    "a START that never ends": GREETING[:20],
    "a START without anything": raw_method(0, methods.START),
    "a table longer than its frame": raw_method(0, methods.START + b"\x00\x09\xff\xff\xff\xff"),
    "a frame of 4 GB": b"\x01\x00\x00\xff\xff\xff\xff\x00",
    "a frame without its end": GREETING[:-1] + b"\x00",
    "an old broker": b"AMQP\x00\x00\x08\x00",
    "a broker of AMQP 1.0": b"AMQP\x00\x01\x00\x00",
    "something else than a START": said(0, spec.Connection.OpenOk()),
    "a START, and TUNE behind it": GREETING + said(0, spec.Connection.Tune(0, 0, 0)),
    "a goodbye": said(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0)),
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a Redis server": b"-ERR unknown command\r\n",
    **{f"noise {n}": noise for n, noise in enumerate(NOISE)},
}


@pytest.mark.parametrize(
    ("name", "closes"),
    [
        *((name, False) for name in GREETINGS),
        ("silence", True),
        ("a START", True),
        ("noise 0", True),
    ],
)
async def test_whatever_answers_is_tried_again_with_pauses(
    name: str, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    greeting = GREETINGS.get(name, GREETING)
    async with FakeBroker() as broker:
        broker.greeting, broker.closes_at_once = greeting, closes
        node = aio.Node("n", broker.hasty_url, heartbeats=False)
        async with asyncio.timeout(DEADLINE):
            await node.run()
        if not greeting.startswith(GREETING) or closes:
            assert not node.connected
            await until(lambda: broker.connects >= 2)
        await asyncio.sleep(0.05)
        # Pauses of 50 ms and more that double.
        assert broker.connects <= 8
        await stop_quickly(node)
    assert "Traceback" not in caplog.text


async def test_a_broker_that_comes_to_its_senses_is_used() -> None:
    async with FakeBroker() as broker:
        broker.greeting = NOISE[0]
        node = aio.Node("n", broker.hasty_url, heartbeats=False)
        await node.run()
        assert not node.connected
        broker.greeting = GREETING
        await until(lambda: node.connected)
        await stop_quickly(node)


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        (b"AMQP\x00\x01\x00\x00", r"does not speak AMQP: it speaks another version, 1\.0\.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
        (said(0, spec.Connection.Close(320, "going", 0, 0)), "the broker says: going"),
        (said(0, spec.Connection.OpenOk()), "does not speak AMQP: the method 000a0029 where"),
    ],
)
async def test_one_attempt_fails_as_one_that_finds_nobody(greeting: bytes, text: str) -> None:
    async with FakeBroker() as broker:
        broker.greeting = greeting
        params = ConnectionParameters("127.0.0.1", broker.port)
        with pytest.raises(ConnectError, match=text):
            async with asyncio.timeout(5):  # as a session does it
                await dial("broker", params)


# ---- behind it ----


BAD = {
    **{f"noise {n}": noise for n, noise in enumerate(NOISE)},
    "a frame without its end": delivered(TOPICS, b"x")[:-1] + b"\x00",
    "a frame of 4 GB": b"\x03\x00\x04\xff\xff\xff\xff",
    "a type that there is not": b"\x05\x00\x00\x00\x00\x00\x00\xce",
    "a header without a message": delivery_frames(TOPICS, b"x")[1],
    "a body without a message": delivery_frames(TOPICS, b"x")[2],
    "more than was announced": b"".join(
        [*delivery_frames(TOPICS, b"x")[:2], delivery_frames(TOPICS, b"xyz")[2]]
    ),
    "a message without a name": raw_method(TOPICS, methods.DELIVER + b"\x01")
    + b"".join(delivery_frames(TOPICS, b"x")[1:]),
    "what came back, cut off": raw_method(TOPICS, methods.RETURN + b"\x01")
    + b"".join(delivery_frames(TOPICS, b"x")[1:]),
    "a confirmation that is cut off": raw_method(TOPICS, methods.ACK + b"\x01"),
    "an end of a channel that is cut off": raw_method(TOPICS, methods.CHANNEL_CLOSE + b"\x01"),
    "an end of a consumer that is cut off": raw_method(TOPICS, methods.CANCEL + b"\x09a"),
    "a goodbye that is cut off": raw_method(0, methods.CLOSE),
    "blocked, cut off": raw_method(0, methods.BLOCKED),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("fragments", [1, 1 << 20], ids=["in single bytes", "at once"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_peer_that_begins_to_babble_is_left_and_tried_again(
    bad: bytes, fragments: int, caplog: pytest.LogCaptureFixture
) -> None:
    news: list[bool] = []
    async with FakeBroker() as broker:
        broker.once_consumed, broker.fragments = [bad], fragments
        node = aio.Node("n", broker.url, heartbeats=False, on_state=lambda up, why: news.append(up))
        seen: list[Any] = []
        node.create_subscriber("a.b", seen.append)
        async with asyncio.timeout(DEADLINE):
            await node.run()
        # Either in the middle of the greeting or behind it; the broker's next one is a good one.
        await until(lambda: broker.connects >= 2 and node.connected)
        assert news[-1]
        assert seen == []
        await stop_quickly(node)
    assert "Traceback" not in caplog.text


HARMLESS = {
    "a heartbeat": methods.BEAT,
    "an answer to nothing": said(TOPICS, spec.Basic.QosOk()),
    "a confirmation of nothing": said(TOPICS, spec.Basic.Ack(77, True)),
    "a refusal of nothing": said(TOPICS, spec.Basic.Nack(77)),
    "the end of a consumer that there is not": said(TOPICS, spec.Basic.Cancel("z")),
    "something on a channel that there is not": said(99, spec.Basic.Ack(1)) + delivered(99, b"x"),
    "the end of a channel that there is not": closing(99, 404, "NOT_FOUND"),
    "an answer of the connection to nothing": said(0, spec.Connection.OpenOk()),
    "unblocked": said(0, spec.Connection.Unblocked()),
    "what nobody has sent comes back": returned(TOPICS, "a", b"x", spec.BasicProperties()),
    "a message for a consumer that there is not": delivered(TOPICS, b"9", consumer="z", key="z"),
}


@pytest.mark.parametrize("odd", HARMLESS.values(), ids=HARMLESS)
async def test_what_is_only_odd_does_no_harm(odd: bytes) -> None:
    async with FakeBroker() as broker:
        broker.once_consumed = [odd + delivered(TOPICS, b"21")]
        node = aio.Node("n", broker.url, heartbeats=False)
        subscriber = node.create_subscriber("a.b")
        await node.run()
        async with asyncio.timeout(DEADLINE):
            assert await anext(aiter(subscriber)) == 21
        assert broker.connects == 1
        await stop_quickly(node)


# ---- one link ----

MESSAGE = delivered(TOPICS, b'{"distance": 1.5}')


@asynccontextmanager
async def linked(broker: FakeBroker) -> AsyncIterator[tuple[AmqpLink, list[bytes]]]:
    """A connection to it, and the payloads that come."""
    link = await dial("broker", ConnectionParameters("127.0.0.1", broker.port))
    came: list[bytes] = []
    channel = link.channel(TOPICS)
    channel.on_arrival = lambda *arrival: came.append(arrival[-1])
    try:
        yield link, came
    finally:
        link.abort(None)
        await link.gone


async def test_a_message_that_is_cut_at_any_byte_reaches_nobody() -> None:
    async with FakeBroker() as broker:
        broker.closes_then = True
        for end in range(1, len(MESSAGE)):
            broker.once_consumed = [MESSAGE[:end]]
            async with linked(broker) as (link, came):
                asked = link.channel(TOPICS).ask(methods.consume(TOPICS, "q", "t", 0))
                async with asyncio.timeout(DEADLINE):
                    await asked
                    await link.closed
                assert came == []


async def test_messages_in_fragments_of_any_size_arrive_whole_and_once() -> None:
    async with FakeBroker() as broker:
        for size in (1, 2, 3, 5, 7, 8, 20, 30, 50, len(MESSAGE), len(MESSAGE) + 1):
            broker.fragments, broker.once_consumed = size, [MESSAGE * 3]
            async with linked(broker) as (link, came):
                link.channel(TOPICS).ask(methods.consume(TOPICS, "q", "t", 0))
                await until(lambda came=came: len(came) >= 3)
                await link.channel(TOPICS).ask(methods.qos(TOPICS, 0))
                assert came == [b'{"distance": 1.5}'] * 3
