"""Golden bytes: what ours writes, to the byte, and what released and other peers write, read.

Written bytes are looked at on a real server, through a bare connection. Peers are commlib-py 0.6.3
("0.6"), releases from 0.6.4 to 0.13 ("0.13"), and devices that never heard of commlib.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zstandard

from brokers import RedisServer, RespConnection
from collected import Collected, eventually
from commlib import node as sync
from commlib._packet import Header, Packet, unix_ms
from commlib._wire import Reader, Refused
from commlib.events import Event
from commlib.msg import Object, PubSubMessage
from messages import AddTwoInts, Pose, Sonar

NAN, INF = float("nan"), float("inf")
NOW = 1_700_000_000_123
ORIGIN = "01020304"
PROPERTIES = '"properties":{"content_type":"application/json","content_encoding":"utf8"}'
# Every field of a Sonar but the first.
REST = (
    ',"count":0,"label":"","ranges":[],"pose":{"x":0.0,"y":0.0},"path":[],"tags":{},"raw":"",'
    '"limit":null'
)

# ---- what ours writes ----


@pytest.fixture
def node(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[sync.Node]:
    """A node whose clock stands still and whose origin is known."""
    monkeypatch.setattr("commlib.aio.pubsub.time", lambda: NOW / 1000)
    for module in ("commlib.aio._rpc_service", "commlib.aio._caller", "commlib.aio._heartbeat"):
        monkeypatch.setattr(f"{module}.now_ms", lambda: NOW)
    monkeypatch.setattr("commlib._sequence.urandom", lambda size: bytes(range(1, size + 1)))
    with sync.Node("golden", connection_params=redis_server.url) as node:
        yield node


@pytest.fixture
def wire(redis_server: RedisServer) -> Iterator[RespConnection]:
    """A bare connection to the same server."""
    with redis_server.connection() as connection:
        yield connection


def published(wire: RespConnection, topic: str, publish: Callable[[], None]) -> list[str]:
    """What a subscriber without commlib gets: the topic and the payload."""
    wire.ask("SUBSCRIBE", topic)
    publish()
    kind, *received = wire.read()
    assert kind == b"message"
    return [part.decode() for part in received]


def test_a_message_is_written_in_the_form_of_0_6_with_origin_and_number(
    node: sync.Node, wire: RespConnection
) -> None:
    publisher = node.create_publisher("golden.sonar", Sonar)

    assert published(wire, "golden.sonar", lambda: publisher.publish(Sonar(2.0))) == [
        "golden.sonar",
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":0}},'
        f'"data":{{"distance":2.0{REST}}}}}',
    ]
    publisher.publish(Sonar(2.0))
    assert b',"seq":1},' in wire.read()[2]


def test_a_message_without_a_number_is_written_to_the_byte_as_0_6_does(
    node: sync.Node, wire: RespConnection
) -> None:
    publisher = node.create_publisher("golden/imu.1", sequence=False)

    assert published(wire, "golden/imu.1", lambda: publisher.publish({"distance": 2.0})) == [
        "golden/imu.1",
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES}}},"data":{{"distance":2.0}}}}',
    ]


def test_a_bare_message_is_its_data_and_nothing_else(node: sync.Node, wire: RespConnection) -> None:
    publisher = node.create_publisher("golden.bare", Sonar, envelope=False)

    assert published(wire, "golden.bare", lambda: publisher.publish(Sonar(2.0, label="ü"))) == [
        "golden.bare",
        f'{{"distance":2.0{REST}}}'.replace('"label":""', '"label":"ü"'),
    ]


@pytest.mark.parametrize(
    ("envelope", "payload"),
    [
        (
            True,
            f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":0}},'
            f'"data":{{"ts":{NOW}}}}}',
        ),
        (False, f'{{"ts":{NOW}}}'),
    ],
    ids=["wrapped", "bare"],
)
def test_a_heartbeat_is_a_message_with_the_time_and_nothing_else(
    node: sync.Node, wire: RespConnection, envelope: bool, payload: str
) -> None:
    robot = sync.Node("gold-robot", None, node._core.hub.params, device_id="d0", envelope=envelope)
    beat = published(wire, "thing.d0.gold_robot.heartbeat", robot.run)
    robot.stop()
    assert beat == ["thing.d0.gold_robot.heartbeat", payload]


def test_an_event_is_a_message_at_its_uri(node: sync.Node, wire: RespConnection) -> None:
    emitter = node.create_event_emitter()
    event = Event(name="TurnOn", uri="golden.lights.on", payload={"lux": 200})

    assert published(wire, "golden.lights.on", lambda: emitter.send_event(event)) == [
        "golden.lights.on",
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":0}},'
        '"data":{"name":"TurnOn","uri":"golden.lights.on","description":"",'
        '"payload":{"lux":200}}}',
    ]


def test_a_log_record_is_a_line_of_text(node: sync.Node, wire: RespConnection) -> None:
    params = node._core.hub.params
    record = logging.LogRecord("robot", logging.ERROR, "f", 1, "it is %s", ("stuck",), None)
    record.created = NOW / 1000
    with sync.Node("gold-robot", None, params, remote_logger=True) as robot:
        assert published(wire, "gold_robot.logs", lambda: robot.log.handle(record)) == [
            "gold_robot.logs",
            f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":0}},'
            f'"data":{{"msg":"[{NOW}][gold_robot][ERROR] - it is stuck"}}}}',
        ]


def test_control_services_answer_released_clients_with_status_and_error(
    node: sync.Node, wire: RespConnection
) -> None:
    node.create_stop_service()
    node.create_start_service()

    def answer(name: str) -> str:
        wire.ask("RPUSH", name, '{"header":{"reply_to":"golden-reply"},"data":{}}')
        return wire.ask("BLPOP", "golden-reply", 10)[1].decode()  # type: ignore[no-any-return]

    header = f'{{"header":{{"timestamp":{NOW},{PROPERTIES}}}'
    assert answer("golden.start") == (
        f'{header},"data":{{"status":1,"error":"golden is RUNNING, not STOPPED"}}}}'
    )
    assert answer("golden.stop") == f'{header},"data":{{"status":0,"error":""}}}}'
    assert answer("golden.start") == f'{header},"data":{{"status":0,"error":""}}}}'


def test_nan_infinities_and_bytes_are_written_as_json_can(
    node: sync.Node, wire: RespConnection
) -> None:
    publisher = node.create_publisher("golden.nan", envelope=False)

    assert published(
        wire,
        "golden.nan",
        lambda: publisher.publish([NAN, INF, -INF, -1, b"\xff", "\x00"]),
    ) == ["golden.nan", '[null,1e999,-1e999,-1,"/w==","\\u0000"]']


def test_a_request_says_where_the_reply_goes_who_asks_and_how_long(
    node: sync.Node, wire: RespConnection
) -> None:
    client = node.create_rpc_client("golden.add", AddTwoInts)
    before = node._core.hub.transport.clock()
    future = client.call_async(AddTwoInts.Request(a=1, b=-2), timeout=7)

    _, payload = wire.ask("BLPOP", "golden.add", 10)
    after = node._core.hub.transport.clock()
    seconds, micros = map(int, wire.ask("TIME"))

    match = re.fullmatch(
        rf'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":0,'
        rf'"reply_to":"(rpc-[0-9a-f]{{32}})","id":"({ORIGIN}-[0-9a-f]+)","deadline":(\d+)}},'
        r'"data":{"a":1,"b":-2}}',
        payload.decode(),
    )
    assert match, payload
    reply_to, call_id, deadline = match.groups()
    assert before <= int(deadline) - 7000 <= after
    # By the server's time, which is known but for a round trip.
    assert abs(seconds * 1000 + micros / 1000 + 7000 - int(deadline)) < 7000

    # The answer of 0.6 and 0.13, which echo no id.
    wire.ask("RPUSH", reply_to, '{"data":{"c":-1},"header":{"timestamp":1,"properties":{}}}')
    assert future.result(10) == AddTwoInts.Response(c=-1)
    assert call_id == f"{ORIGIN}-0"


def test_two_calls_under_way_have_two_addresses(node: sync.Node, wire: RespConnection) -> None:
    client = node.create_rpc_client("golden.two")
    futures = [client.call_async(n) for n in range(2)]
    requests = [json.loads(wire.ask("BLPOP", "golden.two", 10)[1]) for _ in range(2)]

    for request in reversed(requests):
        wire.ask("RPUSH", request["header"]["reply_to"], json.dumps({"header": {}, **request}))

    assert [future.result(10) for future in futures] == [0, 1]


@pytest.fixture
def answered(node: sync.Node, wire: RespConnection) -> Callable[[str], str]:
    """The reply, as it is, to a request for the service ``golden.serve``."""

    def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
        if request.a < 0:
            raise ValueError("no such arm")
        return AddTwoInts.Response(c=request.a + request.b)

    node.create_rpc("golden.serve", add, AddTwoInts)

    def ask(request: str) -> str:
        wire.ask("RPUSH", "golden.serve", request)
        return wire.ask("BLPOP", "golden-reply", 10)[1].decode()  # type: ignore[no-any-return]

    return ask


def test_a_response_to_a_released_client_has_no_key_that_was_not_asked_for(
    answered: Callable[[str], str],
) -> None:
    request = '{"header":{"reply_to":"golden-reply"},"data":{"a":1,"b":"-3"}}'

    assert answered(request) == (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES}}},"data":{{"c":-2}}}}'
    )


def test_a_response_echoes_the_id_of_the_call(answered: Callable[[str], str]) -> None:
    request = '{"header":{"reply_to":"golden-reply","id":"ab-0"},"data":{"a":1,"b":2}}'

    assert answered(request) == (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"id":"ab-0"}},"data":{{"c":3}}}}'
    )


def test_an_error_travels_in_the_header_beside_empty_data(answered: Callable[[str], str]) -> None:
    request = '{"header":{"reply_to":"golden-reply","id":"ab-0"},"data":{"a":-1,"b":2}}'

    assert answered(request) == (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"id":"ab-0",'
        '"error":{"type":"ValueError","message":"no such arm"}},"data":{}}'
    )


def test_a_request_that_is_refused_is_answered_as_well(answered: Callable[[str], str]) -> None:
    reply = json.loads(answered('{"header":{"reply_to":"golden-reply"},"data":{"a":"one","b":2}}'))

    assert reply["data"] == {}
    assert "Request" in reply["header"]["error"]["message"]


def test_a_reply_that_nobody_fetches_goes_by_itself(
    answered: Callable[[str], str], wire: RespConnection
) -> None:
    answered('{"header":{"reply_to":"golden-reply"},"data":{"a":1,"b":2}}')
    wire.ask(
        "RPUSH", "golden.serve", '{"header":{"reply_to":"rpc-golden-orphan"},"data":{"a":1,"b":2}}'
    )
    answered('{"header":{"reply_to":"golden-reply"},"data":{"a":1,"b":2}}')

    # Another thread may have that request, and the expiry comes behind the reply.
    eventually(lambda: wire.ask("TTL", "rpc-golden-orphan") > 0)
    assert wire.ask("LLEN", "rpc-golden-orphan") == 1
    assert 0 < wire.ask("TTL", "rpc-golden-orphan") <= 60


def test_what_released_peers_publish_is_received(node: sync.Node, wire: RespConnection) -> None:
    got = Collected()
    node.create_psubscriber("golden.peer.*", got, Sonar)

    for name, payload in SONARS.items():
        wire.ask("PUBLISH", f"golden.peer.{name.replace('.', '_')}", payload)

    received = got.wait(len(SONARS))
    assert [topic for _, topic in received] == [
        f"golden.peer.{name.replace('.', '_')}" for name in SONARS
    ]
    assert {(msg.distance, msg.count, msg.label) for msg, _ in received} == {(2.0, -3, "front")}


# ---- what peers write ----

DATA = '{"distance": 2.0, "count": "-3", "label": "front"}'  # 0.13 sends negative ints as text
HEADER_06 = (
    '{"timestamp": 1609459200500, "properties": '
    '{"content_type": "application/json", "content_encoding": "utf8"}}'
)
WRAPPED = f'{{"header": {HEADER_06}, "data": {DATA}}}'.encode()
TREE = {"header": json.loads(HEADER_06), "data": json.loads(DATA)}


def msgpack_wide(tree: dict[str, Any], size: int) -> bytes:
    """A MessagePack map with its size in 16 or 32 bits, as some writers have it always."""
    head = {16: b"\xde" + (2).to_bytes(2, "big"), 32: b"\xdf" + (2).to_bytes(4, "big")}[size]
    return head + b"".join(
        msgspec.msgpack.encode(key) + msgspec.msgpack.encode(tree[key]) for key in tree
    )


SONARS: dict[str, bytes] = {
    # A Sonar of 2.0 m, the count -3 and the label "front", as peers have sent it.
    "0.6, compact": json.dumps(TREE, separators=(",", ":")).encode(),
    "0.6, with spaces": WRAPPED,
    "0.6, data first": f'{{"data": {DATA}, "header": {HEADER_06}}}'.encode(),
    "0.6, a header with more": WRAPPED.replace(b'{"timestamp"', b'{"msg_type": "", "timestamp"'),
    "0.6 over MQTT, reply_to empty": WRAPPED.replace(
        b'{"timestamp"', b'{"reply_to":"","timestamp"'
    ),
    "0.13, bare": DATA.encode(),
    "0.13, bare and compressed": zlib.compress(DATA.encode()),
    "0.13, best compression": zlib.compress(DATA.encode(), 9),
    "0.13, fastest compression": zlib.compress(DATA.encode(), 1),
    "0.13, unknown keys": DATA.replace("{", '{"unknown": {"a": []}, ').encode(),
    "wrapped and compressed": zlib.compress(WRAPPED),
    "zstd": zstandard.compress(WRAPPED),
    "zstd, bare": zstandard.compress(DATA.encode()),
    "zstd, without its size": zstandard.ZstdCompressor(write_content_size=False).compress(WRAPPED),
    "msgpack": msgspec.msgpack.encode(TREE),
    "msgpack, 16 bits": msgpack_wide(TREE, 16),
    "msgpack, 32 bits": msgpack_wide(TREE, 32),
    "msgpack, bare": msgspec.msgpack.encode(json.loads(DATA)),
    "msgpack, compressed": zlib.compress(msgspec.msgpack.encode(TREE)),
    "an empty header": f'{{"header": {{}}, "data": {DATA}}}'.encode(),
    "a header of known keys": f'{{"header": {{"timestamp": 5}}, "data": {DATA}}}'.encode(),
    "a flat header": f'{{"header": {{"agent": "x", "encoding": "utf8"}}, "data": {DATA}}}'.encode(),
    "timestamp null": WRAPPED.replace(b"1609459200500", b"null"),
    "timestamp text": WRAPPED.replace(b"1609459200500", b'"yesterday"'),
    "timestamp a fraction": WRAPPED.replace(b"1609459200500", b"1609459200.5"),
    "reply_to a number": WRAPPED.replace(b'{"timestamp"', b'{"reply_to": 5, "timestamp"'),
    "properties null": re.sub(rb'"properties": {[^}]*}', b'"properties": null', WRAPPED),
    "properties a list": re.sub(rb'"properties": {[^}]*}', b'"properties": []', WRAPPED),
    "all of the header wrong": WRAPPED.replace(
        b'{"timestamp"', b'{"seq": "x", "origin": 1, "error": 5, "deadline": {}, "timestamp"'
    ),
    "spaces around it": b" \n\t" + WRAPPED + b"\r\n",
}


@pytest.mark.parametrize("name", SONARS)
def test_a_typed_reader_takes_every_form(name: str) -> None:
    envelope = Reader(Sonar).read(Packet(SONARS[name]))

    assert envelope.data == Sonar(2.0, count=-3, label="front")


@pytest.mark.parametrize("name", SONARS)
def test_an_untyped_reader_takes_every_form(name: str) -> None:
    data = Reader(None).read(Packet(SONARS[name])).data

    assert {key: data[key] for key in ("distance", "count", "label")} == json.loads(DATA)


@pytest.mark.parametrize(
    "name", [name for name in SONARS if "bare" not in name and "0.13" not in name]
)
def test_a_call_is_read_in_every_wrapped_form(name: str) -> None:
    envelope = Reader(Sonar, always_wrapped=True).read(Packet(SONARS[name]))

    assert envelope.data == Sonar(2.0, count=-3, label="front")


CALLS: dict[str, tuple[bytes, str]] = {
    # a request or a response, and the address in it
    "0.6 request": (
        f'{{"header":{{"timestamp":1609459200500,{PROPERTIES},'
        '"reply_to":"rpc-00112233445566778899aabbccddeeff"},"data":{"a":1,"b":-3}}',
        "rpc-00112233445566778899aabbccddeeff",
    ),
    "0.6 response, Redis": (
        '{"data":{"a":1,"b":-3},"header":{"timestamp":1609459200500000,'
        + PROPERTIES.replace("}", ',"msg_type":""}')
        + "}}",
        "",
    ),
    "0.6 response, MQTT": (
        f'{{"header":{{"timestamp":1609459200500,{PROPERTIES},"reply_to":""}},'
        '"data":{"a":1,"b":-3}}',
        "",
    ),
    "0.13 request": (
        '{"header":{"reply_to":"rpc-x","timestamp":1609459200500000000,"content_type":"json",'
        '"encoding":"utf8","agent":"commlib"},"data":{"a":1,"b":"-3"}}',
        "rpc-x",
    ),
    "the least": ('{"header":{"reply_to":"x"},"data":{"a":1,"b":-3}}', "x"),
    "no answer wanted": ('{"header":{},"data":{"a":1,"b":-3}}', ""),
    "a header of null": ('{"header":null,"data":{"a":1,"b":-3}}', ""),
    "a header of text": ('{"header":"none","data":{"a":1,"b":-3}}', ""),
    "reply_to a number": ('{"header":{"reply_to":5},"data":{"a":1,"b":-3}}', ""),
    "timestamp null": ('{"header":{"timestamp":null,"reply_to":"x"},"data":{"a":1,"b":-3}}', "x"),
    "keys of its own": (
        '{"header":{"reply_to":"x","mine":[1]},"data":{"a":1,"b":-3},"version":2}',
        "x",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_every_peer_are_read(name: str) -> None:
    payload, reply_to = CALLS[name]
    for form in (payload.encode(), zlib.compress(payload.encode())):
        envelope = Reader(AddTwoInts.Request, always_wrapped=True).read(Packet(form))

        assert envelope.data == AddTwoInts.Request(a=1, b=-3)
        assert envelope.header.reply_to == reply_to


def test_an_error_is_read_from_the_header() -> None:
    payload = b'{"header":{"id":"a-0","error":{"type":"ValueError","message":"no"}},"data":{}}'
    with pytest.raises(Refused) as refused:
        Reader(AddTwoInts.Response, always_wrapped=True).read(Packet(payload))

    header = refused.value.header
    assert header.id == "a-0"
    assert header.error is not None
    assert (header.error.type, header.error.message) == ("ValueError", "no")


@pytest.mark.parametrize(
    ("timestamp", "ms"),
    [
        (1_609_459_200, 1_609_459_200_000),  # s, in actions
        (1_609_459_200_500, 1_609_459_200_500),  # ms, in messages
        (1_609_459_200_500_000, 1_609_459_200_500),  # µs, in responses of 0.6 on Redis
        (1_609_459_200_500_000_000, 1_609_459_200_500),  # ns, in 0.13
        (0, None),
        (-1, None),
        (1, None),
        (86_400_000, None),  # a robot that boots in 1970
        (999_999_999, None),
        (1_000_000_000, 1_000_000_000_000),
        (9_999_999_999, 9_999_999_999_000),
        (10**30, None),
        (10**400, None),
    ],
)
def test_the_unit_of_a_timestamp_is_told_by_its_size(timestamp: int, ms: int | None) -> None:
    assert unix_ms(timestamp) == ms


# ---- numbers that JSON has not ----


@pytest.mark.parametrize(
    "payload",
    [
        b'{"distance": NaN, "ranges": [Infinity, -Infinity, 1.0]}',
        b'{"header": {"properties": {}}, "data": {"distance":NaN,"ranges":[Infinity,-Infinity,1]}}',
        zlib.compress(b'{"distance": NaN, "ranges": [Infinity, -Infinity, 1.0]}'),
    ],
)
def test_the_literals_of_other_writers_are_numbers(payload: bytes) -> None:
    data = Reader(Sonar).read(Packet(payload)).data

    assert repr(data.distance) == "nan"
    assert data.ranges == [float("inf"), float("-inf"), 1.0]


def test_null_is_nan_for_a_float_and_none_where_none_is_allowed() -> None:
    payload = b'{"distance": null, "ranges": [1, null], "pose": {"x": null}, "limit": null}'

    data = Reader(Sonar).read(Packet(payload)).data

    assert repr(data.distance) == repr(data.ranges[1]) == repr(data.pose.x) == "nan"
    assert data.limit is None


def test_a_word_that_looks_like_a_literal_is_just_a_word() -> None:
    payload = b'{"distance": 1.0, "label": "NaN, Infinity, -Infinity"}'

    assert Reader(Sonar).read(Packet(payload)).data.label == "NaN, Infinity, -Infinity"


# ---- messages that have a header and data of their own ----


class RosHeader(Object):
    seq: int = 0
    timestamp: int = 0
    frame_id: str = ""


class RosScan(PubSubMessage):
    header: RosHeader = RosHeader()
    data: list[float] = []


SCAN = RosScan(RosHeader(7, 5, "laser"), [1.0, 2.0])


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"header":{"seq":7,"timestamp":5,"frame_id":"laser"},"data":[1,2]}', SCAN),
        # Only keys that a header of ours has, and yet it is none: that takes `properties`.
        (b'{"header":{"seq":7,"timestamp":5},"data":[1]}', RosScan(RosHeader(7, 5), [1.0])),
        (b'{"header":{},"data":[1]}', RosScan(data=[1.0])),
        (b'{"data":[1]}', RosScan(data=[1.0])),
        (
            b'{"header":{"timestamp":1,"properties":{}},"data":'
            b'{"header":{"seq":7,"timestamp":5,"frame_id":"laser"},"data":[1,2]}}',
            SCAN,
        ),
        (
            b'{"header":{"properties":null},"data":{"header":{"seq":7,"timestamp":5,'
            b'"frame_id":"laser"},"data":[1,2]}}',
            SCAN,
        ),
    ],
)
def test_a_message_with_a_header_of_its_own_is_not_taken_for_an_envelope(
    payload: bytes, expected: RosScan
) -> None:
    assert Reader(RosScan).read(Packet(payload)).data == expected
    assert (
        Reader(RosScan).read(Packet(msgspec.msgpack.encode(json.loads(payload)))).data == expected
    )


@pytest.mark.parametrize(
    ("payload", "is_wrapped"),
    [
        (b'{"header":{"stamp":5,"frame_id":"laser"},"data":[1]}', False),
        (b'{"header":{"timestamp":5,"frame_id":"laser"},"data":[1]}', False),
        (b'{"header":{"timestamp":5},"data":[1]}', True),
        (b'{"header":{"origin":"a","seq":0,"hops":["x"],"traceparent":"00"},"data":[1]}', True),
        (b'{"header":{"properties":{},"anything":5},"data":[1]}', True),
        (b'{"header":{},"data":[1]}', True),
        (b'{"header":null,"data":[1]}', False),
        (b'{"header":[],"data":[1]}', False),
        (b'{"header":{"properties":{}},"data":[1],"more":1}', False),
        (b'{"header":{"properties":{}}}', False),
        (b'{"data":[1]}', False),
    ],
)
def test_what_is_an_envelope_is_told_by_its_keys(payload: bytes, is_wrapped: bool) -> None:
    expected = [1] if is_wrapped else json.loads(payload)

    assert Reader(None).read(Packet(payload)).data == expected
    assert Reader(None).read(Packet(zlib.compress(payload))).data == expected


# ---- devices that send no JSON object ----


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b"25.5", 25.5),
        (b"-7", -7),
        (b"true", True),
        (b"null", None),
        (b"[1,2]", [1, 2]),
        (b'"quoted"', "quoted"),
        (b"ON", "ON"),
        (b"on fire", "on fire"),
        (b"xylophone", "xylophone"),  # begins as zlib does
        (b"x\x9c", b"x\x9c"),
        (b"x\x9c\x03\x00", b"x\x9c\x03\x00"),  # half of a compressed nothing
        ("größer".encode(), "größer"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"\x80", {}),  # MessagePack's empty map
        (b"\x81", b"\x81"),
        (b"", ""),
        (b"{", "{"),
        (b'{"a":1}{"b":2}', '{"a":1}{"b":2}'),
        (zlib.compress(b"plain text"), "plain text"),
        (zlib.compress(b"\xff"), b"\xff"),
    ],
)
def test_what_is_no_object_is_a_number_text_or_bytes_for_an_untyped_reader(
    payload: bytes, data: Any
) -> None:
    found = Reader(None).read(Packet(payload)).data

    assert found == data
    assert type(found) is type(data)


@pytest.mark.parametrize(
    ("kind", "payload", "data"),
    [
        (float, b"25.5", 25.5),
        (float, b"25", 25.0),
        (float, b'"25.5"', 25.5),
        (int, b"-7", -7),
        (str, b"ON", "ON"),
        (str, b'"quoted"', "quoted"),
        (str, b"xylophone", "xylophone"),
        (bytes, b"\xff\xfe", b"\xff\xfe"),
        (bytes, b"plain", b"plain"),
        (bool, b"true", True),
        (list[float], b"[1,2.5]", [1.0, 2.5]),
    ],
)
def test_a_reader_of_a_plain_type_takes_what_a_simple_device_sends(
    kind: Any, payload: bytes, data: Any
) -> None:
    found = Reader(kind).read(Packet(payload)).data

    assert found == data
    assert type(found) is type(data)


@pytest.mark.parametrize(
    "payload", [b"ON", b"xylophone", b"25.5", b"null", b"", b"\xff", b"[]", b"{}", b'{"a":1}']
)
def test_a_reader_of_a_message_refuses_what_is_none(payload: bytes) -> None:
    with pytest.raises(Refused, match="Sonar"):
        Reader(Sonar).read(Packet(payload))


def test_a_broker_with_headers_of_its_own_brings_data_and_header_apart() -> None:
    header = Header(5, origin="a", seq=1)

    for payload in (b'{"distance":2.0,"pose":{"x":1}}', msgspec.msgpack.encode({"distance": 2.0})):
        envelope = Reader(Sonar).read(Packet(payload, "t", header))
        assert envelope.header is header
        assert envelope.data.distance == 2.0
    # What looks like an envelope there is data.
    payload = b'{"header":{"properties":{}},"data":{"distance":2.0}}'
    assert Reader(None).read(Packet(payload, "t", header)).data == json.loads(payload)
    with pytest.raises(Refused):
        Reader(Sonar).read(Packet(payload, "t", header))


def test_an_event_is_a_message_with_four_fields() -> None:
    class Event(PubSubMessage):
        name: str
        uri: str
        description: str = ""
        payload: dict[str, Any] = {}

    payload = (
        f'{{"header":{HEADER_06},"data":{{"name":"door","uri":"home.door","description":"",'
        '"payload":{"open":true}}}'
    )

    assert Reader(Event).read(Packet(payload.encode())).data == Event(
        "door", "home.door", payload={"open": True}
    )


def test_bytes_are_base64_in_json_and_themselves_in_msgpack() -> None:
    tree = {"distance": 1.0, "raw": b"\x00\xff"}

    for payload in (b'{"distance":1.0,"raw":"AP8="}', msgspec.msgpack.encode(tree)):
        assert Reader(Sonar).read(Packet(payload)).data == Sonar(1.0, raw=b"\x00\xff")
    assert Reader(Sonar).read(Packet(b'{"distance":1,"pose":{"y":2}}')).data.pose == Pose(0.0, 2.0)
