"""A broker of a test's own: what it records, how it fails, and the fixtures that pytest finds."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.exceptions import (
    ConnectError,
    ConnectionLost,
    EndpointClosed,
    OutboxFull,
    RPCTimeout,
)
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.testing import Capture, Faults, MemoryBroker, VirtualLoop, capture, run
from commlib.testing._faults import REPLIES
from commlib.testing._tested import CALM

QUIET = ("-p", "no:cacheprovider", "-q", "-p", "commlib", "-p", "no:valkey")
ROOT = Path(__file__).parent.parent.parent
FILE = re.compile(r'^```python title="(test_\w+\.py)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)


class Pose(PubSubMessage):
    x: float = 0.0


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    """A broker of this test's own."""
    with MemoryBroker() as broker:
        yield broker


@pytest.fixture
def start(broker: MemoryBroker) -> Callable[..., Node]:
    """Runs nodes that live as long as their broker; ``options`` are for the URL."""

    def start(name: str = "robot", options: str = "", **more: Any) -> Node:
        node = Node(name, connection_params=broker.url + options, heartbeats=False, **more)
        node.run()
        return node

    return start


Start = Callable[..., Node]

# ---- what was published ----


def test_what_was_published_is_there_when_publish_returns(
    broker: MemoryBroker, start: Start
) -> None:
    poses = broker.capture("*.pose", Pose)
    node = start()
    for name in ("a", "b", "a"):
        node.create_publisher(f"{name}.pose", Pose).publish(Pose(x=len(poses)))
    assert poses.messages == list(poses) == [Pose(x=0), Pose(x=1), Pose(x=2)]
    assert (poses.last, len(poses), poses.topics) == (Pose(x=2), 3, ["a.pose", "b.pose"])
    assert poses.on("a.pose") == [Pose(x=0), Pose(x=2)]
    assert all(message.timestamp > 0 for message in poses.captured)
    poses.clear()
    assert (len(poses), poses.messages) == (0, [])


def test_after_its_end_a_capture_keeps_what_it_has(broker: MemoryBroker, start: Start) -> None:
    publisher = start().create_publisher("t")
    with broker.capture("t") as seen, capture(broker.url, "t") as all_of_them:
        publisher.publish(1)
        seen.close()
        publisher.publish(2)
    seen.close()
    assert (seen.messages, all_of_them.messages) == ([1], [1, 2])


def test_a_capture_waits_for_what_another_thread_publishes(
    broker: MemoryBroker, start: Start
) -> None:
    publisher = start().create_publisher("t")
    seen = broker.capture("t")
    thread = threading.Timer(0.05, lambda: [publisher.publish(n) for n in range(3)])
    thread.start()
    assert seen.wait(3, DEADLINE) == [0, 1, 2]
    thread.join()


def test_one_that_waits_in_vain_says_what_came_instead(broker: MemoryBroker, start: Start) -> None:
    node = start()
    node.create_publisher("rover.pose").publish({"x": 1})
    poses = broker.capture("rover.pose")
    node.create_publisher("rover.posse").publish({"x": 2})
    for number in range(9):
        node.create_publisher(f"t{number}").publish(1)
    node.create_publisher("rover.pose").publish({"x": 3})
    with pytest.raises(AssertionError) as caught:
        poses.wait(2, timeout=0.01)
    assert str(caught.value) == (
        "1 of 2 messages on 'rover.pose' within 0.01 s\n"
        "  {'x': 3}\n"
        "published elsewhere: rover.posse (1), t0 (1), t1 (1), t2 (1), t3 (1) and 5 more topics"
    )


def test_where_nothing_came_at_all_the_failure_says_so(broker: MemoryBroker) -> None:
    with pytest.raises(AssertionError, match=r"^no message on 't' within 0\.01 s\nnothing was"):
        broker.capture("t").wait(timeout=0.01)
    with pytest.raises(AssertionError, match=r"^nothing was published on 't'\nnothing was"):
        _ = broker.capture("t").last


