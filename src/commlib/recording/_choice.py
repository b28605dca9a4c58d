"""Which topics a recorder listens to, and which messages it leaves out. Pure."""

from __future__ import annotations

import re

from commlib import _topics
from commlib._discovery import ANNOUNCE
from commlib.transports.base import Traits

_REPLY = re.compile(r"rpc-[0-9a-f]{32}[./].")


def without_covered(topics: list[str], native: str) -> list[str]:
    """Patterns first, and no topic that one of them brings anyhow."""
    patterns = [topic for topic in topics if _topics.is_pattern(topic, native)]
    exact = [topic for topic in topics if not _topics.is_pattern(topic, native)]
    matchers = [matches for each in patterns if (matches := _topics.matcher(each, native))]
    kept = [t for t in exact if is_own(t) or not any(matches(t) for matches in matchers)]
    return [*kept, *patterns]


def is_own(topic: str) -> bool:
    """Whether nodes tell of themselves there: replayed, that would make ghosts."""
    return topic.replace("/", ".").startswith(ANNOUNCE)


def is_reply(topic: str) -> bool:
    """Whether replies to calls come there."""
    return _REPLY.match(topic) is not None


def hears_calls(traits: Traits) -> bool:
    """Whether requests and replies can be heard without taking them: where queues are topics."""
    return traits.separator == "/" and "+" in traits.native_wildcards


def no_calls(params: object) -> str:
    """Why calls cannot be recorded on this broker, and what can be done."""
    return (
        f"calls cannot be recorded at {params}: there a request lies in a queue, and whoever looks "
        "at it takes it from the service. They can on MQTT; status and feedback of an action can "
        "everywhere"
    )
