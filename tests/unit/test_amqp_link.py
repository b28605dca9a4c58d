"""One connection to an AMQP broker, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, spec

from amqp_wire import (
    FRAME,
    START,
    Wire,
    content_frames,
    delivered,
    delivery_frames,
    returned,
    said,
)
from commlib.exceptions import AuthError, CommlibError, ConnectError, ConnectionLost
from commlib.transports import _amqp_link as module
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_bytes import Malformed, read_short
from commlib.transports._amqp_link import SLACK, AmqpLink
from commlib.transports._amqp_methods import CALLS, PUBLISHING, TOPICS
from commlib.transports._amqp_params import ConnectionParameters

SERVICE = ConnectionParameters().first_service
ALL = (PUBLISHING, CALLS, TOPICS, SERVICE)
ROOM = FRAME - methods.AROUND


class Taker:
    """A link whose channels are open, and what each was handed."""

    def __init__(self, limit: int = 1000) -> None:
        self.wire = Wire(limit)
        self.link = self.wire.link
        self.payloads: list[tuple[int, bytes]] = []
        self.arrivals: list[tuple[Any, ...]] = []
        self.returns: list[tuple[str, bytes]] = []
        self.wire.open(*ALL)
        for number in ALL:
            self._keep(number)

    def _keep(self, number: int) -> None:
        def take(*arrival: Any) -> None:
            self.payloads.append((number, arrival[-1]))
            self.arrivals.append(arrival)

        channel = self.link.channels[number]
        channel.on_arrival = take
        channel.on_return = lambda key, about: self.returns.append((key, about))


# ---- messages out of the stream ----

PAYLOADS = [b"", b"x", b"y" * 130, b"z" * 700, b"", b"w" * ROOM, b"v" * (2 * ROOM + 1)]


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 8, 9, 100, FRAME, 1_000_000])
async def test_messages_are_found_however_they_are_cut(at_once: int) -> None:
    taker = Taker(limit=100_000)
    data = b"".join(delivered(TOPICS, payload) for payload in PAYLOADS)
    taker.wire.comes(methods.BEAT + data + methods.BEAT + data, at_once)
    assert taker.payloads == [(TOPICS, payload) for payload in PAYLOADS * 2]
    assert not taker.wire.is_cut


@pytest.mark.parametrize("at_once", [1, 1_000_000])
async def test_a_message_comes_with_all_that_belongs_to_it(at_once: int) -> None:
    taker = Taker(limit=100_000)
    about = BasicProperties(correlation_id="c", headers={"seq": 1})
    raw = b"".join(about.encode())
    for payload in (b"", b"x", b"y" * 3 * ROOM):
        data = delivered(
            SERVICE,
            *(payload,),
            consumer="s17",
            tag=2**40 + 5,
            redelivered=True,
            exchange="exchange",
            key="a.ü",
            about=about,
        )
        taker.wire.comes(data, at_once)
        consumer, tag, again, where, properties, body = taker.arrivals.pop()
        assert (consumer, tag, again) == (b"s17", 2**40 + 5, True)
        exchange, end = read_short(where, 0)
        assert (exchange, read_short(where, end)) == ("exchange", ("a.ü", len(where)))
        assert (properties, body) == (raw, payload)


async def test_names_of_every_length_are_taken() -> None:
    taker = Taker()
    for length in (0, 1, 200, 255):
        name = "n" * length
        taker.wire.comes(delivered(TOPICS, b"x", consumer=name, exchange=name, key=name))
        consumer, _, _, where, _, _ = taker.arrivals.pop()
        assert (consumer, where) == (name.encode(), 2 * (bytes((length,)) + name.encode()))


async def test_a_large_message_comes_whole_and_the_next_one_as_well() -> None:
    taker = Taker(limit=3_000_000)
    payload = bytes(range(256)) * 10_000
    taker.wire.comes(delivered(TOPICS, payload) + delivered(TOPICS, b"next"))
    assert taker.payloads == [(TOPICS, payload), (TOPICS, b"next")]


LONG_ONES = [b"a" * 200_000, b"", b"b" * (20 * ROOM), b"c" * 9, b"d" * (20 * ROOM + 1)]


@pytest.mark.parametrize("at_once", [7, 9, 100, ROOM, FRAME, 70_000, 1_000_000])
async def test_long_messages_are_found_however_they_are_cut(at_once: int) -> None:
    taker = Taker(limit=300_000)
    data = b"".join(delivered(TOPICS, payload) for payload in LONG_ONES)
    taker.wire.comes(data + methods.BEAT + delivered(TOPICS, b"next"), at_once)
    assert taker.payloads == [(TOPICS, payload) for payload in [*LONG_ONES, b"next"]]
    assert not taker.wire.is_cut


@pytest.mark.parametrize("at_once", [9, 1000, 1_000_000])
async def test_long_messages_of_several_channels_may_be_mixed_frame_by_frame(at_once: int) -> None:
    taker = Taker(limit=300_000)
    payloads = {CALLS: b"a" * 200_000, TOPICS: b"b" * 200_000, SERVICE: b"c" * 10}
    lines = [delivery_frames(number, payload) for number, payload in payloads.items()]
    mixed = [frame for frames in zip_longest(*lines, fillvalue=b"") for frame in frames]
    taker.wire.comes(b"".join(mixed), at_once)
    assert sorted(taker.payloads) == sorted(payloads.items())


@pytest.mark.parametrize("at_once", [9, 1000, 1_000_000])
@pytest.mark.parametrize("part", [0, 1, 30])
async def test_a_frame_of_a_long_message_without_its_end_ends_the_connection(
    part: int, at_once: int
) -> None:
    taker = Taker(limit=300_000)
    frames = delivery_frames(TOPICS, b"a" * 200_000)
    frames[2 + part] = frames[2 + part][:-1] + b"\0"
    taker.wire.comes(b"".join(frames), at_once)
    assert taker.wire.is_cut
    assert taker.payloads == []


@pytest.mark.parametrize("at_once", [9, 1000, 1_000_000])
async def test_a_long_message_with_more_than_was_said_ends_the_connection(at_once: int) -> None:
    taker = Taker(limit=300_000)
    frames = delivery_frames(TOPICS, b"a" * 200_000)
    taker.wire.comes(b"".join([*frames[:-1], frames[-2], frames[-1]]), at_once)
    assert taker.wire.is_cut
    assert taker.payloads == []


sizes = st.lists(st.sampled_from([0, 1, 5, ROOM, ROOM + 1, 2 * ROOM + 3]), max_size=3)
orders = st.lists(st.sampled_from([CALLS, TOPICS, SERVICE]), max_size=25)


@given(st.fixed_dictionaries(dict.fromkeys((CALLS, TOPICS, SERVICE), sizes)), orders, st.data())
@settings(max_examples=60, deadline=None)
def test_messages_of_several_channels_may_be_mixed_frame_by_frame(
    sent: dict[int, list[int]], order: list[int], data: st.DataObject
) -> None:
    """AMQP 0-9-1, section 4.2.6: the frames of other channels may come between."""
    at_once = data.draw(st.sampled_from([7, 50, FRAME, 1_000_000]))
    payloads = {number: [bytes((number,)) * size for size in sent[number]] for number in sent}
    lines = {
        number: [frame for payload in each for frame in delivery_frames(number, payload)]
        for number, each in payloads.items()
    }
    frames = [lines[number].pop(0) for number in order if lines[number]]
    frames += [frame for line in lines.values() for frame in line]

    async def run() -> None:
        taker = Taker(limit=100_000)
        taker.wire.comes(b"".join(frames), at_once)
        assert not taker.wire.is_cut
        for number, expected in payloads.items():
            assert [body for channel, body in taker.payloads if channel == number] == expected

    asyncio.run(run())


async def test_each_body_goes_to_the_channel_that_it_came_on() -> None:
    taker = Taker()
    one, two = delivery_frames(TOPICS, b"one"), delivery_frames(CALLS, b"two")
    taker.wire.comes(b"".join([one[0], two[0], one[1], one[2], two[1], two[2]]))
    assert taker.payloads == [(TOPICS, b"one"), (CALLS, b"two")]


async def test_other_frames_may_come_between_those_of_a_body() -> None:
    taker = Taker(limit=100_000)
    asked = taker.link.channels[SERVICE].ask(methods.qos(SERVICE, 1))
    head, header, *bodies = delivery_frames(TOPICS, b"y" * 3 * ROOM)
    other = delivered(CALLS, b"other")
    answer = said(SERVICE, spec.Basic.QosOk())
    taker.wire.comes(b"".join([head, header, other, bodies[0], methods.BEAT, answer]))
    taker.wire.comes(b"".join([bodies[1], other, bodies[2]]))
    assert [number for number, _ in taker.payloads] == [CALLS, CALLS, TOPICS]
    assert taker.payloads[-1][1] == b"y" * 3 * ROOM
    assert asked.done()


async def test_the_parts_of_a_body_may_have_any_size() -> None:
    taker = Taker()
    head, header, body = delivery_frames(TOPICS, b"abcdef")
    parts = [b"a", b"", b"bcd", b"ef"]
    bodies = [b"\x03\x00%c%b%b\xce" % (TOPICS, len(p).to_bytes(4), p) for p in parts]
    taker.wire.comes(head + header + b"".join(bodies) + head + header + body)
    assert taker.payloads == [(TOPICS, b"abcdef")] * 2


async def test_what_comes_on_a_channel_that_there_is_not_is_passed_over() -> None:
    taker = Taker()
    for payload in (b"", b"x", b"y" * 3 * ROOM):
        taker.wire.comes(delivered(77, payload) + returned(77, "k", payload, BasicProperties()))
    taker.wire.says(77, spec.Basic.Ack(1), spec.Channel.OpenOk())
    taker.wire.comes(delivered(TOPICS, b"x"))
    assert taker.payloads == [(TOPICS, b"x")]
    assert not taker.wire.is_cut


@pytest.mark.parametrize("at_once", [1, 1_000_000])
async def test_what_nobody_has_taken_comes_back_with_its_name(at_once: int) -> None:
    taker = Taker()
    about = BasicProperties(correlation_id="c7")
    for payload in (b"", b"x", b"y" * 3 * ROOM):
        taker.wire.comes(returned(CALLS, "absent.ü", payload, about), at_once)
        assert taker.returns.pop() == ("absent.ü", b"".join(about.encode()))
    assert taker.payloads == []


# ---- over the limit ----


@pytest.mark.parametrize("at_once", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize("size", [SLACK + 1001, SLACK + ROOM, 900_000])
async def test_of_a_message_over_the_limit_only_enough_comes_to_be_refused(
    at_once: int, size: int
) -> None:
    taker = Taker(limit=1000)
    taker.wire.comes(delivered(TOPICS, bytes(size)) + delivered(TOPICS, b"next"), at_once)
    (_, first), second = taker.payloads
    assert 1000 < len(first) <= SLACK + 1001
    assert second == (TOPICS, b"next")
    assert not taker.wire.is_cut


@pytest.mark.parametrize("at_once", [1000, 1_000_000])
async def test_by_how_much_it_is_over_the_limit_can_be_told_if_it_is_not_much(
    at_once: int,
) -> None:
    taker = Taker(limit=1000)
    for size in (1000, 1001, SLACK + 1000):
        taker.wire.comes(delivered(TOPICS, bytes(size)), at_once)
        assert len(taker.payloads.pop()[1]) == size


async def test_what_is_thrown_away_is_not_kept() -> None:
    taker = Taker(limit=1000)
    head, header, *bodies = delivery_frames(TOPICS, bytes(2_000_000))
    taker.wire.comes(b"".join([head, header, *bodies[:-1]]))
    content = taker.link._contents[TOPICS]
    assert sum(map(len, content.parts)) <= SLACK + 1000 + FRAME


# ---- what makes no sense ----

GARBAGE: dict[str, tuple[bytes, str]] = {
    "a frame without its end": (b"\x08\x00\x00\x00\x00\x00\x00\x00", "without its end"),
    "a method without its end": (
        said(TOPICS, spec.Basic.QosOk())[:-1] + b"\x00",
        "without its end",
    ),
    "a frame of 4 GB": (b"\x01\x00\x01\xff\xff\xff\xff\x00", "a frame of 4294967295 bytes"),
    "a frame a little too long": (
        b"\x03\x00\x01" + (module.LONGEST_FRAME + 1).to_bytes(4) + b"\x00",
        "a frame of 131073 bytes",
    ),
    "a frame of a type that there is not": (
        b"\x07\x00\x00\x00\x00\x00\x00\xce",
        "the unknown type 7",
    ),
    "an old broker": (b"AMQP\x00\x00\x08\x00", r"another version, 0\.8\.0"),
    "a broker of AMQP 1.0": (b"AMQP\x00\x01\x00\x00", r"another version, 1\.0\.0"),
    "one that wants SASL": (b"AMQP\x03\x01\x00\x00", "another version"),
    "a web server": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame of"),
    "a Redis server": (b"-ERR unknown command 'AMQP'\r\n", "a frame of"),
    "a header without a message": (
        content_frames(TOPICS, spec.Basic.Ack(1), b"")[1],
        "a header without a message",
    ),
    "a body without a message": (b"\x03\x00\x03\x00\x00\x00\x01x\xce", "a body without"),
    "a body before its header": (
        delivery_frames(TOPICS, b"x")[0] + delivery_frames(TOPICS, b"x")[2],
        "a body without",
    ),
    "more of a body than was announced": (
        b"".join(delivery_frames(TOPICS, b"x")[:2]) + delivery_frames(TOPICS, b"xy")[2],
        "a body without",
    ),
    "a header that is cut off": (
        delivery_frames(TOPICS, b"x")[0] + b"\x02\x00\x03\x00\x00\x00\x04\x00\x3c\x00\x00\xce",
        "",
    ),
    "a message that is for nobody": (
        b"\x01\x00\x03\x00\x00\x00\x05\x00\x3c\x00\x3c\x09\xce"
        + content_frames(TOPICS, spec.Basic.Ack(1), b"")[1],
        "",
    ),
    "a confirmation that is cut off": (
        b"\x01\x00\x03\x00\x00\x00\x06\x00\x3c\x00\x50\x00\x01\xce",
        "",
    ),
    "an end of a channel that is cut off": (
        b"\x01\x00\x03\x00\x00\x00\x05\x00\x14\x00\x28\x01\xce",
        "a goodbye that is cut off",
    ),
    "the end of a consumer that is cut off": (
        b"\x01\x00\x03\x00\x00\x00\x06\x00\x3c\x00\x1e\x09a\xce",
        "a string that is cut off",
    ),
    "a goodbye that is cut off": (
        b"\x01\x00\x00\x00\x00\x00\x06\x00\x0a\x00\x32\x01\x40\xce",
        "a goodbye that is cut off",
    ),
    "blocked, and the reason is cut off": (
        b"\x01\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x3c\x07\xce",
        "a string that is cut off",
    ),
}


@pytest.mark.parametrize("at_once", [1, 1_000_000])
@pytest.mark.parametrize("name", GARBAGE)
async def test_what_is_no_amqp_ends_the_connection(name: str, at_once: int) -> None:
    raw, text = GARBAGE[name]
    taker = Taker()
    taker.wire.comes(delivered(TOPICS, b"before") + raw + delivered(TOPICS, b"behind"), at_once)
    assert taker.wire.is_cut
    reason = await taker.link.closed
    assert isinstance(reason, ConnectionLost)
    assert "robot does not speak AMQP" in str(reason)
    assert text.replace("\\", "") in str(reason)
    assert taker.payloads == [(TOPICS, b"before")]


async def test_a_message_all_of_which_is_here_is_looked_at_as_well() -> None:
    for at in (1, 2):  # which of its frames has no end
        frames = delivery_frames(TOPICS, b"x")
        frames[at] = frames[at][:-1] + b"\x00"
        taker = Taker()
        taker.wire.comes(b"".join(frames))
        assert "without its end" in str(await taker.link.closed)
        assert taker.payloads == []


@given(st.binary(max_size=60), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_survived(raw: bytes, at_once: int) -> None:
    survives(raw, at_once)


@given(st.data(), st.sampled_from([1, 5, 1_000_000]))
@settings(max_examples=150, deadline=None)
def test_a_conversation_with_some_bytes_changed_is_survived(
    data: st.DataObject, at_once: int
) -> None:
    about = BasicProperties(headers={"origin": "ab", "seq": 1}, timestamp=5, content_type="a")
    raw = bytearray(
        b"".join(
            [
                delivered(TOPICS, b"x" * 20, about=about),
                said(SERVICE, spec.Basic.QosOk()),
                returned(CALLS, "k", b"y" * 10, about),
                said(0, spec.Connection.Blocked("low on memory")),
                said(0, spec.Connection.Unblocked()),
                said(CALLS, spec.Channel.Close(404, "NOT_FOUND", 50, 10)),
                said(CALLS, spec.Channel.OpenOk()),
                delivered(TOPICS, b"", about=about),
                said(PUBLISHING, spec.Basic.Ack(3, True)),
                said(SERVICE, spec.Basic.Cancel("s1")),
                said(SERVICE, spec.Channel.Flow(False)),
            ]
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(raw), at_once)


def survives(raw: bytes, at_once: int) -> None:
    async def run() -> None:
        taker = Taker()
        asked = taker.link.channels[SERVICE].ask(methods.qos(SERVICE, 1))
        taker.wire.comes(raw, at_once)
        assert taker.wire.is_cut == taker.link.closed.done()
        if taker.wire.is_cut:
            assert isinstance(taker.link.closed.result(), ConnectionLost | AuthError)
            await asyncio.wait([asked])
        taker.link.abort(None)
        assert taker.link.closed.done()

    asyncio.run(run())


# ---- the beginning ----


async def begun(wire: Wire, **options: Any) -> asyncio.Task[None]:
    """We have said that we speak AMQP."""
    greeting = asyncio.ensure_future(wire.link.greet(ConnectionParameters(**options)))
    await asyncio.sleep(0)
    assert wire.written == [methods.PROTOCOL]
    wire.written.clear()
    return greeting


async def answered(wire: Wire, method: Any) -> list[Any]:
    """The broker says this; what we say to it."""
    wire.says(0, method)
    await asyncio.sleep(0)
    return [method for _, method in wire.asked()]


async def test_the_greeting_says_who_we_are_and_keeps_the_lower_bounds() -> None:
    wire = Wire()
    greeting = await begun(wire, username="robot", password="s3cret", vhost="v", channel_max=50)
    (start_ok,) = await answered(wire, START)
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", b"\0robot\0s3cret")
    assert start_ok.client_properties["capabilities"]["authentication_failure_close"]
    tune_ok, opened = await answered(wire, spec.Connection.Tune(2047, 8192, 7))
    assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == (50, 8192, 7)
    assert opened.virtual_host == "v"
    assert not greeting.done()
    wire.says(0, spec.Connection.OpenOk())
    await greeting
    assert wire.link.keepalive == 3.5


@pytest.mark.parametrize(
    ("asked", "options", "expected"),
    [
        ((0, 0, 0), {}, (128, 131_072, 60)),
        ((10, 4096, 600), {}, (10, 4096, 60)),
        ((2047, 131_072, 60), {"heartbeat_timeout": 1.2}, (128, 131_072, 2)),
        ((2047, 1_000_000, 60), {"keepalive": 2.5}, (128, 131_072, 6)),
        ((2047, 131_072, 1), {}, (128, 131_072, 1)),
        ((2047, 131_072, 60), {"heartbeat_timeout": 10**9, "keepalive": 10**9}, (128, 131_072, 60)),
    ],
)
async def test_of_two_bounds_the_lower_one_holds_and_0_is_none(
    asked: tuple[int, ...], options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    wire = Wire()
    greeting = await begun(wire, **options)
    await answered(wire, START)
    tune_ok, _ = await answered(wire, spec.Connection.Tune(*asked))
    assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == expected
    wire.says(0, spec.Connection.OpenOk())
    await greeting
    assert wire.link.keepalive is not None
    assert wire.link.keepalive <= expected[2] / 2


@pytest.mark.parametrize(
    ("options", "least"), [({}, 7), ({"session_expiry": 60, "client_id": "robot"}, 8)]
)
async def test_a_broker_that_allows_only_as_many_channels_as_are_needed_is_enough(
    options: dict[str, Any], least: int
) -> None:
    wire = Wire()
    greeting = await begun(wire, **options)
    await answered(wire, START)
    await answered(wire, spec.Connection.Tune(least, 0, 0))
    wire.says(0, spec.Connection.OpenOk())
    await greeting
    wire = Wire()
    greeting = await begun(wire, **options)
    await answered(wire, START)
    wire.says(0, spec.Connection.Tune(least - 1, 0, 0))
    with pytest.raises(ConnectError, match=f"allows {least - 1} channels .* a node needs {least}"):
        await greeting


async def test_a_way_in_that_the_broker_does_not_know_is_refused_before_anything_is_told() -> None:
    wire = Wire()
    greeting = await begun(wire, mechanism="EXTERNAL", password="s3cret")
    assert await answered(wire, START) == []
    with pytest.raises(AuthError, match=r"robot lets nobody in by EXTERNAL, it knows .* PLAIN"):
        await greeting


@pytest.mark.parametrize(
    ("after", "code", "text", "kind"),
    [
        (1, 403, "ACCESS_REFUSED - Login was refused", AuthError),
        (2, 530, "NOT_ALLOWED - vhost v not found", AuthError),
        (2, 320, "CONNECTION_FORCED - broker is shutting down", ConnectionLost),
        (0, 541, "INTERNAL_ERROR", ConnectionLost),
    ],
)
async def test_the_broker_may_say_no_and_why(
    after: int, code: int, text: str, kind: type[CommlibError]
) -> None:
    wire = Wire()
    greeting = await begun(wire)
    for method in [START, spec.Connection.Tune(0, 0, 0)][:after]:
        await answered(wire, method)
    wire.says(0, spec.Connection.Close(code, text, 10, 40))
    assert wire.names() == ["Connection.CloseOk"]
    with pytest.raises(kind, match=f"robot: the broker says: {text}") as caught:
        await greeting
    assert type(caught.value) is kind
    assert wire.is_cut


@pytest.mark.parametrize("method", [spec.Connection.OpenOk(), spec.Connection.Secure("x")])
async def test_something_else_than_was_expected_makes_no_sense(method: Any) -> None:
    wire = Wire()
    greeting = await begun(wire)
    await answered(wire, START)
    wire.says(0, method)
    with pytest.raises(Malformed, match="where 000a001e was expected"):
        await greeting


async def test_who_hangs_up_at_once_ends_the_greeting() -> None:
    wire = Wire()
    greeting = await begun(wire)
    wire.link.connection_lost(None)
    with pytest.raises(ConnectionLost, match="robot was lost"):
        await greeting


async def test_methods_that_come_before_the_greeting_is_looked_at_are_not_lost() -> None:
    """A broker may say two things in one piece: what it says does not depend on us."""
    wire = Wire()
    greeting = await begun(wire)
    await answered(wire, START)
    wire.says(0, spec.Connection.Tune(0, 0, 0), spec.Connection.Close(320, "going", 0, 0))
    with pytest.raises(ConnectionLost):
        await greeting


# ---- the end ----


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (320, "CONNECTION_FORCED - Closed via management plugin", ConnectionLost),
        (403, "ACCESS_REFUSED - user is gone", AuthError),
        (530, "NOT_ALLOWED - vhost is gone", AuthError),
        (501, "FRAME_ERROR - é", ConnectionLost),
        (320, "", ConnectionLost),
    ],
)
async def test_the_broker_may_say_why_it_leaves(
    code: int, text: str, kind: type[Exception]
) -> None:
    taker = Taker()
    asked = taker.link.channels[SERVICE].ask(methods.qos(SERVICE, 1))
    taker.wire.written.clear()
    taker.wire.says(0, spec.Connection.Close(code, text, 0, 0))
    assert taker.wire.names() == ["Connection.CloseOk"]
    assert taker.wire.is_cut
    reason = await taker.link.closed
    assert type(reason) is kind
    assert str(reason) == f"robot: the broker says: {text or 'reply code 320'}"
    with pytest.raises(ConnectionLost, match="robot was lost: robot: the broker says") as caught:
        await asked
    assert caught.value.__cause__ is reason


async def opened(limit: int = 1000) -> Wire:
    """A link that was let in."""
    wire = Wire(limit)
    greeting = await begun(wire)
    for method in [START, spec.Connection.Tune(0, 0, 0), spec.Connection.OpenOk()]:
        await answered(wire, method)
    await greeting
    return wire


@pytest.mark.parametrize("at_once", [1, 100])
async def test_we_take_leave_and_wait_for_the_answer(at_once: int) -> None:
    wire = await opened()
    wire.link.abort(None)
    (frame,) = wire.frames()
    assert (frame.method.NAME, frame.method.reply_code) == ("Connection.Close", 200)
    assert not wire.is_cut
    wire.comes(delivered(TOPICS, b"late"), at_once)
    wire.says(0, spec.Connection.CloseOk())
    await asyncio.wait_for(wire.link.gone, 5)
    assert wire.is_cut
    assert await wire.link.closed is None


async def test_a_broker_that_does_not_answer_is_left_all_the_same() -> None:
    wire = await opened()
    wire.link.abort(None)
    await asyncio.wait_for(wire.link.gone, 5)
    assert wire.is_cut


@pytest.mark.parametrize("is_heard", [True, False])
async def test_no_leave_is_taken_of_a_broker_that_is_given_up(is_heard: bool) -> None:
    wire = await opened()
    wire.link.is_heard = is_heard
    wire.link.abort(ConnectionLost("no sign of life") if is_heard else None)
    assert wire.frames() == []
    assert wire.is_cut


async def test_nothing_is_handed_over_after_the_end() -> None:
    taker = Taker()
    taker.link.abort(ConnectionLost("away"))
    taker.wire.is_cut = False  # the socket may have had more already
    taker.wire.comes(delivered(TOPICS, b"late"))
    assert taker.payloads == []


# ---- signs of life ----


async def test_the_broker_wants_to_hear_from_us_too() -> None:
    taker = Taker()
    taker.link._heard = taker.link._wrote = 0.0
    taker.wire.comes(methods.BEAT)
    assert taker.link.heard == 0.0, "nothing was written"
    taker.link.write([methods.BEAT], [])
    assert taker.link.heard > 0.0


async def test_a_probe_is_a_question() -> None:
    taker = Taker()
    taker.link._heard = 0.0
    taker.link.probe()
    assert taker.wire.names() == ["Basic.Qos"]
    assert taker.link.heard == 0.0
    taker.wire.says(PUBLISHING, spec.Basic.QosOk())
    assert taker.link.heard > 0.0


async def test_before_there_is_a_channel_a_probe_is_a_heartbeat() -> None:
    wire = Wire()
    wire.link.probe()
    assert wire.written == [methods.BEAT]


# ---- blocked ----


async def test_while_the_broker_blocks_us_there_is_no_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taker = Taker()
    room: list[bool] = []
    taker.link.on_room = room.append
    told: list[tuple[bool, bool]] = []
    taker.link.on_blocked = lambda is_blocked: told.append((is_blocked, room[-1]))
    taker.wire.says(0, spec.Connection.Blocked("low on memory"))
    assert (room, taker.link.is_held, taker.link.is_blocked) == ([False], True, True)
    assert "robot: the broker takes no messages now: low on memory" in caplog.text
    taker.wire.comes(delivered(TOPICS, b"x"))
    assert taker.payloads == [(TOPICS, b"x")], "it is heard all the same"
    taker.wire.says(0, spec.Connection.Unblocked())
    assert (room, taker.link.is_held, taker.link.is_blocked) == ([False, True], False, False)
    assert told == [(True, False), (False, False)], "nothing may be written at either time"
    assert "takes messages again" in caplog.text


async def test_while_it_blocks_us_it_hears_heartbeats_and_no_questions() -> None:
    taker = Taker()
    taker.link.tuning.heartbeat = 60
    taker.wire.says(0, spec.Connection.Blocked("low on disk"))
    taker.link._wrote = 0.0
    assert taker.link.heard == 0.0
    taker.link.probe()
    assert taker.wire.written == [methods.BEAT], "a question would wait until it reads on"
    assert taker.link.heard > 0.0


@pytest.mark.parametrize("times", [1, 2])
async def test_while_it_blocks_us_it_may_leave_out_a_heartbeat(times: int) -> None:
    link = (taker := Taker()).link
    link.tuning.heartbeat = 60
    link.keepalive = link._usual_keepalive = 30
    for _ in range(times):
        taker.wire.says(0, spec.Connection.Blocked("low on disk"))
    assert link.keepalive == 60
    taker.wire.says(0, spec.Connection.Unblocked())
    assert link.keepalive == 30


async def test_one_without_heartbeats_may_be_silent_while_it_blocks_us() -> None:
    link = (taker := Taker()).link
    link.tuning.heartbeat = 0
    taker.wire.says(0, spec.Connection.Blocked("low on disk"))
    link._heard = 0.0
    assert link.heard == link._wrote > 0.0
    taker.wire.says(0, spec.Connection.Unblocked())
    link._heard = 0.0
    assert link.heard == 0.0
    assert link.keepalive is None


@pytest.mark.parametrize("times", [1, 2])
async def test_a_broker_that_blocks_for_too_long_is_given_up(times: int) -> None:
    taker = Taker()
    taker.link._blocked_timeout = 0.02
    for _ in range(times):
        taker.wire.says(0, spec.Connection.Blocked("low on memory"))
    reason = await asyncio.wait_for(taker.link.closed, 5)
    assert isinstance(reason, ConnectionLost)
    assert "robot has been blocked by the broker for 0.02 s" in str(reason)
    assert taker.wire.is_cut


async def test_one_that_takes_messages_again_in_time_is_not() -> None:
    taker = Taker()
    taker.link._blocked_timeout = 0.02
    taker.wire.says(0, spec.Connection.Blocked("low on memory"), spec.Connection.Unblocked())
    await asyncio.sleep(0.05)
    assert not taker.wire.is_cut


async def test_that_it_unblocks_us_without_having_blocked_is_no_news() -> None:
    taker = Taker()
    taker.wire.says(0, spec.Connection.Unblocked())
    assert not taker.link.is_held
    assert not taker.wire.is_cut


async def test_room_there_is_when_nobody_has_an_objection_any_more() -> None:
    taker = Taker()
    room: list[bool] = []
    taker.link.on_room = room.append
    taker.link.pause_writing()
    taker.wire.says(0, spec.Connection.Blocked("low on memory"))
    taker.link.resume_writing()
    assert True not in room
    taker.wire.says(0, spec.Connection.Unblocked())
    assert room[-1]


async def test_an_end_while_it_is_blocked_leaves_no_timer() -> None:
    taker = Taker()
    taker.link._blocked_timeout = 0.02
    taker.wire.says(0, spec.Connection.Blocked("low on memory"))
    taker.link.abort(ConnectionLost("cut"))
    await asyncio.sleep(0.05)
    assert str(await taker.link.closed) == "cut"


async def test_a_thread_writes_nothing_while_something_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    taker, direct = Taker(), Direct()
    for name, value in {"_direct": direct, "_loop_thread": 0}.items():
        monkeypatch.setattr(taker.link, name, value)
    taker.link.hold("it")
    assert not taker.link.write_now(b"a call", "a", True)
    taker.link.release("it")
    assert taker.link.write_now(b"a call", "a", True)
    assert direct.sent == [b"a call"]


class Late:
    """A lock that somebody comes to just when something is held."""

    def __init__(self, link: AmqpLink) -> None:
        self._link = link

    def acquire(self, blocking: bool) -> bool:
        self._link.hold("it")
        return True

    def release(self) -> None:
        """Nobody waits."""


class Direct:
    """A socket for other threads."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> int:
        self.sent.append(frame)
        return len(frame)

    def close(self) -> None:
        """There is nothing to close."""