def test_a_message_that_is_none_of_its_kind_fails_who_looks(
    broker: MemoryBroker, start: Start
) -> None:
    poses = broker.capture("pose", Pose)
    start().create_publisher("pose").publish({"x": "far"})
    with pytest.raises(AssertionError, match=r"message 1 on 'pose' cannot be read: .*x"):
        poses.wait()


def test_what_is_no_broker_of_a_test_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="memory://elsewhere: no MemoryBroker"):
        capture("memory://elsewhere", "t")


# ---- a connection that breaks ----


def test_what_is_published_while_away_comes_later_and_in_order(
    broker: MemoryBroker, start: Start
) -> None:
    states = Collected()
    node, other = start(on_state=states), start("other")
    received = Collected()
    node.create_subscriber("back", received)
    publisher, seen = node.create_publisher("t"), broker.capture("t")
    with broker.outage("robot"):
        assert (node.connected, other.connected) == (False, True)
        for number in range(3):
            publisher.publish(number)
        other.create_publisher("back").publish("missed")
        assert len(seen) == 0
    publisher.publish(3)
    assert seen.wait(4, DEADLINE) == [0, 1, 2, 3]
    assert node.wait_connected(DEADLINE)
    other.create_publisher("back").publish("heard")
    assert received.first == "heard"
    (up, away, back) = states.wait(3)
    assert (up, back) == ((True, None), (True, None))
    assert isinstance(away[1], ConnectionLost)
    assert node.stats.reconnects == 1


def test_the_offline_policy_holds_while_away(broker: MemoryBroker, start: Start) -> None:
    nodes = {policy: start(policy, f"?offline={policy}") for policy in ("raise", "wait")}
    publishers = {policy: node.create_publisher("t") for policy, node in nodes.items()}
    seen = broker.capture("t")
    with broker.outage():
        with pytest.raises(ConnectionLost):
            publishers["raise"].publish(1)
        waiting = threading.Thread(target=publishers["wait"].publish, args=[2])
        waiting.start()
    waiting.join(DEADLINE)
    assert seen.wait(1, DEADLINE) == [2]


def test_where_nothing_is_tried_again_it_stays_away(broker: MemoryBroker, start: Start) -> None:
    node = start(options="?reconnect=false")
    publisher = node.create_publisher("t")
    with broker.outage():
        with pytest.raises(ConnectionLost):
            publisher.publish(1)
        late = Node("late", connection_params=broker.url + "?reconnect=false")
        with pytest.raises(ConnectError):
            late.run()
    assert not node.connected


def test_who_comes_during_an_outage_waits_for_its_end(broker: MemoryBroker) -> None:
    broker.cut()
    with Node("late", connection_params=broker.url + "?connect_timeout=0.05") as node:
        assert not node.connected
        broker.mend()
        assert node.wait_connected(DEADLINE)


def test_a_service_that_was_away_serves_again(broker: MemoryBroker, start: Start) -> None:
    service, client = start("service"), start("client").create_rpc_client("double")
    service.create_rpc("double", lambda number: 2 * number)
    assert client.call(1, timeout=DEADLINE) == 2
    with broker.outage("service"), pytest.raises(RPCTimeout):
        client.call(2, timeout=0.05)
    assert service.wait_connected(DEADLINE)
    assert client.call(3, timeout=DEADLINE) == 6


def test_a_node_that_is_not_here_cannot_be_cut(broker: MemoryBroker, start: Start) -> None:
    start("rover")
    with pytest.raises(ValueError, match="no node 'rovers' on this broker; there is rover"):
        broker.cut("rovers")


