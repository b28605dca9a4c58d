"""Names and patterns of any text: the grammar, what matches, and how brokers spell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from fuzz.script import Script, text
from topic_models import amqp_matches, mqtt_matches, plain_match, redis_matches

NATIVE = ("", "?[", "+#", "#")
SHORT = 24  # characters; the models try all that there is
FEW = 4  # wildcards, for the same reason


def run(data: bytes) -> None:
    """One pattern and one name."""
    script = Script(data)
    native = script.choice(NATIVE)
    pattern, name = text(script.piece()), text(script.rest())
    topic = _if_valid(check_topic, name)
    if _if_valid(check_pattern, pattern) is None:
        assert _if_valid(check_topic, pattern) is None or "*" in pattern, pattern
        return
    assert _if_valid(check_topic, pattern) is None or not is_pattern(pattern), pattern
    for spell in (redis_glob, mqtt_filter, amqp_binding):
        _if_valid(spell, pattern)
    if topic is None:
        return
    assert join(topic) == topic
    _match(pattern, topic, native)
    _translate(pattern, topic)


def _if_valid(look: Callable[[Any], str], name: str) -> str | None:
    try:
        return look(name)
    except ValueError:
        return None


def _match(pattern: str, name: str, native: str) -> None:
    matches = matcher(pattern, native)
    if matches is not None:
        matched = matches(name)
        assert matched is plain_match(pattern, name)
        if matched and max(len(pattern), len(name)) <= SHORT:
            _check_brokers(pattern, name)
    binding = _if_valid(amqp_binding, pattern)
    if binding is not None and "#" in binding.split("."):
        matched = amqp_matcher(binding)(name)
        if len(name) <= SHORT and binding.count("#") <= FEW:
            is_open = binding.split(".")[0] in ("*", "#") and name.startswith("$")
            assert matched is (amqp_matches(binding, name) and not is_open)


def _check_brokers(pattern: str, name: str) -> None:
    """No broker loses what the grammar matches; its own wildcards may match otherwise."""
    if not is_pattern(pattern, "?[") or ("*" in pattern and not set(pattern) & set("?[")):
        assert pattern.count("*") > FEW or redis_matches(redis_glob(pattern), name)
    topic_filter = _if_valid(mqtt_filter, pattern)
    if topic_filter is not None and not set(name) & set("+#"):
        assert mqtt_matches(topic_filter, to_mqtt(name))
    binding = _if_valid(amqp_binding, pattern)
    if binding is not None and binding.count("#") <= FEW:
        assert amqp_matches(binding, name)


def _translate(pattern: str, name: str) -> None:
    """A name that matches comes back from MQTT as it was, in the notation of its subscription."""
    matches = matcher(pattern)
    has_notation = "." in pattern or "/" in pattern
    if has_notation and matches is not None and matches(name):
        assert from_mqtt(to_mqtt(name), pattern) == name
