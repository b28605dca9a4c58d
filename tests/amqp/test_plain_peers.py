"""Beside peers that never heard of commlib: they publish, subscribe, call and serve with pika."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from brokers import Broker, RabbitServer
from collected import DEADLINE, Collected, eventually
from commlib.exceptions import RPCRemoteError, SerializationError, ServiceNotFound
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.serializer import JSONSerializer, TextSerializer
from messages import AddTwoInts, Sonar

from .pika_peer import PikaPeer, Properties

MakeNode = Callable[..., Node]


@pytest.fixture
def broker(amqp_server: RabbitServer) -> Broker:
    return Broker(amqp_server.url)


@pytest.fixture
def plain(amqp_server: RabbitServer) -> Iterator[PikaPeer]:
    with PikaPeer(amqp_server.url) as peer:
        yield peer


# ---- what others publish ----

TOLD: list[tuple[bytes, Any, Any]] = [
    (b'{"temperature": -3.5}', {"temperature": -3.5}, dict),
    (b"[1, 2]", [1, 2], list),
    (b"21.5", 21.5, float),
    (b"42", 42, int),
    (b"true", True, bool),
    (b"null", None, type(None)),
    (b'"quoted"', "quoted", str),
    (b"online", "online", str),
    ("heiß".encode(), "heiß", str),
    (b"00421", "00421", str),
    (b"\xff\xfe\x00", b"\xff\xfe\x00", bytes),
    (b"", "", str),
]
ABOUT = [
    None,
    Properties(),
    Properties(delivery_mode=2),
    Properties(timestamp=int(time.time()), message_id="m1", app_id="flow", type="t"),
    Properties(headers={}),
    Properties(headers={"x-source": "plc", "n": 5, "list": [1, {"a": None}]}, priority=9),
    Properties(content_encoding="utf-8", user_id="guest"),
    Properties(headers={"origin": 5, "seq": "many", "hops": "x", "error": [1], "id": None}),
]


@pytest.mark.parametrize("about", ABOUT, ids=range(len(ABOUT)))
def test_what_others_publish_arrives_as_data_whatever_is_said_beside_it(
    node: Node, plain: PikaPeer, topic: str, about: Any
) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    for body, _, _ in TOLD:
        plain.publish(topic, body, about)

    found = got.wait(len(TOLD))
    assert found == [data for _, data, _ in TOLD]
    assert [type(data) for data in found] == [kind for _, _, kind in TOLD]


class Climate(PubSubMessage):
    temperature: float
    humidity: float = 0.0


@pytest.mark.parametrize("about", ABOUT, ids=range(len(ABOUT)))
def test_a_typed_subscriber_gets_its_message_and_refuses_another(
    node: Node, plain: PikaPeer, topic: str, about: Any
) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got, Climate)

    for body in (b"garbage", b"[1]", b'{"temperature": "x"}', b'{"temperature": 5, "else": 1}'):
        plain.publish(topic, body, about)

    assert got.wait(1) == [Climate(5.0)]
    assert subscriber.stats.refused == 3


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/json", b"no json", "no json"),
        ("text/plain", b"21.5", "21.5"),
        ("text/plain; charset=utf-8", b"{}", "{}"),
        ("plain/text", b"5", "5"),
        ("application/octet-stream", b"\x00\x01", b"\x00\x01"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("what is that?", b"5", b"5"),
        ("", b"5", 5),
    ],
)
def test_what_a_body_is_may_be_said_by_its_content_type(
    node: Node, plain: PikaPeer, topic: str, content_type: str, body: bytes, data: Any
) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    plain.publish(topic, body, Properties(content_type=content_type))

    assert got.first == data
    assert type(got.first) is type(data)


@pytest.mark.parametrize("text", ["90421", "true", "null", '{"a": 1}', "online"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
def test_text_and_bytes_are_what_was_sent_where_they_are_wanted(
    node: Node, plain: PikaPeer, topic: str, text: str, content_type: str | None
) -> None:
    texts, raws = Collected(), Collected()
    node.create_subscriber(topic, texts, str)
    node.create_subscriber(topic, raws, bytes)

    plain.publish(topic, text, Properties(content_type=content_type))

    assert texts.first == text
    assert raws.first == text.encode()


@pytest.mark.parametrize("key", ["", ".", "a..b", "x" * 245, "$SYS.a", "with space", "ü/ö"])
def test_any_routing_key_that_a_pattern_matches_is_heard_under_its_name(
    node: Node, plain: PikaPeer, topic: str, key: str
) -> None:
    got = Collected()
    node.create_psubscriber("#", got)

    plain.publish(f"{topic}{key}"[:255], b"1")

    eventually(lambda: any(name == f"{topic}{key}"[:255] for _, name in got.items))


def test_a_wildcard_of_amqp_stands_for_any_number_of_words(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.#.end", got)

    for key in (f"{topic}.x", f"{topic}.end", f"{topic}.a.b.end", f"{topic}/end", f"{topic}.a.end"):
        plain.publish(key, b"1")

    assert [name for _, name in got.wait(3)] == [
        *(f"{topic}.end", f"{topic}.a.b.end", f"{topic}.a.end")
    ]


def test_a_message_that_several_patterns_match_comes_once_to_each(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    got = {pattern: Collected() for pattern in (f"{topic}.*", f"{topic}.#", f"{topic}.a")}
    for pattern, collected in got.items():
        node.create_subscriber(pattern, collected)

    for number in range(3):
        plain.publish(f"{topic}.a", str(number))
    plain.publish(f"{topic}.last", b'"last"')

    assert got[f"{topic}.*"].until("last") == [0, 1, 2]
    assert got[f"{topic}.#"].until("last") == [0, 1, 2]
    assert got[f"{topic}.a"].wait(3) == [0, 1, 2]


# ---- what others hear ----


@pytest.mark.parametrize("qos", [0, 1])
def test_others_hear_json_and_what_belongs_to_it_as_properties(
    node: Node, plain: PikaPeer, topic: str, qos: int
) -> None:
    got = plain.subscribe(f"{topic}.#")
    before = time.time() * 1000

    publisher = node.create_publisher(f"{topic}.x", Sonar, qos=qos)
    for count in range(2):
        publisher.publish(Sonar(distance=2.5, count=count))

    for count, (key, body, about) in enumerate(got.wait(2)):
        assert key == f"{topic}.x"
        assert json.loads(body)["distance"] == 2.5
        assert json.loads(body).keys() == set(Sonar.__struct_fields__)
        assert (about.content_type, about.content_encoding) == ("application/json", "utf8")
        assert before - 1000 <= about.timestamp <= time.time() * 1000 + 1000
        assert about.headers["seq"] == count
        assert set(about.headers) == {"origin", "seq"}
        assert (about.reply_to, about.correlation_id, about.expiration) == (None, None, None)
        assert about.delivery_mode == (2 if qos else None)


@pytest.mark.parametrize("name", ["a.b", "a/b", "a", "a b.ü", "x" * 200])
def test_a_name_is_the_routing_key_as_it_is_written(
    node: Node, plain: PikaPeer, topic: str, name: str
) -> None:
    got = plain.subscribe("#")

    node.create_publisher(f"{topic}{name}").publish(1)

    eventually(lambda: any(heard.topic == f"{topic}{name}" for heard in got.items))


@pytest.mark.parametrize(
    ("data", "serializer", "body"),
    [
        ({"state": "ON"}, JSONSerializer, b'{"state":"ON"}'),
        (21.5, JSONSerializer, b"21.5"),
        ("ON", TextSerializer, b"ON"),
    ],
)
def test_a_device_is_told_what_it_understands(
    node: Node, plain: PikaPeer, topic: str, data: Any, serializer: Any, body: bytes
) -> None:
    got = plain.subscribe(topic)

    options: Any = {"serializer": serializer, "envelope": False}
    node.create_publisher(topic, **options).publish(data)

    assert got.first.body == body


# ---- calls of others ----


def test_a_client_as_in_the_tutorial_calls_our_service(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda n: asked(n) or n * n)

    answer = plain.call(topic, "5")

    assert asked.items == [5]
    assert answer.body == b"25"
    assert answer.properties.correlation_id == "c7"
    assert answer.properties.content_type == "application/json"
    assert answer.properties.reply_to is None


def test_an_error_is_told_beside_the_answer(node: Node, plain: PikaPeer, topic: str) -> None:
    node.create_rpc(topic, lambda n: 1 // n)

    answer = plain.call(topic, "0")

    assert answer.body == b"{}"
    error = answer.properties.headers["error"]
    assert error["type"] == "ZeroDivisionError"
    assert answer.properties.correlation_id == "c7"


@pytest.mark.parametrize("body", [b"", b"no json", b"x", b'{"a": 1}', b"\xff", b"[" * 10_000])
def test_a_typed_service_answers_a_request_and_refuses_another_one(
    node: Node, plain: PikaPeer, topic: str, body: bytes
) -> None:
    node.create_rpc(topic, lambda two: {"c": two.a + two.b}, AddTwoInts)

    bad, good = plain.call(topic, body), plain.call(topic, '{"a": 1, "b": -3}')

    assert bad.body == b"{}"
    assert bad.properties.headers["error"]["type"] == "SerializationError"
    assert json.loads(good.body) == {"c": -2}


@pytest.mark.parametrize("about", [None, Properties(), Properties(correlation_id="c")])
def test_a_request_without_a_place_for_the_answer_is_carried_out(
    node: Node, plain: PikaPeer, topic: str, about: Any
) -> None:
    asked = Collected()
    service = node.create_rpc(topic, lambda request: asked(request) or {})

    plain.publish(topic, '{"on": true}', about, exchange="")

    assert asked.first == {"on": True}
    assert service.stats.errors == 0


@pytest.mark.parametrize("id", [None, "", "x" * 255, "ü", "5"])
def test_the_answer_has_the_id_of_the_request_whatever_that_is(
    node: Node, plain: PikaPeer, topic: str, id: str | None
) -> None:
    node.create_rpc(topic, lambda n: n)

    assert (plain.call(topic, "1", correlation_id=id).properties.correlation_id or "") == (id or "")


def test_a_client_with_direct_reply_to_calls_our_service(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    node.create_rpc(topic, lambda n: n + 1)
    channel, got = plain.channel, Collected()
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda *arrival: got(arrival[2].correlation_id, arrival[3]),
        auto_ack=True,
    )

    for number in range(3):
        about = Properties(reply_to="amq.rabbitmq.reply-to", correlation_id=str(number))
        channel.basic_publish("", topic, str(number), about)
    while len(got.items) < 3:
        plain.connection.process_data_events(DEADLINE)

    assert sorted(got.items) == [("0", b"1"), ("1", b"2"), ("2", b"3")]


ODD: list[dict[str, Any]] = [
    {"headers": {"id": 5, "error": {"type": 1}, "deadline": "soon", "hops": [None]}},
    {"headers": {"origin": "x" * 1000, "seq": -(2**63)}},
    {"headers": {"traceparent": b"\xff", "tracestate": {"a": [1]}}},
    {"headers": {"": None, "x" * 255: [[[[]]]]}},
    {"content_type": "\x00"},
    {"expiration": "60000", "timestamp": 2**63 - 1},
    {"message_id": "m", "type": "t", "app_id": "a", "priority": 0},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_request_with_odd_things_beside_it_is_answered(
    node: Node, plain: PikaPeer, topic: str, odd: dict[str, Any]
) -> None:
    node.create_rpc(topic, lambda request: {"got": type(request).__name__})

    answer = plain.call(topic, "{}", **odd)

    assert answer.properties.correlation_id == "c7"
    assert json.loads(answer.body) in ({"got": "dict"}, {"got": "bytes"})


def test_a_request_with_a_table_too_deep_is_answered_all_the_same(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    deep: Any = {}
    for _ in range(30):
        deep = {"a": deep}
    node.create_rpc(topic, lambda n: n + 1)

    assert plain.call(topic, "1", headers=deep).body == b"2"


@pytest.mark.parametrize("reply_to", ["nobody", "x" * 255, "a.*", "a\x00b", "\ud7ff", " "])
def test_an_address_for_the_answer_that_is_none_costs_nothing_else(
    node: Node, plain: PikaPeer, topic: str, reply_to: str
) -> None:
    asked = Collected()
    service = node.create_rpc(topic, lambda n: asked(n) or n)

    plain.publish(topic, b"1", Properties(reply_to=reply_to), exchange="")

    assert asked.first == 1
    assert node.create_rpc_client(topic).call(2, timeout=DEADLINE) == 2
    assert service.stats.reconnects == 0


def test_requests_that_waited_for_the_service_are_carried_out_but_not_old_ones(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    asked = Collected()
    plain.channel.queue_declare(topic)
    old = int(time.time()) - 3600
    for number, timestamp in enumerate([old, old * 1000, None, int(time.time())]):
        plain.publish(topic, str(number), Properties(timestamp=timestamp), exchange="")

    service = node.create_rpc(topic, asked)
    plain.publish(topic, b'"last"', Properties(timestamp=old), exchange="")

    assert sorted(asked.wait(3), key=str) == [2, 3, "last"]
    eventually(lambda: service.stats.expired == 2)
    plain.channel.queue_delete(topic)


def test_a_queue_that_is_there_already_is_used_as_it_is(
    node: Node, plain: PikaPeer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[dict[str, Any]] = [
        {},
        {"durable": True, "arguments": {"x-max-length": 5}},
        {"auto_delete": True, "arguments": {"x-message-ttl": 60_000}},
    ]
    for number, options in enumerate(made):
        name = f"{topic}.{number}"
        plain.channel.queue_declare(name, **options)
        node.create_rpc(name, lambda n: n + 1)
        assert plain.call(name, "1").body == b"2"
        assert node.create_rpc_client(name).call(2, timeout=DEADLINE) == 3
        plain.channel.queue_declare(name, **options)  # else it would raise
        plain.channel.queue_delete(name)
    assert "PRECONDITION_FAILED" not in caplog.text


def test_requests_and_messages_over_the_limit_are_refused_and_told(
    make_node: MakeNode, broker: Broker, plain: PikaPeer, topic: str
) -> None:
    node = make_node(broker.with_options(max_payload=100_000))
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    node.create_rpc(f"{topic}.work", lambda text: len(text))

    for size in (100_001, 300_000, 5_000_000):
        plain.publish(topic, b"x" * size)
        answer = plain.call(f"{topic}.work", b"y" * size)
        assert "over the limit of 100000" in answer.properties.headers["error"]["message"]
    plain.publish(topic, b"y" * 100_000)

    assert len(got.first) == 100_000
    assert subscriber.stats.refused == 3
    assert subscriber.stats.reconnects == 0


# ---- services of others ----


def test_our_client_calls_a_service_as_in_the_tutorial(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    asked = plain.serve(topic, lambda body, about: str(int(body) ** 2).encode())

    client = node.create_rpc_client(topic)
    assert [client.call(n, timeout=DEADLINE) for n in (2, 3)] == [4, 9]

    first = asked.first
    assert (first.body, first.properties.content_type) == (b"2", "application/json")
    assert first.properties.correlation_id
    assert first.properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    assert 0 < int(first.properties.expiration) <= DEADLINE * 1000


def test_an_answer_that_is_no_such_message_is_an_error_at_once(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    plain.serve(topic, lambda body, about: b"no json")
    client = node.create_rpc_client(topic, AddTwoInts)

    with pytest.raises(SerializationError):
        client.call(AddTwoInts.Request(a=1, b=2), timeout=DEADLINE)


def test_an_answer_without_the_id_of_the_call_is_nobodys(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    def answer(body: bytes, about: Any) -> bytes:
        about.correlation_id = None if body == b"1" else about.correlation_id
        return body

    plain.serve(topic, answer)
    client = node.create_rpc_client(topic)

    with pytest.raises(TimeoutError):
        client.call(1, timeout=0.3)
    assert client.call(2, timeout=DEADLINE) == 2
    assert client.stats.late == 1


def test_a_name_that_nobody_serves_is_told_at_once(node: Node, topic: str) -> None:
    client = node.create_rpc_client(topic)
    begun = time.monotonic()

    with pytest.raises(ServiceNotFound, match=f"nobody serves {topic}"):
        client.call({}, timeout=DEADLINE)

    assert time.monotonic() - begun < DEADLINE / 2
    node.create_rpc(topic, lambda n: n)
    assert client.call(1, timeout=DEADLINE) == 1


def test_many_calls_at_once_to_names_that_are_there_and_that_are_not(
    node: Node, topic: str
) -> None:
    node.create_rpc(f"{topic}.there", lambda n: n)
    there, absent = (node.create_rpc_client(f"{topic}.{word}") for word in ("there", "absent"))
    outcomes = Collected()

    def call(number: int) -> None:
        client = (there, absent)[number % 2]
        try:
            outcomes(client.call(number, timeout=DEADLINE) == number)
        except ServiceNotFound:
            outcomes(number % 2 == 1)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.items == [True] * 40


# ---- calls in an envelope, as commlib-py 0.13 has them ----


def test_a_client_that_puts_requests_into_an_envelope_is_understood(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    def answer(body: bytes, about: Any) -> bytes:
        request = json.loads(body)
        assert request["header"]["reply_to"]
        return json.dumps({"header": {"reply_to": ""}, "data": request["data"]}).encode()

    asked = plain.serve(topic, answer)
    client = node.create_rpc_client(topic, envelope=True)

    assert client.call({"n": 5}, timeout=DEADLINE) == {"n": 5}
    header = json.loads(asked.first.body)["header"]
    assert header["properties"]["content_type"] == "application/json"


def test_our_service_answers_it_in_an_envelope(node: Node, topic: str) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or request)

    wrapped = node.create_rpc_client(topic, envelope=True)
    plain = node.create_rpc_client(topic)
    for data in ({"n": 5}, {"header": {}, "data": {}}, {"header": {"reply_to": "x"}, "data": 1}):
        assert wrapped.call(data, timeout=DEADLINE) == data
        assert plain.call(data, timeout=DEADLINE) == data
    assert len(asked.items) == 6


def test_a_request_of_others_in_an_envelope_is_answered_in_one(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    node.create_rpc(topic, lambda request: {"n": request["n"] + 1})
    request = {"header": {"reply_to": "somewhere", "timestamp": 1, "agent": "x"}, "data": {"n": 1}}

    answer = plain.call(topic, json.dumps(request))

    assert json.loads(answer.body)["data"] == {"n": 2}
    assert "header" in json.loads(answer.body)


def test_an_error_of_a_call_in_an_envelope_is_told(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: 1 // 0)

    with pytest.raises(RPCRemoteError, match="ZeroDivisionError"):
        node.create_rpc_client(topic, envelope=True).call({}, timeout=DEADLINE)


# ---- the same topic exchange under another name ----


def test_an_exchange_of_the_programs_own_is_made_and_shared_with_others(
    make_node: MakeNode, broker: Broker, plain: PikaPeer, topic: str
) -> None:
    node = make_node(broker.with_options(exchange=f"{topic}.x"))
    got = Collected()
    node.create_subscriber("a.*", got)
    heard = plain.subscribe("a.#", exchange=f"{topic}.x")

    plain.publish("a.b", b"1", exchange=f"{topic}.x")
    plain.publish("a.b", b"2")  # to amq.topic
    node.create_publisher("a.c").publish(3)

    assert got.wait(2) == [1, 3]
    assert [h.body for h in heard.wait(2)] == [b"1", b"3"]
    plain.channel.exchange_delete(f"{topic}.x")


def test_a_program_that_only_publishes_makes_its_exchange_as_well(
    make_node: MakeNode, broker: Broker, plain: PikaPeer, topic: str
) -> None:
    node = make_node(broker.with_options(exchange=f"{topic}.x"))
    publisher = node.create_publisher("a")
    publisher.publish(1)

    eventually(lambda: _is_there(plain, f"{topic}.x"), lambda: publisher.stats)
    assert publisher.stats.rejected == 0
    plain.channel.exchange_delete(f"{topic}.x")


def _is_there(plain: PikaPeer, exchange: str) -> bool:
    channel = plain.connection.channel()
    try:
        channel.exchange_declare(exchange, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    channel.close()
    return True
