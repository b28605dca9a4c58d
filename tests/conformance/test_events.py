"""Events, on every broker: told at their address, received by ordinary subscribers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import pytest

from brokers import Broker
from collected import Collected
from commlib import aio
from commlib.events import Event, EventEmitter
from commlib.exceptions import EndpointClosed, SerializationError
from commlib.node import Node


def test_an_event_reaches_a_subscriber_of_its_address(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(f"{topic}.lights.on", got, Event)
    emitter = node.create_event_emitter()
    event = Event("TurnOn", f"{topic}.lights.on", "somebody came", {"lux": 200, "lamps": ["a"]})

    emitter.send_event(event)

    assert got.first == event
    assert emitter.stats.sent == 1


def test_one_emitter_tells_each_event_at_its_own_address(node: Node, topic: str) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.*", lambda event, uri: got((event.name, uri)), Event)
    emitter = node.create_event_emitter("doors")

    for name in ("open", "closed", "open"):
        emitter.send_event(Event(name=name, uri=f"{topic}.{name}"))

    assert got.wait(3) == [(name, f"{topic}.{name}") for name in ("open", "closed", "open")]


def test_a_subscriber_that_knows_no_events_gets_their_data(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    node.create_event_emitter().send_event(Event(name="open", uri=topic))

    assert got.first == {"name": "open", "uri": topic, "description": "", "payload": {}}


@pytest.mark.parametrize(
    "payload", [{}, {"a": {"b": [1, None]}}, OrderedDict(z=1, a=OrderedDict(b=2))], ids=str
)
def test_any_dict_is_a_payload(node: Node, topic: str, payload: dict[str, Any]) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Event)

    node.create_event_emitter().send_event(Event(name="open", uri=topic, payload=payload))

    assert got.first.payload == payload
    assert list(got.first.payload) == list(payload)


def test_an_event_is_told_as_it_was_when_it_was_sent(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Event)
    emitter = node.create_event_emitter()
    event = Event(name="count", uri=topic, payload={"n": 0})

    for number in range(50):
        event.payload["n"] = number
        emitter.send_event(event)

    assert [event.payload["n"] for event in got.wait(50)] == list(range(50))


@pytest.mark.parametrize("uri", ["lights.*", "", " "])
def test_an_event_without_an_address_is_refused(node: Node, uri: str) -> None:
    with pytest.raises(ValueError, match="uri"):
        node.create_event_emitter().send_event(Event(name="open", uri=uri))


def test_what_cannot_be_written_is_refused(node: Node, topic: str) -> None:
    emitter = node.create_event_emitter()
    with pytest.raises(SerializationError):
        emitter.send_event(Event(name="open", uri=topic, payload={"door": object()}))
    assert emitter.stats.sent == 0


def test_an_emitter_needs_no_node(broker: Broker, node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Event)

    emitter = EventEmitter(conn_params=broker.url, debug=True)
    emitter.send_event(Event(name="open", uri=topic))
    assert got.first.name == "open"

    emitter.stop()
    with pytest.raises(EndpointClosed):
        emitter.send_event(Event(name="closed", uri=topic))
    with emitter:
        emitter.send_event(Event(name="open again", uri=topic))
        assert got.wait(2)[1].name == "open again"


async def test_events_are_there_for_asyncio_as_well(broker: Broker, topic: str) -> None:
    got = Collected()
    async with aio.Node("house", broker.url) as node:
        await node.create_subscriber(topic, got, Event).run()
        await node.create_event_emitter().send_event(Event(name="open", uri=topic))
        async with aio.EventEmitter(conn_params=broker.url) as emitter:
            await emitter.send_event(Event(name="closed", uri=topic))
        names = [event.name for event in await asyncio.to_thread(got.wait, 2)]
    assert sorted(names) == ["closed", "open"]
