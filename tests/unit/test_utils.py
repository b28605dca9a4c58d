"""Rates, times, ids, and topics in the notations of brokers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib import utils
from commlib._topics import REDIS_WILDCARDS
from commlib.transports.redis import RedisTransport
from commlib.utils import (
    Rate,
    camelcase_to_snakecase,
    convert_topic_notation,
    gen_random_id,
    gen_timestamp,
    get_timestamp_ms,
    get_timestamp_ns,
    get_timestamp_us,
    topic_from_amqp,
    topic_from_mqtt,
    topic_from_redis,
    topic_to_amqp,
    topic_to_mqtt,
    topic_to_redis,
)

# ---- rates ----


class Clock:
    """A clock that goes on only when somebody sleeps, or works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5_000_000.0
        self.sleeps: list[float] = []
        monkeypatch.setattr(utils, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def slept(clock: Clock, rate: Rate, *work: float) -> list[float]:
    """What it sleeps after turns in which one works that long, 0 for not at all."""
    pauses = []
    for seconds in work:
        clock.now += seconds
        clock.sleeps.clear()
        rate.sleep()
        pauses.append(sum(clock.sleeps))
    return pauses


def test_work_is_taken_off_the_pause(clock: Clock) -> None:
    assert slept(clock, Rate(0.5), 0, 0.5, 1.75, 0) == [2, 1.5, 0.25, 2]


def test_a_turn_that_was_a_little_too_long_is_made_up_for(clock: Clock) -> None:
    assert slept(clock, Rate(0.5), 3, 0, 0.5) == [0, 1, 1.5]


def test_after_more_than_a_period_of_lateness_the_schedule_begins_anew(clock: Clock) -> None:
    assert slept(clock, Rate(0.5), 4.5, 0, 0, 0.5) == [0, 2, 2, 1.5]


def test_many_turns_take_as_long_as_their_periods(clock: Clock) -> None:
    begin = clock.now
    slept(clock, Rate(4), *([0.375, 0.0, 0.125, 0.25] * 1000))
    assert clock.now == begin + 4000 / 4


def test_a_rate_sleeps_by_the_real_clock_and_never_too_short() -> None:
    begin = time.monotonic()
    rate = Rate(200)
    for _ in range(5):
        rate.sleep()
    assert time.monotonic() - begin >= 5 / 200


@pytest.mark.parametrize("hz", [0, -10, float("nan")])
def test_a_rate_that_is_not_above_zero_is_refused(hz: float) -> None:
    with pytest.raises(ValueError, match="turns a second above 0"):
        Rate(hz)


# ---- times and ids ----


def test_a_timestamp_is_the_time_in_its_unit() -> None:
    for stamp, unit in (
        (gen_timestamp, 10**6),
        (get_timestamp_ms, 10**6),
        (get_timestamp_us, 10**3),
        (get_timestamp_ns, 1),
    ):
        before, now, after = time.time_ns() // unit, stamp(), time.time_ns() // unit
        assert type(now) is int
        assert before <= now <= after


def test_ids_are_32_hexadecimal_digits_and_all_different() -> None:
    ids = {gen_random_id() for _ in range(1000)}
    assert len(ids) == 1000
    for found in ids:
        assert len(found) == 32
        assert set(found) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("camel", "snake"),
    [
        ("RobotState", "robot_state"),
        ("robotState", "robot_state"),
        ("HTTPServer", "http_server"),
        ("getHTTPResponse2Code", "get_http_response2_code"),
        ("already_snake", "already_snake"),
        ("Mixed_Case", "mixed_case"),
        ("X", "x"),
        ("ROS", "ros"),
        ("", ""),
    ],
)
def test_capitals_begin_words(camel: str, snake: str) -> None:
    assert camelcase_to_snakecase(camel) == snake


# ---- topics ----


@pytest.mark.parametrize(
    ("topic", "mqtt", "redis", "amqp"),
    [
        ("a", "a", "a", "a"),
        ("a.b.c", "a/b/c", "a.b.c", "a.b.c"),
        ("a.*.c", "a/+/c", "a.*.c", "a.*.c"),
        ("a.*", "a/#", "a.*", "a.#"),
        ("*", "#", "*", "#"),
        ("*.b.*", "+/b/#", "*.b.*", "*.b.#"),
        ("a..b", "a//b", "a..b", "a..b"),
        ("a.\\b", "a/\\b", "a.\\b", "a.\\b"),
        ("a.\\b.*", "a/\\b/#", r"a.\\b.*", "a.\\b.#"),
    ],
)
def test_a_topic_with_dots_goes_to_every_broker_and_comes_back(
    topic: str, mqtt: str, redis: str, amqp: str
) -> None:
    assert (topic_to_mqtt(topic), topic_from_mqtt(mqtt)) == (mqtt, topic)
    assert (topic_to_redis(topic), topic_from_redis(redis)) == (redis, topic)
    assert (topic_to_amqp(topic), topic_from_amqp(amqp)) == (amqp, topic)


