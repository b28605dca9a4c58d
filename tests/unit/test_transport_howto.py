"""The transports of examples/transport, made from nothing but the seven verbs, carry everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib.action import GoalHandler
from commlib.bridges import TopicBridge
from commlib.exceptions import EndpointClosed, RPCTimeout
from commlib.node import Node
from commlib.transports import base, resolve

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "transport"
PAGE = ROOT / "docs" / "transport.md"
FILE = re.compile(r'^```\w+ title="([\w./]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)

MakeNode = Callable[..., Node]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folder of the example and what pip would write of it, where Python finds both."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "commlib_transport_examples-1.0.dist-info"
    info.mkdir(parents=True)
    entries = project["entry-points"]["commlib.transports"]
    lines = [f"{scheme} = {module}" for scheme, module in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[commlib.transports]", *lines]))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
    places = [str(info.parent), str(EXAMPLE)]
    for place in places:
        monkeypatch.syspath_prepend(place)
    return places


@contextmanager
def parrot(port: int = 0) -> Iterator[str]:
    """Runs the broker of the example; gives its URL."""
    program = [sys.executable, "-W", "error", EXAMPLE / "parrot.py", str(port)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture(params=["notebook", "parrot"])
def broker(
    request: pytest.FixtureRequest, tmp_path: Path, installed: list[str]
) -> Iterator[Broker]:
    """Each broker of the example in turn."""
    if request.param == "notebook":
        yield Broker(f"notebook://{tmp_path}/notebook")
        return
    with parrot() as url:
        yield Broker(url)


# ---- what everything is made of ----


def test_the_scheme_leads_to_the_module_by_its_entry_point(broker: Broker) -> None:
    scheme = broker.url.partition("://")[0]
    params = resolve(broker.url)
    assert type(params).__module__ == f"commlib_{scheme}"
    assert str(params) == broker.url


def test_a_message_reaches_all_subscribers_and_patterns(make_node: MakeNode) -> None:
    one, other, publisher = make_node(), make_node(), make_node().create_mpublisher()
    exact, pattern, elsewhere = Collected(), Collected(), Collected()
    one.create_subscriber("sensors.sonar", exact)
    other.create_psubscriber("sensors.*", lambda msg, topic: pattern((topic, msg)))
    other.create_subscriber("sensors.son", elsewhere)
    for number in range(100):
        publisher.publish(number, "sensors.sonar")
    publisher.publish("end", "sensors.son")
    elsewhere.wait()
    assert exact.wait(100) == list(range(100))
    assert pattern.wait(101)[-1] == ("sensors.son", "end")
    assert elsewhere.items == ["end"]


def test_who_has_stopped_hears_no_more(make_node: MakeNode) -> None:
    node = make_node()
    first, second = Collected(), Collected()
    stopped, _ = node.create_subscriber("t", first), node.create_subscriber("t", second)
    publisher = node.create_publisher("t")
    publisher.publish(1)
    assert (first.wait(), second.wait()) == ([1], [1])
    stopped.stop()
    publisher.publish(2)
    assert second.wait(2) == [1, 2]
    assert first.items == [1]


def test_each_of_many_calls_is_answered_once_by_one_of_two_services(make_node: MakeNode) -> None:
    handled = Collected()

    def double(number: int) -> int:
        handled(number)
        return 2 * number

    for _ in range(2):
        make_node().create_rpc("double", double, workers=2)
    client = make_node().create_rpc_client("double")
    calls = [client.call_async(number, timeout=DEADLINE) for number in range(50)]
    assert [call.result(DEADLINE) for call in calls] == [2 * number for number in range(50)]
    assert sorted(handled.items) == list(range(50))


def test_a_call_that_nobody_answers_ends_in_time(make_node: MakeNode) -> None:
    with pytest.raises(RPCTimeout):
        make_node().create_rpc_client("nobody").call(1, timeout=0.1)


def test_a_goal_has_feedback_and_a_result(make_node: MakeNode) -> None:
    def drive(goal: GoalHandler) -> str:
        for metres in range(3):
            goal.send_feedback({"metres": metres})
        return "arrived"

    make_node().create_action("drive", on_goal=drive)
    goal = make_node().create_action_client("drive").send_goal({}, timeout=DEADLINE)
    assert [feedback["metres"] for feedback in goal.feedback] == [0, 1, 2]
    assert goal.result(timeout=DEADLINE) == "arrived"


def test_a_bridge_leads_to_another_broker_and_back(make_node: MakeNode, broker: Broker) -> None:
    far_url = f"memory://{broker.unique('far')}"
    near, far = make_node(), make_node(far_url)
    received, returned = Collected(), Collected()
    far.create_subscriber("far", received)
    near.create_subscriber("back", returned)
    with (
        TopicBridge(None, "near", "far", broker.url, far_url),
        TopicBridge(None, "far", "back", far_url, broker.url),
    ):
        near.create_publisher("near").publish({"x": 1})
        assert (received.first, returned.first) == ({"x": 1}, {"x": 1})


def test_after_its_end_nothing_can_be_published(make_node: MakeNode) -> None:
    node = make_node()
    publisher = node.create_publisher("t")
    node.stop()
    with pytest.raises(EndpointClosed):
        publisher.publish(1)


# ---- over a network ----


def test_what_the_broker_has_to_know_it_is_told_again_after_its_restart(
    installed: list[str],
) -> None:
    received = Collected()
    with parrot() as url:
        node = Node("robot", connection_params=url)
        node.create_subscriber("t", received)
        node.create_rpc("double", lambda number: 2 * number)
        node.run()
        publisher, client = node.create_publisher("t"), node.create_rpc_client("double")
        publisher.publish("before")
        assert received.first == "before"
    eventually(lambda: not node.connected)
    with parrot(int(url.rpartition(":")[2])), node:
        assert node.wait_connected(DEADLINE)
        publisher.publish("after")
        assert received.wait(2) == ["before", "after"]
        assert client.call(21, timeout=DEADLINE) == 42
        assert node.stats.reconnects == 1


# ---- the page ----


def test_the_demo_of_the_page_does_what_it_says(broker: Broker, installed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE / "demo.py", broker.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(installed)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"```\n{done.stdout}```\n" in PAGE.read_text()


def test_the_page_shows_the_files_as_they_are() -> None:
    shown = dict(FILE.findall(PAGE.read_text()))
    assert set(shown) == {"commlib_notebook.py", "notebook_broker.py", "pyproject.toml", "demo.py"}
    assert {name: (EXAMPLE / name).read_text() for name in shown} == shown


def test_the_transport_itself_has_some_sixty_lines() -> None:
    text = (EXAMPLE / "commlib_notebook.py").read_text()
    body = text.partition("class NotebookTransport")[2].partition("\n\n\nclass ")[0]
    lines = [line for line in body.splitlines() if line.strip() and line.strip()[0] not in '#"']
    assert len(lines) <= 60


# ---- what the protocol gives ----


class Bare(base.Transport):
    """A transport that has nothing of its own yet."""


async def test_a_transport_that_derives_from_the_protocol_has_what_many_need_nothing_for() -> None:
    bare = Bare()
    bare.abandon()
    await bare.flush()
    assert bare.clock() > 1_600_000_000_000
