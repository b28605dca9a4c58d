"""`commlib event` as its user sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from announced import announced, answering_at_once
from brokers import Broker
from collected import Collected
from commands import parsed, refused, succeeded
from commlib.events import Event
from commlib.msg import PubSubMessage
from commlib.node import Node

URL = "memory://cli-event"


class Bell(PubSubMessage):
    name: str = ""
    loudness: int = 0


@pytest.fixture(autouse=True, scope="module")
def _answers_come_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        answering_at_once(patch)
        yield


@contextmanager
def listening(url: str, topic: str) -> Iterator[Collected]:
    """What comes as events on a topic."""
    got = Collected()
    node = Node("porter", connection_params=url, discovery=False)
    node.create_subscriber(topic, got, msg_type=Event)
    with node:
        yield got


def test_an_event_is_told_to_who_listens(broker: Broker, topic: str) -> None:
    uri = f"{topic}.bell"
    with listening(broker.url, uri) as got:
        options = ("--name", "Ring", "--description", "somebody rings", "--no-check")
        assert succeeded(broker.url, "event", "emit", uri, "who: a friend", *options) == ""
        assert got.first == Event(
            name="Ring", uri=uri, description="somebody rings", payload={"who": "a friend"}
        )


def test_an_event_has_the_last_word_of_its_address_for_a_name_and_no_payload() -> None:
    with listening(URL, "door.bell") as got:
        sent = parsed(URL, "event", "emit", "door.bell", "--no-check")
        assert sent == {"name": "bell", "uri": "door.bell", "description": "", "payload": {}}
        assert got.first == Event(name="bell", uri="door.bell")


def test_listeners_that_understand_it_get_it_and_others_are_named() -> None:
    got, porter = Collected(), Node("porter", connection_params=URL)
    porter.create_subscriber("house.*", got, msg_type=Event)
    strange = Node("gong", connection_params=URL)
    strange.create_subscriber("house.gong", lambda msg: None, msg_type=Bell)
    with announced(URL, porter, strange):
        succeeded(URL, "event", "emit", "house.bell")
        assert got.first == Event(name="bell", uri="house.bell")
        said = refused(URL, "event", "emit", "house.gong")
    assert said.startswith("Error: the message is not what house.gong on gong (pid ")
    assert "  uri: there is no such field; it has name, loudness\n" in said
    assert len(got.items) == 1, "the other one was not sent"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("door.bell", "5"),
            "Error: the payload of an event is an object, such as 'who: a friend'",
        ),
        (("door.bell", "{a: ["), "Error: neither JSON nor YAML: "),
        (("door.*",), "Error: "),
        (("",), "Error: "),
    ],
)
def test_what_is_no_event_is_refused_in_one_line(arguments: tuple[str, ...], error: str) -> None:
    said = refused(URL, "event", "emit", *arguments, "--no-check", status=2)
    assert said.startswith(error)
    assert "\n" not in said
