"""One run for each thing that there may be many of: from how many to the figures.

A run starts the processes that it needs, and ends them. The figures are those of `roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import urandom
from time import monotonic, sleep

from bench import proc
from bench.brokers import Server
from bench.processes import Child, ChildFailed
from bench.roster import WITHOUT_UVLOOP, Contender
from bench.scale.roles import MORE
from commlib.discovery import Discovery, NodeInfo

OURS = Contender("ours", "bench.scale.roles", "ours", options=WITHOUT_UVLOOP)
MAKE_SECONDS = 60.0  # for all of them
SETTLE_SECONDS = 60.0  # until discovery knows them and they are quiet
QUIET = 0.2  # of a core: less is the heartbeats and keep-alives of many nodes
GLANCE_SECONDS = 0.5  # over which that is looked at
MESSAGES, CALLS = 20_000, 2_000
PATTERN_WORK = 10_000_000  # comparisons of a message with a pattern: some brokers make them all

Figures = dict[str, float]
Runs = dict[str, dict[int, Figures]]  # by the name of the run, and how many there were


class Unsettled(Exception):
    """Discovery was not told of all, or still is, so that they do not take yet what they will."""


class MessagesLost(Exception):
    """Not all arrived, so what the others cost says nothing."""


@dataclass
class Bed:
    """A running broker."""

    name: str
    server: Server

    def start(self, role: str, **options: object) -> Child:
        """A child that plays this role."""
        return Child(OURS, role, self.server.url, **options)

    def fresh_name(self, words: int = 1) -> str:
        """A name that nothing else has, in the notation of the broker."""
        separator = "/" if self.name == "mqtt" else "."
        return separator.join(f"scale_{urandom(4).hex()}" for _ in range(words))

    def wait_until_settled(self, pid: int, endpoints: int) -> None:
        """Return when discovery knows so many endpoints of a process, which is at rest again."""
        deadline = monotonic() + SETTLE_SECONDS
        with Discovery(self.server.url) as discovery:
            while (known := _endpoints_of(pid, discovery.ask())) < endpoints:
                if monotonic() > deadline:
                    raise Unsettled(f"discovery knows {known} of {endpoints} endpoints")
        while (load := _load(pid)) > QUIET:
            if monotonic() > deadline:
                raise Unsettled(f"a process with {known} endpoints uses {load:.0%} of a core")


def topics(bed: Bed, many: int) -> Figures:
    """Subscriptions to as many topics, of which one or all get messages."""
    return _subscriptions(bed, many, "topics", MESSAGES, many)


def patterns(bed: Bed, many: int) -> Figures:
    """Subscriptions to as many patterns, of which each matches one topic.

    Of all, no more than 1000 get messages: Redis would need minutes for that.
    """
    busy, messages = min(many, 1000), min(MESSAGES, PATTERN_WORK // many)
    return _subscriptions(bed, many, "patterns", messages, busy)


def _subscriptions(bed: Bed, many: int, kind: str, messages: int, all_busy: int) -> Figures:
    topic = bed.fresh_name(2 if kind == "patterns" else 1)
    with bed.start("subscriptions", topic=topic, many=many, kind=kind) as receiver:
        figures = _made(bed, receiver, many)
        for case, busy in (("one_busy", 1), ("all_busy", all_busy)):
            received = _publish(bed, receiver, topic, many, busy, messages)
            figures[f"{case}_us"] = received["cpu_us"]
    return figures


def topics_uncollected(bed: Bed, many: int) -> Figures:
    """The making of as many subscriptions, with Python's garbage collector off."""
    topic = bed.fresh_name()
    with bed.start("subscriptions", topic=topic, many=many, kind="topics", collector=0) as receiver:
        return _made(bed, receiver, many)


def _publish(
    bed: Bed, receiver: Child, topic: str, many: int, busy: int, messages: int, copies: int = 1
) -> Figures:
    """What the receiver says of so many messages."""
    with bed.start("publishers", topic=topic, many=many, busy=busy) as publisher:
        _made(bed, publisher, busy)
        for count in (busy, messages):  # first one each: what a topic costs once
            publisher.ask(count)
            received = receiver.ask(count * copies)
            if received["lost"]:
                raise MessagesLost(f"{received['lost']} of {count * copies} messages were lost")
    return received


