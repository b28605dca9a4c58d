"""The link breaks while the broker lives: nothing comes twice, and what is lost is counted."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from brokers import Broker
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually
from commlib import aio
from commlib.node import Node
from commlib.transports import _sessions
from faults.pair import Pair
from faults.proxy import Proxy


@pytest.fixture(
    params=[
        "redis",
        "mqtt",
        pytest.param("mqtt311", marks=pytest.mark.slow),
        pytest.param("nats", marks=pytest.mark.slow),
        "amqp",
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    """Where a broker of each kind is, which lives on and is shared with other tests."""
    return Broker.named(request.param, request.getfixturevalue).url


def wait(seconds: float) -> None:
    """While a fault lasts, which is what is tested."""
    threading.Event().wait(seconds)


# ---- bytes come late, or in pieces ----


def test_bytes_may_come_one_by_one(url: str) -> None:
    with Proxy(url, piece=1) as proxy, Pair(proxy.url, pause=0.1, timeout=DEADLINE) as pair:
        for _ in range(20):
            pair.publish()
            assert pair.call(DEADLINE)
        pair.check()
        assert pair.lost == 0
        assert pair.publisher.stats.reconnects == 0


@pytest.mark.parametrize(
    ("delay", "idle"), [(0.1, 4), pytest.param(0.3, 10, marks=pytest.mark.slow)]
)
def test_a_link_that_is_slow_to_answer_is_not_taken_for_dead(
    url: str, delay: float, idle: float
) -> None:
    with Proxy(url, delay=delay, jitter=delay / 3) as proxy:
        params = Broker(proxy.url).with_options(keepalive=3)
        with Pair(params, timeout=DEADLINE) as pair:
            wait(idle)
            assert pair.call(DEADLINE)
            pair.check()
            assert pair.lost == 0
            for endpoint in (pair.subscriber, pair.publisher, pair.client):
                assert endpoint.stats.reconnects == 0


def test_what_was_published_before_the_end_arrives_over_a_slow_link(url: str) -> None:
    came, payload = Collected(), "x" * 10_000
    topic = Broker("").unique("last")
    with Proxy(url, rate=1_000_000) as proxy, Node("near", connection_params=url) as near:
        near.create_subscriber(topic, came)
        with Node("far", connection_params=proxy.url) as far:
            publisher = far.create_publisher(topic)
            for number in range(200):  # two seconds
                publisher.publish({"n": number, "payload": payload})
        assert [message["n"] for message in came.wait(200)] == [*range(200)]


def test_who_cannot_wait_for_what_was_published_before_the_end_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sessions, "LONGEST_FLUSH_SECONDS", 0.1)
    with Proxy(url, rate=1_000_000) as proxy:
        with Node("far", connection_params=proxy.url) as far:
            publisher = far.create_publisher("last")
            for _ in range(200):
                publisher.publish("x" * 10_000)
        assert publisher.stats.lost or "before the broker had taken all" in caplog.text


async def test_who_does_not_wait_for_what_was_published_before_the_end_is_told(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(url, rate=1_000_000) as proxy:
        node = aio.Node("far", proxy.url)
        await node.run()
        publisher = node.create_publisher("last")
        for _ in range(200):
            await publisher.publish("x" * 10_000)
        transport, flushing = node.hub.transport, asyncio.Event()

        async def flush() -> None:
            flushing.set()
            await asyncio.get_running_loop().create_future()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(transport, "flush", flush)
            stopping = asyncio.create_task(transport.close())
            await flushing.wait()
            stopping.cancel()
            await asyncio.wait([stopping])
        assert "before the broker had taken all" in caplog.text
        await node.stop()


def send_images(pair: Pair, topic: str, size: int, count: int) -> None:
    """Let images pass that take longer than a silent link would be kept; none is lost."""
    images: list[bytes] = []
    all_came = threading.Event()

    def note(image: bytes) -> None:
        images.append(image)
        if len(images) == count:
            all_came.set()

    subscriber = pair.base.create_subscriber(topic, note, bytes)
    publisher = pair.far.create_publisher(topic, bytes)
    for _ in range(count):
        publisher.publish(bytes(size))
    assert all_came.wait(6 * DEADLINE)
    assert images == [bytes(size)] * count
    assert pair.call()
    for endpoint in (publisher, subscriber, pair.client):
        assert endpoint.stats.reconnects == 0


def test_a_slow_link_is_not_taken_for_dead_as_long_as_bytes_flow(url: str) -> None:
    near, topic = Broker(url), Broker(url).unique("image")
    with Proxy(url, rate=100_000) as proxy:
        far = Broker(proxy.url).with_options(keepalive=1)
        with Pair(near.with_options(keepalive=1), far, timeout=DEADLINE) as pair:
            send_images(pair, topic, size=300_000, count=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [1, 100])
def test_a_megabyte_passes_a_slow_link_to_the_broker_and_another_one_from_it(
    url: str, count: int
) -> None:
    topic = Broker(url).unique("image")
    with Proxy(url, rate=50_000) as proxy:
        with Pair(Broker(proxy.url).with_options(keepalive=1), timeout=DEADLINE) as pair:
            send_images(pair, topic, size=1_000_000 // count, count=count)


# ---- no bytes come ----


@pytest.mark.parametrize("way", ["both", "to_broker", "to_client"])
def test_a_link_that_stalls_and_goes_on_loses_nothing(url: str, way: str) -> None:
    with Proxy(url) as proxy, Pair(proxy.url) as pair:
        with pair.busy():
            pair.works_again()
            proxy.stall(to_broker=way != "to_client", to_client=way != "to_broker")
            wait(0.6)  # calls end meanwhile
            proxy.resume()
            pair.works_again()
        pair.check()
        assert pair.lost == 0
        assert pair.publisher.stats.reconnects == 0


@contextmanager
def publishing(publisher: object) -> Iterator[None]:
    done = threading.Event()

    def publish_for_ever() -> None:
        while not done.wait(0.01):
            publisher.publish({})  # type: ignore[attr-defined]

    thread = threading.Thread(target=publish_for_ever)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("fault", ["half_open", pytest.param("stall", marks=pytest.mark.slow)])
def test_a_dead_link_is_noticed_by_who_only_listens_and_by_who_only_publishes(
    url: str, fault: str
) -> None:
    keepalive = 1
    got = Collected()
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(url))
        there = Broker(proxy.url)
        params = there.with_options(keepalive=keepalive)
        topic = there.unique("noise")
        ears = stack.enter_context(Node("ears", None, params, heartbeats=False))
        mouth = stack.enter_context(Node("mouth", None, params, heartbeats=False))
        ears.create_subscriber(topic, got)
        stack.enter_context(publishing(mouth.create_publisher(topic)))
        got.wait()
        getattr(proxy, fault)()
        begun = time.monotonic()
        eventually(lambda: not ears.connected)
        eventually(lambda: not mouth.connected)
        assert time.monotonic() - begun < 2 * keepalive + BUSY_SECONDS
        proxy.resume()
        eventually(lambda: ears.connected and mouth.connected)
        got.wait(len(got.items) + 1)


def test_a_half_open_link_loses_nothing_uncounted(url: str) -> None:
    with Proxy(url) as proxy, Pair(Broker(proxy.url).with_options(keepalive=1)) as pair:
        with pair.busy():
            pair.works_again()
            proxy.half_open()
            eventually(lambda: not pair.base.connected and not pair.far.connected)
            proxy.resume()
            pair.works_again()
        pair.check()


# ---- connections end ----


def test_a_link_that_is_cut_again_and_again(url: str) -> None:
    with Proxy(url) as proxy, Pair(proxy.url) as pair:
        with pair.busy():
            for _ in range(8):
                wait(random.uniform(0.01, 0.2))  # it is cut amid anything
                proxy.cut()
                eventually(lambda: pair.connected)
        pair.check()


def test_links_that_break_after_some_bytes(url: str) -> None:
    with Proxy(url) as proxy, Pair(proxy.url) as pair:
        with pair.busy():
            for longest in (100, 1000, 10_000, 100_000):
                proxy.longest = longest
                proxy.cut()
                wait(0.4)  # for so long they break again and again
        proxy.longest = 0
        proxy.cut()
        pair.check()


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_connections_are_refused_for_a_while(url: str, seconds: float) -> None:
    with Proxy(url) as proxy, Pair(proxy.url) as pair:
        with pair.busy():
            proxy.refuses = True
            proxy.cut()
            eventually(lambda: not pair.base.connected and not pair.far.connected)
            wait(seconds)
            assert not pair.base.connected
            proxy.refuses = False
            pair.works_again()
        pair.check()