@pytest.mark.parametrize(
    ("topic", "mqtt", "redis", "amqp"),
    [
        ("hbot/uid/start", "hbot/uid/start", "hbot/uid/start", "hbot/uid/start"),
        ("a/0x00.1/*", "a/0x00.1/#", "a/0x00.1/*", "#"),
        ("a/*/state.1", "a/+/state.1", "a/*/state.1", "#"),
    ],
)
def test_a_topic_with_slashes_keeps_its_dots(topic: str, mqtt: str, redis: str, amqp: str) -> None:
    assert topic_to_mqtt(topic) == mqtt
    assert topic_to_redis(topic) == redis
    assert topic_to_amqp(topic) == amqp


def test_an_mqtt_topic_whose_words_hold_dots_stays_in_slash_notation() -> None:
    assert topic_from_mqtt("zigbee2mqtt/0x00.1/state") == "zigbee2mqtt/0x00.1/state"
    assert topic_from_mqtt("a/+/b.c") == "a/*/b.c"
    with pytest.raises(ValueError, match="a dot and no slash"):
        topic_from_mqtt("a.b")


def test_wildcards_of_a_broker_pass_through_on_the_way_to_it() -> None:
    assert topic_to_mqtt("a.+.#") == "a/+/#"
    assert topic_to_redis(r"a.?\.[bc]") == r"a.?\\.[bc]"
    assert topic_to_amqp("a.#.b") == "a.#.b"


def test_the_last_wildcard_of_a_broker_becomes_the_nearest() -> None:
    assert topic_from_mqtt("a/+") == "a.*"
    assert topic_from_amqp("a.*") == "a.*"


CONVERTERS = [
    topic_to_mqtt,
    topic_from_mqtt,
    topic_to_redis,
    topic_from_redis,
    topic_to_amqp,
    topic_from_amqp,
]


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize(
    ("topic", "error"),
    [("", ValueError), ("a.b*", ValueError), ("a\nb", ValueError), (5, TypeError)],
)
def test_what_is_no_topic_is_not_converted(convert: Any, topic: Any, error: type) -> None:
    with pytest.raises(error):
        convert(topic)


@pytest.mark.parametrize(
    ("convert", "topic", "text"),
    [
        (topic_to_mqtt, "a.b+", "whole words only"),
        (topic_from_mqtt, "a/#/b", "at the end only"),
        (topic_from_redis, "a.?", "only Redis knows"),
        (topic_from_redis, "a.[bc]", "only Redis knows"),
        (topic_to_amqp, "a/#", "between dots only"),
        (topic_from_amqp, "a.#.b", "only AMQP knows"),
        (topic_from_amqp, "a/b.#", "whole words"),
    ],
)
def test_what_the_other_notation_cannot_say_is_refused(convert: Any, topic: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        convert(topic)


@pytest.mark.parametrize(
    ("topic", "source", "target", "expected"),
    [
        ("sensors/+/temperature", "mqtt", "commlib", "sensors.*.temperature"),
        ("sensors.*.temperature", "commlib", "mqtt", "sensors/+/temperature"),
        ("sensors.temperature", "redis", "mqtt", "sensors/temperature"),
        ("sensors/#", "mqtt", "amqp", "sensors.#"),
        ("sensors.#", "amqp", "redis", "sensors.*"),
        ("a.+", "commlib", "mqtt", "a/+"),
        ("a/b/#", "mqtt", "mqtt", "a/b/#"),
    ],
)
def test_a_topic_is_converted_between_any_two(
    topic: str, source: str, target: str, expected: str
) -> None:
    assert convert_topic_notation(topic, source, target) == expected


@pytest.mark.parametrize(
    ("topic", "source", "target"),
    [("a.+", "redis", "mqtt"), ("a/b?", "mqtt", "redis"), ("a.#", "redis", "amqp")],
)
def test_an_ordinary_character_does_not_become_a_wildcard_elsewhere(
    topic: str, source: str, target: str
) -> None:
    with pytest.raises(ValueError, match=f"is a wildcard in {target}"):
        convert_topic_notation(topic, source, target)


def test_an_unknown_notation_is_refused_with_what_was_meant() -> None:
    with pytest.raises(ValueError, match="'MQTT' is no notation of topics; did you mean mqtt"):
        convert_topic_notation("a", "MQTT", "redis")
    with pytest.raises(ValueError, match="did you mean redis"):
        convert_topic_notation("a", "redis", "reddis")
    with pytest.raises(ValueError, match="it has commlib, mqtt, redis, amqp"):
        convert_topic_notation("a", "zmq", "redis")


NAMES = st.lists(st.text("abé$ -", max_size=3), min_size=1, max_size=4).map(".".join)


@given(NAMES.filter(lambda name: name.strip()), st.sampled_from(["mqtt", "redis", "amqp"]))
def test_a_name_comes_back_from_everywhere_as_it_was(name: str, protocol: str) -> None:
    there = convert_topic_notation(name, "commlib", protocol)
    assert convert_topic_notation(there, protocol, "commlib") == name


def test_the_wildcards_are_those_of_the_transport() -> None:
    assert RedisTransport.traits.native_wildcards == REDIS_WILDCARDS
