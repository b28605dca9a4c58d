"""Several brokers that stand in for one another: when one has gone, the next one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from brokers import Server
from collected import DEADLINE, Collected, eventually
from commlib.node import Node

MakeServer = Callable[..., Server]


class Pair:
    """A node that publishes and calls, and one that listens and serves."""

    def __init__(self, urls: list[str]) -> None:
        self.got = Collected()
        self.base = Node("base", connection_params=urls)
        self.base.create_subscriber("number", self.got)
        self.base.create_rpc("double", lambda request: 2 * request)
        self.far = Node("far", connection_params=urls)
        self.publisher = self.far.create_publisher("number")
        self.client = self.far.create_rpc_client("double")

    def check(self, number: int) -> None:
        """What is published arrives, and what is called answers."""

        def arrives() -> bool:
            self.publisher.publish(number)
            return number in self.got.items

        assert self.base.wait_connected(DEADLINE)
        assert self.far.wait_connected(DEADLINE)
        eventually(arrives)
        assert self.client.call(number, timeout=DEADLINE) == 2 * number


@pytest.fixture
def servers(make_server: MakeServer) -> list[Server]:
    return [make_server(), make_server()]


@pytest.fixture
def pair(servers: list[Server]) -> Iterator[Pair]:
    pair = Pair([server.url for server in servers])
    yield pair
    pair.far.stop()
    pair.base.stop()


def run(pair: Pair) -> None:
    pair.base.run()
    pair.far.run()


def test_the_next_broker_is_used_when_one_dies_and_the_first_one_after_that(
    pair: Pair, servers: list[Server]
) -> None:
    first, second = servers
    run(pair)
    pair.check(1)
    first.kill()
    eventually(lambda: pair.far.stats.reconnects == 1)
    pair.check(2)
    first.start()
    second.kill()
    eventually(lambda: pair.far.stats.reconnects == 2)
    pair.check(3)


def test_the_first_broker_may_be_away_from_the_beginning(pair: Pair, servers: list[Server]) -> None:
    servers[0].kill()
    run(pair)
    pair.check(1)
    assert pair.far.stats.reconnects == 0
