"""How Mosquitto refuses messages.

What all brokers have alike is in tests/security.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers import MosquittoServer
from collected import Collected, eventually
from commlib import _session
from commlib.aio import _rights
from commlib.node import Node

MakeMosquitto = Callable[..., MosquittoServer]

ROBOT = {"robot": "s3cret"}


def test_a_user_who_may_not_publish_is_counted_and_logged_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_mosquitto(users=ROBOT, acl=["user robot", "topic readwrite allowed/#"])
    with Node("n", connection_params=server.url_as("robot"), heartbeats=False) as node:
        publisher = node.create_publisher("forbidden", qos=1)
        for number in range(5):
            publisher.publish({"n": number})
            # One by one: Mosquitto 2.0.11 closes the connection for each of them.
            eventually(lambda number=number: publisher.stats.rejected == number + 1)
        assert caplog.text.count("not authorized") == 1


def test_what_may_not_be_published_takes_nothing_else_with_it(
    make_mosquitto: MakeMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mosquitto 2.0.11 ends ten connections here, and the pauses between them grow.
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 0.05)
    rights = ["allowed/#", "commlib/discovery/#"]
    acl = ["user robot", *(f"topic readwrite {topic}" for topic in rights)]
    server = make_mosquitto(users=ROBOT, acl=acl)
    url, seen = server.url_as("robot"), Collected()
    with (
        Node("spy", connection_params=url, heartbeats=False) as spy,
        Node("n", connection_params=url, heartbeats=False) as node,
    ):
        spy.create_subscriber("allowed.numbers", seen)
        publisher = node.create_publisher("allowed.numbers", qos=1)
        forbidden = node.create_publisher("forbidden", qos=1)
        for number in range(100):
            if number % 20 == 10:
                forbidden.publish(number)
            publisher.publish(number)
        eventually(lambda: set(seen.items) == set(range(100)), lambda: publisher.stats)


def test_a_broker_that_ends_the_connection_of_who_tells_of_himself_does_so_a_few_times(
    make_mosquitto: MakeMosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Mosquitto 2.0.11 with a file of rights does; others drop what may not be published.
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(_rights, "CALM_SECONDS", 0.05)
    server = make_mosquitto(users=ROBOT, acl=["user robot", "topic readwrite allowed/#"])
    url, seen = server.url_as("robot"), Collected()
    ends = ends_connections(url)
    with Node("n", connection_params=url, heartbeats=False) as node:
        node.create_subscriber("allowed.numbers", seen)
        publisher = node.create_publisher("allowed.numbers")
        if ends:
            eventually(lambda: "no discovery" in caplog.text)
            eventually(lambda: node.connected)
        reconnects = publisher.stats.reconnects
        assert reconnects <= _rights.STRIKES
        for number in range(100):
            node.create_publisher(f"allowed.more{number}").publish(number)
            publisher.publish(number)
        assert seen.until(99) == list(range(99))
        assert publisher.stats.reconnects == reconnects
    assert caplog.text.count("no discovery") == ends


def ends_connections(url: str) -> bool:
    """Whether this broker ends the connection of who publishes what he may not."""
    seen = Collected()
    with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
        node.create_subscriber("allowed.end", seen)
        node.create_publisher("forbidden").publish(1)
        last = node.create_publisher("allowed.end")
        eventually(lambda: bool(seen.items) or bool(last.publish(1)))
        return last.stats.reconnects > 0
