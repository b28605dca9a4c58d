"""One connection to an MQTT broker, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
import socket
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
from commlib.transports._mqtt_acks import QUICKACK
from commlib.transports._mqtt_control import V5, V311
from commlib.transports._mqtt_headers import write_pairs
from commlib.transports._mqtt_link import LONGEST_HEAD, Unclaimed
from commlib.transports._mqtt_routes import Route
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


# ---- what comes with a message ----


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


@pytest.mark.skipif(not QUICKACK, reason="the system acknowledges when it wants to")
async def test_what_comes_is_acknowledged_at_once_where_little_is_written(
    make: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make()
    asked: list[tuple[int, ...]] = []
    opened = broker.get_extra_info("socket")
    monkeypatch.setattr(opened, "setsockopt", lambda *option: asked.append(option))
    monkeypatch.setattr(broker.link, "_socket", opened)
    broker.comes(broker.publish("a", b"x"))
    assert asked == [(socket.IPPROTO_TCP, QUICKACK, 1)]


async def test_what_is_written_counts_for_that_until_it_is_answered(
    make: Callable[..., Wire],
) -> None:
    broker = make()
    acks = broker.link._acks
    broker.link.write([control.PINGREQ], [None])
    assert (acks.writes, acks._writes_begun) == (1, 0)
    broker.comes(b"\xd0\x00")
    assert acks._writes_begun == 1


async def test_what_the_socket_has_no_room_for_is_not_sent_yet(
    make: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make()
    assert not broker.link._is_unsent()
    monkeypatch.setattr(broker, "get_write_buffer_size", lambda: 1)
    assert broker.link._is_unsent()
    monkeypatch.undo()
    broker.link._rest = [b"x"]
    assert broker.link._is_unsent()


# ---- what a thread has read ----


@BOTH
async def test_a_reply_is_told_if_it_is_all_that_a_thread_has_read(version: int) -> None:
    broker = Wire(version, 1000)
    broker.link.routes.on_topic = lambda topic, published: (((print, topic),), False)
    broker.link.routes.on_siblings = lambda published: (print,)

    def sole(data: bytes) -> bytes | None:
        found = broker.link.sole_reply(data, b"rpc/2")
        return None if found is None else found[0]

    data = broker.publish("rpc/2", b"x" * 200)
    assert sole(data) is None  # none has come before: the loop looks at it
    broker.comes(broker.publish("rpc/1", b""))
    assert sole(data) == b"x" * 200
    for end in range(len(data)):
        assert sole(data[:end]) is None
    assert sole(data + data) is None
    assert sole(broker.publish("rpc/3", b"x")) is None
    assert sole(b"\xff" * 10) is None
