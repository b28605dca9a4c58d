"""Every program in examples/ runs against real brokers and does what its text says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brokers import Broker
from collected import eventually
from commlib.discovery import Discovery

EXAMPLES = Path(__file__).parent.parent / "examples"
LONGEST = 30.0

Start = Callable[..., "subprocess.Popen[str]"]

BROKERS = pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp"], indirect=True)


@pytest.fixture
def start(broker: Broker) -> Iterator[Start]:
    """Starts an example, and ends it with the test: their topics are always the same."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str, url: str = broker.url) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
            env={**os.environ, "COMMLIB_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen[str]) -> list[str]:
    """The lines that it prints until it has ended well."""
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def is_known(found: Discovery, process: subprocess.Popen[str]) -> bool:
    """Whether its node has been heard of: Ctrl-C finds it at work."""
    return any(node.pid == process.pid for node in found.nodes)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@BROKERS
def test_what_one_publishes_the_other_prints(start: Start) -> None:
    subscriber = start("pubsub_subscriber", "3")
    assert next_line(subscriber) == "waiting for robot.sonar.front"
    assert result(start("pubsub_publisher", "3")) == ["publishing on robot.sonar.front"]
    assert result(subscriber) == [f"obstacle at {m} m" for m in ("2.0", "2.1", "2.2")]


@BROKERS
def test_a_client_calls_a_service_until_a_signal_ends_that(start: Start) -> None:
    service = start("rpc_service")
    lines = result(start("rpc_client", "2"))
    assert lines == ["1 + 0 = 1", "1 + 1 = 2", "a hundred at once: 9900"]

    service.send_signal(signal.SIGTERM)
    assert result(service) == ["serving calculator.add_two_ints"]


@BROKERS
def test_a_robot_drives_in_asyncio(start: Start) -> None:
    lines = result(start("asyncio_node", "3"))
    assert lines == [
        *(f"the robot is at {metres} m" for metres in (1, 2, 3)),
        "it stopped at 3 m",
    ]


@BROKERS
def test_a_goal_is_followed_to_its_end_and_another_one_cancelled(start: Start) -> None:
    service = start("action_service")
    assert next_line(service) == "serving robot.drive"
    *way, arrived, stopped = result(start("action_client"))
    assert way == ["at 1 m", "at 2 m", "at 3 m"]
    assert arrived == "arrived after 3 m"
    assert re.fullmatch(r"stopped at \d+ m: CANCELED", stopped)
    service.send_signal(signal.SIGTERM)
    assert result(service) == []


@BROKERS
def test_a_bridge_leads_to_another_broker(start: Start) -> None:
    assert result(start("bridge")) == [
        "fleet.robot1.sensors.sonar.front: 1.5 m",
        "fleet.robot1.sensors.sonar.rear: 1.5 m",
        "1 + 2 = 3",
    ]


@BROKERS
def test_a_whole_robot_does_all_that_robots_do(start: Start) -> None:
    process = start("robot")
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, err
    assert out.splitlines() == [
        "it lives: True",
        "it looks ahead, seen at the station: 9.0 m",
        "speed: 0.5",
        "the far goal: CANCELED",
        "the near goal: 2.0 m",
        "event: {'by': 'rover-1'}",
    ]
    assert "taken over at" in err, "the robot's log"


SAYS = {
    "pubsub_subscriber": ["waiting for robot.sonar.front"],
    "pattern_subscriber": [
        "robot.sensors.sonar.front: 2.0 m",
        "robot.sensors.infrared: 0.1 m",
        "robot.sensors.sonar.front: 3.0 m",
    ],
    "node_decorators": ["set to 21.5 °C", "the heating is on", "the heating is off"],
    "event_emitter": [
        "bedroom.lights.on: TurnOn {'brightness': 10}",
        "bedroom.lights.off: TurnOff {}",
        "bedroom.lights.on: TurnOn {'brightness': 20}",
    ],
    "node_control": 2 * ["it lives", "it logs: it waves", "it is STOPPED", "it is RUNNING"],
    "asyncio_node": ["the robot is at 1 m", "the robot is at 2 m"],
}


@BROKERS
@pytest.mark.parametrize("name", SAYS)
def test_without_a_number_it_goes_on_until_ctrl_c(start: Start, name: str) -> None:
    process = start(name)
    assert [next_line(process) for _ in SAYS[name]] == SAYS[name]
    process.send_signal(signal.SIGINT)
    result(process)


@BROKERS
@pytest.mark.parametrize(
    "name", ["pattern_subscriber", "node_decorators", "event_emitter", "node_control"]
)
def test_with_a_number_it_ends_by_itself(start: Start, name: str) -> None:
    lines = result(start(name, "1"))
    assert lines == SAYS[name][: len(lines)]


@BROKERS
def test_a_client_that_waits_for_its_service_is_stopped_by_ctrl_c(
    start: Start, broker: Broker
) -> None:
    with Discovery(broker.url) as found:  # it prints nothing before somebody serves
        process = start("rpc_client")
        eventually(lambda: is_known(found, process))
    process.send_signal(signal.SIGINT)
    assert result(process) == []


@BROKERS
def test_a_client_whose_goal_nobody_takes_is_stopped_by_ctrl_c_or_told_so(
    start: Start, broker: Broker
) -> None:
    with Discovery(broker.url) as found:
        process = start("action_client")
        # There are brokers that tell at once that nobody is there.
        eventually(lambda: process.poll() is not None or is_known(found, process))
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)  # to one that has ended nothing is sent
    told = process.communicate(timeout=LONGEST)
    unserved = "nobody serves robot.drive; start action_service.py\n"
    assert (process.returncode, *told) in [(0, "", ""), (1, "", unserved)]


@BROKERS
@pytest.mark.parametrize(
    "name",
    [
        "action_client",
        "asyncio_node",
        "bridge",
        "node_control",
        "node_decorators",
        "robot",
        "rpc_client",
    ],
)
def test_who_needs_a_broker_says_so_and_ends(start: Start, broker: Broker, name: str) -> None:
    away = urlsplit(broker.with_options(connect_timeout=0.2))._replace(netloc="127.0.0.1:1")
    process = start(name, url=away.geturl())
    _, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "no broker; start one with: commlib broker"
    assert "Traceback" not in err


def test_every_example_is_listed_and_tested() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")} - {"messages.py"}
    page = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    assert [name for name in sorted(programs) if f"]({name})" not in page] == []
    assert [name for name in sorted(programs) if f'"{name.removesuffix(".py")}"' not in tests] == []
