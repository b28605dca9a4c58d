"""Beside peers that never heard of commlib: command lines, flows, and devices of a house."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from brokers import Broker, Heard, PlainPeer
from collected import Collected
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.serializer import JSONSerializer, TextSerializer
from messages import AddTwoInts, Sonar


@pytest.fixture(params=["mqtt", "mqtt311"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Mosquitto, spoken to by ours in MQTT 5 and in 3.1.1."""
    return Broker.named(request.param, request.getfixturevalue)


@pytest.fixture
def plain(broker: Broker) -> Iterator[PlainPeer]:
    """mosquitto_pub and mosquitto_sub."""
    with PlainPeer(broker.url) as peer:
        yield peer


# ---- publish and subscribe ----


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("separator", [".", "/"])
def test_what_mosquitto_pub_sends_reaches_a_typed_subscriber(
    node: Node, plain: PlainPeer, topic: str, separator: str, qos: int
) -> None:
    got = Collected()
    node.create_subscriber(f"{topic}{separator}x", got, Sonar)

    plain.publish(f"{topic}/x", '{"distance": 2}', qos=qos)

    assert got.first == Sonar(distance=2.0)


@pytest.mark.parametrize("separator", [".", "/"])
def test_mosquitto_sub_shows_json_with_an_envelope(
    node: Node, plain: PlainPeer, topic: str, separator: str
) -> None:
    got = plain.subscribe(f"{topic}/+")

    node.create_publisher(f"{topic}{separator}x", Sonar).publish(Sonar(distance=2.5))

    shown = json.loads(got.first.payload)
    assert got.first.topic == f"{topic}/x"
    assert shown.keys() == {"header", "data"}
    assert shown["data"]["distance"] == 2.5
    assert shown["header"]["properties"]["content_type"] == "application/json"


@pytest.mark.parametrize("separator", [".", "/"])
def test_mosquitto_sub_shows_json_without_an_envelope_if_told_so(
    node: Node, plain: PlainPeer, topic: str, separator: str
) -> None:
    got = plain.subscribe(f"{topic}/+")

    node.create_publisher(f"{topic}{separator}x", envelope=False).publish({"distance": 2.5})

    assert got.first == Heard(f"{topic}/x", b'{"distance":2.5}')


# ---- calls, as a flow of Node-RED makes them ----


def request(reply_to: str, **data: Any) -> str:
    """The least that is a request."""
    return json.dumps({"header": {"reply_to": reply_to}, "data": data})


@pytest.mark.parametrize("name", ["x", "flows/1/answer"])
def test_the_least_that_is_a_request_is_answered(
    node: Node, plain: PlainPeer, topic: str, name: str
) -> None:
    asked = Collected()
    node.create_rpc(f"{topic}.light", lambda request: asked(request) or {"on": True})
    answers = plain.subscribe(f"{topic}/{name}")

    plain.publish(f"{topic}/light", request(f"{topic}/{name}"))

    assert json.loads(answers.first.payload)["data"] == {"on": True}
    assert asked.items == [{}]


def test_a_typed_service_answers_a_request_and_refuses_another_one(
    node: Node, plain: PlainPeer, topic: str
) -> None:
    node.create_rpc(f"{topic}/add", lambda two: {"c": two.a + two.b}, AddTwoInts)
    answers = plain.subscribe(f"{topic}/answer")

    plain.publish(f"{topic}/add", request(f"{topic}/answer", a=1, b=-3))
    plain.publish(f"{topic}/add", request(f"{topic}/answer", a="one"))

    good, bad = (json.loads(answer.payload) for answer in answers.wait(2))
    assert (good["data"], good["header"].get("error")) == ({"c": -2}, None)
    assert bad["data"] == {}
    assert "Expected `int`" in bad["header"]["error"]["message"]


