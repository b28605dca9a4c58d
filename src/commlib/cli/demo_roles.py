"""The processes of `commlib demo`: each plays one role, as a program of its own would.

    python -m commlib.cli.demo_roles ROLE NAMESPACE

The broker is that of ``COMMLIB_URL``. A role says on standard output when it is ready, then carries
out the orders that it reads from standard input and answers each with a report. It ends when told
to, and at once when its input ends, for then the demo itself is gone. Times are taken from the
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from queue import SimpleQueue

import msgspec

from commlib import aio
from commlib.cli.demo_orders import (
    Burst,
    Call,
    Called,
    Expect,
    Latency,
    Order,
    Pace,
    Published,
    Ready,
    Received,
    Report,
    Stop,
)
from commlib.exceptions import CommlibError
from commlib.msg import PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.pubsub import PSubscriber, Publisher

PLACES = ("front", "rear")
CALL_TIMEOUT = 5.0  # s; a demo in which a reply takes longer has failed in any case
FLUSH_TIMEOUT = 5.0  # s for the broker to confirm what was published
GLANCE = 256  # messages of a burst between two looks at the clock

Orders = SimpleQueue[Order]


class Sonar(PubSubMessage):
    """What a sonar measured, and when it was sent, in ns."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0
    sent: int = 0


class AddTwoInts(RPCMessage):
    """A sum."""

    class Request(RPCMessage.Request):
        """What to add."""

        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        """What it makes."""

        c: int = 0


def sonar_topic(namespace: str, place: str) -> str:
    """Where the sonar at this place publishes."""
    return f"{namespace}.sonar.{place}"


def adder_name(namespace: str) -> str:
    """The name of the adder's service."""
    return f"{namespace}.add_two_ints"


# -- publish and subscribe ------------------------------------------------------------------------


def sonar(namespace: str, orders: Orders) -> None:
    """Publishes typed messages, on one topic for each sonar."""
    with _running(Node(f"{namespace}-sonar")) as node:
        sonars = [
            node.create_publisher(sonar_topic(namespace, place), msg_type=Sonar) for place in PLACES
        ]
        for order in _answering(orders):
            assert isinstance(order, Pace | Burst), f"{order} is not for the sonar"
            begin = time.monotonic()
            count = _pace(sonars, order) if isinstance(order, Pace) else _burst(sonars, order)
            _flush(sonars[0])
            _answer(Published(count, time.monotonic() - begin))


def _pace(sonars: list[Publisher[Sonar]], order: Pace) -> int:
    begin = time.monotonic()
    for number, publisher in zip(range(order.count), cycle(sonars), strict=False):
        time.sleep(max(0.0, begin + number * order.seconds / order.count - time.monotonic()))
        publisher.publish(Sonar(distance=number, sent=time.monotonic_ns()))
    return order.count


def _burst(sonars: list[Publisher[Sonar]], order: Burst) -> int:
    end = time.monotonic() + order.seconds
    for number, publisher in zip(range(order.count), cycle(sonars), strict=False):
        if number % GLANCE == 0 and time.monotonic() > end:
            return number
        publisher.publish(Sonar(distance=number, sent=time.monotonic_ns()))
    return order.count


def _flush(publisher: Publisher[Sonar]) -> None:
    """Wait until the broker has all: publish() is done when the outgoing queue has taken it."""
    hub = publisher.core.hub
    assert hub.loop is not None, "it has published"
    flushed = asyncio.run_coroutine_threadsafe(hub.transport.flush(), hub.loop)
    try:
        flushed.result(FLUSH_TIMEOUT)
    except TimeoutError:
        flushed.cancel()
        sys.exit(f"the broker took longer than {FLUSH_TIMEOUT:g} s to confirm what was published")


def watcher(namespace: str, orders: Orders) -> None:
    """Subscribes to all sonars by one pattern."""
    node = Node(f"{namespace}-watcher")
    tally = _Tally()
    subscriber = node.create_psubscriber(
        sonar_topic(namespace, "*"), lambda msg, topic: tally.note(msg), msg_type=Sonar
    )
    with _running(node):
        for order in _answering(orders):
            assert isinstance(order, Expect), f"{order} is not for the watcher"
            _answer(tally.report(order, subscriber))


class _Tally:
    """What the watcher has received since its last report."""

    def __init__(self) -> None:
        self._latencies: list[int] = []
        self._first = self._last = 0
        self._goal = 0
        self._reached = threading.Event()

    def note(self, msg: Sonar) -> None:
        """Take a message; in the callback, of which one runs at a time."""
        self._last = time.monotonic_ns()
        self._first = self._first or self._last
        self._latencies.append(self._last - msg.sent)
        if len(self._latencies) == self._goal:
            self._reached.set()

    def report(self, order: Expect, subscriber: PSubscriber[Sonar]) -> Received:
        """Wait as ordered, report, and begin anew."""
        self._goal = order.count
        if len(self._latencies) < order.count:
            self._reached.wait(order.patience)
        latencies, self._latencies = self._latencies, []
        seconds = (self._last - self._first) / 1e9
        self._first = self._last = self._goal = 0
        self._reached.clear()
        return Received(len(latencies), seconds, Latency.of(latencies), _irregular(subscriber))


def _irregular(subscriber: PSubscriber[Sonar]) -> int:
    stats = subscriber.stats
    numbering = stats.gaps + stats.duplicates + stats.reordered
    return numbering + stats.dropped + stats.refused + stats.errors


