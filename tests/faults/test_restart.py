"""The broker dies and comes back empty: everything works again, and what was lost is counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from brokers import RedisServer, Server
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually
from commlib import aio
from commlib.aio._rpc_service import THREADS
from commlib.events import Event
from commlib.exceptions import ConnectionLost, RPCTimeout
from commlib.msg import PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.rpc import RPCClient
from commlib.transports.redis import ConnectionParameters

MakeServer = Callable[..., Server]
MakeRedis = Callable[..., RedisServer]

STOP_SECONDS = 1.0 + BUSY_SECONDS
UNANSWERED = RPCTimeout, ConnectionLost
"""How a call ends whose broker has gone: at once where replies cannot come any more."""


class Sonar(PubSubMessage):
    distance: float = 0.0


class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        c: int = 0


def add(request: Add.Request) -> Add.Response:
    return Add.Response(c=request.a + request.b)


class Robot:
    """Two nodes with every kind of endpoint, on a server of their own.

    ``options`` are those of the node that publishes and calls.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.exact, self.pattern = Collected(), Collected()
        self.news: list[bool] = []
        self.base = Node("base", connection_params=url)
        self.base.create_subscriber("sonar.front", self.exact, Sonar)
        self.base.create_psubscriber("sonar.*", self.pattern, Sonar)
        self.service = self.base.create_rpc("add", add, Add)
        self.base.create_action("turn", on_goal=lambda goal_h: goal_h.data)
        self.bells, self.beats = Collected(), Collected()
        self.base.create_subscriber("bell", self.bells)
        self.base.create_subscriber("far.heartbeat", self.beats)
        self.far = Node("far", connection_params=url, on_state=self._note, **options)
        self.publisher = self.far.create_publisher("sonar.front", Sonar)
        self.client = self.far.create_rpc_client("add", Add)
        self.action = self.far.create_action_client("turn")
        self.emitter = self.far.create_event_emitter()

    def _note(self, connected: bool, reason: Exception | None) -> None:
        self.news.append(connected)

    def check(self, mark: float) -> None:
        """Publish and call until both arrive; what is lost before that is no matter here."""

        def arrives() -> bool:
            self.publisher.publish(Sonar(distance=mark))
            found = [message.distance for message in self.exact.items]
            return mark in found and len(self.pattern.items) > 0

        eventually(arrives, lambda: f"{mark} did not come")
        eventually(self._call)

    def check_the_rest(self, mark: int) -> None:
        """Pursue a goal, ring the bell, and hear the other node's heart, once each."""
        assert self.action.send_goal({"to": mark}).result(DEADLINE) == {"to": mark}
        heard = len(self.bells.items)
        self.emitter.send_event(Event("Ring", "bell", payload={"at": mark}))
        assert self.bells.wait(heard + 1)[-1]["payload"] == {"at": mark}
        self.beats.wait(len(self.beats.items) + 2)

    def _call(self) -> bool:
        try:
            return self.client.call(Add.Request(a=2, b=3), timeout=1).c == 5
        except UNANSWERED:
            return False

    def __enter__(self) -> Robot:
        self.base.run()
        self.far.run()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.far.stop()
        self.base.stop()


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(1, id="1s"),
        pytest.param(10, id="10s", marks=pytest.mark.slow),
        pytest.param(60, id="60s", marks=[pytest.mark.slow, pytest.mark.timeout(150)]),
    ],
)
def test_everything_works_again_after_the_broker_was_killed_and_came_back_empty(
    make_server: MakeServer, outage: float
) -> None:
    server = make_server()
    with Robot(server.url, heartbeat_interval=0.1) as robot:
        robot.check(1.0)
        robot.check_the_rest(1)
        server.kill()
        eventually(lambda: not robot.far.connected)
        threading.Event().wait(outage)  # the length of the outage is what is tested
        server.start()
        robot.check(2.0)
        robot.check_the_rest(2)
        assert robot.news[:3] == [True, False, True]
        assert robot.publisher.stats.reconnects == 1
        assert robot.client.stats.reconnects == 1


def test_a_node_beats_as_soon_as_its_broker_is_back_and_tells_what_it_has_logged_meanwhile(
    make_server: MakeServer,
) -> None:
    server = make_server()
    # Counted where they are sent: a node that watches may be back later than this one.
    node = Node("far", None, server.url, remote_logger=True, heartbeat_interval=3600)
    heart, logs = node._core._own
    with node:
        assert heart.own_stats.sent == 1
        server.kill()
        eventually(lambda: not node.connected)
        node.log.error("the broker is gone")
        assert logs.own_stats.sent == 0
        server.start()
        eventually(lambda: heart.own_stats.sent == logs.own_stats.sent + 1 == 2)


