"""Aggregation: what becomes of messages on their way through the functions of a program."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collected import Collected, eventually
from commlib.aggregation import TopicAggregator, TopicMessageProcessor
from commlib.node import Node

Data = dict[str, Any]
Run = Callable[[TopicMessageProcessor | TopicAggregator], None]


@pytest.fixture
def url() -> str:
    return f"memory://{os.urandom(4).hex()}"


@pytest.fixture
def node(url: str) -> Iterator[Node]:
    with Node("user", connection_params=url) as node:
        yield node


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs something for the rest of the test."""
    running: list[TopicMessageProcessor | TopicAggregator] = []

    def run(what: TopicMessageProcessor | TopicAggregator) -> None:
        running.append(what)
        what.run()

    yield run
    for what in running:
        what.stop()


def celsius(data: Data) -> Data:
    return {"celsius": data["kelvin"] - 273}


def text(data: Data) -> str:
    return str(data)


def rounded(data: Data) -> Data:
    return {"celsius": round(data["celsius"], -1)}


def test_each_function_gets_what_the_one_before_has_returned_and_each_result_is_published(
    url: str, node: Node, run: Run
) -> None:
    got = Collected()
    node.create_subscriber("out", got)
    run(TopicMessageProcessor(url, "in", "out", [celsius, rounded]))
    node.create_publisher("in").publish({"kelvin": 296})
    assert got.wait(2) == [{"celsius": 23}, {"celsius": 20}]


def test_many_topics_become_one_each_by_its_own_functions(url: str, node: Node, run: Run) -> None:
    got = Collected()
    node.create_subscriber("all", got)
    run(
        TopicAggregator(
            broker_params=url,
            input_topics=["a.*", "b", "c"],
            output_topic="all",
            data_processors={"a.*": [celsius], "b": [lambda data: {"b": data["n"]}]},
        )
    )
    publisher = node.create_mpublisher()
    publisher.publish({"n": 0}, "c")
    publisher.publish({"kelvin": 300}, "a.front")
    publisher.publish({"n": 1}, "b")
    got.wait(2)
    assert sorted(got.items, key=str) == [{"b": 1}, {"celsius": 27}], "c has no functions"


def test_a_function_that_fails_or_returns_no_dict_is_passed_over(
    url: str, node: Node, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    node.create_subscriber("out", got)

    def fail(data: Data) -> Data:
        raise KeyError("kelvin")

    processor = TopicMessageProcessor(url, "in", "out", [fail, lambda data: 5, text, celsius])
    run(processor)
    publisher = node.create_publisher("in")
    for _ in range(3):
        publisher.publish({"kelvin": 300})
    assert got.wait(3) == [{"celsius": 27}] * 3
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 3, "each once"
    assert "in: the callback failed: 'kelvin'" in said[0]
    assert "has returned int, no dict" in said[1]
    assert "has returned str, no dict" in said[2]
    [subscriber] = processor.node.input_ports["subscriber"]
    assert subscriber.stats.errors == 9


def test_a_pattern_that_matches_the_output_feeds_nothing_back(
    url: str, node: Node, run: Run
) -> None:
    got = Collected()
    node.create_subscriber("x.out", got)
    run(TopicMessageProcessor(url, "x.*", "x.out", [lambda data: {"n": data["n"] + 1}]))
    publisher = node.create_publisher("x.in")
    publisher.publish({"n": 0})
    publisher.publish({"n": 10})
    assert got.wait(2) == [{"n": 1}, {"n": 11}]


def test_start_runs_until_stop(url: str, node: Node) -> None:
    got = Collected()
    node.create_subscriber("out", got)
    processor = TopicMessageProcessor(url, "in", "out", [celsius])
    thread = threading.Thread(target=processor.start)
    thread.start()
    publisher = node.create_publisher("in")

    def arrives() -> bool:
        publisher.publish({"kelvin": 300})
        return bool(got.items)

    eventually(arrives)
    processor.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_topic_is_not_made_from_itself(url: str) -> None:
    with pytest.raises(ValueError, match="'in' would be made from itself"):
        TopicMessageProcessor(url, "in", "in", [celsius])
    with pytest.raises(ValueError, match="'in' would be made from itself"):
        TopicAggregator(url, ["far", "in"], "in")


@pytest.mark.parametrize("processors", [celsius, [5], [celsius, None]])
def test_what_are_no_functions_is_refused_at_once(url: str, processors: Any) -> None:
    with pytest.raises(TypeError, match="'in' are a list of functions"):
        TopicMessageProcessor(url, "in", "out", processors)
    with pytest.raises(TypeError, match="'in' are a list of functions"):
        TopicAggregator(url, ["in"], "out", {"in": processors})


def test_functions_for_a_topic_that_is_not_received_are_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"'sonar.q' is none of .* mean sonar\.\*"):
        TopicAggregator(url, ["sonar.*"], "out", {"sonar.q": [celsius]})


def test_one_topic_is_no_list_of_them(url: str) -> None:
    with pytest.raises(TypeError, match=r"input_topics='sonar\.\*': it is a list"):
        TopicAggregator(url, "sonar.*", "out", {"sonar.*": [celsius]})


def test_names_that_are_none_are_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="output_topic"):
        TopicMessageProcessor(url, "in", "out.*", [])
    with pytest.raises(ValueError, match="whole words"):
        TopicAggregator(url, ["in", "a*c"], "out")
