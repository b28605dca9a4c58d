"""The broker in this process, verb by verb; the patterns on it are in the conformance suite."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib._packet import Header, Packet
from commlib.exceptions import EndpointClosed
from commlib.transports import memory
from commlib.transports.base import LinkStats
from commlib.transports.memory import ConnectionParameters, MemoryTransport


class Handler:
    """Keeps what it is handed; says of replies that they were wanted."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.tokens: list[str | None] = []

    def __call__(self, packet: Packet) -> None:
        self.packets.append(packet)

    def take_reply(self, token: str | None, packet: Packet) -> bool:
        self.tokens.append(token)
        self.packets.append(packet)
        return True

    @property
    def got(self) -> list[tuple[str, bytes]]:
        return [(packet.topic, packet.payload) for packet in self.packets]


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


def transport(name: str) -> MemoryTransport:
    return ConnectionParameters(name).make_transport()


Make = Callable[[], MemoryTransport]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    """Makes transports to a broker that no other test has."""
    return lambda: transport(request.node.name)


def is_empty(transport: MemoryTransport) -> bool:
    """Whether nothing is left on the broker."""
    broker = transport.broker
    return not (broker._topics or broker._patterns or broker._consumers or broker._pending)


# ---- to all ----


async def test_every_subscriber_of_every_transport_gets_a_copy_with_the_topic(make: Make) -> None:
    one, two = make(), make()
    handlers = [Handler() for _ in range(4)]
    for place, topic, handler in zip(
        (one, one, two, two), ("a.b", "a.*", "a.b", "other"), handlers, strict=True
    ):
        await place.subscribe(topic, handler)
    header = Header(origin="me", seq=7)
    assert two.publish("a.b", Packet(b"x", header=header))
    await soon(asyncio.gather(one.drained(), two.drained()))
    assert [handler.got for handler in handlers] == [[("a.b", b"x")]] * 3 + [[]]
    assert handlers[0].packets[0].header == header


async def test_brokers_of_different_names_do_not_hear_each_other(make: Make) -> None:
    near, far = make(), transport("far away")
    handler = Handler()
    await near.subscribe("a", handler)
    far.publish("a", Packet(b"x"))
    await near.drained()
    assert handler.got == []


async def test_after_close_nothing_comes_and_nothing_is_left(make: Make) -> None:
    place = make()
    handlers = [Handler(), Handler()]
    subscriptions = [
        await place.subscribe(topic, handler)
        for topic, handler in zip(("a", "*"), handlers, strict=True)
    ]
    place.publish("a", Packet(b"on its way"))
    for subscription in subscriptions:
        await subscription.close()
        await subscription.close()
    await place.drained()
    assert [handler.got for handler in handlers] == [[], []]
    assert is_empty(place)


async def test_what_is_published_for_nobody_is_gone(make: Make) -> None:
    place, handler = make(), Handler()
    assert place.publish("a", Packet(b"x"))
    await place.subscribe("a", handler)
    await place.drained()
    assert handler.got == []


async def test_a_burst_is_one_wake_up_of_the_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, handler, wakes = make(), Handler(), Collected()
    await place.subscribe("a", handler)
    loop = asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (wakes(args[0]), wake(*args)))
    for number in range(1000):
        place.publish("a", Packet(b"%d" % number))
    assert len(wakes.items) == 1
    await soon(place.drained())
    assert [packet.payload for packet in handler.packets] == [b"%d" % n for n in range(1000)]