@pytest.mark.restarts
def test_a_node_is_stopped_and_started_from_afar_through_a_broker_that_was_restarted(
    make_server: MakeServer,
) -> None:
    server = make_server()
    with (
        Node("near", connection_params=server.url) as near,
        Node("far", connection_params=server.url, ctrl_services=True) as far,
    ):
        far.create_rpc("add", add, Add)
        client = near.create_rpc_client("add", Add)
        for name in ("stop", "start"):
            server.kill()
            eventually(lambda: not (near.connected or far.connected))
            server.start()
            eventually(lambda: near.connected and far.connected)
            answer = near.create_rpc_client(f"far.{name}").call({}, timeout=10)
            assert answer == {"status": 0, "error": ""}
        assert client.call(Add.Request(a=2, b=3), timeout=10).c == 5


def test_the_first_call_and_message_after_the_restart_need_no_second_try(
    make_server: MakeServer,
) -> None:
    server = make_server()
    with Robot(server.url) as robot:
        robot.check(1.0)
        server.kill()
        eventually(lambda: not robot.far.connected and not robot.base.connected)
        server.start()
        eventually(lambda: robot.far.connected and robot.base.connected)
        robot.publisher.publish(Sonar(distance=3.0))
        assert robot.client.call(Add.Request(a=1, b=1), timeout=5) == Add.Response(c=2)
        eventually(lambda: robot.exact.items[-1].distance == 3.0)


