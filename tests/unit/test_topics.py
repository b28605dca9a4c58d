"""The grammar of names against a plain reading of it, and each broker's spelling against a model
of that broker's own matching."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from commlib._topics import (
    amqp_binding,
    amqp_matcher,
    check_pattern,
    check_topic,
    from_mqtt,
    is_pattern,
    join,
    matcher,
    mqtt_filter,
    redis_glob,
    to_mqtt,
)
from topic_models import amqp_matches, mqtt_matches, plain_match, redis_matches, split

REDIS, MQTT, AMQP = "?[", "+#", "#"


# ---- what is a name ----

GOOD_NAMES = [
    "sonar",
    "sensors.front.sonar",
    "hbot/uid/start",
    "zigbee2mqtt/0x00.1/state",
    "/leading/slash",
    "trailing.",
    "a..b",
    "two words.και ελληνικά.🤖",
    "sonar*",
    "x" * 65_535,
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_topic_is_returned_as_it_is(name: str) -> None:
    assert check_topic(name) == name


NO_NAMES = [
    (None, TypeError, "a topic is a str"),
    (b"sonar", TypeError, "a topic is a str"),
    ("", ValueError, "at least one word"),
    (" \t", ValueError, "at least one word"),
    ("a\x00b", ValueError, "remove the control character '.x00'"),
    ("a\nb", ValueError, "remove the control character"),
    ("a\x7f", ValueError, "remove the control character"),
    ("a\x9f", ValueError, "remove the control character"),
    ("a\ufffe", ValueError, "remove the control character"),
    ("a\ufdd0", ValueError, "remove the control character"),
    ("a\ud800", ValueError, "no valid Unicode"),
    ("x" * 65_536, ValueError, "65536 bytes long, shorten it to 65535"),
    ("é" * 32_768, ValueError, "65536 bytes long"),
]


@pytest.mark.parametrize(("name", "error", "text"), NO_NAMES)
def test_what_is_no_name_is_refused_as_topic_and_as_pattern(
    name: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        check_topic(name)
    with pytest.raises(error, match=text):
        check_pattern(name)


@pytest.mark.parametrize("name", ["*", "a.*", "a.*.b", "a/*", "*/a.b"])
def test_a_pattern_is_no_topic_and_the_error_says_what_was_named(name: str) -> None:
    with pytest.raises(ValueError, match="is a pattern, and a rpc_name names one thing"):
        check_topic(name, "rpc_name")


@pytest.mark.parametrize("name", ["sonar", "*", "a.*", "a.*.b", "*.b", "a/*/b", "a.1/*", "/*"])
def test_a_pattern_is_returned_as_it_is(name: str) -> None:
    assert check_pattern(name) == name


@pytest.mark.parametrize(
    ("name", "instead"),
    [("sonar*", "*"), ("a.so*r.b", "a.*.b"), ("a/b.*", "a/*"), ("a.**", "a.*"), ("*a/b", "*/b")],
)
def test_a_star_in_a_word_is_refused_with_the_whole_word_form(name: str, instead: str) -> None:
    with pytest.raises(ValueError, match="stands for whole words") as refusal:
        check_pattern(name)
    assert f"instead of {name!r} subscribe to {instead!r}" in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (("robot", "heartbeat"), "robot.heartbeat"),
        (("thing", "d0", "robot"), "thing.d0.robot"),
        (("fleet/robot", "heartbeat"), "fleet/robot/heartbeat"),
        (("thing", "site/d.0", "robot"), "thing/site/d.0/robot"),
        (("robot",), "robot"),
    ],
)
def test_names_are_joined_in_the_notation_that_one_of_them_has(
    names: tuple[str, ...], whole: str
) -> None:
    assert join(*names) == whole


# ---- what is a pattern, and what it matches ----


@pytest.mark.parametrize(
    ("name", "native", "expected"),
    [
        ("a.b", "", False),
        ("a.*", "", True),
        ("*", "", True),
        ("a/*/b", "", True),
        ("a.b*", "", False),
        ("a/b.*", "", False),
        ("what?", "", False),
        ("what?", REDIS, True),
        ("a.[ab]", REDIS, True),
        ("a.+", REDIS, False),
        ("a.+.b", MQTT, True),
        ("a/#", MQTT, True),
        ("#", MQTT, True),
        ("c++", MQTT, False),
        ("a/c#", MQTT, False),
        ("a/b.#", MQTT, False),
        ("a.#", AMQP, True),
        ("a.+", AMQP, False),
    ],
)
def test_a_pattern_holds_a_whole_star_or_a_wildcard_of_the_broker(
    name: str, native: str, expected: bool
) -> None:
    assert is_pattern(name, native) is expected


@pytest.mark.parametrize(
    ("pattern", "native"), [("a.?", REDIS), ("a.*[bc]", REDIS), ("a/+/*", MQTT), ("a.#", AMQP)]
)
def test_a_pattern_with_the_brokers_own_wildcard_is_not_filtered(pattern: str, native: str) -> None:
    assert matcher(pattern, native) is None
    assert matcher("a.b", native) is not None


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "a/b", "axb"]),
        ("a.*", ["a.b", "a.b.c", "a."], ["a", "b.a", "ab", "a/b", "a.b/c"]),
        ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.b.c", "a.b/x.c", "a.b.cc"]),
        ("*.c", ["b.c", ".c"], ["c", "a.b.c", "$SYS.c", "a/b.c"]),
        ("*.*", ["a.b", "a.b.c"], ["a", "a/b", "$SYS.b"]),
        ("a.*.c.*", ["a.b.c.d", "a.b.c.d.e"], ["a.b.c", "a.c.d", "a.b.c.d/e"]),
        ("a/*", ["a/b", "a/b/c", "a/b.c"], ["a", "a.b", "b/a"]),
        ("a/*/c", ["a/b/c", "a/0x00.1/c"], ["a/b/b/c", "a.b.c"]),
        ("a.1/*", ["a.1/b"], ["a/1/b", "a.1.b", "ax1/b"]),
        ("/*", ["/a", "/a/b"], ["a", "a/b", "a.b"]),
        ("*", ["a", "a.b", "a/b", "a.b/c"], ["$SYS", "$SYS/broker"]),
    ],
)
def test_a_star_is_one_word_and_at_the_end_one_or_more(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    matches = matcher(pattern)
    assert matches is not None
    assert [name for name in matching + other if matches(name)] == matching


def test_characters_special_to_regular_expressions_are_ordinary() -> None:
    matches = matcher("a+(b.*.[c]$")
    assert matches is not None
    assert matches("a+(b.x.[c]$")
    assert not matches("aa(b.x.c")


# The hard cases of the grammar are few: empty words, dots in slash notation, `$`, and escapes.
words = st.text(alphabet="ab$\\]^-", max_size=2)
patterns = st.builds(
    str.join,
    st.sampled_from("./"),
    st.lists(st.just("*") | words | st.just("a.b"), min_size=1, max_size=4),
).filter(lambda pattern: pattern.strip() != "" and _is_valid(pattern))
names = st.builds(
    str.join, st.sampled_from("./"), st.lists(words | st.just("a.b"), min_size=1, max_size=5)
).filter(bool)


def _is_valid(pattern: str) -> bool:
    return all(word == "*" or "*" not in word for word in split(pattern))


@st.composite
def related(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern, and a name that it may well match."""
    pattern = draw(patterns)
    separator = "/" if "/" in pattern else "."
    filled = [draw(words) if word == "*" else word for word in split(pattern)]
    if pattern.endswith("*"):
        filled += draw(st.lists(words, max_size=2))
    return pattern, separator.join(filled)


