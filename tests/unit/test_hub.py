"""On which event loop what shares a connection lives, and what is said on another one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from collected import DEADLINE, Collected
from commlib import aio
from commlib.aio.bridges import TopicBridge
from commlib.aio.discovery import Discovery
from commlib.events import Event
from commlib.node import Node
from commlib.pubsub import Publisher

URL = "memory://hub"


@contextmanager
def says_so(name: str = "robot") -> Iterator[None]:
    with pytest.raises(RuntimeError, match=f"{name} lives on another event loop; use it there"):
        yield


@pytest.fixture
def home() -> Iterator[asyncio.Runner]:
    """A loop that is not closed, and does not run while another one does."""
    with asyncio.Runner() as runner:
        yield runner


@contextmanager
def beside() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(DEADLINE)


async def refused(*uses: Callable[[], Awaitable[Any]], name: str = "robot") -> None:
    for use in uses:
        with says_so(name):
            async with asyncio.timeout(DEADLINE):
                await use()


def test_all_that_is_awaited_says_so_and_changes_nothing(home: asyncio.Runner) -> None:
    node = aio.Node("robot", URL)
    many, server = node.create_wsubscriber(), node.create_rpc_server("hub")
    several, emitter = node.create_mpublisher(), node.create_event_emitter()
    client = node.create_rpc_client("hub.echo", idempotent=True)
    home.run(node.run())
    asyncio.run(
        refused(
            lambda: several.publish(1, "hub.a"),
            lambda: emitter.send_event(Event("news", "hub.news")),
            lambda: client.call(1, timeout=DEADLINE),
            lambda: client.wait_connected(DEADLINE),
            lambda: many.subscribe("hub.a", print),
            lambda: server.register_endpoint("echo", print),
            several.stop,
            server.run,
            node.__aenter__,
        )
    )
    assert many.parts == server.parts == []
    assert not server.stopped
    assert not several.stopped
    home.run(node.stop())
    asyncio.run(node.stop())  # there is nothing to be stopped any more


def test_a_running_node_makes_endpoints_on_its_own_loop_only(home: asyncio.Runner) -> None:
    node = aio.Node("robot", URL)
    home.run(node.run())
    services = node.control_services

    async def make() -> None:
        with says_so():
            node.create_publisher("hub.a")
        with says_so():
            node.create_stop_service()

    asyncio.run(make())
    with says_so():
        node.create_publisher("hub.a")  # where no loop is running
    assert node.endpoints == []
    assert node.control_services == services
    home.run(node.stop())
    assert node.create_publisher("hub.a") in node.endpoints


def test_a_loop_in_another_thread_is_another_one() -> None:
    with beside() as loop:
        node = aio.Node("robot", URL)
        publisher, client = node.create_publisher("hub.a"), node.create_rpc_client("hub.echo")

        def there(work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(DEADLINE)

        there(node.run())
        asyncio.run(refused(lambda: client.call(1, timeout=DEADLINE), node.stop))
        there(publisher.publish(1))
        asyncio.run(publisher.publish(2))  # that is handed over, as from any thread
        assert publisher.stats.sent == 2
        there(node.stop())


def test_a_message_is_never_kept_for_a_loop_that_does_not_run(home: asyncio.Runner) -> None:
    """Nor is one counted, or numbered: who gets the next one would miss it."""
    node = aio.Node("robot", URL)
    publisher, subscriber = node.create_publisher("hub.a"), node.create_subscriber("hub.a")

    async def publish(number: int) -> None:
        await publisher.publish(number)
        assert await anext(subscriber) == number

    home.run(node.run())
    home.run(publish(1))
    asyncio.run(refused(lambda: publisher.publish(2)))
    home.run(publish(3))
    assert (publisher.stats.sent, subscriber.stats.gaps) == (2, 0)
    home.run(node.stop())


def test_what_needs_no_loop_is_for_any_thread(home: asyncio.Runner) -> None:
    node = aio.Node("robot", URL)
    publisher = node.create_publisher("hub.a")
    home.run(node.run())
    with ThreadPoolExecutor(1) as thread:
        packet = thread.submit(publisher.pack, 1, "hub.a").result(DEADLINE)
        assert thread.submit(publisher.post, packet, "hub.a").result(DEADLINE)
        assert thread.submit(publisher.offer, packet, "hub.a").result(DEADLINE)
    home.run(node.stop())


def test_a_goal_and_its_feedback_are_waited_for_where_they_are(home: asyncio.Runner) -> None:
    node = aio.Node("robot", URL)
    may_end = asyncio.Event()

    async def work(goal: Any) -> dict[str, int]:
        await may_end.wait()
        return {"done": 1}

    async def begin() -> Any:
        await node.create_action("hub.go", None, work).run()
        return await node.create_action_client("hub.go").send_goal({}, timeout=DEADLINE)

    async def end() -> None:
        may_end.set()
        assert await goal.result(DEADLINE) == {"done": 1}

    home.run(node.run())
    goal = home.run(begin())
    asyncio.run(refused(lambda: goal.result(DEADLINE), lambda: anext(aiter(goal))))
    home.run(end())
    assert asyncio.run(goal.result(DEADLINE)) == {"done": 1}, "nothing is waited for any more"
    home.run(node.stop())


def test_nodes_with_one_connection_live_on_one_loop(home: asyncio.Runner) -> None:
    async def begin() -> list[aio.Node]:
        nodes = [aio.Node(name, URL, share_connection=True) for name in "ab"]
        await asyncio.gather(*(node.run() for node in nodes))
        return nodes

    async def other() -> None:
        async with aio.Node("c", URL, share_connection=True):  # with one of its own
            await refused(first.stop, second.run, name=URL)

    first, second = home.run(begin())
    home.run(first.stop())
    asyncio.run(other())
    home.run(second.stop())


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_bridge_lives_where_both_its_sides_do(home: asyncio.Runner, side: str) -> None:
    node = aio.Node("robot", URL)
    far = "memory://far"
    home.run(node.run())
    if side == "source":
        bridge = TopicBridge(None, "hub.a", "hub.b", None, far, hub=node.hub)
    else:
        bridge = TopicBridge(None, "hub.a", "hub.b", far, None, sink_hub=node.hub)
    asyncio.run(refused(bridge.run, bridge.stop, lambda: bridge.wait_connected(DEADLINE)))
    home.run(bridge.run())
    assert bridge.ready
    asyncio.run(refused(bridge.stop, name="robot" if side == "source" else bridge.name))
    assert bridge.ready
    home.run(bridge.stop())
    home.run(node.stop())


def test_questions_of_a_discovery_are_asked_on_its_loop(home: asyncio.Runner) -> None:
    discovery = Discovery(URL)
    home.run(discovery.run())
    asyncio.run(refused(discovery.ask, name="discovery"))
    home.run(discovery.stop())


def test_synchronous_endpoints_are_used_from_threads_with_a_loop_of_their_own() -> None:
    got = Collected()

    async def program() -> None:
        publisher.publish("hello")

    with Node("robot", connection_params=URL) as node:
        node.create_subscriber("hub.sync", got)
        with Publisher("hub.sync", conn_params=URL) as publisher:
            asyncio.run(program())
            assert got.wait(1) == ["hello"]


def test_a_forked_child_may_use_it_on_a_loop_of_its_own(home: asyncio.Runner) -> None:
    node = aio.Node("robot", URL)
    publisher = node.create_publisher("hub.a")
    home.run(node.run())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(publisher.publish(1))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    home.run(node.stop())
