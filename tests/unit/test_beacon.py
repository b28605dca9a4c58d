"""The beacon: what a process tells of its nodes, how often, and what it makes of what it hears."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from announced import Add, Drive, Number, Word
from collected import DEADLINE, met
from commlib import aio
from commlib._discovery import (
    ALIVE,
    ANNOUNCE,
    MAX_ID,
    PROBE,
    Announcement,
    NodeInfo,
    Probe,
    Sign,
    answer_topic,
)
from commlib._packet import Packet
from commlib.aio import _asked, _beacon, _described, _matching, _rights, _sayings, discovery
from commlib.aio._beacon import beacon_for
from commlib.aio._hub import Hub
from commlib.aio.discovery import Discovery
from commlib.msg import PubSubMessage
from commlib.serializer import BytesSerializer
from commlib.transports import resolve
from fickle import Fickle, FickleTransport
from strictly import FORKING, HEAD, STRICT


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here has to wait as long as it would for the good of others."""
    monkeypatch.setattr("commlib.aio.node.APPEARS_AFTER", 0.0)
    monkeypatch.setattr(_beacon, "GATHER", 0.005)
    monkeypatch.setattr(_beacon, "PAUSE", 0.01)
    monkeypatch.setattr(_beacon, "SHARE", 0)
    monkeypatch.setattr(_asked, "SHARE", 0)
    monkeypatch.setattr(_rights, "CALM_SECONDS", 0.01)
    monkeypatch.setattr(discovery, "QUIET", 0.02)


@pytest.fixture(autouse=True)
def _no_beacon_goes_on() -> Iterator[None]:
    yield
    gc.collect()
    left = [beacon for beacons in _beacon._beacons.values() for beacon in beacons.values()]
    assert [beacon for beacon in left if beacon._lives] == []


@pytest.fixture
def url() -> str:
    return f"memory://{os.urandom(4).hex()}"


class Heard:
    """All that is told on a broker, by topic, from ``listening`` on."""

    def __init__(self, node: aio.Node) -> None:
        self.node = node
        self.items: list[tuple[str, Any]] = []
        self._news = asyncio.Event()

    def put(self, message: Any, topic: str) -> None:
        self.items.append((topic, message))
        self._news.set()

    def said(self, topic: str = ANNOUNCE) -> list[Any]:
        return [message for where, message in self.items if where == topic]

    @property
    def events(self) -> list[tuple[str, str]]:
        """What was announced, and of which node."""
        return [(said.event, node.name) for said in self.said() for node in said.nodes]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def say(self, topic: str, message: Any) -> None:
        await self.node.create_publisher(topic).publish(message)


@asynccontextmanager
async def listening(url: Any) -> AsyncIterator[Heard]:
    async with aio.Node("listener", url, discovery=False, heartbeats=False) as node:
        heard = Heard(node)
        kinds = {ANNOUNCE: Announcement, ALIVE: Sign, PROBE: Probe}
        for topic, kind in kinds.items():
            node.create_psubscriber(topic, heard.put, kind, inline=True)
        answers = answer_topic("*")
        node.create_psubscriber(answers, heard.put, Announcement, inline=True)
        await met(lambda: node.health)
        yield heard


def node(name: str, url: Any, **options: Any) -> aio.Node:
    return aio.Node(name, url, heartbeats=False, **options)


def turn(node: aio.Node, connected: bool) -> None:
    transport = node.hub.transport
    assert isinstance(transport, FickleTransport)
    transport.turn(connected)


# ---- the life of a node ----


async def test_a_node_is_told_of_from_its_birth_to_its_death(url: str) -> None:
    async with listening(url) as heard:
        async with node("robot", url) as robot:
            await heard.until(lambda: ("birth", "robot") in heard.events)
            sonar = robot.create_publisher("sonar", Number)
            await heard.until(lambda: ("change", "robot") in heard.events)
            await sonar.stop()
            await heard.until(lambda: heard.events.count(("change", "robot")) == 2)
        await heard.until(lambda: heard.said()[-1].event == "death")
    first, second, third, last = heard.said()
    assert [len(said.nodes[0].endpoints) for said in (first, second, third)] == [0, 1, 0]
    assert last.ids == (first.nodes[0].id,)
    assert first.process == last.process
    assert first.nodes[0].pid == os.getpid()


