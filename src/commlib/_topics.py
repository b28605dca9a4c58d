"""The grammar of names and patterns, and how each broker spells it. Pure.

A name is words joined by dots, or by slashes: one that holds a slash is in slash notation, and
dots in it are ordinary characters. A word may be empty. In a pattern ``*`` stands for whole words:
between separators for exactly one, at the end for one or more; ``*`` alone is every name, in
either notation. As in MQTT (section 4.7.2), a ``*`` at the beginning does not stand for a word
that begins with ``$``: brokers publish their own news there.

The spellings below may match more than the grammar does (Redis globs cross separators, MQTT's
``a/#`` matches ``a`` too, AMQP cannot split at slashes), never less: what arrives is filtered
again with `matcher`. A broker's own wildcards pass through, and such a pattern is not filtered.
"""

import re
from collections.abc import Callable, Iterable

MAX_NAME_BYTES = 65_535
"""The longest name, in UTF-8: the limit of an MQTT string (section 1.5.4)."""

# C0 and C1 without exception: MQTT (section 1.5.4) lets a broker cut the connection for them.
# What Unicode has set aside is no character, and Mosquitto ends the connection of who sends it.
_NONE = (*range(0xFDD0, 0xFDF0), *(plane + last for plane in range(0, 0x110000, 0x10000)
                                  for last in (0xFFFE, 0xFFFF)))  # fmt: skip
_CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0), *_NONE)))

MQTT_WILDCARDS, REDIS_WILDCARDS, AMQP_WILDCARDS = "+#", "?[", "#"
"""The characters that our grammar leaves to the broker; AMQP's ``*`` is the same as ours."""


# ---- what is a name ----


def check_topic(name: object, what: str = "topic") -> str:
    """Returns ``name`` if one may publish or serve at it; ``what`` says in errors what it is.

    Raises TypeError for what is no str, ValueError for what is no name.
    """
    name = _check_name(name, what)
    if "*" in split(name):
        raise ValueError(
            f"{name!r} is a pattern, and a {what} names one thing: put a word in the place of '*'"
        )
    return name


def check_pattern(name: object) -> str:
    """Returns ``name`` if one may subscribe to it: a topic, or a pattern with ``*`` as a word.

    Raises TypeError for what is no str, ValueError for what is no pattern.
    """
    name = _check_name(name, "topic")
    words = split(name)
    for index, word in enumerate(words):
        if "*" in word and word != "*":
            whole = _separator(name).join([*words[:index], "*", *words[index + 1 :]])
            raise ValueError(
                f"'*' stands for whole words and cannot be a part of {word!r}: "
                f"instead of {name!r} subscribe to {whole!r} and look at the topic in the callback"
            )
    return name


