"""A peer that speaks no MQTT, or bad MQTT: nothing hangs or crashes, and it is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collected import BUSY_SECONDS, DEADLINE
from commlib import aio
from commlib.exceptions import ConnectError, ConnectionLost
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_bytes import Malformed, text
from commlib.transports._mqtt_link import MqttLink, dial
from commlib.transports.mqtt import ConnectionParameters

from .fake_broker import CONNACK, FakeBroker

STOP_SECONDS = 1.0 + BUSY_SECONDS
NOISE = [random.Random(seed).randbytes(200) for seed in range(5)]


async def until(holds: Any) -> None:
    """Wait for what nobody tells of."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def stop_quickly(node: aio.Node) -> None:
    async with asyncio.timeout(STOP_SECONDS):
        await node.stop()


# ---- before the door is open ----

GREETINGS = {
    "silence": b"",
    "a CONNACK that never ends": CONNACK[:3],
    "an empty CONNACK": b"\x20\x00",
    "a CONNACK with a code that there is not": b"\x20\x03\x00\x55\x00",
    "properties longer than their packet": b"\x20\x05\x00\x00\x7f\x00\x00",
    "a property that is cut off": b"\x20\x05\x00\x00\x02\x21\x00",
    "a property that there is not": b"\x20\x05\x00\x00\x02\x7f\x00",
    "a length without an end": b"\x20\xff\xff\xff\xff\xff",
    "256 MB of CONNACK": b"\x20\xff\xff\xff\x7f\x00\x00",
    "a subscription confirmed": b"\x90\x04\x00\x01\x00\x00",
    "a DISCONNECT": b"\xe0\x00",
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a Redis server": b"-ERR unknown command\r\n",
    **{f"noise {n}": noise for n, noise in enumerate(NOISE)},
}


