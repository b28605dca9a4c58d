"""Events between ours and released peers, on every broker."""

from __future__ import annotations

from typing import Any

from collected import Collected
from commlib.events import Event
from commlib.node import Node
from interop.cells import FROM_PEER, TO_PEER, Row, works
from interop.released import Received, Released


def happened(topic: str) -> dict[str, Any]:
    """The fields of an event."""
    payload = {"by": -1, "lamps": ["a"]}
    return {"name": "TurnOn", "uri": topic, "description": "somebody came", "payload": payload}


@works(Row.EVENT, TO_PEER)
def test_an_event_of_ours_reaches_a_subscriber_of_the_peer(
    peer: Released, node: Node, topic: str
) -> None:
    topic = f"{topic}.lights.on"
    got = peer.subscribe(topic)

    node.create_event_emitter().send_event(Event(**happened(topic)))

    assert got.first == Received("dict", happened(topic), None)


@works(Row.EVENT, FROM_PEER, "0.6.3")
def test_an_event_of_the_peer_reaches_subscribers_of_ours(
    peer: Released, node: Node, topic: str
) -> None:
    topic = f"{topic}.lights.on"
    typed, plain = Collected(), Collected()
    node.create_subscriber(topic, typed, Event)
    node.create_subscriber(topic, plain)

    peer.ask("send_event", **happened(topic))

    assert typed.first == Event(**happened(topic))
    assert plain.first == happened(topic)
