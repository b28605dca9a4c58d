"""The grammar of patterns, on every broker alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers import Broker
from collected import Collected
from commlib.node import Node
from messages import Sonar
from raw_peer import RawPeer

MakeNode = Callable[..., Node]

DOTTED = ["front", "front.sonar", "back.sonar", "front.sonar.raw", "front.left.sonar", "front.imu"]
SLASHED = [name.replace(".", "/") for name in DOTTED]

CASES = [
    # names that are published, pattern, which of them it matches
    (DOTTED, "*", DOTTED),
    (DOTTED, "front.*", ["front.sonar", "front.sonar.raw", "front.left.sonar", "front.imu"]),
    (DOTTED, "*.sonar", ["front.sonar", "back.sonar"]),
    (DOTTED, "*.*.sonar", ["front.left.sonar"]),
    (DOTTED, "*.*", [name for name in DOTTED if "." in name]),
    (DOTTED, "front.*.*", ["front.sonar.raw", "front.left.sonar"]),
    (DOTTED, "front.*.raw", ["front.sonar.raw"]),
    (DOTTED, "front.sonar.*", ["front.sonar.raw"]),
    (SLASHED, "*", SLASHED),
    (SLASHED, "front/*", ["front/sonar", "front/sonar/raw", "front/left/sonar", "front/imu"]),
    (SLASHED, "*/sonar", ["front/sonar", "back/sonar"]),
    (SLASHED, "front/*/raw", ["front/sonar/raw"]),
    (["0x00.1/state", "0x00/1/state"], "*/state", ["0x00.1/state"]),
    (["a b.c", "ä.c", "a[1].c", "a?.c", "a^.c", "a\\.c"], "*.c", ...),
]


@pytest.mark.parametrize(
    ("names", "pattern", "matched"), CASES, ids=[f"{names[0]}-{p}" for names, p, _ in CASES]
)
def test_a_pattern_gets_what_its_grammar_says_in_its_own_notation(
    node: Node,
    make_node: MakeNode,
    broker: Broker,
    names: list[str],
    pattern: str,
    matched: list[str],
) -> None:
    separator = "/" if "/" in names[-1] else "."
    prefix = broker.unique("robot") + separator
    names = [name for name in names if broker.takes(name)]
    matched = names if matched is ... else matched  # type: ignore[comparison-overlap]
    got = Collected()
    node.create_psubscriber(prefix + pattern, got)
    publisher = make_node().create_mpublisher()

    for name in names:
        publisher.publish(name, prefix + name)
    publisher.publish("end", prefix + matched[0])

    assert got.until(("end", prefix + matched[0])) == [(name, prefix + name) for name in matched]


def test_a_pattern_does_not_match_what_only_begins_alike(node: Node, broker: Broker) -> None:
    word = broker.unique("sonar")
    got = Collected()
    node.create_psubscriber(f"{word}.*", got)
    publisher = node.create_mpublisher()

    for topic in (word, f"{word}x.front", f"x{word}.front", f"x.{word}.front"):
        publisher.publish("no", topic)
    publisher.publish("slashed", f"{word}/front")
    publisher.publish("yes", f"{word}.front")

    is_one_address = broker.traits.separator == "/"
    expected = [("slashed", f"{word}.front")] if is_one_address else []
    assert got.until(("yes", f"{word}.front")) == expected


def test_a_star_alone_matches_every_topic(node: Node, broker: Broker) -> None:
    got = Collected()
    node.create_psubscriber("*", got)
    publisher = node.create_mpublisher()
    topics = [broker.unique("a"), broker.unique("a") + ".b.c", broker.unique("a") + "/b.x/c"]

    for topic in topics:
        publisher.publish(topic, topic)

    got.until((topics[-1], topics[-1]))
    assert all((topic, topic) in got.items for topic in topics)


def test_subscribers_that_overlap_on_one_node_get_one_call_each(node: Node, broker: Broker) -> None:
    prefix = broker.unique("robot")
    topic = f"{prefix}.front.sonar"
    patterns = [
        topic,
        topic,
        f"{prefix}.*",
        f"{prefix}.*",
        f"{prefix}.*.sonar",
        f"{prefix}.front.*",
    ]
    collected = [Collected() for _ in patterns]
    for pattern, got in zip(patterns, collected, strict=True):
        node.create_psubscriber(pattern, got, Sonar)
    publisher = node.create_publisher(topic, Sonar)

    for n in range(20):
        publisher.publish(Sonar(float(n)))
    publisher.publish(Sonar(-1.0))

    for got in collected:
        received = got.until((Sonar(-1.0), topic))
        assert received == [(Sonar(float(n)), topic) for n in range(20)]


def test_the_end_of_one_of_two_overlapping_subscribers_leaves_the_other(
    node: Node, broker: Broker
) -> None:
    prefix = broker.unique("robot")
    exact, wide, same = Collected(), Collected(), Collected()
    first = node.create_subscriber(f"{prefix}.sonar", exact)
    second = node.create_subscriber(f"{prefix}.*", wide)
    third = node.create_subscriber(f"{prefix}.*", same)
    publisher = node.create_publisher(f"{prefix}.sonar")

    publisher.publish(1)
    for got in (exact, wide, same):
        got.until(1)
    second.stop()
    publisher.publish(2)
    for got in (exact, same):
        got.until(2)
    first.stop()
    publisher.publish(3)
    same.until(3)
    third.stop()
    second.run()
    publisher.publish(4)
    wide.until(4)

    assert (exact.items, wide.items, same.items) == ([1, 2], [1, 4], [1, 2, 3])


def test_a_subscriber_takes_a_pattern_as_well_and_may_leave_the_topic_out(
    node: Node, broker: Broker
) -> None:
    prefix = broker.unique("robot")
    got, with_topic = Collected(), Collected()
    node.create_subscriber(f"{prefix}.*", lambda msg: got(msg), Sonar)
    node.create_subscriber(f"{prefix}.*", lambda msg, topic: with_topic((msg, topic)), Sonar)

    node.create_publisher(f"{prefix}.front", Sonar).publish(Sonar(2.0))

    assert got.first == Sonar(2.0)
    assert with_topic.first == (Sonar(2.0), f"{prefix}.front")


def test_garbage_on_one_topic_of_a_pattern_does_not_harm_the_others(
    node: Node, broker: Broker, raw: RawPeer
) -> None:
    prefix = broker.unique("robot")
    got, errors = Collected(), Collected()
    subscriber = node.create_psubscriber(f"{prefix}.*", got, Sonar, on_error=errors)

    raw.publish(f"{prefix}.front", b"\xff\xfe")
    raw.publish(f"{prefix}.back", b'{"distance": 2.0}')

    assert got.first == (Sonar(2.0), f"{prefix}.back")
    assert subscriber.stats.refused == 1
    assert errors.first[1] == f"{prefix}.front"


def test_numbers_are_counted_for_each_topic_behind_a_pattern(node: Node, broker: Broker) -> None:
    prefix = broker.unique("robot")
    got = Collected()
    subscriber = node.create_psubscriber(f"{prefix}.*", got)
    publisher = node.create_mpublisher()

    for n in range(10):
        publisher.publish(n, f"{prefix}.front")
        publisher.publish(n, f"{prefix}.back")

    got.wait(20)
    stats = subscriber.stats
    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)


def test_a_wildcard_of_the_brokers_own_passes_through_where_it_has_one(
    node: Node, broker: Broker
) -> None:
    prefix = broker.unique("robot")
    spelled = {"?": "s?nar", "[": "s[ao]nar", "+": "+", "#": "#"}
    published = [f"{prefix}.sonar", f"{prefix}.sanar"]
    publisher = node.create_mpublisher()
    for wildcard, word in spelled.items():
        pattern = f"{prefix}.{word}"
        got = Collected()
        subscriber = node.create_psubscriber(pattern, got)
        for topic in published:
            publisher.publish("hello", topic)
        passes = wildcard in broker.traits.native_wildcards
        last = published[0] if passes else pattern
        publisher.publish("end", last)
        expected = [("hello", topic) for topic in published] if passes else []
        assert got.until(("end", last)) == expected
        subscriber.stop()
