"""The patterns for asyncio, on every broker."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

import pytest

from brokers import Broker, free_port
from collected import DEADLINE, Collected, eventually
from commlib._lanes import Bounds
from commlib.aio import MPublisher, Node, PSubscriber, Publisher, RPCClient, RPCService, Subscriber
from commlib.aio.node import NodeState
from commlib.exceptions import (
    EndpointClosed,
    PayloadTooBig,
    RPCRemoteError,
    RPCTimeout,
    SerializationError,
)
from commlib.node import Node as SyncNode
from commlib.pubsub import Subscriber as SyncSubscriber
from messages import AddTwoInts, Pose, Sonar
from raw_peer import RawPeer

Request, Response = AddTwoInts.Request, AddTwoInts.Response


def in_time(count: int = 1) -> asyncio.Timeout:
    """A limit for whatever a test waits for; python -X dev is slow with bursts."""
    return asyncio.timeout(DEADLINE + count / 2000)


async def take(messages: AsyncIterator[Any], count: int) -> list[Any]:
    """So many of the messages that come."""
    async with in_time(count):
        return [await anext(messages) for _ in range(count)]


async def get(queue: asyncio.Queue[Any], count: int) -> list[Any]:
    """So much of what a callback has put into a queue."""
    async with in_time(count):
        return [await queue.get() for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells of, such as the state of a counter."""
    await asyncio.to_thread(eventually, condition)


@asynccontextmanager
async def two_nodes(broker: Broker) -> AsyncIterator[tuple[Node, Node]]:
    async with Node("one", broker.url) as one, Node("other", broker.url) as other:
        yield one, other


async def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    await asyncio.sleep(0)
    return Response(c=request.a + request.b)


# ---- publish and subscribe ----


async def test_messages_are_iterated_over_in_order(broker: Broker, topic: str) -> None:
    async with two_nodes(broker) as (one, other):
        subscriber = other.create_subscriber(topic, msg_type=Sonar)
        await subscriber.run()
        publisher = one.create_publisher(topic, Sonar)
        for n in range(1000):
            await publisher.publish(Sonar(-1.0, count=n, pose=Pose(1.0)))

        received = await take(subscriber, 1000)

    assert [msg.count for msg in received] == list(range(1000))
    assert received[0] == Sonar(-1.0, pose=Pose(1.0))