def test_stopping_while_away_gives_up_what_waits(
    broker: MemoryBroker, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    node, seen = start(), broker.capture("t")
    publisher = node.create_publisher("t")
    broker.cut()
    publisher.publish(1)
    node.stop()
    broker.mend()
    assert len(seen) == 0
    assert "1 message was never sent" in caplog.text
    with pytest.raises(EndpointClosed):
        publisher.publish(2)


# ---- faults ----


def test_the_same_seed_makes_the_same_faults(broker: MemoryBroker, start: Start) -> None:
    publisher = start().create_publisher("t")
    seen = [_under(broker, publisher, seed) for seed in (1, 1, 2)]
    assert seen[0] == seen[1] != seen[2]
    assert sorted(seen[0]) == seen[0], "the order is kept"
    assert len(set(seen[0])) < 100, "some are dropped"
    assert len(set(seen[0])) < len(seen[0]), "some come twice"
    struck = broker.suffered
    assert set(struck) == {"cut", "dropped", "doubled", "delayed"}
    assert len(set(seen[0])) + len(set(seen[1])) + len(set(seen[2])) == 300 - struck["dropped"]


def _under(broker: MemoryBroker, publisher: Any, seed: int) -> list[int]:
    """What arrives of a hundred numbers under all faults at once."""
    broker.faults = Faults(
        seed=seed, drop=0.2, duplicate=0.2, delay=0.002, cut=0.02, away=0.005, only="t"
    )
    with broker.capture("t") as seen:
        for number in range(100):
            publisher.publish(number)
        broker.faults = None
        publisher.publish(1000)
        eventually(lambda: 1000 in seen.messages)
        return seen.messages[:-1]


def test_what_becomes_of_a_message_is_told_by_seed_name_and_number_alone() -> None:
    faults = Faults(seed="s", drop=0.5, duplicate=0.5, cut=0.5, delay=1.0)
    fates = [faults.fate("t", number) for number in range(1, 50)]
    assert fates == [faults.fate("t", number) for number in range(1, 50)]
    assert fates != [faults.fate("u", number) for number in range(1, 50)]
    alone = Faults(seed="s", drop=0.5)
    assert [fate.is_dropped for fate in fates] == [
        alone.fate("t", number).is_dropped for number in range(1, 50)
    ]
    assert all(0 <= fate.delay < 1 for fate in fates)


def test_nothing_happens_outside_of_what_faults_are_for() -> None:
    faults = Faults(seed=1, drop=1, only="sensors.*")
    assert faults.fate("sensors.sonar", 1).is_dropped
    assert faults.fate("pose", 1) == faults.fate(REPLIES, 1) == CALM


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"drop": 1.5}, "drop=1.5: it is a share between 0 and 1"),
        ({"cut": -1}, "cut=-1: it is a share"),
        ({"delay": -1.0}, "delay=-1.0: it is a time in seconds"),
        ({"away": float("inf")}, "away=inf: it is a time"),
        ({"only": ""}, "needs at least one word"),
    ],
)
def test_a_fault_that_is_none_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults(seed=1, **wrong)


def test_calls_and_replies_suffer_as_well(broker: MemoryBroker, start: Start) -> None:
    handled = Collected()
    start("service").create_rpc("double", handled)
    client = start("client").create_rpc_client("double")
    broker.faults = Faults(seed=1, drop=1, only="double")
    with pytest.raises(RPCTimeout):
        client.call(1, timeout=0.05)
    assert handled.items == []
    broker.faults = Faults(seed=1, duplicate=1)
    client.call(2, timeout=DEADLINE)
    assert handled.wait(2) == [2, 2]


def test_what_faults_have_done_is_in_the_failure(broker: MemoryBroker, start: Start) -> None:
    seen = broker.capture("t")
    broker.faults = Faults(seed=5, drop=1)
    start().create_publisher("t").publish(1)
    with pytest.raises(AssertionError, match=r"faults of seed 5: 1 dropped$"):
        seen.wait(timeout=0.01)


