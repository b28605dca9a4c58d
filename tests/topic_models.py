"""What names and patterns mean, as plainly as it can be written: ours, and each broker's own."""

from __future__ import annotations


def split(name: str) -> list[str]:
    return name.split("/" if "/" in name else ".")


def plain_match(pattern: str, name: str) -> bool:
    """The grammar as the documentation tells it, word by word."""
    if pattern == "*":
        return not name.startswith("$")
    if ("/" in pattern) != ("/" in name):
        return pattern == name
    wanted, given = split(pattern), split(name)
    if wanted[0] == "*" and name.startswith("$"):
        return False
    if wanted[-1] == "*" and len(given) > len(wanted):
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        word in ("*", other) for word, other in zip(wanted, given, strict=True)
    )


def redis_matches(glob: str, name: str) -> bool:
    """Redis's `stringmatchlen`, without its `?` and `[`."""
    if not glob:
        return not name
    if glob[0] == "*":
        return any(redis_matches(glob[1:], name[start:]) for start in range(len(name) + 1))
    if glob[0] == "\\" and len(glob) > 1:
        glob = glob[1:]
    return name[:1] == glob[0] and redis_matches(glob[1:], name[1:])


def mqtt_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5, section 4.7."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[0] in ("+", "#") and topic.startswith("$"):
        return False
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        word in ("+", other) for word, other in zip(wanted, given, strict=True)
    )


def amqp_matches(binding: str, key: str) -> bool:
    """A topic exchange: `*` is one word, `#` any number of words."""
    return _amqp_words_match(binding.split("."), key.split("."))


def _amqp_words_match(wanted: list[str], given: list[str]) -> bool:
    if not wanted:
        return not given
    if wanted[0] == "#":
        return any(_amqp_words_match(wanted[1:], given[i:]) for i in range(len(given) + 1))
    return bool(given) and wanted[0] in ("*", given[0]) and _amqp_words_match(wanted[1:], given[1:])
