"""Several brokers in one set of parameters."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from commlib._params import NetworkParameters
from commlib.bridges import TopicBridge
from commlib.pubsub import Publisher
from commlib.transports import redis, resolve


def places(params: Any) -> list[str]:
    assert isinstance(params, NetworkParameters)
    return [each.place for each in params.each_place()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://one", ["one:6379"]),
        ("redis://one?fallbacks=two:7000,three", ["one:6379", "two:7000", "three:6379"]),
        (["mqtt://one", "mqtt://two:1884"], ["one:1883", "two:1884"]),
        (("amqp://u:p@one/v", "amqp://u:p@[::1]:5/v"), ["one:5672", "[::1]:5"]),
        (
            ["mqtt://[fe80::1%25eth0]", "mqtt://[fe80::2%25]:5"],
            ["[fe80::1%25eth0]:1883", "[fe80::2%2525]:5"],
        ),
        (redis.ConnectionParameters("one", fallbacks=["two"], db=3), ["one:6379", "two:6379"]),
    ],
)
def test_brokers_that_stand_in_are_told_by_a_list_or_an_option(
    given: Any, expected: list[str]
) -> None:
    assert places(resolve(given)) == expected


def test_all_but_the_place_is_the_same_for_each() -> None:
    params = redis.ConnectionParameters("one", db=3, password="pw", fallbacks="two,three:1")
    assert [(each.db, each.credentials) for each in params.each_place()] == [(3, ("", "pw"))] * 3
    assert "pw" not in repr(params.each_place())


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="none"),
        pytest.param((), id="none either"),
        pytest.param(["memory://", "memory://"], id="no network"),
        pytest.param(["redis://one", "mqtt://two"], id="kinds"),
        pytest.param(["redis://one/1", "redis://one/2"], id="databases"),
        pytest.param(["redis://:pw@one", "redis://two"], id="passwords"),
    ],
)
def test_brokers_that_differ_in_more_than_their_place_are_refused(given: list[str]) -> None:
    with pytest.raises(ValueError, match="list") as caught:
        resolve(given)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("fallback", ["", ":5", "two:port", "two:70000", "me@two", "two/3"])
def test_a_fallback_that_is_no_place_is_refused(fallback: str) -> None:
    with pytest.raises(ValueError, match="'host' or 'host:port'"):
        redis.ConnectionParameters("one", fallbacks=[fallback])


def test_a_socket_has_no_fallback() -> None:
    with pytest.raises(ValueError, match="through a network"):
        redis.ConnectionParameters(unix_socket="/run/redis.sock", fallbacks=["two"])


def test_waiting_for_a_connection_has_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = Publisher("topic", conn_params=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        assert not publisher.wait_connected(0.05)
        publisher.stop()


def test_the_two_sides_of_a_bridge_have_no_broker_in_common() -> None:
    sides = ["redis://one", "redis://two"]
    with pytest.raises(ValueError, match="their fallbacks must differ"):
        TopicBridge(None, "here", "there", sides, sides[::-1])


def test_an_empty_list_is_not_the_broker_of_this_machine() -> None:
    with pytest.raises(ValueError, match="a list of brokers: at least one"):
        Publisher("topic", conn_params=[])