def test_what_is_late_is_passed_on_before_its_sender_leaves(
    broker: MemoryBroker, start: Start
) -> None:
    node, seen = start(), broker.capture("t")
    broker.faults = Faults(seed=1, delay=3600)
    publisher = node.create_publisher("t")
    for number in range(3):
        publisher.publish(number)
    assert len(seen) == 0
    node.stop()
    assert seen.messages == [0, 1, 2]


def test_a_subscriber_without_room_makes_publishers_wait_here_too(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commlib.transports.memory.MAX_INBOUND", 2)

    received, done = Collected(), asyncio.Event()

    def take(number: int) -> None:
        received(number)
        if number == 9:
            done.set()

    async def main() -> None:
        node = aio.Node("robot", broker.url, heartbeats=False, discovery=False)
        node.create_subscriber("t", take, inline=True)
        publisher = node.create_publisher("t")
        async with node:
            broker.cut()
            for number in range(5):
                await publisher.publish(number)
            broker.mend()
            for number in range(5, 10):
                await publisher.publish(number)
            await done.wait()

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert received.items == list(range(10))


def test_a_publisher_that_finds_no_room_for_too_long_is_told(broker: MemoryBroker) -> None:
    from commlib.transports.memory import ConnectionParameters, Offline

    params = ConnectionParameters.from_url(broker.url)
    params.offline = Offline("wait", timeout=0.02)
    with Node("robot", connection_params=params, heartbeats=False) as node:
        publisher = node.create_publisher("t")
        with broker.outage(), pytest.raises(OutboxFull):
            publisher.publish(1)


# ---- asyncio and its time ----


async def test_a_capture_is_awaited_on_a_loop(broker: MemoryBroker) -> None:
    seen = broker.capture("t")
    with pytest.raises(RuntimeError, match=r"await capture\.arrived"):
        seen.wait()
    with pytest.raises(AssertionError, match=r"no message on 't' within 0\.01 s"):
        await seen.arrived(timeout=0.01)
    async with aio.Node("robot", broker.url) as node:
        waiting = asyncio.create_task(seen.arrived(2, DEADLINE))
        publisher = node.create_publisher("t")
        for number in range(2):
            await asyncio.sleep(0)
            await publisher.publish(number)
        assert await waiting == [0, 1]


def test_waiting_takes_no_time_on_a_virtual_loop() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(1800))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return loop.time() - begun

    begun = time.monotonic()
    assert 7200 <= run(main()) < 7200 + DEADLINE
    assert time.monotonic() - begun < DEADLINE


def test_timeouts_and_signs_of_life_go_by_virtual_time(broker: MemoryBroker) -> None:
    beats = broker.capture("robot.heartbeat")
    service = aio.Node("robot", broker.url, heartbeat_interval=10)

    async def slow(number: int) -> int:
        await asyncio.sleep(100)
        return number

    service.create_rpc("slow", slow)

    async def main() -> None:
        async with service, aio.Node("station", broker.url) as station:
            client = station.create_rpc_client("slow")
            with pytest.raises(RPCTimeout):
                await client.call(1, timeout=50)
            assert len(beats) in (5, 6)
            assert await client.call(2, timeout=1000) == 2

    run(main())


def test_the_clock_does_not_jump_while_a_thread_may_have_a_say(broker: MemoryBroker) -> None:
    def slow(number: int) -> int:
        threading.Event().wait(0.05)
        return number

    async def main() -> None:
        node = aio.Node("robot", broker.url)
        node.create_rpc("slow", slow)
        async with node:
            assert await node.create_rpc_client("slow").call(1, timeout=3600) == 1
            async with asyncio.timeout(3600):
                assert await asyncio.to_thread(slow, 2) == 2
                with Node("other", connection_params=broker.url) as other:
                    other.create_rpc("far", slow)
                    client = node.create_rpc_client("far")
                    assert await client.call(3, timeout=3600) == 3

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_what_waits_for_a_caller_that_has_given_up_in_virtual_time_is_not_handled(
    broker: MemoryBroker,
) -> None:
    handled: list[int] = []

    async def slow(number: int) -> None:
        handled.append(number)
        await asyncio.sleep(100)

    async def main() -> None:
        node = aio.Node("robot", broker.url)
        service = node.create_rpc("slow", slow, workers=1)
        async with node:
            client = node.create_rpc_client("slow")
            calls = [client.call(number, timeout=50) for number in range(2)]
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(100)
            assert (handled, service.stats.discarded) == ([0], 1)

    run(main())


