"""What a node does beside its ports, on every broker: it lives, obeys and tells what it logs."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.action import GoalHandler
from commlib.events import Event
from commlib.exceptions import ConnectError, EndpointClosed, RPCTimeout
from commlib.msg import ActionMessage, HeartbeatMessage
from commlib.node import Node, NodeStartMessage, NodeState, NodeStopMessage
from messages import Sonar

MakeNode = Callable[..., Node]

FOREVER = 3600.0  # s between two heartbeats where only the first one is looked at
SOON = 0.005


@pytest.fixture
def heard(node: Node) -> Callable[..., Collected]:
    """Collects, by a node of its own, what is published on a topic."""

    def hear(topic: str, msg_type: Any = None) -> Collected:
        got = Collected()
        node.create_subscriber(topic, got, msg_type)
        return got

    return hear


Heard = Callable[..., Collected]


# ---- namespaces ----


@pytest.mark.parametrize(
    ("name", "device_id", "namespace"),
    [
        ("robot", None, "robot"),
        ("my-robot-1", None, "my_robot_1"),
        ("arm-1", "device-0", "thing.device-0.arm_1"),
        ("fleet/robot", None, "fleet/robot"),
        ("arm", "site/device", "thing/site/device/arm"),
    ],
)
def test_the_namespace_is_made_of_name_and_device(
    broker: Broker, name: str, device_id: str | None, namespace: str
) -> None:
    node = Node(name, connection_params=broker.url, device_id=device_id)
    assert (node.node_name, node.namespace) == (name, namespace)
    assert aio.Node(name, broker.url, device_id=device_id).namespace == namespace


# ---- heartbeats ----


def test_a_node_beats_at_once_and_then_again_and_again(
    broker: Broker, heard: Heard, topic: str
) -> None:
    beats = heard(f"{topic}.heartbeat", HeartbeatMessage)
    before = time.time() * 1000
    with Node(topic, connection_params=broker.url, heartbeat_interval=SOON):
        beats.wait(5)

    stamps = [beat.ts for beat in beats.items]
    assert all(isinstance(beat, HeartbeatMessage) for beat in beats.items)
    assert stamps == sorted(stamps)
    assert before - 1 <= stamps[0] <= stamps[-1] <= time.time() * 1000


@pytest.mark.parametrize(
    ("options", "suffix"),
    [({}, "heartbeat"), ({"heartbeat_uri": "{}.alive"}, "alive"), ({"device_id": "d-1"}, "")],
    ids=["by default", "where it is told to", "of a device"],
)
def test_the_first_beat_comes_with_run_at_its_address(
    broker: Broker, heard: Heard, topic: str, options: dict[str, str], suffix: str
) -> None:
    options = {key: value.format(topic) for key, value in options.items()}
    uri = f"{topic}.{suffix}" if suffix else f"thing.d-1.{topic}.heartbeat"
    beats = heard(uri)
    with Node(topic, connection_params=broker.url, heartbeat_interval=FOREVER, **options):
        assert beats.first.keys() == {"ts"}


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1), ({"heartbeats": False}, 0), ({"heartbeat_thread": False}, 0)],
    ids=str,
)
def test_heartbeats_are_switched_off_by_either_word(
    broker: Broker, heard: Heard, topic: str, options: dict[str, bool], count: int
) -> None:
    got = heard(f"{topic}.*")
    with Node(topic, connection_params=broker.url, **options) as node:
        node.create_publisher(f"{topic}.end").publish("end")
        assert len(got.until("end")) == count


def test_a_stopped_node_beats_no_more(
    broker: Broker, make_node: MakeNode, heard: Heard, topic: str
) -> None:
    beats, clock = heard(f"{topic}.heartbeat"), heard(f"{topic}.clock")
    with Node(topic, connection_params=broker.url, heartbeat_interval=SOON):
        beats.wait(3)
    make_node(heartbeat_uri=f"{topic}.clock", heartbeat_interval=SOON)
    clock.wait(1)
    count = len(beats.items)
    clock.wait(20)
    assert len(beats.items) == count


def test_a_node_that_is_run_again_beats_in_one_series(
    broker: Broker, heard: Heard, topic: str
) -> None:
    got = heard(f"{topic}.*")
    node = Node(topic, connection_params=broker.url, heartbeat_interval=FOREVER)
    end = node.create_publisher(f"{topic}.end")
    for number in range(3):
        node.run()
        node.run()
        end.publish(number)
        assert len(got.until(number)) == 2 * number + 1
        node.stop()


async def test_a_beating_heart_takes_neither_a_task_nor_a_thread(
    broker: Broker, topic: str
) -> None:
    async def needed(**options: Any) -> tuple[int, int]:
        async with aio.Node(topic, broker.url, **options):
            # One that has looked the broker's name up may just be ending.
            threads = [each for each in threading.enumerate() if each.name != "commlib-resolver"]
            return len(asyncio.all_tasks()), len(threads)

    assert await needed(heartbeat_interval=SOON) == await needed(heartbeats=False)


def test_a_beat_that_nobody_can_take_is_dropped_and_counted(
    broker: Broker, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(heartbeat_interval=SOON)
    eventually(lambda: node.stats.sent >= 1)

    monkeypatch.setattr(node._core.hub.transport, "publish", lambda topic, packet: False)
    eventually(lambda: node.stats.dropped >= 2)
    monkeypatch.undo()
    sent = node.stats.sent
    eventually(lambda: node.stats.sent > sent)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_no_time_is_refused(broker: Broker, interval: float) -> None:
    with pytest.raises(ValueError, match="heartbeat_interval"):
        Node("robot", connection_params=broker.url, heartbeat_interval=interval)


def test_nodes_that_share_a_connection_have_a_heart_each(
    broker: Broker, heard: Heard, topic: str
) -> None:
    url = broker.with_options(keepalive=18)
    both = [heard(f"{topic}{n}.heartbeat") for n in range(2)]
    options = {"connection_params": url, "share_connection": True, "heartbeat_interval": SOON}
    with Node(f"{topic}0", **options), Node(f"{topic}1", **options) as second:
        for beats in both:
            beats.wait(2)
        second.stop()
        both[0].wait(len(both[0].items) + 2)


# ---- control services ----


def call(node: Node, name: str) -> tuple[int, str]:
    """The outcome of a call that says nothing."""
    response = node.create_rpc_client(name, NodeStopMessage).call(NodeStopMessage.Request())
    return response.status, response.error


def test_a_node_is_stopped_and_started_from_afar(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    node = Node(topic, connection_params=broker.url, ctrl_services=True, heartbeat_interval=SOON)
    heard, fence, beats = Collected(), Collected(), Collected()
    node.create_subscriber(f"{topic}.in", heard)
    node.create_rpc(f"{topic}.echo", lambda n: n)
    out = node.create_publisher(f"{topic}.out", Sonar)
    far = make_node()
    far.create_subscriber(f"{topic}.in", fence)
    far.create_subscriber(f"{topic}.heartbeat", beats)
    publisher = far.create_publisher(f"{topic}.in")
    echo = far.create_rpc_client(f"{topic}.echo")
    with node:
        assert echo.call(1) == 1
        assert call(far, f"{topic}.stop") == (0, "")

        assert (node.state, node.connected, node.health) == (NodeState.STOPPED, True, False)
        publisher.publish("unheard")
        fence.until("unheard")
        with pytest.raises(RPCTimeout):
            echo.call(2, timeout=0.1)
        with pytest.raises(EndpointClosed, match="was stopped"):
            out.publish(Sonar(1.0))
        beats.wait(len(beats.items) + 2)

        assert call(far, f"{topic}.start") == (0, "")
        assert (node.state, node.health) == (NodeState.RUNNING, True)
        publisher.publish("heard")
        assert heard.until("heard") == []
        assert echo.call(3) == 3
        out.publish(Sonar(1.0))
    assert node.state is NodeState.EXITED


def test_a_transition_that_makes_no_sense_is_refused_with_the_reason(
    make_node: MakeNode, topic: str
) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    name = node.namespace
    assert call(far, f"{name}.start") == (1, f"{name} is RUNNING, not STOPPED")
    assert call(far, f"{name}.stop") == (0, "")
    assert call(far, f"{name}.stop") == (1, f"{name} is STOPPED, not RUNNING")
    assert call(far, f"{name}.start") == (0, "")


def test_of_many_who_stop_it_at_once_one_does(make_node: MakeNode, topic: str) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    node.create_subscriber(topic, print)
    for name in ("stop", "start") * 5:
        client = far.create_rpc_client(f"{node.namespace}.{name}", NodeStartMessage)
        futures = [client.call_async(NodeStartMessage.Request()) for _ in range(10)]
        assert sum(future.result(DEADLINE).status for future in futures) == 9
    assert node.health


class Slow(aio.Endpoint):
    """An endpoint that begins and ends when it is told to."""

    def __init__(self, node: aio.Node) -> None:
        super().__init__("slow", hub=node.hub)
        self.steps: list[str] = []
        self.may_end = asyncio.Event()

    async def _begin(self) -> None:
        self.steps.append("begun")

    async def _end(self) -> None:
        self.steps.append("ending")
        await self.may_end.wait()
        self.steps.append("ended")


@pytest.mark.parametrize("who", ["somebody afar", "the program"])
async def test_who_starts_it_while_it_is_being_stopped_waits_for_that(
    broker: Broker, topic: str, who: str
) -> None:
    async with (
        aio.Node(topic, broker.url, ctrl_services=True) as node,
        aio.Node("far", broker.url) as far,
    ):
        slow = node.add(Slow(node))
        await slow.run()
        stop, start = (far.create_rpc_client(f"{topic}.{name}") for name in ("stop", "start"))
        stopping = asyncio.create_task(stop.call({}))
        await asyncio.to_thread(eventually, lambda: slow.steps[-1] == "ending")
        if who == "the program":
            starting: asyncio.Task[Any] = asyncio.create_task(node.run())
            for _ in range(20):  # turns of the loop, so that it is as far as it can get
                await asyncio.sleep(0)
        else:
            starting = asyncio.create_task(start.call({}))
            (service,) = [part for part in node._own if part.name == f"{topic}.start"]
            await asyncio.to_thread(eventually, lambda: service.own_stats.received == 1)
        slow.may_end.set()
        assert await stopping == {"status": 0, "error": ""}
        assert await starting in (None, {"status": 0, "error": ""})
        assert slow.steps == ["begun", "ending", "ended", "begun"]
        assert node.health


async def test_ports_that_cannot_be_started_stay_stopped_and_the_caller_is_told(
    broker: Broker, topic: str
) -> None:
    class Failing(Slow):
        async def _begin(self) -> None:
            if self.steps:
                raise ConnectError("the port is in use")
            await super()._begin()

    async with (
        aio.Node(topic, broker.url, ctrl_services=True) as node,
        aio.Node("far", broker.url) as far,
    ):
        failing, other = node.add(Failing(node)), node.create_rpc(f"{topic}.echo", lambda n: n)
        failing.may_end.set()
        await failing.run()
        await far.create_rpc_client(f"{topic}.stop").call({})
        response = await far.create_rpc_client(f"{topic}.start").call({})
        assert response == {"status": 1, "error": "the port is in use"}
        assert (node.state, other.stopped) == (NodeState.STOPPED, True)


@pytest.mark.parametrize("there", ["start", "stop"])
def test_each_service_is_there_if_it_is_asked_for(make_node: MakeNode, there: str) -> None:
    node, far = make_node(**{f"has_{there}_rpc": True}), make_node()
    other = "stop" if there == "start" else "start"
    assert far.create_rpc_client(f"{node.namespace}.{there}").call({}).keys() == {"status", "error"}
    with pytest.raises(RPCTimeout):
        far.create_rpc_client(f"{node.namespace}.{other}").call({}, timeout=0.1)


def test_services_may_be_made_later_and_have_other_names(make_node: MakeNode, topic: str) -> None:
    node, far = make_node(device_id=topic), make_node()
    node.create_stop_service()
    node.create_start_service(f"{topic}.go")
    assert call(far, f"thing.{topic}.{node.node_name}.stop") == (0, "")
    assert call(far, f"{topic}.go") == (0, "")
    assert call(far, f"{topic}.go")[0] == 1


def test_what_was_stopped_alone_is_not_started_with_the_others(
    make_node: MakeNode, topic: str
) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    alone, together = Collected(), Collected()
    node.create_subscriber(topic, together)
    node.create_subscriber(topic, alone).stop()
    call(far, f"{node.namespace}.stop")
    call(far, f"{node.namespace}.start")
    far.create_publisher(topic).publish("hello")
    assert together.first == "hello"
    assert alone.items == []


def test_endpoints_made_while_it_is_stopped_begin_with_the_next_start(
    make_node: MakeNode, topic: str
) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    got, fence = Collected(), Collected()
    call(far, f"{node.namespace}.stop")
    node.create_subscriber(topic, got)
    far.create_subscriber(topic, fence)
    publisher = far.create_publisher(topic)
    publisher.publish("before")
    fence.until("before")
    call(far, f"{node.namespace}.start")
    publisher.publish("after")
    assert got.until("after") == []


def test_nor_do_those_send_anything_before_that(make_node: MakeNode, topic: str) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    far.create_rpc(f"{topic}.echo", lambda n: n)
    far.create_action(f"{topic}.drive", on_goal=lambda goal_h: goal_h.data)
    call(far, f"{node.namespace}.stop")
    publisher, client = node.create_publisher(topic), node.create_rpc_client(f"{topic}.echo")
    emitter, action = node.create_event_emitter(), node.create_action_client(f"{topic}.drive")
    sends: list[Callable[[], object]] = [
        lambda: publisher.publish(1),
        lambda: client.call(2),
        lambda: emitter.send_event(Event(name="e", uri=topic)),
        lambda: action.send_goal(3),
    ]
    for send in sends:
        with pytest.raises(EndpointClosed):
            send()
    assert node.wait_connected(DEADLINE)
    call(far, f"{node.namespace}.start")
    got = Collected()
    far.create_subscriber(topic, got)
    publisher.publish(1)
    assert got.first == 1
    assert client.call(2) == 2
    assert action.send_goal(3).result(DEADLINE) == 3


@pytest.mark.parametrize("state", [NodeState.RUNNING, NodeState.STOPPED], ids=lambda s: s.name)
def test_the_program_may_run_and_stop_it_whatever_was_done_from_afar(
    make_node: MakeNode, topic: str, state: NodeState
) -> None:
    node, far = make_node(ctrl_services=True), make_node()
    node.create_rpc(topic, lambda n: n)
    call(far, f"{node.namespace}.stop")
    if state is NodeState.RUNNING:
        node.run()
        assert node.health
        assert far.create_rpc_client(topic).call(1) == 1
    node.stop()
    assert (node.state, node.connected) == (NodeState.STOPPED, False)
    node.run()
    assert far.create_rpc_client(topic).call(2) == 2
    assert call(far, f"{node.namespace}.stop") == (0, "")


def test_run_forever_goes_on_while_the_ports_are_stopped(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    node = Node(topic, connection_params=broker.url, ctrl_services=True)
    node.create_rpc(f"{topic}.echo", lambda n: n)
    far = make_node()
    thread = threading.Thread(target=node.run_forever)
    thread.start()
    eventually(lambda: node.health)
    for _ in range(3):
        assert call(far, f"{topic}.stop") == (0, "")
        assert call(far, f"{topic}.start") == (0, "")
    assert thread.is_alive()
    assert far.create_rpc_client(f"{topic}.echo").call(1) == 1
    node.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


async def test_control_services_are_there_for_asyncio_as_well(broker: Broker, topic: str) -> None:
    async with (
        aio.Node(topic, broker.url, has_start_rpc=True) as node,
        aio.Node("far", broker.url) as far,
    ):
        node.create_stop_service(f"{topic}/halt")
        await asyncio.to_thread(eventually, lambda: node.health)
        await node.create_rpc(f"{topic}.echo", lambda n: n).run()
        echo = far.create_rpc_client(f"{topic}.echo")
        halt = far.create_rpc_client(f"{topic}/halt")
        start = far.create_rpc_client(f"{topic}.start", NodeStartMessage)
        assert await halt.call({}) == {"status": 0, "error": ""}
        with pytest.raises(RPCTimeout):
            await echo.call(1, timeout=0.1)
        assert (await start.call(NodeStartMessage.Request())).status == 0
        assert await echo.call(2) == 2


# ---- actions ----


class Climb(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: int = 0

    class Result(ActionMessage.Result):
        reached: int = 0

    class Feedback(ActionMessage.Feedback):
        metres: int = 0


def climb(goal_h: Any) -> Climb.Result:
    goal_h.send_feedback(Climb.Feedback(metres=1))
    return Climb.Result(reached=goal_h.data.metres)


def test_actions_are_ports_of_a_node(node: Node, topic: str) -> None:
    got = Collected()
    service = node.create_action(topic, Climb, climb)
    client = node.create_action_client(action_name=topic, msg_type=Climb, on_feedback=got)
    client.send_goal(Climb.Goal(metres=3))
    assert client.get_result(wait=True) == Climb.Result(reached=3)
    assert got.first == Climb.Feedback(metres=1)
    assert node.input_ports["action_service"] == [service]
    assert node.output_ports["action_client"] == [client]


def test_a_function_becomes_an_action_by_a_decorator(node: Node, topic: str) -> None:
    @node.action(topic, Climb, concurrency=2)
    def on_goal(goal_h: Any) -> Climb.Result:
        return climb(goal_h)

    client = node.create_action_client(topic, Climb)
    client.send_goal(Climb.Goal(metres=3))
    assert client.get_result(wait=True) == Climb.Result(reached=3)
    assert on_goal.__name__ == "on_goal", "it still is a function"


async def test_actions_are_ports_of_a_node_of_asyncio(broker: Broker, topic: str) -> None:
    async with aio.Node(topic, broker.url) as node:

        @node.action(f"{topic}.climb", Climb)
        async def on_goal(goal_h: Any) -> Climb.Result:
            return Climb.Result(reached=goal_h.data.metres)

        client = node.create_action_client(f"{topic}.climb", Climb)
        await asyncio.to_thread(eventually, lambda: node.health)
        goal = await client.send_goal(Climb.Goal(metres=4))
        assert await goal.result() == Climb.Result(reached=4)


# ---- ports ----


def test_ports_are_listed_by_direction_and_kind(node: Node, topic: str) -> None:
    sub, psub = node.create_subscriber(topic, print), node.create_psubscriber(topic, print)
    wsub = node.create_wsubscriber()
    service, server = node.create_rpc(topic, print), node.create_rpc_server(f"{topic}.server")
    pub, mpub = node.create_publisher(topic), node.create_mpublisher()
    client, emitter = node.create_rpc_client(topic), node.create_event_emitter()

    assert node.input_ports == {
        "subscriber": [sub, psub, wsub],
        "rpc_service": [service, server],
        "action_service": [],
    }
    assert node.output_ports == {
        "publisher": [pub, mpub],
        "rpc_client": [client],
        "action_client": [],
        "event_emitter": [emitter],
    }
    assert node.ports == {"input": node.input_ports, "output": node.output_ports}


def test_what_a_node_has_for_itself_is_no_port(broker: Broker) -> None:
    node = Node("n", connection_params=broker.url, ctrl_services=True, remote_logger=True)
    assert node.endpoints == []
    assert not any([*node.input_ports.values(), *node.output_ports.values()])


# ---- the remote logger ----


def test_what_a_node_logs_is_published(broker: Broker, heard: Heard, topic: str) -> None:
    lines = heard(f"{topic}.logs")
    with Node(topic, connection_params=broker.url, remote_logger=True) as node:
        node.log.warning("battery at %d %%", 9)
        try:
            raise ValueError("no such arm")
        except ValueError:
            node.log.exception("ρομπότ")
        first, second = (line["msg"] for line in lines.wait(2))
    assert re.fullmatch(rf"\[\d{{13}}\]\[{topic}\]\[WARNING\] - battery at 9 %", first)
    assert second.startswith(first[:5])
    assert f"[{topic}][ERROR] - ρομπότ\nTraceback" in second
    assert second.endswith("ValueError: no such arm")


def test_records_go_where_they_are_told_to_and_in_order(
    broker: Broker, heard: Heard, topic: str
) -> None:
    lines = heard(f"{topic}.elsewhere")
    node = Node(topic, None, broker.url, True, f"{topic}.elsewhere", True, "d0")
    with node:
        for number in range(300):
            node.log.debug(number)
        received = [line["msg"] for line in lines.wait(300)]
    assert [line.partition(" - ")[2] for line in received] == list(map(str, range(300)))
    assert f"[thing.d0.{topic}][DEBUG]" in received[0]


def test_without_being_told_to_a_node_publishes_no_records(
    broker: Broker, heard: Heard, topic: str
) -> None:
    got = heard(f"{topic}.*")
    with Node(topic, connection_params=broker.url, heartbeats=False) as node:
        node.log.error("not for others")
        node.create_publisher(f"{topic}.end").publish("end")
        assert got.until("end") == []


def test_a_stopped_node_publishes_no_records_and_leaves_no_handler(
    broker: Broker, heard: Heard, topic: str
) -> None:
    lines = heard(f"{topic}.logs")
    node = Node(topic, connection_params=broker.url, remote_logger=True)
    for word in ("first", "second"):
        node.log.error("before")
        with node:
            node.run()
            assert len(node.log.handlers) == 1
            node.log.error(word)
            lines.wait(1 if word == "first" else 2)
        assert node.log.handlers == []
        node.log.error("after")
    assert [line["msg"].partition(" - ")[2] for line in lines.items] == ["first", "second"]


def test_what_callbacks_log_while_their_node_stops_is_published(
    broker: Broker, heard: Heard, topic: str
) -> None:
    lines, entered = heard(f"{topic}.logs"), Collected()
    with Node(topic, connection_params=broker.url, remote_logger=True) as node:

        def on_goal(goal: GoalHandler) -> dict[str, int]:
            entered(goal)
            goal.cancel_event.wait(DEADLINE)
            node.log.warning("told to end")
            return {}

        node.create_action(f"{topic}.wait", on_goal=on_goal)
        node.create_action_client(f"{topic}.wait").send_goal({})
        entered.wait(1)
    assert lines.first["msg"].endswith(" - told to end")
    assert node.stats.dropped == 0


async def test_records_of_any_thread_are_published_from_asyncio(
    broker: Broker, heard: Heard, topic: str
) -> None:
    lines = heard(f"{topic}.logs")
    async with aio.Node(topic, broker.url, remote_logger=True) as node:
        node.log.warning("loop")
        await asyncio.to_thread(node.log.warning, "thread")
        got = await asyncio.to_thread(lines.wait, 2)
    assert {line["msg"].partition(" - ")[2] for line in got} == {"loop", "thread"}
    assert logging.getLogger(f"commlib.node.{topic}").handlers == []


# ---- made to be subclassed ----


class Robot(Node):
    """A node as programs write them: its ports are its own attributes and methods."""

    def __init__(self, name: str, url: str, **options: Any) -> None:
        super().__init__(name, connection_params=url, **options)
        self.calls: list[str] = []
        self.got = Collected()
        self.sonar = self.create_publisher(f"{name}.sonar", msg_type=Sonar)
        self.create_subscriber(f"{name}.sonar", self.on_sonar, msg_type=Sonar)
        self.create_rpc(f"{name}.double", self.double)

    def run(self, wait: bool = True) -> None:
        self.calls.append("run")
        super().run(wait)

    def stop(self) -> None:
        self.calls.append("stop")
        super().stop()

    def on_sonar(self, msg: Sonar) -> None:
        self.got(msg)

    def double(self, number: int) -> int:
        return 2 * number


def test_a_node_may_be_subclassed(broker: Broker, topic: str) -> None:
    with Robot(topic, broker.url) as robot:
        robot.sonar.publish(Sonar(1.0))
        assert robot.got.first == Sonar(1.0)
        assert robot.create_rpc_client(f"{topic}.double").call(4) == 8
        assert robot.health
    assert (robot.calls, robot.state) == (["run", "stop"], NodeState.EXITED)


def test_run_forever_runs_and_stops_a_node_in_its_own_way(broker: Broker, topic: str) -> None:
    robot = Robot(topic, broker.url, ctrl_services=True)
    thread = threading.Thread(target=robot.run_forever)
    thread.start()
    eventually(lambda: robot.health)
    robot.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert robot.calls == ["run", "stop", "stop"]


class AsyncRobot(aio.Node):
    """The same for asyncio."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self.calls: list[str] = []
        self.sonar = self.create_subscriber(f"{name}.sonar", msg_type=Sonar)

    async def run(self, wait: bool = True) -> None:
        self.calls.append("run")
        await super().run(wait)

    async def stop(self) -> None:
        self.calls.append("stop")
        await super().stop()


async def test_a_node_of_asyncio_may_be_subclassed(broker: Broker, topic: str) -> None:
    async with AsyncRobot(topic, broker.url) as robot:
        await robot.create_publisher(f"{topic}.sonar", Sonar).publish(Sonar(1.0))
        async for msg in robot.sonar:
            assert msg == Sonar(1.0)
            break
    assert (robot.calls, robot.state) == (["run", "stop"], NodeState.EXITED)
