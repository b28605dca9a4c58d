"""From the topics of one broker to those of another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

Pairs = Sequence[tuple[str, str] | list[str]]


class Route(NamedTuple):
    """Where the messages of one topic go, and the places of both.

    ``hop`` is the source's place as it is written. ``is_loop``: they would come back to it.
    """

    topic: str
    source: str
    sink: str
    hop: bytes
    is_loop: bool


def spelled(name: str, separator: str) -> str:
    """A name or pattern with this separator; as it is if that is empty.

    Dots in a name of slash notation are ordinary characters, and stay.
    """
    if separator == ".":
        return name.replace("/", ".")
    if separator == "/" and "/" not in name:
        return name.replace(".", "/")
    return name


def prefixed(namespace: str, topic: str, separator: str = "") -> str:
    """A topic in a namespace.

    ``separator`` is that of the broker, if it has one. Else the notation is that of the namespace,
    or of the topic if the namespace is one word.
    """
    if not namespace:
        return spelled(topic, separator)
    for name in (namespace, topic):
        if not separator and ("/" in name or "." in name):
            separator = "/" if "/" in name else "."
    separator = separator or "."
    return f"{spelled(namespace, separator)}{separator}{spelled(topic, separator)}"


def samples(pattern: str) -> Iterator[str]:
    """Some names that a pattern matches: each ``*`` as one word, and the last one as two."""
    separator = "/" if "/" in pattern else "."
    words = ["w" if word == "*" else word for word in pattern.split(separator)]
    yield separator.join(words)
    if pattern.endswith("*"):
        yield separator.join([*words, "w"])
    if pattern == "*":
        yield "w/w"


def checked_pairs(uri_transform: Pairs) -> list[tuple[str, str]]:
    """The pairs to replace. Raises ValueError for what is none."""
    pairs = []
    for pair in uri_transform:
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or not all(isinstance(text, str) for text in pair)
            or not pair[0]
        ):
            raise ValueError(f"uri_transform: {pair!r} is no pair (from, to) of texts")
        pairs.append((pair[0], pair[1]))
    return pairs