pairs = st.tuples(patterns, names) | related()


@given(pairs)
def test_the_matcher_agrees_with_a_plain_reading_of_the_grammar(pair: tuple[str, str]) -> None:
    pattern, name = pair
    matches = matcher(pattern)
    assert matches is not None
    assert matches(name) is plain_match(pattern, name)


# ---- spellings ----


@given(related())
@example(("*", "a/b"))
@example(("a.*", "a."))
def test_no_broker_loses_a_name_that_the_pattern_matches(pair: tuple[str, str]) -> None:
    pattern, name = pair
    assume(name and plain_match(pattern, name))
    assert redis_matches(redis_glob(pattern), name)
    assert mqtt_matches(mqtt_filter(pattern), to_mqtt(name))
    assert amqp_matches(amqp_binding(pattern), name)


@pytest.mark.parametrize(
    ("pattern", "glob"),
    [("a.*", "a.*"), ("a.*.b", "a.*.b"), ("a.?[bc]", "a.?[bc]"), ("a\\b.*", "a\\\\b.*")],
)
def test_a_redis_glob_escapes_what_is_no_wildcard(pattern: str, glob: str) -> None:
    assert redis_glob(pattern) == glob


@pytest.mark.parametrize(
    ("pattern", "topic_filter"),
    [
        ("a.b", "a/b"),
        ("a.*", "a/#"),
        ("a.*.b", "a/+/b"),
        ("*", "#"),
        ("*.*", "+/#"),
        ("a/0x.1/*", "a/0x.1/#"),
        ("a.+.*", "a/+/#"),
        ("a/#", "a/#"),
        ("a.b*", "a/b*"),
    ],
)
def test_an_mqtt_filter_has_plus_in_the_middle_and_hash_at_the_end(
    pattern: str, topic_filter: str
) -> None:
    assert mqtt_filter(pattern) == topic_filter


@pytest.mark.parametrize("pattern", ["c++", "a/b#", "a.#.b", "#/a"])
def test_an_mqtt_filter_that_a_broker_would_cut_the_connection_for_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"MQTT allows '[#+]"):
        mqtt_filter(pattern)


@pytest.mark.parametrize(
    ("pattern", "binding"),
    [
        ("a.b", "a.b"),
        ("a.*", "a.#"),
        ("a.*.b", "a.*.b"),
        ("*.*", "*.#"),
        ("*", "#"),
        ("a.#.b", "a.#.b"),
        ("a/b", "a/b"),
        ("a/*", "#"),
        ("a/*/b.c", "#"),
    ],
)
def test_an_amqp_binding_has_hash_at_the_end_and_for_all_in_slash_notation(
    pattern: str, binding: str
) -> None:
    assert amqp_binding(pattern) == binding


