"""Who takes what comes on a connection to an MQTT broker, found out once for each topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from commlib._packet import Packet
from commlib.exceptions import ConnectionLost
from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_frames as frames
from commlib.transports import _mqtt_routes as module
from commlib.transports._mqtt_control import V5
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_routes import Route, Taker
from commlib.transports.base import Handler
from mqtt_wire import Wire


@pytest.fixture
def make() -> Callable[..., Wire]:
    return lambda limit=1000: Wire(V5, limit)


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


class Filter(NamedTuple):
    topic: str
    handlers: tuple[Handler, ...]


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

    def _of_number(self, number: int, topic: str) -> Taker | None:
        self.numbers.append(number)
        return Filter(f"{topic}!", (self._take,)) if self._filters.get(number) == topic else None

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


async def test_what_is_remembered_has_a_bound(
    make: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROUTES", 10)
    broker = make()
    got: list[Packet] = []
    broker.link.routes.on_topic = lambda topic, published: (((got.append, topic),), True)
    for number in range(35):
        broker.comes(broker.publish(f"t{number}", b""))
    assert len(got) == 35
    assert len(broker.link.routes.by_topic) <= 10


async def test_parents_that_are_remembered_have_a_bound(
    make: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROUTES", 10)
    broker = make()
    asked = Asked(broker)
    for number in range(35):
        asked.comes(b"in/%d/a" % number, b"")
    assert len(asked.got) == 35
    assert len(broker.link.routes.siblings) <= 10