# -- calls ----------------------------------------------------------------------------------------


def adder(namespace: str, orders: Orders) -> None:
    """Serves `add_two_ints`."""
    node = Node(f"{namespace}-adder")

    # A coroutine function, for it is quick: on the loop, a request costs no change of threads.
    @node.rpc(adder_name(namespace), AddTwoInts)
    async def add_two_ints(request: AddTwoInts.Request) -> AddTwoInts.Response:
        return AddTwoInts.Response(c=request.a + request.b)

    with _running(node):
        for order in _answering(orders):
            raise AssertionError(f"{order} is not for the adder")


class _Ledger:
    """The calls of one order, noted by any number of threads or tasks."""

    def __init__(self, order: Call) -> None:
        self._begin = time.monotonic()
        self._end = self._begin + order.seconds
        self._latencies: list[int] = []
        self._wrong: list[str] = []

    def requests(self, caller: int) -> Iterator[AddTwoInts.Request]:
        """What this caller asks, and nobody else does, until the time is up."""
        request = AddTwoInts.Request(a=caller * 1_000_000)
        while time.monotonic() < self._end and not self._wrong:
            request.b -= 1
            yield request

    def note(self, sent: int, request: AddTwoInts.Request, response: AddTwoInts.Response) -> None:
        """Take the response to a request that was sent then, in ns."""
        if response.c == request.a + request.b:
            self._latencies.append(time.monotonic_ns() - sent)
        else:
            self._wrong.append(f"{request.a} + {request.b} is not {response.c}")

    def note_error(self, error: CommlibError) -> None:
        """Take what a call raised."""
        self._wrong.append(f"{type(error).__name__}: {error}")

    def report(self) -> Called:
        """What came of it all."""
        seconds = time.monotonic() - self._begin
        error = self._wrong[0] if self._wrong else ""
        latency = Latency.of(self._latencies)
        return Called(len(self._latencies), seconds, latency, len(self._wrong), error)


def threads(namespace: str, orders: Orders) -> None:
    """Calls the adder from as many threads as ordered, all on one client."""
    with _running(Node(f"{namespace}-threads")) as node:
        client = node.create_rpc_client(adder_name(namespace), msg_type=AddTwoInts)

        def call(caller: int, ledger: _Ledger) -> None:
            try:
                for request in ledger.requests(caller):
                    sent = time.monotonic_ns()
                    ledger.note(sent, request, client.call(request, CALL_TIMEOUT))
            except CommlibError as exc:
                ledger.note_error(exc)

        _require(client.wait_for_service(CALL_TIMEOUT), "the adder does not answer")
        for order in _answering(orders):
            assert isinstance(order, Call), f"{order} is not for a caller"
            ledger = _Ledger(order)
            callers = [
                threading.Thread(target=call, args=(number, ledger))
                for number in range(order.at_once)
            ]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            _answer(ledger.report())


def tasks(namespace: str, orders: Orders) -> None:
    """Calls the adder from asyncio, with as many calls under way as ordered, all on one client."""
    asyncio.run(_tasks(namespace, orders))


async def _tasks(namespace: str, orders: Orders) -> None:
    async with aio.Node(f"{namespace}-tasks") as node:
        client = node.create_rpc_client(adder_name(namespace), msg_type=AddTwoInts)

        async def call(caller: int, ledger: _Ledger) -> None:
            try:
                for request in ledger.requests(caller):
                    sent = time.monotonic_ns()
                    ledger.note(sent, request, await client.call(request, CALL_TIMEOUT))
            except CommlibError as exc:
                ledger.note_error(exc)

        _require(await client.wait_for_service(CALL_TIMEOUT), "the adder does not answer")
        _answer(Ready())
        while isinstance(order := await asyncio.to_thread(orders.get), Call):
            ledger = _Ledger(order)
            async with asyncio.TaskGroup() as group:
                for number in range(order.at_once):
                    group.create_task(call(number, ledger))
            _answer(ledger.report())


# -- what the roles have in common ----------------------------------------------------------------

ROLES: dict[str, Callable[[str, Orders], None]] = {
    role.__name__: role for role in (sonar, watcher, adder, threads, tasks)
}


def main() -> None:
    """Play the role that the command line names."""
    role, namespace = sys.argv[1:]
    logging.disable()  # the demo shows one line of a process that fails: the reason
    orders: Orders = SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    try:
        ROLES[role](namespace, orders)
    except CommlibError as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")


def _read_orders(orders: Orders) -> None:
    decoder = msgspec.json.Decoder(Order)
    # Not sys.stdin: Python aborts if it ends while a thread holds the lock of a buffered file.
    with open(0, "rb", buffering=0, closefd=False) as orders_in:
        for line in orders_in:
            orders.put(decoder.decode(line))
    os._exit(1)  # whoever gave the orders is gone, and the main thread may be deep in one of them


@contextmanager
def _running(node: Node) -> Iterator[Node]:
    """The node, with everything on it confirmed by the broker."""
    with node:
        _require(node.connected, "the broker does not answer")
        yield node


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        sys.exit(otherwise)


def _answering(orders: Orders) -> Iterator[Order]:
    """Say that the role is ready, then give the orders up to the last."""
    _answer(Ready())
    while not isinstance(order := orders.get(), Stop):
        yield order


def _answer(report: Report) -> None:
    print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    main()
