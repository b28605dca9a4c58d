"""`commlib node` as its user sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from announced import answering_at_once
from brokers import Broker
from collected import DEADLINE
from commlib._discovery import ANNOUNCE, EndpointInfo, NodeInfo
from commlib.cli._main import commlib
from commlib.cli.node import find, quality
from commlib.msg import PubSubMessage
from commlib.node import Node
from raw_peer import RawPeer

NOBODY = ("--wait", "0.1")  # where no node answers


class Sonar(PubSubMessage):
    distance: float = 0.0


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)


@pytest.fixture
def robot(url: str) -> Iterator[Node]:
    """A node that answers those who ask."""
    with _robot(url) as node:
        yield node


class _robot:
    """A running node with two ports; it is there as soon as it has told others of itself."""

    def __init__(self, url: str) -> None:
        self._raw, self._node = RawPeer(url), Node("robot", url, heartbeats=False)

    def __enter__(self) -> Node:
        told = self._raw.subscribe(ANNOUNCE)
        self._node.create_publisher("sonar", msg_type=Sonar)
        self._node.create_subscriber("sonar", print, msg_type=Sonar)
        self._node.run()
        told.wait()
        return self._node

    def __exit__(self, *exc_info: object) -> None:
        self._node.stop()
        self._raw.close()


def run(url: str, *arguments: str) -> Result:
    """What `commlib node` does; it is patient with nodes unless told otherwise."""
    wait = () if "--wait" in arguments else ("--wait", str(DEADLINE))
    result = CliRunner().invoke(commlib, ["node", *arguments, *wait, "--url", url])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def printed(result: Result) -> str:
    """What it has printed, if it went well."""
    assert result.exit_code == 0, result.output
    return result.stdout


# ---- commands ----


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp"], indirect=True)
def test_a_node_is_listed_and_answers_on_every_broker(broker: Broker) -> None:
    with _robot(broker.url):
        found = json.loads(printed(run(broker.url, "list", "--json")))
        (node,) = (each for each in found if each["name"] == "robot")
        told = json.loads(printed(run(broker.url, "ping", node["id"], "-c", "1", "--json")))
    assert told["id"] == node["id"]
    assert told["round_trip_ms"][0] > 0


def test_nodes_are_listed_with_where_they_run_and_how_many_ports_they_have(
    url: str, robot: Node
) -> None:
    head, row = printed(run(url, "list")).splitlines()
    assert head.split() == ["NODE", "ID", "HOST", "PID", "PORTS", "SINCE"]
    assert row.split()[0] == "robot"
    assert row.split()[4] == "2"


def test_info_shows_the_ports_of_a_node(url: str, robot: Node) -> None:
    lines = printed(run(url, "info", "robot")).splitlines()
    assert lines[0].startswith("robot, id ")
    assert [line.split() for line in lines[3:]] == [
        ["publisher", "sonar", "Sonar", "0"],
        ["subscriber", "sonar", "Sonar"],
    ]
    (told,) = json.loads(printed(run(url, "info", "robot", "--json")))
    assert [port["kind"] for port in told["endpoints"]] == ["publisher", "subscriber"]


@pytest.mark.parametrize("what", ["info", "ping"])
def test_a_node_that_does_not_answer_is_an_error(url: str, what: str) -> None:
    result = run(url, what, "robot", *NOBODY)
    assert result.exit_code == 1
    assert "no node 'robot' answers; known are: none" in result.stderr


def test_ping_tells_each_answer(url: str, robot: Node) -> None:
    lines = printed(run(url, "ping", "robot", "-c", "2")).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("robot (pid") and line.endswith(" ms") for line in lines)


def test_that_nobody_answers_is_told_beside_the_output(url: str) -> None:
    result = run(url, "list", *NOBODY)
    assert printed(result) == ""
    assert "no node answers" in result.stderr


def test_nodes_are_found_by_name_or_id() -> None:
    one, two = NodeInfo("robot", "a"), NodeInfo("robot", "b")
    assert find([one, two], "robot") == [one, two]
    assert find([one, two], "b") == [two]
    with pytest.raises(click.ClickException, match=r"did you mean robot\?$"):
        find([one, two], "rob")


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (EndpointInfo("publisher", "t", qos=1, retain=True), "1, retained"),
        (EndpointInfo("publisher", "t"), "0"),
        (EndpointInfo("subscriber", "t"), ""),
    ],
)
def test_only_publishers_have_a_quality(port: EndpointInfo, text: str) -> None:
    assert quality(port) == text
