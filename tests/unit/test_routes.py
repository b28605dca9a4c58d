"""From the topics of one broker to those of another."""

from __future__ import annotations

import pytest

from commlib._routes import checked_pairs, prefixed, samples, spelled
from commlib._topics import matcher


@pytest.mark.parametrize(
    ("namespace", "topic", "separator", "expected"),
    [
        ("robot", "sonar", "", "robot.sonar"),
        ("robot", "sonar.front", "", "robot.sonar.front"),
        ("robot", "sonar/front", "", "robot/sonar/front"),
        ("robot", "zigbee/0x00.1", "", "robot/zigbee/0x00.1"),
        ("robot.one", "sonar/front", "", "robot.one.sonar.front"),
        ("robot/one", "sonar.front", "", "robot/one/sonar/front"),
        ("", "sonar/front", "", "sonar/front"),
        ("robot", "sonar/front", ".", "robot.sonar.front"),
        ("robot", "sonar.front", "/", "robot/sonar/front"),
        ("robot.one", "sonar.front", "/", "robot/one/sonar/front"),
        ("", "sonar/front", ".", "sonar.front"),
    ],
)
def test_the_notation_is_that_of_the_broker_or_the_namespace_or_the_topic(
    namespace: str, topic: str, separator: str, expected: str
) -> None:
    assert prefixed(namespace, topic, separator) == expected


def test_dots_in_slash_notation_are_ordinary_characters() -> None:
    assert spelled("a/0x00.1", "/") == "a/0x00.1"
    assert spelled("a/0x00.1", "") == "a/0x00.1"


@pytest.mark.parametrize("pattern", ["*", "a.*", "a.*.b", "*.b", "a/*", "*/b/*", "a.*.*"])
def test_samples_are_matched_by_their_pattern(pattern: str) -> None:
    matches = matcher(pattern)
    assert matches is not None
    found = list(samples(pattern))
    assert found
    assert all(matches(topic) for topic in found)


@pytest.mark.parametrize("pairs", [["ab"], [("a",)], [("a", 1)], [("", "b")], [["a", "b", "c"]]])
def test_what_is_no_pair_of_texts_is_refused(pairs: list[object]) -> None:
    with pytest.raises(ValueError, match="no pair"):
        checked_pairs(pairs)  # type: ignore[arg-type]


def test_pairs_may_be_lists() -> None:
    assert checked_pairs([["a", "b"], ("c", "")]) == [("a", "b"), ("c", "")]