async def test_a_pattern_is_iterated_over_with_topics(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        subscriber = node.create_psubscriber(f"{topic}.*")
        await subscriber.run()
        publisher = node.create_mpublisher()
        await publisher.publish(1, f"{topic}.front")
        await publisher.publish(0, topic)
        await publisher.publish(2, f"{topic}.back.left")

        assert await take(subscriber, 2) == [(1, f"{topic}.front"), (2, f"{topic}.back.left")]


async def test_a_burst_reaches_a_live_subscriber_and_nothing_is_lost(
    broker: Broker, topic: str
) -> None:
    async with two_nodes(broker) as (one, other):
        subscriber = other.create_subscriber(topic, msg_type=Sonar)
        await subscriber.run()
        publisher = one.create_publisher(topic, Sonar)

        async def publish() -> None:
            for n in range(50_000):
                await publisher.publish(Sonar(1.0, count=n))

        publishing = asyncio.create_task(publish())
        received = await take(subscriber, 50_000)
        await publishing

    assert [msg.count for msg in received] == list(range(50_000))
    stats = subscriber.stats
    assert (stats.received, stats.dropped, stats.gaps) == (50_000, 0, 0)
    assert publisher.stats.sent == 50_000


async def test_a_burst_without_a_pause_reaches_a_callback_and_nothing_is_lost(
    broker: Broker, topic: str
) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()
    async with two_nodes(broker) as (one, other):
        await other.create_subscriber(topic, got.put_nowait, inline=True).run()
        publisher = one.create_publisher(topic)
        for n in range(50_000):
            await publisher.publish(n)

        assert await get(got, 50_000) == list(range(50_000))


async def test_the_callback_is_the_one_that_was_there_at_the_start(
    broker: Broker, topic: str
) -> None:
    async with two_nodes(broker) as (one, other):
        first: asyncio.Queue[int] = asyncio.Queue()
        second: asyncio.Queue[int] = asyncio.Queue()
        subscriber = other.create_subscriber(topic, first.put, int)
        await subscriber.run()
        subscriber.on_message = second.put
        await one.create_publisher(topic, int).publish(7)
        assert await get(first, 1) == [7]
        assert second.empty()


@pytest.mark.parametrize("options", [{}, {"inline": True}, {"concurrency": 4}], ids=str)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_callbacks_run_where_they_belong(
    broker: Broker, topic: str, is_async: bool, options: Any
) -> None:
    loop, here = asyncio.get_running_loop(), threading.current_thread()
    got: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

    def on_message(n: int) -> None:
        on_loop = threading.current_thread() is here
        loop.call_soon_threadsafe(got.put_nowait, (n, on_loop))

    async def on_message_later(n: int) -> None:
        await asyncio.sleep(0)
        on_message(n)

    async with Node("robot", broker.url) as node:
        callback = on_message_later if is_async else on_message
        await node.create_subscriber(topic, callback, **options).run()
        publisher = node.create_publisher(topic)
        for n in range(50):
            await publisher.publish(n)
        received = await get(got, 50)

    assert sorted(n for n, _ in received) == list(range(50))
    assert {on_loop for _, on_loop in received} == {is_async or "inline" in options}


async def test_no_more_coroutines_run_at_once_than_were_asked_for(
    broker: Broker, topic: str
) -> None:
    entered: asyncio.Queue[int] = asyncio.Queue()
    gate = asyncio.Event()

    async def on_message(n: int) -> None:
        entered.put_nowait(n)
        await gate.wait()

    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(topic, on_message, concurrency=3)
        await subscriber.run()
        publisher = node.create_publisher(topic)
        for n in range(10):
            await publisher.publish(n)
        assert sorted(await get(entered, 3)) == [0, 1, 2]
        await until(lambda: subscriber.stats.received == 10)
        assert entered.empty()
        gate.set()
        assert sorted(await get(entered, 7)) == list(range(3, 10))


async def test_every_subscriber_gets_one_copy(broker: Broker, topic: str) -> None:
    got: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(4)]
    names = [f"{topic}.sonar", f"{topic}.*", f"{topic}.sonar", f"{topic}.*"]
    async with two_nodes(broker) as (one, other):
        for queue, name, node in zip(got, names, (one, one, one, other), strict=True):
            await node.create_subscriber(name, queue.put).run()
        publisher = other.create_publisher(f"{topic}.sonar")
        for n in range(10):
            await publisher.publish(n)
        for queue in got:
            assert await get(queue, 10) == list(range(10))
            assert queue.empty()


async def test_what_waits_for_a_slow_reader_is_bounded_and_counted(
    broker: Broker, topic: str
) -> None:
    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(topic, bounds=Bounds(max_messages=5))
        await subscriber.run()
        publisher = node.create_publisher(topic)
        for n in range(100):
            await publisher.publish(n)
        await until(lambda: subscriber.stats.received == 100)

        assert await take(subscriber, 5) == [95, 96, 97, 98, 99]
        assert subscriber.stats.dropped == 95


async def test_iterating_skips_what_is_refused_and_counts_it(
    broker: Broker, topic: str, raw: RawPeer
) -> None:
    errors: list[tuple[BaseException, str]] = []
    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(
            topic, msg_type=Sonar, on_error=lambda error, topic: errors.append((error, topic))
        )
        await subscriber.run()
        for payload in (b"\xff\xfe", b"{}", b'{"distance": 1.0}'):
            await asyncio.to_thread(raw.publish, topic, payload)

        assert await take(subscriber, 1) == [Sonar(1.0)]

    assert subscriber.stats.refused == 2
    assert [where for _, where in errors] == [topic, topic]


