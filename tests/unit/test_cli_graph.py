"""`commlib graph`: what is drawn, in which language, and what becomes of strange names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from announced import announced, answering_at_once
from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib.cli import _drawing, graph
from commlib.cli._drawing import Arrow, Drawing, as_dot, as_mermaid
from commlib.cli._main import commlib
from commlib.msg import ActionMessage
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Traits

NOBODY = ("--wait", "0.1")  # where there is no node, so that none is waited for
WEIRD = 'a"b\\N #1; <i>&lt;`x`</i> {c} |[d](e)\n'
DOT = f"""#!{sys.executable}
import sys
given = sys.stdin.read()
assert "-Tsvg" in sys.argv and given.startswith("digraph"), sys.argv
sys.exit(given) if "wrong" in given else print("<svg>drawn</svg>")
"""


class Drive(ActionMessage):
    pass


def node(name: str, *ports: tuple[Kind, str], id: str = "") -> NodeInfo:
    """What a node tells that has these ports."""
    endpoints = tuple(EndpointInfo(kind, port) for kind, port in ports)
    return NodeInfo(name=name, id=id or name, host="here", pid=7, endpoints=endpoints)


def draw(nodes: list[NodeInfo], broker: str = "redis") -> Drawing:
    """The drawing of what these nodes tell on a broker of a kind."""
    traits: Traits = resolve(f"{broker}://x").make_transport().traits
    return _drawing.draw(nodes, traits)


def arrows(drawing: Drawing) -> set[tuple[str, str]]:
    """The arrows, by the labels of what they join."""
    labels = {box.id: box.label for box in drawing.boxes}
    return {(labels[arrow.start], labels[arrow.end]) for arrow in drawing.arrows}


# ---- what is drawn ----


def test_arrows_go_as_messages_requests_and_goals_do() -> None:
    drawing = draw(
        [
            node("robot", ("publisher", "sonar"), ("service", "add"), ("action", "drive")),
            node("pilot", ("subscriber", "sonar"), ("client", "add"), ("action_client", "drive")),
        ]
    )
    assert arrows(drawing) == {
        *(("robot", "sonar"), ("sonar", "pilot")),
        *(("pilot", "add"), ("add", "robot"), ("pilot", "drive"), ("drive", "robot")),
    }


def test_what_several_nodes_name_is_one_box() -> None:
    many = [node(f"n{index}", ("publisher", "t"), id=str(index)) for index in range(3)]
    drawing = draw(many)
    assert [box.label for box in drawing.boxes if box.shape == "topic"] == ["t"]
    assert len(drawing.arrows) == 3


def test_a_topic_and_a_service_of_one_name_are_two_boxes() -> None:
    drawing = draw([node("n", ("publisher", "same"), ("service", "same"))])
    assert [box.shape for box in drawing.boxes] == ["node", "topic", "service"]


def test_nodes_of_one_name_are_told_apart() -> None:
    labels = {box.label for box in draw([node("n", id="a1"), node("n", id="b2")]).boxes}
    assert labels == {"n (pid 7 on here), id a1", "n (pid 7 on here), id b2"}


def test_a_pattern_is_joined_to_the_topics_that_it_takes() -> None:
    drawing = draw(
        [
            node("robot", ("publisher", "sonar.front"), ("publisher", "battery")),
            node("pilot", ("subscriber", "sonar.*")),
        ]
    )
    assert ("sonar.front", "sonar.*") in arrows(drawing)
    assert ("battery", "sonar.*") not in arrows(drawing)
    assert [arrow.matches for arrow in drawing.arrows].count(True) == 1


def test_names_and_wildcards_are_those_of_the_broker() -> None:
    nodes = [
        node("robot", ("publisher", "sonar/front"), ("publisher", "sonar.back")),
        node("pilot", ("subscriber", "sonar/+"), ("subscriber", "sonar.front")),
    ]
    shapes = [box.shape for box in draw(nodes, "mqtt").boxes]
    assert (shapes.count("topic"), shapes.count("pattern")) == (2, 1)
    assert {("sonar/front", "sonar/+"), ("sonar.back", "sonar/+"), ("sonar/front", "pilot")} <= (
        arrows(draw(nodes, "mqtt"))
    )
    shapes = [box.shape for box in draw(nodes, "redis").boxes]
    assert (shapes.count("topic"), shapes.count("pattern")) == (4, 0)


def test_a_publisher_of_any_topic_is_no_topic_called_star() -> None:
    drawing = draw([node("n", ("publisher", "*"))])
    assert [(box.shape, box.label) for box in drawing.boxes][1] == ("pattern", "any topic")


# ---- how it is spelled ----


def test_dot_has_each_box_and_arrow_on_a_line() -> None:
    text = as_dot(draw([node("robot", ("publisher", "sonar"))]))
    assert 'node0 [label="robot", shape=box' in text
    assert 'topic1 [label="sonar", shape=ellipse];' in text
    assert "node0 -> topic1;" in text


def test_no_name_gets_out_of_its_quotes_in_dot() -> None:
    text = as_dot(draw([node(WEIRD)]))
    line = next(line for line in text.splitlines() if "label=" in line)
    inside = line.partition('label="')[2].rpartition('", shape')[0]
    assert inside.startswith('a\\"b\\\\N #1; <i>&amp;lt;')
    assert inside.endswith("\N{REPLACEMENT CHARACTER}")


def test_mermaid_writes_what_means_something_to_it_by_number() -> None:
    text = as_mermaid(draw([node(WEIRD)]))
    inside = text.partition('node0["')[2].partition('"]')[0]
    assert not set('"\\<>`{}|[];') & set(inside.replace("#", ";").split(";")[0])
    assert inside.startswith("a#34;b#92;N #35;1#59; #60;i#62;")


def test_mermaid_draws_what_only_matches_with_dashes() -> None:
    drawing = Drawing(draw([node("n", ("publisher", "t"))]).boxes, [Arrow("topic1", "node0", True)])
    assert "topic1 -.-> node0" in as_mermaid(drawing)


# ---- the command ----


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)


@pytest.fixture
def robot(url: str) -> Iterator[Node]:
    """A node with a topic and an action."""
    node = Node("robot", connection_params=url, heartbeats=False)
    node.create_publisher("sonar")
    node.create_action("drive", Drive, lambda goal: Drive.Result())
    with announced(url, node):
        yield node


@pytest.fixture
def put_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this the only program of the PATH, called dot; nothing if it is empty."""

    def put(program: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if program:
            (folder / "dot").write_text(program)
            (folder / "dot").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def run(url: str, *words: str) -> Result:
    """`commlib graph` on this broker."""
    return CliRunner().invoke(commlib, ["graph", "--url", url, *words], catch_exceptions=False)


def test_an_action_is_drawn_as_one(url: str, robot: Node) -> None:
    result = run(url)
    assert result.exit_code == 0
    labels = [line for line in result.stdout.splitlines() if "label=" in line]
    assert len(labels) == 3
    assert any('"drive", shape=box, peripheries=2' in line for line in labels)


def test_json_has_the_boxes_and_the_arrows(url: str, robot: Node) -> None:
    found = json.loads(run(url, "--json").stdout)
    assert {box["label"] for box in found["boxes"]} == {"robot", "sonar", "drive"}
    assert len(found["arrows"]) == 2


def test_the_name_of_the_file_says_the_format(url: str, robot: Node, tmp_path: Path) -> None:
    file = tmp_path / "system.mmd"
    result = run(url, "-o", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.read_text().startswith("flowchart LR\n")


def test_a_file_that_cannot_be_written_is_told(url: str, tmp_path: Path) -> None:
    result = run(url, "-o", str(tmp_path / "no" / "such.dot"), *NOBODY)
    assert result.exit_code == 1
    assert "such.dot: No such file or directory" in result.stderr


def test_an_svg_is_what_dot_draws(url: str, put_dot: Callable[[str], None]) -> None:
    put_dot(DOT)
    assert run(url, "--format", "svg", *NOBODY).stdout == "<svg>drawn</svg>\n"


def test_without_dot_it_says_how_to_get_it(url: str, put_dot: Callable[[str], None]) -> None:
    put_dot("")
    result = run(url, "--format", "svg", *NOBODY)
    assert result.exit_code == 1
    assert "apt-get install graphviz" in result.stderr


def test_what_dot_complains_of_is_told(url: str, put_dot: Callable[[str], None]) -> None:
    put_dot(DOT)
    with announced(url, Node("wrong", connection_params=url, heartbeats=False)):
        result = run(url, "--format", "svg")
    assert result.exit_code == 1
    assert "dot has failed: digraph" in result.stderr


def test_a_dot_that_does_not_end_is_given_up(
    url: str, put_dot: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "DOT_SECONDS", 0.1)
    put_dot(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    result = run(url, "--format", "svg", *NOBODY)
    assert result.exit_code == 1
    assert "not done" in result.stderr
