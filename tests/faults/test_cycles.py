"""What comes and goes again and again leaves nothing behind: no object, descriptor or thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from brokers import Broker, Server
from collected import DEADLINE, Collected, eventually
from commlib import _session
from commlib._portal import Portal
from commlib.bridges import RPCBridge, TopicBridge
from commlib.events import Event
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from commlib.pubsub import MPublisher, PSubscriber, Publisher, Subscriber
from commlib.rpc import RPCClient
from faults.proxy import Proxy

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds

DESCRIPTORS = Path("/dev/fd")
STATM = Path("/proc/self/statm")  # Linux only: pages, of which the second number is resident


LONG = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]
CYCLES = pytest.mark.parametrize("cycles", [100, pytest.param(10_000, marks=LONG)])
CONNECTIONS = pytest.mark.parametrize("cycles", [25, pytest.param(10_000, marks=LONG)])
RECONNECTS = pytest.mark.parametrize("cycles", [30, pytest.param(1000, marks=LONG)])
ROUNDS = 4
NAMES = 5
"""Names that are used in turn: counters of a connection that go by name are kept, within bounds."""
TEXTS = 30
"""Texts and numbers that a life may add to what is kept by name or sender, within bounds."""
SPREAD = 8192
"""kB by which the memory of a process that loses nothing may move, by what the allocator keeps."""


@pytest.fixture(autouse=True)
def _unlogged() -> Iterator[None]:
    """What is logged is kept by pytest, and would look like a leak."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """What was there before is not looked at: in a whole run that is very much."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# ---- what there is ----


class Size(NamedTuple):
    """How much of everything this process has. ``blocks`` are Python's own, ``resident`` is kB."""

    blocks: int
    descriptors: int
    threads: int
    resident: int

    @classmethod
    def now(cls) -> Self:
        descriptors, threads = len(os.listdir(DESCRIPTORS)), len(_threads())
        return cls(sys.getallocatedblocks(), descriptors, threads, _resident())


def _threads() -> list[threading.Thread]:
    # Workers come as they are needed, and end by themselves.
    return [thread for thread in threading.enumerate() if not thread.name.endswith("-worker")]