# ---- with pytest ----


def pytest_in(folder: Path, text: str, *options: str) -> str:
    """What pytest prints of a file of tests, in a process of its own where warnings are errors."""
    (folder / "test_it.py").write_text(text)
    program = [sys.executable, "-W", "error", "-m", "pytest", *QUIET]
    done = subprocess.run(
        [*program, "-W", "error", *options, "test_it.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_pytest_finds_the_fixtures_by_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = EntryPoint(
        "commlib", project["entry-points"]["pytest11"]["commlib"], "pytest11"
    ).load()
    for name in ("commlib_broker", "commlib_messages", "commlib_node"):
        assert getattr(module, name).__doc__


def test_the_example_of_the_page_passes(tmp_path: Path) -> None:
    ((_, text),) = FILE.findall((ROOT / "docs" / "testing.md").read_text())
    assert "2 passed" in pytest_in(tmp_path, text)


def test_a_program_that_has_imported_commlib_runs_its_tests_without_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_it.py").write_text("def test(commlib_broker): pass")
    text = f"""
import sys, commlib.node, pytest
sys.exit(pytest.main({[*QUIET, "-W", "error", "test_it.py"]}))
"""
    program = [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert b"1 passed" in done.stdout, done.stderr


def test_a_run_that_does_not_use_it_imports_next_to_nothing(tmp_path: Path) -> None:
    text = """
import sys

def test_it():
    ours = {name for name in sys.modules if name.partition(".")[0] == "commlib"}
    assert ours == {"commlib", "commlib._pytest"}
"""
    assert "1 passed" in pytest_in(tmp_path, text)


def test_each_test_has_a_broker_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    text = """
import os, threading
import pytest
from commlib.node import Node
from commlib.transports.memory import _brokers

before = os.environ.get("COMMLIB_URL")

@pytest.mark.parametrize("_", range(2))
def test_it_fails(_, commlib_broker, commlib_node, commlib_messages):
    assert os.environ["COMMLIB_URL"] == commlib_broker.url
    seen = commlib_messages("t")
    node = commlib_node("robot", heartbeats=False)
    Node("forgotten").run()
    node.create_publisher("t").publish(1)
    assert seen.messages == [1]
    seen.wait(2, timeout=0.01)

def test_nothing_is_left():
    assert os.environ.get("COMMLIB_URL") == before
    assert [t.name for t in threading.enumerate()] == ["MainThread"]
    assert not _brokers
"""
    printed = pytest_in(tmp_path, text)
    assert "2 failed, 1 passed" in printed
    assert "AssertionError: 1 of 2 messages on 't' within 0.01 s" in printed


def test_a_node_is_made_by_its_class_or_by_anything_that_makes_one(
    commlib_broker: MemoryBroker,
    commlib_node: Callable[..., Any],
    commlib_messages: Callable[..., Capture[Any]],
) -> None:
    class Robot(Node):
        def __init__(self, name: str, *, step: float) -> None:
            super().__init__(name)
            self.step = step

        def move(self) -> None:
            self.create_publisher("pose", Pose).publish(Pose(x=self.step))

    poses = commlib_messages("pose", Pose)
    commlib_node(Robot, "rover", step=0.5).move()
    commlib_node(lambda: Robot("second", step=1.5)).move()
    assert [pose.x for pose in poses] == [0.5, 1.5]
    assert repr(poses) == "<2 messages on 'pose'>"
    assert repr(commlib_broker) == f"<{commlib_broker.url}>"
