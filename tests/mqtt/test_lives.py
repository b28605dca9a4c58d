"""The life of a connection: birth and will, the version that is spoken, the loop it runs on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

import strictly
from brokers import MosquittoServer, NatsServer, PlainPeer
from collected import DEADLINE, Collected, eventually
from commlib import _workers, aio
from commlib.node import Node
from commlib.transports._mqtt_board import Board
from commlib.transports._mqtt_link import MqttLink
from commlib.transports.mqtt import ConnectionParameters, MqttTransport, Will

VERSIONS = pytest.mark.parametrize("protocol", ["MQTTv5", "MQTTv311"])
LOOPS = pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)

PROGRAM = """
import sys, time
from commlib.node import Node
from commlib.transports._mqtt_board import Board
from commlib.transports._mqtt_link import MqttLink
from commlib.transports.mqtt import ConnectionParameters, MqttTransport, Will
port, topic, protocol = sys.argv[1:]
params = ConnectionParameters(
    "127.0.0.1", int(port), protocol=protocol,
    will=Will(topic, "dead", qos=1, retain=True), birth=Will(topic, "alive", qos=1, retain=True),
)
node = Node("robot", connection_params=params)
node.run()
print("running", flush=True)
for _ in range(600):
    time.sleep(0.1)  # a signal that comes just before a sleep is looked at behind it
"""


@pytest.fixture
def topic() -> str:
    return f"lives_{os.urandom(4).hex()}"


@pytest.fixture
def spy(mqtt_server: MosquittoServer) -> Iterator[PlainPeer]:
    """A peer without the code under test."""
    peer = PlainPeer(mqtt_server.url)
    yield peer
    peer.close()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(mqtt_server: MosquittoServer, topic: str) -> Iterator[Start]:
    """Starts the program, returns when it runs."""
    started: list[subprocess.Popen[str]] = []

    def start(protocol: str) -> subprocess.Popen[str]:
        arguments = [str(mqtt_server.port), topic, protocol]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


# ---- birth and will ----


@VERSIONS
def test_the_birth_is_told_and_the_will_when_the_program_is_killed(
    spy: PlainPeer, start: Start, topic: str, protocol: str
) -> None:
    news = spy.subscribe(topic)
    process = start(protocol)
    assert news.first.payload == b"alive"
    process.send_signal(signal.SIGKILL)
    assert [heard.payload for heard in news.wait(2)] == [b"alive", b"dead"]
    assert spy.subscribe(topic).first.payload == b"dead", "it is retained"


@VERSIONS
def test_the_will_is_not_told_when_the_program_ends_with_ctrl_c(
    spy: PlainPeer, start: Start, topic: str, protocol: str
) -> None:
    news = spy.subscribe(topic)
    process = start(protocol)
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE)
    spy.publish(topic, "after")
    assert [heard.payload for heard in news.wait(2)] == [b"alive", b"after"]


@LOOPS
@VERSIONS
def test_the_will_is_not_told_when_the_node_is_stopped(
    spy: PlainPeer, mqtt_server: MosquittoServer, topic: str, protocol: str, make_loop: Any
) -> None:
    news = spy.subscribe(topic)
    params = ConnectionParameters(
        *("127.0.0.1", mqtt_server.port),
        protocol=protocol,
        will=Will(topic, "dead"),
        birth=Will(topic, "alive"),
    )

    async def live() -> None:
        async with aio.Node("n", params) as node:
            publisher = node.create_publisher("noise")
            for number in range(1000):
                await publisher.publish(number)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(live())
    spy.publish(topic, "after")
    assert [heard.payload for heard in news.wait(2)] == [b"alive", b"after"]


@pytest.mark.parametrize("payload", [b"\x00\xff", "τέλος", {"a": [1, None]}, 5, None])
def test_any_payload_may_be_a_birth(mqtt_server: MosquittoServer, topic: str, payload: Any) -> None:
    seen = Collected()
    with Node("spy", connection_params=mqtt_server.url) as watcher:
        watcher.create_subscriber(topic, seen)
        birth = Will(topic, payload)
        params = ConnectionParameters("127.0.0.1", mqtt_server.port, birth=birth)
        with Node("n", connection_params=params):
            assert seen.first == payload


def test_a_birth_is_told_after_each_restart(
    make_mosquitto: Callable[..., MosquittoServer],
) -> None:
    server = make_mosquitto()
    seen = Collected()
    birth = Will("born", "alive", qos=1, retain=True)
    params = ConnectionParameters("127.0.0.1", server.port, birth=birth)
    with Node("n", connection_params=params) as node:
        server.kill()
        eventually(lambda: not node.connected)
        server.start()
        with Node("spy", connection_params=server.url) as watcher:
            watcher.create_subscriber("born", seen)
            assert seen.first == "alive"


# ---- versions ----


def test_a_broker_that_refuses_mqtt_5_is_used_with_3_1_1_services_included(
    nats_server: NatsServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen, pattern = Collected(), Collected()
    url = f"mqtt://127.0.0.1:{nats_server.port}?protocol=MQTTv5"
    with (
        Node("far", connection_params=url) as far,
        Node("near", connection_params=url) as near,
    ):
        near.create_subscriber(f"{topic}.a", seen)
        near.create_psubscriber(f"{topic}.*", pattern)
        far.create_publisher(f"{topic}.a").publish({"n": 1})
        far.create_publisher(f"{topic}.b", envelope=False).publish({"n": 2})
        far.create_publisher(f"{topic}.c", qos=1).publish({"n": 3})
        assert seen.first == {"n": 1}
        assert sorted(n["n"] for n, _ in pattern.wait(3)) == [1, 2, 3]

        near.create_rpc(f"{topic}.double", lambda request: {"n": request["n"] * 2})
        client = far.create_rpc_client(f"{topic}.double")
        assert client.wait_for_service(5)
        assert [client.call({"n": n}, timeout=5)["n"] for n in range(5)] == [0, 2, 4, 6, 8]

        near.create_action(f"{topic}.turn", on_goal=lambda goal_h: goal_h.data)
        action = far.create_action_client(f"{topic}.turn")
        assert action.send_goal({"to": 1}).result(DEADLINE) == {"to": 1}
        assert not far._core.hub.transport.traits.competing
    warnings = [r.message for r in caplog.records if "taken: MQTT 3.1.1" in r.message]
    assert len(warnings) == 2, "one of each node"


def test_it_is_used_again_after_a_restart(make_nats: Callable[..., NatsServer]) -> None:
    server = make_nats()
    url = f"mqtt://127.0.0.1:{server.port}?protocol=MQTTv5"
    with Node("n", connection_params=url) as node:
        node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("double")
        assert client.call({"n": 1}, timeout=5) == {"n": 2}
        server.kill()
        eventually(lambda: not node.connected)
        node.create_publisher("numbers", envelope=False).publish({"n": 1})
        server.start()
        eventually(lambda: node.connected)
        assert client.call({"n": 2}, timeout=5) == {"n": 4}


# ---- loops ----


@LOOPS
@VERSIONS
def test_everything_works_on_either_loop(
    mqtt_server: MosquittoServer, topic: str, protocol: str, make_loop: Any
) -> None:
    url = f"{mqtt_server.url}?protocol={protocol}"

    async def live() -> None:
        async with aio.Node("near", url) as near, aio.Node("far", url) as far:
            numbers = near.create_subscriber(f"{topic}.numbers")
            await numbers.run()
            publishers = [far.create_publisher(f"{topic}.numbers", qos=qos) for qos in (0, 1, 2)]
            for publisher in publishers:
                for number in range(500):
                    await publisher.publish(number)
                found = [await anext(aiter(numbers)) for _ in range(500)]
                assert found == list(range(500))

            async def double(request: dict[str, int]) -> dict[str, int]:
                return {"n": request["n"] * 2}

            near.create_rpc(f"{topic}.double", double)
            client = far.create_rpc_client(f"{topic}.double")
            assert await client.wait_for_service(5)
            calls = [client.call({"n": n}, timeout=10) for n in range(200)]
            assert [r["n"] for r in await asyncio.gather(*calls)] == list(range(0, 400, 2))

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(live())


@pytest.mark.parametrize("has_uvloop", [True, False])
def test_the_last_statement_of_a_program_arrives(
    spy: PlainPeer, mqtt_server: MosquittoServer, topic: str, has_uvloop: bool
) -> None:
    news = spy.subscribe(f"{topic}/#")
    program = f"""