def check_list(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Returns ``names``, which ``what`` says in errors. Raises TypeError for one str: no list."""
    if isinstance(names, str | bytes):
        raise TypeError(f"{what}={names!r}: it is a list, such as [{names!r}]")
    return tuple(names)


def _check_name(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a {what} is a str such as 'sensors.front', not {name!r}")
    if not name.strip():
        raise ValueError(f"a {what} needs at least one word, such as 'sensors.front', not {name!r}")
    if has_control(name):
        control = next(char for char in name if char in _CONTROL)
        raise ValueError(f"remove the control character {control!r} from the {what} {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise ValueError(f"the {what} {name!r} is no valid Unicode: {exc.reason}") from None
    if size > MAX_NAME_BYTES:
        raise ValueError(
            f"the {what} {name[:20]!r}... is {size} bytes long, shorten it to {MAX_NAME_BYTES}"
        )
    return name


def has_control(text: str) -> bool:
    """Whether there are control characters in it."""
    return not text.isprintable() and not _CONTROL.isdisjoint(text)


def join(*names: str) -> str:
    """One name of several, in slash notation if one of them is."""
    return _separator("".join(names)).join(names)


def _separator(name: str) -> str:
    return "/" if "/" in name else "."


def split(name: str) -> list[str]:
    """The words of a name or pattern, in its own notation."""
    return name.split(_separator(name))


# ---- what is a pattern, and what it matches ----


def is_pattern(name: str, native: str = "") -> bool:
    """Whether a name holds ``*`` as a word, or a wildcard of the broker's own.

    ``native`` are the latter's characters: ``+`` and ``#`` count as whole words, others anywhere.
    """
    return "*" in split(name) or _is_native(name, native)


def matcher(pattern: str, native: str = "") -> Callable[[str], bool] | None:
    """The function that tells whether a name matches the pattern, which `check_pattern` has seen.

    None: the pattern holds a wildcard of the broker's own, so the broker alone knows. ``native``
    is what `is_pattern` takes.
    """
    if _is_native(pattern, native):
        return None
    if pattern == "*":
        return lambda name: not name.startswith("$")
    words = split(pattern)
    if "*" not in words:
        return pattern.__eq__
    if words.index("*") == len(words) - 1:
        return _prefix_matcher(pattern[:-1])
    expression = re.compile(_regex(words, _separator(pattern)))
    return lambda name: expression.fullmatch(name) is not None


def _is_native(name: str, native: str) -> bool:
    words = split(name)
    return any(char in (words if char in MQTT_WILDCARDS else name) for char in native)


def _prefix_matcher(prefix: str) -> Callable[[str], bool]:
    if prefix.endswith("/"):
        return lambda name: name.startswith(prefix)
    return lambda name: name.startswith(prefix) and "/" not in name


def _regex(words: list[str], separator: str) -> str:
    # A dotted pattern matches no name in slash notation, so there no word may hold a slash.
    one = "[^/]*" if separator == "/" else "[^./]*"
    more = "(?s:.*)" if separator == "/" else "[^/]*"
    parts = [one if word == "*" else re.escape(word) for word in words]
    if words[-1] == "*":
        parts[-1] = more
    return (r"(?!\$)" if words[0] == "*" else "") + re.escape(separator).join(parts)


def check_wildcards(pattern: str, wildcards: str, broker: str) -> None:
    """Raises ValueError where a broker does not allow its wildcards: in a part of a word.

    ``#`` is allowed as the last word only.
    """
    words = split(pattern)
    for index, word in enumerate(words):
        if word not in (*wildcards,) and set(word) & set(wildcards):
            allowed = " and ".join(map(repr, wildcards))
            raise ValueError(
                f"{broker} allows {allowed} as whole words only, not {word!r} in {pattern!r}"
            )
        if word == "#" and "#" in wildcards and index < len(words) - 1:
            raise ValueError(f"{broker} allows '#' at the end only, not in {pattern!r}: write '+'")


# ---- spellings ----


def redis_glob(pattern: str) -> str:
    """The pattern for PSUBSCRIBE. Its ``?`` and ``[`` are Redis's own and pass through."""
    return pattern.replace("\\", "\\\\")


def to_mqtt(name: str) -> str:
    """The MQTT topic of a name."""
    return name if "/" in name else name.replace(".", "/")


def from_mqtt(topic: str, like: str) -> str:
    """The name of an MQTT topic, in the notation that the subscription ``like`` is written in.

    A pattern of one word has none: what cannot be the spelling of a dotted name stays as it is.
    """
    if "/" in like or ("." in topic and "." not in like):
        return topic
    return topic.replace("/", ".")


def mqtt_filter(pattern: str) -> str:
    """The topic filter for SUBSCRIBE. Its ``+`` and ``#`` are MQTT's own and pass through.

    Raises ValueError where MQTT does not allow them: a broker cuts the connection for it.
    """
    check_wildcards(pattern, MQTT_WILDCARDS, "MQTT")
    *words, last = split(pattern)
    words = ["+" if word == "*" else word for word in words]
    return "/".join([*words, "#" if last == "*" else last])


def amqp_binding(pattern: str) -> str:
    """The binding key for a topic exchange. A ``#`` in dotted notation passes through.

    Raises ValueError for a ``#`` in slash notation: AMQP splits at dots only.
    """
    words = split(pattern)
    if _separator(pattern) == "/":
        if "#" in words:
            raise ValueError(f"AMQP knows '#' between dots only: write {pattern!r} with '*'")
        return "#" if "*" in words else pattern
    if words[-1] == "*":
        words[-1] = "#"
    return ".".join(words)


def amqp_matcher(binding: str) -> Callable[[str], bool]:
    """What a binding key matches, as the broker does it, but for names that begin with ``$``.

    For a binding that holds ``#``, which is any number of words, and none (AMQP 0-9-1, 3.1.3.3).
    """
    wanted = binding.split(".")
    is_open = wanted[0] in ("*", "#")
    return lambda name: not (is_open and name[:1] == "$") and _matches(wanted, name.split("."))


def _matches(wanted: list[str], words: list[str]) -> bool:
    """Whether words match; what a ``#`` took is only given back to the last one, so it is quick."""
    at, last, taken = 0, -1, 0  # in ``wanted``: here, the last #; the words before its rest
    here = 0
    while here < len(words):
        if at < len(wanted) and wanted[at] == "#":
            last, taken = at, here
            at += 1
        elif at < len(wanted) and wanted[at] in ("*", words[here]):
            at += 1
            here += 1
        elif last >= 0:
            taken += 1
            at, here = last + 1, taken
        else:
            return False
    return all(word == "#" for word in wanted[at:])