async def test_a_node_that_is_run_again_is_another_instance(url: str) -> None:
    async with listening(url) as heard:
        robot = node("robot", url)
        for life in (1, 2):
            async with robot:
                await heard.until(lambda life=life: heard.events.count(("birth", "robot")) == life)
    births = [said.nodes[0] for said in heard.said() if said.event == "birth"]
    assert len({info.id for info in births}) == 2
    assert len({info.link for info in births}) == 2


async def test_a_node_that_is_not_to_be_told_of_is_not(url: str) -> None:
    async with (
        listening(url) as heard,
        node("shy", url, discovery=False) as shy,
        node("robot", url),
    ):
        shy.create_publisher("sonar", Number)
        await heard.until(lambda: bool(heard.events))
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
    names = {info.name for _, said in heard.items for info in getattr(said, "nodes", ()) or ()}
    assert names == {"robot"}


async def test_a_node_that_ends_before_it_appears_is_never_told_of(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commlib.aio.node.APPEARS_AFTER", 60.0)
    async with listening(url) as heard:
        hasty = node("hasty", url)
        async with hasty:
            assert hasty._appearing is not None
        monkeypatch.setattr("commlib.aio.node.APPEARS_AFTER", 0.0)
        async with node("robot", url):
            await heard.until(lambda: ("birth", "robot") in heard.events)
    assert heard.events == [("birth", "robot")]


async def test_a_node_appears_later_where_descriptors_have_run_out_and_tells_so_once(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("commlib.aio.node.APPEARS_AGAIN", 0.0)
    caplog.set_level("DEBUG")

    def complaints() -> list[str]:
        return [r.levelname for r in caplog.records if "not told of it yet" in r.getMessage()]

    async with listening(url) as heard, AsyncExitStack() as nodes:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "commlib.aio._beacon", None)  # it cannot be imported
            await nodes.enter_async_context(node("robot", url))
            await met(lambda: len(complaints()) >= 3)
        await heard.until(lambda: ("birth", "robot") in heard.events)
    assert complaints()[0] == "WARNING"
    assert set(complaints()[1:]) == {"DEBUG"}


async def test_of_a_connection_that_is_closed_without_stopping_its_nodes_they_are_told_gone(
    url: str,
) -> None:
    async with listening(url) as heard:
        robot = node("robot", url)
        await robot.run()
        await heard.until(lambda: bool(heard.events))
        link = robot.hub.link
        await robot.hub.close()  # as at exit
        await heard.until(lambda: heard.said()[-1].event == "death")
        assert heard.said()[-1].link == link == heard.said()[0].nodes[0].link
        await robot.stop()
        async with robot:
            await heard.until(lambda: heard.events.count(("birth", "robot")) == 2)


async def test_stopping_and_starting_the_ports_from_afar_changes_the_node(url: str) -> None:
    async with listening(url) as heard, node("robot", url, ctrl_services=True) as robot:
        robot.create_publisher("sonar", Number)
        await heard.until(lambda: bool(heard.events))
        await robot.create_rpc_client("robot.stop").call({})
        await heard.until(
            lambda: (
                {port.name for port in heard.said()[-1].nodes[0].endpoints}
                == {"robot.start", "robot.stop"}
            )
        )


# ---- what is told of ports ----


async def test_ports_are_told_with_their_kinds_names_types_and_schemas(url: str) -> None:
    async with listening(url) as heard, node("robot", url) as robot:
        robot.create_publisher("sonar", Number)
        robot.create_mpublisher(Word)
        robot.create_wpublisher(robot.create_mpublisher(), "led", Word)
        robot.create_subscriber("speed", print, list[float])
        robot.create_psubscriber("all.*", print)
        await robot.create_wsubscriber().subscribe("light", print, Number)
        robot.create_rpc("add", print, Add)
        robot.create_rpc_client("find", Add)
        robot.create_rpc_server("arm", {"move": (print, Add)})
        robot.create_action("drive", Drive, print)
        robot.create_action_client("charge", Drive)
        robot.create_event_emitter("bell")
        robot.create_publisher("image", bytes, serializer=BytesSerializer)
        await heard.until(lambda: bool(heard.events))
    info = heard.said()[0].nodes[0]
    assert {(port.kind, port.name, port.type, *sorted(port.parts)) for port in info.endpoints} == {
        ("publisher", "sonar", "Number", "message"),
        ("publisher", "*", "Word", "message"),
        ("publisher", "*", ""),
        ("publisher", "led", "Word", "message"),
        ("subscriber", "speed", "list[float]", "message"),
        ("subscriber", "all.*", ""),
        ("subscriber", "light", "Number", "message"),
        ("service", "add", "Add", "request", "response"),
        ("client", "find", "Add", "request", "response"),
        ("service", "arm.move", "Add", "request", "response"),
        ("action", "drive", "Drive", "feedback", "goal", "result"),
        ("action_client", "charge", "Drive", "feedback", "goal", "result"),
        ("publisher", "*", "Event", "message"),
        ("publisher", "image", "bytes"),
    }
    for port in info.endpoints:
        for part in port.parts:
            assert info.schema(port, part), part


async def test_each_port_is_looked_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def described(port: Any) -> Any:
        seen.append(getattr(port, "topic", ""))
        return look_at(port)

    look_at = _described.described
    monkeypatch.setattr(_described, "described", described)
    async with listening(url) as heard, node("robot", url) as robot:
        for number, topic in enumerate(("first", "second"), 1):
            robot.create_publisher(topic, Number)
            await heard.until(
                lambda number=number: any(
                    len(info.endpoints) == number for said in heard.said() for info in said.nodes
                )
            )
    assert seen.count("first") == seen.count("second") == 1


async def test_a_port_that_has_an_equality_of_its_own_is_told_of_like_any_other(
    url: str,
) -> None:
    class Alike(aio.Publisher[Any]):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

    async with listening(url) as heard, node("robot", url) as robot:
        for topic in ("first", "second"):
            robot._adopt(Alike(topic, Number, hub=robot.hub))
        await heard.until(lambda: bool(heard.said()) and bool(heard.said()[-1].nodes))
        await heard.until(lambda: len(heard.said()[-1].nodes[0].endpoints) == 2)
        robot._adopt(Alike("third", Number, hub=robot.hub))
        await robot.endpoints[0].stop()
        await heard.until(
            lambda: (
                [port.name for port in heard.said()[-1].nodes[0].endpoints] == ["second", "third"]
            )
        )


async def test_the_schema_of_a_class_goes_with_its_last_port(url: str) -> None:
    async with listening(url) as heard, node("robot", url) as robot:
        numbers = [robot.create_publisher(topic, Number) for topic in ("first", "second")]
        robot.create_publisher("third", Word)
        for left in (2, 1):
            await heard.until(lambda: bool(heard.said()) and bool(heard.said()[-1].nodes))
            await heard.until(
                lambda left=left: len(heard.said()[-1].nodes[0].endpoints) == left + 1
            )
            assert len(heard.said()[-1].nodes[0].schemas) == 2
            await numbers.pop().stop()
        await heard.until(lambda: len(heard.said()[-1].nodes[0].endpoints) == 1)
        assert len(heard.said()[-1].nodes[0].schemas) == 1


async def test_a_class_of_the_programs_own_is_told_as_what_it_is(url: str) -> None:
    class Loud(aio.Publisher[Number]):
        pass

    async with listening(url) as heard, node("robot", url) as robot:
        await robot.add(Loud("sonar", Number, hub=robot.hub)).run()
        await heard.until(lambda: bool(heard.events))
    assert [port.kind for port in heard.said()[0].nodes[0].endpoints] == ["publisher"]


@pytest.mark.parametrize(
    ("room", "schemas", "endpoints"), [(100_000, 1, 30), (4000, 0, 30), (1000, 0, 0)]
)
async def test_what_has_no_room_in_a_message_is_left_out(
    url: str, room: int, schemas: int, endpoints: int
) -> None:
    class Wordy(PubSubMessage):
        __doc__ = 2000 * "x"
        value: int = 0

    async with listening(url) as heard:
        others = f"{url}?max_payload={room}"
        async with node("robot", others) as robot, node("second", others):
            for index in range(30):
                robot.create_publisher(f"sonar{index}", Wordy)
            await heard.until(lambda: len(heard.events) >= 2)
    info = next(info for said in heard.said() for info in said.nodes if info.name == "robot")
    assert (len(info.schemas), len(info.endpoints)) == (schemas, endpoints)


# ---- few messages ----


async def test_of_many_nodes_few_messages_tell_and_one_connection_hears(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_beacon, "GATHER", 0.5)
    nodes = [node(f"n{index}", url) for index in range(40)]
    async with listening(url) as heard:
        await asyncio.gather(*(each.run() for each in nodes))
        await heard.until(lambda: len(heard.events) == 40)
        assert len(heard.said()) <= 4
        beacon = beacon_for(nodes[0].hub)
        assert beacon is beacon_for(nodes[-1].hub)
        await asyncio.gather(*(each.stop() for each in nodes))
        await heard.until(lambda: sum(len(said.ids) for said in heard.said()) == 40)


async def test_what_has_no_room_on_the_connection_now_is_told_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = count(1)

    def offer(hub: Hub, topic: str, packet: Packet) -> bool:
        return bool(next(offered) % 3) and _sayings.offer(hub, topic, packet)

    monkeypatch.setattr(_sayings, "NODES_AT_ONCE", 2)
    monkeypatch.setattr(_beacon, "offer", offer)
    nodes = [node(f"n{index}", url) for index in range(20)]
    async with listening(url) as heard:
        await asyncio.gather(*(each.run() for each in nodes))
        await heard.until(lambda: len({name for _, name in heard.events}) == 20)
        assert len(heard.events) == 20
        await heard.say(PROBE, Probe("abc"))
        answers = answer_topic("abc")
        await heard.until(lambda: sum(len(said.nodes) for said in heard.said(answers)) >= 20)
        known = [info.name for said in heard.said(answers) for info in said.nodes]
        await asyncio.gather(*(each.stop() for each in nodes))
    assert sorted(known) == sorted(each.node_name for each in nodes)


async def test_a_port_that_comes_and_goes_all_the_time_is_seldom_told_of(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_beacon, "PAUSE", 60.0)
    async with listening(url) as heard, node("robot", url) as robot:
        await heard.until(lambda: bool(heard.events))
        for _ in range(20):
            port = robot.create_publisher("sonar")
            await port.run()
            await port.stop()
    assert heard.events == [("birth", "robot")]


async def test_nodes_on_a_shared_connection_come_and_go_one_by_one(url: str) -> None:
    one, two = (node(name, url, share_connection=True) for name in ("one", "two"))
    async with listening(url) as heard, two:
        async with one:
            await heard.until(lambda: len(heard.events) == 2)
        await heard.until(lambda: heard.said()[-1].event == "death")
        assert len(heard.said()[-1].ids) == 1
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
        assert [info.name for info in heard.said(answer_topic("abc"))[0].nodes] == ["two"]


async def test_when_the_node_that_listens_stops_another_one_does(url: str) -> None:
    async with listening(url) as heard, node("second", url):
        first = node("first", url)
        await first.run()
        await heard.until(lambda: len(heard.events) == 2)
        beacon = beacon_for(first.hub)
        ear = beacon._ear
        assert ear is not None
        listener = next(life.node for life in beacon._lives.values() if life.node.hub is ear.hub)
        signs = len(heard.said(ALIVE))
        await listener.stop()
        await heard.until(lambda: len(heard.said(ALIVE)) > signs)
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
        await first.stop()


async def test_each_loop_has_a_beacon_of_its_own(url: str) -> None:
    async def elsewhere() -> str:
        async with node("elsewhere", url) as robot:
            await met(lambda: robot._beacon is not None and bool(robot._beacon._known()))
            assert robot._beacon is not None
            return robot._beacon.id

    async with listening(url) as heard, node("here", url) as here:
        other = await asyncio.to_thread(asyncio.run, elsewhere())
        await heard.until(lambda: ("birth", "elsewhere") in heard.events)
        assert here._beacon is not None
        assert here._beacon.id != other


async def test_a_beacon_ends_with_its_nodes(url: str) -> None:
    async with listening(url) as heard:
        robot = node("robot", url)
        await robot.run()
        await heard.until(lambda: bool(heard.events))
        beacon = weakref.ref(beacon_for(robot.hub))
        await robot.stop()
    del robot
    gc.collect()
    assert beacon() is None


# ---- the connection ----


async def test_what_the_broker_may_have_forgotten_is_told_again(url: str) -> None:
    params = Fickle(name=os.urandom(4).hex())
    async with listening(params) as heard, node("robot", params) as robot:
        await heard.until(lambda: heard.events.count(("birth", "robot")) == 1)
        turn(robot, False)
        turn(robot, True)
        await heard.until(lambda: heard.events.count(("birth", "robot")) == 2)


async def test_a_node_whose_connection_is_away_keeps_no_other_from_being_told_of() -> None:
    name = os.urandom(4).hex()
    other = Fickle(name=name, keepalive=7)  # other parameters, the same broker
    async with listening(Fickle(name=name)) as heard, node("cut_off", other) as cut_off:
        turn(cut_off, False)
        await met(lambda: cut_off._beacon is not None)
        async with node("robot", Fickle(name=name)):
            await heard.until(lambda: ("birth", "robot") in heard.events)
        turn(cut_off, True)
        await heard.until(lambda: ("birth", "cut_off") in heard.events[-2:])


async def test_when_the_connection_breaks_on_which_it_listens_it_does_on_another_one() -> None:
    params = Fickle(name=os.urandom(4).hex())
    async with listening(params) as heard, node("one", params) as one, node("two", params):
        await heard.until(lambda: len(heard.events) == 2)
        beacon = beacon_for(one.hub)
        assert beacon._ear is not None
        (cut_off,) = [
            life.node for life in beacon._lives.values() if life.node.hub is beacon._ear.hub
        ]
        turn(cut_off, False)
        await heard.until(lambda: len(heard.events) == 4)  # what was told last may be lost
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
        assert {info.name for info in heard.said(answer_topic("abc"))[0].nodes} == {"one", "two"}


async def test_a_user_whom_the_broker_throws_out_for_telling_stops_telling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    params = Fickle(name=os.urandom(4).hex())
    async with listening(params) as heard, node("robot", params) as robot:
        for times in (1, 2, 3):
            await heard.until(lambda times=times: len(heard.events) == times)
            turn(robot, False)
            turn(robot, True)
        beacon = beacon_for(robot.hub)
        assert beacon._ear is None
        await robot.create_publisher("sonar").publish(1)
    assert len(heard.events) == 3
    (warning,) = [record for record in caplog.records if record.name == "commlib.discovery"]
    assert "commlib.discovery" in warning.getMessage()


async def test_a_connection_that_breaks_later_breaks_for_another_reason(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rights, "STRIKE_SECONDS", 0.0)
    params = Fickle(name=os.urandom(4).hex())
    async with listening(params) as heard, node("robot", params) as robot:
        for times in range(1, 6):
            await heard.until(lambda times=times: len(heard.events) == times)
            turn(robot, False)
            turn(robot, True)
    assert [record for record in caplog.records if record.name == "commlib.discovery"] == []


async def test_what_the_broker_refuses_is_warned_of_once_and_another_user_goes_on(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = f"{url}?keepalive=7"  # other parameters, the same broker
    async with AsyncExitStack() as stack:
        heard = await stack.enter_async_context(listening(url))
        mute = await stack.enter_async_context(node("mute", url))
        await heard.until(lambda: len(heard.events) == 1)
        await stack.enter_async_context(node("robot", other))
        await heard.until(lambda: len(heard.events) == 2)
        for topic in (ANNOUNCE, ALIVE, answer_topic("abc")):
            mute.hub.transport.on_refused(topic, PermissionError("not you"))
        mute.hub.transport.on_refused("commlib.discoveries", PermissionError("nor this"))
        await heard.until(lambda: len(heard.said(ALIVE)) == 2)  # as another user
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
        assert {info.name for info in heard.said(answer_topic("abc"))[0].nodes} == {"mute", "robot"}
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["commlib.discovery", "commlib"]
    assert "discovery=False" in told[0].getMessage()


async def test_a_death_that_is_not_so_is_contradicted(url: str) -> None:
    async with listening(url) as heard, node("robot", url) as robot:
        await heard.until(lambda: len(heard.events) == 1)
        info = heard.said()[0].nodes[0]
        for number, lie in enumerate([{"ids": [info.id]}, {"link": robot.hub.link}], start=2):
            await heard.say(ANNOUNCE, {"event": "death", **lie})
            await heard.until(lambda number=number: len(heard.events) == number)
    assert heard.events[-1] == ("birth", "robot")


# ---- who asks ----


async def test_all_who_ask_are_answered_together(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_asked, "JITTER", DEADLINE)
    monkeypatch.setattr(_asked, "urandom", lambda count: b"\xff" * count)
    async with listening(url) as heard, node("robot", url):
        await heard.until(lambda: bool(heard.events))
        for asker in ("a1", "a2", "a1", "a b", "", "*", "a.b", "a" * (MAX_ID + 1)):
            await heard.say(PROBE, Probe(asker))
        await heard.say(PROBE, Probe("a3", process="somebody"))
        # Who asks one process is answered at once, and with him those who wait.
        await heard.say(PROBE, Probe("a2", process=heard.said()[0].process))
        await heard.until(lambda: all(heard.said(answer_topic(each)) for each in ("a1", "a2")))
    answers = [topic for topic, _ in heard.items if topic.startswith(answer_topic(""))]
    assert sorted(answers) == [answer_topic("a1"), answer_topic("a2")]


async def test_of_too_many_who_ask_some_are_answered(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asked, "JITTER", 0.2)
    async with listening(url) as heard, node("robot", url):
        await heard.until(lambda: bool(heard.events))
        asking = [heard.say(PROBE, Probe(f"a{number}")) for number in range(100)]
        await asyncio.gather(*asking)
        await heard.until(
            lambda: any(topic.startswith(answer_topic("")) for topic, _ in heard.items)
        )
    answers = [topic for topic, _ in heard.items if topic.startswith(answer_topic(""))]
    assert 0 < len(answers) <= 100


# ---- what does not fit ----


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "commlib.discovery"]


async def test_a_mismatch_is_warned_of_once_and_who_came_later_is_told_each_time(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = NodeInfo("stranger", "s1", "p1", host="afar", pid=1)
    async with listening(url) as heard, node("robot", url) as robot:
        robot.create_publisher("sonar", Number)
        other = node("other", f"memory://{os.urandom(4).hex()}")  # describes what strangers say
        other.create_subscriber("sonar", print, Word)
        await heard.until(lambda: bool(heard.events))
        async with listening(other.hub.params) as there, other:
            await there.until(lambda: bool(there.events))
        told = there.said()[0].nodes[0]
        for number in (1, 2):
            born = NodeInfo(
                *("stranger", f"s{number}", "p1", "", "", "afar", 1),
                endpoints=told.endpoints,
                schemas=told.schemas,
            )
            await heard.say(ANNOUNCE, Announcement("birth", "p1", nodes=(born,)))
            await heard.until(
                lambda number=number: heard.events.count(("present", "robot")) == number
            )
    (warning,) = warnings(caplog)
    assert warning == (
        f"sonar: {heard.said()[0].nodes[0].label} publishes Number, but {stranger.label} reads "
        "Word: value is sent as integer and read as string"
    )


async def test_ports_of_one_process_and_of_one_node_are_compared_too(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(url) as heard, node("robot", url) as robot, node("other", url) as other:
        robot.create_publisher("sonar", Number)
        robot.create_subscriber("sonar", print, Word)
        other.create_publisher("led", Number)
        robot.create_subscriber("led", print, Word)
        await met(lambda: len(warnings(caplog)) == 2)
        await heard.until(lambda: len(heard.events) >= 2)


async def test_what_there_is_no_time_for_is_compared_later(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_matching, "LONGEST", 0.0)  # so that each time there is no time for it
    async with listening(url) as heard, node("robot", url) as robot:
        robot.create_publisher("sonar", Number)
        robot.create_subscriber("sonar", print, Word)
        await heard.until(
            lambda: any(len(info.endpoints) == 2 for s in heard.said() for info in s.nodes)
        )
        assert warnings(caplog) == []
        monkeypatch.setattr(_matching, "LONGEST", 10.0)
        await met(lambda: len(warnings(caplog)) == 1)


async def test_what_fits_is_not_warned_of(url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Short(PubSubMessage):
        value: float = 0.0

    class Long(PubSubMessage):
        value: int = 0
        more: str = ""

    async with listening(url) as heard, node("robot", url) as robot, node("other", url) as other:
        robot.create_publisher("sonar", Long)
        other.create_subscriber("sonar", print, Short)
        robot.create_mpublisher(Word)
        robot.create_event_emitter()
        other.create_subscriber("*", print, Number)
        other.create_psubscriber("sonar.*", print, Word)
        await heard.until(lambda: len(heard.events) >= 2)
        await heard.say(PROBE, Probe("abc"))
        await heard.until(lambda: bool(heard.said(answer_topic("abc"))))
    assert warnings(caplog) == []


# ---- strangers ----

GARBAGE = [
    b"",
    b"\x00\xff" * 50,
    b"null",
    b"[" * 5000,
    b'{"header":{"properties":{}},"data":7}',
    b'{"event":"birth"}',
    b'{"event":"birth","process":"p","nodes":[{"name":1}]}',
    b'{"event":"birth","process":"p","lease":-1,"nodes":[{"name":"n","id":"*"}]}',
    b'{"event":"birth","process":"p","lease":1e999,"nodes":[{"name":"n","id":"a b"}]}',
    b'{"event":"birth","process":"","nodes":[{"name":"n","id":"n1"}]}',
    b'{"event":"death","ids":[' + b",".join([b'"x"'] * 10_000) + b"]}",
    b'{"event":"death","link":""}',
    b'{"event":"present","process":"p","nodes":[{"name":"n","id":"n1","process":"q"}]}',
    b'{"asker":"*"}',
    b'{"asker":""}',
    b'{"process":"","nodes":-1}',
    b'{"process":"p","nodes":1e999}',
]


async def test_garbage_harms_nobody(url: str) -> None:
    def shout(heard: Heard, payload: bytes) -> None:
        for topic in (ANNOUNCE, ALIVE, PROBE, answer_topic("abc")):
            heard.node.hub.transport.publish(topic, Packet(payload))

    async with listening(url) as heard, node("robot", url), Discovery(url) as known:
        await heard.until(lambda: bool(heard.events))
        for payload in GARBAGE:
            shout(heard, payload)
        assert [info.name for info in await known.ask()] == ["robot"]
        assert known.stats.refused > 0


# ---- processes ----


def run(program: str, *options: str) -> str:
    ended = subprocess.run(
        [sys.executable, *options, "-c", HEAD + program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_a_program_that_is_over_at_once_never_loads_the_beacon() -> None:
    program = """
import sys
from commlib.node import Node
from commlib.transports import memory
with Node("n", connection_params="memory://"):
    pass
print([name for name in sys.modules if "_beacon" in name or "_schemas" in name])
"""
    assert run(program, *STRICT) == "[]\n"


def test_a_node_that_is_run_again_in_a_fork_is_told_of_by_it() -> None:
    program = """
import os, time
from commlib.node import Node
node = Node("n", connection_params="memory://")
node.run()
while node._core._beacon is None or not node._core._beacon._known():
    time.sleep(0.01)
before, told = node._core._beacon._known()[0], len(node._core.hub.listeners)
child = os.fork()
if child == 0:
    node.run()
    while node._core._beacon is None or not node._core._beacon._known():
        time.sleep(0.01)
    after = node._core._beacon._known()[0]
    alike = [name for name in ("id", "process", "link", "pid") if
             getattr(before, name) == getattr(after, name)]
    print(alike, len(node._core.hub.listeners) - told, flush=True)
    node.stop()
    os._exit(0)
os.waitpid(child, 0)
node.stop()
"""
    assert run(program, *FORKING) == "[] 0\n"


def test_parameters_that_have_no_will_are_the_same_with_one() -> None:
    for given in ("memory://", "redis://", "amqp://"):
        params = resolve(given)
        assert params.with_will(ANNOUNCE, b"x") is params
