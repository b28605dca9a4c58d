"""Small things that programs around messages need: a loop's rate, times, ids, and spellings.

The ``topic_`` functions translate topics and patterns between the notation of commlib, the same on
every broker, and that of one broker. A star of commlib is one word, or at the end one or more. The
wildcards of brokers differ a little: MQTT's and AMQP's ``#`` match the parent as well, their last
``+`` or ``*`` one word only, and a ``*`` of Redis crosses dots. Each is translated to the nearest.
All of them raise TypeError for what is no str, and ValueError for what is no topic or pattern, or
cannot be said in the other notation.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from os import urandom

from commlib._params import nearest
from commlib._topics import (
    AMQP_WILDCARDS,
    MQTT_WILDCARDS,
    REDIS_WILDCARDS,
    amqp_binding,
    check_pattern,
    from_mqtt,
    is_pattern,
    matcher,
    mqtt_filter,
    redis_glob,
)

__all__ = [
    "Rate",
    "camelcase_to_snakecase",
    "convert_topic_notation",
    "gen_random_id",
    "gen_timestamp",
    "get_timestamp_ms",
    "get_timestamp_ns",
    "get_timestamp_us",
    "topic_from_amqp",
    "topic_from_mqtt",
    "topic_from_redis",
    "topic_to_amqp",
    "topic_to_mqtt",
    "topic_to_redis",
]


class Rate:
    """Holds a loop at ``hz`` turns a second: ``sleep()`` at the end of each.

    It keeps to a schedule that begins when it is made, so that turns of different lengths do not
    add up to a drift. For one loop in one thread. Raises ValueError for a rate that is not above
    zero.
    """

    def __init__(self, hz: float) -> None:
        if not hz > 0:
            raise ValueError(f"a rate is a number of turns a second above 0, not {hz!r}")
        self._period = 1 / hz
        self._due = time.monotonic() + self._period

    def sleep(self) -> None:
        """Sleep until the next turn is due.

        A turn that was too long is followed by one at once. When the loop is late by more than a
        whole period it does not hurry after its schedule: a new one begins now.
        """
        pause = self._due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        elif pause < -self._period:
            self._due -= pause
        self._due += self._period


# ---- times and ids ----


def gen_timestamp() -> int:
    """The time in ms since 1970, as in the timestamps of messages."""
    return time.time_ns() // 1_000_000


def get_timestamp_ns() -> int:
    """The time in ns since 1970."""
    return time.time_ns()


def get_timestamp_us() -> int:
    """The time in µs since 1970."""
    return time.time_ns() // 1_000


def get_timestamp_ms() -> int:
    """The time in ms since 1970."""
    return gen_timestamp()


def gen_random_id() -> str:
    """32 hexadecimal digits that nobody else has."""
    return urandom(16).hex()


# Where a small letter or digit is followed by a capital, and before the last of some capitals.
_NEW_WORD = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def camelcase_to_snakecase(name: str) -> str:
    """``robot_state`` from ``RobotState``, ``http_server`` from ``HTTPServer``."""
    return _NEW_WORD.sub("_", name).lower()


# ---- topics ----


def topic_to_mqtt(topic: str) -> str:
    """The MQTT topic, or topic filter, of a topic or pattern: ``a/+/b`` for ``a.*.b``.

    MQTT's own ``+`` and ``#`` pass through.
    """
    return mqtt_filter(check_pattern(topic))


def topic_from_mqtt(topic: str) -> str:
    """The topic or pattern of an MQTT topic or topic filter, with dots: ``a.*.b`` for ``a/+/b``.

    Where words hold dots it stays in slash notation.
    """
    check_pattern(topic)
    if "." in topic and "/" not in topic:
        raise ValueError(f"commlib has no name for the MQTT topic {topic!r}: a dot and no slash")
    words = mqtt_filter(topic).split("/")
    name = "/".join("*" if word in ("+", "#") else word for word in words)
    return from_mqtt(name, name if "." in name else "")


def topic_to_redis(topic: str) -> str:
    """The channel for SUBSCRIBE, or the glob for PSUBSCRIBE, of a topic or pattern.

    Redis's own ``?`` and ``[`` pass through.
    """
    check_pattern(topic)
    return redis_glob(topic) if is_pattern(topic, REDIS_WILDCARDS) else topic


def topic_from_redis(topic: str) -> str:
    """The topic or pattern of a channel or glob of Redis."""
    check_pattern(topic)
    if matcher(topic, REDIS_WILDCARDS) is None:
        raise ValueError(f"only Redis knows '?' and '[': write {topic!r} with '*'")
    return topic.replace(r"\\", "\\") if is_pattern(topic) else topic


def topic_to_amqp(topic: str) -> str:
    """The routing key, or the binding key for a topic exchange, of a topic or pattern.

    AMQP splits at dots only, so a pattern in slash notation becomes ``#``, everything. A ``#``
    between dots passes through.
    """
    return amqp_binding(check_pattern(topic))


def topic_from_amqp(topic: str) -> str:
    """The topic or pattern of a routing key or binding key: ``a.*`` for ``a.#``."""
    words = check_pattern(topic).split(".")
    if words[-1] == "#":
        words[-1] = "*"
    if "#" in words:
        raise ValueError(f"only AMQP knows '#' before the last word: write {topic!r} with '*'")
    return check_pattern(".".join(words))


_NOTATIONS: dict[str, tuple[Callable[[str], str], Callable[[str], str], str]] = {
    "commlib": (check_pattern, check_pattern, ""),
    "mqtt": (topic_from_mqtt, topic_to_mqtt, MQTT_WILDCARDS),
    "redis": (topic_from_redis, topic_to_redis, REDIS_WILDCARDS),
    "amqp": (topic_from_amqp, topic_to_amqp, AMQP_WILDCARDS),
}


def convert_topic_notation(topic: str, from_protocol: str, to_protocol: str) -> str:
    """A topic or pattern in another notation: each is one of commlib, mqtt, redis, amqp.

    Raises ValueError for another protocol, too.
    """
    read, _, _ = _notation(from_protocol)
    _, write, wildcards = _notation(to_protocol)
    if from_protocol == to_protocol:
        return topic
    name = read(topic)
    # In the notation of commlib one may mean a broker's own wildcard, from elsewhere nobody does.
    if from_protocol != "commlib" and matcher(name, wildcards) is None:
        raise ValueError(f"{topic!r} holds what is a wildcard in {to_protocol}")
    return write(name)


def _notation(protocol: str) -> tuple[Callable[[str], str], Callable[[str], str], str]:
    try:
        return _NOTATIONS[protocol]
    except KeyError:
        meant = nearest(protocol.lower(), _NOTATIONS)
        raise ValueError(f"{protocol!r} is no notation of topics; {meant}") from None
