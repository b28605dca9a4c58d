"""What nodes tell of themselves: how it is written, and what of it does not go together."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from announced import Number, Word, node
from commlib._discovery import (
    MAX_ID,
    MAX_SHOWN,
    MAX_UNLIKE,
    WRITERS,
    Announcement,
    EndpointInfo,
    NodeInfo,
    answer_topic,
    is_id,
    is_sound,
    look,
    mismatches,
    shown,
)
from commlib._json import encode
from commlib._last_word import ANNOUNCE, last_word
from commlib._packet import Packet
from commlib._schemas import marked_schema
from commlib._topics import check_topic
from commlib._wire import Reader

# ---- how it is written ----


def test_what_was_told_is_read_as_it_was() -> None:
    said = Announcement("birth", "p1", nodes=(node("robot", ("publisher", "t", Number)),))
    assert msgspec.json.decode(encode(said), type=Announcement) == said


def test_what_another_version_tells_besides_is_passed_over() -> None:
    said = {"event": "birth", "mood": "good", "nodes": [{"name": "n", "id": "i", "mood": 1}]}
    read = msgspec.json.decode(json.dumps(said), type=Announcement)
    assert read.nodes == (NodeInfo("n", "i"),)


def test_the_last_word_of_a_connection_is_an_announcement_in_the_usual_envelope() -> None:
    said = Reader(Announcement).read(Packet(last_word("abc"))).data
    assert said == Announcement("death", link="abc")
    assert check_topic(ANNOUNCE) == "commlib.discovery"


def test_a_port_that_takes_something_has_the_direction_in() -> None:
    directions = {
        kind: EndpointInfo(kind, "t").direction for pair in WRITERS.values() for kind in pair
    }
    assert {kind for kind, way in directions.items() if way == "in"} == {
        *("subscriber", "service", "action")
    }


def test_the_schema_of_a_part_is_found_by_its_fingerprint() -> None:
    robot = node("robot", ("service", "add", Number))
    endpoint = robot.endpoints[0]
    assert robot.schema(endpoint, "request") == marked_schema(Number)[1]
    assert robot.schema(endpoint, "goal") is None


# ---- strangers ----


@pytest.mark.parametrize("text", ["", "a b", "a.b", "a/b", "*", "ä", "a" * (MAX_ID + 1), "a\n"])
def test_what_could_change_a_topic_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_an_id_makes_a_topic_of_its_own() -> None:
    assert is_id("0a" * (MAX_ID // 2))
    assert answer_topic("0a") == "commlib.discovery.answer.0a"


@pytest.mark.parametrize("field", ["name", "host", "namespace", "version"])
def test_a_node_with_control_characters_in_its_texts_is_not_sound(field: str) -> None:
    assert is_sound(node("robot", ("publisher", "küche.größe", Number)))
    assert not is_sound(msgspec.structs.replace(node("robot"), **{field: "a\x1b[2J"}))
    assert not is_sound(node("robot", ("publisher", "a\nb", Number)))


def test_what_is_shown_is_short_and_in_one_line() -> None:
    assert shown("a\x1b[2Jb\n") == r"a\x1b[2Jb\n"
    assert len(shown("a" * 10_000)) == MAX_SHOWN + 1
    wrong = mismatches(
        [node("a\n", ("publisher", "t", Number)), node("b", ("subscriber", "t", Word))]
    )
    assert "\n" not in str(wrong[0])


# ---- what does not go together ----


def test_a_mismatch_names_both_ends_and_the_reason() -> None:
    (wrong,) = mismatches(
        [node("one", ("publisher", "t", Number)), node("two", ("subscriber", "t", Word))]
    )
    assert str(wrong) == (
        "t: one (pid 7 on here) publishes Number, but two (pid 7 on here) reads Word: "
        "value is sent as integer and read as string"
    )


@pytest.mark.parametrize(
    ("one", "other", "parts"),
    [
        ("publisher", "subscriber", ["value"]),
        ("client", "service", ["request: value", "response: value"]),
        ("action", "action_client", ["goal: value", "result: value", "feedback: value"]),
    ],
)
def test_each_part_of_a_pattern_is_compared_as_it_is_sent(
    one: Any, other: Any, parts: list[str]
) -> None:
    for nodes in (
        [node("one", (one, "t", Number)), node("two", (other, "t", Word))],
        [node("one", (other, "t", Number)), node("two", (one, "t", Word))],
    ):
        (wrong,) = mismatches(nodes)
        assert sorted(why.rpartition(" is sent")[0] for why in wrong.why) == sorted(parts)


FITTING = [
    (("publisher", "t", Number), ("subscriber", "t", Number)),
    (("publisher", "t", Number), ("subscriber", "u", Word)),
    (("publisher", "t", Number), ("publisher", "t", Word)),  # one reader may take both
    (("subscriber", "t", Number), ("subscriber", "t", Word)),
    (("publisher", "t", Number), ("service", "t", Word)),  # two patterns, two names
    (("publisher", "t", None), ("subscriber", "t", Word)),
    (("publisher", "*", Number), ("subscriber", "*", Word)),
    (("publisher", "a.b", Number), ("subscriber", "a.*", Word)),
]


@pytest.mark.parametrize(("one", "other"), FITTING, ids=str)
def test_what_need_not_fit_is_no_mismatch(one: Any, other: Any) -> None:
    assert mismatches([node("one", one), node("two", other)]) == []


def test_publishers_of_one_topic_are_to_deliver_alike() -> None:
    once = node("one", ("publisher", "t", Number))
    sure = node("two", ("publisher", "t", Number), qos=1)
    kept = node("three", ("publisher", "t", Number), retain=True)
    reader = node("four", ("subscriber", "t", Number))
    assert [wrong.why for wrong in mismatches([once, sure, reader])] == [
        ("the one at QoS 0, the other at QoS 1",)
    ]
    assert [wrong.why for wrong in mismatches([once, kept, reader])] == [
        ("only one of them has the broker keep the last message",)
    ]


def test_ports_that_look_alike_are_told_of_once() -> None:
    many = [node(f"n{index}", ("subscriber", "t", Word)) for index in range(50)]
    assert len(mismatches([node("one", ("publisher", "t", Number)), *many])) == 1
    (one,), (other,) = node("a", ("publisher", "t", Word)).endpoints, many[0].endpoints
    assert look(one) != look(other)


def test_ports_of_one_name_without_end_are_not_all_compared() -> None:
    ports = [{"kind": "publisher", "name": "t", "qos": index} for index in range(5000)]
    liar = msgspec.convert({"name": "n", "id": "i", "endpoints": ports}, NodeInfo)
    assert len(mismatches([liar])) == MAX_UNLIKE * (MAX_UNLIKE - 1) // 2
