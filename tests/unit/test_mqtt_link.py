"""One connection to an MQTT broker, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commlib._packet import Header, Packet
from commlib._session import TakenOver
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_control import V5, V311
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_headers import write_pairs
from commlib.transports._mqtt_link import LONGEST_HEAD, Unclaimed
from commlib.transports._mqtt_routes import Known, Route
from mqtt_wire import Wire

BOTH = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
def taken() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
def make(taken: list[tuple[str, bytes]]) -> Callable[..., Wire]:
    """A link that takes the messages of all topics."""

    def make(version: int = V5, limit: int = 1000) -> Wire:
        broker = Wire(version, limit)
        route: Route = ((lambda packet: taken.append((packet.topic, packet.payload)), "name"),)
        broker.link.routes.on_topic = lambda topic, published: (route, True)
        return broker

    return make


# ---- packets out of the stream ----


@BOTH
@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 100])
async def test_packets_are_found_however_they_are_cut(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], version: int, at_once: int
) -> None:
    broker = make(version)
    payloads = [b"", b"x", b"y" * 130, b"z" * 700]
    broker.comes(b"".join(broker.publish("a", payload) for payload in payloads), at_once)
    assert taken == [("name", payload) for payload in payloads]


@BOTH
async def test_a_packet_of_which_one_byte_comes_alone_does_not_wait_for_as_many_as_the_last_one(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], version: int
) -> None:
    broker = make(version)
    long, short = broker.publish("a", b"y" * 500), broker.publish("a", b"x")
    for piece in (long[:100], long[100:], short[:1], short[1:]):
        broker.comes(piece)
    assert [payload for _, payload in taken] == [b"y" * 500, b"x"]


async def test_a_large_packet_comes_whole_and_the_next_one_as_well(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]]
) -> None:
    broker = make(limit=3_000_000)
    payload = bytes(range(256)) * 10_000
    broker.comes(broker.publish("a", payload) + broker.publish("a", b"next"))
    assert taken == [("name", payload), ("name", b"next")]


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("at_once", [20, 1000, 70_000, 1_000_000])
async def test_large_packets_come_whole_however_they_are_cut(
    make: Callable[..., Wire],
    taken: list[tuple[str, bytes]],
    version: int,
    qos: int,
    at_once: int,
) -> None:
    broker = make(version, limit=300_000)
    payloads = [bytes([n]) * size for n, size in enumerate([3, 50_000, 200_000, 0, 200_001, 9])]
    pieces = []
    for number, payload in enumerate(payloads, 1):
        properties = frames.NO_PROPERTIES if version == V5 else b""
        if qos:
            before, behind = frames.publish_parts(wire.text("a"), payload, 2, properties)
            pieces += [before, wire.u16.pack(number), bytes(behind)]
        else:
            pieces.append(bytes(frames.publish(wire.text("a"), payload, 0, properties)))
    broker.comes(b"".join(pieces), at_once)
    assert taken == [("name", payload) for payload in payloads]
    acknowledged = [frames.acknowledge(frames.PUBACK, number) for number in range(1, 7)]
    assert broker.packets() == (acknowledged if qos else [])


@pytest.mark.parametrize("at_once", [20_000, 70_000, 199_999, 1_000_000])
async def test_large_packets_come_whole_from_a_loop_that_holds_on_to_them(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], at_once: int
) -> None:
    broker = make(limit=300_000)
    broker.holds = True
    payloads = [bytes([n]) * size for n, size in enumerate([200_000, 150_000, 3, 200_001])]
    data = b"".join(broker.publish("a", payload) for payload in payloads)
    for at in range(0, len(data), at_once):
        broker.comes(data[at : at + at_once])
        await asyncio.sleep(0)  # what the link has put off
    assert taken == [("name", payload) for payload in payloads]


async def test_a_large_packet_that_ends_with_the_connection_reaches_nobody(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]]
) -> None:
    broker = make(limit=300_000)
    broker.comes(broker.publish("a", bytes(200_000))[:-1])
    broker.link.abort(None)
    broker.comes(b"\0")
    assert taken == []


@pytest.mark.parametrize("at_once", [1000, 100_000, 1_000_000])
async def test_of_a_packet_over_the_limit_only_enough_comes_to_be_refused(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], at_once: int
) -> None:
    broker = make(limit=1000)
    broker.comes(broker.publish("a", bytes(900_000)) + broker.publish("a", b"next"), at_once)
    (_, first), second = taken
    assert 1000 < len(first) < 900_000
    assert second == ("name", b"next")
    assert not broker.is_cut


async def test_a_packet_over_the_limit_is_acknowledged_so_that_it_does_not_come_again(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]]
) -> None:
    broker = make(V311, limit=1000)
    before, behind = frames.publish_parts(wire.text("a"), bytes(LONGEST_HEAD + 2000), 2, b"")
    broker.comes(before + b"\x00\x07" + behind)
    assert broker.packets() == [frames.acknowledge(frames.PUBACK, 7)]
    assert len(taken) == 1


@BOTH
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x00\x00", "kind 0x00"),
        (b"\x10\x02ab", "kind 0x10"),
        (b"\x30\x00", ""),
        (b"\x30\x02\x00\x00", ""),
        (b"\x30\x04\x00\x09ab", ""),
        (b"\x30\x05\x00\x02\xff\xfe\x00", "no UTF-8"),
        (b"\x32\x06\x00\x01a\x00\x00\x00", "identifier"),
        (b"\x36\x06\x00\x01a\x00\x01\x00", "identifier"),
        (b"\x40\x01\x00", "identifier"),
        (b"\x90\x01\x00", "identifier"),
        (b"\x30\xff\xff\xff\xff\x7f", "four bytes"),
        (b"\x90\xff\xff\xff\x7f", "bytes"),
    ],
)
async def test_what_is_no_mqtt_ends_the_connection(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], version: int, raw: bytes, text: str
) -> None:
    broker = make(version)
    broker.comes(raw)
    assert broker.is_cut
    reason = await broker.link.closed
    assert isinstance(reason, ConnectionLost)
    assert "robot does not speak MQTT" in str(reason)
    assert text in str(reason)
    assert taken == []


@given(st.binary(max_size=60), st.sampled_from([V311, V5]), st.integers(1, 9))
@settings(max_examples=300)
def test_random_bytes_are_survived(raw: bytes, version: int, at_once: int) -> None:
    async def run() -> None:
        broker = Wire(version)
        broker.comes(raw, at_once)
        assert broker.is_cut == broker.link.closed.done()
        if broker.is_cut:
            assert isinstance(broker.link.closed.result(), ConnectionLost | AuthError)
        broker.link.abort(None)
        assert broker.link.closed.done()

    asyncio.run(run())


# ---- who takes what ----


async def test_who_takes_a_topic_is_asked_once_until_that_changes(
    make: Callable[..., Wire],
) -> None:
    asked: list[str] = []
    broker = make()

    def find(topic: str, published: Published) -> tuple[Route, bool]:
        asked.append(topic)
        return (), topic != "passing"

    broker.link.routes.on_topic = find
    for topic in ("a", "b", "a", "passing", "passing"):
        broker.comes(broker.publish(topic, b""))
    assert asked == ["a", "b", "passing", "passing"]
    broker.link.routes.forget(0)
    broker.comes(broker.publish("a", b""))
    assert asked[4:] == ["a"]


async def test_the_numbers_of_a_packet_belong_to_what_is_remembered(
    make: Callable[..., Wire],
) -> None:
    asked: list[list[int]] = []
    broker = make()

    def find(topic: str, published: Published) -> tuple[Route, bool]:
        asked.append(published.ids)
        return (), True

    broker.link.routes.on_topic = find
    for number in (1, 2, 1, 2):
        broker.comes(broker.publish("a", b"", properties=b"\x02\x0b%c" % number))
    assert asked == [[1], [2]]


async def test_the_time_to_live_belongs_to_what_is_remembered(make: Callable[..., Wire]) -> None:
    asked: list[int | None] = []
    got: list[float | None] = []
    broker = make()

    def find(topic: str, published: Published) -> tuple[Route, bool]:
        asked.append(published.expiry)
        return ((lambda packet: got.append(packet.ttl), topic),), True

    broker.link.routes.on_topic = find
    for seconds in (30.0, None, 29.5, 2.0, 30.0):
        broker.comes(broker.publish("a", b"", properties=frames.publish_properties(seconds, [])))
    assert asked == [30, None, 2]
    assert got == [30, None, 30, 2, 30]


class Numbered:
    """What a link asks of topics that each have a filter, and its number, to themselves."""

    def __init__(self, broker: Wire, **filters: int) -> None:
        self.numbers: list[int] = []
        self.topics: list[str] = []
        self.got: list[tuple[str, bytes, float | None]] = []
        self._broker = broker
        self._filters = {number: topic for topic, number in filters.items()}
        broker.link.routes.on_number = self._of_number
        broker.link.routes.on_topic = self._find

    def _of_number(self, number: int, topic: str) -> Known:
        self.numbers.append(number)
        return ((self._take, f"{topic}!", None),) if self._filters.get(number) == topic else ()

    def _find(self, topic: str, published: Published) -> tuple[Route, bool]:
        self.topics.append(topic)
        return ((self._take, topic),), True

    def _take(self, packet: Packet) -> None:
        self.got.append((packet.topic, packet.payload, packet.ttl))

    def comes(self, topic: str, properties: bytes) -> None:
        self._broker.comes(self._broker.publish(topic, b"of it", properties=properties))


async def test_a_topic_with_a_filter_of_its_own_is_known_by_its_number(
    make: Callable[..., Wire],
) -> None:
    asked = Numbered(make(), a=1, b=300)
    for topic, properties in (("a", b"\x02\x0b\x01"), ("b", b"\x03\x0b\xac\x02")) * 2:
        asked.comes(topic, properties)
    assert asked.numbers == [1, 300]
    assert asked.topics == []
    assert asked.got == [("a!", b"of it", None), ("b!", b"of it", None)] * 2


async def test_of_a_filter_whose_subscribers_change_it_is_asked_again_and_of_no_other(
    make: Callable[..., Wire],
) -> None:
    broker = make()
    asked = Numbered(broker, a=1, b=300)
    for number in (300, 0):
        asked.comes("a", b"\x02\x0b\x01")
        asked.comes("b", b"\x03\x0b\xac\x02")
        broker.link.routes.forget(number)
    asked.comes("b", b"\x03\x0b\xac\x02")
    assert asked.numbers == [1, 300, 300]


@pytest.mark.parametrize(
    ("topic", "properties"),
    [
        ("a", b"\x00"),
        ("a", b"\x02\x0b\x02"),  # nobody's
        ("b", b"\x02\x0b\x01"),  # of another topic
        ("a", b"\x04\x0b\x01\x0b\x02"),
        ("a", b"\x07\x0b\x01" + frames.expiry(5)[1:]),
        ("a", b"\x05\x0b\x01\x03\x00\x00"),  # a content type
        ("a", b"\x02\x01\x00"),  # a format
        ("a", b"\x03\x0b\x81\x00"),  # the number 1 in more bytes than it takes
    ],
)
async def test_what_bears_anything_else_goes_by_its_topic(
    topic: str, properties: bytes, make: Callable[..., Wire]
) -> None:
    asked = Numbered(make(), a=1)
    asked.comes(topic, properties)
    asked.comes(topic, properties)
    assert asked.topics == [topic]
    assert [name for name, _, _ in asked.got] == [topic] * 2
    asked.comes("a", b"\x02\x0b\x01")
    assert asked.got[2] == ("a!", b"of it", None)


async def test_the_length_of_long_properties_is_not_taken_for_a_number(
    make: Callable[..., Wire],
) -> None:
    asked = Numbered(make(limit=3000), a=0x1F)
    properties = b"\x1f" + wire.text("n" * 1416)
    assert wire.length(len(properties)) == b"\x8b\x0b"
    asked.comes("a", b"\x8b\x0b" + properties)
    assert asked.numbers == []
    assert asked.topics == ["a"]


async def test_what_is_known_by_a_number_is_forgotten_however_that_was_written(
    make: Callable[..., Wire],
) -> None:
    broker = make()
    asked = Numbered(broker, a=1)
    for properties in (b"\x02\x0b\x01", b"\x03\x0b\x81\x00"):
        asked.comes("a", properties)
        asked.comes("a", properties)
    assert (asked.numbers, asked.topics) == ([1], ["a"])
    broker.link.routes.forget(1)
    asked.comes("a", b"\x03\x0b\x81\x00")
    asked.comes("a", b"\x02\x0b\x01")
    assert (asked.numbers, asked.topics) == ([1, 1], ["a", "a"])


@pytest.mark.parametrize(
    "properties", [b"\x02\x0b\x81", b"\x06\x0b\xff\xff\xff\xff\x01", b"\x02\x0b"]
)
async def test_a_number_that_is_none_ends_the_connection(
    properties: bytes, make: Callable[..., Wire]
) -> None:
    broker = make()
    asked = Numbered(broker, a=1)
    body = wire.text("a") + properties
    broker.comes(b"\x30%c%b" % (len(body), body))
    assert isinstance(await broker.link.closed, ConnectionLost)
    assert asked.got == []


def lives(seconds: float) -> bytes:
    """The properties of a message with the number 1 that lives so long."""
    return b"\x07\x0b\x01" + frames.expiry(seconds)[1:]


class Asked:
    """What a link asks of topics that do not come again, as those of replies."""

    def __init__(self, broker: Wire) -> None:
        self.topics: list[str] = []
        self.got: list[tuple[str, bytes, float | None]] = []
        self._broker = broker
        broker.link.routes.on_topic = self._find
        broker.link.routes.on_siblings = lambda published: (self._take,) if published.ids else ()

    def _take(self, packet: Packet) -> None:
        self.got.append((packet.topic, packet.payload, packet.ttl))

    def _find(self, topic: str, published: Published) -> tuple[Route, bool]:
        self.topics.append(topic)
        return ((self._take, topic),), False

    def comes(self, topic: bytes, payload: bytes, properties: bytes = b"\x02\x0b\x01") -> None:
        body = wire.binary(topic) + properties + payload
        self._broker.comes(b"\x30%c%b" % (len(body), body))


async def test_topics_beside_one_that_is_known_are_not_asked_for(make: Callable[..., Wire]) -> None:
    asked = Asked(make())
    for topic in (b"in/a", b"in/b", "in/é".encode(), b"in/", b"of/a", b"in/c", b"in", b"in"):
        asked.comes(topic, b"of " + topic)
    assert asked.topics == ["in/a", "of/a", "in"]
    assert [topic for topic, _, _ in asked.got[:4]] == ["in/a", "in/b", "in/é", "in/"]
    assert all(payload.decode() == f"of {topic}" for topic, payload, _ in asked.got)


async def test_they_are_asked_for_with_other_properties_and_when_something_has_changed(
    make: Callable[..., Wire],
) -> None:
    broker = make()
    asked = Asked(broker)
    for n, properties in enumerate([b"\x02\x0b\x01", lives(5), b"\x00", b"\x00", lives(5)]):
        asked.comes(b"in/%d" % n, b"", properties)
    assert asked.topics == ["in/0", "in/1", "in/2", "in/3"], "without a number nobody knows"
    assert [ttl for _, _, ttl in asked.got] == [None, 5, None, None, 5]
    broker.link.routes.forget(0)
    asked.comes(b"in/9", b"")
    assert asked.topics[4:] == ["in/9"]


async def test_a_topic_beside_one_that_is_known_may_be_no_text_or_cut_off(
    make: Callable[..., Wire],
) -> None:
    for wrong in (b"\x30\x0a\x00\x04in/\xff\x02\x0b\x01x", b"\x30\x07\x00\x04in/b\x02"):
        broker = make()
        asked = Asked(broker)
        asked.comes(b"in/a", b"")
        broker.comes(wrong)
        assert len(asked.got) == 1
        error = broker.link.closed.result()
        assert isinstance(error, ConnectionLost)
        assert "does not speak MQTT" in str(error)


async def test_the_time_to_live_of_a_sibling_is_its_own(make: Callable[..., Wire]) -> None:
    asked = Asked(make())
    for n, seconds in enumerate((5.0, 6.0, 5.0)):
        asked.comes(b"in/%d" % n, b"", lives(seconds))
    assert [ttl for _, _, ttl in asked.got] == [5, 6, 5]


async def test_what_the_broker_has_stored_goes_where_it_was_asked_for(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]]
) -> None:
    broker = make()
    broker.comes(broker.publish("a", b"new"))
    broker.comes(broker.publish("a", b"stored", flags=frames.RETAIN))
    assert taken == [("name", b"new")]


async def test_a_header_and_a_time_to_live_come_with_the_packet(make: Callable[..., Wire]) -> None:
    got: list[Packet] = []
    broker = make()
    broker.link.routes.on_topic = lambda topic, published: (((got.append, topic),), True)
    header = Header(timestamp=5, origin="ab", seq=7, hops=("x", "y"))
    properties = frames.publish_properties(3, [("of", "somebody"), *write_pairs(header)])
    broker.comes(broker.publish("a", b"1", properties=properties))
    broker.comes(
        broker.publish("a", b"1", properties=frames.publish_properties(None, [("x", "y")]))
    )
    assert [(packet.header, packet.ttl) for packet in got] == [(header, 3), (None, None)]


# ---- QoS 1 and 2 ----


@BOTH
async def test_a_message_at_qos_2_is_taken_once(
    make: Callable[..., Wire], taken: list[tuple[str, bytes]], version: int
) -> None:
    broker = make(version)
    properties = frames.NO_PROPERTIES if version == V5 else b""
    before, behind = frames.publish_parts(wire.text("a"), b"x", 4, properties)
    message = before + b"\x00\x09" + behind
    duplicate = bytes((message[0] | 8,)) + message[1:]
    broker.comes(message + duplicate)
    assert taken == [("name", b"x")]
    assert broker.packets() == [frames.acknowledge(frames.PUBREC, 9)] * 2
    broker.comes(frames.acknowledge(frames.PUBREL, 9))
    assert broker.packets() == [frames.acknowledge(frames.PUBCOMP, 9)]
    broker.comes(message)
    assert len(taken) == 2, "after its release the number is that of another message"


@pytest.mark.parametrize(("qos", "kind"), [(1, frames.PUBACK), (2, frames.PUBREC)])
async def test_what_nobody_takes_is_acknowledged_by_who_keeps_it(
    make: Callable[..., Wire], qos: int, kind: int
) -> None:
    broker = make()
    held: list[Unclaimed] = []

    def hold(message: Unclaimed) -> bool:
        held.append(message)
        return message.payload == b"kept"

    broker.link.routes.on_topic = lambda topic, published: ((), True)
    broker.link.on_unclaimed = hold
    for packet_id, payload in ((1, b"of nobody"), (2, b"kept")):
        before, behind = frames.publish_parts(
            wire.text("a"), payload, qos << frames.QOS_SHIFT, frames.NO_PROPERTIES
        )
        broker.comes(before + wire.u16.pack(packet_id) + behind)
    assert broker.packets() == [frames.acknowledge(kind, 1)]
    kept = held[1]
    assert (kept.topic, kept.payload, kept.qos, kept.packet_id) == ("a", b"kept", qos, 2)
    broker.link.acknowledge(kept.qos, kept.packet_id)
    assert broker.packets() == [frames.acknowledge(kind, 2)]
    assert broker.link.received == ({1, 2} if qos == 2 else set())


# ---- questions ----


async def test_answers_are_told_by_their_numbers(make: Callable[..., Wire]) -> None:
    broker = make(V311)
    codes: list[tuple[str, int]] = []
    broker.link.subscribe("a", 2, 0, lambda code: codes.append(("a", code)))
    broker.link.subscribe("b/#", 1, 0, lambda code: codes.append(("b/#", code)))
    assert broker.packets() == [
        control.subscribe(V311, 1, "a", 2, 0),
        control.subscribe(V311, 2, "b/#", 1, 0),
    ]
    broker.comes(b"\x90\x03\x00\x02\x80" + b"\x90\x03\x00\x01\x02" + b"\x90\x03\x00\x77\x02")
    assert codes == [("b/#", 0x80), ("a", 2)]


async def test_a_number_is_used_again_only_when_it_is_free(make: Callable[..., Wire]) -> None:
    link = make().link
    used = {link.take_id() for _ in range(control.MAX_IDS)}
    assert used == set(range(1, control.MAX_IDS + 1))
    with pytest.raises(ConnectionLost, match="unanswered"):
        link.take_id()
    link.give_id_back(77)
    assert link.take_id() == 77


async def test_pings_are_answered_in_their_order_and_the_end_ends_them(
    make: Callable[..., Wire],
) -> None:
    broker = make()
    first, second = broker.link.ping(), broker.link.ping()
    broker.link.probe()
    broker.comes(b"\xd0\x00")
    assert (first.done(), second.done()) == (True, False)
    broker.link.abort(ConnectionLost("away"))
    with pytest.raises(ConnectionLost, match="robot was lost"):
        await second


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (b"\xe0\x02\x8b\x00", ConnectionLost, "the server is shutting down"),
        (b"\xe0\x01\x87", AuthError, "not authorized"),
        (b"\xe0\x01\x8e", TakenOver, "another client came with the same client id"),
        (b"\xe0\x00", ConnectionLost, "reason code 0x00"),
        (b"\xe0\x08\x97\x06\x1f\x00\x03why", ConnectionLost, r"a quota was exceeded \(why\)"),
    ],
)
async def test_the_broker_may_say_why_it_leaves(
    make: Callable[..., Wire], raw: bytes, kind: type[Exception], text: str
) -> None:
    broker = make()
    broker.comes(raw)
    with pytest.raises(kind, match=text):
        raise (await broker.link.closed) or AssertionError("no reason")


async def test_we_take_leave_so_that_the_will_is_not_published(make: Callable[..., Wire]) -> None:
    broker = make()
    greeting = asyncio.ensure_future(broker.link.greet(b"\x10\x00"))
    await asyncio.sleep(0)
    broker.comes(b"\x20\x03\x00\x00\x00")
    assert (await greeting).code == 0
    broker.packets()
    broker.link.abort(None)
    assert broker.packets() == [control.FAREWELL]


async def test_no_leave_is_taken_of_a_broker_that_is_given_up(make: Callable[..., Wire]) -> None:
    broker = make()
    broker.link.abort(ConnectionLost("no sign of life"))
    assert broker.packets() == []


async def test_the_broker_wants_to_hear_from_us_too(make: Callable[..., Wire]) -> None:
    broker = make()
    began = broker.link.heard
    broker.comes(broker.publish("a", b""))
    assert broker.link.heard == began, "nothing was written"
    broker.link.probe()
    assert broker.link.heard > began


async def test_what_was_made_for_mqtt_5_is_written_for_3_1_1(make: Callable[..., Wire]) -> None:
    broker = make(V311)
    broker.link.downgrades = True
    frame = frames.publish(wire.text("a"), b"x", 0, frames.publish_properties(3, []))
    broker.link.write([frame, control.PINGREQ], ["a", None])
    assert broker.packets() == [broker.publish("a", b"x"), control.PINGREQ]