def one_topic(bed: Bed, many: int) -> Figures:
    """As many subscribers of one topic; the cost is that of each copy of a message."""
    topic = bed.fresh_name()
    with bed.start("subscriptions", topic=topic, many=many, kind="one") as receiver:
        figures = _made(bed, receiver, many)
        messages = max(10, MESSAGES // many)
        received = _publish(bed, receiver, topic, 1, 1, messages, copies=many)
    return figures | {"copy_us": received["cpu_us"]}


def publishers(bed: Bed, many: int) -> Figures:
    """Publishers of as many topics, to nobody."""
    topic = bed.fresh_name()
    with bed.start("publishers", topic=topic, many=many, busy=many) as publisher:
        figures = _made(bed, publisher, many)
        publisher.ask(many)
        return figures | publisher.ask(MESSAGES)


def services(bed: Bed, many: int) -> Figures:
    """As many services of one process, of which one or all are called."""
    name = bed.fresh_name()
    with bed.start("services", name=name, many=many) as served:
        figures = _made(bed, served, many)
        for case, busy in (("one_busy", 1), ("all_busy", many)):
            with bed.start("clients", name=name, many=busy, served=many) as caller:
                _made(bed, caller, busy)
                called, cost = _call(caller, served, busy)
            figures[f"{case}_us"] = cost
    return figures | {"all_busy_call_us": called["call_us"]}


def clients(bed: Bed, many: int) -> Figures:
    """As many clients of one service, in one process."""
    name = bed.fresh_name()
    with (
        bed.start("services", name=name, many=1) as served,
        bed.start("clients", name=name, many=many, served=1) as caller,
    ):
        _made(bed, served, 1)
        figures = _made(bed, caller, many)
        called, _ = _call(caller, served, many)
    return figures | called


def _call(caller: Child, served: Child, many: int) -> tuple[Figures, float]:
    """What the caller says of many calls, and what each costs the services."""
    caller.ask(min(many, CALLS))
    served.ask("mark")
    called = caller.ask(CALLS)
    return called, served.ask("mark")["cpu_us"] / CALLS


def nodes(bed: Bed, many: int) -> Figures:
    """As many nodes in one process, each with connections of its own."""
    return _nodes(bed, many, shared=0)


def shared_nodes(bed: Bed, many: int) -> Figures:
    """The same with ``share_connection``."""
    return _nodes(bed, many, shared=1)


def _nodes(bed: Bed, many: int, shared: int) -> Figures:
    with bed.start("nodes", topic=bed.fresh_name(), many=many, shared=shared) as child:
        figures = _made(bed, child, 2 * many, each=2)
        for count in (many, max(many, MESSAGES)):
            sent = child.ask(count)
            if sent["lost"]:
                raise MessagesLost(f"{sent['lost']} of {count} messages were lost")
    return figures | sent


def _made(bed: Bed, child: Child, endpoints: int, each: int = 1) -> Figures:
    """What so many endpoints take that a child makes, when it has settled with all of them.

    In the end it makes some more, ``each`` at a time. After whatever it does it settles.
    """
    child.hear(MAKE_SECONDS)
    bed.wait_until_settled(child.pid, endpoints)
    child.ask("weigh")
    bed.wait_until_settled(child.pid, endpoints)
    figures = child.ask("make more")
    bed.wait_until_settled(child.pid, endpoints + MORE * each)
    return figures


def _endpoints_of(pid: int, nodes: Iterable[NodeInfo]) -> int:
    return sum(len(node.endpoints) for node in nodes if node.pid == pid)


def _load(pid: int) -> float:
    """The part of a core that a process uses."""
    before = proc.cpu_seconds(pid)
    sleep(GLANCE_SECONDS)
    return (proc.cpu_seconds(pid) - before) / GLANCE_SECONDS


RUNS: dict[str, Callable[[Bed, int], Figures]] = {
    run.__name__: run
    for run in (
        topics,
        topics_uncollected,
        patterns,
        one_topic,
        publishers,
        services,
        clients,
        nodes,
        shared_nodes,
    )
}
FAILURES = (ChildFailed, MessagesLost, Unsettled, OSError)