def test_a_hash_between_slashes_which_amqp_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="AMQP knows '#' between dots only"):
        amqp_binding("a/#")


@pytest.mark.parametrize("pattern", ["#/a", "#/#", "a/#/b", "a.b/#", "/#"])
def test_a_hash_between_slashes_is_refused_wherever_it_is(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"AMQP knows '#' between dots only: write"):
        amqp_binding(pattern)


@pytest.mark.parametrize("pattern", ["a.b#", "c#.*", "#a.b", "a#b/c", "##"])
def test_a_hash_in_a_word_is_an_ordinary_character(pattern: str) -> None:
    assert not is_pattern(pattern.replace("*", "x"), AMQP)
    assert amqp_binding(pattern) == pattern.replace("*", "#")


@pytest.mark.parametrize(
    ("binding", "matching", "other"),
    [
        ("#", ["a", "a.b", "a/b", "", ".", "..a"], ["$SYS", "$SYS.a"]),
        ("a.#", ["a", "a.b", "a.b.c", "a.", "a.b/c"], ["b", "ab", "a/b", "", "b.a"]),
        ("#.a", ["a", "b.a", "c.b.a", ".a"], ["a.b", "ba", "a/a", "$x.a"]),
        ("a.#.b", ["a.b", "a.x.b", "a.x.y.b", "a..b"], ["a", "ab", "a.bx", "a.x.b.y"]),
        ("#.#", ["a", "a.b", ""], ["$SYS.a"]),
        ("a.#.#", ["a", "a.b", "a.b.c"], ["ab"]),
        ("*.#", ["a", "a.b", ""], ["$SYS", "$SYS.a"]),
        ("#.*", ["a", "a.b", ""], ["$SYS"]),
        ("a.*.#", ["a.b", "a.b.c", "a."], ["a"]),
        ("a.*.#.b", ["a.x.b", "a.x.y.b"], ["a.b"]),
        ("#.a.#", ["a", "x.a", "a.x", "x.a.y"], ["x", "xa", "$SYS.a"]),
        ("#.c++(.#", ["c++(", "a.c++(.b"], ["ccc("]),
        ("$SYS.#", ["$SYS", "$SYS.a"], ["SYS", "a"]),
    ],
)
def test_an_amqp_binding_matches_as_the_broker_does_it(
    binding: str, matching: list[str], other: list[str]
) -> None:
    matches = amqp_matcher(binding)
    assert [name for name in matching + other if matches(name)] == matching


amqp_words = st.sampled_from(["#", "*", "a", "b", "", "$a", "a/b", "c+(", "#a", "a\nb"])
amqp_keys = st.sampled_from(["a", "b", "", "$a", "a/b", "c+(", "#a", "a\nb", "x"])


@given(st.lists(amqp_words, min_size=1, max_size=5), st.lists(amqp_keys, min_size=1, max_size=6))
@example(["#"], ["a\nb"])
@example(["a", "#"], ["a", "a\nb"])
@example(["#a", "#"], ["#a"])
@example(["#"], ["$a"])
@example(["$a", "#"], ["$a", "b"])
def test_the_matcher_agrees_with_a_topic_exchange(wanted: list[str], given: list[str]) -> None:
    assume("#" in wanted)
    binding, key = ".".join(wanted), ".".join(given)
    is_ours = not (key.startswith("$") and wanted[0] in "*#" and wanted[0])
    assert amqp_matcher(binding)(key) is (amqp_matches(binding, key) and is_ours)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("binding", ["#.a.#.a.#.z", "#.*.#.*.#.z", "#.#.#.#.#.z"])
def test_a_key_that_almost_matches_is_found_not_to_in_time(binding: str) -> None:
    assert not amqp_matcher(binding)(".".join(["a"] * 25))


@pytest.mark.parametrize(
    ("name", "topic"),
    [("a.b.c", "a/b/c"), ("a/b.c", "a/b.c"), ("a", "a"), ("a..b", "a//b"), ("/a", "/a")],
)
def test_a_dot_becomes_a_slash_on_mqtt_unless_the_name_has_slashes(name: str, topic: str) -> None:
    assert to_mqtt(name) == topic


@pytest.mark.parametrize(
    ("topic", "like", "name"),
    [
        ("a/b/c", "a.*", "a.b.c"),
        ("a/b/c", "a/*", "a/b/c"),
        ("a/0x.1/c", "a/*", "a/0x.1/c"),
        ("a/b", "*", "a.b"),
    ],
)
def test_a_callback_gets_the_notation_of_its_subscription(topic: str, like: str, name: str) -> None:
    assert from_mqtt(topic, like) == name


@given(names)
def test_a_name_comes_back_from_mqtt_as_it_was_written(name: str) -> None:
    assert from_mqtt(to_mqtt(name), name) == name
