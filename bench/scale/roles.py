"""What there is many of, each as a role of a process: subscriptions, publishers, nodes, calls.

    python -m bench.scale.roles ROLE URL LIMIT [NAME=VALUE...]

A role makes ``many`` of something with the synchronous face of this library, and answers. The first
two orders are to be given when it has settled, see `Bed`: to weigh them, and to make some more; the
second answer is what all that takes (see `Making`). Then it does what it is ordered to. Orders and
answers are those of `bench.child`. With ``collector=0`` Python's garbage collector is off from the
start.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import cycle, islice
from time import perf_counter, process_time
from typing import Any

from bench.child import Command, Tally, address_of, answer, order
from bench.contenders.ours import AddTwoInts, Ours, Sonar, add
from bench.proc import connections, status
from bench.roles import topics_of
from commlib.node import Node

MORE = 11  # made one by one when the others are there
GLANCE_SECONDS = 0.01  # between two looks whether the broker has confirmed all
AT_ONCE = 16  # calls under way
CALL_TIMEOUT = 30.0  # s


class Making:
    """What it takes to make many of something.

    ``make_s``, ``make_cpu_s``: until the broker has confirmed all of them. ``rss_kb``: memory.
    ``more_us``: until it has confirmed one more.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._rss_before = 0

    @contextmanager
    def of_all(self) -> Iterator[None]:
        """Measure the making of all, at once."""
        gc.collect()
        begin, cpu, self._rss_before = perf_counter(), process_time(), rss_kb()
        yield
        self.figures["make_s"] = perf_counter() - begin
        self.figures["make_cpu_s"] = process_time() - cpu

    def report(self, make: Callable[[int], object]) -> None:
        """Answer; on order measure the memory, and then the making of some more, one by one."""
        answer()
        order()
        gc.collect()
        self.figures["rss_kb"] = max(0, rss_kb() - self._rss_before)
        answer()
        order()  # heartbeats that were due during the collection have been given
        times = []
        for number in range(MORE):
            begin = perf_counter()
            make(number)
            times.append(perf_counter() - begin)
        self.figures["more_us"] = statistics.median(times) * 1e6
        answer(**self.figures)


def rss_kb() -> int:
    """The memory of this process, in KiB."""
    return status("self", "VmRSS")


def run(nodes: Sequence[Node]) -> None:
    """Run nodes, all at once; return when the broker has confirmed all their endpoints."""
    for node in nodes[:-1]:
        node.run(wait=False)
    nodes[-1].run()
    for node in nodes:
        while not node.health:
            time.sleep(GLANCE_SECONDS)


def warmed_up(url: str) -> Ours:
    """This library, with all loaded that the first endpoint of a kind loads."""
    ours = Ours(url)
    ours.subscribe(["scale_warm"], lambda msg: None, blob=False)
    ours.publisher("scale_warm", blob=False)
    ours.start()
    return Ours(url)


# -- topics ---------------------------------------------------------------------------------------


def subscriptions(url: str, *, topic: str, many: int, kind: str) -> None:
    """Subscribe so often; each further order is how many messages to expect.

    ``kind``: to ``topics``, to as many ``patterns`` that match one topic each, or to ``one`` topic.
    """
    tally, ours, making = Tally(), warmed_up(url), Making()
    node, names = ours._node, _names(topic, many, kind)
    with making.of_all():
        for name in names:
            node.create_subscriber(name, tally.note, Sonar)
        run([node])
    making.report(lambda number: node.create_subscriber(f"{topic}_more{number}", tally.note, Sonar))
    _count(tally)


def _names(topic: str, many: int, kind: str) -> list[str]:
    if kind == "one":
        return [topic] * many
    names = topics_of(topic, many)
    if kind == "topics":
        return names
    separator = "/" if "/" in topic else "."
    return [f"*{separator}{name.partition(separator)[2]}" for name in names]


def _count(tally: Tally) -> None:
    while True:
        sent = int(order()[0])
        tally.settle(sent)
        figures = tally.figures(sent)
        tally.reset()
        answer(**figures)


