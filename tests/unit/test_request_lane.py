"""The lane of a service that is a plain function: left to one worker while that is quick."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from collected import DEADLINE, eventually
from commlib import _request_lane
from commlib._packet import Packet
from commlib._request_lane import MOST_HELD, QUICK_CALLS, HoldingLane
from commlib._stats import Stats
from commlib._workers import Workers
from commlib.transports.base import Address

NEVER = 3600.0  # s until the first look


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers who have all gone when the test has ended."""
    workers = Workers("test")
    yield workers
    for thread in workers.close():
        thread.join(DEADLINE)
        assert not thread.is_alive()


async def reached(holds: Callable[[], bool]) -> None:
    """Let the loop go on until something holds."""
    await soon(asyncio.to_thread(eventually, holds))


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


class Replies:
    """A transport that keeps what is sent, and apart from it what is held."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.sent: list[bytes] = []

    def send(self, packet: Packet) -> None:
        """Send it, with what is held in front of it."""
        self.let_go()
        self.sent.append(packet.payload)

    def hold(self, to: Address, packet: Packet) -> bool:
        self.held.append(packet.payload)
        return True

    def let_go(self) -> None:
        while self.held:
            self.sent.append(self.held.pop(0))


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


class Service:
    """A lane and its function, which answers each request with what it was given.

    One whose payload has a gate stops there.
    """

    def __init__(self, workers: Workers, concurrency: int = 4) -> None:
        workers.loop = asyncio.get_running_loop()
        self.replies = Replies()
        self.threads: list[int] = []
        self.entered: list[bytes] = []
        self.errors: list[BaseException] = []
        self.gates: dict[bytes, threading.Event] = {}
        self.seconds = 0.0
        """That a call is said to have taken."""
        self.lane = HoldingLane(
            *(self.replies, workers, "lane", self._handle, Stats()),
            lambda packet, error: self.errors.append(error),
            concurrency=concurrency,
        )

    def _handle(self, packet: Packet) -> None:
        payload = packet.payload
        self.entered.append(payload)
        self.threads.append(threading.get_ident())
        gate = self.gates.get(payload)
        assert gate is None or gate.wait(DEADLINE)
        if payload == b"raise":
            raise ValueError(payload)
        if payload == b"silent":
            return
        self.lane.note_call(self.seconds)
        if self.lane.may_hold():
            self.replies.hold(Address(""), packet)
            self.lane.note_held()
        else:
            self.replies.send(packet)

    def put(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.lane.put(Packet(payload))

    def gate(self, payload: bytes) -> threading.Event:
        """What the function waits for when it comes to this request."""
        gate = self.gates[payload] = threading.Event()
        return gate

    async def warm(self) -> None:
        """Be quick for as long as it takes to be known for that."""
        for number in range(QUICK_CALLS):
            self.put(b"%d" % number)
            await reached(lambda: self.lane._active == 0)
        assert self.replies.sent == numbered(QUICK_CALLS)
        self.replies.sent.clear()
        self.entered.clear()
        self.threads.clear()


async def test_a_function_that_is_not_known_has_all_its_workers_at_once(workers: Workers) -> None:
    service = Service(workers)
    gates = [service.gate(payload) for payload in numbered(5)]
    service.put(*numbered(5))
    await reached(lambda: len(service.entered) == 4)
    for gate in gates:
        gate.set()
    await reached(lambda: sorted(service.replies.sent) == numbered(5))
    assert len(set(service.threads)) == 4


async def test_a_quick_function_is_left_to_the_worker_that_is_at_it(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    service = Service(workers)
    await service.warm()
    first = service.gate(b"first")
    service.put(b"first", *numbered(50))
    first.set()
    await reached(lambda: service.lane._active == 0)
    assert service.replies.sent == [b"first", *numbered(50)]
    assert len(set(service.threads)) == 1


@pytest.mark.parametrize("seconds", [_request_lane.QUICK_SECONDS, 1.0])
async def test_a_function_that_was_slow_once_has_all_its_workers(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    service = Service(workers)
    await service.warm()
    service.seconds = seconds
    service.put(b"slow")
    await reached(lambda: len(service.replies.sent) == 1)
    gates = [service.gate(payload) for payload in numbered(4)]
    service.put(*numbered(4))
    await reached(lambda: len(service.entered) == 1 + 4)
    for gate in gates:
        gate.set()


@pytest.mark.parametrize("concurrency", [2, 4])
async def test_when_a_quick_function_blocks_the_other_workers_join(
    workers: Workers, concurrency: int
) -> None:
    service = Service(workers, concurrency)
    await service.warm()
    gates = [service.gate(payload) for payload in numbered(4)]
    service.put(*numbered(4))
    await reached(lambda: len(service.entered) == concurrency)
    for gate in gates:
        gate.set()
    await reached(lambda: sorted(service.replies.sent) == numbered(4))


async def test_replies_are_held_while_requests_wait_and_no_longer_than_so_many(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    service = Service(workers, concurrency=2)
    await service.warm()
    last, late = numbered(MOST_HELD + 3)[-2:]
    first, gate, end = (service.gate(payload) for payload in (b"0", last, late))
    service.put(*numbered(MOST_HELD + 3))
    first.set()
    await reached(lambda: service.entered[-1:] == [last])
    # All but the one behind so many, which has gone with them.
    assert service.replies.sent == numbered(MOST_HELD + 1)
    gate.set()
    await reached(lambda: service.entered[-1] == late)
    assert service.replies.held == [last]
    end.set()
    await reached(lambda: service.replies.sent == numbered(MOST_HELD + 3))


async def test_what_is_held_leaves_when_the_next_request_has_no_reply(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    service = Service(workers, concurrency=2)
    await service.warm()
    gate, first = service.gate(b"silent"), service.gate(b"first")
    service.put(b"first", b"silent")
    first.set()
    await reached(lambda: service.entered == [b"first", b"silent"])
    assert service.replies.held == [b"first"]
    gate.set()
    await reached(lambda: service.replies.sent == [b"first"])


async def test_what_is_held_leaves_when_the_next_request_blocks(workers: Workers) -> None:
    service = Service(workers, concurrency=2)
    await service.warm()
    gate, first = service.gate(b"silent"), service.gate(b"first")
    service.put(b"first", b"silent")
    assert service.lane._is_watched
    first.set()
    await reached(lambda: service.replies.sent == [b"first"])
    gate.set()


async def test_what_is_held_just_after_a_look_leaves_before_the_next_request(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    service = Service(workers, concurrency=2)
    await service.warm()
    lane, replies = service.lane, service.replies
    hold = replies.hold

    def look_in_between(to: Address, packet: Packet) -> bool:
        lane._is_watched = False
        lane._send_held()
        return hold(to, packet)

    monkeypatch.setattr(replies, "hold", look_in_between)
    gate, first = service.gate(b"silent"), service.gate(b"first")
    service.put(b"first", b"silent")
    first.set()
    await reached(lambda: service.entered == [b"first", b"silent"])
    assert replies.sent == [b"first"]
    gate.set()


async def test_a_lane_that_is_closed_drops_and_counts(workers: Workers) -> None:
    service = Service(workers)
    await soon(service.lane.close(1.0))
    service.put(b"late")
    assert service.lane.stats.dropped == 1
    assert service.entered == []


async def test_a_function_that_raises_ends_nothing(workers: Workers) -> None:
    service = Service(workers)
    await service.warm()
    service.put(b"raise", *numbered(3))
    await reached(lambda: sorted(service.replies.sent) == numbered(3))
    assert [type(error) for error in service.errors] == [ValueError]
