"""How Mosquitto refuses messages.

What all brokers have alike is in tests/security.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers import MosquittoServer
from collected import Collected, eventually
from commlib import _session
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
    server = make_mosquitto(users=ROBOT, acl=["user robot", "topic readwrite allowed/#"])
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