async def test_a_thread_that_was_about_to_write_looks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a channel that was opened anew, its message might come before what that begins with."""
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    taker, direct = Taker(), Direct()
    for name, value in {"_direct": direct, "_loop_thread": 0}.items():
        monkeypatch.setattr(taker.link, name, value)
    assert taker.link.write_now(b"first", "a", False)
    monkeypatch.setattr(taker.link, "_write_lock", Late(taker.link))
    assert not taker.link.write_now(b"second", "a", False)
    assert direct.sent == [b"first"]


# ---- what a thread has read ----


def payloads(taker: Taker, data: bytes) -> list[bytes]:
    """Those of the replies that are all of this."""
    return [arrival[-1] for arrival in taker.link.messages_of(data, CALLS)]


@pytest.mark.parametrize("payload", [b"x", b"y" * 700])
async def test_replies_are_told_if_they_are_all_that_a_thread_has_read(payload: bytes) -> None:
    taker = Taker()
    data, other = delivered(CALLS, payload), delivered(TOPICS, payload)
    assert payloads(taker, data) == [payload]
    assert payloads(taker, data + delivered(CALLS, b"z") + data) == [payload, b"z", payload]
    for end in range(len(data)):
        assert payloads(taker, data[:end]) == []
        assert payloads(taker, data + data[:end]) == [payload] * (not end)
    for more in (methods.BEAT, b"\x01", other):
        assert payloads(taker, data + more) == payloads(taker, more + data) == []
    assert payloads(taker, other) == []
    assert taker.payloads == []  # its channel has not seen any of it


@given(st.binary(max_size=60))
def test_whatever_a_thread_has_read_it_raises_nothing(noise: bytes) -> None:
    async def read() -> None:
        taker = Taker()
        data = delivered(CALLS, b"x")
        for at in range(0, len(data), 5):
            payloads(taker, data[:at] + noise + data[at + len(noise) :])

    asyncio.run(read())