async def test_many_threads_lose_nothing_and_each_keeps_its_order(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_INBOUND", 50)  # full every now and then
    place, other, handler, refusals = make(), make(), Handler(), Collected()
    await place.subscribe("a", handler)
    loop = asyncio.get_running_loop()

    def publish(thread: int) -> None:
        for number in range(500):
            while not other.publish("a", Packet(b"%d %d" % (thread, number))):
                refusals(thread)
                asyncio.run_coroutine_threadsafe(other.room(Packet(b"")), loop).result(DEADLINE)

    await asyncio.gather(*(asyncio.to_thread(publish, thread) for thread in range(8)))
    await soon(asyncio.to_thread(eventually, lambda: len(handler.packets) == 4000))
    got = [tuple(map(int, packet.payload.split())) for packet in handler.packets]
    for thread in range(8):
        assert [number for of, number in got if of == thread] == list(range(500))
    assert refusals.items


async def test_while_one_subscriber_has_no_room_nobody_gets_a_copy_and_the_publisher_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_INBOUND", 3)
    full, idle, publisher = make(), make(), make()
    handlers = [Handler(), Handler()]
    await full.subscribe("a", handlers[0])
    await full.subscribe("only.full", handlers[0])
    await idle.subscribe("a", handlers[1])
    for _ in range(3):
        assert publisher.publish("only.full", Packet(b"x"))
    assert not publisher.publish("a", Packet(b"y"))
    await soon(publisher.room(Packet(b"")))
    assert handlers[1].got == []
    assert publisher.publish("a", Packet(b"y"))
    await soon(idle.drained())
    assert handlers[0].got == [("only.full", b"x")] * 3 + [("a", b"y")]
    assert handlers[1].got == [("a", b"y")]


async def test_a_publisher_that_went_away_while_it_waited_leaves_the_others_waiting_no_longer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_INBOUND", 1)
    place, handler = make(), Handler()
    await place.subscribe("a", handler)
    assert place.publish("a", Packet(b"x"))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await place.drained()

    def run() -> None:
        asyncio.run(give_up())

    # It waits on a loop of its own, which is closed before this one goes on.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    await soon(place.drained())
    assert handler.got == [("a", b"x")]


# ---- to one ----


async def test_each_packet_goes_to_one_consumer_and_to_the_one_with_most_room(make: Make) -> None:
    one, two = make(), make()
    handlers = [Handler(), Handler()]
    await one.consume("q", handlers[0], 2)
    await two.consume("q", handlers[1], 4)
    for number in range(6):
        assert one.send("q", Packet(b"%d" % number))
    await soon(asyncio.gather(one.drained(), two.drained()))
    assert [len(handler.got) for handler in handlers] == [2, 4]
    assert sorted(handlers[0].got + handlers[1].got) == [("q", b"%d" % n) for n in range(6)]


async def test_a_consumer_gets_no_more_than_it_can_take_and_the_rest_in_order(make: Make) -> None:
    place, handler = make(), Handler()
    consumer = await place.consume("q", handler, 2)
    for number in range(5):
        assert place.send("q", Packet(b"%d" % number))
    await place.drained()
    assert len(handler.got) == 2
    for taken in (3, 4, 5, 5):
        consumer.done(handler.packets[0])
        await place.drained()
        assert len(handler.got) == taken
    assert [payload for _, payload in handler.got] == [b"%d" % n for n in range(5)]


def test_a_consumer_whose_loop_has_ended_takes_nothing_from_the_next_one(make: Make) -> None:
    asyncio.run(_consume(make(), Handler(), 9))
    handler = Handler()

    async def use() -> None:
        here = make()
        await here.consume("q", handler, 1)
        assert here.send("q", Packet(b"x"))
        await soon(here.drained())

    asyncio.run(use())
    assert handler.got == [("q", b"x")]


def test_nor_from_one_that_was_there_before_it(make: Make) -> None:
    handler = Handler()

    async def use() -> None:
        here = make()
        await here.consume("q", handler, 1)
        await asyncio.to_thread(asyncio.run, _consume(make(), Handler(), 9))
        assert here.send("q", Packet(b"x"))
        await soon(here.drained())

    asyncio.run(use())
    assert handler.got == [("q", b"x")]


async def _consume(place: MemoryTransport, handler: Handler, prefetch: int) -> None:
    await place.consume("q", handler, prefetch)


async def test_what_is_sent_to_a_queue_without_consumers_is_gone(make: Make) -> None:
    place, handler = make(), Handler()
    assert place.send("q", Packet(b"x"))
    await place.consume("q", handler, 1)
    await place.drained()
    assert handler.got == []


async def test_what_waits_too_long_or_does_not_fit_is_dropped_and_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_PENDING", 4)
    place, handler = make(), Handler()
    consumer = await place.consume("q", handler, 1)
    place.send("q", Packet(b"taken"))
    for number in range(6):
        place.send("q", Packet(b"%d" % number, ttl=0.0 if number == 3 else 1000.0))
    await place.drained()
    for _ in range(6):
        consumer.done(handler.packets[0])
        await place.drained()
    assert [payload for _, payload in handler.got] == [b"taken", b"2", b"4", b"5"]
    assert place.stats == LinkStats(overflow=2, expired=1)


async def test_a_consumer_that_leaves_gets_what_was_on_its_way_and_the_others_get_the_rest(
    make: Make,
) -> None:
    one, two = make(), make()
    handlers = [Handler(), Handler()]
    leaving = await one.consume("q", handlers[0], 10)
    one.send("q", Packet(b"1"))
    await two.consume("q", handlers[1], 1)
    await soon(leaving.close())
    await soon(leaving.close())
    two.send("q", Packet(b"2"))
    await soon(two.drained())
    assert [handler.got for handler in handlers] == [[("q", b"1")], [("q", b"2")]]


async def test_the_last_consumer_takes_the_queue_along(make: Make) -> None:
    place, handler = make(), Handler()
    consumer = await place.consume("q", handler, 1)
    for _ in range(3):
        place.send("q", Packet(b"x"))
    await consumer.close()
    assert is_empty(place)


# ---- back to me ----


async def test_a_reply_is_told_by_the_address_it_comes_to(make: Make) -> None:
    caller, service, handler = make(), make(), Handler()
    inbox = await caller.open_inbox(handler.take_reply)
    addresses = {token: inbox.address(token) for token in "abc"}
    for token in "cab":
        assert service.send(addresses[token], Packet(token.encode()))
    await soon(caller.drained())
    assert handler.tokens == ["c", "a", "b"]
    assert [packet.payload for packet in handler.packets] == [b"c", b"a", b"b"]
    assert is_empty(caller)


async def test_a_second_or_late_reply_is_told_as_such_or_reaches_nobody(make: Make) -> None:
    place, handler = make(), Handler()
    inbox = await place.open_inbox(handler.take_reply)
    answered, late = inbox.address("answered"), inbox.address("late")
    place.send(answered, Packet(b"1"))
    await place.drained()
    place.send(answered, Packet(b"2"))
    inbox.release("late")
    place.send(late, Packet(b"3"))
    await place.drained()
    assert list(zip(handler.tokens, [p.payload for p in handler.packets], strict=True)) == [
        ("answered", b"1"),
        (None, b"3"),
    ]


async def test_a_reply_that_was_on_its_way_when_its_call_ended_is_late(make: Make) -> None:
    place, handler = make(), Handler()
    inbox = await place.open_inbox(handler.take_reply)
    place.send(inbox.address("a"), Packet(b"x"))
    inbox.release("a")
    await place.drained()
    assert handler.tokens == [None]


async def test_the_addresses_of_calls_without_a_reply_do_not_pile_up(make: Make) -> None:
    place, handler = make(), Handler()
    inbox = await place.open_inbox(handler.take_reply)
    for number in range(10 * memory.MAX_RETIRED):
        inbox.address(f"{number}")
        inbox.release(f"{number}")
    assert len(place.broker._consumers) == memory.MAX_RETIRED
    await inbox.close()
    await inbox.close()
    assert is_empty(place)


# ---- the connection ----


async def test_it_is_connected_from_the_first_use_until_it_is_closed(make: Make) -> None:
    place = make()
    news: list[bool] = []
    place.on_state = lambda connected, reason: news.append(connected)
    assert not place.connected
    await place.connect()
    await place.connect()
    assert place.connected
    await place.flush()
    await place.close()
    await place.close()
    assert not place.connected
    assert news == [True, False]


async def test_close_hands_over_what_has_come_and_refuses_what_comes_then(make: Make) -> None:
    place, other, handler = make(), make(), Handler()
    await place.subscribe("a", handler)
    place.publish("a", Packet(b"before"))
    await place.close()
    assert other.publish("a", Packet(b"after"))
    await asyncio.sleep(0)
    assert handler.got == [("a", b"before")]
    with pytest.raises(EndpointClosed):
        place.publish("a", Packet(b"x"))
    with pytest.raises(EndpointClosed):
        place.send("q", Packet(b"x"))


async def test_what_nobody_has_closed_ends_with_the_connection(make: Make) -> None:
    gone, there, sender = make(), make(), make()
    left, right = Handler(), Handler()
    for topic in ("a", "a.*"):
        await gone.subscribe(topic, left)
    await gone.consume("work", left, 9)
    await gone.close()
    await there.consume("work", right, 1)
    for number in range(3):
        assert sender.send("work", Packet(b"%d" % number))
        assert sender.publish("a", Packet(b"x"))
    await there.drained()
    assert left.got == []
    assert right.got == [("work", b"0")]
    for transport in (there, sender):
        await transport.close()


async def test_nothing_is_begun_on_a_connection_that_was_closed(make: Make) -> None:
    transport = make()
    await transport.close()
    with pytest.raises(EndpointClosed):
        await transport.subscribe("a", Handler())
    with pytest.raises(EndpointClosed):
        await transport.consume("work", Handler(), 1)
    with pytest.raises(EndpointClosed):
        await transport.open_inbox(lambda token, packet: True)
    assert not transport.connected


def test_ctrl_c_amid_what_is_handed_over_leaves_the_rest_for_the_next_turn(make: Make) -> None:
    got: list[bytes] = []

    def take(packet: Packet) -> None:
        got.append(packet.payload)
        if packet.payload == b"0":
            raise KeyboardInterrupt

    async def publish(place: MemoryTransport) -> None:
        await place.subscribe("t", take)
        for number in range(3):
            assert place.publish("t", Packet(b"%d" % number))
        await place.drained()

    loop, place = asyncio.new_event_loop(), make()
    publishing = loop.create_task(publish(place))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(publishing)
    loop.run_until_complete(soon(publishing))
    loop.run_until_complete(soon(place.close()))
    loop.close()
    assert got == [b"0", b"1", b"2"]


async def test_the_clock_is_that_of_this_machine_in_ms(make: Make) -> None:
    assert abs(make().clock() - time.time() * 1000) < 1000 * DEADLINE


def test_a_loop_that_was_closed_without_a_word_troubles_no_publisher(make: Make) -> None:
    left_behind, handler = make(), Handler()
    asyncio.run(_subscribe(left_behind, handler))
    publisher = make()
    for _ in range(memory.MAX_INBOUND + 1):
        assert publisher.publish("a", Packet(b"x"))
    assert handler.got == []


async def test_nor_does_one_that_was_closed_when_it_had_no_room_left(make: Make) -> None:
    left_behind, publisher = make(), make()
    loop = asyncio.new_event_loop()
    await asyncio.to_thread(loop.run_until_complete, _subscribe(left_behind, Handler()))
    for _ in range(memory.MAX_INBOUND):
        assert publisher.publish("a", Packet(b"x"))
    assert not publisher.publish("a", Packet(b"x"))
    loop.close()
    assert publisher.publish("a", Packet(b"x"))


async def _subscribe(place: MemoryTransport, handler: Handler) -> None:
    await place.subscribe("a", handler)


def test_nodes_on_different_loops_talk_to_each_other(make: Make) -> None:
    url = f"memory://{make().params.name}"
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with aio.Node("service", url) as node:
            node.create_rpc("double", _double)
            await node.run()
            ready.set()
            await asyncio.to_thread(done.wait, DEADLINE)

    async def call() -> list[int]:
        async with aio.Node("client", url) as node:
            client = node.create_rpc_client("double")
            return list(await asyncio.gather(*(client.call(n, timeout=10) for n in range(100))))

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        assert asyncio.run(call()) == [2 * n for n in range(100)]
    finally:
        done.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()


async def _double(number: int) -> int:
    return 2 * number