@pytest.mark.parametrize("closes", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
async def test_whatever_answers_is_tried_again_with_pauses(
    greeting: bytes, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeBroker() as broker:
        broker.greeting, broker.closes_at_once = greeting, closes
        node = aio.Node("n", broker.hasty_url, heartbeats=False)
        async with asyncio.timeout(DEADLINE):
            await node.run()
        assert not node.connected
        await until(lambda: broker.connects >= 2)
        await asyncio.sleep(0.1)
        # Two versions, and pauses of 50 ms and more that double.
        assert broker.connects <= 12
        await stop_quickly(node)
    assert "Traceback" not in caplog.text


async def test_a_broker_that_comes_to_its_senses_is_used() -> None:
    async with FakeBroker() as broker:
        broker.greeting = NOISE[0]
        node = aio.Node("n", broker.hasty_url, heartbeats=False)
        await node.run()
        assert not node.connected
        broker.greeting = CONNACK
        await until(lambda: node.connected)
        await stop_quickly(node)


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
async def test_one_attempt_fails_as_one_that_finds_nobody(greeting: bytes) -> None:
    async with FakeBroker() as broker:
        broker.greeting = greeting
        params = ConnectionParameters("127.0.0.1", broker.port)
        with pytest.raises((ConnectError, OSError)):
            async with asyncio.timeout(0.2):  # as a session does it
                await dial("broker", params, "robot", 5, has_will=True)


async def test_a_broker_that_once_hangs_up_is_not_taken_for_one_of_an_older_version() -> None:
    async with FakeBroker() as broker:
        node = aio.Node("n", broker.url, heartbeats=False)
        await node.run()
        assert node.hub.transport.traits.competing
        broker.refuses = 1  # as one does that is about to end
        broker.hang_up()
        await until(lambda: not node.connected)
        await until(lambda: node.connected)
        assert node.hub.transport.traits.competing
        await stop_quickly(node)


# ---- behind it ----

BAD = {
    **{f"noise {n}": noise for n, noise in enumerate(NOISE)},
    "a topic that is no UTF-8": b"\x30\x06\x00\x02\xc3\x28\x00x",
    "an empty topic": b"\x30\x04\x00\x00\x00x",
    "a topic longer than its packet": b"\x30\x05\x00\x50abc",
    "QoS 3": b"\x36\x07\x00\x01t\x00\x01\x00x",
    "QoS 1 without an identifier": b"\x32\x07\x00\x01t\x00\x00\x00x",
    "properties longer than their packet": b"\x30\x06\x00\x01t\x7fxy",
    "a property that there is not": b"\x30\x07\x00\x01t\x02\x7f\x00x",
    "a length without an end": b"\x30\xff\xff\xff\xff\xff",
    "a kind that there is not": b"\x00\x00",
    "AUTH": b"\xf0\x00",
    "a CONNECT": b"\x10\x00",
    "a second CONNACK": CONNACK,
    "256 MB of SUBACK": b"\x90\xff\xff\xff\x7f",
    "a SUBACK without an identifier": b"\x90\x01\x00",
    "a PUBACK without an identifier": b"\x40\x00",
}


@pytest.mark.parametrize("fragments", [1, 1 << 20], ids=["in single bytes", "at once"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_peer_that_begins_to_babble_is_left_and_tried_again(
    bad: bytes, fragments: int, caplog: pytest.LogCaptureFixture
) -> None:
    news: list[bool] = []
    async with FakeBroker() as broker:
        broker.once_subscribed, broker.fragments = [bad], fragments
        node = aio.Node("n", broker.url, heartbeats=False, on_state=lambda up, why: news.append(up))
        seen: list[Any] = []
        node.create_subscriber("t", seen.append)
        async with asyncio.timeout(DEADLINE):
            await node.run()
        # Either in the middle of the greeting or behind it; the broker's next one is a good one.
        await until(lambda: broker.connects >= 2 and node.connected)
        assert news[-1]
        assert seen == []
        await stop_quickly(node)
    assert "Traceback" not in caplog.text


HARMLESS = {
    "an answer to nothing": b"\xd0\x00",
    "a SUBACK of nothing": b"\x90\x04\x77\x77\x00\x00",
    "a PUBACK of nothing": b"\x40\x02\x77\x77",
    "a PUBREC of nothing": b"\x50\x02\x77\x77",
    "a PUBREL of nothing": b"\x62\x02\x77\x77",
    "a topic that nobody wants": b"\x30\x08\x00\x04none\x00x",
}


@pytest.mark.parametrize("odd", HARMLESS.values(), ids=HARMLESS)
async def test_what_is_only_odd_does_no_harm(odd: bytes) -> None:
    async with FakeBroker() as broker:
        broker.once_subscribed = [odd + b"\x30\x06\x00\x01t\x0021"]
        node = aio.Node("n", broker.url, heartbeats=False)
        subscriber = node.create_subscriber("t")
        await node.run()
        async with asyncio.timeout(DEADLINE):
            assert await anext(aiter(subscriber)) == 21
        assert broker.connects == 1
        await stop_quickly(node)


# ---- one link ----

FRAME = frames.publish(text("sonar/front"), b'{"distance": 1.5}', 0, frames.NO_PROPERTIES)


@asynccontextmanager
async def linked(broker: FakeBroker) -> AsyncIterator[tuple[MqttLink, list[bytes]]]:
    """A connection to it, and the payloads that come."""
    params = ConnectionParameters("127.0.0.1", broker.port)
    link = await dial("broker", params, "robot", 5, has_will=True)
    came: list[bytes] = []
    route = ((lambda packet: came.append(packet.payload), "sonar"),)
    link.routes.on_topic = lambda topic, published: (route, True)
    try:
        yield link, came
    finally:
        link.abort(None)


async def test_a_message_that_is_cut_at_any_byte_reaches_nobody() -> None:
    async with FakeBroker() as broker:
        broker.closes_then = True
        for end in range(1, len(FRAME)):
            broker.once_subscribed = [FRAME[:end]]
            async with linked(broker) as (link, came):
                link.write([control.subscribe(5, 1, "sonar", 0, 1)], [])
                async with asyncio.timeout(DEADLINE):
                    await link.closed
                assert came == []


async def test_messages_in_fragments_of_any_size_arrive_whole_and_once() -> None:
    async with FakeBroker() as broker:
        for size in range(1, len(FRAME) + 2):
            broker.fragments, broker.once_subscribed = size, [FRAME * 3]
            async with linked(broker) as (link, came):
                link.write([control.subscribe(5, 1, "sonar", 0, 1)], [])
                await until(lambda came=came: len(came) >= 3)
                await link.ping()
                assert came == [b'{"distance": 1.5}'] * 3


class Wire(asyncio.Transport):
    """Where a link writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = False

    def write(self, data: Any) -> None:
        assert not self.is_cut

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True


def feed(link: MqttLink, data: bytes) -> None:
    """Let a link receive something, as its loop would."""
    link._buffer[: len(data)] = data
    link.buffer_updated(len(data))


plausible = st.sampled_from(
    [FRAME, CONNACK, b"\xd0\x00", b"\x90\x04\x00\x01\x00\x00", b"\x40\x02\x00\x01", *BAD.values()]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Packets with some of their bytes changed."""
    data = bytearray(b"".join(draw(st.lists(plausible, min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("version", [4, 5])
@given(data=st.one_of(st.binary(max_size=300), mutated()), size=st.integers(1, 100))
@example(data=b"\x30\xff\xff\xff\x7f" + b"x" * 100, size=1)
def test_no_bytes_make_a_link_raise_or_read_on_after_its_end(
    version: int, data: bytes, size: int
) -> None:
    async def receive() -> None:
        link = MqttLink("broker", version, 1000)
        link._transport = wire = Wire()
        for at in range(0, len(data), size):
            if not wire.is_cut:
                feed(link, data[at : at + size])
        assert link.closed.done() == wire.is_cut
        if wire.is_cut:
            assert isinstance(link.closed.result(), ConnectionLost | ConnectError)

    asyncio.run(receive())


@given(body=st.binary(max_size=60))
@example(body=b"\x00\x00\x03\x21\x00\x00")  # it would take no message that it has to acknowledge
@example(body=b"\x00\x00\x05\x27\x00\x00\x00\x00")  # it would take no packet
@example(body=b"\x00\x00\x02\x24\x07")  # there is no QoS 7
def test_no_connack_makes_reading_it_raise_anything_else(body: bytes) -> None:
    for version in (4, 5):
        try:
            granted = control.read_connack(version, body)
        except Malformed:
            continue
        assert granted.code in range(256)
        assert granted.window > 0
        assert granted.max_packet > 0
        assert granted.max_qos in (0, 1, 2)