async def test_stop_ends_an_iteration(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(topic)
        await subscriber.run()

        async def read() -> list[Any]:
            return [msg async for msg in subscriber]

        reading = asyncio.create_task(read())
        await node.create_publisher(topic).publish("hello")
        await until(lambda: subscriber.stats.received == 1)
        await subscriber.stop()
        async with in_time():
            assert await reading == ["hello"]


async def test_it_goes_on_after_somebody_has_cancelled_every_task_of_the_loop(
    make_node: Callable[..., SyncNode], broker: Broker, topic: str
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, got)
    node = Node("tough", broker.url)
    publisher = node.create_publisher(topic)
    assert await publisher.wait_connected(DEADLINE)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert await publisher.wait_connected(DEADLINE)
    await publisher.publish(1)
    assert await asyncio.to_thread(got.wait, 1) == [1]
    await node.stop()
    await publisher.stop()


FORGOTTEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""What asyncio says of a socket when its loop has ended before it was told to close it."""


@FORGOTTEN
def test_what_a_loop_cannot_send_any_more_when_it_ends_is_told(
    make_node: Callable[..., SyncNode], broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, got)

    async def program() -> None:
        await Node("hasty", broker.url).create_publisher(topic).publish(1)

    asyncio.run(program())
    gc.collect()  # here, where it is expected to speak up
    assert "1 message was never sent" in caplog.text or got.first == 1


@FORGOTTEN
def test_a_node_whose_loop_has_ended_without_it_says_so(broker: Broker, topic: str) -> None:
    _use_on_two_loops(Node("hasty", broker.url), topic)
    gc.collect()  # here, where it is expected to speak up


def _use_on_two_loops(node: Node, topic: str) -> None:
    publisher, client = node.create_publisher(topic), node.create_rpc_client(f"{topic}.echo")

    async def again() -> None:
        for use in (
            lambda: publisher.publish(2),
            lambda: client.call(1, timeout=DEADLINE),
            node.run,
            lambda: node.wait_connected(DEADLINE),
        ):
            with pytest.raises(EndpointClosed, match="loop on which it ran is closed"):
                await use()
        with pytest.raises(EndpointClosed, match="loop on which it ran is closed"):
            async with node:
                pass
        await node.stop()
        async with node:  # on this loop from now on
            await node.create_rpc(f"{topic}.echo", lambda n: n).run()
            assert await client.call(3, timeout=DEADLINE) == 3

    asyncio.run(node.run())
    asyncio.run(again())


def test_a_node_that_lives_on_another_loop_says_so_at_once(broker: Broker, topic: str) -> None:
    """As with a fixture of a whole session whose tests have a loop each."""
    with asyncio.Runner() as home:
        node = Node("robot", broker.url)
        subscriber = node.create_subscriber(f"{topic}.a")
        publisher = node.create_publisher(f"{topic}.a")
        client = node.create_rpc_client(f"{topic}.echo")
        actions = node.create_action_client(f"{topic}.go")
        node.create_rpc(f"{topic}.echo", lambda n: n)
        home.run(node.run())

        async def elsewhere() -> None:
            uses: list[Callable[[], Awaitable[Any]]] = [
                lambda: publisher.publish(1),
                lambda: client.call(1, timeout=DEADLINE),
                lambda: client.wait_for_service(DEADLINE),
                lambda: actions.send_goal({}, timeout=DEADLINE),
                lambda: take(aiter(subscriber), 1),
                subscriber.run,
                subscriber.stop,
                lambda: node.wait_connected(DEADLINE),
                node.run,
                node.run_forever,
                node.stop,
            ]
            for use in uses:
                with pytest.raises(RuntimeError, match="robot lives on another event loop"):
                    await use()

        asyncio.run(elsewhere())

        async def at_home() -> None:
            await publisher.publish(2)
            assert await take(aiter(subscriber), 1) == [2], "as if nothing had been tried"
            assert await client.call(3, timeout=DEADLINE) == 3
            await node.stop()

        home.run(at_home())

    async def afterwards() -> None:
        async with node:  # on this loop from now on
            assert await client.call(4, timeout=DEADLINE) == 4

    asyncio.run(afterwards())


async def test_nobody_begins_to_iterate_over_what_was_stopped(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        alone, late = node.create_subscriber(f"{topic}.a"), node.create_subscriber(f"{topic}.b")
        await alone.stop()
        with pytest.raises(EndpointClosed, match="was stopped"):
            await anext(alone)
    for subscriber in (alone, late):
        with pytest.raises(EndpointClosed, match="was stopped"):
            await anext(aiter(subscriber))
    assert not node.connected


async def test_a_subscriber_with_a_callback_cannot_be_iterated_over(
    broker: Broker, topic: str
) -> None:
    async with Node("robot", broker.url) as node:
        for subscriber in (
            node.create_subscriber(topic, print),
            node.create_psubscriber(topic, print),
        ):
            with pytest.raises(TypeError, match="on_message"):
                aiter(subscriber)


async def test_a_cancelled_reader_can_read_on(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(topic)
        await subscriber.run()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(subscriber)
        await node.create_publisher(topic).publish("hello")

        assert await take(subscriber, 1) == ["hello"]


async def test_a_callback_that_raises_is_counted_and_the_receiver_goes_on(
    broker: Broker, topic: str
) -> None:
    got: asyncio.Queue[float] = asyncio.Queue()
    errors: list[BaseException] = []

    async def on_message(n: int) -> None:
        if n < 0:
            raise SystemExit(n)
        got.put_nowait(1 / n)

    async with Node("robot", broker.url) as node:
        subscriber = node.create_subscriber(
            topic, on_message, on_error=lambda error, topic: errors.append(error)
        )
        await subscriber.run()
        publisher = node.create_publisher(topic)
        for n in (0, -1, 2):
            await publisher.publish(n)
        assert await get(got, 1) == [0.5]

    assert subscriber.stats.errors == 2
    assert [type(error) for error in errors] == [ZeroDivisionError, SystemExit]


async def test_a_callback_may_publish_and_call(broker: Broker, topic: str) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()
    async with Node("robot", broker.url) as node:
        service = node.create_rpc(f"{topic}.add", add, AddTwoInts)
        client = node.create_rpc_client(f"{topic}.add", AddTwoInts)
        publisher = node.create_publisher(f"{topic}.sum")

        async def on_message(n: int) -> None:
            response = await client.call(Request(a=n, b=1))
            await publisher.publish(response.c)

        await service.run()
        await node.create_subscriber(f"{topic}.sum", got.put).run()
        await node.create_subscriber(topic, on_message).run()
        for n in range(20):
            await node.create_publisher(topic).publish(n)
        assert await get(got, 20) == list(range(1, 21))


async def test_wrong_messages_and_large_ones_are_refused_by_the_publisher(
    broker: Broker, topic: str
) -> None:
    async with Node("robot", broker.with_options(max_payload=1000)) as node:
        publisher = node.create_publisher(topic, Sonar)
        with pytest.raises(SerializationError):
            await publisher.publish(Pose())  # type: ignore[arg-type]
        with pytest.raises(PayloadTooBig):
            await publisher.publish(Sonar(1.0, label="x" * 2000))
        assert publisher.stats.sent == 0


# ---- calls ----


async def test_sixty_four_calls_at_once_bring_their_own_answers(broker: Broker, topic: str) -> None:
    async with two_nodes(broker) as (one, other):
        service = other.create_rpc(topic, add, AddTwoInts)
        await service.run()
        client = one.create_rpc_client(topic, AddTwoInts)
        for _ in range(10):
            async with in_time():
                responses = await asyncio.gather(
                    *(client.call(Request(a=n, b=1000 * n)) for n in range(64))
                )
            assert responses == [Response(c=1001 * n) for n in range(64)]

    assert service.stats.received == 640
    assert (client.stats.sent, client.stats.received, client.stats.late) == (640, 640, 0)


async def test_a_thousand_calls_at_once_bring_their_own_answers(broker: Broker, topic: str) -> None:
    async with two_nodes(broker) as (one, other):
        await other.create_rpc(topic, lambda n: n + 1).run()
        client = one.create_rpc_client(topic)
        async with in_time():
            responses = await asyncio.gather(*(client.call(n) for n in range(1000)))

    assert responses == list(range(1, 1001))


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_what_a_handler_raises_reaches_its_caller(
    broker: Broker, topic: str, is_async: bool
) -> None:
    def handle(n: int) -> float:
        return 1 / n

    async def handle_later(n: int) -> float:
        return handle(n)

    async with Node("robot", broker.url) as node:
        service = node.create_rpc(topic, handle_later if is_async else handle)
        await service.run()
        client = node.create_rpc_client(topic)
        for _ in range(5):
            with pytest.raises(RPCRemoteError) as raised:
                await client.call(0)
            assert (raised.value.type, raised.value.message) == (
                "ZeroDivisionError",
                "division by zero",
            )
            assert await client.call(4) == 0.25
        assert service.stats.errors == 5


async def test_a_service_that_is_not_there_is_a_timeout(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        client = node.create_rpc_client(topic)
        with pytest.raises(RPCTimeout, match=topic):
            await client.call({}, timeout=0.05)
        with pytest.raises(TimeoutError):
            await asyncio.gather(*(client.call({}, timeout=0.05) for _ in range(300)))


async def test_a_timeout_of_the_caller_or_of_the_call_leaves_nothing_pending(
    broker: Broker, topic: str
) -> None:
    entered: asyncio.Queue[int] = asyncio.Queue()
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        entered.put_nowait(n)
        if n < 0:
            await gate.wait()
        return n

    async with two_nodes(broker) as (one, other):
        await other.create_rpc(topic, slow).run()
        client = one.create_rpc_client(topic)

        async def limited() -> None:
            async with asyncio.timeout(None) as limit:
                call = asyncio.ensure_future(client.call(-1))
                await get(entered, 1)
                limit.reschedule(asyncio.get_running_loop().time())
                await call

        with pytest.raises(TimeoutError):
            await limited()
        with pytest.raises(RPCTimeout):
            await client.call(-2, timeout=1)
        await get(entered, 1)
        gate.set()
        async with in_time():
            assert await asyncio.gather(*map(client.call, range(300))) == list(range(300))
        await until(lambda: client.stats.late == 2)
        assert len(client.hub.caller._calls) == 0


async def test_cancelling_calls_leaks_nothing_and_disturbs_no_other_call(
    broker: Broker, topic: str
) -> None:
    entered: asyncio.Queue[int] = asyncio.Queue()
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        entered.put_nowait(n)
        if n < 0:
            await gate.wait()
        return n

    async with two_nodes(broker) as (one, other):
        await other.create_rpc(topic, slow).run()
        client = one.create_rpc_client(topic)
        calls = [asyncio.create_task(client.call(-1 - n)) for n in range(30)]
        await get(entered, 30)

        for call in calls:
            call.cancel()
        async with in_time():
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        assert len(client.hub.caller._calls) == 0

        others = asyncio.gather(*map(client.call, range(300)))
        gate.set()
        async with in_time():
            assert await others == list(range(300))
        await until(lambda: client.stats.late == 30)


async def test_calls_that_are_cancelled_before_they_are_sent_leave_nothing(
    broker: Broker, topic: str
) -> None:
    async with Node("robot", broker.url) as node:
        client = node.create_rpc_client(topic)
        calls = [asyncio.create_task(client.call(n)) for n in range(1000)]
        await asyncio.sleep(0)  # they have begun, and more of them than can be under way
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert len(client.hub.caller._calls) == 0

        await node.create_rpc(topic, lambda n: n).run()
        assert await client.call(5) == 5


async def test_stopping_ends_pending_calls(broker: Broker, topic: str) -> None:
    entered: asyncio.Queue[int] = asyncio.Queue()

    async def never(n: int) -> None:
        entered.put_nowait(n)
        await asyncio.Event().wait()

    async with two_nodes(broker) as (one, other):
        await other.create_rpc(topic, never).run()
        client = one.create_rpc_client(topic)
        calls = [asyncio.create_task(client.call(n)) for n in range(5)]
        await get(entered, 5)
        await one.stop()
        async with in_time():
            outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {EndpointClosed}


async def test_wait_for_service_tells_whether_it_is_there(broker: Broker, topic: str) -> None:
    async with two_nodes(broker) as (one, other):
        client = one.create_rpc_client(topic)
        assert not await client.wait_for_service(0.05)
        waiting = asyncio.create_task(client.wait_for_service(DEADLINE))
        service = other.create_rpc(topic, lambda n: n)
        await service.run()
        assert await waiting
        assert await client.wait_for_service(DEADLINE)
        await service.stop()
        assert not await client.wait_for_service(0.05)


async def test_a_chain_of_services_of_one_node(broker: Broker, topic: str) -> None:
    async with Node("robot", broker.url) as node:
        clients = [node.create_rpc_client(f"{topic}.{n}") for n in range(3)]

        async def pass_on(n: int) -> int:
            return await clients[1].call(n) + 1  # type: ignore[no-any-return]

        await node.create_rpc(f"{topic}.0", pass_on).run()
        await node.create_rpc(f"{topic}.1", lambda n: 10 * n).run()
        async with in_time():
            assert await asyncio.gather(*(clients[0].call(n) for n in range(50))) == [
                10 * n + 1 for n in range(50)
            ]


# ---- the life of nodes and endpoints ----


async def test_a_node_tells_where_it_is_in_its_life(broker: Broker) -> None:
    states: list[bool] = []
    node = Node("robot", broker.url, on_state=lambda connected, reason: states.append(connected))
    assert (node.state, node.connected) == (NodeState.IDLE, False)
    await node.stop()
    for _ in range(2):
        await node.run()
        await node.run()
        assert (node.state, node.connected) == (NodeState.RUNNING, True)
        await node.stop()
        await node.stop()
        assert (node.state, node.connected) == (NodeState.STOPPED, False)
    async with node:
        assert node.state is NodeState.RUNNING
    assert node.state is NodeState.EXITED
    assert states == [True, False] * 3


async def test_endpoints_made_before_and_after_run_work(broker: Broker, topic: str) -> None:
    node = Node("robot", broker.url)
    early = node.create_subscriber(topic)
    async with node:
        late = node.create_subscriber(topic)
        await late.run()
        await node.create_publisher(topic).publish("hello")
        assert await take(early, 1) == await take(late, 1) == ["hello"]


async def test_endpoints_work_again_after_they_were_stopped_and_run(
    broker: Broker, topic: str
) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()
    node = Node("robot", broker.url)
    node.create_subscriber(topic, got.put)
    publisher = node.create_publisher(topic)
    node.create_rpc(f"{topic}.add", add, AddTwoInts)
    client = node.create_rpc_client(f"{topic}.add", AddTwoInts)
    for n in range(3):
        await node.run()
        await publisher.publish(n)
        assert await get(got, 1) == [n]
        assert await client.call(Request(a=n, b=n)) == Response(c=2 * n)
        await node.stop()


async def begun_to_stop(what: Node | Subscriber[Any]) -> asyncio.Task[None]:
    """What stops it, as far as it gets at once."""
    stopping = asyncio.create_task(what.stop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return stopping


@pytest.mark.parametrize("whole", [False, True], ids=["endpoint", "node"])
@pytest.mark.parametrize("again", ["after it was cancelled", "beside it"])
async def test_who_stops_it_as_well_waits_until_it_is_stopped(
    broker: Broker, topic: str, whole: bool, again: str
) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()
    ended: list[Any] = []

    async def hold(msg: Any) -> None:
        begun.set()
        await gate.wait()
        ended.append(msg)

    async with two_nodes(broker) as (one, other):
        subscriber = other.create_subscriber(topic, hold, grace=DEADLINE)
        fence: asyncio.Queue[Any] = asyncio.Queue()
        await asyncio.gather(subscriber.run(), one.create_subscriber(topic, fence.put).run())
        publisher = one.create_publisher(topic)
        await publisher.publish(1)
        async with in_time():
            await begun.wait()
        what = other if whole else subscriber
        first = await begun_to_stop(what)
        if again == "after it was cancelled":
            first.cancel()
            await asyncio.wait([first])
        second = await begun_to_stop(what)
        assert not second.done()
        gate.set()
        async with in_time():
            await second
        assert ended == [1]
        await publisher.publish(2)
        assert await get(fence, 2) == [1, 2]
        assert ended == [1], "nothing is handed over when it is stopped"
        async with in_time():
            await what.run()
            await subscriber.run()
        await publisher.publish(3)
        await until(lambda: ended[-1] == 3)
        # No broker is waited for at an end: it may hear of that behind the message.
        assert ended in ([1, 3], [1, 2, 3])
        assert subscriber.stats.received == len(ended), "once each"


async def test_what_is_run_while_it_is_being_stopped_works_after_that(
    broker: Broker, topic: str
) -> None:
    async with two_nodes(broker) as (one, other):
        got: asyncio.Queue[Any] = asyncio.Queue()
        subscriber = other.create_subscriber(topic, got.put)
        service = other.create_rpc(f"{topic}.echo", lambda n: n)
        await asyncio.gather(subscriber.run(), service.run())
        publisher, client = one.create_publisher(topic), one.create_rpc_client(f"{topic}.echo")
        for number in range(20):
            stopping = await begun_to_stop(subscriber) if number % 2 else None
            async with in_time():
                await asyncio.gather(subscriber.stop(), subscriber.run(), service.stop())
                await asyncio.gather(service.stop(), service.run())
            assert stopping is None or stopping.done()
            assert subscriber.ready
            assert service.ready
            await publisher.publish(number)
            assert await get(got, 1) == [number]
            assert await client.call(number, timeout=DEADLINE) == number
        assert other.health


@asynccontextmanager
async def being_stopped(
    broker: Broker,
    topic: str,
    in_callback: Callable[[Subscriber[Any]], Awaitable[Any]],
    whole: bool = False,
) -> AsyncIterator[tuple[Any, asyncio.Task[None], asyncio.Event]]:
    """A subscriber, or its whole node, that waits for its callback, as long as a test.

    Also who stops it, and the gate at which the callback waits.
    """
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hold(msg: Any) -> None:
        begun.set()
        await gate.wait()
        await in_callback(subscriber)

    async with two_nodes(broker) as (one, other):
        subscriber = other.create_subscriber(topic, hold, grace=10 * DEADLINE)
        await subscriber.run()
        await one.create_publisher(topic).publish(1)
        async with in_time():
            await begun.wait()
        what = other if whole else subscriber
        yield what, await begun_to_stop(what), gate


async def nothing(subscriber: Subscriber[Any]) -> None:
    """What most callbacks do about the subscriber that calls them."""


@pytest.mark.parametrize("whole", [False, True], ids=["endpoint", "node"])
@pytest.mark.parametrize("word", ["stop", "run"])
async def test_the_last_one_to_stop_or_run_it_has_the_last_word(
    broker: Broker, topic: str, whole: bool, word: str
) -> None:
    async with being_stopped(broker, topic, nothing, whole) as (what, stopping, gate):
        others = [stopping]
        for each in ("run", "stop") if word == "stop" else ("stop", "run"):
            others.append(asyncio.create_task(getattr(what, each)()))
            await asyncio.sleep(0)
        gate.set()
        async with in_time():
            await asyncio.gather(*others)
        is_at_work = what.health if isinstance(what, Node) else what.ready
        assert is_at_work == (word == "run")


async def test_a_callback_that_runs_what_is_being_stopped_is_not_waited_for(
    broker: Broker, topic: str
) -> None:
    async with being_stopped(broker, topic, Subscriber.run) as (subscriber, stopping, gate):
        gate.set()
        async with in_time():
            await stopping
        await until(lambda: subscriber.ready)


async def test_a_node_that_is_run_while_it_is_left_works_on(broker: Broker) -> None:
    node = await Node("n", broker.url).__aenter__()
    leaving = asyncio.create_task(node.__aexit__(None, None, None))
    await asyncio.sleep(0)
    async with in_time():
        await node.run()
        await leaving
    assert node.health
    await node.stop()


@pytest.mark.parametrize("turns", range(1, 5))
async def test_a_node_that_is_run_anew_after_running_for_ever_works_on(
    broker: Broker, turns: int
) -> None:
    node = Node("n", broker.url)
    lasting = asyncio.create_task(node.run_forever())
    await until(lambda: node.health)
    stopping = asyncio.create_task(node.stop())
    for _ in range(turns):
        await asyncio.sleep(0)
    async with in_time():
        await node.run()
        await asyncio.gather(stopping, lasting)
    assert node.health
    await node.stop()


def test_a_callback_that_runs_its_node_is_not_waited_for_by_who_stops_that(
    broker: Broker, topic: str
) -> None:
    begun, gate, ran = threading.Event(), threading.Event(), threading.Event()
    node = SyncNode("n", connection_params=broker.url, grace=10 * DEADLINE)

    def hold(msg: Any) -> None:
        begun.set()
        gate.wait(DEADLINE)
        node.run()
        ran.set()

    node.create_subscriber(topic, hold)
    node.run()
    node.create_publisher(topic).publish(1)
    assert begun.wait(DEADLINE)
    stopping = threading.Thread(target=node.stop)
    stopping.start()
    eventually(lambda: node._core._leaving is not None)
    gate.set()
    assert ran.wait(DEADLINE)
    stopping.join(DEADLINE)
    assert not stopping.is_alive()
    node.stop()


async def test_of_what_was_stopped_nothing_is_kept_that_stopped_it(
    broker: Broker, topic: str
) -> None:
    async with Node("n", broker.url) as node:
        subscriber = node.create_subscriber(topic, nothing)
        await subscriber.run()
        tasks: WeakSet[asyncio.Task[None]] = WeakSet()
        stopping = asyncio.create_task(subscriber.stop())
        tasks.add(stopping)
        await stopping
        del stopping
        await asyncio.sleep(0)
        gc.collect()
        assert not [*tasks]
        assert subscriber._ending is None


async def test_why_it_did_not_end_well_is_logged_where_nobody_waits_for_it(
    broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Subscriber[Any]):
        async def _end(self) -> None:
            await super()._end()
            raise OSError("the disk is full")

    failing = Failing(topic, nothing, conn_params=broker.url)
    await failing.run()
    stopping = await begun_to_stop(failing)
    stopping.cancel()
    await until(lambda: "the disk is full" in caplog.text)
    assert stopping.cancelled()
    await until(lambda: not failing.connected and failing.hub.loop is None)


def test_a_callback_that_runs_something_else_is_waited_for(broker: Broker, topic: str) -> None:
    begun, ended = threading.Event(), []
    away = SyncSubscriber(
        "x", print, conn_params=f"redis://127.0.0.1:{free_port()}?connect_timeout=0.2"
    )

    def hold(msg: Any) -> None:
        begun.set()
        away.run()
        ended.append(msg)

    with SyncNode("n", connection_params=broker.url, grace=10 * DEADLINE) as node:
        node.create_subscriber(topic, hold)
        node.create_publisher(topic).publish(1)
        assert begun.wait(DEADLINE)
    assert ended == [1]
    away.stop()


def test_threads_that_stop_and_run_an_endpoint_at_once_leave_it_at_work(
    broker: Broker, topic: str
) -> None:
    with SyncNode("n", connection_params=broker.url) as node, ThreadPoolExecutor(2) as pool:
        got = Collected()
        subscriber = node.create_subscriber(topic, got)
        publisher = node.create_publisher(topic)
        for number in range(20):
            for done in [pool.submit(subscriber.stop), pool.submit(subscriber.run)]:
                done.result(DEADLINE)
            subscriber.run()
            publisher.publish(number)
            assert got.wait(number + 1)[number] == number


async def test_what_was_stopped_opens_no_connection_again_unless_it_is_run(
    broker: Broker, topic: str
) -> None:
    async with Node("robot", broker.url) as node:
        publisher, client = node.create_publisher(topic), node.create_rpc_client(topic)

    with pytest.raises(EndpointClosed):
        await publisher.publish("lost")
    with pytest.raises(EndpointClosed):
        await client.call("lost")
    with pytest.raises(EndpointClosed):
        await client.wait_for_service()
    assert not node.connected


async def test_endpoints_without_a_node_have_a_connection_of_their_own(
    broker: Broker, topic: str
) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        Subscriber(topic, got.put, Sonar, broker.url),
        PSubscriber(f"{topic}.*", lambda msg, topic: None, Sonar, broker.url),
        RPCService(f"{topic}_add", add, AddTwoInts, broker.url),
        Publisher(topic, Sonar, broker.url) as publisher,
        MPublisher(Sonar, connection_params=broker.url) as many,
        RPCClient(f"{topic}_add", AddTwoInts, broker.url) as client,
    ):
        await publisher.publish(Sonar(1.0))
        await get(got, 1)
        await many.publish(Sonar(2.0), topic)
        assert await get(got, 1) == [Sonar(2.0)]
        assert await client.call(Request(a=1, b=2)) == Response(c=3)
        assert publisher.connected
    assert not publisher.connected


async def test_functions_become_ports_by_decorators(broker: Broker, topic: str) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    node = Node("robot", broker.url)

    @node.subscribe(topic, Sonar)
    async def on_sonar(msg: Sonar, topic: str) -> None:
        got.put_nowait((msg, topic))

    @node.rpc(f"{topic}.add", AddTwoInts)
    async def on_request(request: AddTwoInts.Request) -> AddTwoInts.Response:
        return await add(request)

    async with node:
        await node.create_publisher(topic, Sonar).publish(Sonar(1.0))
        assert await get(got, 1) == [(Sonar(1.0), topic)]
        client = node.create_rpc_client(f"{topic}.add", AddTwoInts)
        assert await client.call(Request(a=1, b=2)) == Response(c=3)


async def test_run_forever_ends_with_its_task_and_with_stop(broker: Broker) -> None:
    for end in ("cancel", "stop"):
        node = Node("robot", broker.url)
        running = asyncio.create_task(node.run_forever())
        await until(lambda: node.connected)  # noqa: B023 - it is waited for here
        if end == "cancel":
            running.cancel()
        else:
            await node.stop()
        await asyncio.wait([running], timeout=DEADLINE)
        assert running.cancelled() == (end == "cancel")
        assert not node.connected


async def test_the_broker_of_the_environment_is_the_default(
    broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMLIB_URL", broker.url)
    async with Node("robot") as node, Subscriber(topic, conn_params=broker.url) as subscriber:
        await node.create_publisher(topic).publish("hello")
        assert await take(subscriber, 1) == ["hello"]


async def test_both_faces_understand_each_other(broker: Broker, topic: str) -> None:
    got = Collected()

    def begin() -> SyncNode:
        sync = SyncNode("sync", connection_params=broker.url)
        sync.create_subscriber(topic, got, Sonar)
        sync.create_rpc(f"{topic}.same", lambda request: Response(c=request.a), AddTwoInts)
        sync.run()
        return sync

    sync = await asyncio.to_thread(begin)
    async with Node("aio", broker.url) as node:
        subscriber = node.create_subscriber(f"{topic}.back")
        await subscriber.run()
        await node.create_rpc(f"{topic}.add", add, AddTwoInts).run()

        await node.create_publisher(topic, Sonar).publish(Sonar(1.0))
        client = node.create_rpc_client(f"{topic}.same", AddTwoInts)
        response = await client.call(Request(a=7, b=0))
        assert response.c == 7
        assert await asyncio.to_thread(got.wait, 1) == [Sonar(1.0)]

        back = sync.create_rpc_client(f"{topic}.add", AddTwoInts)
        assert (await asyncio.to_thread(back.call, Request(a=1, b=2))).c == 3
        sync.create_publisher(f"{topic}.back").publish("hello")
        assert await take(subscriber, 1) == ["hello"]
        await asyncio.to_thread(sync.stop)