def test_a_request_without_a_place_for_the_answer_is_carried_out(
    node: Node, plain: PlainPeer, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(f"{topic}.light", lambda request: asked(request) or {})

    plain.publish(f"{topic}/light", '{"header":{},"data":{"on":true}}')

    assert asked.first == {"on": True}


# ---- devices ----


class Climate(PubSubMessage):
    """Some of what a sensor tells; others of its fields are not of interest."""

    temperature: float
    humidity: float = 0.0


class Told(NamedTuple):
    """What a device publishes, and what that is for an untyped and for a typed subscriber."""

    topic: str
    payload: str
    data: Any
    kind: Any
    typed: Any


ZIGBEE = {"battery": 97, "humidity": 45.2, "linkquality": 120, "temperature": -3.5}
TASMOTA = {"Time": "2026-01-02T03:04:05", "ENERGY": {"Power": 12, "Total": 3.185}}

TOLD = [
    Told("zigbee2mqtt/0x00158d00045b2a", json.dumps(ZIGBEE), ZIGBEE, dict, ZIGBEE),
    Told("zigbee2mqtt/bath.1", json.dumps(ZIGBEE), ZIGBEE, Climate, Climate(-3.5, 45.2)),
    Told("zigbee2mqtt/bath/availability", "online", "online", str, "online"),
    Told("tele/plug/SENSOR", json.dumps(TASMOTA), TASMOTA, dict, TASMOTA),
    Told("tele/plug/LWT", "Online", "Online", str, "Online"),
    Told("stat/plug/POWER", "ON", "ON", str, "ON"),
    Told("esphome/sensor/hall/state", "21.5", 21.5, float, 21.5),
    Told("esphome/sensor/cellar/state", "-3", -3, float, -3.0),
    Told("esphome/number/speed/state", "42", 42, int, 42),
    Told("esphome/binary_sensor/door/state", "OFF", "OFF", str, "OFF"),
    Told("rfid/reader/tag", "00421", "00421", str, "00421"),
]


@pytest.mark.parametrize("retain", [False, True], ids=["", "retained"])
@pytest.mark.parametrize("told", TOLD, ids=lambda told: f"{told.payload[:9]}-{told.kind.__name__}")
def test_what_a_device_tells_arrives_as_data(
    node: Node, plain: PlainPeer, topic: str, told: Told, retain: bool
) -> None:
    at = f"{topic}/{told.topic}"
    untyped, typed = Collected(), Collected()
    if retain:
        plain.publish(at, told.payload, retain=True)

    node.create_subscriber(at, untyped)
    node.create_subscriber(at, typed, told.kind)
    if not retain:
        plain.publish(at, told.payload)

    assert untyped.first == told.data
    assert typed.first == told.typed


@pytest.mark.parametrize("text", ["90421", "21.5", "true", "null", '{"a": 1}'])
def test_text_is_text_where_it_is_wanted_though_it_may_be_something_else(
    node: Node, plain: PlainPeer, topic: str, text: str
) -> None:
    got = Collected()
    node.create_subscriber(f"{topic}/rfid/tag", got, str)

    for told in (text, "last"):
        plain.publish(f"{topic}/rfid/tag", told)

    assert got.until("last") == [text]


@pytest.mark.parametrize("text", ["heat", "open", "0x1F"])  # they could be base64
def test_bytes_are_what_was_sent(node: Node, plain: PlainPeer, topic: str, text: str) -> None:
    got = Collected()
    node.create_subscriber(f"{topic}/climate/mode", got, bytes)

    plain.publish(f"{topic}/climate/mode", text)

    assert got.first == text.encode()


def test_a_sensor_that_does_not_know_tells_nan(node: Node, plain: PlainPeer, topic: str) -> None:
    got = Collected()
    node.create_subscriber(f"{topic}/sensor/state", got, float)

    plain.publish(f"{topic}/sensor/state", "nan")

    assert math.isnan(got.first)


def test_what_is_no_number_is_refused_and_counted_where_one_is_wanted(
    node: Node, plain: PlainPeer, topic: str
) -> None:
    got = Collected()
    subscriber = node.create_subscriber(f"{topic}/sensor/state", got, float)

    for text in ("unavailable", "", "21.5"):
        plain.publish(f"{topic}/sensor/state", text)

    assert got.wait() == [21.5]
    assert subscriber.stats.refused == 2


def test_all_devices_are_heard_by_a_pattern_under_the_names_that_they_have(
    node: Node, plain: PlainPeer, topic: str
) -> None:
    got = Collected()
    plain.publish(f"{topic}/bath.1/availability", "online", retain=True)
    node.create_psubscriber(f"{topic}/*/availability", got)
    got.wait()

    plain.publish(f"{topic}/0x00158d.2/availability", "offline")

    assert got.wait(2) == [
        ("online", f"{topic}/bath.1/availability"),
        ("offline", f"{topic}/0x00158d.2/availability"),
    ]


@pytest.mark.parametrize(
    ("command", "serializer", "payload"),
    [
        ({"state": "ON", "brightness": 10}, JSONSerializer, b'{"state":"ON","brightness":10}'),
        (21.5, JSONSerializer, b"21.5"),
        ("ON", TextSerializer, b"ON"),
    ],
)
def test_a_device_is_told_what_it_understands(
    node: Node, plain: PlainPeer, topic: str, command: Any, serializer: Any, payload: bytes
) -> None:
    got = plain.subscribe(f"{topic}/lamp/set")

    options: Any = {"serializer": serializer, "envelope": False}
    node.create_publisher(f"{topic}/lamp/set", **options).publish(command)

    assert got.first == Heard(f"{topic}/lamp/set", payload)


def test_what_ours_lets_the_broker_keep_is_there_for_a_plain_peer_that_comes_later(
    node: Node, plain: PlainPeer, topic: str
) -> None:
    sooner = plain.subscribe(f"{topic}/state")

    node.create_publisher(f"{topic}.state", envelope=False, retain=True).publish({"on": True})

    assert sooner.first == Heard(f"{topic}/state", b'{"on":true}')
    later = plain.subscribe(f"{topic}/state")
    assert later.wait() == [Heard(f"{topic}/state", b'{"on":true}', stored=True)]
