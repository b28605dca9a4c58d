"""Fixtures for all tests: brokers, nodes on them, and a look at what a test leaves behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import brokers_page
from brokers import (
    Broker,
    MosquittoServer,
    NatsServer,
    RabbitServer,
    RedisServer,
    Server,
    making,
    running,
    running_valkey,
)
from commlib import _portal
from commlib._face import stop
from commlib.aio._hub import Hub
from commlib.cli._valkey import ValkeyProcess
from commlib.node import Node
from commlib.transports import resolve
from raw_peer import RawPeer

LEAVING_SECONDS = 5.0
LOG_TAIL = 3000  # characters of a broker's log beside a failure
MOST_WORKERS = 8  # whose brokers take 0.3 GB each

# How long an example takes says nothing on a busy machine.
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# ---- brokers ----


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis server of this run; tests that kill or configure one take ``make_redis``."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyProcess]:
    """The Valkey server of this run."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto_server() -> Iterator[MosquittoServer]:
    """The Mosquitto of this run; tests that kill or configure one take ``make_mosquitto``."""
    with running(MosquittoServer) as server:
        yield server


@pytest.fixture(scope="session")
def mqtt_server(mosquitto_server: MosquittoServer) -> MosquittoServer:
    """Mosquitto, spoken to in MQTT 5."""
    return mosquitto_server


@pytest.fixture(scope="session")
def mqtt311_server(mosquitto_server: MosquittoServer) -> Broker:
    """The same one, spoken to in MQTT 3.1.1."""
    return Broker(Broker(mosquitto_server.url).with_options(protocol="MQTTv311"))


@pytest.fixture(scope="session")
def mqtt_websockets_server() -> Iterator[MosquittoServer]:
    """A Mosquitto that is reached through websockets."""
    MosquittoServer.need()
    with MosquittoServer(websockets=True) as server:
        yield server


@pytest.fixture(scope="session")
def second_mqtt_server() -> Iterator[MosquittoServer]:
    """Another Mosquitto, for what goes from one to the other."""
    with running(MosquittoServer) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """The NATS server of this run, which speaks MQTT 3.1.1."""
    with running(NatsServer) as server:
        yield server


@pytest.fixture(scope="session")
def nats_websockets_server() -> Iterator[NatsServer]:
    """A NATS server that is reached through websockets."""
    NatsServer.need()
    with NatsServer(websockets=True) as server:
        yield server


@pytest.fixture(scope="session")
def amqp_server() -> Iterator[RabbitServer]:
    """The RabbitMQ of this run; tests that kill or configure one take ``make_rabbitmq``."""
    with running(RabbitServer) as server:
        yield server


@pytest.fixture(scope="session")
def second_amqp_server() -> Iterator[RabbitServer]:
    """Another RabbitMQ, for what goes from one to the other."""
    with running(RabbitServer) as server:
        yield server


@pytest.fixture
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers of the test's own, with the options of ``RedisServer``."""
    with making(RedisServer) as make:
        yield make


@pytest.fixture
def make_mosquitto() -> Iterator[Callable[..., MosquittoServer]]:
    """Starts Mosquittos of the test's own, with the options of ``MosquittoServer``."""
    with making(MosquittoServer) as make:
        yield make


@pytest.fixture
def make_nats() -> Iterator[Callable[..., NatsServer]]:
    """Starts NATS servers of the test's own, with the options of ``NatsServer``."""
    with making(NatsServer) as make:
        yield make


@pytest.fixture
def make_rabbitmq() -> Iterator[Callable[..., RabbitServer]]:
    """Starts RabbitMQs of the test's own, with the options of ``RabbitServer``."""
    with making(RabbitServer) as make:
        yield make


