"""The bridge programs of the README of commlib-py 0.6.3, from each kind of broker to each other."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collected import Collected, eventually
from commlib.msg import PubSubMessage
from commlib.node import Node

LONGEST = 30.0
SCHEMES = ("redis", "mqtt", "amqp")
PAIRS = list(itertools.permutations(SCHEMES, 2))

Start = Callable[[str], "subprocess.Popen[str]"]


class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"seed_{os.urandom(4).hex()}"


@pytest.fixture(params=PAIRS, ids="-".join)
def schemes(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What broker A and broker B speak."""
    a, b = request.param
    return a, b


@pytest.fixture
def exchanged(schemes: tuple[str, str]) -> dict[str, str]:
    """What stands in the programs for these two, and the third that they import."""
    return dict(zip(SCHEMES, [*schemes, *set(SCHEMES).difference(schemes)], strict=True))


@pytest.fixture
def broker_a(schemes: tuple[str, str], request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{schemes[0]}_server")


@pytest.fixture
def broker_b(schemes: tuple[str, str], request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{schemes[1]}_server")


@pytest.fixture
def producer(broker_a: Any) -> Iterator[Node]:
    """A node on broker A."""
    with Node("producer", connection_params=broker_a.url) as node:
        yield node


@pytest.fixture
def consumer(broker_b: Any) -> Iterator[Node]:
    """A node on broker B."""
    with Node("consumer", connection_params=broker_b.url) as node:
        yield node


@pytest.fixture
def start(
    broker_a: Any, broker_b: Any, name: str, find_program: Callable[[str], Path]
) -> Iterator[Start]:
    """Starts a program with both ports, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        ports = str(broker_a.port), str(broker_b.port)
        process = subprocess.Popen(
            [sys.executable, find_program(program), *ports, name],
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


@pytest.fixture
def bridges(start: Start) -> subprocess.Popen[str]:
    """The first program, as soon as its bridges run."""
    process = start("bridges")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def test_a_client_at_broker_a_is_answered_by_the_service_at_broker_b(
    bridges: subprocess.Popen[str], producer: Node, consumer: Node, name: str
) -> None:
    got = Collected()

    def start_navigation(request: dict[str, int]) -> dict[str, bool]:
        got(request)
        return {"started": True}

    consumer.create_rpc(f"{name}.thing.robotA.ops.start_navigation", start_navigation)
    client = producer.create_rpc_client(f"{name}.ops.start_navigation")

    assert client.call({"goal": 5}, timeout=LONGEST) == {"started": True}
    assert got.items == [{"goal": 5}]


def test_what_is_published_at_broker_a_is_received_at_broker_b(
    bridges: subprocess.Popen[str], producer: Node, consumer: Node, name: str
) -> None:
    got = Collected()
    consumer.create_subscriber(f"{name}.thing.robotA.sensors.sonar.font", got, SonarMessage)
    publisher = producer.create_publisher(f"{name}.sonar.front", SonarMessage)

    for n in range(10):
        publisher.publish(SonarMessage(distance=n))

    assert [msg.distance for msg in got.wait(10)] == list(range(10))


def test_a_pattern_of_broker_a_is_a_namespace_of_broker_b_until_a_signal(
    start: Start, producer: Node, consumer: Node, name: str
) -> None:
    got = Collected()
    consumer.create_psubscriber(f"{name}.myrobot.*", got, SonarMessage)
    program = start("pattern_bridge")
    publisher = producer.create_mpublisher(SonarMessage)

    def arrives() -> bool:
        publisher.publish(SonarMessage(distance=1.5), f"{name}.sensors.sonar.front")
        return bool(got.items)

    eventually(arrives)
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=LONGEST)

    assert got.first == (
        SonarMessage(distance=1.5),
        f"{name}.myrobot.{name}.sensors.sonar.front",
    )
    assert program.returncode == 0
    assert "the bridge type is not used" not in err
