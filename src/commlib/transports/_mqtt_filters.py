"""Topic filters of MQTT: what they match, cover and share with others. Pure.

Source: MQTT 3.1.1 and MQTT 5.0, section 4.7. Filters are valid and split into their levels. A
wildcard on the first level matches no topic that begins with ``$``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

Levels = tuple[str, ...]
MAX_LEVELS = 12  # of a topic whose filters are listed: there are twice as many with each


def levels(topic_or_filter: str) -> Levels:
    """The words between the slashes."""
    return tuple(topic_or_filter.split("/"))


def is_exact(wanted: Levels) -> bool:
    """Whether a filter matches one topic alone."""
    return "+" not in wanted and "#" not in wanted


def covers(wide: Levels, narrow: Levels) -> bool:
    """Whether one filter matches all that the other one does; the latter may be a topic."""
    if wide[0] in ("+", "#") and narrow[0].startswith("$"):
        return False
    for index, level in enumerate(wide):
        if level == "#":
            return True  # also at the parent: a/# matches a
        if index == len(narrow) or narrow[index] == "#" or level not in ("+", narrow[index]):
            return False
    return len(wide) == len(narrow)


def matching(topic: str) -> Iterator[str]:
    """All filters that match a topic, the topic itself first; of a very long one no others."""
    words = levels(topic)
    if len(words) > MAX_LEVELS:
        yield topic
        return
    choices: list[tuple[str, ...]] = [(word, "+") for word in words]
    least = 0  # words that stay
    if topic.startswith("$"):
        choices[0], least = (words[0],), 1
    for kept in range(len(words), least - 1, -1):
        for chosen in product(*choices[:kept]):
            if kept == len(words):
                yield "/".join(chosen)
            yield "/".join((*chosen, "#"))


def overlap(one: Levels, other: Levels) -> bool:
    """Whether there is a topic that both filters match."""
    for first, second in ((one[0], other[0]), (other[0], one[0])):
        if first in ("+", "#") and second.startswith("$"):
            return False
    for index in range(max(len(one), len(other))):
        here = one[index] if index < len(one) else ""
        there = other[index] if index < len(other) else ""
        if "#" in (here, there):
            return True
        if index >= len(one) or index >= len(other):
            return False
        if here != there and "+" not in (here, there):
            return False
    return True