@pytest.fixture(params=["memory", "redis", "valkey", "mqtt", "mqtt311", "nats", "amqp"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn. A test asks for its ``traits``, never for its name."""
    return Broker.named(request.param, request.getfixturevalue)


@pytest.fixture
def topic(broker: Broker) -> str:
    """A name of one word that no other test has."""
    return broker.unique("topic")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Beside a failure stands what its brokers have said, and whether they run."""
    report: pytest.TestReport = yield
    if report.failed and report.when != "teardown" and isinstance(item, pytest.Function):
        for name, server in item.funcargs.items():
            if isinstance(server, Server):
                report.sections.append((f"{name}, {server.state}", server.log[-LOG_TAIL:]))
    return report


# ---- the run ----


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what pytest knows: half a second for each full look."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many `make test` starts: tests wait a lot, but each worker has brokers of its own."""
    return min((os.cpu_count() or 1) + 1, MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """The process that hears of all tests keeps the record; a worker of xdist does not."""
    # A shell has what it runs in the background, and all that this starts, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(brokers_page.Record())


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[Any]:
    """What a worker reports is UTF-8, whatever a test has logged."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


# ---- nodes ----


@pytest.fixture
def make_node(broker: Broker) -> Iterator[Callable[..., Node]]:
    """Makes and runs nodes, each with a connection of its own, and stops them in the end.

    ``params`` are other connection parameters than those of ``broker``.
    """
    nodes: list[Node] = []

    def make(params: Any = None, **options: Any) -> Node:
        name = broker.unique(f"node{len(nodes)}")
        node = Node(name, connection_params=params or broker.url, **options)
        nodes.append(node)
        node.run()
        return node

    yield make
    for node in nodes:
        node.stop()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A running node."""
    return make_node()


@pytest.fixture
def gate(make_node: Callable[..., Node]) -> Iterator[threading.Event]:
    """Holds callbacks up until it is set; before the nodes are stopped it is."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def raw(broker: Broker) -> Iterator[RawPeer]:
    """A peer that sends bytes."""
    peer = RawPeer(broker.url)
    yield peer
    peer.close()


# ---- asyncio ----


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on a loop of its own, where it leaves no task."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})

    async def run() -> list[str]:
        await test
        return await _unfinished_tasks()

    assert asyncio.run(run()) == [], "tasks that the test leaves behind"
    return True


# ---- the synchronous face, and what it leaves behind ----


@pytest.fixture(autouse=True)
def _the_log_tells_again() -> Iterator[None]:
    """Some commands silence it, for a process that they have to themselves."""
    log = logging.getLogger("commlib")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True)
def _no_node_goes_on() -> Iterator[None]:
    """Fails a test that leaves a synchronous node running, and stops it.

    It would trouble all others. What is left on loops of their own ends with those.
    """
    before = _hubs()
    yield
    left = _hubs() - before
    for hub in left:
        stop(hub, hub.close)
    assert not left, f"the test leaves running: {sorted(hub.name for hub in left)}"


@pytest.fixture
def portal() -> Iterator[_portal.Portal]:
    """The loop thread behind the synchronous face, there for the whole test.

    Fails a test that leaves a task on it, or a thread of ours behind.
    """
    others = _threads()
    anchor = Hub(resolve("memory://"), "anchor")
    portal = _portal.enter(anchor)
    yield portal
    left = portal.run(_unfinished_tasks)
    stop(anchor, anchor.close)
    deadline = time.monotonic() + LEAVING_SECONDS
    for thread in _threads() - others:
        thread.join(max(0, deadline - time.monotonic()))
    left += [thread.name for thread in _threads() - others]
    assert left == [], "what the test leaves behind"


def _hubs() -> set[Hub]:
    portal = _portal._portal  # which its own thread may set to None meanwhile
    return set() if portal is None else set(portal.hubs)


def _threads() -> set[threading.Thread]:
    ours = ("commlib-loop", "-worker")
    return {thread for thread in threading.enumerate() if thread.name.endswith(ours)}


async def _unfinished_tasks() -> list[str]:
    """The tasks on this loop that do not end, though they are given time."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=LEAVING_SECONDS)
    return [repr(task) for task in tasks]
