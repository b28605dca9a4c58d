"""Names and patterns as the broker of an endpoint takes them."""

from __future__ import annotations

from commlib import _topics
from commlib.aio._hub import Hub


def check_name(name: object, hub: Hub, what: str = "topic") -> str:
    """Returns ``name`` if one may publish or serve at it on this broker; else as ``check_topic``.

    Raises ValueError also for a wildcard of the broker's own that it takes in no name.
    """
    name = _check_length(_topics.check_topic(name, what), hub, what)
    for char in hub.transport.traits.never_in_names:
        if char in name:
            raise ValueError(
                f"{name!r} holds a wildcard of {_broker(hub)} and names one thing: "
                f"put something else in the place of {char!r} in this {what}"
            )
    return name


def check_pattern(name: object, hub: Hub) -> str:
    """Returns ``name`` if one may subscribe to it on this broker; else as that of ``_topics``."""
    name = _check_length(_topics.check_pattern(name), hub, "topic")
    _topics.check_wildcards(name, hub.transport.traits.never_in_names, _broker(hub))
    return name


def _check_length(name: str, hub: Hub, what: str) -> str:
    size, most = len(name.encode()), hub.transport.traits.longest_name
    if size > most:
        raise ValueError(
            f"the {what} {name[:20]!r}... is {size} bytes long, and {_broker(hub)} has room for "
            f"{most}: shorten it"
        )
    return name


def _broker(hub: Hub) -> str:
    return "".join(hub.params.schemes[:1]).upper() or "the broker"
