"""The verbs on AMQP, without a broker: what they write, and what they refuse to."""

from __future__ import annotations

from typing import Any

import pytest
from pika import spec

from amqp_wire import FRAME, frames_in
from commlib._packet import PROPERTIES, Fault, Header, Packet, Properties
from commlib.exceptions import CommlibError, SerializationError
from commlib.transports.amqp import AmqpTransport, ConnectionParameters
from commlib.transports.base import Address

DIRECT = "amq.rabbitmq.reply-to"
LONG = "x" * 256


@pytest.fixture
def transport() -> AmqpTransport:
    return ConnectionParameters(exchange="robots").make_transport()


def written(transport: AmqpTransport) -> list[Any]:
    """The frames that wait for a connection."""
    return frames_in(b"".join(transport._outbox._frames))


# ---- what is written ----


def test_a_message_goes_to_the_exchange_with_its_topic(transport: AmqpTransport) -> None:
    header = Header(5, PROPERTIES, "ab", 0)
    for topic in ("a.b", "a/b", "ü" * 100):
        assert transport.publish(topic, Packet(b"{}", "", header))
        publish, about, body = written(transport)[-3:]
        assert (publish.method.exchange, publish.method.routing_key) == ("robots", topic)
        assert publish.method.mandatory is False
        assert about.properties.headers == {"origin": "ab", "seq": 0}
        assert (about.body_size, body.fragment) == (2, b"{}")


def test_a_request_without_a_call_goes_to_the_queue(transport: AmqpTransport) -> None:
    transport.send("work", Packet(b"1", "", Header(reply_to="there"), correlation_id="c"))
    publish, about, _ = written(transport)
    assert (publish.method.exchange, publish.method.routing_key) == ("", "work")
    assert (about.properties.reply_to, about.properties.correlation_id) == ("there", "c")


def test_a_reply_goes_to_its_address_with_the_id_of_the_call(transport: AmqpTransport) -> None:
    transport.send(Address("there", "c7"), Packet(b"1", "", Header(id="c7"), correlation_id="own"))
    publish, about, _ = written(transport)
    assert (publish.method.exchange, publish.method.routing_key) == ("", "there")
    assert (about.properties.correlation_id, about.properties.headers) == ("c7", None)


def test_a_call_in_an_envelope_has_its_address_beside_it_all_the_same(
    transport: AmqpTransport,
) -> None:
    envelope = b'{"header":{"reply_to":"x"},"data":1}'
    transport.send("work", Packet(envelope, correlation_id="c", reply_to="there"))
    _, about, body = written(transport)
    assert (about.properties.reply_to, about.properties.correlation_id) == ("there", "c")
    assert about.properties.headers is None
    assert body.fragment == envelope


def test_before_it_is_known_what_the_broker_takes_frames_are_short(
    transport: AmqpTransport,
) -> None:
    transport.publish("a", Packet(bytes(3 * FRAME)))
    _, about, *bodies = written(transport)
    assert about.body_size == sum(len(body.fragment) for body in bodies) == 3 * FRAME
    assert max(len(body.marshal()) for body in bodies) <= FRAME


def test_at_qos_1_a_message_outlives_the_broker(transport: AmqpTransport) -> None:
    transport.publish("a", Packet(b"1", qos=1))
    assert written(transport) == []
    publish, about, _ = frames_in(b"".join(transport._reliable._frames))
    assert isinstance(publish.method, spec.Basic.Publish)
    assert about.properties.delivery_mode == 2


# ---- what is refused ----


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("topic", [LONG, "é" * 128, "a.*", "*", "a\x00", "", "a\ud800"])
def test_a_name_that_is_none_on_amqp_is_refused(
    transport: AmqpTransport, topic: str, qos: int
) -> None:
    with pytest.raises(SerializationError):
        transport.publish(topic, Packet(b"1", qos=qos))
    for to in (topic, Address(topic, "c")):
        with pytest.raises(SerializationError):
            transport.send(to, Packet(b"1"))
    assert written(transport) == []


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(
    "header",
    [
        Header(reply_to=LONG),
        Header(reply_to="a\ud800"),
        Header(properties=Properties(LONG)),
        Header(properties=Properties("a", LONG)),
        Header(5, PROPERTIES, "a\ud800", 1),
        Header(timestamp=2**64),
        Header(2**64, PROPERTIES, "ab", 1),
        Header(5, PROPERTIES, "ab", 2**63),
        Header(deadline=2**63),
        Header(tracestate="x" * 200_000),
        Header(hops=("x" * 200_000,)),
        Header(id="x" * 200_000),
        Header(origin="x" * 200_000, seq=1, timestamp=5, properties=PROPERTIES),
        Header(error=Fault("T" * 200_000, "m")),
    ],
    ids=range(14),
)
def test_a_header_that_has_no_room_is_refused(
    transport: AmqpTransport, header: Header, qos: int
) -> None:
    """It may come through a bridge, from a peer on another broker."""
    with pytest.raises(SerializationError):
        transport.publish("a", Packet(b"1", "", header, qos=qos))
    with pytest.raises(SerializationError):
        transport.send(Address("there", "c"), Packet(b"1", "", header))
    assert written(transport) == []


@pytest.mark.parametrize("id", [LONG, "é" * 128, "a\ud800"])
def test_an_id_that_has_no_room_is_refused(transport: AmqpTransport, id: str) -> None:
    with pytest.raises(SerializationError):
        transport.send(Address("there", id), Packet(b"1"))
    with pytest.raises(SerializationError):
        transport.send("work", Packet(b"1", correlation_id=id))
    assert written(transport) == []


@pytest.mark.parametrize("ttl", [float("inf"), float("nan"), 1e300])
def test_a_time_to_live_that_is_none_raises_no_other_error(
    transport: AmqpTransport, ttl: float
) -> None:
    try:
        transport.send("work", Packet(b"1", ttl=ttl))
    except CommlibError:
        return
    _, about, _ = written(transport)
    # RabbitMQ closes the channel for more than 2**32 - 1 ms.
    assert about.properties.expiration is None or int(about.properties.expiration) < 2**32


@pytest.mark.parametrize("message", ["m" * 200_000, "é" * 100_000, "🤖" * 50_000])
def test_the_text_of_an_error_is_cut_where_there_is_no_room(
    transport: AmqpTransport, message: str
) -> None:
    header = Header(5, PROPERTIES, id="c7", error=Fault("Problem", message))
    transport.send(Address("there", "c7"), Packet(b"{}", "", header))
    _, about, _ = written(transport)
    error = about.properties.headers["error"]
    assert error["type"] == "Problem"
    assert message.startswith(error["message"])
    assert FRAME - 200 < len(about.marshal()) <= FRAME
    assert header.error is not None
    assert header.error.message == message, "it is the caller's"


def test_the_address_of_calls_is_for_calls_alone(transport: AmqpTransport) -> None:
    """The broker closes the channel on which nobody waits for replies."""
    packet = Packet(b"1", "", Header(reply_to=DIRECT))
    for refused in (
        lambda: transport.publish("a", packet),
        lambda: transport.send("work", packet),
        lambda: transport.send(Address("there", "c"), packet),
    ):
        with pytest.raises(SerializationError, match=DIRECT):
            refused()
    assert written(transport) == []