import sys
{"" if has_uvloop else "sys.modules['uvloop'] = None"}
from commlib import _portal
from commlib.transports import _main_transport
from commlib.transports.mqtt import Publisher
_main_transport.FLUSH_SECONDS = _portal.EXIT_SECONDS = {DEADLINE}
for qos in (0, 1):
    publisher = Publisher("{topic}.q", conn_params="{mqtt_server.url}", envelope=False, qos=qos)
    for number in range(2000):
        publisher.publish(number)
"""
    command = [sys.executable, *strictly.STRICT, "-c", strictly.HEAD + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = [int(heard.payload) for heard in news.wait(4000)]
    assert sorted(found) == sorted([*range(2000), *range(2000)])


def test_stopping_leaves_no_thread_and_nothing_on_the_broker(
    make_mosquitto: Callable[..., MosquittoServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 4 * DEADLINE)  # none ends by itself
    server = make_mosquitto(config=["log_type all"])
    before = set(threading.enumerate())
    with Node("n", connection_params=server.url, ctrl_services=True) as node:
        node.create_subscriber("a", print)
        node.create_psubscriber("a.*", print)
        node.create_rpc("echo", lambda request: request)
        node.create_action("turn", on_goal=lambda goal_h: goal_h.data)
        assert node.create_rpc_client("echo").call(1, timeout=5) == 1
        assert node.create_action_client("turn").send_goal({}).result(5) == {}
    eventually(lambda: set(threading.enumerate()) <= before)
    eventually(lambda: server.log.count("Received DISCONNECT from commlib-") == 1)
    assert len(re.findall("New client connected from .* as commlib-", server.log)) == 1
    assert server.log.count("Received SUBSCRIBE") == server.log.count("Received UNSUBSCRIBE")


async def test_a_connection_that_is_given_up_while_it_begins_is_closed_when_that_returns(
    mqtt_server: MosquittoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: asyncio.Queue[MqttLink] = asyncio.Queue()

    async def restore(board: Board, link: MqttLink) -> None:
        begun.put_nowait(link)
        await asyncio.Event().wait()

    monkeypatch.setattr(Board, "restore", restore)
    transport = MqttTransport(ConnectionParameters.from_url(mqtt_server.url))
    connecting = asyncio.create_task(transport.connect())
    link = await begun.get()
    connecting.cancel()
    await transport.close()
    assert link.gone.done()