@pytest.mark.timeout(120)
@pytest.mark.restarts
def test_it_comes_back_from_ten_restarts_under_load(make_server: MakeServer) -> None:
    server = make_server()
    done = threading.Event()
    wrong: list[object] = []
    all_workers = threading.Barrier(THREADS)

    def meet(request: Any) -> bool:
        if request:
            all_workers.wait(DEADLINE)
        return True

    with Robot(server.url) as robot:
        robot.base.create_rpc("meet", meet)
        meeting = robot.far.create_rpc_client("meet")

        def call_for_ever() -> None:
            number = 0
            while not done.is_set():
                number += 1
                try:
                    response = robot.client.call(Add.Request(a=number, b=1), timeout=0.5)
                except UNANSWERED:
                    continue
                if response.c != number + 1:
                    wrong.append((number, response))

        def meet_nobody_for_ever() -> None:
            while not done.is_set():
                with suppress(*UNANSWERED):
                    meeting.call(False, timeout=0.5)

        threads = [
            threading.Thread(target=target)
            for target in (call_for_ever, meet_nobody_for_ever)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for cycle in range(10):
            server.kill()
            server.start()
            robot.check(100.0 + cycle)
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert robot.service.stats.errors == 0
        futures = [meeting.call_async(True, timeout=DEADLINE) for _ in range(THREADS)]
        assert all(future.result(DEADLINE) for future in futures), "no worker was lost"


def test_nodes_may_start_before_their_broker(make_server: MakeServer) -> None:
    server = make_server()
    server.stop()
    robot = Robot(server.url_with(connect_timeout=1))
    with robot:
        assert not robot.far.connected
        server.start()
        robot.check(1.0)


@pytest.mark.parametrize("idle", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(120)
def test_all_endpoints_still_work_after_they_were_idle(
    make_server: MakeServer, idle: float
) -> None:
    server = make_server()
    keepalive = 1 if idle < 60 else 15
    with Robot(server.url_with(keepalive=keepalive)) as robot:
        robot.check(1.0)
        threading.Event().wait(idle)  # being idle for so long is what is tested
        count = len(robot.exact.items)
        robot.publisher.publish(Sonar(distance=2.0))
        assert robot.exact.wait(count + 1)[-1].distance == 2.0
        assert robot.client.call(Add.Request(a=1, b=1), timeout=5).c == 2
        assert robot.publisher.stats.reconnects == 0


def test_a_stopped_server_is_noticed_and_left_within_the_keepalive(make_server: MakeServer) -> None:
    server = make_server()
    with Robot(server.url_with(keepalive=1)) as robot:
        robot.check(1.0)
        server.freeze()
        begun = time.monotonic()
        eventually(lambda: not robot.far.connected and not robot.base.connected)
        assert time.monotonic() - begun < 2 * 1 + BUSY_SECONDS
        server.thaw()
        robot.check(2.0)


def test_a_subscriber_that_the_server_cut_off_comes_back(make_redis: MakeRedis) -> None:
    server = make_redis()
    with Robot(server.url) as robot:
        robot.check(1.0)
        for kind in ("pubsub", "normal"):
            server.cli("CLIENT", "KILL", "TYPE", kind)
        robot.check(2.0)


async def test_the_asyncio_face_comes_back_as_well(make_server: MakeServer) -> None:
    server = make_server()
    news: asyncio.Queue[bool] = asyncio.Queue()
    async with aio.Node("n", server.url, on_state=lambda up, why: news.put_nowait(up)) as node:
        node.create_rpc("add", add, Add)
        subscriber = node.create_subscriber("sonar", msg_type=Sonar)
        await subscriber.run()
        publisher = node.create_publisher("sonar", Sonar)
        client = node.create_rpc_client("add", Add)
        assert await client.call(Add.Request(a=1, b=1), timeout=5) == Add.Response(c=2)
        assert await news.get()
        server.kill()
        server.start()
        assert not await news.get()
        assert await news.get()
        assert await client.call(Add.Request(a=1, b=2), timeout=5) == Add.Response(c=3)
        await publisher.publish(Sonar(distance=4.0))
        async for message in subscriber:
            assert message.distance == 4.0
            break


def test_stopping_leaves_no_thread_no_key_and_no_subscription(make_redis: MakeRedis) -> None:
    server = make_redis()
    before = set(threading.enumerate())
    with Robot(server.url) as robot:
        robot.check(1.0)
        with pytest.raises(RPCTimeout):
            robot.far.create_rpc_client("nobody", Add).call(Add.Request(), timeout=0.05)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    assert [key for key in server.cli("KEYS", "*") if key != b"nobody"] == []
    assert server.cli("PUBSUB", "CHANNELS") == []
    assert server.cli("PUBSUB", "NUMPAT") == 0
    eventually(lambda: server.cli("CLIENT", "LIST").count(b"\n") == 1)


def test_a_service_that_is_stopped_amid_its_calls_leaves_no_key(make_redis: MakeRedis) -> None:
    server = make_redis()
    ended = threading.Event()

    def call_on() -> None:
        with Node("far", connection_params=server.url) as far:
            client = far.create_rpc_client("add", Add)
            while not ended.is_set():
                try:
                    client.call(Add.Request(a=1, b=2), timeout=0.05)
                except RPCTimeout:
                    continue

    callers = [threading.Thread(target=call_on) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(10):
        with Node("base", connection_params=server.url) as base:
            service = base.create_rpc("add", add, Add)
            eventually(lambda: service.stats.received > 20)  # noqa: B023 - it is waited for here
    ended.set()
    for caller in callers:
        caller.join()
    assert [key for key in server.cli("KEYS", "*") if key != b"add"] == []


def test_a_broker_that_hangs_does_not_keep_a_node_from_stopping(make_server: MakeServer) -> None:
    server = make_server()
    gate = threading.Event()
    with Robot(server.url) as robot:
        robot.check(1.0)
        entered = Collected()

        def block(request: Any) -> None:
            entered(request)
            gate.wait()

        robot.base.create_rpc("block", block)
        robot.far.create_rpc_client("block").call_async({})
        entered.wait(1)
        server.freeze()
        begun = time.monotonic()
        robot.base.stop()
        assert time.monotonic() - begun < STOP_SECONDS
        gate.set()
        server.thaw()


def raises(kind: type[Exception], call: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Whether a call raises this: the connections of a node are lost one after the other."""
    try:
        call(*args, **options)
    except kind:
        return True
    except RPCTimeout:
        return False
    return False


def test_calls_that_are_not_sent_cost_no_memory(make_redis: MakeRedis) -> None:
    server = make_redis()
    params = ConnectionParameters("127.0.0.1", server.port, offline="raise")
    with Node("far", connection_params=params) as far:
        client = far.create_rpc_client("nobody")
        with pytest.raises(RPCTimeout):
            client.call({}, timeout=0.05)
        server.kill()
        eventually(lambda: raises(ConnectionLost, client.call, {}, timeout=0.1))
        for _ in range(2000):
            with pytest.raises(ConnectionLost):
                client.call({}, timeout=5)
        server.start()
        eventually(lambda: far.connected)
        far.create_rpc("somebody", lambda request: request)
        assert far.create_rpc_client("somebody").call({"a": 1}, timeout=5) == {"a": 1}
        assert len(far._core.hub.transport._replies.keys()) < 50  # type: ignore[attr-defined]


def test_the_first_call_waits_for_its_connections_though_nothing_is_to_wait(
    make_server: MakeServer,
) -> None:
    server = make_server()
    with Node("base", connection_params=server.url) as base:
        base.create_rpc("echo", lambda request: request)
        for number in range(10):
            client = RPCClient("echo", conn_params=server.url_with(offline="raise"))
            assert client.call(number, timeout=DEADLINE) == number
            client.stop()


async def test_calls_that_wait_for_a_broker_that_has_gone_all_end(make_server: MakeServer) -> None:
    server = make_server()
    async with aio.Node("far", server.url_with(offline="raise")) as far:
        client = far.create_rpc_client("nobody")
        calls = [asyncio.ensure_future(client.call({}, timeout=1)) for _ in range(2000)]
        await asyncio.sleep(0)
        server.kill()
        async with asyncio.timeout(DEADLINE):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, UNANSWERED) for outcome in outcomes)


def test_connections_that_are_idle_are_left_alone(make_server: MakeServer) -> None:
    server = make_server()
    news = Collected()
    url = server.url_with(keepalive=1)
    with Node("idle", connection_params=url, on_state=lambda *state: news(state)) as node:
        node.create_rpc_client("nobody")
        gate = threading.Event()
        node.create_rpc("busy", lambda request: gate.wait(DEADLINE), workers=1)
        busy = node.create_rpc_client("busy").call_async({}, timeout=DEADLINE)
        threading.Event().wait(4.5)  # four times the keepalive, and the grace
        assert [connected for connected, _ in news.items] == [True]
        gate.set()
        assert busy.result(DEADLINE) is True
