"""Which ports a topic concerns, on brokers that spell names and patterns differently."""

from __future__ import annotations

import pytest

from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib.cli._topic_ports import (
    concerned,
    is_inner,
    is_published,
    matcher,
    mismatches_of,
    topics_of,
)
from commlib.transports import resolve

TRAITS = {
    name: resolve(f"{name}://x").make_transport().traits
    for name in ("redis", "mqtt", "amqp", "memory")
}
ALL = tuple(TRAITS)


def port(kind: Kind, name: str, kind_of_message: str = "", **parts: str) -> EndpointInfo:
    return EndpointInfo(kind, name, kind_of_message, parts)


def node(*endpoints: EndpointInfo, name: str = "robot") -> NodeInfo:
    return NodeInfo(name, name, endpoints=endpoints)


@pytest.mark.parametrize("broker", ALL)
@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.b.c", False),
        ("*", "anything", True),
        ("a/*", "a/b/c", True),
        ("a/b.c", "a/b.c", True),
    ],
)
def test_a_pattern_matches_the_same_names_on_every_broker(
    broker: str, pattern: str, name: str, matches: bool
) -> None:
    assert matcher(pattern, TRAITS[broker])(name) is matches


@pytest.mark.parametrize(
    ("broker", "pattern", "name", "matches"),
    [
        ("mqtt", "a/+/c", "a/b/c", True),
        ("mqtt", "a/+/c", "a/b/b/c", False),
        ("mqtt", "a/#", "a.b.c", True),
        ("mqtt", "a/+", "a/b.c", True),
        ("mqtt", "a.b", "a/b", True),
        ("mqtt", "a.*", "a/b", True),
        ("amqp", "a.#", "a.b.c", True),
        ("amqp", "#.c", "a.b.c", True),
        ("amqp", "a.#", "b.c", False),
        ("redis", "a.?", "a.b", True),
        ("redis", "a.[^b]", "a.b", False),
        ("redis", "a.[bc]", "a.c", True),
        ("redis", "a.b", "a/b", False),
    ],
)
def test_what_a_broker_knows_besides_is_understood(
    broker: str, pattern: str, name: str, matches: bool
) -> None:
    assert matcher(pattern, TRAITS[broker])(name) is matches


@pytest.mark.parametrize("broker", ALL)
def test_topics_are_listed_with_their_types_and_who_has_to_do_with_them(broker: str) -> None:
    nodes = [
        node(port("publisher", "b", "Sonar"), port("service", "b"), port("subscriber", "a.*")),
        node(port("subscriber", "b", "Reading"), port("subscriber", "b", "Sonar"), name="other"),
    ]
    pattern, topic = topics_of(nodes, None, TRAITS[broker])
    assert (pattern.topic, pattern.types, pattern.subscribers) == ("a.*", [], 1)
    assert (topic.topic, topic.types) == ("b", ["Reading", "Sonar"])
    assert (topic.publishers, topic.subscribers, topic.messages) == (1, 2, None)


@pytest.mark.parametrize(("broker", "count"), [("mqtt", 1), ("redis", 2)])
def test_two_spellings_of_one_topic_are_one_where_the_broker_says_so(
    broker: str, count: int
) -> None:
    found = topics_of([node(port("publisher", "a/b"))], {"a.b": 7}, TRAITS[broker])
    assert len(found) == count
    assert sum(each.messages or 0 for each in found) == 7


def test_a_topic_without_messages_has_none_when_they_were_counted() -> None:
    (found,) = topics_of([node(port("publisher", "a"))], {}, TRAITS["redis"])
    assert found.messages == 0


@pytest.mark.parametrize("broker", ALL)
def test_a_topic_concerns_its_ports_and_the_patterns_that_match_it(broker: str) -> None:
    own, pattern = port("publisher", "a.b"), port("subscriber", "a.*")
    others = port("publisher", "*"), port("publisher", "a.c"), port("service", "a.b")
    found = concerned([node(own, pattern, *others)], "a.b", TRAITS[broker])
    assert [each for _, each in found] == [own, pattern]


def test_a_pattern_concerns_the_topics_that_it_matches() -> None:
    own, topic = port("subscriber", "a.*"), port("publisher", "a.b")
    found = concerned([node(own, topic, port("publisher", "b"))], "a.*", TRAITS["redis"])
    assert [each for _, each in found] == [own, topic]


def test_a_pattern_of_a_stranger_that_is_none_is_passed_over() -> None:
    own = port("publisher", "a")
    nodes = [node(own, port("subscriber", "a#/+b"), port("subscriber", "#.a.#.b"))]
    assert [each for _, each in concerned(nodes, "a", TRAITS["mqtt"])] == [own]


def test_who_reads_a_pattern_is_compared_with_who_publishes_what_it_matches() -> None:
    number = {"type": "object", "properties": {"x": {"type": "number"}}}
    text = {"type": "object", "properties": {"x": {"type": "string"}}}
    writer = NodeInfo(
        "writer",
        "1",
        endpoints=(port("publisher", "a.b", "N", message="n"),),
        schemas={"n": number},
    )
    reader = NodeInfo(
        "reader", "2", endpoints=(port("subscriber", "a.*", "T", message="t"),), schemas={"t": text}
    )
    ports = concerned([writer, reader, reader], "a.b", TRAITS["amqp"])
    (wrong,) = mismatches_of(ports)
    assert wrong.why == ("x is sent as number and read as string",)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("commlib.discovery.alive", True), ("commlib/x", True), ("rpc-abc/1", True), ("rpc", False)],
)
def test_topics_of_commlib_itself_are_told_from_others(name: str, hidden: bool) -> None:
    assert is_inner(name) is hidden


@pytest.mark.parametrize("broker", ALL)
@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        *(("sonar", True), ("sonar.*", False), ("*", True), ("lidar", False)),
        *(("drive.feedback", True), ("drive.*", True), ("drive", False), ("drive.set", False)),
        *(("robot.heartbeat", True), ("robot.*", True), ("robot.sonar", False)),
    ],
)
def test_publishers_actions_and_nodes_publish(broker: str, topic: str, expected: bool) -> None:
    robot = NodeInfo(
        "robot",
        "1",
        namespace="robot",
        endpoints=(port("publisher", "sonar"), port("action", "drive")),
    )
    assert is_published([robot], topic, TRAITS[broker]) is expected
