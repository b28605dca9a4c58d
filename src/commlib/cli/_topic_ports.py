"""Which ports of which nodes a topic concerns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import combinations

from msgspec import Struct

from commlib import _topics
from commlib._discovery import ANNOUNCE, Mismatch, Port, look, mismatch
from commlib.aio.discovery import NodeInfo
from commlib.transports.base import Traits

OURS = "commlib."  # what the topics of commlib itself begin with
REPLIES = "rpc-"  # and the return addresses of calls, which on MQTT are topics
ANY = "*"  # of a publisher whose topic is told with each message


class Topic(Struct):
    """A topic or pattern, and how many have to do with it. ``messages``: None if none counted."""

    topic: str
    types: list[str] = []
    publishers: int = 0
    subscribers: int = 0
    messages: int | None = None


def ports_of(nodes: Iterable[NodeInfo]) -> Iterator[Port]:
    """The publishers and subscribers."""
    for node in nodes:
        for endpoint in node.endpoints:
            if endpoint.kind in ("publisher", "subscriber"):
                yield node, endpoint


def topics_of(
    nodes: Iterable[NodeInfo], counts: dict[str, int] | None, traits: Traits
) -> list[Topic]:
    """The topics that nodes tell of and those that messages came on, by name."""
    found: dict[str, Topic] = {}
    for _, port in ports_of(nodes):
        topic = found.setdefault(key(port.name, traits), Topic(port.name))
        topic.types = sorted({*topic.types, *filter(None, [port.type])})
        topic.publishers += port.kind == "publisher"
        topic.subscribers += port.kind == "subscriber"
    for name, count in (counts or {}).items():
        topic = found.setdefault(key(name, traits), Topic(name))
        topic.messages = (topic.messages or 0) + count
    if counts is not None:
        for topic in found.values():
            topic.messages = topic.messages or 0
    return sorted(found.values(), key=lambda topic: topic.topic)


def is_inner(name: str) -> bool:
    """Whether a topic is commlib's own: discovery, replies to calls, what its commands measure."""
    return name == ANNOUNCE or name.startswith((OURS, REPLIES, "commlib/"))


def key(name: str, traits: Traits) -> str:
    """The same for two spellings that are one name to the broker: MQTT has no dotted names."""
    return _topics.to_mqtt(name) if traits.separator == "/" else name


def matcher(pattern: str, traits: Traits) -> Callable[[str], bool]:
    """What a topic or pattern matches on this broker, whose own wildcards may be in it.

    Raises ValueError for what is no pattern there.
    """
    same = key(pattern, traits)
    known = _topics.matcher(same, traits.native_wildcards)
    if known is not None:
        return lambda name: known(key(name, traits))
    if traits.separator == "/":  # MQTT, whose wildcards are those of AMQP in other words
        matches = _topics.amqp_matcher(_dotted(_topics.mqtt_filter(same)).replace("+", "*"))
        return lambda name: matches(_dotted(key(name, traits)))
    if "#" in traits.native_wildcards:
        return _topics.amqp_matcher(_topics.amqp_binding(pattern))
    return lambda name: fnmatchcase(name, pattern.replace("[^", "[!"))


def told_matcher(pattern: str, traits: Traits) -> Callable[[str], bool]:
    """The same for a pattern that a stranger has told of, which may be none."""
    try:
        return matcher(pattern, traits)
    except ValueError:
        return lambda name: False


def _dotted(name: str) -> str:
    """An MQTT name with dots between its words, and something else for the dots in them."""
    return name.replace(".", "\0").replace("/", ".")


def concerned(nodes: Iterable[NodeInfo], topic: str, traits: Traits) -> list[Port]:
    """The ports that a topic concerns: by its name, or by a pattern. Of a pattern, by either way.

    Publishers of no one topic are left out, unless it is them that are asked for.
    """
    wanted, is_wanted = key(topic, traits), matcher(topic, traits)
    return [
        (node, port)
        for node, port in ports_of(nodes)
        if key(port.name, traits) == wanted
        or (port.name != ANY and is_wanted(port.name))
        or (port.kind == "subscriber" and told_matcher(port.name, traits)(topic))
    ]


def is_published(nodes: Sequence[NodeInfo], topic: str, traits: Traits) -> bool:
    """Whether a node tells that it publishes there, or does by itself what is said there."""
    if any(port.kind == "publisher" for _, port in concerned(nodes, topic, traits)):
        return True
    return any(map(matcher(topic, traits), _by_themselves(nodes)))


def _by_themselves(nodes: Iterable[NodeInfo]) -> Iterator[str]:
    """The usual topics of what nodes and actions publish without a publisher."""
    for node in nodes:
        yield f"{node.namespace}.heartbeat"
        yield f"{node.namespace}.logs"
        for port in node.endpoints:
            if port.kind == "action":
                yield f"{port.name}.status"
                yield f"{port.name}.feedback"


def mismatches_of(ports: Iterable[Port]) -> list[Mismatch]:
    """What does not go together among ports that one topic concerns, of those alike only once."""
    unlike = {(port[1].name, look(port[1])): port for port in ports}.values()
    found = (mismatch(one, other) for one, other in combinations(unlike, 2))
    return [each for each in found if each is not None]
