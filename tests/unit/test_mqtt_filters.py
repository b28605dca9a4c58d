"""What topic filters match, cover and share, against the plain rules of the standard."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib.transports._mqtt_filters import covers, is_exact, levels, matching, overlap

WORDS = ["a", "b", "", "$x"]
TOPICS = ["/".join(words) for n in (1, 2, 3, 4) for words in itertools.product(WORDS, repeat=n)]
topics = st.sampled_from(TOPICS)
filters = st.builds(
    lambda words, end: "/".join([*words, *end]),
    st.lists(st.sampled_from([*WORDS, "+"]), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
) | st.just("#")


def matches(wanted: str, topic: str) -> bool:
    """MQTT 5.0, section 4.7, word for word."""
    filter_words, words = wanted.split("/"), topic.split("/")
    if topic.startswith("$") and filter_words[0] in ("+", "#"):
        return False
    if filter_words[-1] == "#":
        parent = filter_words[:-1]
        return len(words) >= len(parent) and same(parent, words[: len(parent)])
    return len(words) == len(filter_words) and same(filter_words, words)


def same(wanted: list[str], words: list[str]) -> bool:
    return all(one in ("+", other) for one, other in zip(wanted, words, strict=True))


@pytest.mark.parametrize(
    ("wanted", "topic", "does"),  # the examples of the standard
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/broker", True),
    ],
)
def test_a_filter_covers_the_topics_that_it_matches(wanted: str, topic: str, does: bool) -> None:
    assert covers(levels(wanted), levels(topic)) is does
    assert matches(wanted, topic) is does


@given(filters, topics)
def test_a_topic_is_covered_if_it_matches(wanted: str, topic: str) -> None:
    assert covers(levels(wanted), levels(topic)) == matches(wanted, topic)


@given(filters, filters)
def test_two_filters_overlap_if_a_topic_matches_both(one: str, other: str) -> None:
    both = any(matches(one, topic) and matches(other, topic) for topic in TOPICS)
    assert overlap(levels(one), levels(other)) == both
    assert overlap(levels(other), levels(one)) == both


@given(filters, filters)
def test_what_is_covered_matches_nothing_that_the_wider_one_does_not(
    wide: str, narrow: str
) -> None:
    if covers(levels(wide), levels(narrow)):
        assert all(matches(wide, topic) for topic in TOPICS if matches(narrow, topic))


@given(filters)
def test_a_filter_covers_itself(wanted: str) -> None:
    assert covers(levels(wanted), levels(wanted))


def test_a_filter_without_wildcards_is_exact() -> None:
    assert is_exact(levels("a/b"))
    assert not is_exact(levels("a/+"))
    assert not is_exact(levels("a/#"))


@given(topics, filters)
def test_all_filters_that_match_a_topic_are_found(topic: str, wanted: str) -> None:
    found = [*matching(topic)]
    assert found[0] == topic
    assert len(found) == len(set(found))
    assert (wanted in found) == matches(wanted, topic)


def test_of_a_topic_of_very_many_levels_no_filters_are_listed() -> None:
    assert [*matching("a/" * 40)] == ["a/" * 40]