def publishers(url: str, *, topic: str, many: int, busy: int) -> None:
    """Make a publisher for each of the last ``busy`` of so many topics.

    Each further order is how many messages to publish, by each in turn.
    """
    ours, making = warmed_up(url), Making()
    node = ours._node
    run([node])
    with making.of_all():
        made = [node.create_publisher(name, Sonar) for name in topics_of(topic, many)[-busy:]]
    making.report(lambda number: node.create_publisher(f"{topic}_more{number}", Sonar))
    msg = Sonar()
    while True:
        count = int(order()[0])
        cpu = process_time()
        for publisher in islice(cycle(made), count):
            publisher.publish(msg)
        ours.flush()
        answer(cpu_us=(process_time() - cpu) / count * 1e6)


# -- calls ----------------------------------------------------------------------------------------


def services(url: str, *, name: str, many: int) -> None:
    """Serve so many services; to each further order the answer is the CPU time since the last."""
    ours, making = warmed_up(url), Making()
    node = ours._node
    with making.of_all():
        for each in topics_of(name, many):
            node.create_rpc(each, add, AddTwoInts)
        run([node])
    making.report(lambda number: node.create_rpc(f"{name}_more{number}", add, AddTwoInts))
    while True:
        cpu = process_time()
        order()
        answer(cpu_us=(process_time() - cpu) * 1e6)


def clients(url: str, *, name: str, many: int, served: int) -> None:
    """Make so many clients of so many services, or of the last one if there are more of those.

    Each further order is how many calls to make, by each in turn.
    """
    ours, making = warmed_up(url), Making()
    node, names = ours._node, topics_of(name, served)[-many:]
    run([node])
    with making.of_all():
        made = [node.create_rpc_client(each, AddTwoInts) for each in islice(cycle(names), many)]
    making.report(lambda number: node.create_rpc_client(names[-1], AddTwoInts))
    while True:
        count = int(order()[0])
        begin, cpu = perf_counter(), process_time()
        _call(made, count)
        cpu, wall = process_time() - cpu, perf_counter() - begin
        answer(cpu_us=cpu / count * 1e6, call_us=wall / count * 1e6)


def _call(made: Sequence[Any], count: int) -> None:
    under_way: deque[Future[Any]] = deque()
    request = AddTwoInts.Request(1, 2)
    for client in islice(cycle(made), count):
        if len(under_way) == AT_ONCE:
            under_way.popleft().result(CALL_TIMEOUT)
        under_way.append(client.call_async(request, CALL_TIMEOUT))
    for future in under_way:
        future.result(CALL_TIMEOUT)


# -- nodes ----------------------------------------------------------------------------------------


def nodes(url: str, *, topic: str, many: int, shared: int) -> None:
    """So many nodes with a publisher and a subscription each.

    Each further order is how many messages to publish, and to receive, by each in turn.
    """
    tally, _, making = Tally(), warmed_up(url), Making()
    made = []

    def make(name: str) -> Node:
        node = Node(name, connection_params=url, share_connection=bool(shared))
        node.create_subscriber(name, tally.note, Sonar)
        made.append(node.create_publisher(name, Sonar))
        return node

    port = address_of(url)[1]
    others = connections(os.getpid(), port)
    with making.of_all():
        run([make(name) for name in topics_of(topic, many)])
    making.figures["connections"] = connections(os.getpid(), port) - others
    publishers, msg = list(made), Sonar()
    making.report(lambda number: run([make(f"{topic}_more{number}")]))
    while True:
        count = int(order()[0])
        cpu = process_time()
        for publisher in islice(cycle(publishers), count):
            publisher.publish(msg)
        tally.settle(count)
        cpu, lost = process_time() - cpu, count - tally.count
        tally.reset()
        answer(cpu_us=cpu / count * 1e6, lost=lost)


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role for role in (subscriptions, publishers, services, clients, nodes)
}


def main() -> None:
    """Play the role that the command line names."""
    command = Command(sys.argv[1:])
    if not command.options.pop("collector", 1):
        gc.disable()
    ROLES[command.role](command.url, **command.options)


if __name__ == "__main__":
    main()
