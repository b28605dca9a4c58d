"""Several brokers that stand in for one another: when one has gone, the next one is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from brokers import Server
from collected import DEADLINE, Collected, eventually
from commlib._params import BaseParameters
from commlib.node import Node
from commlib.transports import resolve

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds


class Pair:
    """A node that publishes and calls, and one that listens and serves; or one that does it all."""

    def __init__(self, params: list[BaseParameters], *, apart: bool = True) -> None:
        self.got = Collected()
        self.base = Node("base", connection_params=params)
        self.base.create_subscriber("number", self.got)
        self.base.create_rpc("double", lambda request: 2 * request)
        self.far = Node("far", connection_params=params) if apart else self.base
        self.publisher = self.far.create_publisher("number")
        self.client = self.far.create_rpc_client("double")

    def run(self) -> None:
        self.base.run()
        self.far.run()

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
def make_pair() -> Iterator[Callable[..., Pair]]:
    """Makes the two nodes, which begin to connect at once."""
    pairs: list[Pair] = []

    def make(servers: list[Server], *, apart: bool = True, **options: Any) -> Pair:
        params = [replace(resolve(server.url), **options) for server in servers]
        pairs.append(Pair(params, apart=apart))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.far.stop()
        pair.base.stop()


MakePair = Callable[..., Pair]


def test_the_next_broker_is_used_when_one_dies_and_the_first_one_after_that(
    make_pair: MakePair, servers: list[Server]
) -> None:
    first, second = servers
    pair = make_pair(servers)
    pair.run()
    pair.check(1)
    first.kill()
    eventually(lambda: pair.far.stats.reconnects == 1)
    pair.check(2)
    first.start()
    second.kill()
    eventually(lambda: pair.far.stats.reconnects == 2)
    pair.check(3)


@pytest.mark.parametrize("reconnect", [True, False])
def test_the_first_broker_may_be_away_from_the_beginning(
    make_pair: MakePair, servers: list[Server], reconnect: bool
) -> None:
    servers[0].kill()
    pair = make_pair(servers, reconnect=reconnect)
    pair.run()
    pair.check(1)
    assert pair.far.stats.reconnects == 0


def test_a_broker_that_hangs_and_goes_on_divides_no_node(
    make_pair: MakePair, servers: list[Server]
) -> None:
    first, _ = servers
    first.freeze()
    pair = make_pair(servers, apart=False, connect_timeout=3.0)
    running = threading.Thread(target=pair.run)
    running.start()
    eventually(lambda: pair.base.connected)
    first.thaw()
    running.join()
    pair.check(1)
    # All connections of the node are with the second one: nothing happens to them.
    first.kill()
    pair.check(2)
    assert pair.base.stats.reconnects == 0