def _resident() -> int:
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class Growth:
    """What grows from round to round: what fills up once, such as a cache, is no leak."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self.sizes: list[Size] = []
        self.kinds: list[Counter[type]] = []
        """Of each round, all objects that the collector knows."""

    def note(self) -> None:
        """The end of a round."""
        # What was closed is let go of by the loop, a turn later, and by the collector.
        for _ in range(3):
            self._portal.run(asyncio.sleep, 0.002)
            gc.collect()
        self.sizes.append(Size.now())
        self.kinds.append(Counter(map(type, gc.get_objects())))

    @property
    def steady(self) -> Size:
        """By how much it has grown in each round, at least."""
        return Size(
            *(min(b - a for a, b in pairwise(row)) for row in zip(*self.sizes, strict=True))
        )

    def steady_kinds(self, least: float) -> dict[str, int]:
        """The kinds of objects of which at least so many have come in each round."""
        grown = {
            kind: min(after[kind] - before[kind] for before, after in pairwise(self.kinds))
            for kind in self.kinds[-1]
        }
        # A remembered text may have been put into a tuple with others.
        return {k.__qualname__: n for k, n in grown.items() if n >= least and k is not tuple}


def check_bounded(portal: Portal, live: Callable[[int], object], cycles: int) -> None:
    """Live so many lives, and see that the process does not grow with them."""
    growth, count = Growth(portal), cycles // (ROUNDS + 1)
    for number in range(count * (ROUNDS + 1)):  # the first round fills what is filled once
        live(number)
        if (number + 1) % count == 0:
            growth.note()
    print(f"{cycles} cycles:", *growth.sizes, sep="\n")
    assert growth.steady_kinds(count / 2) == {}
    assert growth.steady.blocks < TEXTS * count
    assert (growth.steady.descriptors, growth.steady.threads) <= (0, 0)
    assert growth.sizes[-1].resident - growth.sizes[0].resident < SPREAD


# ---- lives ----


class Place(NamedTuple):
    """Where endpoints come and go: a node that stays, and where its broker is."""

    node: Node
    url: str
    name: str = "cycle"


Life = Callable[[Place, str], None]
"""Makes endpoints of this name, uses and stops them."""


@pytest.fixture
def place(broker: Broker, portal: Portal) -> Iterator[Place]:
    with Node("cycling", connection_params=broker.url) as node:
        yield Place(node, broker.url, broker.unique("cycle"))


def publish(place: Place, name: str) -> None:
    node = place.node
    many = node.create_mpublisher()
    for publisher in (node.create_publisher(name), node.create_wpublisher(many, name)):
        publisher.publish(1)
        publisher.stop()
    many.publish(2, name)
    many.stop()
    emitter = node.create_event_emitter()
    emitter.send_event(Event("Ring", name))
    emitter.stop()


def subscribe(place: Place, name: str) -> None:
    node = place.node
    one, matching, many = Collected(), Collected(), Collected()
    group = node.create_wsubscriber()
    group.subscribe(name, many)
    subscribers = [
        node.create_subscriber(name, one),
        node.create_psubscriber(f"{name}.*", lambda msg: matching(msg)),
        group,
    ]
    publisher = node.create_mpublisher()
    for topic in (name, f"{name}.a"):
        publisher.publish(topic, topic)
    assert (one.first, matching.first, many.first) == (name, f"{name}.a", name)
    for endpoint in (*subscribers, publisher):
        endpoint.stop()


def serve(place: Place, name: str) -> None:
    node = place.node
    service = node.create_rpc(name, lambda request: 2 * request)
    server = node.create_rpc_server(name, {"echo": lambda request: request})
    double, echo = node.create_rpc_client(name), node.create_rpc_client(f"{name}.echo")
    assert double.call(2, timeout=DEADLINE) == 4
    assert echo.call(2, timeout=DEADLINE) == 2
    for endpoint in (service, server, double, echo):
        endpoint.stop()


def pursue(place: Place, name: str) -> None:
    def work(goal: Any) -> Any:
        goal.send_feedback({"half": goal.data})
        return goal.data

    service = place.node.create_action(name, on_goal=work)
    client = place.node.create_action_client(name)
    goal = client.send_goal({"to": 1})
    assert [feedback["half"] for feedback in goal.feedback] == [{"to": 1}]
    assert goal.result(DEADLINE) == {"to": 1}
    client.stop()
    service.stop()


def bridge(place: Place, name: str) -> None:
    got, url = Collected(), place.url
    subscriber = place.node.create_subscriber(f"{name}.there", got)
    service = place.node.create_rpc(f"{name}.double", lambda request: 2 * request)
    with (
        TopicBridge(None, name, f"{name}.there", url, url),
        RPCBridge(None, f"{name}.near", f"{name}.double", url, url),
    ):
        publisher, client = Publisher(name, None, url), RPCClient(f"{name}.near", None, url)
        publisher.publish(1)
        assert got.first == 1
        assert client.call(2, timeout=DEADLINE) == 4
    for endpoint in (publisher, client, subscriber, service):
        endpoint.stop()


def stand_alone(place: Place, name: str) -> None:
    got, url = Collected(), place.url
    with (
        Subscriber(name, got, None, url),
        PSubscriber(f"{name.partition('.')[0]}.*", lambda msg: got(msg), None, url),
    ):
        many: MPublisher[Any] = MPublisher(None, url)
        many.publish(1, name)
        got.wait(2)
        many.stop()


def be_a_node(place: Place, name: str) -> None:
    # A logger of each name is kept by Python for ever.
    with Node("life", None, place.url, ctrl_services=True, remote_logger=True) as node:
        # It stops them itself.
        node.create_subscriber(f"{name}.last", Collected())
        node.create_rpc(f"{name}.last", lambda request: request)
        node.create_rpc_client(f"{name}.last").call(1, timeout=DEADLINE)
        with pytest.raises(RPCTimeout):
            node.create_rpc_client(f"{name}.nobody").call({}, timeout=0.001)


@CYCLES
@pytest.mark.parametrize("life", [publish, subscribe, serve, pursue], ids=lambda f: f.__name__)
def test_endpoints_that_come_and_go_leave_nothing_behind(
    place: Place, portal: Portal, life: Life, cycles: int
) -> None:
    check_bounded(portal, lambda number: life(place, f"{place.name}.{number % NAMES}"), cycles)


@CONNECTIONS
@pytest.mark.parametrize("life", [bridge, stand_alone, be_a_node], ids=lambda f: f.__name__)
def test_connections_that_come_and_go_leave_nothing_behind(
    place: Place, portal: Portal, life: Life, cycles: int
) -> None:
    check_bounded(portal, lambda number: life(place, f"{place.name}.{number % NAMES}"), cycles)


@RECONNECTS
def test_links_that_break_again_and_again_leave_nothing_behind(
    make_server: MakeServer, portal: Portal, monkeypatch: pytest.MonkeyPatch, cycles: int
) -> None:
    monkeypatch.setattr(_session, "FIRST_PAUSE", 0.001)
    got = Collected()
    with (
        Proxy(make_server().url) as proxy,
        Node("cycling", None, proxy.url, ctrl_services=True, remote_logger=True) as node,
    ):
        node.create_subscriber("numbers", got)
        publisher = node.create_publisher("numbers")
        node.create_rpc("double", lambda request: 2 * request)
        client = node.create_rpc_client("double")

        def live(number: int) -> None:
            publisher.publish(number)
            assert got.wait() == [number]
            got.items.clear()
            assert client.call(number, timeout=DEADLINE) == 2 * number
            before = publisher.stats.reconnects
            proxy.cut()
            eventually(lambda: publisher.stats.reconnects > before and node.health)

        check_bounded(portal, live, cycles)
