"""Patterns are found by one of their words, without a look at each of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from commlib._anchors import Anchors
from commlib._topics import matcher, split
from commlib.transports._mqtt_filters import covers

words = st.sampled_from(["a", "b", "c", "", "$a"])


def names(word: st.SearchStrategy[str], separator: str) -> st.SearchStrategy[str]:
    return st.lists(word, min_size=1, max_size=4).map(separator.join)


notation = st.sampled_from("./")
patterns = notation.flatmap(lambda separator: names(words | st.just("*"), separator))


@given(st.lists(patterns, unique=True), notation.flatmap(lambda separator: names(words, separator)))
def test_all_that_match_a_name_are_found(kept: list[str], name: str) -> None:
    anchors: Anchors[str] = Anchors()
    for pattern in kept:
        anchors.add(split(pattern), pattern)
    found = list(anchors.find(split(name)))
    assert len(found) == len(set(found))
    for pattern in kept:
        matches = matcher(pattern)
        assert matches is not None
        assert pattern in found or not matches(name)


filters = st.lists(words | st.just("+"), min_size=1, max_size=4).flatmap(
    lambda levels: st.sampled_from([levels, [*levels, "#"]])
)


@given(st.lists(filters, unique_by=tuple), filters)
def test_all_that_cover_a_filter_of_mqtt_are_found(
    kept: list[list[str]], narrow: list[str]
) -> None:
    anchors: Anchors[tuple[str, ...]] = Anchors()
    for wide in kept:
        anchors.add(wide, tuple(wide))
    found = list(anchors.find(narrow))
    for wide in kept:
        assert tuple(wide) in found or not covers(wide, narrow)


def test_of_many_patterns_only_those_with_the_word_of_a_name_are_found() -> None:
    anchors: Anchors[int] = Anchors()
    for number in range(1000):
        anchors.add(["robots", "*", f"arm{number}"], number)
    # The first one was kept by the word that all of them have.
    assert set(anchors.find(["robots", "r2", "arm7"])) == {0, 7}


def test_what_is_discarded_is_found_no_more() -> None:
    anchors: Anchors[str] = Anchors()
    for pattern in ("a.*", "*", "*.b"):
        anchors.add(split(pattern), pattern)
    for pattern in ("a.*", "*", "a.*"):
        anchors.discard(pattern)
    assert list(anchors.find(["a", "b"])) == ["*.b"]
    assert len(anchors) == 1
