"""Discovery: every node is known, as it is, for as long as it is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from announced import Add, Drive, Number, Word
from brokers import Broker
from collected import DEADLINE, Collected, eventually, met
from commlib import aio
from commlib._discovery import ALIVE, ANNOUNCE, PROBE, answer_topic
from commlib.aio import _beacon
from commlib.discovery import Discovery, NodeInfo
from commlib.node import Node
from raw_peer import RawPeer


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited as long as it is for the good of others."""
    monkeypatch.setattr("commlib.aio.node.APPEARS_AFTER", 0.01)
    monkeypatch.setattr(_beacon, "PAUSE", 0.05)


@pytest.fixture
def found(broker: Broker) -> Iterator[Discovery]:
    """A discovery that listens, on a connection of its own."""
    with Discovery(broker.url) as found:
        yield found


def named(found: Discovery, name: str) -> list[NodeInfo]:
    return [info for info in found.nodes if info.name == name]


def ports(info: NodeInfo) -> set[tuple[str, ...]]:
    return {(port.kind, port.name, port.type, *sorted(port.parts)) for port in info.endpoints}


def test_a_node_is_known_from_its_birth_to_its_death(
    broker: Broker, make_node: Callable[..., Node], topic: str
) -> None:
    changes = Collected()

    def on_change(event: str, info: NodeInfo) -> None:
        if info.name == node.node_name:
            changes((event, info))

    node = make_node()
    shy = make_node(discovery=False)
    with Discovery(broker.url, on_change) as found:
        assert changes.first[0] == "birth"
        node.create_publisher(topic, Number)
        assert changes.wait(2)[-1][0] == "change"
        node.stop()
        assert changes.wait(3)[-1][0] == "death"
        node.run()
        assert changes.wait(4)[-1][0] == "birth"
        (first, *_, again) = (info for _, info in changes.items)
        assert first.pid == again.pid == os.getpid()
        assert first.id != again.id
        assert len(ports(again)) == 1
        assert named(found, shy.node_name) == []


def test_who_comes_late_learns_all_by_asking(
    broker: Broker, make_node: Callable[..., Node], topic: str
) -> None:
    node = make_node()
    node.create_publisher(f"{topic}.sonar", Number)
    node.create_psubscriber(f"{topic}.*", print)
    node.create_rpc(f"{topic}.add", print, Add)
    node.create_rpc_client(f"{topic}.find", Add)
    node.create_action(f"{topic}.drive", Drive, print)
    node.create_action_client(f"{topic}.charge", Drive)
    node.create_wsubscriber().subscribe(f"{topic}.light", print, Word)
    node.create_rpc_server(f"{topic}.arm", {"move": (print, Add)})
    node.create_event_emitter()
    with Discovery(broker.url) as early:
        eventually(lambda: any(len(info.endpoints) == 9 for info in named(early, node.node_name)))
    late = Discovery(broker.url)  # it runs from the first question on
    (info,) = [each for each in late.ask(DEADLINE) if each.name == node.node_name]
    assert 0 < late.ping(info, DEADLINE) < DEADLINE
    late.stop()
    pinging = Discovery(broker.url)
    assert 0 < pinging.ping(info, DEADLINE) < DEADLINE
    pinging.stop()
    goal = ("feedback", "goal", "result")
    assert ports(info) == {
        ("publisher", f"{topic}.sonar", "Number", "message"),
        ("subscriber", f"{topic}.*", ""),
        ("service", f"{topic}.add", "Add", "request", "response"),
        ("client", f"{topic}.find", "Add", "request", "response"),
        ("action", f"{topic}.drive", "Drive", *goal),
        ("action_client", f"{topic}.charge", "Drive", *goal),
        ("subscriber", f"{topic}.light", "Word", "message"),
        ("service", f"{topic}.arm.move", "Add", "request", "response"),
        ("publisher", "*", "Event", "message"),
    }
    fields = {
        part: set(schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"])
        for port in info.endpoints
        for part in port.parts
        if port.kind in ("service", "action") and (schema := info.schema(port, part))
    }
    assert fields == {
        **{"request": {"a"}, "response": {"b"}},
        **{"goal": {"x"}, "result": {"y"}, "feedback": {"z"}},
    }


async def test_a_mismatch_is_warned_of_once_at_both_ends(
    broker: Broker, make_node: Callable[..., Node], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "commlib.discovery" and topic in record.getMessage()
        ]

    # One of them is on another loop, so it is heard of as from another process.
    there = await asyncio.to_thread(make_node)
    there.create_subscriber(topic, print, Word)
    there.create_subscriber(f"{topic}.fits", print, Number)
    async with aio.Node(broker.unique("here"), broker.url) as here:
        here.create_publisher(f"{topic}.fits", Number)
        here.create_publisher(topic, Number)
        await met(lambda: len(told()) == 2)
        here.create_publisher(topic, Number)
        other = here.create_publisher(f"{topic}.other", Number)
        there.create_subscriber(f"{topic}.other", print, Word)
        await met(lambda: len(told()) == 4)
        await other.stop()
        first, second, *others = told()
    for warning in (first, second):
        assert f"{here.node_name} (pid {os.getpid()}" in warning
        assert f"{there.node_name} (pid {os.getpid()}" in warning
        assert "publishes Number" in warning
        assert "reads Word" in warning
        assert "value is sent as integer and read as string" in warning
    assert all(f"{topic}.other" in warning for warning in others)
    await asyncio.to_thread(there.stop)


def test_publishers_that_deliver_unlike_are_warned_of(
    broker: Broker, make_node: Callable[..., Node], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    levels = broker.traits.delivery_levels
    if len(levels) < 2:
        pytest.skip("the broker does not deliver at QoS 1")
    node = make_node()
    node.create_publisher(topic, Number, qos=levels[0])
    node.create_publisher(topic, Number, qos=levels[1])
    both = [f"the one at QoS {one}, the other at QoS {1 - one}" for one in levels[:2]]

    def is_told() -> bool:
        told = [record.getMessage() for record in caplog.records]
        return any(text in line for text in both for line in told)

    eventually(is_told)


def test_garbage_on_the_topics_of_discovery_harms_nobody(
    broker: Broker, make_node: Callable[..., Node], found: Discovery, raw: RawPeer
) -> None:
    before = make_node()
    eventually(lambda: len(named(found, before.node_name)) == 1)
    answers = raw.subscribe(answer_topic("abc"))
    garbage = [
        *(b"", b"\x00\xff" * 50, b"null", b"[]", b'{"asker":"#"}', b'{"process":7}'),
        b'{"event":"birth","process":"p","nodes":[{"name":"\\n","id":"n1","process":"p"}]}',
        b'{"event":"death","ids":[' + b",".join([b'"x"'] * 5000) + b"]}",
    ]
    for payload in garbage:
        for topic in (ANNOUNCE, ALIVE, PROBE):
            raw.publish(topic, payload)
    raw.publish(PROBE, b'{"asker":"abc"}')
    after = make_node()
    eventually(lambda: len(named(found, after.node_name)) == 1)
    assert len(named(found, before.node_name)) == 1
    assert not any("\n" in info.name for info in found.nodes)
    assert answers.first
